//! Addresses as people write them: names are looked up, and of several answers the one is taken that can be reached.
//!
//! Invariant: what comes out is numbers; looking up and trying out both have a limit of time, the resolver's and the caller's.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use tidegate_engine::Target;

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is written in a way that means nothing.
    #[error("\"{}\" is no address: {why}", text.escape_debug())]
    Malformed {
        /// How it was written.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The name is unknown.
    #[error("\"{}\" cannot be looked up: {source}", name.escape_debug())]
    Unknown {
        /// The name.
        name: String,
        /// What the resolver said.
        source: std::io::Error,
    },
}

/// What `127.0.0.1:80`, `[::1]:80`, `example.org:80` or `unix:/run/app.sock` names. Of a name with several addresses the first
/// is taken that accepts a connection within `patience`; if none does, the first.
///
/// # Errors
///
/// [`AddressError`].
pub fn resolve(text: &str, patience: Duration) -> Result<Target, AddressError> {
    if let Ok(target) = text.parse() {
        return Ok(target);
    }
    let malformed = |why| AddressError::Malformed { text: text.to_owned(), why };
    if text.starts_with("unix:") {
        return Err(malformed("a path is to follow unix:"));
    }
    if text.contains("://") {
        return Err(malformed("a URL is only for http, as http://host:port/path; TLS is asked for by --tls"));
    }
    let (name, port) = text.rsplit_once(':').ok_or_else(|| malformed("a port is missing, as in host:80"))?;
    port.parse::<u16>().map_err(|_| malformed("the port is no number from 0 to 65535"))?;
    if name.is_empty() || name.contains([':', '[', ']', '/']) {
        return Err(malformed("it is written host:port, 127.0.0.1:port, [::1]:port or unix:/path"));
    }
    let unknown = |source| AddressError::Unknown { name: name.to_owned(), source };
    let found: Vec<SocketAddr> = text.to_socket_addrs().map_err(unknown)?.collect();
    let reached = match &found[..] {
        [_, _, ..] => found.iter().find(|address| TcpStream::connect_timeout(address, patience).is_ok()),
        _ => None,
    };
    let first = reached.or(found.first());
    first.map(|&address| address.into()).ok_or_else(|| unknown(std::io::Error::other("it has no address")))
}

/// The name or address of a server, without the port behind it and the brackets around it; `localhost` for a Unix socket, which
/// has no name that a server could go by.
#[must_use]
pub fn name_of(address: &str) -> &str {
    if address.starts_with("unix:") {
        return "localhost";
    }
    let behind = address.rfind(']').map_or(0, |bracket| bracket + 1);
    let bare = address[behind..].find(':').map_or(address, |colon| &address[..behind + colon]);
    bare.strip_prefix('[').and_then(|bare| bare.strip_suffix(']')).unwrap_or(bare)
}

/// The parts of a URL of the schemes `http` and `https`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl {
    /// Host and port, as [`resolve`] takes them.
    pub address: String,
    /// What the field `Host` says: the port is left out when it is that of the scheme.
    pub host: String,
    /// The path with the query.
    pub path: String,
    /// Whether it is `https`.
    pub tls: bool,
}

impl HttpUrl {
    /// Takes `http://host:port/path?query` apart, where port and path may be missing; also `https`. `None`: it is no URL.
    ///
    /// # Errors
    ///
    /// [`AddressError::Malformed`] for a URL of another scheme, or one that cannot be used.
    pub fn parse(text: &str) -> Option<Result<Self, AddressError>> {
        let (scheme, rest) = text.split_once("://")?;
        let malformed = |why| Some(Err(AddressError::Malformed { text: text.to_owned(), why }));
        let tls = scheme.eq_ignore_ascii_case("https");
        if !tls && !scheme.eq_ignore_ascii_case("http") {
            return malformed("only the schemes http and https can be loaded");
        }
        let port = if tls { ":443" } else { ":80" };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if authority.is_empty() || authority.contains('@') {
            return malformed("it is written http://host:port/path, without a user");
        }
        // Behind the bracket of an IPv6 address, if there is one.
        let behind = authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let has_port = authority[behind..].contains(':');
        let address = if has_port { authority.to_owned() } else { format!("{authority}{port}") };
        let host = authority.strip_suffix(port).unwrap_or(authority).to_owned();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Some(Ok(Self { address, host, path, tls }))
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn url(text: &str) -> (String, String, String) {
        let url = HttpUrl::parse(text).unwrap().unwrap();
        (url.address, url.host, url.path)
    }

    #[test]
    fn urls_are_taken_apart() {
        let parts = |a: &str, h: &str, p: &str| (a.to_owned(), h.to_owned(), p.to_owned());
        assert_eq!(url("http://a.b"), parts("a.b:80", "a.b", "/"));
        assert_eq!(url("HTTP://a.b:8080/x?y=1#z"), parts("a.b:8080", "a.b:8080", "/x?y=1"));
        assert_eq!(url("http://[::1]/x"), parts("[::1]:80", "[::1]", "/x"));
        assert_eq!(url("http://[::1]:81?q"), parts("[::1]:81", "[::1]:81", "/?q"));
        assert!(HttpUrl::parse("a.b:80").is_none());
        assert_eq!(url("https://a.b"), parts("a.b:443", "a.b", "/"));
        assert_eq!(url("HTTPS://a.b:80/x"), parts("a.b:80", "a.b:80", "/x"));
        assert!(HttpUrl::parse("https://a.b").unwrap().unwrap().tls);
        assert!(!HttpUrl::parse("http://a.b:443").unwrap().unwrap().tls);
        for bad in ["ftp://a.b/", "http:///x", "http://u@a.b/"] {
            assert!(HttpUrl::parse(bad).unwrap().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_is_named_without_its_port() {
        for (address, name) in [
            ("a.b:80", "a.b"),
            ("a.b", "a.b"),
            ("[::1]:80", "::1"),
            ("[::1]", "::1"),
            ("unix:/a:b", "localhost"),
        ] {
            assert_eq!(name_of(address), name);
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (bad, why) in [
            ("localhost", "a port is missing"),
            ("localhost:http", "the port is no number"),
            ("localhost:70000", "the port is no number"),
            ("unix:", "a path"),
            ("http://localhost", "a URL"),
            ("::1:80", "it is written"),
            (":80", "it is written"),
        ] {
            let error = resolve(bad, PATIENCE).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn of_the_addresses_of_a_name_the_one_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = resolve(&format!("localhost:{}", address.port()), PATIENCE).unwrap();
        assert_eq!(target, Target::Inet(address));
        assert_eq!(resolve("unix:/a", PATIENCE).unwrap().to_string(), "unix:/a");
    }
}
