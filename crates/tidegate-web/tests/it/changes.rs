//! Files that change, vanish or are none while they are asked for: no answer mixes two states of a file, none is filled up
//! with what the file does not have, and nothing but files is ever opened.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::inotify;
use tidegate_web::{FilesOptions, Web};

use crate::client::{PATIENCE, Server, eventually, get, request};
use crate::files::{noise, root, site};

/// More than the kernel takes at once for a peer that does not read.
const LARGE: usize = 24 << 20;
/// What is left of it.
const LEFT: usize = 4 << 20;

/// Puts a file in the place of another in one step.
fn replace(path: &Path, content: &[u8]) {
    let other = path.with_extension("new");
    fs::write(&other, content).unwrap();
    fs::rename(&other, path).unwrap();
}

#[test]
fn a_file_that_is_replaced_while_it_is_sent_is_sent_to_its_end() {
    let dir = site();
    let path = root(&dir).join("big.bin");
    let old = noise(LARGE);
    fs::write(&path, &old).unwrap();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    client.send(get("/big.bin"));
    let mut first = [0; 1000];
    client.stream.peek(&mut first).unwrap();
    replace(&path, b"new");
    assert!(client.answer().body == old);
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_in_a_reset() {
    let dir = site();
    let path = root(&dir).join("big.bin");
    let content = noise(LARGE);
    fs::write(&path, &content).unwrap();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    client.send(get("/big.bin"));
    client.stream.peek(&mut [0; 1]).unwrap();
    // Of the block of its cache in which a file ends the kernel itself clears the rest, also what of it is on its way; so it
    // ends where even the largest blocks do.
    File::options().write(true).open(&path).unwrap().set_len(LEFT as u64).unwrap();
    let mut received = Vec::new();
    let error = client.stream.read_to_end(&mut received).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let body = received.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let body = &received[body..];
    assert!(body.len() < LARGE && *body == content[..body.len()], "nothing but what the file had");
    // Who comes within the second in which the file was looked at is reset too; then everybody gets what is there now.
    eventually(|| {
        let mut client = server.connect();
        client.send(request("GET", "/big.bin", "Connection: close\r\n"));
        let mut received = Vec::new();
        client.stream.read_to_end(&mut received).is_ok() && received.ends_with(&content[..LEFT])
    });
}

#[test]
fn a_file_that_grew_is_sent_as_it_was_found() {
    let dir = site();
    let path = root(&dir).join("log.bin");
    let content = noise(100_000);
    fs::write(&path, &content).unwrap();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    assert!(client.ask(get("/log.bin")).body == content);
    File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    let answer = client.ask(get("/log.bin"));
    assert!(answer.body == content || answer.body.len() == content.len() + 4);
}

#[test]
fn no_answer_mixes_two_versions_that_take_turns() {
    let dir = site();
    let small: Vec<u8> = vec![b'a'; 9000];
    let large: Vec<u8> = vec![b'b'; 90_000];
    let path = root(&dir).join("turns.txt");
    fs::write(&path, &small).unwrap();
    let server = Server::start(Web::builder().files(FilesOptions::new(root(&dir)).max_cached_files(1)));
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                replace(&path, &large);
                replace(&path, &small);
            }
        });
        let mut client = server.connect();
        let mut seen = [false; 2];
        let started = std::time::Instant::now();
        for n in 0.. {
            // Another file takes the only place in the cache, so that this one is opened again.
            assert_eq!(client.ask(get("/index.html")).status, 200);
            let answer = client.ask(get("/turns.txt"));
            match answer.status {
                200 => {
                    assert!(answer.body == small || answer.body == large, "{n}: {}", answer.body.len());
                    seen[usize::from(answer.body == large)] = true;
                }
                // It can be replaced more often than it is looked at.
                other => assert_eq!(other, 503),
            }
            if (n > 300 && seen == [true; 2]) || started.elapsed() > PATIENCE {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        seen
    });
    assert_eq!(seen, [true; 2]);
}

#[test]
fn what_is_no_file_is_never_opened() {
    let dir = site();
    let fifo = root(&dir).join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    let socket = root(&dir).join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::symlink("fifo", root(&dir).join("link")).unwrap();
    fs::create_dir(root(&dir).join("many")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root(&dir).join("many/fifo.html"),
        rustix::fs::FileType::Fifo,
        0o644.into(),
        0,
    )
    .unwrap();
    let options = FilesOptions::new(root(&dir)).index(["fifo.html"]).autoindex(true).precompressed(true);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root(&dir).join("empty.txt.gz"),
        rustix::fs::FileType::Fifo,
        0o644.into(),
        0,
    )
    .unwrap();
    let server = Server::start(Web::builder().files(options));

    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    for path in [&fifo, &socket, &root(&dir).join("many/fifo.html"), &root(&dir).join("empty.txt.gz")] {
        inotify::add_watch(&watch, path, inotify::WatchFlags::OPEN).unwrap();
    }
    let mut client = server.connect();
    for path in ["/fifo", "/socket", "/link", "/fifo/", "/many/fifo.html"] {
        assert_eq!(client.ask(get(path)).status, 404, "{path}");
    }
    assert!(!client.ask(get("/many/")).text().contains("fifo"));
    let gzip = request("GET", "/empty.txt", "Accept-Encoding: gzip\r\n");
    assert_eq!((client.ask(&gzip).status, client.ask(&gzip).body.len()), (200, 0));
    let mut events = [0; 4096];
    assert_eq!(
        rustix::io::read(&watch, &mut events).unwrap_err(),
        rustix::io::Errno::AGAIN,
        "no open was seen"
    );
    // The watch does see one.
    let _both_ends = File::options().read(true).write(true).open(&fifo).unwrap();
    assert!(rustix::io::read(&watch, &mut events).unwrap() > 0);
}
