//! The server's side of the socket, spoken to by hand.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tidegate_engine::{Reason, Service as _};
use tidegate_log::{LogServer, MAX_LINE_BYTES, Severity};

use crate::support::{LONG, Site, lines, logging_to, wait_until};

const HELLO: &str = "{\"tidegate_log\":1,\"process\":\"by hand\",\"pid\":1,\"generation\":1}\n";

fn line(number: u64) -> String {
    format!("{{\"time\":\"2026-01-31T00:00:00Z\",\"severity\":\"INFO\",\"body\":\"{number}\"}}\n")
}

fn counter(name: &str) -> usize {
    LogServer::COUNTERS.iter().position(|counter| counter.name == name).unwrap()
}

#[test]
fn lines_after_a_hello_are_acknowledged_by_their_bytes() {
    let site = Site::new();
    let server = site.serve();
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.write_all(HELLO.as_bytes()).unwrap();
    let mut sent = 0;
    for number in 0..3 {
        // Divided anywhere, a line is a line.
        let line = line(number);
        let (first, second) = line.split_at(20);
        stream.write_all(first.as_bytes()).unwrap();
        stream.write_all(second.as_bytes()).unwrap();
        sent += line.len() as u64;
        let mut ack = [0; 8];
        stream.read_exact(&mut ack).unwrap();
        assert_eq!(u64::from_be_bytes(ack), sent);
        assert_eq!(lines(&site.dir()).len() as u64, number + 1, "acknowledged is stored");
    }
    server.stop();
}

#[test]
fn programs_without_a_hello_are_heard_and_get_no_answer() {
    let site = Site::new();
    let server = site.serve();
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.write_all(b"{\"msg\":\"hello\",\"level\":\"error\"}\r\n\n\xff\xfe oops\n").unwrap();
    stream.write_all(line(1).as_bytes()).unwrap();
    stream.write_all(b"{\"msg\":\"no newline\"}").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"");
    let records = site.records();
    let summary: Vec<_> = records.iter().map(|record| (record.severity, record.body.as_str())).collect();
    assert_eq!(
        summary,
        [
            (Severity::Error, "hello"),
            (Severity::Warn, "a line that is no JSON object"),
            (Severity::Info, "1"),
            (Severity::Info, "no newline"),
        ]
    );
    assert_eq!(records[1].attributes["line"], "\u{fffd}\u{fffd} oops");
    wait_until("the connection is counted", || server.metrics().service(counter("records")) == 4);
    assert_eq!(server.metrics().service(counter("bad_lines")), 1);
    server.stop();
}

#[test]
fn a_line_without_end_ends_its_connection_and_no_other() {
    let site = Site::new();
    let server = site.serve();
    let client = site.client();
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.write_all(line(1).as_bytes()).unwrap();
    // The server may close before it has taken all.
    let _ = stream.write_all(&vec![b'x'; 4 * MAX_LINE_BYTES]);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    wait_until("the connection is closed", || server.metrics().closed(Reason::INPUT_OVERFLOW) == 1);
    logging_to(&client, || tracing::info!("still here"));
    assert_eq!(client.flush(LONG).unsent, 0);
    let bodies: Vec<String> = site.records().into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, ["1", "still here"]);
    server.stop();
}

#[test]
fn the_longest_line_is_taken() {
    let site = Site::new();
    let server = site.serve();
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    let empty = line(0).len() - 1;
    let longest = line(0).replace("\"0\"", &format!("\"{}\"", "x".repeat(MAX_LINE_BYTES - empty)));
    assert_eq!(longest.len(), MAX_LINE_BYTES);
    stream.write_all(HELLO.as_bytes()).unwrap();
    stream.write_all(longest.as_bytes()).unwrap();
    let mut ack = [0; 8];
    stream.read_exact(&mut ack).unwrap();
    assert_eq!(lines(&site.dir()), [longest]);
    server.stop();
}

