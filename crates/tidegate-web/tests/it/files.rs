//! Static files: what is served, as what, and what is never reached.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;
use tidegate_web::{FilesOptions, Status, Web};

use crate::client::{Server, eventually, get, request};

/// A directory with `root` in it, and a secret beside that.
pub(crate) fn site() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for sub in ["dir", "bare", ".git", ".well-known", "a b"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    let write = |name: &str, content: &[u8]| fs::write(root.join(name), content).unwrap();
    write("index.html", b"<h1>home</h1>");
    write("dir/index.html", b"<h1>dir</h1>");
    write("dir/style.css", b"a{}");
    write("empty.txt", b"");
    write("100% \u{e4}.txt", b"odd name");
    write(".env", b"secret");
    write(".git/config", b"secret");
    write(".well-known/security.txt", b"contact");
    write("large.bin", &noise(5 << 20));
    write("edge.bin", &noise(16 << 10));
    write("over.bin", &noise((16 << 10) + 1));
    fs::write(dir.path().join("secret.txt"), b"secret").unwrap();
    dir
}

pub(crate) fn root(dir: &TempDir) -> std::path::PathBuf {
    dir.path().join("root")
}

fn serve(dir: &TempDir) -> Server {
    Server::start(Web::builder().root(root(dir)))
}

/// Bytes without a pattern (xorshift), the same each time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

#[test]
fn files_are_served_with_their_type() {
    let dir = site();
    let server = serve(&dir);
    for (path, content_type, body) in [
        ("/", "text/html; charset=utf-8", "<h1>home</h1>"),
        ("/index.html", "text/html; charset=utf-8", "<h1>home</h1>"),
        ("/?query", "text/html; charset=utf-8", "<h1>home</h1>"),
        ("/dir/", "text/html; charset=utf-8", "<h1>dir</h1>"),
        ("/dir/style.css", "text/css; charset=utf-8", "a{}"),
        ("/dir/../dir/./style.css?v=1", "text/css; charset=utf-8", "a{}"),
        ("/empty.txt", "text/plain; charset=utf-8", ""),
        ("/100%25%20%c3%a4.txt", "text/plain; charset=utf-8", "odd name"),
        ("/.well-known/security.txt", "text/plain; charset=utf-8", "contact"),
    ] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.text()), (200, body), "{path}");
        assert_eq!(answer.field("content-type"), Some(content_type), "{path}");
        assert!(answer.field("etag").is_some() && answer.field("last-modified").is_some(), "{path}");
    }
}

#[test]
fn routes_come_before_files() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)).respond("/", Status::OK, "", "route"));
    assert_eq!(server.get("/").text(), "route");
    assert_eq!(server.get("/index.html").text(), "<h1>home</h1>");
}

#[test]
fn a_directory_without_its_slash_is_moved_to_it() {
    let dir = site();
    let server = serve(&dir);
    for (path, location) in
        [("/dir", "/dir/"), ("/dir?a=%20b", "/dir/?a=%20b"), ("//dir", "/dir/"), ("/a%20b", "/a%20b/")]
    {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.field("location")), (301, Some(location)), "{path}");
    }
}

