//! `Site`: what is answered under a name.
//!
//! Invariant: deciding sends nothing; what is decided here leaves through [`finish`](crate::answer::finish).

use std::borrow::Cow;
use std::sync::Arc;

use tidegate_engine::Io;
use tidegate_http::{Method, PathError, Status, normalize_path};

use crate::Response;
use crate::answer::Answer;
use crate::encoded::Encoded;
use crate::exchange::Exchange;
use crate::fields::SiteField;
use crate::files::Files;
use crate::gate::{Access, BasicAuth, RequestLimit};
use crate::params::Params;
use crate::redirects::{self, Redirects};
use crate::routes::{Found, Route, Routes};

/// Routes, and files behind them.
#[derive(Debug)]
pub(crate) struct Site {
    /// The handlers, which are those of all sites, and fixed answers, which the site without a name has.
    pub(crate) routes: Arc<Routes>,
    pub(crate) files: Option<Files>,
    /// Fields that every answer gets. What was encoded before has them already.
    pub(crate) fields: Box<[SiteField]>,
    pub(crate) redirects: Redirects,
    /// Everything is over TLS, at this port.
    pub(crate) to_https: Option<u16>,
    pub(crate) gates: Gates,
    /// The field line that says so to browsers, over TLS.
    pub(crate) hsts: Option<Box<str>>,
    /// Bytes per second of a connection's bodies; 0: no limit.
    pub(crate) limit_rate: u64,
}

/// Who is let in.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    pub(crate) access: Access,
    pub(crate) requests: Option<RequestLimit>,
    pub(crate) auth: Option<BasicAuth>,
}

