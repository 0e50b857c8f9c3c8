//! What stands for a path: indexes, candidates, listings, pages for errors, and what is said about caching.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use tempfile::TempDir;
use tidegate_web::{FilesError, FilesOptions, Status, Web, WebError};

use crate::client::{Server, get, request};
use crate::files::{root, site};

fn options(dir: &TempDir) -> FilesOptions {
    FilesOptions::new(root(dir))
}

fn serve(options: FilesOptions) -> Server {
    Server::start(Web::builder().files(options))
}

#[test]
fn an_index_is_looked_for_in_order() {
    let dir = site();
    fs::write(root(&dir).join("dir/start.txt"), "start").unwrap();
    fs::create_dir(root(&dir).join("bare/start.txt")).unwrap();
    let server = serve(options(&dir).index(["start.txt", "index.html"]));
    let answer = server.get("/dir/");
    assert_eq!((answer.text(), answer.field("content-type")), ("start", Some("text/plain; charset=utf-8")));
    assert_eq!(server.get("/").text(), "<h1>home</h1>");
    assert_eq!(server.get("/bare/").status, 404);
    let server = serve(options(&dir).index(Vec::<String>::new()));
    assert_eq!(server.get("/").status, 404);
}

#[test]
fn candidates_are_tried_in_order() {
    let dir = site();
    fs::write(root(&dir).join("page.html"), "page").unwrap();
    fs::write(root(&dir).join("app.html"), "app").unwrap();
    let server = serve(options(&dir).try_files(["$uri", "$uri/", "$uri.html", "/app.html"]));
    let mut client = server.connect();
    for (path, status, text) in [
        ("/index.html", 200, "<h1>home</h1>"),
        ("/dir/", 200, "<h1>dir</h1>"),
        ("/page", 200, "page"),
        ("/users/5", 200, "app"),
        ("/users/5/", 200, "app"),
        ("/bare/", 200, "app"),
        ("/.env", 200, "app"),
        ("/", 200, "<h1>home</h1>"),
    ] {
        for _ in 0..2 {
            let answer = client.ask(get(path));
            assert_eq!((answer.status, answer.text()), (status, text), "{path}");
        }
    }
    let answer = client.ask(get("/dir"));
    assert_eq!((answer.status, answer.field("location")), (301, Some("/dir/")));

    let server = serve(options(&dir).try_files(["$uri", "/app.html"]));
    assert_eq!(server.get("/dir").text(), "app", "folders are not asked for");
    assert_eq!(server.get("/").text(), "app");
    let server = serve(options(&dir).try_files(["$uri", "=410"]));
    assert_eq!((server.get("/index.html").status, server.get("/none").status), (200, 410));
    assert_eq!(serve(options(&dir).try_files(["$uri.html"])).get("/none").status, 404);
}

