//! A service manager: sockets that it hands over, and what it is told.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use crate::http::get;
use crate::processes::Exit;
use crate::support::{BOUND, Client, Setup, TIDEGATE, write_file};

const FILE: &str = r#"
process = { workers = 2 }
listen = [
    { name = "web", address = "127.0.0.1:0", service = "web" },
    { name = "gateway", address = "127.0.0.1:0", service = "gateway" },
]
"#;

/// Who is told.
struct Manager {
    told: Receiver<Vec<u8>>,
}

impl Manager {
    fn new(dir: &TempDir) -> (Self, String) {
        let path = dir.path().join("notify.sock");
        let socket = UnixDatagram::bind(&path).unwrap();
        // Read at once, whatever the test waits for: ten signs of life fill a socket, and what follows them is lost.
        let (sender, told) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = socket.recv(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        (Self { told }, path.to_str().unwrap().to_owned())
    }

    /// The next message that is no sign of life; how many of these came before it.
    fn next(&self) -> (String, usize) {
        let mut signs = 0;
        loop {
            let text = String::from_utf8(self.told.recv_timeout(BOUND).unwrap()).unwrap();
            if text.lines().eq(["WATCHDOG=1"]) {
                signs += 1;
            } else {
                return (text, signs);
            }
        }
    }

    #[track_caller]
    fn expect(&self, parts: &[&str]) -> String {
        let (text, _) = self.next();
        for part in parts {
            assert!(text.lines().any(|line| line.starts_with(part)), "{part} is not in {text:?}");
        }
        text
    }

    #[track_caller]
    fn expect_reload(&self) {
        let text = self.expect(&["RELOADING=1", "MONOTONIC_USEC="]);
        let stamp = text.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
        assert!(stamp.parse::<u64>().unwrap() > 0);
    }

    /// Waits until it has heard so many signs of life.
    fn expect_signs(&self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.told.recv_timeout(BOUND).unwrap(), b"WATCHDOG=1");
        }
    }
}

#[test]
fn the_manager_is_told_of_everything_in_order() {
    let dir = tempdir().unwrap();
    let (manager, path) = Manager::new(&dir);
    write_file(dir.path(), FILE);
    let mut setup = Setup::file(&dir).env("NOTIFY_SOCKET", &path);
    setup.program = dir.path().join("tidegate");
    fs::copy(TIDEGATE, &setup.program).unwrap();
    let server = setup.start();
    manager.expect(&["READY=1", "STATUS="]);
    assert_eq!(server.reload(), 2);
    manager.expect_reload();
    manager.expect(&["READY=1", "STATUS=generation 2"]);
    assert_eq!(server.upgrade(), 3);
    manager.expect_reload();
    manager.expect(&["READY=1", "STATUS=generation 3"]);
    // One that fails leaves a server that is as ready as before.
    server.write(&format!("{FILE}web.root = \"nowhere\"\n"));
    server.signal(Signal::HUP);
    manager.expect_reload();
    manager.expect(&["READY=1", "STATUS=reload failed"]);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    manager.expect(&["STOPPING=1"]);
    UnixDatagram::unbound().unwrap().send_to(b"our own", &path).unwrap();
    manager.expect(&["our own"]);
}

#[test]
fn signs_of_life_go_on_over_an_upgrade() {
    let dir = tempdir().unwrap();
    let (manager, path) = Manager::new(&dir);
    write_file(dir.path(), FILE);
    let interval = Duration::from_millis(100).as_micros().to_string();
    let server = Setup::file(&dir).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", &interval).start();
    manager.expect(&["READY=1"]);
    manager.expect_signs(3);
    assert_eq!(server.upgrade(), 2);
    manager.expect_reload();
    manager.expect(&["READY=1"]);
    manager.expect_signs(3);
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
    manager.expect(&["STOPPING=1"]);
}

#[test]
fn sockets_that_are_handed_over_are_taken_by_name() {
    let dir = tempdir().unwrap();
    write_file(dir.path(), FILE);
    let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = (web.local_addr().unwrap(), gateway.local_addr().unwrap());
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = Setup::file(&dir)
        .hand_over(&[("gateway", gateway.into()), ("web", web.into()), ("other", other.into())])
        .start();
    assert_eq!((server.address("web"), server.address("gateway")), addresses);
    assert_eq!(get(addresses.0, "/hello").body, "Hello, World!");
    let mut client = Client::open(addresses.1);
    server.reload();
    assert_eq!((server.address_now("web"), server.address_now("gateway")), addresses);
    server.upgrade();
    assert_eq!(get(addresses.0, "/hello").body, "Hello, World!");
    client.ping();
    // Neither a child nor the next program takes the variables for its own.
    for process in server.group() {
        let text = fs::read(Path::new("/proc").join(process.pid.to_string()).join("environ")).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(process.pid == server.pid() || !text.contains("LISTEN_FDS"), "{text}");
    }
    drop(client);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    assert!(server.all_lines().iter().any(|line| line.contains("WARN") && line.contains("name=other")));
}
