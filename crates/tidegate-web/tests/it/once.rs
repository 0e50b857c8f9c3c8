//! Fields that several hands write: none that is single is there twice, and what is a list is whole.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use tidegate_web::{
    FilesOptions, Hsts, Networks, Next, Request, RequestIdMode, Response, SiteBuilder, Status, Web,
    WebBuilder, deferred, get as get_route,
};

use crate::client::{Answer, Client, Server, request};
use crate::sites::site;

/// Fields that an answer may have once, and a value that each may have.
const SINGLE: [(&str, &str); 18] = [
    ("Accept-Ranges", "none"),
    ("Access-Control-Allow-Origin", "https://example.com"),
    ("Age", "1"),
    ("Content-Disposition", "inline"),
    ("Content-Encoding", "identity"),
    ("Content-Location", "/there"),
    ("Content-Range", "bytes */7"),
    ("Content-Type", "text/x-own"),
    ("ETag", "\"own\""),
    ("Expires", "Sat, 21 Nov 2026 10:17:06 GMT"),
    ("Last-Modified", "Sat, 21 Nov 2026 10:17:05 GMT"),
    ("Location", "/elsewhere"),
    ("Referrer-Policy", "no-referrer"),
    ("Retry-After", "7"),
    ("Strict-Transport-Security", "max-age=7"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("X-Request-Id", "own"),
];

/// Fields that are the service's.
const OWN: [&str; 5] = ["Connection", "Content-Length", "Date", "Server", "Transfer-Encoding"];

fn all(base: Response) -> Response {
    SINGLE.iter().fold(base, |answer, (name, value)| answer.header(*name, *value))
}

fn all_twice(_: &Request<'_>) -> Response {
    let answer = SINGLE.iter().fold(Response::new(Status::OK), |answer, (name, _)| {
        answer.header(name.to_uppercase(), "what is replaced")
    });
    all(answer).body("twice")
}

fn add_all(request: Request<'_>, next: Next<'_>) -> Response {
    all(next.run(request))
}

fn content() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("list")).unwrap();
    fs::write(dir.path().join("text.txt"), "some text that is worth a compression ".repeat(200)).unwrap();
    fs::write(dir.path().join("oops.html"), "<p>oops").unwrap();
    dir
}

fn files(dir: &TempDir) -> FilesOptions {
    FilesOptions::new(dir.path())
        .autoindex(true)
        .cache_control("*.txt", "max-age=60")
        .error_page("404", "/oops.html")
}

/// Sites that say all of it themselves, over a server that says it too.
fn server(dir: &TempDir, middleware: bool) -> Server {
    let mut said = SiteBuilder::new(["said"]).files(files(dir));
    for (name, value) in SINGLE {
        // What would be twice is refused when it is built.
        if !["Content-Encoding", "X-Request-Id"].contains(&name) {
            said = said.field(name, value);
        }
    }
    let hsts = Hsts { max_age: Duration::from_secs(60), subdomains: false, preload: false };
    let unsaid = SiteBuilder::new(["unsaid"]).files(files(dir)).hsts(hsts);
    let mut builder = Web::builder()
        .trusted_proxies(Networks::new(["127.0.0.1"]).unwrap())
        .request_ids(RequestIdMode::New)
        .handler("/twice", all_twice)
        .handler("/plain", |_| Response::new(Status::OK).body("plain"))
        .route("/later", get_route(deferred(|request, reply| reply.send(all_twice(request)))))
        .site(said)
        .site(unsaid);
    if middleware {
        builder = builder.middleware(add_all);
    }
    Server::start(builder)
}

#[track_caller]
fn none_is_twice(answer: &Answer, what: &str) {
    let mut seen = BTreeSet::new();
    for (name, _) in &answer.fields {
        let name = name.to_ascii_lowercase();
        let is_list = ["vary", "set-cookie", "allow", "cache-control", "www-authenticate"].contains(&&*name);
        assert!(is_list || seen.insert(name.clone()), "{name} is twice: {what}: {answer:?}");
    }
    for own in ["date", "server"] {
        assert!(answer.field(own).is_some(), "{own}: {what}");
    }
}

