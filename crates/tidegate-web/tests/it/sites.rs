//! Which site answers, where it sends its clients, and what it adds to its answers.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use tidegate_engine::PeerAddress;
use tidegate_web::{
    Access, Client, FilesOptions, Hsts, Networks, Response, SiteBuilder, SiteRedirect, Status, Web,
    WebBuilder,
};

use crate::client::{Answer, Server, request};

/// A folder with a page that says whose it is.
pub(crate) fn folder(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("index.html"), name).unwrap();
    dir
}

pub(crate) fn site(hosts: &[&str], dir: &TempDir) -> SiteBuilder {
    SiteBuilder::new(hosts.iter().copied()).files(FilesOptions::new(dir.path()))
}

fn get_from(server: &Server, host: &str, target: &str) -> Answer {
    server.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

#[test]
fn the_host_decides_which_site_answers() {
    let (default, exact, below) = (folder("default"), folder("exact"), folder("below"));
    let server = Server::start(
        Web::builder()
            .root(default.path())
            .respond("/hello", Status::OK, "", "Hello, World!")
            .site(site(&["example.com", "[::1]"], &exact))
            .site(site(&["*.example.com"], &below)),
    );
    for (host, expect) in [
        ("example.com", "exact"),
        ("EXAMPLE.com.:8080", "exact"),
        ("[::1]:8080", "exact"),
        ("a.example.com", "below"),
        ("a.b.Example.com:1", "below"),
        ("other.org", "default"),
        ("127.0.0.1", "default"),
    ] {
        assert_eq!(get_from(&server, host, "/").text(), expect, "{host}");
    }
    // The host of an absolute target wins over the field.
    assert_eq!(get_from(&server, "other.org", "http://example.com/").text(), "exact");
    // What is said for everything else is not said for a site.
    assert_eq!(get_from(&server, "other.org", "/hello").text(), "Hello, World!");
    assert_eq!(get_from(&server, "example.com", "/hello").status, 404);
    // HTTP/1.0 without a host.
    let old = server.ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.text(), "default");
}

#[test]
fn what_names_no_host_is_for_the_site_of_all_other_names_and_gets_round_none_of_its_gates() {
    let (open, guarded, named) = (folder("open"), folder("guarded"), folder("named"));
    let access = Access { allow: Networks::new(["192.0.2.1"]).unwrap(), deny: Networks::default() };
    let rest = site(&["*"], &guarded).access(access).field("X-Site", "rest");
    let server = Server::start(
        Web::builder()
            .root(open.path())
            .respond("/hello", Status::OK, "", "Hello, World!")
            .site(site(&["named.test"], &named))
            .site(rest),
    );
    for text in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET /hello HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: [::1]\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n",
    ] {
        let answer = server.ask(text);
        assert_eq!((answer.status, answer.field("x-site")), (403, Some("rest")), "{text}");
    }
    // What is no request, either.
    for text in ["GET / HTTP/1.1\r\n\r\n", "\r \r\n"] {
        let answer = server.ask(text);
        assert_eq!((answer.status, answer.field("x-site")), (400, Some("rest")), "{text}");
    }
    assert_eq!(get_from(&server, "named.test", "/").text(), "named");
}

#[test]
fn two_sites_with_one_name_are_an_error() {
    let error = |builder: WebBuilder| builder.build().unwrap_err().to_string();
    let (a, b) = (SiteBuilder::new(["a.b", "*.c"]), SiteBuilder::new(["d", "A.B."]));
    assert_eq!(error(Web::builder().site(a).site(b)), "host \"A.B.\" is the name of two sites");
    let wrong = SiteBuilder::new(["a"]).field("Content-Length", "1");
    assert!(error(Web::builder().site(wrong)).contains("\"Content-Length\""));
    let wrong = SiteBuilder::new(["a"]).field("X", "a\r\nb");
    assert!(error(Web::builder().site(wrong)).contains("not allowed"));
    let nowhere = SiteBuilder::new(["a"]).files(FilesOptions::new("/nowhere/at/all"));
    assert!(error(Web::builder().site(nowhere)).contains("/nowhere/at/all"));
    let wrong = SiteBuilder::new(["a"]).redirect(redirect("a", "/b"));
    assert!(error(Web::builder().site(wrong)).contains("begins with '/'"));
}

fn redirect(from: &str, to: &str) -> SiteRedirect {
    SiteRedirect { from: from.to_owned(), to: to.to_owned(), status: Status::MOVED_PERMANENTLY }
}

#[test]
fn redirects_come_before_files_and_keep_the_query() {
    let dir = folder("page");
    let moved = site(&["*"], &dir)
        .redirect(redirect("/index.html", "/"))
        .redirect(redirect("/old/*", "https://example.com/new/*"));
    let server = Server::start(Web::builder().site(moved));
    for (target, location) in [
        ("/index.html?a=%20b", "/?a=%20b"),
        ("/old/a/../b%20c?x", "https://example.com/new/b%20c?x"),
        ("/old/%2e%2e/old/x", "https://example.com/new/x"),
    ] {
        let answer = get_from(&server, "a", target);
        assert_eq!((answer.status, answer.field("location")), (301, Some(location)), "{target}");
    }
    assert_eq!(get_from(&server, "a", "/").text(), "page");
    // Whatever the method, and without a body being read for it.
    let mut client = server.connect();
    let answer = client.ask(request("POST", "/old/x", "Content-Length: 2\r\n") + "ab");
    assert_eq!((answer.status, answer.field("location")), (301, Some("https://example.com/new/x")));
    assert_eq!(client.ask(request("GET", "/", "")).text(), "page");
}

