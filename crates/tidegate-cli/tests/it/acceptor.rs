//! `engine.acceptor = "main"`: in each worker one thread accepts for its loops.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use tempfile::{TempDir, tempdir};
use tidegate::{ProcessStatus, Status};

use crate::http::{Connection, get, metric};
use crate::processes::{Exit, stop};
use crate::support::{BOUND, Server, Setup, pid, worker};

const WORKERS: u64 = 2;
const LOOPS: usize = 3;

/// Two workers of three loops, with a listener on a Unix socket besides.
fn setup(dir: &TempDir, accept: &str, balance: &str) -> Setup {
    let file = format!(
        r#"
data_dir = "data"
process = {{ workers = {WORKERS}, accept = "{accept}" }}
engine = {{ acceptor = "main", loops = {LOOPS}, balance = "{balance}" }}
listen = [
    {{ name = "web", address = "127.0.0.1:0", service = "web" }},
    {{ name = "local", address = "unix:local.sock", service = "echo" }},
    {{ name = "admin", address = "127.0.0.1:0", service = "admin" }},
]
"#
    );
    fs::write(dir.path().join("tidegate.toml"), file).unwrap();
    Setup::file(dir)
}

/// A count of each loop, by worker.
fn by_loop(server: &Server, name: &str) -> Vec<[u64; LOOPS]> {
    let text = get(server.address("admin"), "/metrics").body;
    let count = |worker: u64, index: usize| {
        metric(&text, name, &[&format!("\"worker-{worker}\""), &format!("loop=\"{index}\"")])
    };
    (0..WORKERS).map(|worker| std::array::from_fn(|index| count(worker, index))).collect()
}

/// Connections that have been served, and stay.
fn served(server: &Server, count: usize) -> Vec<Connection> {
    let mut connections: Vec<_> = (0..count).map(|_| Connection::open(server.address("web"))).collect();
    connections.iter_mut().for_each(|connection| assert_eq!(connection.get("/hello").body, "Hello, World!"));
    connections
}

/// What comes back over the Unix socket.
fn echo(dir: &TempDir) -> Vec<u8> {
    let mut stream = UnixStream::connect(dir.path().join("local.sock")).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(b"over and over").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    back
}

/// A client at one of the addresses of this machine.
fn connect_from(source: Ipv4Addr, to: SocketAddr) -> Connection {
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&client, &SocketAddr::new(IpAddr::V4(source), 0)).unwrap();
    connect(&client, &to).unwrap();
    Connection::over(TcpStream::from(client))
}

#[track_caller]
fn check_even(balance: &str, accept: &str, count: &str) {
    let dir = tempdir().unwrap();
    let server = setup(&dir, accept, balance).start();
    let kept = served(&server, 24);
    // The admin page's connection is one of them.
    let counts = by_loop(&server, count);
    assert_eq!(counts.iter().flatten().sum::<u64>(), 25, "{counts:?}");
    for of_worker in &counts {
        let (most, fewest) = (of_worker.iter().max().unwrap(), of_worker.iter().min().unwrap());
        assert!(most - fewest <= 1, "{counts:?}");
    }
    (0..6).for_each(|_| assert_eq!(echo(&dir), b"over and over"));
    let text = get(server.address("admin"), "/metrics").body;
    let accepted = |listener| metric(&text, "tidegate_connections_accepted_total", &[listener]);
    assert_eq!((accepted("listener=\"web\""), accepted("listener=\"local\"")), (24, 6));
    drop(kept);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}

#[test]
fn each_loop_gets_a_connection_in_turn() {
    check_even("round-robin", "reuseport", "tidegate_loop_connections_accepted_total");
    check_even("round-robin", "shared", "tidegate_loop_connections_accepted_total");
}

#[test]
fn the_loop_with_the_fewest_connections_gets_the_next() {
    check_even("least-connections", "reuseport", "tidegate_loop_connections_open");
    check_even("least-connections", "shared", "tidegate_loop_connections_open");
}

