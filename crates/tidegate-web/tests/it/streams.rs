//! Bodies that come and go in parts: made while they are sent, and taken while they are received.

use std::io::Read;
use std::net::Shutdown;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use tidegate_engine::{EngineConfig, Reason};
use tidegate_web::{
    BodySink, BodyStream, BodyWriter, Pulled, Reply, Request, Response, Status, StreamClosed, Web, deferred,
    get, put, sink,
};

use crate::client::{Client, PATIENCE, Server, eventually, get as get_text, request};

/// Reads a chunked body behind the head of its answer.
pub(crate) fn chunked_body(client: &mut Client) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = client.until(b"\r\n");
        let size = usize::from_str_radix(str::from_utf8(&line).unwrap(), 16).unwrap();
        let chunk = client.exactly(size + 2);
        assert!(chunk.ends_with(b"\r\n"));
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

/// So many lines, made a few at a time.
pub(crate) fn numbers(count: u64) -> BodyStream {
    let mut next = 0;
    BodyStream::pull(move |out| {
        for _ in 0..1000 {
            if next == count {
                return Pulled::End;
            }
            out.extend_from_slice(format!("{next}\n").as_bytes());
            next += 1;
        }
        Pulled::More
    })
}

pub(crate) fn lines(count: u64) -> Vec<u8> {
    (0..count).flat_map(|n| format!("{n}\n").into_bytes()).collect()
}

pub(crate) fn stream(body: BodyStream) -> Response {
    Response::new(Status::OK).header("Content-Type", "text/plain").body(body)
}

#[test]
fn a_stream_is_chunked_and_the_connection_goes_on() {
    let server = Server::start(
        Web::builder()
            .route("/none", get(|| stream(numbers(0))))
            .route("/few", get(|| stream(numbers(10))))
            .route("/many", get(|| stream(numbers(500_000)))),
    );
    let mut client = server.connect();
    for (path, count) in [("/none", 0), ("/few", 10), ("/many", 500_000), ("/few", 10)] {
        client.send(get_text(path) + &get_text("/missing"));
        let head = client.head();
        assert_eq!((head.field("transfer-encoding"), head.field("content-length")), (Some("chunked"), None));
        assert!(chunked_body(&mut client) == lines(count), "{path}");
        assert_eq!(client.answer().status, 404, "{path}");
    }
    client.send(request("HEAD", "/many", ""));
    assert_eq!(client.head().field("transfer-encoding"), Some("chunked"));
    assert_eq!(client.ask(get_text("/missing")).status, 404);
}

#[test]
fn a_client_of_http_1_0_gets_a_stream_up_to_the_end_of_the_connection() {
    let server = Server::start(Web::builder().route("/", get(|| stream(numbers(100_000)))));
    let mut client = server.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = client.head();
    assert_eq!((head.field("transfer-encoding"), head.closes()), (None, true));
    assert!(client.rest() == lines(100_000));
}

#[test]
fn a_stream_is_made_no_faster_than_it_is_taken() {
    let made = Arc::new(Mutex::new(0usize));
    let counting = Arc::clone(&made);
    let server = Server::start(Web::builder().route(
        "/",
        get(move || {
            let made = Arc::clone(&counting);
            stream(BodyStream::pull(move |out| {
                out.resize(16 << 10, b'x');
                let mut made = made.lock().unwrap();
                *made += out.len();
                if *made == 64 << 20 { Pulled::End } else { Pulled::More }
            }))
        }),
    ));
    let mut client = server.connect();
    client.send(get_text("/"));
    client.head();
    // What the kernel's buffers take is a few MiB, and what waits in the server is at most the high-water mark.
    let settled = || {
        let before = *made.lock().unwrap();
        server.get("/missing");
        *made.lock().unwrap() == before
    };
    eventually(settled);
    assert!(*made.lock().unwrap() < 32 << 20, "{}", made.lock().unwrap());
    assert_eq!(chunked_body(&mut client).len(), 64 << 20);
}

