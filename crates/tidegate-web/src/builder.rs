//! `WebBuilder`: what a web service serves, said step by step and checked at the end.
//!
//! Invariant: a [`Web`] that was built can serve: its root is open, and its fixed answers are written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_http::{HeadLimits, Status, is_field_value};

use crate::encoded::{Content, Encoded};
use crate::files::{Files, FilesError, FilesOptions};
use crate::response::DEFAULT_CONTENT_TYPE;
use crate::routes::{Handler, Route, Routes};
use crate::session::Limits;
use crate::site::Site;
use crate::{Request, Response, Web};

/// Says what a [`Web`] serves.
///
/// Routes come before files. Without a root and without the built-in site, everything that has no route is a 404.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct WebBuilder {
    files: Option<FilesOptions>,
    routes: Vec<(String, Planned)>,
    keep_alive: Duration,
    head_timeout: Duration,
    body_timeout: Duration,
    min_rate: u32,
    min_rate_grace: Duration,
    max_connections_per_address: u32,
    max_body_bytes: u64,
}

enum Planned {
    Fixed { status: Status, content_type: String, body: Vec<u8> },
    Handler(Handler),
}

/// Why a web service cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// The files cannot be served as the options say.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A route's path does not begin with a slash.
    #[error("route {path:?}: a path begins with '/'")]
    Path {
        /// The path as it was given.
        path: String,
    },
    /// A path has two routes.
    #[error("route {path:?} is there twice")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// A fixed answer has a type that cannot stand in a field.
    #[error("route {path:?}: content type {content_type:?} is no field value")]
    ContentType {
        /// The path.
        path: String,
        /// The type as it was given.
        content_type: String,
    },
    /// A fixed answer has an interim status, after which a client waits for another answer.
    #[error("route {path:?}: status {} is an interim one", status.code())]
    Interim {
        /// The path.
        path: String,
        /// The status.
        status: Status,
    },
}

impl WebBuilder {
    pub(crate) const fn new() -> Self {
        Self {
            files: None,
            routes: Vec::new(),
            keep_alive: Duration::from_secs(75),
            head_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(30),
            min_rate: 500,
            min_rate_grace: Duration::from_secs(5),
            max_connections_per_address: 0,
            max_body_bytes: 1 << 20,
        }
    }

    /// Serves the files under this directory, with the defaults of [`FilesOptions`]. It is opened by [`build`](Self::build),
    /// and once only: a directory that is put in its place later is not seen.
    pub fn root(self, path: impl Into<PathBuf>) -> Self {
        self.files(FilesOptions::new(path))
    }

    /// Serves files as the options say.
    pub fn files(mut self, options: FilesOptions) -> Self {
        self.files = Some(options);
        self
    }

    /// Answers `/` with a page that says what Tidegate is.
    pub fn builtin_site(self) -> Self {
        self.respond("/", Status::OK, "text/html; charset=utf-8", include_str!("welcome.html"))
    }

