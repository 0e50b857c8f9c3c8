//! `tidegate connections`, `close`, `pause`, `resume`, `drain` and `loglevel`: what operators see and order.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, geteuid};
use tempfile::{TempDir, tempdir};
use tidegate::{ConnectionPage, Status};

use crate::http::{Connection, get};
use crate::processes::{Exit, Watched};
use crate::support::{
    BOUND, Client, Server, Setup, TIDEGATE, clean, is_replaced, output_of, stderr, stdout, wait_until, worker,
};

/// The page that is asked for.
#[track_caller]
fn page(server: &Server, args: &[&str]) -> ConnectionPage {
    let output = server.tidegate(&[&["connections", "--json"], args].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An order that is carried out.
#[track_caller]
fn done(server: &Server, args: &[&str], said: &str) {
    let output = server.tidegate(args);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), said), "{output:?}");
}

#[test]
fn connections_are_told_page_after_page() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let mut clients: Vec<_> = (0..7).map(|_| Client::open(server.address("gateway"))).collect();
    let mut web = Connection::open(server.address("web"));
    assert_eq!(web.get("/hello").status, 200);
    let mut half = Connection::open(server.address("web"));
    half.send("GET /hello HT");
    let all = || page(&server, &[]).connections;
    wait_until("all are there, and the half request is", || {
        all().len() == 9 && all().iter().any(|it| it.bytes_in == 13)
    });
    let all = all();
    let services = |name: &str| all.iter().filter(|it| it.service == name && it.listener == name).count();
    assert_eq!((services("gateway"), services("web")), (7, 2));
    for it in &all {
        assert_eq!((it.generation, it.queued), (1, 0));
        assert!(it.worker < 2 && it.peer.starts_with("127.0.0.1:"), "{it:?}");
        // Idle or in the midst of a head, somebody waits for all of them.
        let next = it.next_close.as_ref().unwrap();
        assert!(!next.reason.is_empty() && !it.state.is_empty(), "{it:?}");
    }
    let ping = all.iter().find(|it| it.service == "gateway").unwrap();
    assert_eq!((ping.bytes_in, ping.bytes_out), (8, 8));

    // In pages of two, each once and in the same order.
    let mut ids = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let after = next.as_deref().map_or(vec![], |id| vec!["--after", id]);
        let page = page(&server, &[&["--limit", "2"], &after[..]].concat());
        assert!(page.connections.len() <= 2 && page.missing.is_empty());
        ids.extend(page.connections.into_iter().map(|it| it.id));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(ids, all.iter().map(|it| it.id.clone()).collect::<Vec<_>>());
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 9);
    let text = server.tidegate(&["connections", "--all", "--limit", "2"]);
    assert!(ids.iter().all(|id| stdout(&text).contains(id.as_str())), "{text:?}");
    let text = server.tidegate(&["connections", "--limit", "3"]);
    assert!(stderr(&text).contains(&format!("--after {}", ids[2])), "{text:?}");
    clients.iter_mut().for_each(Client::ping);
}

#[test]
fn a_connection_is_closed_by_its_id() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).set("log.level=info,tidegate_engine=debug").start();
    let (mut one, mut other) =
        (Client::open(server.address("gateway")), Client::open(server.address("gateway")));
    let port = one.0.local_addr().unwrap();
    let all = page(&server, &[]).connections;
    let id = all.iter().find(|it| it.peer == port.to_string()).unwrap().id.clone();
    done(&server, &["close", &id], &format!("closed, {id}\n"));
    // In order: no reset.
    assert_eq!(one.0.read(&mut [0]).unwrap(), 0);
    server.wait_lines(&["connection closed", "reason=operator"]);
    other.ping();
    wait_until("it is not told of any more", || page(&server, &[]).connections.len() == 1);
    let text = server.refused(&["close", &id]);
    assert!(text.contains("not closed") && text.contains(&id), "{text}");
    // A later user of its place has another name.
    let mut third = Client::open(server.address("gateway"));
    assert!(page(&server, &[]).connections.iter().all(|it| it.id != id));
    assert!(server.refused(&["close", &id]).contains(&id));
    assert!(server.refused(&["close", "9.0.0.0.1"]).contains("9.0.0.0.1"));
    assert!(server.refused(&["close", "1.7.0.0.1"]).contains("1.7.0.0.1"));
    third.ping();
    other.ping();
}

/// Somebody whom nobody serves as long as accepting is paused.
fn unserved(server: &Server, listener: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address(listener)).unwrap();
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

