//! `tidegate reload`: another configuration for the same sockets, and nobody loses a connection.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use rustix::process::Signal;
use tempfile::{TempDir, tempdir};
use tidegate::Status;

use crate::http::{Connection, get, metric};
use crate::processes::{Exit, Watched};
use crate::support::{Client, Server, Setup, current, stderr, wait_until, worker, write_file};

/// What all have.
const LISTEN: &str = r#"
listen = [
    { name = "web", address = "127.0.0.1:0", service = "web" },
    { name = "gateway", address = "127.0.0.1:0", service = "gateway" },
    { name = "admin", address = "127.0.0.1:0", service = "admin" },
]
"#;

fn with_process(process: &str) -> String {
    format!("{LISTEN}process = {{ {process} }}\n")
}

/// A server with this in its file, besides the listeners.
fn start(dir: &TempDir, process: &str) -> Server {
    write_file(dir.path(), &with_process(process));
    Setup::file(dir).start()
}

/// A request of which the server has a part.
fn half_sent(server: &Server) -> Connection {
    let before = server.status();
    let bytes = |status: &Status| status.processes.iter().map(|it| it.bytes_in).sum::<u64>();
    let mut connection = Connection::open(server.address("web"));
    connection.send("GET /said HTTP/1.1\r\nHo");
    server.wait_status("the half request has arrived", |status| bytes(status) > bytes(&before));
    connection
}

fn workers(status: &Status, generation: u64) -> usize {
    status.processes.iter().filter(|it| it.role == "worker" && it.generation == generation).count()
}

fn serves(server: &Server) {
    for _ in 0..20 {
        assert_eq!(get(server.address("web"), "/hello").body, "Hello, World!");
    }
}

