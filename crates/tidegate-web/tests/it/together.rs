//! Handlers, bodies and streams behind gates, on sites, at a rate, and in the access log.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate_web::{
    Access, AccessFormat, BodySink, BodyStream, Networks, Pulled, Reply, Request, RequestIdMode, RequestRate,
    Response, SiteRedirect, Status, Web, WebBuilder, deferred, get, post, put, sink,
};

use crate::access_log::{hello, told, wait_for};
use crate::client::{PATIENCE, Server, eventually, get as get_text, request};
use crate::gates::{ADA, ADA_WRONG, models, trusting, users};
use crate::sites::{folder, site};
use crate::streams::{chunked_body, lines, numbers, stream};

/// A handler that says when it has begun, and answers when it is told to.
fn gated() -> (impl Fn() -> (Status, &'static str) + Send + Sync + 'static, Receiver<()>, Sender<()>) {
    let (begin, begun) = channel();
    let (release, released) = channel();
    let both = Mutex::new((begin, released));
    let handler = move || {
        let both = both.lock().unwrap();
        both.0.send(()).ok();
        both.1.recv_timeout(PATIENCE).ok();
        (Status::CREATED, "made at last")
    };
    (handler, begun, release)
}

#[test]
fn a_late_answer_is_told_with_its_status_its_bytes_and_its_times() {
    for config in models() {
        let (handler, begun, release) = gated();
        let web = hello().route("/on-the-pool", get(handler).blocking());
        let web = web.access_log(AccessFormat::Json, 1).request_ids(RequestIdMode::Accept);
        let server = Server::start_with(config, web);
        let id = format!("late-{:?}-{:?}", config.dispatch, config.backend);
        let mut client = server.connect();
        client.send(request("GET", "/on-the-pool", &format!("X-Request-Id: {id}\r\n")));
        begun.recv_timeout(PATIENCE).unwrap();
        let waiting = Instant::now();
        assert!(told(&id).is_empty(), "told before it was answered");
        // What the server measures began before and ends later.
        while waiting.elapsed() < Duration::from_millis(2) {
            std::thread::yield_now();
        }
        let waited = waiting.elapsed();
        release.send(()).unwrap();
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("x-request-id")), (201, Some(&*id)));
        let record = wait_for(&id, 1).remove(0);
        let what = ["url", "status", "bytes", "complete"].map(|name| &*record[name]);
        assert_eq!(what, ["/on-the-pool", "201", "12", "true"]);
        let time = |name: &str| Duration::from_micros(1 + record[name].parse::<u64>().unwrap());
        assert!(time("first_byte_us") >= waited && time("total_us") >= time("first_byte_us"), "{record:?}");
    }
}

#[test]
fn who_waits_for_no_answer_and_who_gets_none_in_time_are_told() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let server = Server::start(
        hello()
            .route(
                "/kept",
                get(deferred(move |_: &Request<'_>, reply: Reply| keep.lock().unwrap().push(reply))),
            )
            .handler_timeout(Duration::from_millis(20))
            .access_log(AccessFormat::Json, 1),
    );
    assert_eq!(server.get("/kept").status, 503);
    let record = wait_for("/kept", 1).remove(0);
    assert_eq!(["method", "status", "complete"].map(|name| &*record[name]), ["GET", "503", "true"]);

    let watched = |_: &Request<'_>, reply: Reply| {
        std::thread::spawn(move || {
            while reply.is_wanted() {
                std::thread::yield_now();
            }
        });
    };
    let slow = Server::start(
        hello().route("/gone-before", get(deferred(watched))).access_log(AccessFormat::Json, 1),
    );
    let mut client = slow.connect();
    client.send(get_text("/gone-before"));
    // An end in order would leave the answer wanted.
    eventually(|| slow.counter("requests") == 1);
    client.reset();
    let record = wait_for("/gone-before", 1).remove(0);
    assert_eq!(["status", "bytes", "complete"].map(|name| &*record[name]), ["499", "0", "false"]);
}

#[test]
fn a_stream_is_told_when_it_has_ended_with_what_was_sent_of_it() {
    for config in models() {
        let name = format!("streamed-{:?}-{:?}", config.dispatch, config.backend);
        let server = Server::start_with(
            config,
            hello().route("/{name}", get(|| stream(numbers(300_000)))).access_log(AccessFormat::Json, 1),
        );
        let mut client = server.connect();
        client.send(get_text(&format!("/{name}")) + &get_text("/hello?after"));
        client.head();
        // What the kernel has taken of it at most is a few MiB.
        assert!(chunked_body(&mut client) == lines(300_000));
        assert_eq!(client.answer().status, 200);
        let record = wait_for(&name, 1).remove(0);
        assert_eq!(["status", "complete"].map(|name| &*record[name]), ["200", "true"]);
        // The sizes of the chunks are sent too.
        let (bytes, content) = (record["bytes"].parse::<usize>().unwrap(), lines(300_000).len());
        assert!((content + 1..content + content / 100).contains(&bytes), "{bytes} for {content}");
    }
}

