//! `Request`: what a handler sees.

use tidegate_engine::PeerAddress;
use tidegate_http::Method;

use crate::exchange::Exchange;

/// A `GET` or `HEAD` request, as a handler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub(crate) exchange: &'a Exchange<'a>,
    pub(crate) path: &'a str,
}

impl<'a> Request<'a> {
    /// `GET` or `HEAD`. A handler answers both alike; the body of an answer to `HEAD` is left out for it.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.exchange.method()
    }

    /// The path under which the handler was found.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// The query as it was sent, without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        // A target is ASCII: the parser lets nothing else through.
        self.exchange.query().and_then(|query| str::from_utf8(query).ok())
    }

    /// The first field of this name, compared without case. One that is not UTF-8 counts as absent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.exchange.field(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// Who asks.
    #[must_use]
    pub const fn peer(&self) -> PeerAddress {
        self.exchange.client.address
    }
}
