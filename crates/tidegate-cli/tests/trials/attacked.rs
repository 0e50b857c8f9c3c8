//! Peers that do harm on purpose: each attack ends by itself, for a reason that is counted and told, and whoever behaves is
//! served meanwhile.
//!
//! How long the others wait is measured by `crates/tidegate-bench/compare/attacks.py`, which needs a machine for itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::process::Signal;

use crate::http::{Connection, get, metric};
use crate::kernel::{memory_kib, peer_ports};
use crate::processes::stop;
use crate::site::{Shape, Site};
use crate::support::{BOUND, Server, is_replaced, wait_until};
use crate::{alone, full_or, say};

/// What is told once a second for each reason.
const TOLD: &str = "a peer was closed for what it did";
/// Far more than any of these attacks may cost, and far less than it would if something was kept for each.
const MEMORY_KIB: u64 = 48 << 10;

/// A server with one worker whose patience is short, unless the trial is a full one.
fn attacked(site: &Site, settings: &[&str]) -> Server {
    let mut setup = site.setup();
    if !crate::is_full() {
        setup = setup.set("web.head_timeout=1s").set("web.min_rate_grace=500ms");
    }
    for setting in settings {
        setup = setup.set(*setting);
    }
    setup.start()
}

fn open_all(address: SocketAddr, count: usize, first_words: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect_timeout(&address, BOUND).unwrap();
        sockopt::set_socket_recv_buffer_size(&stream, 4 << 10).unwrap();
        stream.write_all(first_words).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    (0..count).map(open).collect()
}

