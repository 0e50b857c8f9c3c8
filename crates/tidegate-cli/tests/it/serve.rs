//! What is served: web, admin and gateway, over all processes.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::tempdir;
use tidegate::Status;
use tidegate::gateway::Client;

use crate::http::{Connection, get, metric};
use crate::processes::{Exit, stop};
use crate::support::{BOUND, Setup, stdout, wait_until, worker};

#[test]
fn the_built_in_site_welcomes() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let welcome = get(server.address("web"), "/");
    assert_eq!(welcome.status, 200);
    assert!(welcome.head.contains("Content-Type: text/html"), "{}", welcome.head);
    assert!(welcome.body.contains("href=\"/hello\""), "{}", welcome.body);
    assert_eq!(get(server.address("web"), "/hello").body, "Hello, World!");
    assert_eq!(get(server.address("web"), "/nothing").status, 404);
}

#[test]
fn every_model_serves_the_same_and_stops() {
    for model in [
        "trigger=level timers=heap loops=2",
        "trigger=edge timers=tree loops=2",
        "trigger=oneshot timers=list loops=2",
        "trigger=edge loops=2 acceptor=main",
        "dispatch=pool trigger=level loops=2",
        "dispatch=pool trigger=edge loops=2",
        "dispatch=pool trigger=oneshot loops=2",
        "dispatch=pool loops=2 acceptor=main",
        "backend=uring loops=2",
        "backend=uring loops=2 acceptor=main",
        "backend=uring dispatch=pool loops=2",
        "dispatch=reactor pool_threads=3",
        "dispatch=leader-follower pool_threads=3",
    ] {
        let dir = tempdir().unwrap();
        let keys = model.split(' ').map(|key| format!("engine.{key}"));
        let server = keys.fold(Setup::new(&dir), Setup::set).start();
        // Enough connections that each of the loops has most likely had some.
        let mut web: Vec<_> = (0..16).map(|_| Connection::open(server.address("web"))).collect();
        for _ in 0..3 {
            web.iter_mut().for_each(|connection| assert_eq!(connection.get("/hello").body, "Hello, World!"));
        }
        let mut client = Client::connect(server.address("gateway"), BOUND).unwrap();
        client.ping().unwrap();
        // Whoever handled a request may have answered before it was counted.
        wait_until("every request was counted", || {
            let told: Status = serde_json::from_str(&get(server.address("admin"), "/status").body).unwrap();
            let requests =
                |name: &str| told.listeners.iter().find(|listener| listener.name == name).unwrap().requests;
            (requests("web"), requests("gateway")) == (48, 1)
        });
        drop((web, client));
        assert_eq!(server.end(Signal::QUIT), Exit::Code(0), "{model}");
    }
}

#[test]
fn files_are_served_and_none_beside_them() {
    let dir = tempdir().unwrap();
    let root = dir.path().join("site");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), "<p>index</p>").unwrap();
    fs::write(root.join("data.json"), "{}").unwrap();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
    let server = Setup::new(&dir).set(format!("web.root={}", root.display())).start();
    let mut web = Connection::open(server.address("web"));
    assert_eq!(web.get("/").body, "<p>index</p>");
    let json = web.get("/data.json");
    assert_eq!(json.body, "{}");
    assert!(json.head.contains("Content-Type: application/json"), "{}", json.head);
    for outside in ["/link", "/../secret", "/%2e%2e/secret", "/..%2fsecret"] {
        let answer = get(server.address("web"), outside);
        assert!(
            matches!(answer.status, 400 | 403 | 404) && !answer.body.contains("secret\n"),
            "{outside}: {answer:?}"
        );
        assert_ne!(answer.body, "secret", "{outside}");
    }
}

#[test]
fn the_admin_pages_answer() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let admin = server.address("admin");
    assert_eq!(get(admin, "/healthz").status, 200);
    assert_eq!(get(admin, "/readyz").status, 200);
    let status: Status = serde_json::from_str(&get(admin, "/status").body).unwrap();
    let roles: Vec<&str> = status.processes.iter().map(|process| process.role.as_str()).collect();
    assert_eq!(roles, ["master", "log server", "worker", "worker"]);
    let told: Vec<String> = status.listeners.iter().map(|listener| listener.address.clone()).collect();
    let mut real: Vec<String> = server.listeners().iter().map(|(_, address)| address.to_string()).collect();
    // The log server's socket is a listener too.
    real.push(format!("unix:{}", dir.path().join("data/log.sock").display()));
    assert_eq!(told, real);
}

