//! `Exchange`: a request for as long as its answer is being decided.
//!
//! Invariant: it borrows everything, and decides nothing.

use tidegate_engine::PeerAddress;
use tidegate_http::{Head, Method};

use crate::site::Site;

/// A request and what is known about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange<'a> {
    pub(crate) head: &'a Head,
    /// The bytes that the head's offsets point into.
    pub(crate) bytes: &'a [u8],
    pub(crate) site: &'a Site,
    /// The wall clock in seconds since 1970.
    pub(crate) unix_time: u64,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address.
    pub address: PeerAddress,
    /// Whether nobody can have listened in: the connection is encrypted.
    pub secure: bool,
}

impl<'a> Exchange<'a> {
    pub(crate) const fn method(&self) -> Method {
        self.head.method()
    }

    /// The query, without its `?`.
    pub(crate) fn query(&self) -> Option<&'a [u8]> {
        self.head.query(self.bytes)
    }
}
