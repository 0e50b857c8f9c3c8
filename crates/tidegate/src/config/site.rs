//! The types of `[[web.site]]`, and of the keys that it has in common with `[web]`.
//!
//! Invariant: what a site does not say is `None` here, and means what `[web]` says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::{self, ByteSize};
use super::value::Name;

/// `[[web.site]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSite {
    /// Names in lower case, `*.` with a domain, or `*`. No two sites of a listener share one.
    pub hosts: Vec<String>,
    /// On which listeners; empty: on all of the service `web`.
    pub listeners: Vec<Name>,
    /// The folder that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// See [`Web::index`](super::Web::index), and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Vec<String>>,
    /// What is tried in turn for a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub try_files: Option<Vec<String>>,
    /// Whether folders without an index are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoindex: Option<bool>,
    /// `Cache-Control` of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_control: Option<Vec<CacheControl>>,
    /// Files that answer errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_pages: Option<BTreeMap<String, String>>,
    /// Whether text is compressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<bool>,
    /// Whether compressed files beside others are sent in their place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precompressed: Option<bool>,
    /// Whether names that begin with a dot are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dot_files: Option<bool>,
    /// In the order in which they are tried.
    pub redirects: Vec<Redirect>,
    /// Fields of every answer.
    pub headers: BTreeMap<String, String>,
    /// Networks that are let in.
    pub allow: Vec<String>,
    /// Networks that are not.
    pub deny: Vec<String>,
    /// Who has to say who he is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Bytes per second of a connection's bodies; 0: no limit.
    pub limit_rate: ByteSize,
    /// How often an address may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_requests: Option<LimitRequests>,
    /// What browsers are told over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
}

/// An element of `redirects`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// `/old`, or `/old/*`.
    pub from: String,
    /// A path or a URL.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// An element of `cache_control`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheControl {
    /// A glob over paths.
    pub files: String,
    /// The value of the field.
    pub value: String,
}

/// `basic_auth`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// What a browser shows.
    pub realm: String,
    /// A file of names and hashes.
    pub users: PathBuf,
    /// Wrong passwords for a name from an address within 15 minutes; 0: no limit, as it was in versions that had none.
    #[serde(default)]
    pub max_failures: u32,
}

/// `limit_requests`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRequests {
    /// Per second in the long run, at least 1.
    pub rate: u32,
    /// At once after a pause, at least 1.
    pub burst: u32,
}

/// `hsts`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hsts {
    /// For how long.
    #[serde(with = "units::duration")]
    pub max_age: Duration,
    /// Also to names below.
    pub subdomains: bool,
    /// May be built into browsers.
    pub preload: bool,
}