#[test]
fn a_newer_protocol_is_refused() {
    let site = Site::new();
    let server = site.serve();
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.write_all(HELLO.replace(":1,", ":2,").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    wait_until("it is closed", || server.metrics().closed(Reason::PROTOCOL_ERROR) == 1);
    server.stop();
}

#[test]
fn the_last_words_of_a_client_that_died_are_stored() {
    let site = Site::new();
    let server = site.serve();
    for round in 0..20 {
        let mut stream = UnixStream::connect(site.socket()).unwrap();
        stream.write_all(HELLO.as_bytes()).unwrap();
        stream.write_all(line(0).as_bytes()).unwrap();
        let stored = round * 1001;
        wait_until("the first is stored", || lines(&site.dir()).len() > stored);
        let rest: String = (1..=1000).map(line).collect();
        stream.write_all(rest.as_bytes()).unwrap();
        // With acknowledgements unread, which makes the connection look broken to the server.
        drop(stream);
        wait_until("the rest is stored", || lines(&site.dir()).len() == stored + 1001);
    }
    server.stop();
}

#[test]
fn a_retiring_server_reads_its_clients_to_their_end() {
    let site = Site::new();
    let server = site.serve();
    let client = site.client();
    logging_to(&client, || tracing::info!("first"));
    assert_eq!(client.flush(LONG).unsent, 0);
    // A program that neither speaks nor closes does not keep the server from ending.
    let mut idle = UnixStream::connect(site.socket()).unwrap();
    idle.write_all(line(1).as_bytes()).unwrap();
    wait_until("it is known", || site.records().len() == 2);
    server.running.quit(Duration::from_secs(3600));
    let mut end = Vec::new();
    idle.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"", "the silent program was closed in order");
    assert!(!server.running.is_finished(), "the client is still there");
    logging_to(&client, || tracing::info!("last"));
    assert_eq!(client.flush(LONG).unsent, 0);
    drop(client);
    drop(idle);
    server.running.join().unwrap();
    let bodies: Vec<String> = site.records().into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, ["first", "1", "last"]);
}

#[test]
fn clients_do_not_notice_a_disk_that_takes_nothing() {
    let site = Site::new();
    let server = site.serve();
    let client = site.client();
    logging_to(&client, || tracing::info!("before"));
    assert_eq!(client.flush(LONG).unsent, 0);
    let hidden = site.dir().with_extension("hidden");
    std::fs::rename(site.dir(), &hidden).unwrap();
    std::fs::write(site.dir(), "in the way").unwrap();
    server.store.lock().reopen();
    logging_to(&client, || tracing::info!("during"));
    assert_eq!(client.flush(LONG).unsent, 0, "the server keeps it in memory");
    assert!(server.store.lock().failure().is_some() && !client.is_away());
    std::fs::remove_file(site.dir()).unwrap();
    std::fs::rename(&hidden, site.dir()).unwrap();
    // No further record comes; the server tries by itself.
    wait_until("it is written", || site.records().len() == 3);
    let bodies: Vec<String> = site.records().into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, ["before", "during", "the log directory can be written again"]);
    server.stop();
}

#[test]
fn a_client_that_has_just_connected_is_not_taken_for_another_program() {
    let site = Site::new();
    let server = site.serve();
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    wait_until("it is accepted", || server.metrics().get(tidegate_engine::ListenerWord::Open) == 1);
    let other = UnixStream::connect(site.socket()).unwrap();
    wait_until("the other too", || server.metrics().get(tidegate_engine::ListenerWord::Open) == 2);
    server.running.quit(Duration::from_secs(3600));
    stream.write_all(HELLO.as_bytes()).unwrap();
    // The other program is closed for its silence; the client, whose silence began with it, is not.
    wait_until("the other is closed", || server.metrics().get(tidegate_engine::ListenerWord::Open) == 1);
    drop(other);
    stream.write_all(line(1).as_bytes()).unwrap();
    let mut ack = [0; 8];
    stream.read_exact(&mut ack).unwrap();
    drop(stream);
    server.running.join().unwrap();
    assert_eq!(lines(&site.dir()), [line(1)]);
}