#[test]
fn each_reload_makes_a_generation_and_says_which() {
    let dir = tempdir().unwrap();
    let server = start(&dir, "workers = 2");
    let first = server.status();
    for generation in 2..=3 {
        assert_eq!(server.reload(), generation);
        serves(&server);
        let status = server.wait_status("the older generation has ended", |it| it.generations.len() == 1);
        assert_eq!(current(&status), generation);
        assert_eq!(workers(&status, generation), 2);
        assert_eq!(status.processes[0].pid, first.processes[0].pid);
    }
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn workers_become_more_and_fewer() {
    let dir = tempdir().unwrap();
    let server = start(&dir, "workers = 2");
    let mut client = Client::open(server.address("gateway"));
    for (workers_now, generation) in [4, 1, 3].into_iter().zip(2..) {
        // What waits in the queues of sockets whose workers retire is served, too.
        let mut queued: Vec<_> = (0..20).map(|_| Connection::open(server.address("web"))).collect();
        server.write(&with_process(&format!("workers = {workers_now}")));
        assert_eq!(server.reload(), generation);
        assert_eq!(workers(&server.status(), generation), workers_now);
        queued.iter_mut().for_each(|it| assert_eq!(it.get("/hello").status, 200));
        serves(&server);
    }
    client.ping();
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn the_way_of_accepting_may_change() {
    let dir = tempdir().unwrap();
    let server = start(&dir, "workers = 2, accept = \"reuseport\"");
    let mut clients = vec![Client::open(server.address("gateway"))];
    let ways = ["handoff", "shared", "reuseport", "shared", "handoff", "reuseport"];
    for (way, generation) in ways.into_iter().zip(2..) {
        server.write(&with_process(&format!("workers = 2, accept = \"{way}\"")));
        assert_eq!(server.reload(), generation, "{way}");
        serves(&server);
        clients.push(Client::open(server.address("gateway")));
        let status = server.status();
        let acceptors = status.processes.iter().filter(|it| it.role == "acceptor");
        assert_eq!(acceptors.filter(|it| it.generation == generation).count(), usize::from(way == "handoff"));
        clients.iter_mut().for_each(Client::ping);
    }
    drop(clients);
    server.wait_status("the older generations have ended", |it| it.generations.len() == 1);
    serves(&server);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn listeners_come_and_go() {
    let dir = tempdir().unwrap();
    let process = "process = { workers = 2 }\n";
    let file = |more: &str| {
        format!(
            r#"{process}listen = [
    {{ name = "web", address = "127.0.0.1:0", service = "web" }},
    {more}
    {{ name = "admin", address = "127.0.0.1:0", service = "admin" }},
]
"#
        )
    };
    write_file(dir.path(), &file(""));
    let server = Setup::file(&dir).start();
    server.write(&file(
        r#"{ name = "echo", address = "127.0.0.1:0", service = "echo" },
    { name = "local", address = "unix:local.sock", service = "echo" },"#,
    ));
    server.reload();
    assert_eq!(server.address_now("web"), server.address("web"));
    assert_eq!(server.address_now("admin"), server.address("admin"));
    serves(&server);
    let echo = server.address_now("echo");
    let local = dir.path().join("local.sock");
    let mut tcp = TcpStream::connect(echo).unwrap();
    tcp.write_all(b"there").unwrap();
    let mut back = [0; 5];
    tcp.read_exact(&mut back).unwrap();
    let mut unix = UnixStream::connect(&local).unwrap();
    unix.write_all(b"again").unwrap();
    unix.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"again");

    server.write(&file(""));
    server.reload();
    assert!(!local.exists());
    // Its sockets are closed by the old workers, which were told so a moment ago.
    wait_until("nobody listens there any more", || TcpStream::connect(echo).is_err());
    tcp.write_all(b"still").unwrap();
    tcp.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still");
    assert_eq!(server.address_now("web"), server.address("web"));
    serves(&server);
    drop((tcp, unix));
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn an_old_connection_keeps_the_old_configuration() {
    let dir = tempdir().unwrap();
    let file = |body: &str| {
        format!(
            "{LISTEN}process = {{ workers = 1 }}\nweb.respond = [{{ path = \"/said\", body = \"{body}\" }}]\n"
        )
    };
    write_file(dir.path(), &file("old"));
    let server = Setup::file(&dir).start();
    let mut old = half_sent(&server);
    server.write(&file("new"));
    server.reload();
    assert_eq!(get(server.address("web"), "/said").body, "new");
    old.send("st: test\r\n\r\n");
    let answer = old.answer().unwrap();
    assert_eq!(answer.body, "old");
    assert!(answer.head.contains("Connection: close"), "{}", answer.head);
    assert!(old.ends_in_order());
}

/// A reload that is refused changes nothing.
#[track_caller]
fn check_refused(dir: &TempDir, server: &Server, file: &str, parts: &[&str]) {
    let before = server.status();
    write_file(dir.path(), file);
    let text = server.refused(&["reload"]);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    serves(server);
    let after = server.wait_status("what was tried has ended", |it| it.generations.len() == 1);
    let pids = |status: &Status| status.processes.iter().map(|it| it.pid).collect::<Vec<_>>();
    assert_eq!(pids(&after), pids(&before));
    assert_eq!(current(&after), current(&before));
    let listeners = |status: &Status| {
        status.listeners.iter().map(|it| (it.name.clone(), it.address.clone())).collect::<Vec<_>>()
    };
    assert_eq!(listeners(&after), listeners(&before));
}

#[test]
fn what_cannot_be_served_is_refused_and_the_old_serves_on() {
    let dir = tempdir().unwrap();
    let good = with_process("workers = 2");
    let mut server = start(&dir, "workers = 2");
    check_refused(&dir, &server, &format!("{good}[web]\nrooot = \"\"\n"), &["tidegate.toml:10:1", "rooot"]);
    let elsewhere = format!("{good}log.dir = \"elsewhere\"\n");
    check_refused(&dir, &server, &elsewhere, &["tidegate.toml:9:11", "log.dir", "restart"]);
    let missing = format!("{good}web.root = \"nowhere\"\n");
    check_refused(&dir, &server, &missing, &["tidegate.toml:9:", "nowhere"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let more = format!(
        r#"{{ name = "free", address = "{free}", service = "echo" }},
           {{ name = "taken", address = "{}", service = "echo" }}]
        "#,
        taken.local_addr().unwrap()
    );
    let listeners = LISTEN.replace("]\n", &more);
    let file = format!("process = {{ workers = 2 }}\n{listeners}");
    check_refused(&dir, &server, &file, &["\"taken\"", &taken.local_addr().unwrap().to_string(), "in use"]);
    assert!(TcpStream::connect(free).is_err(), "what was bound for it is closed");
    server.write(&good);
    assert!(server.reload() > 1);
    serves(&server);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    assert!(server.all_lines().iter().any(|line| line.contains("reload")));
}

#[test]
fn a_worker_that_cannot_start_ends_the_reload_and_nothing_else() {
    let dir = tempdir().unwrap();
    let server = start(&dir, "workers = 2");
    let mut client = Client::open(server.address("gateway"));
    // Only those who open it see that.
    fs::write(dir.path().join("bad.db"), "this is no database, and far from being one".repeat(100)).unwrap();
    let file = format!("{}accounts.database = \"sqlite:bad.db\"\n", with_process("workers = 3"));
    check_refused(&dir, &server, &file, &["worker", "before it was ready", "bad.db", "not a database"]);
    client.ping();
    server.write(&with_process("workers = 3"));
    server.reload();
    client.ping();
    serves(&server);
}

#[test]
fn a_reload_beyond_the_limit_of_generations_waits_and_a_storm_is_one_reload() {
    let dir = tempdir().unwrap();
    let mut server = start(&dir, "workers = 1, max_generations = 2");
    let mut client = Client::open(server.address("gateway"));
    assert_eq!(server.reload(), 2);
    client.ping();
    let status = server.status();
    let states: Vec<_> =
        status.generations.iter().map(|it| (it.number, it.state.as_str(), it.connections)).collect();
    assert_eq!(states, [(1, "retiring", 1), (2, "current", 0)]);
    let dir = dir.path().to_owned();
    let waits = thread::spawn(move || crate::support::tidegate_in(&dir, ["reload"]));
    server.wait_lines(&["reload has to wait"]);
    for _ in 0..100 {
        server.signal(Signal::HUP);
        server.wait_lines(&["signal received", "HUP"]);
    }
    assert_eq!(current(&server.status()), 2);
    assert!(!waits.is_finished());
    client.ping();
    drop(client);
    let output = waits.join().unwrap();
    assert_eq!(crate::support::stdout(&output), "reloaded, generation 3\n", "{}", stderr(&output));
    // A storm that did not wait for the first of them leaves one more at the most.
    let number = server.reload();
    assert_eq!(number, 4);
    for _ in 0..100 {
        server.signal(Signal::HUP);
    }
    server.wait_status("a reload of the storm is done", |it| {
        it.generations.iter().any(|it| it.number > number)
    });
    serves(&server);
    assert!(server.reload() <= number + 100);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn what_outlasts_the_drain_timeout_is_closed_with_its_reason() {
    let dir = tempdir().unwrap();
    write_file(
        dir.path(),
        &format!(
            "{}log.level = \"info,tidegate_engine=debug\"\n",
            with_process("workers = 2, drain_timeout = \"1s\"")
        ),
    );
    let mut server = Setup::file(&dir).start();
    let mut client = Client::open(server.address("gateway"));
    server.reload();
    client.end();
    server.wait_lines(&["connection closed", "listener=gateway", "reason=shutdown"]);
    server.wait_status("the older generation has ended", |it| it.generations.len() == 1);
    serves(&server);
}

#[test]
fn what_was_counted_is_never_lost() {
    let dir = tempdir().unwrap();
    let server = start(&dir, "workers = 2");
    let accepted = |status: &Status| status.listeners.iter().find(|it| it.name == "web").unwrap().accepted;
    let mut last = 0;
    let mut told = 0;
    for round in 1..=4_u64 {
        serves(&server);
        assert_eq!(accepted(&server.status()), round * 20);
        server.signal(Signal::HUP);
        server.wait_status("the next generation serves and the one before has ended", |status| {
            let now = accepted(status);
            assert!(now >= last, "{now} after {last}");
            last = now;
            let text = get(server.address("admin"), "/metrics").body;
            let now = metric(&text, "tidegate_connections_accepted_total", &["listener=\"web\""]);
            assert!(now >= told, "{now} after {told}");
            told = now;
            status.generations.len() == 1 && current(status) == round + 1
        });
        assert_eq!(accepted(&server.status()), round * 20);
        assert_eq!(told, round * 20);
    }
    let served = |status: &Status| status.listeners.iter().find(|it| it.name == "web").unwrap().requests;
    assert_eq!(served(&server.status()), 80);
}

#[test]
fn a_worker_that_dies_in_a_reload_is_replaced() {
    let dir = tempdir().unwrap();
    let server = start(&dir, "workers = 2");
    for _ in 0..5 {
        let status = server.wait_status("one generation is left", |it| it.generations.len() == 1);
        let old = Watched::of(worker(&status, 0));
        server.signal(Signal::HUP);
        old.signal(Signal::KILL);
        old.wait_end();
        serves(&server);
        // Waits for the other, too.
        server.reload();
    }
    let status = server.wait_status("one generation is left", |it| it.generations.len() == 1);
    assert_eq!(workers(&status, current(&status)), 2);
    serves(&server);
    fs::remove_file(dir.path().join("tidegate.toml")).unwrap();
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}