#[test]
fn other_threads_write_a_stream_and_wait_for_the_client() {
    let (give, given) = channel::<BodyWriter>();
    let give = Mutex::new(give);
    let server = Server::start(Web::builder().route(
        "/",
        get(move || {
            let (writer, body) = BodyStream::pipe(4096);
            give.lock().unwrap().send(writer).unwrap();
            stream(body)
        }),
    ));
    let mut client = server.connect();
    client.send(get_text("/") + &get_text("/missing"));
    let mut writer = given.recv_timeout(PATIENCE).unwrap();
    client.head();
    writer.write(b"one").unwrap();
    assert_eq!(client.until(b"\r\n"), b"3");
    assert_eq!(client.exactly(5), b"one\r\n");
    let writing = std::thread::spawn(move || {
        for part in lines(1_000_000).chunks(10_000) {
            writer.write(part).unwrap();
        }
        writer.finish();
    });
    assert!(chunked_body(&mut client) == lines(1_000_000));
    writing.join().unwrap();
    assert_eq!(client.answer().status, 404);

    client.send(get_text("/"));
    let mut writer = given.recv_timeout(PATIENCE).unwrap();
    client.head();
    drop(client);
    eventually(|| writer.try_write(b"x") == Err(StreamClosed));
}

#[test]
fn a_stream_that_breaks_off_is_seen_to() {
    let server = Server::start(Web::builder().route(
        "/",
        get(|| {
            let (mut writer, body) = BodyStream::pipe(4096);
            writer.write(b"half").unwrap();
            stream(body)
        }),
    ));
    let mut client = server.connect();
    client.send(get_text("/"));
    let rest = client.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", rest.escape_ascii());
    drop(client);
    eventually(|| server.metrics().closed(Reason::STREAM_BROKEN) == 1);
}

/// Adds up what comes, and tells when it is dropped.
struct Sum {
    sum: u64,
    parts_are_whole: bool,
    refuse_at: u64,
    dropped: Sender<u64>,
}

