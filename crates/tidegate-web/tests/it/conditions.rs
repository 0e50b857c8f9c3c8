//! Conditional requests for files.

use tidegate_web::Web;

use crate::client::{Answer, Client, Server, get, request};
use crate::files::{root, site};

fn ask(client: &mut Client, line: &str) -> Answer {
    client.ask(request("GET", "/index.html", &format!("{line}\r\n")))
}

#[test]
fn a_client_that_has_the_file_is_told_so() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    let first = client.ask(get("/index.html"));
    let etag = first.field("etag").unwrap();
    let modified = first.field("last-modified").unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "a strong tag: {etag}");

    for line in [
        format!("If-None-Match: {etag}"),
        format!("If-None-Match: W/{etag}"),
        format!("If-None-Match: \"other\", {etag}"),
        "If-None-Match: *".to_owned(),
        format!("If-Modified-Since: {modified}"),
        "If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT".to_owned(),
    ] {
        let answer = ask(&mut client, &line);
        assert_eq!((answer.status, answer.field("etag")), (304, Some(etag)), "{line}");
        assert_eq!((answer.field("last-modified"), answer.field("content-length")), (Some(modified), None));
    }
    for line in [
        "If-None-Match: \"other\"".to_owned(),
        "If-None-Match: nonsense".to_owned(),
        "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT".to_owned(),
        "If-Modified-Since: nonsense".to_owned(),
        format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {modified}"),
        format!("If-Match: {etag}"),
        format!("If-Unmodified-Since: {modified}"),
    ] {
        let answer = ask(&mut client, &line);
        assert_eq!((answer.status, answer.text()), (200, "<h1>home</h1>"), "{line}");
    }
    for line in ["If-Match: \"other\"", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"] {
        assert_eq!(ask(&mut client, line).status, 412, "{line}");
    }
}

#[test]
fn conditions_hold_for_head_and_large_files_and_new_connections_too() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let etag = server.get("/large.bin").field("etag").unwrap().to_owned();
    let mut client = server.connect();
    for method in ["GET", "HEAD"] {
        client.send(request(method, "/large.bin", &format!("If-None-Match: {etag}\r\n")));
        assert_eq!(client.head().status, 304, "{method}");
    }
    assert_eq!(client.ask(get("/")).status, 200);
}

#[test]
fn another_content_has_another_tag() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let before = server.get("/index.html").field("etag").unwrap().to_owned();
    std::fs::write(root(&dir).join("index.html"), "<h1>away</h1>").unwrap();
    crate::client::eventually(|| server.get("/index.html").text() == "<h1>away</h1>");
    let answer = server.ask(request("GET", "/index.html", &format!("If-None-Match: {before}\r\n")));
    assert_eq!(answer.status, 200);
}
