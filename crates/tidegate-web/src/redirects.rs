//! `Redirects`: paths that are somewhere else.
//!
//! Invariant: what a request says about where it goes to is only ever a path behind what the configuration says: it is
//! normalised and encoded anew, so it can neither name another host nor end the field.

use std::borrow::Cow;

use percent_encoding::{CONTROLS, percent_encode};
use tidegate_http::{Method, Status, normalize_path};

use crate::Response;
use crate::exchange::Exchange;
use crate::files::uri::PATH;

/// The redirects of a site, in the order in which they are tried.
#[derive(Debug, Default)]
pub(crate) struct Redirects(Box<[Rule]>);

/// A redirect: from a path, or from all paths that begin so and go on with what `*` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteRedirect {
    /// `/old`, or `/old/*`.
    pub from: String,
    /// A path or a URL; a `*` in it is what the one of `from` stood for.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: Status,
}

/// Why a redirect is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("redirect from {from:?}: {problem}")]
pub struct RedirectError {
    from: String,
    problem: &'static str,
}

#[derive(Debug)]
struct Rule {
    /// Normalised, without the first slash and without the `*`.
    from: Box<[u8]>,
    /// There was a `*` behind it.
    open: bool,
    to: Target,
    status: Status,
}

/// What stands before and behind the `*`, if there is one.
#[derive(Debug)]
struct Target {
    before: Box<str>,
    behind: Option<Box<str>>,
    /// The query of the request is added.
    takes_query: bool,
}

impl SiteRedirect {
    /// Whether it can be served; the service that has it is not built otherwise.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), RedirectError> {
        Rule::new(self).map(drop)
    }
}

impl Redirects {
    pub(crate) fn new(redirects: &[SiteRedirect]) -> Result<Self, RedirectError> {
        redirects.iter().map(Rule::new).collect::<Result<_, _>>().map(Self)
    }

    /// The redirect of a request, if it has one.
    #[inline]
    pub(crate) fn answer(&self, exchange: &Exchange<'_>) -> Option<Response> {
        if self.0.is_empty() {
            return None;
        }
        let path = normalize_path(exchange.head.path(exchange.bytes)).ok()?;
        let (rule, rest) = self.0.iter().find_map(|rule| Some((rule, rule.matches(&path)?)))?;
        Some(Response::page(rule.status).header("Location", rule.to.with(rest, exchange.query())))
    }
}

impl Rule {
    fn new(redirect: &SiteRedirect) -> Result<Self, RedirectError> {
        let wrong = |problem| RedirectError { from: redirect.from.clone(), problem };
        let (path, open) = match redirect.from.strip_suffix('*') {
            Some(path) => (path, true),
            None => (&*redirect.from, false),
        };
        if !path.starts_with('/') || path.contains('*') {
            return Err(wrong("it begins with '/', and a '*' stands at its end"));
        }
        // As a request is read: what is encoded in a request is not in the configuration.
        let from = normalize_path(&encode(path.as_bytes()).into_bytes())
            .map_err(|_| wrong("it is no path"))?
            .into_owned();
        if !(redirect.to.starts_with('/') && !redirect.to.starts_with("//") || redirect.to.contains("://")) {
            return Err(wrong("its target is neither a path nor a URL"));
        }
        if !redirect.to.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("its target is not visible ASCII"));
        }
        if ![301, 302, 303, 307, 308].contains(&redirect.status.code()) {
            return Err(wrong("its status is none of 301, 302, 303, 307 and 308"));
        }
        let (before, behind) = match redirect.to.split_once('*') {
            Some((before, behind)) if open && !behind.contains('*') => (before, Some(behind)),
            Some(_) => return Err(wrong("its target has a '*' more than it")),
            None => (&*redirect.to, None),
        };
        if behind.is_some() && before.split_once("://").is_some_and(|(_, rest)| !rest.contains('/')) {
            return Err(wrong("a '*' in its target would stand in the name of the host"));
        }
        let takes_query = !redirect.to.contains('?');
        let to = Target { before: before.into(), behind: behind.map(Into::into), takes_query };
        Ok(Self { from: from.into(), open, to, status: redirect.status })
    }

    /// What the `*` stands for in this path; nothing, when there is none.
    fn matches<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let rest = path.strip_prefix(&*self.from)?;
        (self.open || rest.is_empty()).then_some(rest)
    }
}