/// Sends a byte on each from time to time until the server has ended them all; asks another connection meanwhile.
fn trickle_until_ended(mut attackers: Vec<TcpStream>, server: &Server) {
    let mut live = Connection::open(server.address("web"));
    let begin = Instant::now();
    while !attackers.is_empty() {
        assert!(begin.elapsed() < BOUND * 2, "{} attackers are still there", attackers.len());
        assert_eq!(live.get("/hello").status, 200);
        attackers.retain_mut(|stream| {
            // Whatever the answer says, its end is the end.
            let heard = match stream.read(&mut [0; 512]) {
                Ok(0) => return false,
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            heard && stream.write_all(b"x").is_ok()
        });
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn closed(server: &Server, reason: &str) -> u64 {
    let text = get(server.address("admin"), "/metrics").body;
    let label = format!("reason=\"{reason}\"");
    metric(&text, "tidegate_connections_closed_total", &["listener=\"web\"", &label])
}

/// The attack has ended for this reason, each connection of it, and it was said so.
fn check_end(server: &mut Server, reason: &str, count: usize, memory_before: u64) {
    let count = u64::try_from(count).unwrap();
    wait_until("all are counted", || closed(server, reason) >= count);
    assert_eq!(closed(server, reason), count);
    let line = server.wait_lines(&[TOLD, reason]);
    let grown = memory_kib(server.worker(0).pid).saturating_sub(memory_before);
    assert!(grown < MEMORY_KIB, "{grown} KiB more are held");
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    say(&format!("attack, {reason}"), &format!("{count} closed, {grown} KiB more; {line}"));
}

#[test]
fn slow_heads_end_with_their_time() {
    let _alone = alone();
    let site = Site::new(&Shape::new(1, "reuseport"));
    let mut server = attacked(&site, &[]);
    let (count, before) = (full_or(1500, 150), memory_kib(server.worker(0).pid));
    let attackers = open_all(server.address("web"), count, b"GET / HTTP/1.1\r\nHost: trial\r\nX: ");
    trickle_until_ended(attackers, &server);
    check_end(&mut server, "head-timeout", count, before);
}

#[test]
fn slow_bodies_end_with_their_grace() {
    let _alone = alone();
    let site = Site::new(&Shape::new(1, "reuseport"));
    let mut server = attacked(&site, &[]);
    let (count, before) = (full_or(1500, 150), memory_kib(server.worker(0).pid));
    let head = b"POST / HTTP/1.1\r\nHost: trial\r\nContent-Length: 1000000\r\n\r\n";
    trickle_until_ended(open_all(server.address("web"), count, head), &server);
    check_end(&mut server, "slow-body", count, before);
}

#[test]
fn slow_readers_end_with_their_grace() {
    let _alone = alone();
    let site = Site::new(&Shape::new(1, "reuseport"));
    let mut server = attacked(&site, &["listen.web.send_buffer=64KiB"]);
    let (count, before) = (full_or(1500, 150), memory_kib(server.worker(0).pid));
    let request = b"GET /big HTTP/1.1\r\nHost: trial\r\n\r\n";
    let attackers = open_all(server.address("web"), count, request);
    let mut live = Connection::open(server.address("web"));
    wait_until("they are ended", || {
        assert_eq!(live.get("/hello").status, 200);
        closed(&server, "slow-reader") >= u64::try_from(count).unwrap()
    });
    check_end(&mut server, "slow-reader", count, before);
    drop(attackers);
}

#[test]
fn an_address_gets_no_more_than_its_share() {
    let _alone = alone();
    let site = Site::new(&Shape::new(1, "reuseport"));
    let mut server = attacked(&site, &["web.max_connections_per_address=20"]);
    let (count, before) = (full_or(5000, 500), memory_kib(server.worker(0).pid));
    let mut served: Vec<Connection> = (0..20).map(|_| Connection::open(server.address("web"))).collect();
    served.iter_mut().for_each(|client| assert_eq!(client.get("/hello").status, 200));
    for _ in 0..count {
        // The reset may be there before the connection has been told of.
        let heard = TcpStream::connect_timeout(&server.address("web"), BOUND).and_then(|mut refused| {
            refused.set_read_timeout(Some(BOUND))?;
            refused.read(&mut [0])
        });
        assert_eq!(heard.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    served.iter_mut().for_each(|client| assert_eq!(client.get("/hello").status, 200));
    drop(served);
    wait_until("its connections have ended", || closed(&server, "peer-closed") >= 20);
    check_end(&mut server, "address-limit", count, before);
}

/// How many of these a worker has.
fn connections_of(worker: u64, clients: &[Connection]) -> usize {
    let ports = peer_ports(worker);
    clients.iter().filter(|client| ports.contains(&client.local_address().port())).count()
}

/// Whether a connection is served, which may have ended.
fn is_served(client: &mut Connection) -> bool {
    client.try_send("GET /hello HTTP/1.1\r\nHost: trial\r\n\r\n").is_ok()
        && client.answer().inspect(|answer| assert_eq!(answer.status, 200)).is_ok()
}

/// A new connection, if it is served.
fn open_served(address: SocketAddr) -> Option<Connection> {
    let mut client = Connection::over(TcpStream::connect_timeout(&address, BOUND).ok()?);
    is_served(&mut client).then_some(client)
}

/// So many of a hundred new connections are served, and are kept.
#[track_caller]
fn expect_served(address: SocketAddr, wanted: usize) -> Vec<Connection> {
    // One after the other: two workers that have the last place to give may both refuse.
    let served: Vec<Connection> = (0..100).filter_map(|_| open_served(address)).collect();
    assert_eq!(served.len(), wanted);
    served
}

/// With two workers, over a death, a reload and an upgrade; also where a process accepts for them.
fn check_share_of_all_workers(accept: &'static str) {
    const LIMIT: usize = 12;
    let _alone = alone();
    let site = Site::new(&Shape::new(2, accept));
    let limit = format!("web.max_connections_per_address={LIMIT}");
    let server = attacked(&site, &[&limit, "web.min_rate=0", "listen.web.send_buffer=64KiB"]);
    let web = server.address("web");
    let mut served = expect_served(web, LIMIT);
    let [zero, one] = [0, 1].map(|index| server.worker(index));
    let [of_zero, of_one] = [&zero, &one].map(|worker| connections_of(worker.pid, &served));
    assert!(of_zero > 0 && of_one > 0 && of_zero + of_one == LIMIT, "{of_zero} and {of_one}");

    // The connections of a worker that is killed go, and nothing else.
    stop(&one).signal(Signal::KILL);
    server.wait_status("its place is taken", |status| is_replaced(status, &one));
    served.retain_mut(is_served);
    assert_eq!(served.len(), of_zero);
    served.extend(expect_served(web, of_one));

    // What a retired generation still holds counts for the next ones.
    drop(served);
    wait_until("they have ended", || closed(&server, "peer-closed") >= LIMIT as u64);
    let request = b"GET /big HTTP/1.1\r\nHost: trial\r\n\r\n";
    let held = open_all(web, 5, request);
    assert_eq!(server.reload(), 2);
    let more = open_all(web, 3, request);
    assert_eq!(server.upgrade(), 3);
    let now = expect_served(web, LIMIT - 8);
    drop((held, more));
    let mut more = Vec::new();
    wait_until("the others' places are free", || {
        more.extend(open_served(web));
        more.len() == 8
    });
    assert!(open_served(web).is_none());
    drop(now);
}

#[test]
fn an_address_has_one_share_with_all_workers() {
    check_share_of_all_workers("reuseport");
}

#[test]
fn an_address_has_one_share_also_where_connections_are_handed_over() {
    check_share_of_all_workers("handoff");
}

#[test]
fn who_does_not_say_its_name_to_a_listener_behind_a_balancer_is_reset() {
    let _alone = alone();
    let site = Site::new(&Shape::new(1, "reuseport").web("proxy_protocol = true"));
    let mut server = attacked(&site, &["web.max_connections_per_address=2"]);
    let web = server.address("web");
    let ask = |header: &str| {
        let mut client = Connection::open(web);
        client.send(&format!("{header}GET /hello HTTP/1.1\r\nHost: trial\r\n\r\n"));
        client
    };
    for _ in 0..50 {
        assert!(!ask("").ends_in_order());
    }
    let named = "PROXY TCP4 192.0.2.7 198.51.100.9 56324 443\r\n";
    let mut first = ask(named);
    assert_eq!(first.answer().unwrap().status, 200);
    let mut second = ask(named);
    assert_eq!(second.answer().unwrap().status, 200);
    assert!(!ask(named).ends_in_order());
    // A second one of another address is none of theirs.
    assert_eq!(ask(&named.replace("2.7", "2.8")).answer().unwrap().status, 200);
    let page = server.tidegate(&["connections"]);
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    assert!(page.contains("192.0.2.7:56324"), "{page}");
    server.wait_lines(&[TOLD, "proxy-header"]);
    server.wait_lines(&[TOLD, "address-limit", "192.0.2.7:56324"]);
    assert_eq!((closed(&server, "proxy-header"), closed(&server, "address-limit")), (50, 1));
}

#[test]
fn floods_leave_nothing_behind() {
    let _alone = alone();
    let site = Site::new(&Shape::new(1, "reuseport"));
    let server = attacked(&site, &[]);
    let (web, worker) = (server.address("web"), server.worker(0).pid);
    let mut live = Connection::open(web);
    let memory_before = memory_kib(worker);
    for nth in 0..full_or(20_000, 2000) {
        let mut stream = TcpStream::connect_timeout(&web, BOUND).unwrap();
        if nth % 2 == 0 {
            // It is gone before it is heard.
            stream.write_all(b"GET /hello HTTP/1.1\r\nHost: trial\r\n\r\n").unwrap();
            sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
        if nth % 100 == 0 {
            assert_eq!(live.get("/hello").status, 200);
        }
    }
    // One that asks without end is served in turn with the others.
    let request = b"GET /hello HTTP/1.1\r\nHost: trial\r\n\r\n";
    let mut flood = TcpStream::connect_timeout(&web, BOUND).unwrap();
    flood.set_read_timeout(Some(BOUND)).unwrap();
    flood.write_all(request).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"Hello, World!") {
        let mut byte = [0];
        flood.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    // All answers are as long as that one.
    let mut answers = vec![0; answer.len() * 1000];
    for _ in 0..full_or(200, 20) {
        let mut asking = flood.try_clone().unwrap();
        let asking = std::thread::spawn(move || asking.write_all(&request.repeat(1000)));
        assert_eq!(live.get("/hello").status, 200);
        flood.read_exact(&mut answers).unwrap();
        asking.join().unwrap().unwrap();
    }
    assert!(answers.ends_with(b"Hello, World!"));
    drop(flood);
    wait_until("nobody is left but one", || {
        let status = server.status();
        status.listeners.iter().find(|listener| listener.name == "web").unwrap().connections == 1
    });
    let grown = memory_kib(worker).saturating_sub(memory_before);
    assert!(grown < MEMORY_KIB, "{grown} KiB more are held");
    assert_eq!(live.get("/hello").status, 200);
    say("attack, floods", &format!("{grown} KiB more are held"));
}