fn check_paused_listener(setup: Setup) {
    let server = setup.start();
    let mut kept = Connection::open(server.address("web"));
    assert_eq!(kept.get("/hello").status, 200);
    assert!(server.refused(&["pause", "wob"]).contains("wob"));
    done(&server, &["pause", "web"], "listener web is paused\n");
    let status = server.status();
    let note = |status: &Status| status.listeners.iter().find(|it| it.name == "web").unwrap().note.clone();
    assert_eq!(note(&status), "paused");
    let waits: Vec<_> = (0..8).map(|_| unserved(&server, "web")).collect();
    // Neither who is there nor who comes elsewhere notices.
    assert_eq!(kept.get("/hello").status, 200);
    Client::open(server.address("gateway")).ping();
    // A worker that starts later is told, too.
    let before = server.worker(0);
    Watched::of(&before).signal(Signal::KILL);
    server.wait_status("there is another worker 0", |status| is_replaced(status, &before));
    let also_waits: Vec<_> = (0..8).map(|_| unserved(&server, "web")).collect();
    let accepted = |status: &Status| status.listeners.iter().find(|it| it.name == "web").unwrap().accepted;
    assert_eq!(accepted(&server.status()), 1);
    done(&server, &["resume", "web"], "listener web accepts\n");
    for stream in waits.into_iter().chain(also_waits) {
        assert_eq!(Connection::over(stream).answer().unwrap().body, "Hello, World!");
    }
    assert_eq!((note(&server.status()), accepted(&server.status())), (String::new(), 17));
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
}

#[test]
fn a_paused_listener_keeps_new_peers_waiting() {
    for accept in ["reuseport", "shared", "handoff"] {
        let dir = tempdir().unwrap();
        check_paused_listener(Setup::new(&dir).set(format!("process.accept={accept}")));
    }
}

#[test]
fn a_paused_listener_stays_paused_over_a_reload() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    done(&server, &["pause", "web"], "listener web is paused\n");
    server.reload();
    server.wait_status("the older generation has ended", |it| it.generations.len() == 1);
    let stream = unserved(&server, "web");
    done(&server, &["resume", "web"], "listener web accepts\n");
    assert_eq!(Connection::over(stream).answer().unwrap().body, "Hello, World!");
}

#[test]
fn what_comes_to_a_paused_worker_is_served_by_the_others() {
    for accept in ["reuseport", "shared", "handoff"] {
        let dir = tempdir().unwrap();
        let server = Setup::new(&dir).set(format!("process.accept={accept}")).start();
        let mut kept: Vec<_> = (0..16).map(|_| Client::open(server.address("gateway"))).collect();
        let held = |index| worker(&server.status(), index).connections;
        done(&server, &["pause", "--worker", "0"], "worker 0 is paused\n");
        assert!(worker(&server.status(), 0).note.contains("paused"));
        let mut before = 0;
        // It hears of it, and hands over, a moment later.
        wait_until("all new connections are the other's", || {
            before = held(0);
            kept.extend((0..8).map(|_| Client::open(server.address("gateway"))));
            // Whoever is answered is somebody's.
            kept.iter_mut().for_each(Client::ping);
            held(0) == before
        });
        (0..40).for_each(|_| assert_eq!(get(server.address("web"), "/hello").status, 200));
        kept.extend((0..16).map(|_| Client::open(server.address("gateway"))));
        assert_eq!(held(0), before, "{accept}");
        kept.iter_mut().for_each(Client::ping);
        done(&server, &["resume", "--worker", "0"], "worker 0 accepts\n");
        // Or the kernel might go on waking the other one, which has been idle for the shorter time.
        done(&server, &["pause", "--worker", "1"], "worker 1 is paused\n");
        wait_until("it accepts again", || {
            kept.push(Client::open(server.address("gateway")));
            held(0) > before
        });
        assert!(server.refused(&["pause", "--worker", "7"]).contains("no worker 7"));
        drop(kept);
        assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    }
}