    /// Answers a path with always the same. The path is matched as a whole, decoded, and before files. An empty
    /// `content_type` stands for `text/plain; charset=utf-8`.
    pub fn respond(
        mut self,
        path: impl Into<String>,
        status: Status,
        content_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Self {
        let content_type = if content_type.is_empty() { DEFAULT_CONTENT_TYPE } else { content_type };
        let fixed = Planned::Fixed { status, content_type: content_type.to_owned(), body: body.into() };
        self.routes.push((path.into(), fixed));
        self
    }

    /// Answers `GET` and `HEAD` of a path with what the function says. It runs on the loop's thread and must not block.
    pub fn handler(
        mut self,
        path: impl Into<String>,
        handler: impl Fn(&Request<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.routes.push((path.into(), Planned::Handler(Box::new(handler))));
        self
    }

    /// How long a connection may wait for its next request. Default 75 s.
    pub const fn keep_alive(mut self, timeout: Duration) -> Self {
        self.keep_alive = timeout;
        self
    }

    /// How long a request head may take from its first byte to its last, before the client is told 408. Default 15 s.
    pub const fn head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }

    /// How long a request body may stand still, before the client is told 408. Default 30 s.
    pub const fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// How many bytes per second a request body, or an answer that waits for the client, has to make. A client whose body is
    /// slower is told 408, and one that is slower to read is reset. 0: any rate will do. Default 500.
    pub const fn min_rate(mut self, bytes_per_second: u32) -> Self {
        self.min_rate = bytes_per_second;
        self
    }

    /// How long a body or an answer may take before its rate is looked at. Default 5 s.
    pub const fn min_rate_grace(mut self, grace: Duration) -> Self {
        self.min_rate_grace = grace;
        self
    }

    /// How many connections an address may have at a time; one more is reset. In all loops of a worker together, and an IPv6
    /// address counts by its first 64 bits. 0: no limit, the default.
    pub const fn max_connections_per_address(mut self, connections: u32) -> Self {
        self.max_connections_per_address = connections;
        self
    }

    /// How large a request body may be; more is a 413. Bodies are read and dropped. Default 1 MiB.
    pub const fn max_body_bytes(mut self, bytes: u64) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Opens the root and writes the fixed answers.
    ///
    /// # Errors
    ///
    /// See [`WebError`].
    pub fn build(self) -> Result<Web, WebError> {
        let files = self.files.as_ref().map(Files::open).transpose()?;
        let routes = self.routes.into_iter().map(into_route).collect::<Result<Vec<_>, _>>()?;
        let routes = Routes::new(routes).map_err(|path| WebError::Duplicate { path: path.into() })?;
        Ok(Web {
            site: Site { routes, files, fields: Box::default() },
            limits: Limits { head: HeadLimits::default(), max_body_bytes: self.max_body_bytes },
            engine_limits: tidegate_engine::Limits {
                idle_timeout: Some(self.keep_alive),
                head_timeout: Some(self.head_timeout),
                body_timeout: Some(self.body_timeout),
                min_rate_bytes: self.min_rate,
                min_rate_grace: self.min_rate_grace,
                max_connections_per_address: self.max_connections_per_address,
                ..tidegate_engine::Limits::default()
            },
        })
    }
}

fn into_route((path, planned): (String, Planned)) -> Result<(Box<str>, Route), WebError> {
    if !path.starts_with('/') {
        return Err(WebError::Path { path });
    }
    let route = match planned {
        Planned::Handler(handler) => Route::Handler(handler),
        Planned::Fixed { status, .. } if status.class() == 1 => {
            return Err(WebError::Interim { path, status });
        }
        Planned::Fixed { content_type, .. } if !is_field_value(content_type.as_bytes()) => {
            return Err(WebError::ContentType { path, content_type });
        }
        Planned::Fixed { status, content_type, body } => {
            let fields = [("Content-Type", content_type.as_str())];
            let fields = if status.has_content() { &fields[..] } else { &[] };
            Route::Fixed(Arc::new(Encoded::new(status, fields, Content::Inline(&body))))
        }
    };
    Ok((path.into(), route))
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fixed { .. } => "Fixed",
            Self::Handler(_) => "Handler",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_root_says_what_and_where() {
        let error = Web::builder().root("/nowhere/at/all").build().unwrap_err();
        assert_eq!(error.to_string(), "web root /nowhere/at/all");
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap();
        assert!(source.contains("No such file"), "{source}");
    }

    #[test]
    fn routes_that_cannot_be_are_errors() {
        let error = |builder: WebBuilder| builder.build().unwrap_err().to_string();
        let ok = Status::OK;
        assert!(error(Web::builder().respond("a", ok, "", "")).contains("begins with '/'"));
        assert!(error(Web::builder().builtin_site().respond("/", ok, "", "")).contains("twice"));
        assert!(error(Web::builder().respond("/a", ok, "a\r\nb", "")).contains("no field value"));
        assert!(error(Web::builder().respond("/a", Status::CONTINUE, "", "")).contains("interim"));
    }
}
