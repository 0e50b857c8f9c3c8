//! Content codings: ready files beside a file, and what the server compresses itself.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tidegate_engine::{Dispatch, EngineConfig};
use tidegate_web::{FilesOptions, Web};

use crate::client::{Answer, Client, Server, eventually, request};
use crate::files::{noise, root, site};

fn ask(client: &mut Client, path: &str, accepted: &str) -> Answer {
    client.ask(request("GET", path, &format!("Accept-Encoding: {accepted}\r\n")))
}

fn options(dir: &TempDir) -> FilesOptions {
    FilesOptions::new(root(dir))
}

fn prose(len: usize) -> String {
    "The tide comes in, the tide goes out, and the gate stands open. ".chars().cycle().take(len).collect()
}

fn decode(answer: &Answer) -> Vec<u8> {
    let mut out = Vec::new();
    match answer.field("content-encoding") {
        None => out.clone_from(&answer.body),
        Some("gzip") => drop(flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut out).unwrap()),
        Some("br") => drop(brotli::Decompressor::new(&answer.body[..], 4096).read_to_end(&mut out).unwrap()),
        Some(other) => panic!("{other} was not asked for"),
    }
    out
}

#[test]
fn text_is_compressed_as_the_client_likes_it() {
    let dir = site();
    let text = prose(9000);
    fs::write(root(&dir).join("a.html"), &text).unwrap();
    let server = Server::start(Web::builder().files(options(&dir)));
    let mut client = server.connect();
    for (accepted, coding) in [
        ("gzip, deflate, br, zstd", Some("br")),
        ("gzip", Some("gzip")),
        ("br;q=0.5, gzip;q=0.8", Some("gzip")),
        ("identity, br;q=0.5", None),
        ("gzip;q=0", None),
        ("zstd", None),
        ("*", Some("br")),
        ("*;q=0, gzip;q=0.1", Some("gzip")),
        ("", None),
    ] {
        let answer = ask(&mut client, "/a.html", accepted);
        assert_eq!((answer.status, answer.field("content-encoding")), (200, coding), "{accepted}");
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"), "{accepted}");
        assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
        assert!(decode(&answer) == text.as_bytes(), "{accepted}");
        assert!(coding.is_none() || answer.body.len() < 1000, "{accepted}: {}", answer.body.len());
    }
    assert_eq!(ask(&mut client, "/a.html", "identity;q=0").status, 406);
    assert_eq!(ask(&mut client, "/large.bin", "*;q=0").status, 406);
    client.send(request("HEAD", "/a.html", "Accept-Encoding: br\r\n"));
    let head = client.head();
    let length = ask(&mut client, "/a.html", "br").body.len().to_string();
    assert_eq!(
        (head.field("content-encoding"), head.field("content-length")),
        (Some("br"), Some(length.as_str()))
    );
}

#[test]
fn what_would_not_get_smaller_is_sent_as_it_is() {
    let dir = site();
    fs::write(root(&dir).join("noise.txt"), noise(5000)).unwrap();
    fs::write(root(&dir).join("short.txt"), "short").unwrap();
    fs::write(root(&dir).join("text.png"), prose(5000)).unwrap();
    let server = Server::start(Web::builder().files(options(&dir)));
    let mut client = server.connect();
    for path in ["/noise.txt", "/noise.txt", "/short.txt", "/text.png", "/large.bin"] {
        let answer = ask(&mut client, path, "br, gzip");
        assert_eq!((answer.status, answer.field("content-encoding")), (200, None), "{path}");
    }
    // It depends on the coding whether it is asked for; not for what is never compressed.
    assert_eq!(ask(&mut client, "/short.txt", "br").field("vary"), None);
    let server = Server::start(Web::builder().files(options(&dir).compress(false)));
    fs::write(root(&dir).join("a.html"), prose(9000)).unwrap();
    let answer = ask(&mut server.connect(), "/a.html", "br, gzip");
    assert_eq!((answer.field("content-encoding"), answer.field("vary")), (None, None));
}

