//! Datagrams in every process mode: answered, shown, and not lost by a reload, an upgrade or the death of a worker.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use crate::http::{get, metric};
use crate::processes::Exit;
use crate::support::{BOUND, Server, Setup, is_replaced, pid, wait_until, write_file};

/// A server with a listener for datagrams of each kind, one for connections, and the admin pages.
fn start(dir: &TempDir, process: &str) -> Server {
    let file = format!(
        r#"
data_dir = "data"
{process}
listen = [
    {{ name = "stream", address = "127.0.0.1:0", service = "echo" }},
    {{ name = "udp", address = "udp:127.0.0.1:0", service = "echo" }},
    {{ name = "local", address = "unixgram:local.sock", service = "echo" }},
    {{ name = "admin", address = "127.0.0.1:0", service = "admin" }},
]
"#
    );
    std::fs::write(dir.path().join("tidegate.toml"), file).unwrap();
    Setup::file(dir).start()
}

fn client(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(BOUND)).unwrap();
    socket.connect(address).unwrap();
    socket
}

fn answer(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 100];
    let len = client.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

/// Many clients, so that a group of sockets has all of its members used.
fn check(server: &Server) {
    let clients: Vec<UdpSocket> = (0..40).map(|_| client(server.address("udp"))).collect();
    for client in &clients {
        client.send(b"hello").unwrap();
    }
    clients.iter().for_each(|client| assert_eq!(answer(client), b"hello"));
}

fn check_local(dir: &TempDir) {
    let own = UnixDatagram::unbound().unwrap();
    let path = dir.path().join("own.sock");
    let bound = UnixDatagram::bind(&path).unwrap();
    bound.set_read_timeout(Some(BOUND)).unwrap();
    drop(own);
    bound.send_to(b"local", dir.path().join("local.sock")).unwrap();
    let mut buffer = [0; 9];
    assert_eq!(bound.recv(&mut buffer).unwrap(), 5);
    std::fs::remove_file(path).unwrap();
}

const MODES: [&str; 6] = [
    "process = { workers = 2 }",
    "process = { workers = 2, accept = \"shared\" }",
    "process = { workers = 2, accept = \"handoff\" }",
    "process = { workers = 2 }\nengine = { acceptor = \"main\", loops = 2 }",
    "process = { workers = 2, accept = \"shared\" }\nengine = { loops = 2 }",
    "process = { workers = 0 }",
];

#[test]
fn every_process_mode_answers_and_shows_it() {
    for mode in MODES {
        let dir = tempdir().unwrap();
        let server = start(&dir, mode);
        check(&server);
        check_local(&dir);
        let sum = |name: &str, listener: &str| {
            let text = get(server.address("admin"), "/metrics").body;
            let label = format!("listener=\"{listener}\"");
            let rows = text.lines().filter(|line| line.starts_with(name) && line.contains(&label));
            rows.map(|row| row.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
        };
        assert_eq!(sum("tidegate_datagrams_received_total", "udp"), 40, "{mode}");
        // It is counted when the peer may have it already.
        wait_until("it is counted", || sum("tidegate_datagrams_sent_total", "local") == 1);
        assert_eq!(server.end(Signal::QUIT), Exit::Code(0), "{mode}");
        server.check_nothing_left();
        assert!(!dir.path().join("local.sock").exists(), "{mode}");
    }
}

#[test]
fn a_reload_loses_no_datagram() {
    for mode in &MODES[..5] {
        let dir = tempdir().unwrap();
        let server = start(&dir, mode);
        let clients: Vec<UdpSocket> = (0..16).map(|_| client(server.address("udp"))).collect();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut asked = 0u32;
                // One question of each is on its way at any time.
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    clients
                        .iter()
                        .for_each(|client| assert_eq!(client.send(&asked.to_be_bytes()).unwrap(), 4));
                    clients.iter().for_each(|client| assert_eq!(answer(client), asked.to_be_bytes()));
                    asked += 1;
                }
                asked
            });
            for generation in 2..=3 {
                assert_eq!(server.reload(), generation, "{mode}");
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(asking.join().unwrap() > 0);
        });
        assert_eq!(server.end(Signal::TERM), Exit::Code(0), "{mode}");
    }
}

