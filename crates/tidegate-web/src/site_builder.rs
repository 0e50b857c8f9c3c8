//! `SiteBuilder`: what is served under a name, said step by step.
//!
//! Invariant: it only keeps words; they are checked, and what they name is opened, when the service is built.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_http::{is_field_value, is_token};

use crate::builder::Shared;
use crate::fields::{OWN, SiteField, is_single};
use crate::files::Files;
use crate::gate::{Access, BasicAuth, Checker, LoginLimit, RequestLimit, RequestRate, Users};
use crate::redirects::{RedirectError, Redirects, SiteRedirect};
use crate::request_id;
use crate::site::{Gates, Site};
use crate::{FilesError, FilesOptions, UsersError};

/// A site of a [`Web`](crate::Web): what is served under some names, to whom, and how fast.
///
/// ```
/// use tidegate_web::{Access, FilesOptions, Networks, RequestRate, SiteBuilder, Web};
///
/// let intern = SiteBuilder::new(["intern.example.com", "*.intern.example.com"])
///     .access(Access { allow: Networks::new(["10.0.0.0/8"])?, deny: Networks::default() })
///     .limit_requests(RequestRate { per_second: 50, burst: 100 })
///     .field("X-Robots-Tag", "noindex");
/// let web = Web::builder().site(intern).build()?;
/// # drop((web, FilesOptions::new("/")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a site is not served until `WebBuilder::site` has it"]
pub struct SiteBuilder {
    pub(crate) hosts: Vec<String>,
    files: Option<FilesOptions>,
    redirects: Vec<SiteRedirect>,
    fields: Vec<(String, String)>,
    access: Access,
    basic_auth: Option<(String, PathBuf)>,
    max_login_failures: u32,
    limit_rate: u64,
    limit_requests: Option<RequestRate>,
    hsts: Option<Hsts>,
}

/// `Strict-Transport-Security` (RFC 6797): browsers are not to come without TLS. Sent over TLS only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// For how long.
    pub max_age: Duration,
    /// Also to all names below this one.
    pub subdomains: bool,
    /// May be built into browsers.
    pub preload: bool,
}

/// Why a site cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// Another site has this name.
    #[error("host {host:?} is the name of two sites")]
    Host {
        /// The name.
        host: String,
    },
    /// Its files cannot be served.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// A redirect is none.
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    /// Its file of users cannot be used.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// Nobody could ever log in.
    #[error("users file {} has no users", path.display())]
    NoUsers {
        /// The file.
        path: PathBuf,
    },
    /// A name or a value cannot stand in a field, or the field is the server's own.
    #[error("field {name:?} with value {value:?} is not allowed")]
    Field {
        /// The name as it was given.
        name: String,
        /// The value as it was given.
        value: String,
    },
    /// A field of which an answer can have but one is said twice.
    #[error("field {name:?} is set by {first} and by {second}; keep one of them")]
    Twice {
        /// Its name.
        name: String,
        /// Who sets it.
        first: &'static str,
        /// Who sets it, too.
        second: &'static str,
    },
    /// There is no thread for checking passwords.
    #[error("threads that check passwords")]
    Threads(#[source] std::io::Error),
}