#[test]
fn what_is_not_there_is_404() {
    let dir = site();
    let server = serve(&dir);
    let long = format!("/{}", "n".repeat(300));
    for path in [
        "/missing",
        "/bare/",
        "/dir/missing",
        "/index.html/",
        "/index.html/x",
        "/.env",
        "/.git/config",
        &long,
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

#[test]
fn dot_files_are_served_when_that_is_wanted() {
    let dir = site();
    let server = Server::start(Web::builder().files(FilesOptions::new(root(&dir)).dot_files(true)));
    assert_eq!(server.get("/.env").text(), "secret");
}

#[test]
fn no_path_leaves_the_root() {
    let dir = site();
    let root = root(&dir);
    symlink("../secret.txt", root.join("out-relative")).unwrap();
    symlink(dir.path().join("secret.txt"), root.join("out-absolute")).unwrap();
    symlink("..", root.join("out-dir")).unwrap();
    symlink("/", root.join("slash")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("dir/../index.html", root.join("inside")).unwrap();
    let server = serve(&dir);
    let mut client = server.connect();
    for path in [
        "/../secret.txt",
        "/dir/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2E%2E/secret.txt",
        "/.%2e/secret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "/..;/secret.txt",
        "/.../secret.txt",
        "/dir/%00/../../secret.txt",
        "/index.html%00.png",
        "//../secret.txt",
        "/./../secret.txt",
        "/out-relative",
        "/out-absolute",
        "/out-dir/secret.txt",
        "/out-dir/root/index.html",
        "/slash/etc/passwd",
        "/magic/etc/passwd",
        "/loop",
    ] {
        let answer = client.ask(get(path));
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(!answer.text().contains("secret\n") && answer.text() != "secret", "{path}");
    }
    assert_eq!(client.ask(get("/inside")).text(), "<h1>home</h1>");
}

#[test]
fn a_fifo_or_a_socket_is_404_and_stops_nobody() {
    let dir = site();
    let fifo = root(&dir).join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root(&dir).join("socket")).unwrap();
    let server = serve(&dir);
    let mut client = server.connect();
    for path in ["/fifo", "/socket", "/fifo/", "/socket"] {
        assert_eq!(client.ask(get(path)).status, 404, "{path}");
    }
    assert_eq!(client.ask(get("/")).status, 200);
}

#[test]
fn what_may_not_be_read_is_403() {
    let dir = site();
    let path = root(&dir).join("private.txt");
    fs::write(&path, b"private").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    assert_eq!(serve(&dir).get("/private.txt").status, 403);
}

#[test]
fn large_files_arrive_whole_and_in_order() {
    let dir = site();
    let server = serve(&dir);
    let large = noise(5 << 20);
    let mut client = server.connect();
    client.send(
        get("/large.bin")
            + &get("/over.bin")
            + &get("/edge.bin")
            + &get("/missing")
            + &get("/large.bin")
            + &get("/"),
    );
    assert!(client.answer().body == large);
    assert!(client.answer().body == large[..(16 << 10) + 1]);
    assert!(client.answer().body == large[..16 << 10]);
    assert_eq!(client.answer().status, 404);
    assert!(client.answer().body == large);
    assert_eq!(client.answer().text(), "<h1>home</h1>");
}

#[test]
fn a_large_file_is_delivered_before_the_connection_ends() {
    let dir = site();
    let server = serve(&dir);
    let mut client = server.connect();
    client.send(request("GET", "/large.bin", "Connection: close\r\n"));
    assert!(client.answer().body == noise(5 << 20));
    client.expect_end();
}

#[test]
fn head_of_a_file_has_its_length_and_nothing_behind() {
    let dir = site();
    let server = serve(&dir);
    let mut client = server.connect();
    for (path, len) in [("/large.bin", "5242880"), ("/index.html", "13"), ("/empty.txt", "0")] {
        client.send(request("HEAD", path, "") + &get("/index.html"));
        assert_eq!(client.head().field("content-length"), Some(len), "{path}");
        assert_eq!(client.answer().text(), "<h1>home</h1>");
    }
}

#[test]
fn a_replaced_changed_or_deleted_file_is_seen_soon() {
    let dir = site();
    let server = serve(&dir);
    let mut client = server.connect();
    let mut text = |path: &str| {
        let answer = client.ask(get(path));
        if answer.status == 200 { answer.text().to_owned() } else { answer.status.to_string() }
    };
    let file = root(&dir).join("changing.txt");
    fs::write(&file, "one").unwrap();
    assert_eq!(text("/changing.txt"), "one");
    replace(&file, "two");
    eventually(|| text("/changing.txt") == "two");
    fs::write(&file, "three, in place").unwrap();
    eventually(|| text("/changing.txt") == "three, in place");
    fs::remove_file(&file).unwrap();
    eventually(|| text("/changing.txt") == "404");
    fs::write(&file, "four").unwrap();
    assert_eq!(text("/changing.txt"), "four");
}

fn replace(path: &Path, text: &str) {
    let other = path.with_extension("new");
    fs::write(&other, text).unwrap();
    fs::rename(&other, path).unwrap();
}

#[test]
fn more_files_than_the_cache_holds_are_served_right() {
    let dir = site();
    for n in 0..20 {
        fs::write(root(&dir).join(format!("{n}.txt")), format!("file {n}")).unwrap();
        let large = [n; 20_000];
        fs::write(root(&dir).join(format!("{n}.bin")), large).unwrap();
    }
    let server = Server::start(Web::builder().files(FilesOptions::new(root(&dir)).max_cached_files(3)));
    let mut client = server.connect();
    for round in 0..3 {
        for n in 0..20u8 {
            assert_eq!(client.ask(get(&format!("/{n}.txt"))).text(), format!("file {n}"), "round {round}");
            assert!(client.ask(get(&format!("/{n}.bin"))).body == [n; 20_000], "round {round}");
        }
    }
}
