//! `WebBuilder`: what a web service serves, said step by step and checked at the end.
//!
//! Invariant: a [`Web`] that was built can serve: its root is open, and its fixed answers are written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::Words;
use tidegate_http::{HeadLimits, Method, Status, is_field_value};

use crate::access_log::AccessLog;
use crate::budget::Budget;
use crate::dispatch::{Around, Handlers};
use crate::encoded::{Content, Encoded};
use crate::endpoint::MethodTable;
use crate::files::Files;
use crate::gate::RequestLimit;
use crate::hosts::Hosts;
use crate::request_id::RequestIds;
use crate::response::DEFAULT_CONTENT_TYPE;
use crate::routes::{Route, Routes, RoutesError};
use crate::session::Limits;
use crate::site::Site;
use crate::sites::Sites;
use crate::state::States;
use crate::{
    AccessFormat, BlockingPool, FilesError, FilesOptions, MethodRoutes, Networks, Next, Request,
    RequestIdMode, Response, SiteBuilder, SiteError, Web, get,
};

/// Says what a [`Web`] serves.
///
/// Routes come before files. Without a root and without the built-in site, everything that has no route is a 404.
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct WebBuilder {
    routes: Vec<(String, Planned)>,
    around: Around,
    blocking: Blocking,
    handler_timeout: Duration,
    max_collected_bytes: usize,
    collected_patience: Duration,
    keep_alive: Duration,
    head_timeout: Duration,
    body_timeout: Duration,
    min_rate: u32,
    min_rate_grace: Duration,
    max_connections_per_address: u32,
    max_body_bytes: u64,
    files: Option<FilesOptions>,
    head: HeadLimits,
    sites: Vec<SiteBuilder>,
    to_https: Option<u16>,
    trusted_proxies: Networks,
    access_log: Option<(AccessFormat, u32)>,
    request_ids: RequestIdMode,
    max_requests: u32,
    tables: Vec<Arc<dyn Words>>,
}

/// What the sites of a service have in common while they are built.
pub(crate) struct Shared {
    /// Those of handlers.
    pub(crate) routes: Arc<Routes>,
    tables: std::vec::IntoIter<Arc<dyn Words>>,
    /// Whether answers have the names of their requests.
    pub(crate) request_ids: bool,
}

impl Shared {
    /// Memory for the next limit of requests.
    pub(crate) fn next_table(&mut self) -> Arc<dyn Words> {
        self.tables.next().unwrap_or_else(RequestLimit::own_table)
    }
}

enum Planned {
    Fixed {
        status: Status,
        content_type: String,
        body: Vec<u8>,
    },
    /// Of a path, or of a pattern.
    Methods(MethodRoutes),
}

/// Where handlers block.
#[derive(Debug)]
enum Blocking {
    /// On threads of the service's own.
    Own {
        threads: usize,
        queue: usize,
    },
    Shared(BlockingPool),
}