#[test]
fn a_drained_worker_keeps_who_is_there_and_its_successor_gets_who_comes() {
    for accept in ["reuseport", "shared", "handoff"] {
        let dir = tempdir().unwrap();
        let server =
            Setup::new(&dir).set(format!("process.accept={accept}")).set("process.workers=1").start();
        let mut old = Client::open(server.address("gateway"));
        let before = server.worker(0);
        done(&server, &["drain", "0"], "worker 0 is replaced\n");
        let workers = |status: &Status| {
            let of_them = status.processes.iter().filter(|it| it.role == "worker");
            of_them.map(|it| (it.pid, it.state.clone(), it.connections)).collect::<Vec<_>>()
        };
        wait_until("the old one retires", || worker(&server.status(), 0).state == "retiring");
        let mut new = Client::open(server.address("gateway"));
        let status = server.status();
        let both = workers(&status);
        assert_eq!(both.len(), 2, "{both:?}");
        assert_eq!(both[0], (before.pid, "retiring".to_owned(), 1));
        assert_eq!((both[1].1.as_str(), both[1].2), ("ready", 1));
        old.ping();
        new.ping();
        // Both have connections, which are told apart.
        let all = page(&server, &[]).connections;
        assert_eq!(all.len(), 2);
        let next = all.iter().find(|it| it.peer == new.0.local_addr().unwrap().to_string()).unwrap();
        done(&server, &["close", &next.id], &format!("closed, {}\n", next.id));
        new.end();
        old.ping();
        drop(old);
        server.wait_status("the old one has ended", |status| workers(status).len() == 1);
        // Its successor can be drained, too.
        done(&server, &["drain", "0"], "worker 0 is replaced\n");
        assert_eq!(get(server.address("web"), "/hello").status, 200);
        assert!(server.refused(&["drain", "1"]).contains("no worker 1"));
        assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
        server.check_nothing_left();
    }
}

/// Where a worker sits among the counters, changes with each that is replaced and with each that is killed.
#[test]
fn what_a_killed_successor_has_held_is_free_again() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).set("process.workers=1").set("web.max_connections_per_address=2").start();
    let fill = || {
        let mut clients = [0, 1].map(|_| Connection::open(server.address("web")));
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/hello").status, 200));
        clients
    };
    let alone = |pid: u64| {
        server.wait_status("the worker is the only one, and serves", |status| {
            let mut of_them = status.processes.iter().filter(|it| it.role == "worker");
            let first = of_them.next();
            first.is_some_and(|it| it.state == "ready" && it.pid != pid) && of_them.next().is_none()
        });
    };
    for _ in 0..3 {
        let before = server.worker(0).pid;
        done(&server, &["drain", "0"], "worker 0 is replaced\n");
        alone(before);
        let held = fill();
        let successor = server.worker(0);
        Watched::of(&successor).signal(Signal::KILL);
        alone(successor.pid);
        drop(held);
        let [mut first, second] = fill();
        // The reset may be there before the connection has been told of.
        let third = TcpStream::connect(server.address("web")).and_then(|mut third| third.read(&mut [0]));
        assert_eq!(third.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "two are the most");
        assert_eq!(first.get("/hello").status, 200);
        drop((first, second));
        server.wait_status("they have ended", |status| {
            status.listeners.iter().all(|it| it.name != "web" || it.connections == 0)
        });
    }
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}

#[test]
fn the_log_level_changes_in_all_processes_and_those_to_come() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    done(&server, &["loglevel", "debug"], "log level debug\n");
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    server.wait_lines(&["DEBUG", "worker ", "connection closed", "listener=web"]);
    server.tidegate(&["status"]);
    server.wait_lines(&["DEBUG", "master", "control request"]);
    let before = server.log_server();
    Watched::of(&server.worker(0)).signal(Signal::KILL);
    Watched::of(&server.worker(1)).signal(Signal::KILL);
    server.wait_lines(&["DEBUG", "log server", "connection closed", "listener=log"]);
    server.wait_status("there are other workers", |status| {
        [0, 1]
            .iter()
            .all(|index| worker(status, *index).restarts == 1 && worker(status, *index).state == "ready")
    });
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    server.wait_lines(&["DEBUG", "worker ", "connection closed", "listener=web"]);
    assert_eq!(server.log_server().pid, before.pid);
    done(&server, &["loglevel", "tidegate_engine=off"], "log level tidegate_engine=off\n");
    done(&server, &["loglevel", "info"], "log level info\n");
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
    let lines = server.all_lines();
    let changed = lines.iter().rposition(|line| line.contains("loglevel info")).unwrap();
    assert!(!lines[changed + 1..].iter().any(|line| line.contains("DEBUG")));
}

/// The control socket is the owner's.
#[test]
fn others_may_not_ask() {
    let dir: TempDir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let socket = server.data("control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    if !geteuid().is_root() {
        // Only root can be somebody else.
        return;
    }
    for folder in [dir.path().to_owned(), server.data("")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let program = dir.path().join("tidegate");
    fs::copy(TIDEGATE, &program).unwrap();
    let ask = || {
        let mut command = Command::new(&program);
        let command = clean(&mut command, dir.path()).args(server.with_settings(&["status"]));
        output_of(command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()))
    };
    let output = ask();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("Permission denied"), "{output:?}");
    // Whatever the mode of the file has become.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let output = ask();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    server.wait_lines(&["control client turned away", &format!("peer_uid={NOBODY}")]);
    assert_eq!(server.tidegate(&["status"]).status.code(), Some(0));
}

/// Nobody, on this and most systems.
const NOBODY: u32 = 65534;
