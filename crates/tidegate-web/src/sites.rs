//! `Sites`: which site a request is for.
//!
//! Invariant: there is always one. What no name fits is for the site `*`, or else for the one without a name; and so is what
//! names no host at all, since nobody gets round a site's gates by naming none.

use tidegate_http::Head;

use crate::hosts::Hosts;
use crate::site::Site;

/// The sites of a listener.
#[derive(Debug)]
pub(crate) struct Sites {
    /// The first is the one that has no name.
    sites: Box<[Site]>,
    hosts: Hosts,
    /// Of what no other site has.
    rest: usize,
}

impl Sites {
    /// The site without a name, and those that have some, whose patterns count from 1.
    pub(crate) fn new(default: Site, others: Vec<Site>, hosts: Hosts) -> Self {
        let rest = hosts.any().unwrap_or(0);
        Self { sites: std::iter::once(default).chain(others).collect(), hosts, rest }
    }

    /// The number of the site of a request.
    #[inline]
    pub(crate) fn find(&self, head: &Head, bytes: &[u8]) -> usize {
        if self.sites.len() == 1 { 0 } else { self.find_by_host(head, bytes) }
    }

    /// The site of a request.
    #[inline]
    pub(crate) fn of(&self, head: &Head, bytes: &[u8]) -> &Site {
        self.numbered(self.find(head, bytes))
    }

    /// The site of this number.
    #[inline]
    pub(crate) fn numbered(&self, site: usize) -> &Site {
        self.sites.get(site).unwrap_or(&self.sites[0])
    }

    /// The site for what is no request.
    pub(crate) fn default(&self) -> &Site {
        self.numbered(self.rest)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter()
    }

    fn find_by_host(&self, head: &Head, bytes: &[u8]) -> usize {
        head.host(bytes).and_then(|host| self.hosts.find(&host.name())).unwrap_or(self.rest)
    }
}