/// Why a web service cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// The files cannot be served.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A site cannot be served.
    #[error(transparent)]
    Site(#[from] SiteError),
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
    /// A pattern is none, or stands in the way of another one.
    #[error("route {pattern:?}")]
    Pattern {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it.
        source: matchit::InsertError,
    },
    /// A route has two endpoints for a method.
    #[error("route {path:?}: {} is there twice", method.as_str())]
    MethodTwice {
        /// The path or pattern.
        path: String,
        /// The method.
        method: Method,
    },
    /// A thread for handlers that block could not be started.
    #[error("start the threads for blocking handlers")]
    Threads {
        /// What the kernel said.
        source: std::io::Error,
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
            routes: Vec::new(),
            around: Around { middleware: Vec::new(), states: States::new() },
            blocking: Blocking::Own { threads: 4, queue: 64 },
            handler_timeout: Duration::from_secs(60),
            max_collected_bytes: 256 << 20,
            collected_patience: Duration::from_secs(30),
            keep_alive: Duration::from_secs(75),
            head_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_secs(30),
            min_rate: 500,
            min_rate_grace: Duration::from_secs(5),
            max_connections_per_address: 0,
            max_body_bytes: 10 << 20,
            files: None,
            head: HeadLimits {
                max_head_bytes: 16 << 10,
                max_target_bytes: 8 << 10,
                max_fields: 100,
                max_overhead_bytes: 4 << 10,
            },
            sites: Vec::new(),
            to_https: None,
            trusted_proxies: Networks::NONE,
            access_log: None,
            request_ids: RequestIdMode::Off,
            max_requests: 0,
            tables: Vec::new(),
        }
    }

    /// Serves the files under this directory. It is opened by [`build`](Self::build), and once only: a directory that is
    /// put in its place later is not seen.
    pub fn root(mut self, path: impl Into<PathBuf>) -> Self {
        self.files = Some(FilesOptions::new(path));
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
        self.routes.push((path.into(), Planned::Methods(get(handler))));
        self
    }

    /// Answers the methods of a path, or of all paths that fit a pattern: `{id}` stands for one part of a path, `{*rest}` at
    /// the end for all that are left, and `{{` for a brace. Paths are matched decoded and normalised, before files; a path without
    /// names comes before patterns, and of these the one that names less.
    ///
    /// ```
    /// use serde::Deserialize;
    /// use tidegate_web::{Json, Path, Query, Status, Web, get};
    ///
    /// #[derive(Deserialize)]
    /// struct Page { start: u32 }
    ///
    /// fn show(Path(id): Path<u64>, Query(page): Query<Page>) -> String {
    ///     format!("user {id} from {}", page.start)
    /// }
    ///
    /// fn create(Path(id): Path<u64>, Json(names): Json<Vec<String>>) -> (Status, Json<usize>) {
    ///     (if id == 0 { Status::FORBIDDEN } else { Status::CREATED }, Json(names.len()))
    /// }
    ///
    /// let web = Web::builder().route("/users/{id}", get(show).post(create)).build()?;
    /// # drop(web);
    /// # Ok::<(), tidegate_web::WebError>(())
    /// ```
    pub fn route(mut self, pattern: impl Into<String>, methods: MethodRoutes) -> Self {
        self.routes.push((pattern.into(), Planned::Methods(methods)));
        self
    }

    /// Answers `register`, `login`, `logout`, `me` and `key` under a prefix such as `/api`: see docs/api.md of the project.
    #[cfg(feature = "accounts")]
    pub fn accounts_api(self, prefix: &str, sessions: &tidegate_accounts::Sessions) -> Self {
        crate::api::add(self, prefix, sessions)
    }

    /// Puts a function around all handlers, within those that were there before: see [`Next`]. Fixed answers and files have
    /// none around them.
    pub fn middleware(
        mut self,
        function: impl Fn(Request<'_>, Next<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.around.middleware.push(Arc::new(function));
        self
    }

    /// Gives all handlers a value, in place of one of the same type: see [`State`](crate::State).
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.around.states.insert(value);
        self
    }

    /// How many handlers may block at a time, at least 1. The threads are there only if a route is
    /// [`blocking`](MethodRoutes::blocking). Default 4.
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        let queue = if let Blocking::Own { queue, .. } = self.blocking { queue } else { 64 };
        self.blocking = Blocking::Own { threads, queue };
        self
    }

    /// How many requests may wait for such a thread; more are told 503. Default 64.
    pub fn blocking_queue(mut self, queue: usize) -> Self {
        let threads = if let Blocking::Own { threads, .. } = self.blocking { threads } else { 4 };
        self.blocking = Blocking::Own { threads, queue };
        self
    }

    /// Has handlers block on these threads, which several services may share.
    pub fn blocking_pool(mut self, pool: BlockingPool) -> Self {
        self.blocking = Blocking::Shared(pool);
        self
    }

    /// How long a client waits for a handler that runs on another thread, before it is told 503. Default 60 s.
    pub const fn handler_timeout(mut self, timeout: Duration) -> Self {
        self.handler_timeout = timeout;
        self
    }

    /// How many bytes the request bodies that are being collected may have together; a request that would need more is told
    /// 503. What counts is what has come, not what was announced. Default 256 MiB.
    pub const fn max_collected_bytes(mut self, bytes: usize) -> Self {
        self.max_collected_bytes = bytes;
        self
    }

    /// How long a body may be under way while more than half of [`max_collected_bytes`](Self::max_collected_bytes) is taken: one
    /// that takes longer is told 503 when its next part comes, so that those who send slowly cannot keep all of it from the
    /// others. Default 30 s, in which 10 MiB come with 3 Mbit/s.
    pub const fn collected_patience(mut self, patience: Duration) -> Self {
        self.collected_patience = patience;
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

    /// How many connections an address may have at a time; one more is reset. In all loops that share an
    /// [`AddressCounts`](tidegate_engine::AddressCounts), which those of all workers of a `tidegate::Server` do. An IPv6 address
    /// counts by its first 64 bits. 0: no limit, the default.
    pub const fn max_connections_per_address(mut self, connections: u32) -> Self {
        self.max_connections_per_address = connections;
        self
    }

    /// How large a request body may be; more is a 413. One that no endpoint takes is read and dropped. Default 10 MiB.
    pub const fn max_body_bytes(mut self, bytes: u64) -> Self {
        self.max_body_bytes = bytes;
        self
    }

    /// Serves these files, in place of those of [`root`](Self::root).
    pub fn files(mut self, files: FilesOptions) -> Self {
        self.files = Some(files);
        self
    }

    /// How large a request head may be, with its request line; more is a 431. Default 16 KiB.
    pub const fn max_head_bytes(mut self, bytes: usize) -> Self {
        self.head.max_head_bytes = bytes;
        self
    }

    /// How long the target of a request may be; more is a 414. Default 8 KiB.
    pub const fn max_target_bytes(mut self, bytes: usize) -> Self {
        self.head.max_target_bytes = bytes;
        self
    }

    /// How many fields a request may have; more is a 431. Default 100.
    pub const fn max_fields(mut self, fields: usize) -> Self {
        self.head.max_fields = fields;
        self
    }

    /// How many bytes of a request may say nothing: empty lines before it, chunk extensions and trailers. Default 4 KiB.
    pub const fn max_overhead_bytes(mut self, bytes: usize) -> Self {
        self.head.max_overhead_bytes = bytes;
        self
    }

    /// How many requests a connection may make; the last answer says that it ends. 0, which is the default: no limit.
    pub const fn max_requests_per_connection(mut self, requests: u32) -> Self {
        self.max_requests = requests;
        self
    }

    /// Adds a site, which answers what is asked of its names. What no site has a name for is answered by everything else that
    /// is said here. Handlers answer on every site, behind its gates and redirects and before its files.
    pub fn site(mut self, site: SiteBuilder) -> Self {
        self.sites.push(site);
        self
    }

    /// Sends everybody to the same place over TLS, at this port, with status 308; nothing else is served then.
    pub const fn redirect_to_https(mut self, port: u16) -> Self {
        self.to_https = Some(port);
        self
    }

    /// Believes these peers when they say in `X-Forwarded-For` and `X-Forwarded-Proto` for whom they ask. Default: nobody.
    pub fn trusted_proxies(mut self, networks: Networks) -> Self {
        self.trusted_proxies = networks;
        self
    }

    /// Records one in `sample` requests, at least 1, as an event of `tracing` with the target `tidegate_web::access`.
    /// Default: none.
    pub const fn access_log(mut self, format: AccessFormat, sample: u32) -> Self {
        self.access_log = Some((format, sample));
        self
    }

    /// Gives requests a name in the field `X-Request-Id` of their answers, and in the access log. Default: none.
    pub const fn request_ids(mut self, mode: RequestIdMode) -> Self {
        self.request_ids = mode;
        self
    }

    /// Memory for the limits of the sites, in their order: one for a site's limit of requests, and then
    /// [`LOGIN_LIMIT_TABLES`](crate::LOGIN_LIMIT_TABLES) for its limit of wrong passwords; which this service has in common with others: each of
    /// [`REQUEST_LIMIT_WORDS`](crate::REQUEST_LIMIT_WORDS) words, zero at first. Without it each limit has memory of its own, and
    /// holds for this service alone.
    pub fn request_limit_tables(mut self, tables: Vec<Arc<dyn Words>>) -> Self {
        self.tables = tables;
        self
    }

    /// Opens the root and writes the fixed answers.
    ///
    /// # Errors
    ///
    /// See [`WebError`].
    pub fn build(self) -> Result<Web, WebError> {
        let blocks = self.routes.iter().any(|(_, planned)| planned.blocks());
        let routes = self.routes.into_iter().map(into_route).collect::<Result<Vec<_>, _>>()?;
        let handlers = routes.iter().filter(|(_, route)| matches!(route, Route::Methods(_)));
        let mut shared = Shared {
            routes: routes_of(handlers.cloned().collect())?,
            tables: self.tables.into_iter(),
            request_ids: self.request_ids != RequestIdMode::Off,
        };
        let default = Site {
            routes: routes_of(routes)?,
            files: self.files.as_ref().map(Files::open).transpose()?,
            to_https: self.to_https,
            ..Site::empty()
        };
        let sites = build_sites(default, self.sites, &mut shared)?;
        let is_plain = sites.iter().all(Site::is_plain)
            && self.access_log.is_none()
            && self.request_ids == RequestIdMode::Off
            && self.max_requests == 0;
        let (mut around, budget) =
            (self.around, Arc::new(Budget::new(self.max_collected_bytes, self.collected_patience)));
        // For sinks that keep something in memory.
        around.states.insert(Arc::clone(&budget));
        let follows_answers = self.access_log.is_some() || sites.iter().any(|site| site.limit_rate > 0);
        Ok(Web {
            sites,
            handlers: Handlers {
                pool: if blocks { Some(self.blocking.pool()?) } else { None },
                around: Arc::new(around),
                budget,
                timeout: self.handler_timeout,
            },
            is_plain,
            follows_answers,
            trusted_proxies: self.trusted_proxies,
            access_log: self.access_log.map(|(format, sample)| AccessLog::new(format, sample)),
            request_ids: RequestIds::new(self.request_ids),
            max_requests: self.max_requests,
            limits: Limits { head: self.head, max_body_bytes: self.max_body_bytes },
            engine_limits: tidegate_engine::Limits {
                idle_timeout: Some(self.keep_alive),
                head_timeout: Some(self.head_timeout),
                body_timeout: Some(self.body_timeout),
                min_rate_bytes: self.min_rate,
                min_rate_grace: self.min_rate_grace,
                max_connections_per_address: self.max_connections_per_address,
                // A head has to fit, or it would not be answered with its status.
                max_input_bytes: self.head.max_head_bytes.saturating_mul(2).max(64 << 10),
                ..tidegate_engine::Limits::default()
            },
        })
    }
}

