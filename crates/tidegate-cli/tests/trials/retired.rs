//! Retired generations: each ends when its connections have, and a reload waits while there are too many of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;

use rustix::process::Signal;
use tidegate::control_socket;

use crate::alone;
use crate::http::{Connection, get};
use crate::site::{Shape, Site, generations};
use crate::support::{BOUND, Server, wait_until};

const PING: [u8; 8] = [0, 8, 0, 0, 0, 0, 0, 0];

/// A client of the gateway that stays.
struct Member(TcpStream);

impl Member {
    /// Joins a generation. The one before accepts until it has heard that it is retired.
    fn join(server: &Server, generation: u64) -> Self {
        loop {
            let stream = TcpStream::connect_timeout(&server.address("gateway"), BOUND).unwrap();
            stream.set_read_timeout(Some(BOUND)).unwrap();
            let mut member = Self(stream);
            member.ping();
            let own = member.0.local_addr().unwrap().to_string();
            let answer = ask(&server.data("control.sock"), "connections");
            let all = answer["connections"].as_array().unwrap();
            if all.iter().any(|it| it["peer"] == own && it["generation"] == generation) {
                return member;
            }
        }
    }

    fn ping(&mut self) {
        self.0.write_all(&PING).unwrap();
        let mut pong = [0; 8];
        self.0.read_exact(&mut pong).unwrap();
        assert_eq!(pong, PING);
    }
}

fn ask(socket: &Path, request: &str) -> serde_json::Value {
    let answer = control_socket::request(socket, request.as_bytes(), BOUND).unwrap();
    serde_json::from_slice(&answer).unwrap()
}

/// Asks the server itself, and tells which generation serves then.
fn reload(server: &Server) -> u64 {
    reload_at(&server.data("control.sock"))
}

fn reload_at(socket: &Path) -> u64 {
    let answer = ask(socket, "reload");
    answer["generation"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn kept_connections_are_told_to_go_or_end_by_their_time() {
    let _alone = alone();
    let shape = Shape::new(1, "reuseport");
    let site = Site::new(&shape);
    let server = site.start();
    let web = server.address("web");
    let mut busy = Connection::open(web);
    assert_eq!(busy.get("/hello").status, 200);
    site.write(&shape.text().replace("root = \"site\"", "root = \"site\"\nkeep_alive = \"300ms\""));
    assert_eq!(reload(&server), 2);
    wait_until("an answer says that it is the last one", || {
        let answer = busy.get("/hello");
        assert_eq!(answer.status, 200);
        answer.head.contains("Connection: close\r\n")
    });
    assert!(busy.ends_in_order());
    drop(busy);
    server.wait_status("the first generation has ended", |status| generations(status) == [2]);

    let mut idle = Connection::open(web);
    assert_eq!(idle.get("/hello").status, 200);
    assert_eq!(reload(&server), 3);
    assert!(idle.ends_in_order());
    drop(idle);
    server.wait_status("the second generation has ended", |status| generations(status) == [3]);
    assert_eq!(get(web, "/hello").status, 200);
}

#[test]
fn a_reload_beyond_the_most_generations_waits_for_one_to_end() {
    let _alone = alone();
    let site = Site::new(&Shape::new(1, "reuseport"));
    let mut server = site.start();
    let mut members = vec![Member::join(&server, 1)];
    for generation in 2..=8 {
        assert_eq!(reload(&server), generation);
        members.push(Member::join(&server, generation));
    }
    assert_eq!(generations(&server.status()), [1, 2, 3, 4, 5, 6, 7, 8]);

    server.signal(Signal::HUP);
    server.wait_line("reload has to wait for what is under way");
    let socket = server.data("control.sock");
    let asked = [(); 3].map(|()| {
        let socket = socket.clone();
        thread::spawn(move || reload_at(&socket))
    });
    asked.iter().for_each(|_| drop(server.wait_line("asked by a control request")));
    assert_eq!(generations(&server.status()), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    assert!(asked.iter().all(|asked| !asked.is_finished()));
    drop(members.remove(2));
    let reached = asked.map(|asked| asked.join().unwrap());
    assert_eq!(reached, [9, 9, 9], "one reload is enough for all who asked before it began");
    server.wait_status("the third has ended", |status| generations(status) == [1, 2, 4, 5, 6, 7, 8, 9]);
    // Those who stay are served on, by the generation that they came to.
    members.iter_mut().for_each(Member::ping);
    drop(members);
    server.wait_status("all retired generations have ended", |status| generations(status) == [9]);
}
