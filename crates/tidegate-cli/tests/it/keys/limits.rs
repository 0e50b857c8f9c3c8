//! `[web]`: how much, how many, and for how long.

use std::io::Write as _;
use std::net::TcpStream;

use super::{Case, End, LISTEN, World, ask, case, check, connect, hear, post, talk};
use crate::support::BOUND;

/// Of size and number.
pub(super) const SIZES: &[Case] = &[
    case("web.max_head_bytes", "200", "431", |world| {
        ask(world.web(), "test", "/hello", &format!("X: {}\r\n", "x".repeat(2000))).status()
    }),
    case("web.max_fields", "200", "431", |world| {
        ask(world.web(), "test", "/hello", "A: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n").status()
    }),
    case("web.max_target_bytes", "200", "414", |world| {
        ask(world.web(), "test", &format!("/hello?{}", "x".repeat(100)), "").status()
    }),
    case("web.max_body_bytes", "405", "413", |world| {
        post(world.web(), "/hello", "", &"x".repeat(20)).status()
    }),
    case("web.max_overhead_bytes", "200", "400", |world| {
        let lines = "\r\n".repeat(50);
        talk(world.web(), &format!("{lines}GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
            .status()
    }),
    case("web.max_requests_per_connection", "5", "2", |world| {
        let request = "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n".repeat(4);
        let last = "GET /hello HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        talk(world.web(), &format!("{request}{last}")).count("200").to_string()
    }),
    case("web.https_port", "https://test:444/", "https://test:445/", |world| {
        ask(world.server.address("plain"), "test", "/", "").field("Location")
    }),
];

#[test]
fn sizes_are_what_the_keys_say() {
    let listen =
        format!("{LISTEN}[[listen]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\nservice = \"redirect\"\n");
    let before = format!("{listen}[web]\nhttps_port = 444\n");
    let after = format!(
        "{listen}[web]\nmax_head_bytes = \"1KiB\"\nmax_fields = 3\nmax_target_bytes = 64\nmax_body_bytes = 10\n\
         max_overhead_bytes = 64\nmax_requests_per_connection = 2\nhttps_port = 445\n"
    );
    check(|_| (), &before, &after, SIZES);
}

/// Of time and rate.
pub(super) const TIMES: &[Case] = &[
    case("web.keep_alive", "stays", "ends", |world| {
        let mut stream = connect(world.web());
        stream.write_all(b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let heard = hear(&mut stream, world.patience());
        assert_eq!(heard.count("200"), 1);
        stays_or_ends(heard.end)
    }),
    case("web.head_timeout", "stays, ", "ends, 408", |world| {
        let mut stream = connect(world.web());
        stream.write_all(b"GET /hello HTTP/1.1\r\n").unwrap();
        let heard = hear(&mut stream, world.patience());
        format!("{}, {}", stays_or_ends(heard.end), heard.status())
    }),
    case("web.min_rate_grace", "stays, ", "ends, 408", slow_body),
];

#[test]
fn times_are_what_the_keys_say() {
    let web = |keep_alive, head_timeout, grace| {
        format!(
            "{LISTEN}[web]\napi = true\nkeep_alive = \"{keep_alive}\"\nhead_timeout = \"{head_timeout}\"\nmin_rate = 1000\n\
             min_rate_grace = \"{grace}\"\n"
        )
    };
    check(|_| (), &web("1h", "1h", "1h"), &web("100ms", "150ms", "100ms"), TIMES);
}

/// What peers have to make, and how many there may be.
pub(super) const PEERS: &[Case] = &[
    case("web.min_rate", "stays, ", "ends, 408", slow_body),
    case("web.max_connections_per_address", "4", "3", |world| {
        // Those of the cases before may not have been seen to end.
        crate::support::wait_until("nobody is left", || {
            world.server.status().listeners.iter().find(|it| it.name == "web").unwrap().connections == 0
        });
        let open: Vec<TcpStream> = (0..4).map(|_| connect(world.web())).collect();
        let is_served = |stream: &TcpStream| {
            let mut stream = stream;
            stream.set_read_timeout(Some(BOUND)).unwrap();
            let sent = stream.write_all(b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
            sent.is_ok() && matches!(std::io::Read::read(&mut stream, &mut [0; 1]), Ok(1))
        };
        open.iter().filter(|stream| is_served(stream)).count().to_string()
    }),
];

#[test]
fn peers_are_limited_as_the_keys_say() {
    let web = |rate, count| {
        format!(
            "{LISTEN}[web]\napi = true\nmin_rate = {rate}\nmin_rate_grace = \"50ms\"\nmax_connections_per_address = {count}\n"
        )
    };
    check(|_| (), &web(0, 0), &web(1_000_000, 3), PEERS);
}

/// A body of which nothing comes.
fn slow_body(world: &World) -> String {
    let mut stream = connect(world.web());
    let head = "POST /api/login HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let heard = hear(&mut stream, world.patience());
    format!("{}, {}", stays_or_ends(heard.end), heard.status())
}

pub(super) fn stays_or_ends(end: End) -> String {
    if end == End::None { "stays".to_owned() } else { "ends".to_owned() }
}
