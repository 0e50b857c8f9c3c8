//! `tidegate msg`: the gateway through the binary on both sides.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
use tempfile::tempdir;

use crate::support::{Server, Setup, TIDEGATE, clean, output_of, stderr, stdout, tidegate_in};

fn msg(server: &Server, args: &[&str]) -> Output {
    let to = server.address("gateway").to_string();
    server.tidegate(&[&["msg"], args, &["--to", &to]].concat())
}

#[test]
fn ping_tells_the_round_trip() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let once = msg(&server, &["ping"]);
    assert!(once.status.success());
    let text = stdout(&once);
    assert!(
        text.starts_with("ping: done, ") && text.ends_with(" ms\n") && text.lines().count() == 1,
        "{text}"
    );
    let thrice = msg(&server, &["ping", "--count", "3"]);
    let text = stdout(&thrice);
    assert_eq!(text.lines().count(), 4);
    assert!(text.contains("3 requests, round trip: min "), "{text}");
    let json = msg(&server, &["ping", "--json", "--count", "2"]);
    for line in stdout(&json).lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((line["request"].as_str(), line["status"].as_i64()), (Some("ping"), Some(0)));
        assert!(line["round_trip_ns"].as_u64().unwrap() > 0);
    }
}

#[test]
fn a_gateway_on_a_unix_socket_is_reached_by_its_path() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("gateway.sock");
    let to = format!("unix:{}", path.display());
    let missing = tidegate_in(dir.path(), ["msg", "ping", "--to", &to]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains(&to) && stderr(&missing).contains("No such file"), "{missing:?}");
    let listener = UnixListener::bind(&path).unwrap();
    let gateway = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut ping = [0; 8];
        stream.read_exact(&mut ping).unwrap();
        stream.write_all(&ping).unwrap();
    });
    let done = tidegate_in(dir.path(), ["msg", "ping", "--to", &to]);
    assert!(stdout(&done).starts_with("ping: done, "), "{done:?}");
    gateway.join().unwrap();
}

#[test]
fn who_registered_logs_in_and_nobody_else() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let as_ada = |what: &str, password: &str| msg(&server, &[what, "--user", "ada", "--password", password]);
    let registered = as_ada("register", "analytical");
    assert_eq!(
        (registered.status.code(), stdout(&registered).starts_with("register: done, ")),
        (Some(0), true)
    );
    let again = as_ada("register", "analytical");
    assert_eq!(again.status.code(), Some(1));
    assert!(stdout(&again).starts_with("register: name taken, ") && again.stderr.is_empty(), "{again:?}");
    assert_eq!(as_ada("login", "analytical").status.code(), Some(0));
    let wrong = as_ada("login", "difference");
    assert_eq!(wrong.status.code(), Some(1));
    let unknown = msg(&server, &["login", "--user", "eve", "--password", "analytical", "--json"]);
    assert_eq!(unknown.status.code(), Some(1));
    let unknown: serde_json::Value = serde_json::from_str(stdout(&unknown)).unwrap();
    let message = unknown["message"].as_str().unwrap();
    assert!(stdout(&wrong).starts_with(&format!("login: {message}, ")), "{wrong:?} is not as {unknown}");
    assert_eq!(unknown["status"], 1);
}

#[test]
fn accounts_outlive_the_server_and_the_password_may_come_from_standard_input() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    assert!(
        msg(&server, &["register", "--user", "ada", "--password", "analytical", "--type", "-3"])
            .status
            .success()
    );
    assert!(server.tidegate(&["stop"]).status.success());
    let server = Setup::new(&dir).start();
    let mut command = Command::new(TIDEGATE);
    let to = server.address("gateway").to_string();
    clean(&mut command, dir.path()).args(["msg", "login", "--user", "ada", "--to", &to]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"analytical\n").unwrap();
    drop(writer);
    let output = output_of(command.stdin(Stdio::from(reader)));
    assert!(output.status.success(), "{output:?}");
    let silent = output_of(command.stdin(Stdio::null()));
    assert_eq!(silent.status.code(), Some(1));
    assert!(stderr(&silent).starts_with("tidegate: no password"), "{silent:?}");
}

#[test]
fn what_cannot_be_sent_or_reached_is_said() {
    let dir = tempdir().unwrap();
    // Bound and never listening: nobody else gets the port meanwhile, and nobody answers.
    let nobody = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&nobody, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = SocketAddr::try_from(getsockname(&nobody).unwrap()).unwrap().to_string();
    let output = tidegate_in(dir.path(), ["msg", "ping", "--to", &address]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.starts_with("tidegate: ") && text.contains(&address) && text.contains("refused"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let output = tidegate_in(dir.path(), ["msg", "ping", "--to", &address, "--timeout", "50ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no answer within 50ms"), "{output:?}");

    let long = "x".repeat(57);
    let output =
        tidegate_in(dir.path(), ["msg", "login", "--to", &address, "--user", &long, "--password", "p"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("tidegate: login to gateway "), "{output:?}");
}