#[test]
fn a_stream_that_was_not_taken_or_breaks_off_is_told_as_cut_short() {
    let endless = || {
        stream(BodyStream::pull(|out| {
            out.resize(16 << 10, b'x');
            Pulled::More
        }))
    };
    let broken = || {
        let mut parts = 0;
        stream(BodyStream::pull(move |out| {
            out.extend_from_slice(b"half");
            parts += 1;
            if parts > 1 { Pulled::Failed } else { Pulled::More }
        }))
    };
    let server = Server::start(
        hello()
            .route("/endless-stream", get(endless))
            .route("/broken-stream", get(broken))
            .access_log(AccessFormat::Json, 1),
    );
    let mut client = server.connect();
    client.send(get_text("/endless-stream"));
    client.head();
    assert!(told("/endless-stream").is_empty(), "told before it has ended");
    drop(client);
    let record = wait_for("/endless-stream", 1).remove(0);
    assert_eq!((&*record["status"], &*record["complete"]), ("200", "false"));
    assert!(record["bytes"].parse::<u64>().unwrap() >= 16 << 10, "{record:?}");

    let mut client = server.connect();
    client.send(get_text("/broken-stream"));
    // It broke off before anything was sent.
    assert_eq!(client.rest(), b"");
    let record = wait_for("/broken-stream", 1).remove(0);
    assert_eq!(["status", "bytes", "complete"].map(|name| &*record[name]), ["200", "0", "false"]);
}

/// Counts what it is given.
struct Count(usize);

impl BodySink for Count {
    fn write(&mut self, part: &[u8]) -> Result<(), Response> {
        self.0 += part.len();
        Ok(())
    }

    fn finish(self: Box<Self>) -> Response {
        Response::new(Status::OK).body(self.0.to_string())
    }
}

/// A sink in the loop, one on the pool, and a handler that takes the body as a whole; and how often any was begun.
fn takers() -> (WebBuilder, Arc<AtomicUsize>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let open = move |_: &Request<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Count(0))
    };
    let count = Arc::clone(&begun);
    let collect = move |request: &Request<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
        request.body().len().to_string()
    };
    let web = trusting()
        .route("/loop", put(sink(open.clone())))
        .route("/pool", put(sink(open)).blocking())
        .route("/whole", put(collect));
    (web, begun)
}

const CONTINUE: &str = "Content-Length: 5\r\nExpect: 100-continue\r\n";

#[test]
fn a_password_is_asked_for_before_a_body_is() {
    let (_users, path) = users();
    let dir = folder("page");
    for config in models() {
        let (web, begun) = takers();
        let server = Server::start_with(config, web.site(site(&["*"], &dir).basic_auth("r", &path)));
        for taker in ["/loop", "/pool", "/whole"] {
            let model = format!("{taker} {:?}", config.dispatch);
            for lines in ["", ADA_WRONG] {
                // No 100 comes before the refusal, which is the end since the body may follow.
                let mut client = server.connect();
                let refused = client.ask(request("PUT", taker, &format!("{lines}{CONTINUE}")));
                assert_eq!((refused.status, refused.closes()), (401, true), "{model}");
                let mut client = server.connect();
                let lines = format!("{lines}Content-Length: 5\r\n");
                assert_eq!(client.ask(request("PUT", taker, &lines) + "hello").status, 401, "{model}");
            }
            assert_eq!(begun.load(Ordering::Relaxed), 0, "{model}");
            let mut client = server.connect();
            assert_eq!(client.ask(request("PUT", taker, &format!("{ADA}{CONTINUE}"))).status, 100, "{model}");
            client.send("hello");
            assert_eq!(client.answer().text(), "5", "{model}");
            let all = request("PUT", taker, &format!("{ADA}Content-Length: 3\r\n")) + "abc";
            client.send(all.repeat(3));
            for _ in 0..3 {
                assert_eq!(client.answer().text(), "3", "{model}");
            }
            assert_eq!(begun.swap(0, Ordering::Relaxed), 4, "{model}");
        }
    }
}

#[test]
fn addresses_and_limits_come_before_a_body_too() {
    let dir = folder("page");
    let (web, begun) = takers();
    let access = Access { allow: Networks::new(["10.0.0.0/8"]).unwrap(), deny: Networks::default() };
    let rate = RequestRate { per_second: 1, burst: 1 };
    let server = Server::start(web.site(site(&["*"], &dir).access(access).limit_requests(rate)));
    let ask = |address: &str| {
        let mut client = server.connect();
        let answer =
            client.ask(request("PUT", "/loop", &format!("X-Forwarded-For: {address}\r\n{CONTINUE}")));
        (answer.status, answer.status >= 200 && answer.closes())
    };
    assert_eq!(ask("192.0.2.1"), (403, true));
    assert_eq!(ask("10.0.0.1"), (100, false));
    let limited = (0..200).map(|_| ask("10.0.0.1")).find(|(status, _)| *status != 100);
    assert_eq!(limited, Some((429, true)));
    assert!(begun.load(Ordering::Relaxed) <= 200 && server.counter("access_denied") == 1);
}