#[test]
fn everything_goes_to_https_under_the_same_host() {
    let server = Server::start(Web::builder().redirect_to_https(443));
    let other_port = Server::start(Web::builder().redirect_to_https(8443));
    for (host, target, location) in [
        ("example.com", "/", "https://example.com/"),
        ("Example.com:80", "/a%20b?c=d&e", "https://example.com/a%20b?c=d&e"),
        ("[::1]:8080", "//x", "https://[::1]//x"),
        ("other", "http://example.com/p?q", "https://example.com/p?q"),
    ] {
        let answer = get_from(&server, host, target);
        assert_eq!((answer.status, answer.field("location")), (308, Some(location)), "{host}{target}");
    }
    let answer = get_from(&other_port, "example.com:8080", "/x");
    assert_eq!(answer.field("location"), Some("https://example.com:8443/x"));
    assert_eq!(server.ask("GET / HTTP/1.0\r\n\r\n").status, 400);
    assert_eq!(server.ask(request("PUT", "/x", "Content-Length: 1\r\n") + "x").status, 308);
}

#[test]
fn fields_of_a_site_are_on_each_of_its_answers_and_on_no_other() {
    let (dir, other) = (folder("page"), folder("other"));
    let with_fields = site(&["a"], &dir).field("X-Frame-Options", "DENY").field("Cache-Control", "no-store");
    let server = Server::start(Web::builder().root(other.path()).site(with_fields));
    for target in ["/", "/missing", "/../x"] {
        let answer = get_from(&server, "a", target);
        assert_eq!(answer.field("x-frame-options"), Some("DENY"), "{target}: {answer:?}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{target}");
    }
    assert_eq!(get_from(&server, "b", "/").field("x-frame-options"), None);
}

#[test]
fn browsers_are_told_to_stay_with_tls_over_tls_alone() {
    let dir = folder("page");
    let hsts = Hsts { max_age: Duration::from_secs(31_536_000), subdomains: true, preload: false };
    let server = Server::start(
        Web::builder()
            .trusted_proxies(Networks::new(["127.0.0.1"]).unwrap())
            .site(site(&["a"], &dir).hsts(hsts)),
    );
    let told = |lines: &str| {
        let answer = server.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        assert_eq!(answer.text(), "page");
        answer.field("strict-transport-security").map(str::to_owned)
    };
    assert_eq!(told("X-Forwarded-Proto: https\r\n").unwrap(), "max-age=31536000; includeSubDomains");
    assert_eq!(told("X-Forwarded-Proto: http\r\n"), None);
    assert_eq!(told(""), None);
}

#[test]
fn a_handler_sees_the_client_that_a_trusted_proxy_names() {
    let say = |web: WebBuilder| {
        Server::start(web.handler("/who", |request| {
            let Client { address, .. } = Client { address: request.peer(), secure: false };
            let text = match address {
                PeerAddress::Inet(address) => address.ip().to_string(),
                PeerAddress::Unix => "unix".to_owned(),
            };
            Response::new(Status::OK).body(text)
        }))
    };
    let trusting = say(Web::builder().trusted_proxies(Networks::new(["127.0.0.0/8", "10.0.0.0/8"]).unwrap()));
    let wary = say(Web::builder());
    let lines = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 192.0.2.9, 10.0.0.1\r\n";
    assert_eq!(trusting.ask(request("GET", "/who", lines)).text(), "192.0.2.9");
    assert_eq!(trusting.ask(request("GET", "/who", "")).text(), "127.0.0.1");
    assert_eq!(wary.ask(request("GET", "/who", lines)).text(), "127.0.0.1");
}

#[test]
fn a_connection_ends_after_its_requests() {
    let server = Server::start(
        Web::builder().respond("/hello", Status::OK, "", "Hello, World!").max_requests_per_connection(3),
    );
    let mut client = server.connect();
    for last in [false, false, true] {
        let answer = client.ask(request("GET", "/hello", ""));
        assert_eq!((answer.status, answer.closes()), (200, last));
    }
    client.expect_end();
    let mut client = server.connect();
    client.send(request("GET", "/hello", "").repeat(4));
    for last in [false, false, true] {
        assert_eq!(client.answer().closes(), last);
    }
    client.expect_end();
}

#[test]
fn requests_have_names() {
    use tidegate_web::RequestIdMode;
    let hello = || Web::builder().respond("/hello", Status::OK, "", "Hello, World!");
    let new = Server::start(hello().request_ids(RequestIdMode::New));
    let accepting = Server::start(hello().request_ids(RequestIdMode::Accept));
    let id = |server: &Server, path: &str, lines: &str| {
        server.ask(request("GET", path, lines)).field("x-request-id").map(str::to_owned)
    };
    let first = id(&new, "/hello", "X-Request-Id: mine\r\n").unwrap();
    assert!(first.len() == 32 && Some(first) != id(&new, "/missing", ""));
    assert_eq!(id(&accepting, "/hello", "X-Request-Id: mine\r\n").as_deref(), Some("mine"));
    assert_eq!(id(&accepting, "/missing", "X-Request-Id: a b\r\n").unwrap().len(), 32);
    assert_eq!(id(&Server::start(hello()), "/hello", "X-Request-Id: mine\r\n"), None);
}