#[test]
fn metrics_count_what_was_done_over_all_processes() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    for _ in 0..12 {
        get(server.address("web"), "/hello");
    }
    get(server.address("web"), "/nothing");
    let mut kept = Connection::open(server.address("web"));
    (0..5).for_each(|_| assert_eq!(kept.get("/hello").status, 200));
    let mut client = Client::connect(server.address("gateway"), BOUND).unwrap();
    (0..3).for_each(|_| client.ping().unwrap());
    drop(client);
    wait_until("all but the kept connection are closed", || {
        let text = get(server.address("admin"), "/metrics").body;
        let open = |listener| metric(&text, "tidegate_connections_open", &[listener]);
        (open("listener=\"web\""), open("listener=\"gateway\"")) == (1, 0)
    });
    let text = get(server.address("admin"), "/metrics").body;
    let web = |name| metric(&text, name, &["listener=\"web\""]);
    let gateway = |name| metric(&text, name, &["listener=\"gateway\""]);
    assert_eq!(web("tidegate_connections_accepted_total"), 14);
    assert_eq!(web("tidegate_connections_closed_total"), 13);
    assert_eq!(web("tidegate_messages_total"), 18);
    assert_eq!(gateway("tidegate_connections_accepted_total"), 1);
    assert_eq!(gateway("tidegate_messages_total"), 3);
    assert_eq!((gateway("tidegate_received_bytes_total"), gateway("tidegate_sent_bytes_total")), (24, 24));
    // The status says the same.
    let status = server.status();
    let listener = |name| status.listeners.iter().find(|listener| listener.name == name).unwrap();
    assert_eq!(
        (listener("web").accepted, listener("web").requests, listener("web").connections),
        (14, 18, 1)
    );
    assert_eq!((listener("gateway").accepted, listener("gateway").requests), (1, 3));
}

#[test]
fn a_stopped_worker_is_seen_and_hides_nothing() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let admin = server.address("admin");
    let stopped = stop(&server.worker(0));
    for _ in 0..8 {
        let status: Status = serde_json::from_str(&get(admin, "/status").body).unwrap();
        assert_eq!(
            (worker(&status, 0).os_state.as_str(), worker(&status, 0).state.as_str()),
            ("stopped", "ready")
        );
        assert_eq!(get(admin, "/metrics").status, 200);
    }
    let told = server.tidegate(&["status"]);
    let line = stdout(&told).lines().find(|line| line.starts_with("worker 0")).unwrap();
    assert!(line.contains("stopped"), "{line}");
    stopped.signal(Signal::CONT);
    server.wait_status("it runs again", |status| worker(status, 0).os_state != "stopped");
    for _ in 0..8 {
        assert_eq!(get(server.address("web"), "/hello").status, 200);
    }
}

#[test]
fn gateway_clients_are_served_side_by_side() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let connect = |_| Client::connect(server.address("gateway"), Duration::from_secs(10)).unwrap();
    let mut clients: Vec<Client> = (0..10).map(connect).collect();
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| client.ping().unwrap());
    }
    let status = server.status();
    let gateway = status.listeners.iter().find(|listener| listener.name == "gateway").unwrap();
    assert_eq!((gateway.connections, gateway.requests), (10, 30));
}

#[test]
fn echo_and_discard_are_in_the_binary() {
    use std::io::{Read, Write};
    let dir = tempdir().unwrap();
    let listeners = r#"listen=[{name="e",address="127.0.0.1:0",service="echo"},{name="d",address="127.0.0.1:0",service="discard"}]"#;
    let file = dir.path().join("tidegate.toml");
    fs::write(&file, format!("data_dir = \"data\"\n{listeners}\n[process]\nworkers = 1\n")).unwrap();
    let server = Setup::file(&dir).start();
    let mut echo = std::net::TcpStream::connect(server.address("e")).unwrap();
    echo.set_read_timeout(Some(BOUND)).unwrap();
    echo.write_all(b"over and over").unwrap();
    let mut back = [0; 13];
    echo.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"over and over");
    let mut discard = std::net::TcpStream::connect(server.address("d")).unwrap();
    discard.set_read_timeout(Some(BOUND)).unwrap();
    discard.write_all(b"nothing").unwrap();
    discard.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(discard.read_to_end(&mut Vec::new()).unwrap(), 0);
}