/// What is to be done about a request.
#[derive(Debug)]
pub(crate) enum Decision<'a> {
    /// This, which is always the same.
    Fixed(&'a Arc<Encoded>),
    /// This is its answer.
    Answer(Answer),
    /// This answers it.
    Run(Found<'a>),
}

/// What a path leads to.
enum Located<'a> {
    Route(&'a Route, Cow<'a, str>, Params),
    /// A normalised relative path that no route has.
    Elsewhere(Cow<'a, [u8]>),
}

impl Site {
    /// Decides what answers a request.
    #[inline]
    pub(crate) fn decide<'a>(&'a self, io: &mut Io<'_>, exchange: &Exchange<'a>) -> Decision<'a> {
        if let Some(moved) = self.moved(exchange) {
            return Decision::Answer(moved.into());
        }
        match exchange.method() {
            _ if exchange.head.expects_unknown() => self.refuse(Status::EXPECTATION_FAILED),
            Method::Other => self.refuse(Status::NOT_IMPLEMENTED),
            Method::Get | Method::Head => self.decide_path(io, exchange),
            // RFC 9110, section 9.3.7: about the server as a whole.
            Method::Options if exchange.head.path(exchange.bytes) == b"*" => {
                let answer = Response::new(Status::OK).header("Allow", "GET, HEAD, OPTIONS");
                Decision::Answer(answer.into())
            }
            method => self.decide_other(exchange, method),
        }
    }

    /// What answers `GET` and `HEAD`.
    #[inline]
    fn decide_path<'a>(&'a self, io: &mut Io<'_>, exchange: &Exchange<'a>) -> Decision<'a> {
        let path = exchange.head.path(exchange.bytes);
        let located = match self.routes.find(path) {
            // It needs nothing of what is found with other routes.
            Some((_, Route::Fixed(encoded))) => return Decision::Fixed(encoded),
            Some((path, route)) => Ok(Located::Route(route, Cow::Borrowed(path), Params::default())),
            None => self.locate_otherwise(path),
        };
        match located {
            Ok(Located::Route(Route::Fixed(encoded), ..)) => Decision::Fixed(encoded),
            Ok(Located::Route(route, path, params)) => self.call(route, path, params, exchange.method()),
            Ok(Located::Elsewhere(relative)) => match &self.files {
                Some(files) => Decision::Answer(files.answer(io, exchange, &relative)),
                None => self.refuse(Status::NOT_FOUND),
            },
            Err(error) => self.refuse_path(error),
        }
    }

    /// What answers the other methods, which no file does.
    fn decide_other<'a>(&'a self, exchange: &Exchange<'a>, method: Method) -> Decision<'a> {
        match self.locate(exchange) {
            Ok(Located::Route(route, path, params)) => self.call(route, path, params, method),
            // What is no path, no method here is for: the authority of CONNECT.
            Ok(Located::Elsewhere(_)) | Err(PathError::NotAbsolute) => self.refuse_method("GET, HEAD"),
            Err(error) => self.refuse_path(error),
        }
    }

    /// The endpoint that will answer a request, if it is one. Refuses nothing.
    pub(crate) fn find<'a>(&'a self, exchange: &Exchange<'a>) -> Option<Found<'a>> {
        if exchange.head.expects_unknown() || self.moved(exchange).is_some() {
            return None;
        }
        match self.locate(exchange) {
            Ok(Located::Route(Route::Methods(table), path, params)) => {
                let endpoint = table.find(exchange.method())?;
                Some(Found { endpoint: Cow::Borrowed(endpoint), path, params })
            }
            _ => None,
        }
    }

    /// The answer to what is somewhere else, whatever else there is under its path.
    #[inline]
    fn moved(&self, exchange: &Exchange<'_>) -> Option<Response> {
        if let Some(port) = self.to_https {
            let moved = redirects::to_https(exchange, port);
            return Some(moved.unwrap_or_else(|| self.error(Status::BAD_REQUEST)));
        }
        self.redirects.answer(exchange)
    }

    #[inline]
    fn locate<'a>(&'a self, exchange: &Exchange<'a>) -> Result<Located<'a>, PathError> {
        let path = exchange.head.path(exchange.bytes);
        if let Some((path, route)) = self.routes.find(path) {
            return Ok(Located::Route(route, Cow::Borrowed(path), Params::default()));
        }
        self.locate_otherwise(path)
    }

    /// What a path leads to that is not spelt as a route is.
    #[inline]
    fn locate_otherwise<'a>(&'a self, path: &'a [u8]) -> Result<Located<'a>, PathError> {
        let relative = normalize_path(path)?;
        // Another spelling of a route is that route.
        if let Cow::Owned(relative) = &relative
            && let Some((path, route)) = self.routes.find(&[b"/", &relative[..]].concat())
        {
            return Ok(Located::Route(route, Cow::Borrowed(path), Params::default()));
        }
        if self.routes.has_patterns()
            && let Some(found) = self.locate_pattern(path, &relative)
        {
            return Ok(found);
        }
        Ok(Located::Elsewhere(relative))
    }

    fn locate_pattern<'a>(&'a self, path: &'a [u8], relative: &Cow<'a, [u8]>) -> Option<Located<'a>> {
        let path = match relative {
            Cow::Borrowed(_) => Cow::Borrowed(str::from_utf8(path).ok()?),
            Cow::Owned(relative) => Cow::Owned(format!("/{}", str::from_utf8(relative).ok()?)),
        };
        let (route, params) = self.routes.find_pattern(&path)?;
        Some(Located::Route(route, path, params))
    }

    fn call<'a>(&self, route: &'a Route, path: Cow<'a, str>, params: Params, method: Method) -> Decision<'a> {
        match route {
            Route::Fixed(_) => self.refuse_method("GET, HEAD"),
            Route::Methods(table) => match table.find(method) {
                Some(endpoint) => Decision::Run(Found { endpoint: Cow::Borrowed(endpoint), path, params }),
                None if method == Method::Options => Decision::Answer(table.options().into()),
                None => self.refuse_method(table.allow()),
            },
        }
    }

    fn refuse_path(&self, error: PathError) -> Decision<'static> {
        tracing::debug!(%error, "path refused");
        self.refuse(Status::BAD_REQUEST)
    }

    fn refuse_method(&self, allow: impl Into<Cow<'static, str>>) -> Decision<'static> {
        Decision::Answer(self.error(Status::METHOD_NOT_ALLOWED).header("Allow", allow).into())
    }

    fn refuse(&self, status: Status) -> Decision<'static> {
        Decision::Answer(self.error(status).into())
    }

    /// One that answers nothing but 404.
    pub(crate) fn empty() -> Self {
        Self {
            routes: Arc::new(Routes::none()),
            files: None,
            fields: Box::default(),
            redirects: Redirects::default(),
            to_https: None,
            gates: Gates::default(),
            hsts: None,
            limit_rate: 0,
        }
    }

    /// Whether every request is let in, and nothing has to be known of it for its answer.
    pub(crate) fn is_plain(&self) -> bool {
        let Gates { access, requests, auth } = &self.gates;
        *access == Access::default() && requests.is_none() && auth.is_none() && self.hsts.is_none()
    }

    /// What asks for a name and a password.
    pub(crate) fn unauthorized(&self) -> Response {
        let answer = self.error(Status::UNAUTHORIZED);
        match &self.gates.auth {
            Some(auth) => answer.header("WWW-Authenticate", auth.challenge().to_owned()),
            None => answer,
        }
    }

    /// What says that something is wrong.
    pub(crate) fn error(&self, status: Status) -> Response {
        let own = self.files.as_ref().and_then(|files| files.error_page(status));
        own.unwrap_or_else(|| Response::page(status))
    }
}