#[test]
fn a_directory_is_listed_when_that_is_wanted() {
    let dir = site();
    let bare = root(&dir).join("bare");
    fs::write(bare.join("a<b>.txt"), "12345").unwrap();
    fs::write(bare.join("\u{e4} %20&amp;.txt"), "umlaut").unwrap();
    fs::write(bare.join(std::ffi::OsStr::from_bytes(b"\xff.txt")), "no UTF-8").unwrap();
    fs::write(bare.join(".hidden"), "").unwrap();
    fs::create_dir(bare.join("sub")).unwrap();
    let server = serve(options(&dir).autoindex(true));
    let answer = server.get("/bare/");
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/html; charset=utf-8")));
    assert_eq!(answer.field("vary"), Some("Accept"));
    assert!(answer.text().contains("a&lt;b&gt;.txt") && !answer.text().contains("hidden"));

    let json = request("GET", "/bare/", "Accept: application/json;q=0.9, */*;q=0.1\r\n");
    let answer = server.ask(&json);
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let listing: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let entries = listing["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 4);
    assert_eq!(entries[0]["href"], "./sub/");
    // Every link leads to what it names.
    for (entry, text) in entries[1..].iter().zip(["12345", "umlaut", "no UTF-8"]) {
        let href = entry["href"].as_str().unwrap().strip_prefix('.').unwrap();
        assert_eq!(server.get(&format!("/bare{href}")).text(), text);
    }
    // A browser names both.
    let html = request("GET", "/bare/", "Accept: text/html,application/json\r\n");
    assert_eq!(server.ask(html).field("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(server.get("/bare").status, 301);
    assert_eq!(server.get("/dir/").text(), "<h1>dir</h1>", "an index comes first");
    assert_eq!(server.get("/.git/").status, 404);
    assert_eq!(server.get("/index.html/").status, 404);
    assert_eq!(serve(options(&dir)).get("/bare/").status, 404);
}

#[test]
fn cache_control_follows_the_path() {
    let dir = site();
    let server = serve(
        options(&dir)
            .cache_control("dir/*.css", "max-age=5")
            .cache_control("*.html", "no-cache")
            .compress(false),
    );
    let field = |path| server.get(path).field("cache-control").map(ToOwned::to_owned);
    assert_eq!(field("/dir/style.css").as_deref(), Some("max-age=5"));
    assert_eq!(field("/dir/").as_deref(), Some("no-cache"), "the name of the index counts");
    assert_eq!(field("/empty.txt"), None);
    let etag = server.get("/index.html").field("etag").unwrap().to_owned();
    let answer = server.ask(request("GET", "/", &format!("If-None-Match: {etag}\r\n")));
    assert_eq!((answer.status, answer.field("cache-control")), (304, Some("no-cache")));
    let answer = server.ask(request("GET", "/", "Range: bytes=0-0\r\n"));
    assert_eq!((answer.status, answer.field("cache-control")), (206, Some("no-cache")));
}

#[test]
fn errors_have_the_pages_of_the_site() {
    let dir = site();
    fs::write(root(&dir).join("404.html"), "nothing here").unwrap();
    fs::write(root(&dir).join("oops.txt"), "oops").unwrap();
    let server = serve(options(&dir).error_page("404", "/404.html").error_page("4xx", "/oops.txt"));
    let answer = server.get("/none");
    assert_eq!((answer.status, answer.text()), (404, "nothing here"));
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    let answer = server.ask(request("DELETE", "/", ""));
    assert_eq!((answer.status, answer.text(), answer.field("allow").is_some()), (405, "oops", true));
    let answer = server.ask(request("GET", "/index.html", "Range: bytes=99-\r\n"));
    assert_eq!(
        (answer.status, answer.text(), answer.field("content-range")),
        (416, "oops", Some("bytes */13"))
    );
    // What is no error keeps the server's own.
    assert_ne!(server.get("/dir").text(), "oops");
    assert_eq!(server.get("/404.html").status, 200);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!((client.answer().status, client.expect_end()), (400, ()));
}

#[test]
fn options_that_cannot_be_are_errors() {
    let dir = site();
    assert!(options(&dir).error_page("404", "/empty.txt").check().is_ok());
    assert!(matches!(options(&dir).error_page("404", "/none").check(), Err(FilesError::ErrorPage { .. })));
    let error = |options: FilesOptions| match Web::builder().files(options).build().unwrap_err() {
        WebError::Files(error) => error,
        other => panic!("{other}"),
    };
    assert!(matches!(error(FilesOptions::new("/nowhere/at/all")), FilesError::Root { .. }));
    for name in ["", "a/b", "..", "a\0b"] {
        assert!(matches!(error(options(&dir).index([name])), FilesError::Index { .. }), "{name:?}");
    }
    assert!(matches!(error(options(&dir).try_files(["nothing"])), FilesError::TryFiles { .. }));
    assert!(matches!(error(options(&dir).cache_control("[", "no-cache")), FilesError::Glob { .. }));
    assert!(matches!(error(options(&dir).cache_control("*", "\n")), FilesError::CacheControl { .. }));
    assert!(matches!(error(options(&dir).error_page("200", "/")), FilesError::ErrorStatus { .. }));
    assert!(matches!(error(options(&dir).error_page("404", "/none")), FilesError::ErrorPage { .. }));
    drop(Web::builder().files(options(&dir)).respond("/", Status::OK, "", "route").build().unwrap());
}