#[test]
fn a_large_file_is_compressed_in_the_background_and_sent_plain_meanwhile() {
    let dir = site();
    // So large that what comes out does not stand in memory beside its head.
    let mut text = prose(200_000);
    for at in 0..60_000u32 {
        text.push_str(&format!("{:x} ", at.wrapping_mul(2_654_435_761)));
    }
    fs::write(root(&dir).join("a.js"), &text).unwrap();
    let server = Server::start(Web::builder().files(options(&dir)));
    let mut client = server.connect();
    for coding in ["br", "gzip"] {
        eventually(|| {
            let answer = ask(&mut client, "/a.js", coding);
            assert!(answer.status == 200 && decode(&answer) == text.as_bytes());
            let coded = answer.field("content-encoding") == Some(coding);
            assert!(!coded || (16 << 10..text.len()).contains(&answer.body.len()));
            coded
        });
    }
    // Without the plain form as a way out there is nothing to send until it is done.
    fs::write(root(&dir).join("b.js"), &text).unwrap();
    eventually(|| {
        let answer = ask(&mut client, "/b.js", "gzip, identity;q=0");
        assert!(matches!(answer.status, 200 | 503), "{}", answer.status);
        answer.field("content-encoding") == Some("gzip")
    });
}

#[test]
fn what_the_server_compresses_has_a_weak_tag_and_no_ranges() {
    let dir = site();
    let text = prose(9000);
    fs::write(root(&dir).join("a.css"), &text).unwrap();
    let server = Server::start(Web::builder().files(options(&dir)));
    let mut client = server.connect();
    let plain = ask(&mut client, "/a.css", "identity").field("etag").unwrap().to_owned();
    let answer = ask(&mut client, "/a.css", "gzip");
    assert_eq!(answer.field("etag").unwrap(), format!("W/{plain}"));
    assert_eq!(answer.field("accept-ranges"), None);
    for (tag, accepted, etag) in [(&plain, "identity", plain.clone()), (&plain, "gzip", format!("W/{plain}"))]
    {
        let lines = format!("Accept-Encoding: {accepted}\r\nIf-None-Match: {tag}\r\n");
        let answer = client.ask(request("GET", "/a.css", &lines));
        assert_eq!((answer.status, answer.field("etag")), (304, Some(etag.as_str())));
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
    }
    let lines = "Accept-Encoding: gzip\r\nRange: bytes=4-8\r\n";
    let answer = client.ask(request("GET", "/a.css", lines));
    assert_eq!((answer.status, answer.field("content-encoding")), (206, None));
    assert_eq!((answer.text(), answer.field("vary")), (&text[4..9], Some("Accept-Encoding")));
    let lines = format!("Accept-Encoding: gzip\r\nRange: bytes=4-8\r\nIf-Range: W/{plain}\r\n");
    assert_eq!(client.ask(request("GET", "/a.css", &lines)).status, 200);
}