#[test]
fn whoever_says_it_it_is_said_once() {
    let dir = content();
    for middleware in [false, true] {
        let server = server(&dir, middleware);
        for host in ["said", "unsaid"] {
            for (method, path, lines) in [
                ("GET", "/twice", ""),
                ("HEAD", "/twice", ""),
                ("GET", "/plain", ""),
                ("GET", "/later", ""),
                ("GET", "/text.txt", ""),
                ("GET", "/text.txt", "Accept-Encoding: gzip\r\n"),
                ("HEAD", "/text.txt", "Accept-Encoding: br\r\n"),
                ("GET", "/text.txt", "Range: bytes=0-1\r\n"),
                ("GET", "/text.txt", "Range: bytes=0-1,5-6\r\n"),
                ("GET", "/text.txt", "Range: bytes=999999-\r\n"),
                ("GET", "/text.txt", "If-None-Match: *\r\n"),
                ("GET", "/text.txt", "If-Match: \"other\"\r\n"),
                ("GET", "/list", ""),
                ("GET", "/list/", ""),
                ("GET", "/list/", "Accept: application/json\r\n"),
                ("GET", "/nothing", ""),
                ("DELETE", "/text.txt", ""),
                ("OPTIONS", "*", ""),
                ("GET", "/text.txt", "Connection: close\r\n"),
            ] {
                let lines = format!("{lines}X-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.1\r\n");
                let text = request(method, path, &lines).replace("Host: test", &format!("Host: {host}"));
                let mut client: Client = server.connect();
                client.send(&text);
                let answer = if method == "HEAD" { client.head() } else { client.answer() };
                none_is_twice(&answer, &text);
                assert!(answer.field("x-request-id").is_some_and(|id| id != "own"), "{text}");
                if host == "unsaid" {
                    assert_eq!(answer.field("strict-transport-security"), Some("max-age=60"), "{text}");
                }
            }
        }
        // The one nearest to the answer wins.
        let ask = |host: &str, path: &str| {
            server.ask(request("GET", path, "").replace("Host: test", &format!("Host: {host}")))
        };
        let twice = ask("said", "/twice");
        for (name, value) in SINGLE.iter().filter(|(name, _)| *name != "X-Request-Id") {
            assert_eq!(twice.field(name), Some(*value), "{name}");
        }
        assert_eq!(ask("said", "/text.txt").field("etag").map(|etag| etag == "\"own\""), Some(false));
        assert_eq!(ask("said", "/text.txt").field("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(ask("said", "/text.txt").field("accept-ranges"), Some("bytes"));
        assert_eq!(ask("said", "/plain").field("content-type"), Some("text/x-own"));
    }
}

#[test]
fn what_is_the_services_own_nobody_else_says() {
    let dir = content();
    for name in OWN {
        let server = Server::start(
            Web::builder()
                .handler("/", move |_| Response::new(Status::OK).header(name, "1").body("x"))
                .handler("/lower", move |_| {
                    Response::new(Status::OK).header(name.to_lowercase(), "1").body("x")
                }),
        );
        for path in ["/", "/lower"] {
            let answer = server.ask(request("GET", path, ""));
            assert_eq!(answer.status, 500, "{name}");
            none_is_twice(&answer, name);
        }
        let error =
            Web::builder().site(site(&["a"], &dir).field(name.to_uppercase(), "1")).build().unwrap_err();
        assert!(error.to_string().contains("is not allowed"), "{error}");
    }
}

#[test]
fn a_site_that_would_say_something_twice_is_an_error() {
    let error = |builder: WebBuilder| builder.build().unwrap_err().to_string();
    let hsts = Hsts { max_age: Duration::from_secs(1), subdomains: false, preload: false };
    let twice = SiteBuilder::new(["a"]).field("strict-transport-security", "max-age=1").hsts(hsts);
    assert_eq!(
        error(Web::builder().site(twice)),
        "field \"strict-transport-security\" is set by the fields of the site and by `hsts`; keep one of them"
    );
    let ids = SiteBuilder::new(["a"]).field("X-Request-ID", "1");
    assert!(error(Web::builder().request_ids(RequestIdMode::New).site(ids)).contains("by `request_id`"));
    let two = SiteBuilder::new(["a"]).field("X-Frame-Options", "DENY").field("x-frame-options", "SAMEORIGIN");
    assert!(error(Web::builder().site(two)).contains("by another of them"));
    let list = SiteBuilder::new(["a"]).field("Link", "</a>").field("link", "</b>").field("ETag", "\"1\"");
    assert!(Web::builder().request_ids(RequestIdMode::Off).site(list.hsts(hsts)).build().is_ok());
}

#[test]
fn what_an_answer_varies_with_is_all_said() {
    let dir = content();
    let server = Server::start(
        Web::builder()
            .handler("/mine", |_| Response::new(Status::OK).header("Vary", "Origin").body("x"))
            .handler("/same", |_| Response::new(Status::OK).header("vary", "x-other, cookie").body("x"))
            .handler("/none", |_| Response::new(Status::OK).body("x"))
            .site(SiteBuilder::new(["*"]).files(files(&dir)).field("Vary", "Cookie")),
    );
    let etag = server.get("/text.txt").field("etag").unwrap().to_owned();
    for (path, lines, expect) in [
        ("/mine", String::new(), &["Cookie", "Origin"][..]),
        ("/same", String::new(), &["x-other, cookie"]),
        ("/none", String::new(), &["Cookie"]),
        ("/text.txt", String::new(), &["Accept-Encoding", "Cookie"]),
        ("/text.txt", "Accept-Encoding: gzip\r\n".to_owned(), &["Accept-Encoding", "Cookie"]),
        ("/text.txt", "Range: bytes=0-5\r\n".to_owned(), &["Accept-Encoding", "Cookie"]),
        // A cache has to know of it also when it has the page.
        ("/text.txt", format!("If-None-Match: {etag}\r\n"), &["Accept-Encoding", "Cookie"]),
        ("/list/", String::new(), &["Accept", "Cookie"]),
        ("/nothing", String::new(), &["Cookie"]),
    ] {
        let answer = server.ask(request("GET", path, &lines));
        let named = answer.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("vary"));
        let said: BTreeSet<&str> = named.map(|(_, value)| value.as_str()).collect();
        assert_eq!(said, expect.iter().copied().collect(), "{path} {lines}: {answer:?}");
    }
}
