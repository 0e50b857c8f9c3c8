//! Fixed answers and handlers, keep-alive, pipelining, and requests that arrive in pieces.

use std::time::Duration;

use tidegate_web::{Method, Response, Status, Web, WebBuilder};

use crate::client::{Server, get, request};

fn hello() -> WebBuilder {
    Web::builder()
        .builtin_site()
        .respond("/hello", Status::OK, "", "Hello, World!")
        .respond("/teapot", Status::GONE, "application/json", "{}")
        .respond("/empty", Status::NO_CONTENT, "", "")
        .respond("/a b/\u{e4}", Status::OK, "", "umlaut")
        .handler("/echo", |request| {
            let text = format!(
                "{} {} {:?} {:?}",
                request.method().as_str(),
                request.path(),
                request.query(),
                request.header("x-thing")
            );
            Response::new(Status::CREATED).header("X-Peer", request.peer().to_string()).body(text)
        })
        .handler("/split", |_| Response::new(Status::OK).header("X", "a\r\nSet-Cookie: b"))
        .handler("/panic", |request| {
            assert_ne!(request.method(), Method::Get, "a handler that panics");
            Response::new(Status::OK)
        })
}

#[test]
fn a_fixed_answer_is_complete() {
    let server = Server::start(hello());
    let answer = server.get("/hello");
    assert_eq!((answer.status, answer.text()), (200, "Hello, World!"));
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.field("server"), Some("tidegate"));
    assert_eq!(answer.field("connection"), None);

    let answer = server.get("/teapot");
    assert_eq!(
        (answer.status, answer.text(), answer.field("content-type")),
        (410, "{}", Some("application/json"))
    );

    let answer = server.get("/empty");
    assert_eq!(
        (answer.status, answer.field("content-length"), answer.field("content-type")),
        (204, None, None)
    );
}

#[test]
fn the_built_in_page_links_to_what_there_is_to_see() {
    let server = Server::start(hello());
    let answer = server.get("/");
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    for part in
        ["Tidegate", "href=\"/hello\"", "http://127.0.0.1:8081/status", "http://127.0.0.1:8081/metrics"]
    {
        assert!(answer.text().contains(part), "{part}");
    }
}

#[test]
fn a_route_is_found_by_every_spelling_of_its_path() {
    let server = Server::start(hello());
    for path in ["/hello", "/hello?a=b", "/%68ello", "//hello", "/x/../hello", "/./hello", "http://any/hello"]
    {
        assert_eq!(server.get(path).text(), "Hello, World!", "{path}");
    }
    assert_eq!(server.get("/a%20b/%c3%a4").text(), "umlaut");
    for path in ["/hello/", "/Hello", "/hell", "/hello%3F"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn head_is_the_same_without_the_body() {
    let server = Server::start(hello());
    let mut client = server.connect();
    for path in ["/hello", "/", "/echo", "/missing"] {
        client.send(get(path).replace("GET", "HEAD") + &get("/hello"));
        let head = client.head();
        // What follows on the connection is the next answer, so there was no body.
        assert_eq!(client.answer().text(), "Hello, World!");
        let whole = client.ask(get(path));
        assert_eq!((head.status, head.fields.len()), (whole.status, whole.fields.len()), "{path}");
        if path != "/echo" {
            assert_eq!(head.field("content-length"), whole.field("content-length"), "{path}");
        }
    }
}

#[test]
fn a_handler_sees_the_request_and_its_answer_is_sent() {
    let server = Server::start(hello());
    let mut client = server.connect();
    let answer = client.ask(request("GET", "/echo?q=1", "X-Thing: some thing\r\n"));
    assert_eq!((answer.status, answer.text()), (201, "GET /echo Some(\"q=1\") Some(\"some thing\")"));
    assert_eq!(answer.field("x-peer"), Some(client.stream.local_addr().unwrap().to_string().as_str()));
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(client.ask(request("GET", "/%65cho", "")).text(), "GET /echo None None");
}

#[test]
fn a_handler_cannot_smuggle_a_field_in() {
    let answer = Server::start(hello()).get("/split");
    assert_eq!((answer.status, answer.field("set-cookie")), (500, None));
}

#[test]
fn a_handler_that_panics_costs_its_own_connection_only() {
    let server = Server::start(hello());
    let mut bystander = server.connect();
    assert_eq!(bystander.ask(get("/hello")).status, 200);
    let mut client = server.connect();
    client.send(get("/panic"));
    client.expect_end();
    assert_eq!(bystander.ask(get("/hello")).status, 200);
}

#[test]
fn a_connection_stays_as_version_and_client_say() {
    let server = Server::start(hello());
    let mut client = server.connect();
    for _ in 0..100 {
        assert_eq!(client.ask(get("/hello")).status, 200);
    }
    assert!(client.ask(request("GET", "/hello", "Connection: close\r\n")).closes());
    client.expect_end();

    let mut client = server.connect();
    assert!(client.ask("GET /hello HTTP/1.0\r\n\r\n").closes());
    client.expect_end();

    let mut client = server.connect();
    for path in ["/hello", "/missing", "/echo"] {
        let answer = client.ask(format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
        assert_eq!(answer.field("connection"), Some("keep-alive"), "{path}");
    }
    client.send("HEAD /hello HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    assert!(client.head().closes());
    client.expect_end();
}

#[test]
fn what_follows_a_last_request_is_not_answered() {
    let server = Server::start(hello());
    let mut client = server.connect();
    client.send(request("GET", "/hello", "Connection: close\r\n") + &get("/hello"));
    assert!(client.answer().closes());
    client.expect_end();
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let server = Server::start(hello());
    let mut client = server.connect();
    let mut sender = client.stream.try_clone().unwrap();
    let all: String = (0..1000).map(|n| get(&format!("/echo?{n}"))).collect();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut sender, all.as_bytes()));
    for n in 0..1000 {
        assert_eq!(client.answer().text(), format!("GET /echo Some(\"{n}\") None"));
    }
    writer.join().unwrap().unwrap();
}

#[test]
fn requests_may_arrive_byte_by_byte() {
    let server = Server::start(hello());
    let mut client = server.connect();
    let text = request("GET", "/echo?x", "X-Thing: y\r\n")
        + &request("POST", "/hello", "Content-Length: 3\r\n")
        + "abc"
        + &request("PUT", "/hello", "Transfer-Encoding: chunked\r\n")
        + "2\r\nab\r\n0\r\n\r\n"
        + &get("/hello");
    for byte in text.as_bytes() {
        client.send([*byte]);
    }
    let statuses: Vec<u16> = (0..4).map(|_| client.answer().status).collect();
    assert_eq!(statuses, [201, 405, 405, 200]);
}

#[test]
fn the_answer_for_overload_is_one() {
    let web = hello().keep_alive(Duration::from_secs(1)).build().unwrap();
    let answer = tidegate_engine::Service::overload_answer(&web).expect("the web has words for it");
    assert!(answer.starts_with(b"HTTP/1.1 503 "));
}
