//! More clients than descriptors: those that are served stay served, and nobody spins.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::tempdir;

use crate::http::{Connection, get, metric};
use crate::processes::Exit;
use crate::support::{Setup, wait_until};

#[test]
fn running_out_of_descriptors_harms_nobody() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).set("process.workers=1").open_files(60).start();
    let mut live = Connection::open(server.address("web"));
    let mut admin = Connection::open(server.address("admin"));
    assert_eq!(live.get("/hello").status, 200);
    assert_eq!(admin.get("/healthz").status, 200);

    let mut clients: Vec<Connection> = (0..200).map(|_| Connection::open(server.address("web"))).collect();
    server.wait_line("out of descriptors or memory for a new connection");
    clients.iter_mut().for_each(|client| client.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert_eq!(live.get("/hello").status, 200);

    // The loop is tried again every 10 ms, and does not turn without a reason in between.
    let mut turns = || metric(&admin.get("/metrics").body, "tidegate_loop_turns_total", &["worker-0"]);
    let (begin, before) = (Instant::now(), turns());
    std::thread::sleep(Duration::from_millis(300));
    let turned = turns() - before;
    let ticks = u64::try_from(begin.elapsed().as_millis()).unwrap() / 10 + 1;
    assert!(turned < 1000 + 5 * ticks, "{turned} turns in {ticks} ticks");
    assert_eq!(live.get("/hello").status, 200);

    let answers: Vec<u16> =
        clients.iter_mut().filter_map(|client| client.answer().ok()).map(|a| a.status).collect();
    let with = |status| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!(with(200) + with(503), answers.len(), "{answers:?}");
    assert!(with(200) > 10 && with(503) > 0, "{answers:?}");
    drop(clients);
    wait_until("there is room again", || get(server.address("web"), "/hello").status == 200);
    assert_eq!(live.get("/hello").status, 200);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}
