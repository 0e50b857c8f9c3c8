//! Uploads to a disk: whole or not at all, also when it is full.

use std::path::Path;
use std::process::Command;

use tidegate_engine::Reason;
use tidegate_web::{Request, UploadDir, Web, get, partial_sink, post, put, sink};

use crate::client::{Server, eventually, get as get_text, request};

fn server(dir: &Path) -> Server {
    let uploads = UploadDir::open(dir).expect("the directory is there");
    let store = sink(move |request: &Request<'_>| uploads.begin(request.param("name").unwrap_or_default()));
    Server::start(
        Web::builder()
            .route("/uploads/{name}", put(store).max_body_bytes(64 << 20).blocking())
            .route("/alive", get(|| "alive")),
    )
}

fn upload(name: &str, len: usize) -> String {
    request("PUT", &format!("/uploads/{name}"), &format!("Content-Length: {len}\r\n"))
}

pub(crate) fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("the directory is there").count()
}

#[test]
fn bodies_become_files() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = server.connect();
    let content: Vec<u8> = (0..20 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
    client.send(upload("large%20file", content.len()));
    client.send(&content);
    assert_eq!(client.answer().status, 201);
    assert!(std::fs::read(dir.path().join("large file")).unwrap() == content);
    let answer = server.ask(upload("large%20file", 5));
    assert_eq!((answer.status, answer.closes()), (409, true), "before the body has come");
    assert_eq!(client.ask(upload("empty", 0)).status, 201);
    assert_eq!(client.ask(upload(".hidden", 0)).status, 400);
    assert_eq!(count(dir.path()), 2);
}

#[test]
fn a_part_of_a_file_is_not_taken_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    for (body, len) in [("67890", 5), ("", 0)] {
        let lines = format!("Content-Range: bytes 5-9/10\r\nContent-Length: {len}\r\n");
        let answer = server.ask(request("PUT", "/uploads/a", &lines) + body);
        assert_eq!((answer.status, answer.text()), (400, "Content-Range: only the whole is taken here\n"));
    }
    assert_eq!(count(dir.path()), 0);
    // One that says that it takes them gets them.
    let uploads = UploadDir::open(dir.path()).unwrap();
    let parts = partial_sink(move |request: &Request<'_>| {
        uploads.begin(if request.header("Content-Range") == Some("bytes 5-9/10") { "part" } else { "whole" })
    });
    let server = Server::start(Web::builder().route("/", post(parts).blocking()));
    let part = request("POST", "/", "Content-Range: bytes 5-9/10\r\nContent-Length: 5\r\n") + "67890";
    assert_eq!(server.ask(part).status, 201);
    assert_eq!(std::fs::read(dir.path().join("part")).unwrap(), b"67890");
}

#[test]
fn what_is_broken_off_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let mut client = server.connect();
    client.send(upload("a", 1000) + "0123456789");
    drop(client);
    let mut client = server.connect();
    client.send(request("PUT", "/uploads/a", "Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\nnonsense");
    assert_eq!(client.answer().status, 400);
    client.expect_end();
    assert_eq!(server.get("/alive").text(), "alive");
    let closed = |reason| server.metrics().closed(reason);
    // The other one that the peer has closed is that of the question before.
    eventually(|| closed(Reason::PEER_CLOSED) == 2 && closed(Reason::PROTOCOL_ERROR) == 1);
    assert_eq!(count(dir.path()), 0);
}

/// What is tried on a disk of 1 MiB.
fn try_full_disk(dir: &Path) {
    let server = server(dir);
    let mut client = server.connect();
    client.send(upload("fits", 500 << 10));
    client.send(vec![b'x'; 500 << 10]);
    assert_eq!(client.answer().status, 201);
    let mut full = server.connect();
    full.send(upload("full", 8 << 20));
    // The server may end the connection while this is under way, which is what is wanted.
    drop(std::io::Write::write_all(&mut full.stream, &vec![b'x'; 2 << 20]));
    let answer = full.answer();
    assert_eq!((answer.status, answer.closes()), (507, true));
    assert_eq!(client.ask(get_text("/alive")).text(), "alive");
    assert_eq!(count(dir), 1);
    assert_eq!(client.ask(upload("small", 5) + "small").status, 201, "there is room again");
}

#[test]
fn a_full_disk_is_507_and_the_server_serves_on() {
    on_small_disk("uploads::a_full_disk_is_507_and_the_server_serves_on", try_full_disk);
}

/// Runs the very test of this name again in a mount namespace of its own, where a disk of 1 MiB can be made.
pub(crate) fn on_small_disk(name: &str, test: impl FnOnce(&Path)) {
    const DISK: &str = "TIDEGATE_TEST_FULL_DISK";
    if let Some(dir) = std::env::var_os(DISK) {
        return test(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=1m tmpfs \"${DISK}\" || exit 77; exec \"$0\" \"$@\"");
    let child = Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(DISK, dir.path())
        .output();
    match child {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "{text}");
        }
        Ok(output) if matches!(output.status.code(), Some(77 | 1)) && output.stdout.is_empty() => {
            println!("skipped: no mount namespace: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => panic!(
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => println!("skipped: unshare: {error}"),
    }
}