impl Target {
    fn with(&self, rest: &[u8], query: Option<&[u8]>) -> String {
        let mut location = self.before.to_string();
        if let Some(behind) = &self.behind {
            location.push_str(&encode(rest));
            location.push_str(behind);
        }
        // "/" and a path that begins with a slash would be another host.
        if location.starts_with("//") {
            location.replace_range(..location.len() - location.trim_start_matches('/').len(), "/");
        }
        if self.takes_query
            && let Some(query) = query
        {
            location.push('?');
            // Encodes nothing that a target may hold, so the query stays as it was sent.
            location.extend(percent_encode(query, CONTROLS));
        }
        location
    }
}

/// Where the same is over TLS; `None` when the request does not say on which host.
pub(crate) fn to_https(exchange: &Exchange<'_>, port: u16) -> Option<Response> {
    if exchange.method() == Method::Connect {
        return None;
    }
    let host = exchange.head.host(exchange.bytes)?;
    let port = if port == 443 { Cow::Borrowed("") } else { Cow::Owned(format!(":{port}")) };
    let path = match exchange.head.path(exchange.bytes) {
        b"*" => b"/",
        path => path,
    };
    let mut location = format!("https://{}{port}", host.name());
    location.extend(percent_encode(path, CONTROLS));
    if let Some(query) = exchange.query() {
        location.push('?');
        location.extend(percent_encode(query, CONTROLS));
    }
    Some(Response::page(Status::PERMANENT_REDIRECT).header("Location", location))
}

fn encode(path: &[u8]) -> String {
    percent_encode(path, PATH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(from: &str, to: &str) -> SiteRedirect {
        SiteRedirect { from: from.to_owned(), to: to.to_owned(), status: Status::PERMANENT_REDIRECT }
    }

    #[track_caller]
    fn check(from: &str, to: &str, target: &str, expect: Option<&str>) {
        let rule = Rule::new(&redirect(from, to)).unwrap();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.as_bytes())),
            None => (target, None),
        };
        let path = normalize_path(path.as_bytes()).unwrap();
        let location = rule.matches(&path).map(|rest| rule.to.with(rest, query));
        assert_eq!(location.as_deref(), expect);
    }

    #[test]
    fn a_path_goes_where_it_is_told() {
        check("/old", "/new", "/old", Some("/new"));
        check("/old", "/new", "/old?a=b%20c", Some("/new?a=b%20c"));
        check("/old", "/new?x", "/old?a", Some("/new?x"));
        check("/old", "https://example.com/", "/./old", Some("https://example.com/"));
        check("/old", "/new", "/o%6cd", Some("/new"));
        check("/old", "/new", "/older", None);
        check("/old", "/new", "/old/", None);
        check("/a b/ü", "/x", "/a%20b/%C3%BC", Some("/x"));
        check("/", "/index", "/", Some("/index"));
        check("/", "/index", "/a", None);
    }

    #[test]
    fn what_a_star_stands_for_stays_a_path() {
        check("/old/*", "/new/*", "/old/a/b", Some("/new/a/b"));
        check("/old/*", "/new/*", "/old/", Some("/new/"));
        check("/old/*", "/new/*", "/old", None);
        check("/old*", "/new*", "/older", Some("/newer"));
        check(
            "/old/*",
            "https://example.com/*/index.html",
            "/old/a%20b",
            Some("https://example.com/a%20b/index.html"),
        );
        check("/*", "https://example.com/*", "/a?b", Some("https://example.com/a?b"));
        check("/*", "/somewhere", "/a/b", Some("/somewhere"));
        // Nobody is led to another host, or out of the field.
        check("/x/*", "/*", "/x//evil.example/", Some("/evil.example/"));
        check("/x/*", "/*", r"/x/%5cevil.example", Some("/%5Cevil.example"));
        check("/x/*", "/y/*", "/x/%0d%0aSet-Cookie:%20a", Some("/y/%0D%0ASet-Cookie:%20a"));
    }

    #[test]
    fn what_is_no_redirect_says_why() {
        for (from, to, problem) in [
            ("old", "/new", "begins with '/'"),
            ("/a*b", "/new", "'*' stands at its end"),
            ("/old", "new", "neither a path"),
            ("/old", "//evil.example", "neither a path"),
            ("/old", "/a b", "visible ASCII"),
            ("/old", "/new/*", "a '*' more"),
            ("/old/*", "/*/*", "a '*' more"),
        ] {
            let error = Redirects::new(&[redirect(from, to)]).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(from), "{error}");
        }
        let wrong = SiteRedirect { status: Status::OK, ..redirect("/a", "/b") };
        assert!(Redirects::new(&[wrong]).unwrap_err().to_string().contains("308"));
    }
}