/// Makes a file with this content, last modified so many seconds before now.
fn write_aged(path: &Path, content: impl AsRef<[u8]>, seconds: u64) {
    fs::write(path, content).unwrap();
    let time = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn ready_files_are_sent_in_place_of_the_file() {
    let dir = site();
    let file = |name: &str| root(&dir).join(name);
    write_aged(&file("a.bin"), "plain", 100);
    write_aged(&file("a.bin.br"), "ready brotli", 100);
    write_aged(&file("a.bin.zst"), "ready zstd", 50);
    write_aged(&file("a.bin.gz"), noise(40_000), 100);
    write_aged(&file("only.txt.gz"), "no file beside it", 100);
    let server = Server::start(Web::builder().files(options(&dir).precompressed(true)));
    let mut client = server.connect();
    let mut tags = HashSet::new();
    for (accepted, coding, body) in [
        ("br, zstd, gzip", Some("br"), &b"ready brotli"[..]),
        ("zstd, gzip", Some("zstd"), b"ready zstd"),
        ("gzip", Some("gzip"), &noise(40_000)),
        ("identity", None, b"plain"),
    ] {
        let answer = ask(&mut client, "/a.bin", accepted);
        assert_eq!((answer.status, answer.field("content-encoding")), (200, coding), "{accepted}");
        assert!(answer.body == body, "{accepted}");
        assert_eq!(answer.field("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"));
        tags.insert(answer.field("etag").unwrap().to_owned());
    }
    assert_eq!(tags.len(), 4, "each form has a tag of its own");
    // They have ranges, of the coded bytes.
    let lines = "Accept-Encoding: br\r\nRange: bytes=0-4\r\n";
    let answer = client.ask(request("GET", "/a.bin", lines));
    assert_eq!((answer.status, answer.field("content-encoding"), answer.text()), (206, Some("br"), "ready"));
    assert_eq!(ask(&mut client, "/only.txt", "gzip").status, 404);
    assert_eq!(ask(&mut client, "/only.txt.gz", "gzip").field("content-encoding"), None);
}

#[test]
fn a_ready_file_that_is_older_than_the_file_is_not_sent_and_a_new_one_is_seen() {
    let dir = site();
    let file = |name: &str| root(&dir).join(name);
    write_aged(&file("a.bin"), "new", 10);
    write_aged(&file("a.bin.gz"), "of the old one", 20);
    let server = Server::start(Web::builder().files(options(&dir).precompressed(true)));
    let mut client = server.connect();
    let answer = ask(&mut client, "/a.bin", "gzip");
    assert_eq!((answer.text(), answer.field("vary")), ("new", None));
    write_aged(&file("a.bin.gz"), "of the new one", 5);
    eventually(|| ask(&mut client, "/a.bin", "gzip").body == b"of the new one");
    write_aged(&file("a.bin"), "newest", 0);
    eventually(|| ask(&mut client, "/a.bin", "gzip").body == b"newest");
}

#[test]
fn several_threads_serve_and_compress_the_same_files() {
    let dir = site();
    let texts: Vec<String> = (0..6).map(|n| prose(3000 + n * 9000)).collect();
    for (n, text) in texts.iter().enumerate() {
        fs::write(root(&dir).join(format!("{n}.txt")), text).unwrap();
    }
    for dispatch in [Dispatch::Pool, Dispatch::Reactor, Dispatch::LeaderFollower] {
        let config = EngineConfig { dispatch, pool_threads: 3, ..EngineConfig::default() };
        // Room for some of them only, so that they come and go.
        let options = options(&dir).max_cached_files(4);
        let server = Server::start_with(config, Web::builder().files(options));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (server, texts) = (&server, &texts);
                scope.spawn(move || {
                    let mut client = server.connect();
                    for round in 0..60 {
                        let n = (thread + round) % texts.len();
                        let coding = ["br", "gzip", "identity"][round % 3];
                        let answer = ask(&mut client, &format!("/{n}.txt"), coding);
                        assert!(decode(&answer) == texts[n].as_bytes(), "{dispatch:?} {n} {coding}");
                    }
                });
            }
        });
    }
}

#[test]
fn a_small_budget_still_serves_everything() {
    let dir = site();
    for n in 0..20 {
        fs::write(root(&dir).join(format!("{n}.txt")), prose(5000 + n)).unwrap();
    }
    let server = Server::start(Web::builder().files(options(&dir).max_cached_bytes(20_000)));
    let mut client = server.connect();
    for round in 0..3 {
        for n in 0..20 {
            for coding in ["br", "gzip", "identity"] {
                let answer = ask(&mut client, &format!("/{n}.txt"), coding);
                assert!(decode(&answer) == prose(5000 + n).as_bytes(), "{round} {n} {coding}");
            }
        }
    }
}
