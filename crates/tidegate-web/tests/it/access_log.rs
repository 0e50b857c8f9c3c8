//! The access log: what is told of which requests, and when.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, Once, PoisonError};

use tempfile::TempDir;
use tidegate_engine::{Dispatch, EngineConfig};
use tidegate_web::{AccessFormat, BodyStream, Pulled, RequestIdMode, Response, Status, Web, WebBuilder};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

use crate::client::{Server, eventually, get, request};
use crate::gates::models;
use crate::sites::{folder, site};

/// The fields of an event, as text.
pub(crate) type Fields = BTreeMap<String, String>;

/// What all tests have recorded so far. Each looks for what it has asked for itself.
static SEEN: Mutex<Vec<Fields>> = Mutex::new(Vec::new());

struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "tidegate_web::access" {
            let mut fields = Kept::default();
            event.record(&mut fields);
            SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(fields.0);
        }
    }
}

#[derive(Default)]
struct Kept(Fields);

impl Visit for Kept {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::registry().with(Keep);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

/// The records that name this.
pub(crate) fn told(what: &str) -> Vec<Fields> {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.iter().filter(|fields| fields.values().any(|value| value.contains(what))).cloned().collect()
}

pub(crate) fn wait_for(what: &str, count: usize) -> Vec<Fields> {
    eventually(|| told(what).len() >= count);
    let told = told(what);
    assert_eq!(told.len(), count, "{told:?}");
    told
}

pub(crate) fn hello() -> WebBuilder {
    listen();
    Web::builder().respond("/hello", Status::OK, "", "Hello, World!")
}

#[test]
fn a_line_in_the_combined_form() {
    let server = Server::start(hello().access_log(AccessFormat::Combined, 1));
    let lines = "User-Agent: combined-test/1 \"x\"\r\nReferer: https://example.com/\r\n";
    server.ask(request("GET", "/hello?a=b", lines));
    let record = wait_for("combined-test/1", 1).remove(0);
    let line = &record["message"];
    let (before, after) = line.split_once(" [").unwrap();
    assert_eq!(before, "127.0.0.1 - -");
    let (time, after) = after.split_once("] ").unwrap();
    assert!(time.len() == 26 && time.ends_with(" +0000"), "{time}");
    assert_eq!(
        after,
        r#""GET /hello?a=b HTTP/1.1" 200 13 "https://example.com/" "combined-test/1 \x22x\x22""#
    );
    assert_eq!(record.len(), 1, "{record:?}");
}

#[test]
fn a_record_with_everything_that_is_known() {
    for dispatch in [Dispatch::Inline, Dispatch::Pool] {
        let config = EngineConfig { dispatch, ..EngineConfig::default() };
        let server = Server::start_with(
            config,
            hello().access_log(AccessFormat::Json, 1).request_ids(RequestIdMode::Accept),
        );
        let id = format!("json-{dispatch:?}");
        let lines = format!("User-Agent: json-test\r\nX-Request-Id: {id}\r\n");
        server.ask(request("GET", "/hello", &lines));
        let record = wait_for(&id, 1).remove(0);
        for (name, value) in [
            ("client", "127.0.0.1"),
            ("method", "GET"),
            ("url", "/hello"),
            ("protocol", "HTTP/1.1"),
            ("host", "test"),
            ("status", "200"),
            ("bytes", "13"),
            ("user_agent", "json-test"),
            ("request_id", &id),
            ("secure", "false"),
            ("complete", "true"),
            ("message", "GET /hello 200"),
        ] {
            assert_eq!(record.get(name).map(String::as_str), Some(value), "{name}: {record:?}");
        }
        let time = |name: &str| record[name].parse::<u64>().unwrap();
        assert!(time("first_byte_us") <= time("total_us"), "{record:?}");
        assert!(!record.contains_key("referer") && !record.contains_key("user"), "{record:?}");
    }
}

#[test]
fn each_request_of_a_pipeline_has_its_record_in_order() {
    let server = Server::start(hello().access_log(AccessFormat::Json, 1));
    let mut client = server.connect();
    let all: String = (0..200).map(|n| get(&format!("/pipelined-{n}"))).collect();
    client.send(all);
    for _ in 0..200 {
        assert_eq!(client.answer().status, 404);
    }
    let urls: Vec<String> = wait_for("/pipelined-", 200).iter().map(|record| record["url"].clone()).collect();
    let expect: Vec<String> = (0..200).map(|n| format!("/pipelined-{n}")).collect();
    assert_eq!(urls, expect);
}

#[test]
fn an_answer_that_was_not_taken_is_told_as_cut_short() {
    let dir = folder("page");
    std::fs::write(dir.path().join("cut-short"), vec![b'x'; 50_000_000]).unwrap();
    let server = Server::start(hello().root(dir.path()).access_log(AccessFormat::Json, 1));
    let mut client = server.connect();
    client.send(get("/cut-short"));
    client.head();
    assert!(told("/cut-short").is_empty(), "told before it was sent");
    drop(client);
    let record = wait_for("/cut-short", 1).remove(0);
    assert_eq!((&*record["complete"], &*record["status"]), ("false", "200"));
    assert!(number(&record, "bytes") < 50_000_000, "{record:?}");
}

fn number(record: &Fields, name: &str) -> u64 {
    record[name].parse().unwrap()
}

/// Files, and streams that end and that do not.
fn sources(dir: &TempDir) -> WebBuilder {
    std::fs::write(dir.path().join("large"), vec![b'x'; 20_000_000]).unwrap();
    std::fs::write(dir.path().join("small"), vec![b'x'; 1000]).unwrap();
    hello()
        .root(dir.path())
        .handler("/stream", |_| {
            let mut left = 3;
            Response::new(Status::OK).body(BodyStream::pull(move |out| {
                out.extend_from_slice(b"twelve bytes");
                left -= 1;
                if left == 0 { Pulled::End } else { Pulled::More }
            }))
        })
        .handler("/endless", |_| {
            Response::new(Status::OK).body(BodyStream::pull(|out| {
                out.extend_from_slice(&[b'x'; 16 << 10]);
                Pulled::More
            }))
        })
        .access_log(AccessFormat::Json, 1)
}

#[test]
fn the_bytes_that_are_told_are_those_that_were_sent() {
    let dir = folder("page");
    for config in models() {
        let tag = format!("{:?}-{:?}", config.backend, config.dispatch);
        let server = Server::start_with(config, sources(&dir));
        let mut client = server.connect();
        // Whole answers, of which each has its own.
        let agent = format!("User-Agent: sent-{tag}-\r\n");
        client.send(
            request("HEAD", "/large", &agent)
                + &request("GET", "/large", &format!("{agent}Range: bytes=5-104\r\n"))
                + &request("GET", "/small", &format!("{agent}Range: bytes=0-0,9-10\r\n"))
                + &request(
                    "POST",
                    "/missing",
                    &format!("{agent}Expect: 100-continue\r\nContent-Length: 3\r\n"),
                ),
        );
        assert_eq!(client.head().status, 200);
        assert_eq!(client.answer().body.len(), 100);
        let parts = client.answer().body.len().to_string();
        let refused = client.answer();
        assert!(refused.closes());
        let sent: Vec<String> =
            wait_for(&format!("sent-{tag}-"), 4).iter().map(|record| record["bytes"].clone()).collect();
        assert_eq!(sent, ["0", "100", &*parts, &*refused.body.len().to_string()]);

        let mut client = server.connect();
        client.send(request(
            "GET",
            "/stream",
            &format!("User-Agent: chunks-{tag}-\r\nConnection: close\r\n"),
        ));
        client.head();
        let body = client.rest();
        assert!(body.ends_with(b"c\r\ntwelve bytes\r\n0\r\n\r\n"));
        let record = wait_for(&format!("chunks-{tag}-"), 1).remove(0);
        assert_eq!((number(&record, "bytes"), &*record["complete"]), (body.len() as u64, "true"));
    }
}

#[test]
fn of_an_answer_that_was_cut_short_what_was_sent_is_told() {
    let dir = folder("page");
    for config in models() {
        let tag = format!("{:?}-{:?}", config.backend, config.dispatch);
        let server = Server::start_with(config, sources(&dir));
        // Behind an answer that was sent, one that was not: the client has read some of it.
        for path in ["/large", "/endless"] {
            let agent = format!("User-Agent: cut-{}-{tag}-\r\n", &path[1..]);
            let mut client = server.connect();
            client.send(request("GET", "/small", &agent) + &request("GET", path, &agent));
            client.answer();
            client.head();
            client.exactly(1_000_000);
            client.reset();
            let records = wait_for(agent.trim_end().split(' ').next_back().unwrap(), 2);
            assert_eq!((&*records[0]["bytes"], &*records[0]["complete"]), ("1000", "true"), "{tag}");
            let bytes = number(&records[1], "bytes");
            assert_eq!(
                (&*records[1]["complete"], &*records[1]["status"]),
                ("false", "200"),
                "{tag} {path} {records:?}"
            );
            assert!((1_000_000..20_000_000).contains(&bytes), "{tag} {path}: {bytes}");
        }
    }
}

#[test]
fn what_is_no_request_is_told_too() {
    let server = Server::start(hello().access_log(AccessFormat::Combined, 1));
    assert_eq!(server.ask("nonsense\r\n\r\n").status, 400);
    let lines = wait_for("\"-\" 400 ", 1);
    assert!(lines[0]["message"].starts_with("127.0.0.1 - - ["), "{lines:?}");
}

#[test]
fn one_in_so_many_is_told_and_the_last_one_of_a_connection_too() {
    let server = Server::start(hello().access_log(AccessFormat::Json, 10));
    let mut client = server.connect();
    for n in 0..100 {
        assert_eq!(client.ask(get(&format!("/sampled-{n}"))).status, 404);
    }
    wait_for("/sampled-", 10);
    let server = Server::start(hello().access_log(AccessFormat::Json, 1));
    let mut client = server.connect();
    assert!(client.ask(request("GET", "/closing", "Connection: close\r\n")).closes());
    client.expect_end();
    assert_eq!(&*wait_for("/closing", 1)[0]["complete"], "true");
}

#[test]
fn a_paced_body_is_told_when_it_is_whole() {
    let dir = folder("page");
    std::fs::write(dir.path().join("paced"), vec![b'x'; 100_000]).unwrap();
    let server =
        Server::start(hello().access_log(AccessFormat::Json, 1).site(site(&["*"], &dir).limit_rate(400_000)));
    assert_eq!(server.get("/paced").body.len(), 100_000);
    let record = wait_for("/paced", 1).remove(0);
    let time = |name: &str| record[name].parse::<u64>().unwrap();
    assert!(time("total_us") >= 100_000 && time("first_byte_us") < time("total_us"), "{record:?}");
    assert_eq!((&*record["bytes"], &*record["complete"]), ("100000", "true"));
}
