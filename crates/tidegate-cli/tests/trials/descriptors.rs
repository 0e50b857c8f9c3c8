//! More clients than descriptors: nobody spins, those who are served stay served, and room is used as soon as it comes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::http::{Connection, get};
use crate::kernel::cpu_time;
use crate::site::{Shape, Site};
use crate::support::{BOUND, Server, wait_until};
use crate::{alone, check_bound, full_or, say};

const PING: [u8; 8] = [0, 8, 0, 0, 0, 0, 0, 0];
const CLIENTS: usize = 200;

fn ping(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect_timeout(&address, BOUND).unwrap();
    client.set_read_timeout(Some(BOUND)).unwrap();
    client.write_all(&PING).unwrap();
    client
}

/// Waits until one of them has an answer, and takes it out.
fn next_answered(clients: &mut Vec<TcpStream>) -> TcpStream {
    let mut waits: Vec<PollFd<'_>> =
        clients.iter().map(|client| PollFd::new(client, PollFlags::IN)).collect();
    poll(&mut waits, Some(&Timespec::try_from(BOUND).unwrap())).unwrap();
    let index = waits.iter().position(|wait| !wait.revents().is_empty());
    let mut client = clients.swap_remove(index.expect("nobody is answered"));
    let mut pong = [0; 8];
    client.read_exact(&mut pong).unwrap();
    assert_eq!(pong, PING);
    client
}

/// What a worker takes for itself in a second in which it has nothing to do but to have no descriptors.
fn cpu_per_second(server: &Server) -> Duration {
    let worker = server.worker(0);
    let time = Duration::from_millis(full_or(2000, 300));
    let (before, begin) = (cpu_time(worker.pid), Instant::now());
    thread::sleep(time);
    (cpu_time(worker.pid) - before).div_f64(begin.elapsed().as_secs_f64())
}

#[test]
fn who_waits_for_a_descriptor_gets_the_next_one() {
    let _alone = alone();
    let site = Site::new(&Shape::new(1, "reuseport"));
    let mut server = site.setup().open_files(60).start();
    let mut live = Connection::open(server.address("web"));
    assert_eq!(live.get("/hello").status, 200);
    let gateway = server.address("gateway");
    let mut waiting: Vec<TcpStream> = (0..CLIENTS).map(|_| ping(gateway)).collect();
    server.wait_line("out of descriptors or memory for a new connection");
    assert_eq!(live.get("/hello").status, 200);
    let has_room = |server: &Server| {
        let status = server.status();
        let gateway = status.listeners.iter().find(|listener| listener.name == "gateway").unwrap();
        usize::try_from(gateway.connections).unwrap()
    };
    let room = has_room(&server);
    assert!((10..60).contains(&room), "{room} connections");
    let mut served: Vec<TcpStream> = (0..room).map(|_| next_answered(&mut waiting)).collect();
    let cpu = cpu_per_second(&server);
    assert_eq!(live.get("/hello").status, 200);
    let mut slowest = Duration::ZERO;
    while !waiting.is_empty() {
        let begin = Instant::now();
        drop(served.swap_remove(0));
        served.push(next_answered(&mut waiting));
        slowest = slowest.max(begin.elapsed());
    }
    for client in &mut served {
        client.write_all(&PING).unwrap();
        client.read_exact(&mut [0; 8]).unwrap();
    }
    assert_eq!(live.get("/hello").status, 200);
    say(
        "descriptors exhausted, gateway",
        &format!(
            "{room} of {CLIENTS} served at a time, {cpu:.1?} of processor time per second, all others served in turn, each \
             at most {slowest:.1?} after there was room"
        ),
    );
    check_bound("no spin", cpu, Duration::from_millis(20));
    check_bound("service after relief", slowest, Duration::from_millis(50));
}

/// Each way in which connections come to those who serve them: `process.accept`, and `engine.acceptor` if it is not that of
/// each loop for itself.
const WAYS: [(&str, &[&str]); 4] = [
    ("reuseport", &[]),
    ("shared", &[]),
    ("handoff", &[]),
    ("reuseport", &["engine.loops=2", "engine.acceptor=main"]),
];

#[test]
fn service_is_back_when_the_crowd_has_gone() {
    let _alone = alone();
    for (accept, engine) in WAYS {
        check_relief(accept, engine);
    }
}

fn check_relief(accept: &'static str, engine: &[&str]) {
    let site = Site::new(&Shape::new(1, accept));
    let setup = engine.iter().fold(site.setup().open_files(60), |setup, key| setup.set(*key));
    let mut server = setup.start();
    let web = server.address("web");
    let mut live = Connection::open(web);
    assert_eq!(live.get("/hello").status, 200);
    let (mut cpu, mut refusals, mut reliefs) = (Duration::ZERO, Vec::new(), Vec::new());
    for round in 0..full_or(20, 2) {
        let crowd: Vec<TcpStream> =
            (0..CLIENTS).map(|_| TcpStream::connect_timeout(&web, BOUND).unwrap()).collect();
        if round == 0 {
            server.wait_line("out of descriptors or memory for a new connection");
        }
        // Who finds no room is told so, now and whenever he asks.
        wait_until("there is no room", || get(web, "/hello").status == 503);
        let asked = Instant::now();
        assert_eq!(get(web, "/hello").status, 503);
        refusals.push(asked.elapsed());
        assert_eq!(live.get("/hello").status, 200);
        if round < 3 {
            cpu = cpu.max(cpu_per_second(&server));
        }
        let begin = Instant::now();
        drop(crowd);
        while get(web, "/hello").status != 200 {
            assert!(begin.elapsed() < BOUND, "the service is not back");
        }
        reliefs.push(begin.elapsed());
        assert_eq!(live.get("/hello").status, 200);
    }
    let [refusals, reliefs] = [refusals, reliefs].map(|mut times| {
        times.sort_unstable();
        (times.get(times.len() / 2).copied().unwrap_or_default(), times.last().copied().unwrap_or_default())
    });
    say(
        &format!("descriptors exhausted, web, {accept} {}", engine.join(" ")),
        &format!(
            "{} crowds of {CLIENTS}, at most {cpu:.1?} of processor time per second; median and longest time to a 503 \
             {refusals:.1?}, to the first 200 after they had gone {reliefs:.1?}",
            full_or(20, 2)
        ),
    );
    check_bound("no spin", cpu, Duration::from_millis(20));
    check_bound("service after relief", reliefs.0, Duration::from_millis(10));
    // The crowd's own connections are closed within this time, by a machine that may have other work.
    check_bound("service after relief, the longest of all", reliefs.1, Duration::from_millis(50));
}
