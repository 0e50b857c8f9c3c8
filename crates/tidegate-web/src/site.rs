//! `Site`: what is answered under a name.
//!
//! Invariant: deciding sends nothing; what is decided here leaves through [`finish`](crate::answer::finish).

use std::borrow::Cow;

use tidegate_engine::Io;
use tidegate_http::{Method, Status, normalize_path};

use crate::Response;
use crate::answer::Answer;
use crate::exchange::Exchange;
use crate::files::Files;
use crate::routes::Routes;

/// Routes, and files behind them.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) routes: Routes,
    pub(crate) files: Option<Files>,
    /// Fields that every answer gets. What was encoded before has them already.
    pub(crate) fields: Box<[(Box<str>, Box<str>)]>,
}

impl Site {
    /// Decides what answers a request whose body, if it had one, has been dropped.
    #[inline]
    pub(crate) fn decide(&self, io: &mut Io<'_>, exchange: &Exchange<'_>) -> Answer {
        match exchange.method() {
            _ if exchange.head.expects_unknown() => self.error(Status::EXPECTATION_FAILED).into(),
            Method::Get | Method::Head => self.decide_path(io, exchange),
            // RFC 9110, section 9.3.7: about the server as a whole.
            Method::Options if exchange.head.path(exchange.bytes) == b"*" => {
                Response::new(Status::OK).header("Allow", "GET, HEAD, OPTIONS").into()
            }
            Method::Other => self.error(Status::NOT_IMPLEMENTED).into(),
            _ => self.error(Status::METHOD_NOT_ALLOWED).header("Allow", "GET, HEAD").into(),
        }
    }

    #[inline]
    fn decide_path(&self, io: &mut Io<'_>, exchange: &Exchange<'_>) -> Answer {
        let path = exchange.head.path(exchange.bytes);
        if let Some((path, route)) = self.routes.find(path) {
            return route.answer(exchange, path);
        }
        let relative = match normalize_path(path) {
            Ok(relative) => relative,
            Err(error) => {
                tracing::debug!(%error, "path refused");
                return self.error(Status::BAD_REQUEST).into();
            }
        };
        // Another spelling of a route is that route.
        if let Cow::Owned(relative) = &relative
            && let Some((path, route)) = self.routes.find(&[b"/", &relative[..]].concat())
        {
            return route.answer(exchange, path);
        }
        match &self.files {
            Some(files) => files.answer(io, exchange, &relative),
            None => self.error(Status::NOT_FOUND).into(),
        }
    }

    /// What says that something is wrong.
    pub(crate) fn error(&self, status: Status) -> Response {
        let own = self.files.as_ref().and_then(|files| files.error_page(status));
        own.unwrap_or_else(|| Response::page(status))
    }
}