#[test]
fn handlers_answer_on_every_site_and_fixed_answers_on_the_one_without_a_name() {
    let dir = folder("page");
    std::fs::write(dir.path().join("file"), "a file").unwrap();
    let moved = |from: &str| SiteRedirect {
        from: from.to_owned(),
        to: "/elsewhere".to_owned(),
        status: Status::PERMANENT_REDIRECT,
    };
    let path = |request: &Request<'_>| request.path().to_owned();
    let server = Server::start(
        Web::builder()
            .respond("/fixed", Status::OK, "", "fixed")
            .route("/file", get(path))
            .route("/users/{id}", get(path).post(path))
            .route("/moved", post(path))
            .route("/pool", get(path).blocking())
            .site(site(&["named"], &dir).field("X-Site", "named").redirect(moved("/moved"))),
    );
    let ask = |method: &str, host: &str, path: &str, body: &str| {
        let len = body.len();
        server.ask(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len}\r\n\r\n{body}"))
    };
    for path in ["/file", "/users/7", "/pool"] {
        let answers = ["named", "other"].map(|host| ask("GET", host, path, ""));
        assert_eq!(answers.each_ref().map(|answer| answer.text()), [path, path]);
        assert_eq!(answers.each_ref().map(|answer| answer.field("x-site")), [Some("named"), None]);
    }
    assert_eq!(ask("GET", "other", "/fixed", "").text(), "fixed");
    assert_eq!(ask("GET", "named", "/fixed", "").status, 404);
    assert_eq!(ask("GET", "named", "/", "").text(), "page");
    // A redirect comes before a handler, with a body or without.
    for body in ["", "abc"] {
        assert_eq!(ask("POST", "other", "/moved", body).text(), "/moved");
        let answer = ask("POST", "named", "/moved", body);
        assert_eq!((answer.status, answer.field("location")), (308, Some("/elsewhere")));
    }
}

#[test]
fn what_handlers_answer_takes_as_long_as_the_rate_of_the_site_says() {
    let dir = folder("page");
    for config in models() {
        let big = || vec![b'x'; 150_000];
        let server = Server::start_with(
            config,
            Web::builder()
                .route("/loop", get(big))
                .route("/pool", get(big).blocking())
                .route("/stream", get(|| stream(numbers(30_000))))
                .site(site(&["*"], &dir).limit_rate(400_000)),
        );
        for path in ["/loop", "/pool", "/stream"] {
            let mut client = server.connect();
            let begin = Instant::now();
            client.send(get_text(path) + &get_text("/"));
            if path == "/stream" {
                client.head();
                assert!(chunked_body(&mut client) == lines(30_000));
            } else {
                assert!(client.answer().body == big());
            }
            // 150 kB and more at 400 kB/s, of which an eighth of a second comes at once, and the last part of it without delay.
            let took = begin.elapsed();
            assert!(took >= Duration::from_millis(200), "{path} {:?}: {took:?}", config.dispatch);
            assert_eq!(client.answer().text(), "page");
        }
    }
}

#[test]
fn handlers_see_the_client_behind_a_trusted_proxy() {
    let who = |request: &Request<'_>| format!("{:?} {}", request.peer(), request.client().secure);
    let server = Server::start(
        trusting().route("/loop", get(who).put(who)).route("/pool", get(who).put(who).blocking()),
    );
    for path in ["/loop", "/pool"] {
        for (method, body) in [("GET", ""), ("PUT", "abc")] {
            let lines = format!(
                "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nContent-Length: {}\r\n",
                body.len()
            );
            let answer = server.ask(request(method, path, &lines) + body);
            assert!(answer.text().contains("192.0.2.7") && answer.text().ends_with("true"), "{answer:?}");
        }
    }
}

#[test]
fn the_last_request_of_a_connection_may_be_one_that_is_answered_late() {
    let web = || {
        Web::builder()
            .route("/pool", get(|| "late").blocking())
            .route("/stream", get(|| stream(numbers(10))))
            .max_requests_per_connection(2)
    };
    let server = Server::start(web());
    let mut client = server.connect();
    assert!(!client.ask(get_text("/pool")).closes());
    assert!(client.ask(get_text("/pool")).closes());
    client.expect_end();
    let mut client = server.connect();
    client.send(get_text("/stream").repeat(2));
    for closes in [false, true] {
        assert_eq!(client.head().closes(), closes);
        assert!(chunked_body(&mut client) == lines(10));
    }
    client.expect_end();
}