impl BodySink for Sum {
    fn write(&mut self, part: &[u8]) -> Result<(), Response> {
        self.parts_are_whole &= !part.is_empty();
        self.sum += part.len() as u64;
        if self.sum >= self.refuse_at {
            return Err(Response::new(Status::CONFLICT).body("enough"));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Response {
        assert!(self.parts_are_whole, "no part is empty");
        Response::new(Status::OK).body(self.sum.to_string())
    }
}

impl Drop for Sum {
    fn drop(&mut self) {
        self.dropped.send(self.sum).ok();
    }
}

/// A server with a sink in the loop and one on the pool.
fn sinks() -> (Server, std::sync::mpsc::Receiver<u64>) {
    let (dropped, drops) = channel();
    let open = move |request: &Request<'_>| {
        if request.query() == Some("no") {
            return Err(Response::new(Status::FORBIDDEN).body("no"));
        }
        let refuse_at = request.query().and_then(|query| query.parse().ok()).unwrap_or(u64::MAX);
        Ok(Sum { sum: 0, parts_are_whole: true, refuse_at, dropped: dropped.clone() })
    };
    let server = Server::start(
        Web::builder()
            .route("/loop", put(sink(open.clone())).max_body_bytes(64 << 20))
            .route("/pool", put(sink(open)).max_body_bytes(64 << 20).blocking()),
    );
    (server, drops)
}

#[test]
fn a_sink_takes_a_body_that_no_memory_holds() {
    let (server, _drops) = sinks();
    for path in ["/loop", "/pool"] {
        let mut client = server.connect();
        for len in [0, 1, 40 << 20] {
            client.send(request("PUT", path, &format!("Content-Length: {len}\r\n")));
            client.send(vec![b'x'; len]);
            assert_eq!(client.answer().text(), len.to_string(), "{path}");
        }
        client.send(request("PUT", path, "Transfer-Encoding: chunked\r\n"));
        for _ in 0..1000 {
            client.send("5\r\nhello\r\n");
        }
        client.send("0\r\n\r\n");
        assert_eq!(client.answer().text(), "5000", "{path}");
        client.send(request("PUT", path, "Content-Length: 3\r\nExpect: 100-continue\r\n"));
        assert_eq!(client.answer().status, 100, "{path}");
        client.send("abc");
        assert_eq!(client.answer().text(), "3", "{path}");
    }
}

#[test]
fn a_sink_may_refuse_at_once_or_later_and_is_dropped_when_the_client_breaks_off() {
    let (server, drops) = sinks();
    for path in ["/loop", "/pool"] {
        let lines = "Content-Length: 1000\r\nExpect: 100-continue\r\n";
        let mut client = server.connect();
        let answer = client.ask(request("PUT", &format!("{path}?no"), lines));
        assert_eq!((answer.status, answer.text(), answer.closes()), (403, "no", true), "{path}");
        client.expect_end();

        let mut client = server.connect();
        client.send(request("PUT", &format!("{path}?10"), "Content-Length: 1000\r\n") + "0123456789");
        let answer = client.answer();
        assert_eq!((answer.status, answer.text(), answer.closes()), (409, "enough", true), "{path}");
        client.expect_end();
        assert_eq!(drops.recv_timeout(PATIENCE), Ok(10), "{path}");

        let mut client = server.connect();
        client.send(request("PUT", path, "Content-Length: 1000\r\n") + "0123456789");
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(drops.recv_timeout(PATIENCE), Ok(10), "{path}");

        let mut client = server.connect();
        client.send(request("PUT", path, "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\nnonsense");
        assert_eq!(client.answer().status, 400, "{path}");
        // Whether the sink saw the part in front of the nonsense depends on how the bytes came.
        assert!(matches!(drops.recv_timeout(PATIENCE), Ok(0 | 3)), "{path}");
        let mut byte = [0];
        assert_eq!(client.stream.read(&mut byte).unwrap(), 0);
    }
}

#[test]
fn a_sink_takes_no_more_than_its_route_allows() {
    let (server, drops) = sinks();
    for path in ["/loop", "/pool"] {
        let length = (64 << 20) + 1;
        assert_eq!(server.ask(request("PUT", path, &format!("Content-Length: {length}\r\n"))).status, 413);
        assert!(drops.try_recv().is_err(), "{path}: it was not opened");
    }
}

/// Everything that leaves the loop and comes back, on one connection.
fn converse(server: &Server, model: &str) {
    let mut client = server.connect();
    client.send(get_text("/later") + &get_text("/pool") + &get_text("/later?x") + &get_text("/stream"));
    for path in ["/later", "/pool", "/later"] {
        assert_eq!(client.answer().text(), path, "{model}");
    }
    assert_eq!(client.head().status, 200, "{model}");
    assert!(chunked_body(&mut client) == lines(200_000), "{model}");
    for path in ["/sink", "/sink-on-pool"] {
        client.send(request("PUT", path, "Content-Length: 1000000\r\n"));
        client.send(vec![b'x'; 1_000_000]);
        client.send(get_text("/pool"));
        assert_eq!(client.answer().text(), "1000000", "{model} {path}");
        assert_eq!(client.answer().text(), "/pool", "{model} {path}");
    }
    client.send(get_text("/pipe"));
    client.head();
    assert!(chunked_body(&mut client) == lines(50_000), "{model}");
    assert_eq!(client.ask(get_text("/pool")).text(), "/pool", "{model}");
}

#[test]
fn handlers_bodies_and_streams_are_the_same_in_every_model() {
    use tidegate_engine::{Backend, Dispatch};
    let inline = [(Backend::Epoll, Dispatch::Inline), (Backend::Uring, Dispatch::Inline)];
    let others = [Dispatch::Pool, Dispatch::Reactor, Dispatch::LeaderFollower];
    for (backend, dispatch) in inline.into_iter().chain(others.map(|dispatch| (Backend::Epoll, dispatch))) {
        let (dropped, _drops) = channel();
        let open = move |_: &Request<'_>| {
            Ok(Sum { sum: 0, parts_are_whole: true, refuse_at: u64::MAX, dropped: dropped.clone() })
        };
        let later = deferred(|request: &Request<'_>, reply: Reply| {
            let path = request.path().to_owned();
            std::thread::spawn(move || reply.send(path));
        });
        let pipe = || {
            let (mut writer, body) = BodyStream::pipe(4096);
            std::thread::spawn(move || {
                writer.write(&lines(50_000)).unwrap();
                writer.finish();
            });
            stream(body)
        };
        let web = Web::builder()
            .route("/later", get(later))
            .route("/pool", get(|request: &Request<'_>| request.path().to_owned()).blocking())
            .route("/stream", get(|| stream(numbers(200_000))))
            .route("/pipe", get(pipe))
            .route("/sink", put(sink(open.clone())))
            .route("/sink-on-pool", put(sink(open)).blocking());
        let config = EngineConfig { backend, dispatch, ..EngineConfig::default() };
        let server = Server::start_with(config, web);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| converse(&server, &format!("{backend:?} {dispatch:?}")));
            }
        });
    }
}