fn build_sites(default: Site, builders: Vec<SiteBuilder>, shared: &mut Shared) -> Result<Sites, SiteError> {
    let mut hosts = Hosts::default();
    let mut others = Vec::with_capacity(builders.len());
    for (idx, site) in builders.into_iter().enumerate() {
        if let Some(host) = site.hosts.iter().find(|host| !hosts.add(host, idx + 1)) {
            return Err(SiteError::Host { host: host.clone() });
        }
        others.push(site.build(shared)?);
    }
    Ok(Sites::new(default, others, hosts))
}

fn routes_of(routes: Vec<(Box<str>, Route)>) -> Result<Arc<Routes>, WebError> {
    let (patterns, paths) = routes.into_iter().partition(|(path, route)| is_pattern(path, route));
    Routes::new(paths, patterns).map(Arc::new).map_err(WebError::of_routes)
}

/// Whether the path is one that has names, or a brace that stands for itself.
fn is_pattern(path: &str, route: &Route) -> bool {
    matches!(route, Route::Methods(_)) && path.contains(['{', '}'])
}

fn into_route((path, planned): (String, Planned)) -> Result<(Box<str>, Route), WebError> {
    if !path.starts_with('/') {
        return Err(WebError::Path { path });
    }
    let route = match planned {
        Planned::Methods(methods) => match methods.twice {
            Some(method) => return Err(WebError::MethodTwice { path, method }),
            None => Route::Methods(MethodTable::new(methods)),
        },
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

impl Planned {
    fn blocks(&self) -> bool {
        matches!(self, Self::Methods(methods) if methods.block())
    }
}

impl Blocking {
    fn pool(self) -> Result<BlockingPool, WebError> {
        match self {
            Self::Shared(pool) => Ok(pool),
            Self::Own { threads, queue } => {
                BlockingPool::start(threads, queue).map_err(|source| WebError::Threads { source })
            }
        }
    }
}

impl WebError {
    fn of_routes(error: RoutesError) -> Self {
        match error {
            RoutesError::Twice(path) => Self::Duplicate { path: path.into() },
            RoutesError::Pattern(pattern, source) => Self::Pattern { pattern: pattern.into(), source },
        }
    }
}

impl std::fmt::Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fixed { .. } => "Fixed",
            Self::Methods(_) => "Methods",
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