impl SiteBuilder {
    /// A site under these names: `example.com`, `*.example.com` for everything below it, or `*` for what no other site has.
    pub fn new(hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            hosts: hosts.into_iter().map(Into::into).collect(),
            files: None,
            redirects: Vec::new(),
            fields: Vec::new(),
            access: Access::default(),
            basic_auth: None,
            max_login_failures: 10,
            limit_rate: 0,
            limit_requests: None,
            hsts: None,
        }
    }

    /// Serves these files.
    pub fn files(mut self, files: FilesOptions) -> Self {
        self.files = Some(files);
        self
    }

    /// Adds a redirect. They are tried in this order, before files.
    pub fn redirect(mut self, redirect: SiteRedirect) -> Self {
        self.redirects.push(redirect);
        self
    }

    /// Adds a field to every answer that has none of this name; what is said of `Vary` is added to what an answer says itself.
    pub fn field(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// Lets only these in; others are told 403.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Asks for a name and a password, which are in this file (see [`Users`]). It is read when the service is built.
    pub fn basic_auth(mut self, realm: impl Into<String>, users: impl Into<PathBuf>) -> Self {
        self.basic_auth = Some((realm.into(), users.into()));
        self
    }

    /// How many wrong passwords for a name an address may try within 15 minutes, and ten times as many for all names; more are
    /// told 429. They come back one by one. What is being checked and was right before does not count. 0: no limit. Default 10.
    pub const fn max_login_failures(mut self, failures: u32) -> Self {
        self.max_login_failures = failures;
        self
    }

    /// Sends the bodies of a connection no faster than this, in bytes per second; 0: as fast as it takes them, which is the
    /// default. A [`BodyStream`](crate::BodyStream) is asked for more no sooner than that allows, so its parts may be larger.
    pub const fn limit_rate(mut self, bytes_per_second: u64) -> Self {
        self.limit_rate = bytes_per_second;
        self
    }

    /// Answers each address only so often; what is more is told 429. Default: without a limit.
    pub const fn limit_requests(mut self, rate: RequestRate) -> Self {
        self.limit_requests = Some(rate);
        self
    }

    /// Tells browsers to come over TLS only. Default: it does not.
    pub const fn hsts(mut self, hsts: Hsts) -> Self {
        self.hsts = Some(hsts);
        self
    }

    /// Opens what is named.
    pub(crate) fn build(self, shared: &mut Shared) -> Result<Site, SiteError> {
        let fields = self.fields.into_iter().map(sound_field).collect::<Result<Box<[_]>, _>>()?;
        only_once(&fields, self.hsts.is_some(), shared.request_ids)?;
        let requests = self.limit_requests.map(|rate| RequestLimit::new(rate, shared.next_table()));
        let auth = match self.basic_auth {
            None => None,
            Some((realm, path)) => {
                let users = Users::read(&path)?;
                if users.is_empty() {
                    return Err(SiteError::NoUsers { path });
                }
                let limit = (self.max_login_failures > 0).then(|| {
                    LoginLimit::new(self.max_login_failures, [shared.next_table(), shared.next_table()])
                });
                Some(BasicAuth::new(&realm, users, Checker::shared().map_err(SiteError::Threads)?, limit))
            }
        };
        Ok(Site {
            routes: Arc::clone(&shared.routes),
            files: self.files.as_ref().map(Files::open).transpose()?,
            fields,
            redirects: Redirects::new(&self.redirects)?,
            gates: Gates { access: self.access, requests, auth },
            hsts: self.hsts.map(Hsts::line),
            limit_rate: self.limit_rate,
            ..Site::empty()
        })
    }
}

impl Hsts {
    fn line(self) -> Box<str> {
        let subdomains = if self.subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        format!("Strict-Transport-Security: max-age={}{subdomains}{preload}\r\n", self.max_age.as_secs())
            .into()
    }
}

/// What is written before a request comes cannot make room for another field then.
fn only_once(fields: &[SiteField], has_hsts: bool, has_ids: bool) -> Result<(), SiteError> {
    let twice = |name: &str, second| {
        Err(SiteError::Twice { name: name.to_owned(), first: "the fields of the site", second })
    };
    for (place, (name, _)) in fields.iter().enumerate() {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is_single(name) && fields[..place].iter().any(|(other, _)| is(other)) {
            return twice(name, "another of them");
        }
        if has_hsts && is("strict-transport-security") {
            return twice(name, "`hsts`");
        }
        if has_ids && is(request_id::FIELD) {
            return twice(name, "`request_id`");
        }
    }
    Ok(())
}

fn sound_field((name, value): (String, String)) -> Result<SiteField, SiteError> {
    let own = OWN.iter().chain(&["content-encoding"]).any(|own| name.eq_ignore_ascii_case(own));
    if own || !is_token(name.as_bytes()) || !is_field_value(value.as_bytes()) {
        return Err(SiteError::Field { name, value });
    }
    Ok((name.into(), value.into()))
}
