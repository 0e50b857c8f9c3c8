//! The master as systemd starts it, and the unit files as systemd reads them.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};

use tidegate_process::systemd::{ActivatedSockets, Notify};

/// Set for the program that plays the one that systemd started.
const PART: &str = "TEST_SYSTEMD";

/// This test again in a process of its own, with a listener at 3 as its manager leaves it. The pid is known in the child
/// only, so a shell writes it down, and then becomes the program.
fn started(test: &str, listener: TcpListener, manager: &Path) -> Output {
    let mut command = Command::new("/bin/sh");
    let script = "LISTEN_PID=$$ WATCHDOG_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null";
    command.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).args([
        test,
        "--exact",
        "--nocapture",
    ]);
    command.env(PART, "1").env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "web").env("WATCHDOG_USEC", "200");
    command.env("NOTIFY_SOCKET", manager).stdin(OwnedFd::from(listener)).output().unwrap()
}

#[test]
fn a_server_that_systemd_starts_takes_its_sockets_and_says_so() {
    if std::env::var_os(PART).is_some() {
        return play();
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Who connects before the server runs is served by it.
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let output = started("a_server_that_systemd_starts_takes_its_sockets_and_says_so", listener, &path);
    assert!(output.status.success(), "{output:?}");
    let mut buf = [0; 256];
    let read = manager.recv(&mut buf).unwrap();
    assert_eq!(&buf[..read], b"READY=1\nSTATUS=web has a client, watchdog every 100\xc2\xb5s");
}

/// What the started server does.
fn play() {
    let mut sockets = ActivatedSockets::take().unwrap();
    let [socket] = <[OwnedFd; 1]>::try_from(sockets.remove("web")).unwrap();
    TcpListener::from(socket).accept().unwrap();
    assert!(ActivatedSockets::take().is_err());
    let notify = Notify::from_env();
    let interval = notify.watchdog_interval().unwrap();
    notify.ready(&format!("web has a client, watchdog every {interval:?}"));
}

/// The unit files in `docs/`, with a program that is there in the place of the installed one.
#[test]
fn the_unit_files_are_what_systemd_reads() {
    let dir = tempfile::tempdir().unwrap();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let program = std::env::current_exe().unwrap();
    for name in ["tidegate.service", "tidegate.socket"] {
        let text = std::fs::read_to_string(docs.join(name)).unwrap();
        let text = text.replace("/usr/local/bin/tidegate", program.to_str().unwrap());
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let mut command = Command::new("systemd-analyze");
    // Other units of this machine are not looked at, and no manager is asked.
    command.args(["verify", "--man=no", "--recursive-errors=no"]);
    command.args(["tidegate.service", "tidegate.socket"].map(|name| dir.path().join(name)));
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: systemd-analyze is not installed");
            return;
        }
        other => other.unwrap(),
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}