#[test]
fn an_address_keeps_its_loop() {
    for accept in ["reuseport", "shared"] {
        let dir = tempdir().unwrap();
        let server = setup(&dir, accept, "hash").start();
        let kept = served(&server, 24);
        let counts = by_loop(&server, "tidegate_loop_connections_accepted_total");
        assert_eq!(counts.iter().flatten().sum::<u64>(), 25, "{counts:?}");
        let busy = |of_worker: &[u64; LOOPS]| of_worker.iter().filter(|count| **count > 0).count();
        assert!(counts.iter().all(|of_worker| busy(of_worker) <= 1), "{accept}: {counts:?}");
        // Others go elsewhere, at least in a worker that gets enough of them.
        let began = Instant::now();
        let mut sources = (2..255).cycle().map(|last| Ipv4Addr::new(127, 0, 0, last));
        let mut spread = counts;
        while !spread.iter().any(|of_worker| busy(of_worker) == LOOPS) {
            assert!(began.elapsed() < BOUND, "{accept}: {spread:?}");
            let mut client = connect_from(sources.next().unwrap(), server.address("web"));
            assert_eq!(client.get("/hello").status, 200);
            spread = by_loop(&server, "tidegate_loop_connections_accepted_total");
        }
        assert_eq!(echo(&dir), b"over and over");
        drop(kept);
        assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    }
}

/// How many sockets a process accepts from.
fn listening_sockets(process: &ProcessStatus) -> usize {
    let handle = pidfd_open(pid(process.pid.try_into().unwrap()), PidfdFlags::empty()).unwrap();
    let fds = fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap();
    let numbers = fds.map(|fd| fd.unwrap().file_name().into_string().unwrap().parse().unwrap());
    let copies = numbers.filter_map(|number| pidfd_getfd(&handle, number, PidfdGetfdFlags::empty()).ok());
    copies.filter(|copy| sockopt::socket_acceptconn(copy).unwrap_or(false)).count()
}

#[test]
fn an_acceptor_is_shown_as_a_loop_of_its_own() {
    let dir = tempdir().unwrap();
    let server = setup(&dir, "reuseport", "round-robin").start();
    let kept = served(&server, 8);
    let page = get(server.address("admin"), "/status").body;
    let told: Status = serde_json::from_str(&page).unwrap();
    for index in 0..WORKERS {
        let worker = worker(&told, index);
        let names: Vec<_> = worker.threads.iter().map(|thread| thread.name.as_str()).collect();
        assert_eq!(names, ["loop-0", "loop-1", "loop-2", "acceptor"]);
        assert_eq!(listening_sockets(worker), 3, "one for each listener");
    }
    let web = told.listeners.iter().find(|listener| listener.name == "web").unwrap();
    assert_eq!((web.accepted, web.connections), (8, 8), "nothing is counted twice");
    let text = get(server.address("admin"), "/metrics").body;
    assert!(metric(&text, "tidegate_loop_turns_total", &["loop=\"acceptor\""]) > 0);
    assert_eq!(text.matches("tidegate_accept_exhausted_total{").count(), 1 + 2 * (LOOPS + 1), "{text}");
    drop(kept);
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
}

/// Connections that wait in the kernel's queues while nobody can accept them, and a graceful stop.
#[track_caller]
fn check_queued(setup: Setup, dir: &TempDir, processes: u64) {
    let mut server = setup.start();
    // A server of one process has no control socket.
    let status: Status = serde_json::from_str(&get(server.address("admin"), "/status").body).unwrap();
    let stopped: Vec<_> = (0..processes).map(|index| stop(worker(&status, index))).collect();
    let mut queued: Vec<_> = (0..40).map(|_| Connection::open(server.address("web"))).collect();
    queued.iter_mut().for_each(|client| client.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n"));
    let mut local = UnixStream::connect(dir.path().join("local.sock")).unwrap();
    local.write_all(b"queued").unwrap();
    server.signal(Signal::QUIT);
    if processes > 1 {
        server.wait_line("graceful stop");
    }
    stopped.iter().for_each(|process| process.signal(Signal::CONT));
    for client in &mut queued {
        let answer = client.answer().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "Hello, World!"));
    }
    let mut back = Vec::new();
    local.set_read_timeout(Some(BOUND)).unwrap();
    local.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"queued");
    // Who keeps its side open is waited for.
    drop((queued, local));
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn a_graceful_stop_serves_what_waits_in_the_queues() {
    for accept in ["reuseport", "shared"] {
        for balance in ["round-robin", "least-connections", "hash"] {
            let dir = tempdir().unwrap();
            check_queued(setup(&dir, accept, balance), &dir, WORKERS);
        }
    }
}

#[test]
fn a_server_of_one_process_serves_what_waits_in_its_queues() {
    let dir = tempdir().unwrap();
    check_queued(setup(&dir, "reuseport", "round-robin").set("process.workers=0"), &dir, 1);
}