#[test]
fn a_group_grows_with_the_workers() {
    let dir = tempdir().unwrap();
    let server = start(&dir, "process = { workers = 1 }");
    check(&server);
    let text = std::fs::read_to_string(dir.path().join("tidegate.toml")).unwrap();
    std::fs::write(dir.path().join("tidegate.toml"), text.replace("workers = 1", "workers = 3")).unwrap();
    server.reload();
    // The worker that was alone serves the new sockets, too, until it has heard that it is to end.
    wait_until("each worker serves", || {
        check(&server);
        let text = get(server.address("admin"), "/metrics").body;
        let of = |worker: u32| {
            let name = format!("\"worker-{worker}\"");
            metric(&text, "tidegate_datagrams_received_total", &["\"udp\"", &name])
        };
        (0..3).all(|worker| of(worker) > 0)
    });
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}

#[test]
fn an_upgrade_keeps_the_sockets() {
    let dir = tempdir().unwrap();
    let server = start(&dir, MODES[0]);
    let client = client(server.address("udp"));
    client.send(b"before").unwrap();
    assert_eq!(answer(&client), b"before");
    server.upgrade();
    client.send(b"after").unwrap();
    assert_eq!(answer(&client), b"after");
    check(&server);
    check_local(&dir);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}

#[test]
fn a_dead_or_stopped_worker_is_stood_in_for() {
    for mode in &MODES[..3] {
        let dir = tempdir().unwrap();
        let server = start(&dir, mode);
        let before = server.worker(0);
        rustix::process::kill_process(pid(before.pid.try_into().unwrap()), Signal::KILL).unwrap();
        check(&server);
        server.wait_status("it is replaced", |status| is_replaced(status, &before));
        check(&server);
        let stopped = server.worker(1);
        rustix::process::kill_process(pid(stopped.pid.try_into().unwrap()), Signal::STOP).unwrap();
        check(&server);
        rustix::process::kill_process(pid(stopped.pid.try_into().unwrap()), Signal::CONT).unwrap();
        assert_eq!(server.end(Signal::QUIT), Exit::Code(0), "{mode}");
    }
}

#[test]
fn a_service_manager_hands_over_a_socket_for_datagrams() {
    let dir = tempdir().unwrap();
    let listen = |service: &str, address: &str| {
        format!("listen = [{{ name = \"udp\", address = \"{address}\", service = \"{service}\" }}]\n")
    };
    write_file(dir.path(), &listen("echo", "udp:127.0.0.1:0"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let server = Setup::file(&dir).hand_over(&[("udp", OwnedFd::from(socket))]).start();
    assert_eq!(server.address("udp"), address);
    check(&server);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    // One that does not fit the address.
    write_file(dir.path(), &listen("echo", "127.0.0.1:0"));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut server = Setup::file(&dir).hand_over(&[("udp", OwnedFd::from(socket))]).spawn();
    server.wait_line("is of another type (stream or datagram)");
    assert_eq!(server.wait_exit(), Exit::Code(1));
}

#[test]
fn a_paused_listener_keeps_what_comes() {
    for mode in [MODES[0], MODES[2], MODES[3]] {
        let dir = tempdir().unwrap();
        let server = start(&dir, mode);
        let client = client(server.address("udp"));
        assert!(server.tidegate(&["pause", "udp"]).status.success(), "{mode}");
        client.send(b"later").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        assert!(client.recv(&mut [0; 9]).is_err(), "{mode}");
        assert!(server.tidegate(&["resume", "udp"]).status.success(), "{mode}");
        client.set_read_timeout(Some(BOUND)).unwrap();
        assert_eq!(answer(&client), b"later", "{mode}");
        assert_eq!(server.end(Signal::QUIT), Exit::Code(0), "{mode}");
    }
}
