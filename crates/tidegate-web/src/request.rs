//! `Request`: what a handler sees.

use std::any::Any;
use std::fmt;

use tidegate_engine::PeerAddress;
use tidegate_http::{Head, Method};

use crate::exchange::Client;
use crate::params::Params;
use crate::state::States;

/// A request, as a handler and its middleware see it.
pub struct Request<'a> {
    pub(crate) head: &'a Head,
    /// The bytes that the head's offsets point into.
    pub(crate) bytes: &'a [u8],
    pub(crate) body: &'a [u8],
    pub(crate) path: &'a str,
    pub(crate) params: &'a Params,
    pub(crate) client: Client,
    /// The wall clock in seconds since 1970.
    pub(crate) unix_time: u64,
    pub(crate) states: &'a States,
    /// What middleware has put there.
    pub(crate) extensions: Vec<Box<dyn Any>>,
}

impl<'a> Request<'a> {
    /// The method. `GET` and `HEAD` are answered alike; the body of an answer to `HEAD` is left out by itself.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.head.method()
    }

    /// The path that was asked for: decoded and normalised, beginning with `/`.
    #[must_use]
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// What stands in the path for a name of the route's pattern: of `/users/{id}`, the `id`.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&'a str> {
        self.params.named(name)
    }

    /// The query as it was sent, without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        // A target is ASCII: the parser lets nothing else through.
        self.head.query(self.bytes).and_then(|query| str::from_utf8(query).ok())
    }

    /// The first field of this name, compared without case. One that is not UTF-8 counts as absent.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// All fields of this name, in order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let values: Vec<_> = self.head.fields(self.bytes).named(name).collect();
        values.into_iter().filter_map(|value| str::from_utf8(value).ok())
    }

    /// The body, all of it; empty where a handler takes it part by part ([`sink`](crate::sink)).
    #[must_use]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The address of who asks.
    #[must_use]
    pub const fn peer(&self) -> PeerAddress {
        self.client.address
    }

    /// Who asks, and whether nobody can have listened in.
    #[must_use]
    pub const fn client(&self) -> Client {
        self.client
    }

    /// The wall clock in whole seconds since 1970, as it was when the request came.
    #[must_use]
    pub const fn unix_time(&self) -> u64 {
        self.unix_time
    }

    /// Puts something there for the handlers behind this middleware, in place of what there was of this type.
    pub fn insert<T: 'static>(&mut self, value: T) {
        self.extensions.retain(|known| !known.is::<T>());
        self.extensions.push(Box::new(value));
    }

    /// What a middleware has put there.
    #[must_use]
    pub fn extension<T: 'static>(&self) -> Option<&T> {
        self.extensions.iter().find_map(|value| value.downcast_ref())
    }

    /// What the builder was given for all handlers: [`WebBuilder::state`](crate::WebBuilder::state).
    #[must_use]
    pub fn state<T: 'static>(&self) -> Option<&'a T> {
        self.states.find()
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("path", &self.path)
            .field("client", &self.client)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
