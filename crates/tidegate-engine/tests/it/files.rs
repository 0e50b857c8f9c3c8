//! Files sent by descriptor, in order with bytes.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tidegate_engine::{EngineConfig, ListenerWord, Reason};

use crate::client::counts;
use crate::support::{Server, Setup, pattern, until};

const LEN: usize = 6_000_000;

/// Puts a file into the service's hands.
fn file(server: &Server) -> (File, Vec<u8>) {
    let mut file = tempfile::tempfile().unwrap();
    let content = pattern(LEN);
    file.write_all(&content).unwrap();
    *server.control.file.lock().unwrap() = Some(Arc::new(OwnedFd::from(file.try_clone().unwrap())));
    (file, content)
}

under_each_model!(
    files_and_bytes_come_in_the_order_they_were_sent,
    a_peer_that_reads_late_gets_all_of_it,
    a_file_outlives_the_close_that_was_asked_for,
    a_peer_that_asks_for_files_and_reads_none_is_not_read_from,
    a_file_that_shrinks_is_a_reset_and_never_padding,
    a_file_that_is_shorter_than_promised_from_the_start_is_a_reset,
    a_file_that_ends_early_is_noticed_though_the_kernel_would_take_more,
);

fn files_and_bytes_come_in_the_order_they_were_sent(config: EngineConfig) {
    // A small buffer is full before a turn's share is sent, a large one is not.
    for send_buffer in [16 << 10, 400 << 10] {
        in_order(&Server::start(Setup { send_buffer, ..Setup::new(config) }));
    }
}

fn in_order(server: &Server) {
    let (_file, content) = file(server);
    let mut client = server.client();
    client.send(format!(
        "echo first\nfile 0 1000\nfile 5 0\nfile 1000 {}\necho between\nfile 17 70000\necho last\n",
        LEN - 1000
    ));
    client.expect("first");
    assert!(client.bytes(LEN) == content);
    client.expect("between");
    assert!(client.bytes(70_000) == content[17..70_017]);
    client.expect("last");
    client.round_trip();
    let sent = LEN + 70_000 + "first\nbetween\nlast\nthere and back\n".len();
    until(|| counts(server.count(ListenerWord::BytesOut), sent as u64));
}

fn a_peer_that_reads_late_gets_all_of_it(config: EngineConfig) {
    let server = Server::new(config);
    let (_file, content) = file(&server);
    let (mut client, handle) = server.client_with_handle();
    client.send(format!("file 0 {LEN}\n"));
    // The kernel's buffers are full, and the next messages queue behind the file.
    server.wait_for(ListenerWord::BytesOut, 1);
    client.send("echo behind\nfile 100 200\n");
    server.wait_for(ListenerWord::Messages, 3);
    handle.send("from another thread\n").unwrap();
    assert!(client.bytes(LEN) == content);
    client.expect("behind");
    assert!(client.bytes(200) == content[100..300]);
    client.expect("from another thread");
    client.send("done\n");
    assert_eq!(client.rest(), b"");
    drop(client);
    let closed = server.expect_close(Reason::DONE);
    let sent = LEN + 200 + "behind\nfrom another thread\n".len();
    assert!(counts(closed.bytes_out, sent as u64), "{closed:?}");
    assert_eq!(closed.bytes_taken, sent as u64, "{closed:?}");
}

fn a_file_outlives_the_close_that_was_asked_for(config: EngineConfig) {
    let server = Server::new(config);
    let (_file, content) = file(&server);
    let mut client = server.client();
    client.send(format!("file 0 {LEN}\ndone\n"));
    assert!(client.rest() == content);
    drop(client);
    server.expect_close(Reason::DONE);
}

fn a_peer_that_asks_for_files_and_reads_none_is_not_read_from(config: EngineConfig) {
    let server = Server::with(config, |limits| {
        limits.high_water_bytes = 20 << 10;
        limits.low_water_bytes = 2 << 10;
    });
    let (_file, content) = file(&server);
    let mut client = server.client();
    let writer = client.send_aside(format!("file 0 {}\n", 100_000).repeat(100).into_bytes());
    server.wait_for(ListenerWord::Messages, 20);
    // Twenty files weigh as much as the mark allows; the others are asked for as these are read.
    for n in 0..100 {
        assert!(server.count(ListenerWord::Messages) <= n + 30, "file {n}");
        assert!(client.bytes(100_000) == content[..100_000], "file {n}");
    }
    writer.join().unwrap().unwrap();
}

fn a_file_that_shrinks_is_a_reset_and_never_padding(config: EngineConfig) {
    let server = Server::new(config);
    let (file, content) = file(&server);
    let mut client = server.client();
    client.send(format!("file 0 {LEN}\necho behind\n"));
    server.wait_for(ListenerWord::BytesOut, 1);
    // To nothing: the kernel still holds the pages that are on their way, and clears the rest of one that it cuts.
    file.set_len(0).unwrap();
    let got = client.until_reset();
    assert!(got.len() < LEN && content.starts_with(&got), "{} bytes", got.len());
    server.expect_close(Reason::FILE_SHRANK);
}

fn a_file_that_is_shorter_than_promised_from_the_start_is_a_reset(config: EngineConfig) {
    let server = Server::new(config);
    let (_file, _) = file(&server);
    let mut bystander = server.client();
    let mut client = server.client();
    client.send(format!("echo head\nfile {} 2\necho behind\n", LEN - 1));
    client.until_reset();
    server.expect_close(Reason::FILE_SHRANK);
    bystander.round_trip();
}

fn a_file_that_ends_early_is_noticed_though_the_kernel_would_take_more(config: EngineConfig) {
    let server = Server::new(config);
    let (_file, content) = file(&server);
    let mut client = server.client();
    // It has waited for the kernel before, and is not told again of what was never refused.
    client.send("big 1000000\n");
    assert_eq!(client.line().len(), 1_000_000);
    client.round_trip();
    client.send(format!("file {} 20\n", LEN - 10));
    assert!(content.ends_with(&client.until_reset()));
    server.expect_close(Reason::FILE_SHRANK);
}
