//! Every key of the configuration does what it says: the table of where that is shown, and what the tests here share.
//!
//! The one invariant: each key that the schema has is in the table exactly once, and a key with no test has a reason. A case
//! is seen from outside, by a client, the log, or the kernel, with one value before a reload and another after it.

mod files;
mod limits;
mod listen;
mod requests;
mod rest;
mod shown;
mod sites;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use tempfile::{TempDir, tempdir};

use crate::support::{BOUND, Server, Setup, current, write_file};

/// What is seen of a key, and what it has to be with either value.
struct Case {
    key: &'static str,
    see: fn(&World) -> String,
    before: &'static str,
    after: &'static str,
}

/// A case as one line of a table.
const fn case(
    key: &'static str,
    before: &'static str,
    after: &'static str,
    see: fn(&World) -> String,
) -> Case {
    Case { key, see, before, after }
}

/// A server with the values of before, or of after.
struct World {
    server: Server,
    dir: TempDir,
    is_after: bool,
}

impl World {
    fn web(&self) -> SocketAddr {
        self.server.address("web")
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// How long to wait for what the value of after makes happen, and that of before does not.
    fn patience(&self) -> Duration {
        if self.is_after { BOUND } else { MOMENT }
    }

    /// How long to wait for what the value of before makes happen.
    fn patience_before(&self) -> Duration {
        if self.is_after { MOMENT } else { BOUND }
    }
}

/// Starts a server with one configuration and looks at every case, then does the same again after a reload of another.
fn check(prepare: impl FnOnce(&Path), before: &str, after: &str, cases: &[Case]) {
    let dir = tempdir().unwrap();
    prepare(dir.path());
    write_file(dir.path(), before);
    let server = Setup::file(&dir).start();
    let mut world = World { server, dir, is_after: false };
    for case in cases {
        assert_eq!((case.see)(&world), case.before, "{}, before", case.key);
    }
    world.server.write(after);
    world.server.reload();
    // Until then the worker of before may get a connection.
    world.server.wait_status("the worker of before has ended", |status| {
        let now = current(status);
        status.processes.iter().filter(|it| it.role == "worker").all(|it| it.generation == now)
    });
    world.is_after = true;
    for case in cases {
        assert_eq!((case.see)(&world), case.after, "{}, after", case.key);
    }
}

/// What came back until the end.
#[derive(Debug)]
struct Heard {
    bytes: Vec<u8>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Fin,
    Reset,
    /// It is still open.
    None,
}

impl Heard {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The status of the first answer; empty without one.
    fn status(&self) -> String {
        self.text().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    fn field(&self, name: &str) -> String {
        let text = self.text();
        let (head, _) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or("none", |(_, value)| value).to_owned()
    }

    /// What stands behind the head.
    fn body(&self) -> String {
        self.text().split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())
    }

    /// How often an answer begins with this status.
    fn count(&self, status: &str) -> usize {
        self.text().matches(&format!("HTTP/1.1 {status} ")).count()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, BOUND).unwrap();
    stream.set_write_timeout(Some(BOUND)).unwrap();
    stream
}

/// Reads until the end, or nothing has come for so long.
fn hear(stream: &mut TcpStream, patience: Duration) -> Heard {
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut bytes = Vec::new();
    let end = match stream.read_to_end(&mut bytes) {
        Ok(_) => End::Fin,
        Err(error) if error.kind() == ErrorKind::WouldBlock => End::None,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => End::Reset,
        Err(error) => panic!("reading: {error}"),
    };
    Heard { bytes, end }
}

/// Sends these bytes on a connection of their own, and hears the rest until the server ends it.
fn talk(address: SocketAddr, bytes: &str) -> Heard {
    let mut stream = connect(address);
    // It may have ended before it has taken all of them.
    let _ = stream.write_all(bytes.as_bytes());
    let heard = hear(&mut stream, BOUND);
    assert_ne!(heard.end, End::None, "{}", heard.text());
    heard
}

/// A request on a connection of its own, with further lines of its head.
fn ask(address: SocketAddr, host: &str, target: &str, lines: &str) -> Heard {
    talk(address, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n"))
}

fn post(address: SocketAddr, target: &str, lines: &str, body: &str) -> Heard {
    let length = body.len();
    talk(
        address,
        &format!(
            "POST {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{lines}Connection: close\r\n\r\n{body}"
        ),
    )
}

/// The worker, of which there is one.
fn worker(world: &World) -> tidegate::ProcessStatus {
    world.server.worker(0)
}

/// What a worker's descriptors are, as the kernel names them.
fn descriptors(world: &World) -> Vec<String> {
    let fds = fs::read_dir(format!("/proc/{}/fd", worker(world).pid)).unwrap();
    let names = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// A moment in which what is not to happen has time to.
const MOMENT: Duration = Duration::from_millis(200);

/// Listeners with the names of their services, and one worker.
const LISTEN: &str = r#"
[process]
workers = 1
[[listen]]
name = "web"
address = "127.0.0.1:0"
service = "web"
[[listen]]
name = "admin"
address = "127.0.0.1:0"
service = "admin"
"#;
