//! Routes with names, extractors, middleware, and handlers in the loop, on the pool and elsewhere.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_engine::Reason;
use tidegate_web::{
    Client, Cookies, Extension, Form, FromRequest, Html, IntoResponse, Json, Method, Next, Path, Query,
    Redirect, Reply, Request, Response, SameSite, SetCookie, State, Status, Web, deferred, delete, get, post,
    put,
};

use crate::client::{PATIENCE, Server, eventually, get as get_text, request};

/// A request with a body of this type.
fn with_body(method: &str, path: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    request(method, path, &format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n")) + body
}

#[derive(Deserialize, Serialize)]
struct User {
    name: String,
    age: u8,
}

#[derive(Deserialize)]
struct Search {
    q: String,
    #[serde(default)]
    tag: Vec<String>,
    limit: Option<u32>,
}

fn show(Path((id, tab)): Path<(u32, String)>) -> String {
    format!("{id} {tab}")
}

fn search(Query(search): Query<Search>) -> String {
    format!("{} {:?} {:?}", search.q, search.tag, search.limit)
}

fn create(request: &Request<'_>, Json(user): Json<User>) -> (Status, Json<User>) {
    assert_eq!(request.method(), Method::Post);
    (Status::CREATED, Json(User { age: user.age + 1, ..user }))
}

fn submit(Form(user): Form<User>) -> Result<Html<String>, Status> {
    if user.age < 18 { Err(Status::FORBIDDEN) } else { Ok(Html(format!("<p>{}", user.name))) }
}

fn cookies(request: &Request<'_>) -> Result<Response, Response> {
    let cookies = Cookies::from_request(request)?;
    let cookie = SetCookie::new("seen", "yes").unwrap().path("/").http_only().same_site(SameSite::Lax);
    Ok(Response::new(Status::OK).cookie(&cookie).body(format!("{:?}", cookies.value("b"))))
}

fn routes() -> Server {
    Server::start(
        Web::builder()
            .route("/users/{id}/{tab}", get(show))
            .route("/users/me/settings", get(|| "me"))
            .route("/search", get(search))
            .route("/users", post(create))
            .route("/form", post(submit).get(|| Html("<form>")))
            .route("/text", put(|body: String| body.to_uppercase()))
            .route("/files/{*path}", delete(|Path(path): Path<String>| path))
            .route("/old", get(|| Redirect::permanent("/search")))
            .route("/cookies", get(cookies))
            .route("/who", get(|client: Client| format!("{:?}", client.secure))),
    )
}

#[test]
fn names_of_a_pattern_reach_the_handler() {
    let server = routes();
    assert_eq!(server.get("/users/7/posts").text(), "7 posts");
    assert_eq!(server.get("/users/7/a%20b").text(), "7 a b");
    assert_eq!(server.get("/users//7/./x/../posts").text(), "7 posts");
    assert_eq!(server.get("/users/me/settings").text(), "me");
    let bad = server.get("/users/seven/posts");
    assert_eq!((bad.status, bad.text()), (400, "path: \"seven\": invalid digit found in string\n"));
    for path in ["/users/7", "/users/7/", "/users/7/posts/", "/users/7/a%2Fb"] {
        let status = server.get(path).status;
        assert!(status == 404 || (status == 400 && path.contains('%')), "{path}: {status}");
    }
    assert_eq!(server.ask(request("DELETE", "/files/a/b.txt", "")).text(), "a/b.txt");
}

#[test]
fn the_query_reaches_the_handler() {
    let server = routes();
    assert_eq!(server.get("/search?q=a+b%26&tag=x&tag=y").text(), "a b& [\"x\", \"y\"] None");
    assert_eq!(server.get("/search?limit=5&q=").text(), " [] Some(5)");
    let bad = server.get("/search?limit=5");
    assert_eq!(bad.status, 400);
    assert!(bad.text().starts_with("query: missing field `q`"), "{}", bad.text());
}

#[test]
fn bodies_reach_the_handler_and_what_is_wrong_with_them_is_told() {
    let server = routes();
    let mut client = server.connect();
    let answer = client.ask(with_body("POST", "/users", "application/json", r#"{"name":"ada","age":36}"#));
    assert_eq!((answer.status, answer.text()), (201, r#"{"name":"ada","age":37}"#));
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let chunked = "Content-Type: application/problem+json; charset=utf-8\r\nTransfer-Encoding: chunked\r\n";
    let body = "5\r\n{\"nam\r\n5;x=y\r\ne\":\"a\r\n9\r\n\",\"age\":1\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n";
    let answer = client.ask(request("POST", "/users", chunked) + body);
    assert_eq!(answer.text(), r#"{"name":"a","age":2}"#);
    for (content_type, body, status, word) in [
        ("application/json", "{", 400, "EOF"),
        ("application/json", r#"{"name":"ada"}"#, 422, "missing field `age`"),
        ("application/json", r#"{"name":"ada","age":300}"#, 422, "column 23"),
        ("text/plain", "{}", 415, "application/json"),
    ] {
        let answer = client.ask(with_body("POST", "/users", content_type, body));
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.text().contains(word), "{body}: {}", answer.text());
    }
    let form = "application/x-www-form-urlencoded";
    assert_eq!(client.ask(with_body("POST", "/form", form, "name=a%2Bb&age=18")).text(), "<p>a+b");
    assert_eq!(client.ask(with_body("POST", "/form", form, "name=a&age=17")).status, 403);
    assert_eq!(client.ask(with_body("POST", "/form", form, "name=a")).status, 422);
    assert_eq!(client.ask(with_body("PUT", "/text", "text/plain", "grüße")).text(), "GRÜSSE");
    assert_eq!(client.ask(get_text("/old")).field("location"), Some("/search"));
    assert_eq!(client.ask(get_text("/who")).text(), "false");
}

#[test]
fn a_query_or_form_that_is_no_text_is_refused_and_not_mangled() {
    let server = routes();
    let mut client = server.connect();
    let form = "application/x-www-form-urlencoded";
    for text in ["name=%ff&age=18", "age=18&name=J%FCrgen", "name=a&age=18&%c3=%a4", "name=%ed%a0%80&age=18"]
    {
        let answer = client.ask(with_body("POST", "/form", form, text));
        assert_eq!(answer.status, 400, "{text}");
        assert!(answer.text().ends_with("of the form is not UTF-8\n"), "{}", answer.text());
    }
    let head = request("POST", "/form", &format!("Content-Type: {form}\r\nContent-Length: 13\r\n"));
    let raw = [head.as_bytes(), b"name=\xfc&age=18"];
    assert_eq!(raw[1].len(), 13);
    assert_eq!(client.ask(raw.concat()).text(), "body: pair 1 of the form is not UTF-8\n");
    let answer = client.ask(get_text("/search?q=a&tag=%ff"));
    assert_eq!((answer.status, answer.text()), (400, "query: pair 2 of the form is not UTF-8\n"));
    // A name that differs only in what is no text does not stand in for another.
    assert_eq!(client.ask(get_text("/search?q%EF%BF%BD=1&q%ff=2&q=a")).status, 400);
    assert_eq!(client.ask(get_text("/search?q=%EF%BF%BD+%C3%BC%2B%")).text(), "\u{fffd} ü+% [] None");
    let many = "tag=x&".repeat(999);
    assert_eq!(client.ask(get_text(&format!("/search?{many}q=a"))).status, 200);
    let answer = client.ask(get_text(&format!("/search?{many}q=a&limit=1")));
    assert_eq!((answer.status, answer.text()), (400, "query: more than 1000 pairs in the form\n"));
}

#[test]
fn the_type_of_a_body_counts_whatever_its_parameters_are() {
    let server = routes();
    let mut client = server.connect();
    let (form, body) = ("application/x-www-form-urlencoded", "name=a&age=18");
    for (content_type, status) in [
        ("Application/X-WWW-Form-Urlencoded; charset=UTF-8", 200),
        ("application/x-www-form-urlencoded ;a=\"b;c\";", 200),
        ("application/x-www-form-urlencoded; charset", 415),
        ("application/x-www-form-urlencoded, text/plain", 415),
        ("application/x-www-form-urlencoded2", 415),
        ("", 415),
    ] {
        assert_eq!(
            client.ask(with_body("POST", "/form", content_type, body)).status,
            status,
            "{content_type}"
        );
    }
    let twice = format!("text/plain\r\nContent-Type: {form}");
    assert_eq!(client.ask(with_body("POST", "/form", &twice, body)).status, 415);
    let json = r#"{"name":"ada","age":36}"#;
    for (content_type, status) in
        [("application/json;charset=utf-8", 201), ("application/a+JSON", 201), ("application/jsonp", 415)]
    {
        assert_eq!(
            client.ask(with_body("POST", "/users", content_type, json)).status,
            status,
            "{content_type}"
        );
    }
}

#[test]
fn cookies_come_and_go() {
    let server = routes();
    let answer = server.ask(request("GET", "/cookies", "Cookie: a=1; b=\"2\"; b=3\r\n"));
    assert_eq!(answer.text(), "Some(\"2\")");
    assert_eq!(answer.field("set-cookie"), Some("seen=yes; Path=/; HttpOnly; SameSite=Lax"));
    assert_eq!(server.get("/cookies").text(), "None");
}

#[test]
fn methods_that_a_route_has_not_are_refused_with_the_list_of_those_it_has() {
    let server = routes();
    let mut client = server.connect();
    let answer = client.ask(request("PUT", "/form", ""));
    assert_eq!((answer.status, answer.field("allow")), (405, Some("POST, GET, HEAD, OPTIONS")));
    let answer = client.ask(request("OPTIONS", "/form", ""));
    assert_eq!((answer.status, answer.field("allow")), (204, Some("POST, GET, HEAD, OPTIONS")));
    let answer = client.ask(with_body("PUT", "/form", "text/plain", "dropped"));
    assert_eq!(answer.status, 405);
    client.send(request("HEAD", "/form", ""));
    let head = client.head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("6")));
    assert_eq!(client.ask(get_text("/form")).text(), "<form>");
}

#[test]
fn a_body_is_as_large_as_its_route_allows() {
    let server = Server::start(
        Web::builder()
            .max_body_bytes(10)
            .route("/small", post(|body: Vec<u8>| body.len().to_string()))
            .route("/large", post(|body: Vec<u8>| body.len().to_string()).max_body_bytes(1 << 20)),
    );
    let of = |len: usize| "x".repeat(len);
    assert_eq!(server.ask(with_body("POST", "/small", "a/b", &of(10))).text(), "10");
    assert_eq!(server.ask(with_body("POST", "/small", "a/b", &of(11))).status, 413);
    assert_eq!(server.ask(with_body("POST", "/large", "a/b", &of(1 << 20))).text(), "1048576");
    assert_eq!(server.ask(with_body("POST", "/large", "a/b", &of((1 << 20) + 1))).status, 413);
    let chunked =
        request("POST", "/small", "Transfer-Encoding: chunked\r\n") + "a\r\n0123456789\r\n1\r\nx\r\n";
    assert_eq!(server.ask(chunked).status, 413);
}

#[test]
fn who_expects_100_is_told_to_go_on_when_an_endpoint_takes_the_body() {
    let server = routes();
    let mut client = server.connect();
    let lines = "Content-Type: text/plain\r\nContent-Length: 3\r\nExpect: 100-continue\r\n";
    client.send(request("PUT", "/text", lines));
    assert_eq!(client.answer().status, 100);
    client.send("abc");
    assert_eq!(client.answer().text(), "ABC");
}

#[test]
fn bodies_in_memory_have_a_limit_together() {
    let server = Server::start(
        Web::builder().max_collected_bytes(1000).route("/", post(|body: Vec<u8>| body.len().to_string())),
    );
    let mut holder = server.connect();
    holder.send(request("POST", "/", "Content-Length: 900\r\n") + &"x".repeat(899));
    // The part that the holder has sent counts when it has been read, so the other asks until it does.
    eventually(|| server.ask(with_body("POST", "/", "a/b", &"y".repeat(200))).status == 503);
    holder.send("x");
    assert_eq!(holder.answer().text(), "900");
    eventually(|| server.ask(with_body("POST", "/", "a/b", &"y".repeat(200))).status == 200);
    assert!(server.counter("handlers_refused") >= 1);
}

#[test]
fn who_sends_slowly_makes_room_when_memory_is_scarce() {
    let server = Server::start(
        Web::builder()
            .max_collected_bytes(1000)
            .collected_patience(Duration::ZERO)
            .route("/", post(|body: Vec<u8>| body.len().to_string())),
    );
    // What is announced takes nothing.
    let mut announced = server.connect();
    announced.send(request("POST", "/", "Content-Length: 1000\r\nExpect: 100-continue\r\n"));
    assert_eq!(announced.answer().status, 100);
    let mut slow = server.connect();
    slow.send(request("POST", "/", "Content-Length: 900\r\n") + &"x".repeat(600));
    // The part counts when it has been read, so the other asks until it does.
    eventually(|| server.ask(with_body("POST", "/", "a/b", &"y".repeat(500))).status == 503);
    slow.send("x");
    let answer = slow.answer();
    assert_eq!((answer.status, answer.field("retry-after"), answer.closes()), (503, Some("1"), true));
    slow.expect_end();
    assert_eq!(server.ask(with_body("POST", "/", "a/b", &"y".repeat(500))).text(), "500");
    // As long as no more than half is taken, there is no hurry.
    announced.send("z".repeat(500));
    eventually(|| server.ask(with_body("POST", "/", "a/b", &"y".repeat(501))).status == 503);
    announced.send("z".repeat(500));
    assert_eq!(announced.answer().text(), "1000");
    eventually(|| server.metrics().closed(Reason::OVERLOADED) == server.counter("handlers_refused"));
}

#[test]
fn middleware_stands_around_handlers_in_order() {
    fn outer(mut request: Request<'_>, next: Next<'_>) -> Response {
        request.insert(vec!["outer"]);
        next.run(request).header("X-Outer", "1")
    }
    fn inner(mut request: Request<'_>, next: Next<'_>) -> Response {
        if request.query() == Some("stop") {
            return Status::FORBIDDEN.into_response();
        }
        let mut seen: Vec<&'static str> =
            request.extension::<Vec<&'static str>>().cloned().unwrap_or_default();
        seen.push("inner");
        request.insert(seen);
        next.run(request)
    }
    let handler = |Extension(seen): Extension<Vec<&'static str>>| seen.join(" ");
    let server = Server::start(
        Web::builder()
            .middleware(outer)
            .middleware(inner)
            .route("/", get(handler))
            .route("/pool", get(handler).blocking())
            .route("/later", get(deferred(|_, reply| reply.send("later"))))
            .respond("/fixed", Status::OK, "", "fixed"),
    );
    for (path, text) in [("/", "outer inner"), ("/pool", "outer inner"), ("/later", "later")] {
        let answer = server.get(path);
        assert_eq!((answer.text(), answer.field("x-outer")), (text, Some("1")), "{path}");
        let stopped = server.get(&format!("{path}?stop"));
        assert_eq!((stopped.status, stopped.field("x-outer")), (403, Some("1")), "{path}");
    }
    assert_eq!(server.get("/fixed").field("x-outer"), None);
}

#[test]
fn state_is_what_the_builder_was_given() {
    let counter = Arc::new(Mutex::new(0));
    let count = |State(counter): State<Arc<Mutex<i32>>>| {
        let mut counter = counter.lock().unwrap();
        *counter += 1;
        counter.to_string()
    };
    let missing = |State(_): State<String>| "";
    let server = Server::start(
        Web::builder().state(Arc::clone(&counter)).route("/", get(count)).route("/missing", get(missing)),
    );
    assert_eq!(server.get("/").text(), "1");
    assert_eq!(server.get("/").text(), "2");
    assert_eq!(server.get("/missing").status, 500);
}

#[test]
fn handlers_that_block_hold_up_nobody_and_answers_stay_in_order() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let server = Server::start(
        Web::builder()
            .blocking_threads(1)
            .blocking_queue(1)
            .route(
                "/slow/{name}",
                get(move |request: &Request<'_>, Path(name): Path<String>| {
                    released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                    format!("{name} {:?}", request.header("Host"))
                })
                .blocking(),
            )
            .route("/fast", get(|| "fast")),
    );
    let mut slow = server.connect();
    slow.send(get_text("/slow/one") + &get_text("/fast"));
    assert_eq!(server.get("/fast").text(), "fast");
    let mut second = server.connect();
    second.send(get_text("/slow/two"));
    // A thread and a place in the queue are taken, though the second may still be under way.
    eventually(|| {
        let mut third = server.connect();
        third.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        third.send(get_text("/slow/three"));
        let mut byte = [0];
        let refused = matches!(third.stream.peek(&mut byte), Ok(1));
        if refused {
            let answer = third.answer();
            assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
        } else {
            release.send(()).unwrap();
        }
        refused
    });
    for _ in 0..3 {
        release.send(()).unwrap();
    }
    assert_eq!(slow.answer().text(), "one Some(\"test\")");
    assert_eq!(slow.answer().text(), "fast");
    assert_eq!(second.answer().text(), "two Some(\"test\")");
}

#[test]
fn a_handler_that_panics_on_the_pool_is_a_500() {
    let server = Server::start(Web::builder().route("/", get(|| -> () { panic!("a bug") }).blocking()));
    let mut client = server.connect();
    assert_eq!(client.ask(get_text("/")).status, 500);
    assert_eq!(client.ask(get_text("/")).status, 500, "the connection and the thread live on");
}

#[test]
fn answers_may_come_later_from_other_threads_and_are_never_forgotten() {
    let (owe, owed) = channel::<Reply>();
    let owe = Mutex::new(owe);
    let server = Server::start(
        Web::builder()
            .route("/later", get(deferred(move |_, reply| owe.lock().unwrap().send(reply).unwrap())))
            .route("/now", get(|| "now")),
    );
    let mut client = server.connect();
    client.send(get_text("/later") + &get_text("/now"));
    let reply = owed.recv_timeout(PATIENCE).unwrap();
    assert!(reply.is_wanted());
    assert_eq!(server.get("/now").text(), "now");
    reply.send((Status::CREATED, "made"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (201, "made"));
    assert_eq!(client.answer().text(), "now");

    client.send(get_text("/later"));
    drop(owed.recv_timeout(PATIENCE).unwrap());
    assert_eq!(client.answer().status, 500);

    client.send(get_text("/later"));
    let reply = owed.recv_timeout(PATIENCE).unwrap();
    client.stream.set_nonblocking(false).unwrap();
    drop(client);
    reply.send("to nobody");
    assert_eq!(server.get("/now").text(), "now");
}

#[test]
fn a_handler_that_takes_too_long_is_503_and_the_end() {
    let (owe, owed) = channel::<Reply>();
    let owe = Mutex::new(owe);
    let server = Server::start(
        Web::builder()
            .handler_timeout(Duration::from_millis(50))
            .route("/never", get(deferred(move |_, reply| owe.lock().unwrap().send(reply).unwrap()))),
    );
    let mut client = server.connect();
    let answer = client.ask(get_text("/never"));
    assert_eq!((answer.status, answer.closes()), (503, true));
    client.expect_end();
    drop(client);
    eventually(|| server.metrics().closed(Reason::HANDLER_TIMEOUT) == 1);
    assert_eq!(server.counter("handler_timeouts"), 1);
    owed.recv_timeout(PATIENCE).unwrap().send("too late");
}

#[test]
fn routes_that_cannot_be_are_errors() {
    let error = |builder: tidegate_web::WebBuilder| {
        let error = builder.build().unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    };
    let ok = || get(|| ());
    assert!(
        error(Web::builder().route("/a", ok()).handler("/a", |_| Response::new(Status::OK)))
            .contains("twice")
    );
    assert!(error(Web::builder().route("/{a}", ok()).route("/{b}", ok())).contains("\"/{b}\""));
    assert!(error(Web::builder().route("/{a", ok())).contains("/{a"));
    assert!(error(Web::builder().route("/a", ok().get(|| ()))).contains("GET is there twice"));
    assert!(error(Web::builder().route("a", ok())).contains("begins with '/'"));
}
