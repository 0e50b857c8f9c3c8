//! `[[listen]]`, its TLS included.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::net::sockopt;

use super::limits::stays_or_ends;
use super::{Case, World, case, check, connect, hear, talk, worker};
use crate::options::accepted;
use crate::support::{BOUND, clean, output_of, tidegate_in, wait_until};
use crate::tls::has;

pub(super) const CASES: &[Case] = &[
    case("listen.name", "true, false", "false, true", |world| {
        let status = world.server.status();
        let is_there = |name: &str| status.listeners.iter().any(|listener| listener.name == name);
        format!("{}, {}", is_there("old"), is_there("new"))
    }),
    case("listen.address", "127.0.0.1", "127.0.0.2", |world| {
        let address = world.server.address_now("moved");
        assert_eq!(talk(address, "GET /hello HTTP/1.0\r\n\r\n").status(), "200");
        address.ip().to_string()
    }),
    case("listen.service", "echo", "another", |world| {
        let mut stream = connect(world.server.address_now("kind"));
        stream.write_all(b"word").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        if hear(&mut stream, BOUND).bytes == b"word" { "echo" } else { "another" }.to_owned()
    }),
    case("listen.backlog", "33", "17", |world| {
        let port = world.web().port();
        let mut command = Command::new("ss");
        let output = output_of(command.args(["-ltnH", &format!("sport = :{port}")]).stdin(Stdio::null()));
        let text = String::from_utf8(output.stdout).unwrap();
        // State, Recv-Q, Send-Q: what waits, and what may.
        text.split_whitespace().nth(2).unwrap_or(&text).to_owned()
    }),
    case("listen.nodelay", "true", "false", |world| {
        option(world, |socket| sockopt::tcp_nodelay(socket).unwrap().to_string())
    }),
    case("listen.keepalive", "60s", "120s", |world| {
        option(world, |socket| format!("{:?}", sockopt::tcp_keepidle(socket).unwrap()))
    }),
    case("listen.user_timeout", "60000", "2000", |world| {
        option(world, |socket| sockopt::tcp_user_timeout(socket).unwrap().to_string())
    }),
    case("listen.linger", "None", "Some(0ns)", |world| {
        option(world, |socket| format!("{:?}", sockopt::socket_linger(socket).unwrap()))
    }),
    case("listen.receive_buffer", "65536", "131072", |world| {
        option(world, |socket| sockopt::socket_recv_buffer_size(socket).unwrap().to_string())
    }),
    case("listen.send_buffer", "65536", "131072", |world| {
        option(world, |socket| sockopt::socket_send_buffer_size(socket).unwrap().to_string())
    }),
    case("listen.max_unsent", "much", "little", |world| {
        let mut stream = connect(world.server.address_now("patient"));
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        let mut unsent = unsent_bytes(&stream);
        // Nobody reads, so it grows until the kernel takes no more.
        wait_until("the server's end is full", || {
            std::thread::sleep(Duration::from_millis(50));
            let before = std::mem::replace(&mut unsent, unsent_bytes(&stream));
            unsent > 0 && unsent == before
        });
        if unsent > 256 << 10 { "much" } else { "little" }.to_owned()
    }),
    case("listen.proxy_protocol", "400", "200", |world| {
        let header = "PROXY TCP4 192.0.2.7 198.51.100.9 56324 443\r\n";
        talk(world.server.address("proxied"), &format!("{header}GET /hello HTTP/1.0\r\n\r\n")).status()
    }),
];

/// A listener, with further keys.
fn listener(name: &str, service: &str, rest: &str) -> String {
    format!("[[listen]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nservice = \"{service}\"\n{rest}\n")
}

#[test]
fn listeners_are_what_the_keys_say() {
    if !has("ss") {
        return;
    }
    let before = [
        "process = { workers = 1 }\n".to_owned(),
        listener("web", "web", "backlog = 33\nreceive_buffer = \"32KiB\"\nsend_buffer = \"32KiB\""),
        listener("old", "web", ""),
        listener("moved", "web", ""),
        listener("patient", "web", ""),
        listener("kind", "echo", ""),
        listener("proxied", "web", ""),
    ];
    let options = "backlog = 17\nnodelay = false\nkeepalive = \"2m\"\nuser_timeout = \"2s\"\nlinger = \"0s\"\n\
                   receive_buffer = \"64KiB\"\nsend_buffer = \"64KiB\"";
    let after = [
        "process = { workers = 1 }\n".to_owned(),
        listener("web", "web", options),
        listener("new", "web", ""),
        listener("moved", "web", "").replace("127.0.0.1", "127.0.0.2"),
        listener("patient", "web", "max_unsent = \"64KiB\""),
        listener("kind", "daytime", ""),
        listener("proxied", "web", "proxy_protocol = true"),
    ];
    let prepare = |dir: &Path| {
        fs::create_dir(dir.join("files")).unwrap();
        let large = fs::File::create(dir.join("files/large")).unwrap();
        large.set_len(64 << 20).unwrap();
    };
    let files = "[web]\nroot = \"files\"\n";
    check(prepare, &(before.concat() + files), &(after.concat() + files), CASES);
}

/// What the kernel of the server's end of a connection has, and has not sent.
fn unsent_bytes(stream: &TcpStream) -> u64 {
    let filter = format!("dport = :{}", stream.local_addr().unwrap().port());
    let output = output_of(Command::new("ss").args(["-tinH", &filter]).stdin(Stdio::null()));
    let text = String::from_utf8(output.stdout).unwrap();
    let unsent = text.split_whitespace().find_map(|word| word.strip_prefix("notsent:"));
    unsent.map_or(0, |bytes| bytes.parse().unwrap())
}

/// What the server's end of a connection is set to.
fn option(world: &World, read: fn(&std::os::fd::OwnedFd) -> String) -> String {
    let mut stream = connect(world.web());
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    read(&accepted(&worker(world), stream.local_addr().unwrap()).unwrap())
}

pub(super) const TLS: &[Case] = &[
    case("listen.tls", "in the clear", "over TLS", |world| {
        let in_clear = talk(world.server.address("both"), "GET /hello HTTP/1.0\r\n\r\n").status() == "200";
        let over_tls = openssl(world, "both", &[]).contains("CN=a.test");
        assert_ne!(in_clear, over_tls);
        if over_tls { "over TLS" } else { "in the clear" }.to_owned()
    }),
    case("listen.tls.cert", "a.test", "b.test", subject),
    case("listen.tls.key", "a.test", "b.test", subject),
    case("listen.tls.certificates", "false", "true", |world| {
        openssl(world, "secure", &["-servername", "c.test"]).contains("CN=c.test").to_string()
    }),
    case("listen.tls.min_version", "true", "false", |world| {
        openssl(world, "secure", &["-tls1_2"]).contains("CN=").to_string()
    }),
    case("listen.tls.alpn", "http/1.1", "own", |world| {
        let text = openssl(world, "secure", &["-alpn", "own,http/1.1"]);
        let found = text.lines().find_map(|line| line.strip_prefix("ALPN protocol: "));
        found.unwrap_or("none").to_owned()
    }),
    case("listen.tls.handshake_timeout", "stays", "ends", |world| silent(world, "hasty")),
    case("web.handshake_timeout", "stays", "ends", |world| silent(world, "secure")),
    case("listen.tls.max_handshakes", "heard", "waits", |world| {
        let address = world.server.address("narrow");
        let mut first = connect(address);
        first.write_all(&[0x16]).unwrap();
        // Its turn has come before that of who comes later, when the server has read its byte: nobody tells when.
        wait_until("the first is there", || connections(world, "narrow") >= 1);
        let mut second = connect(address);
        // A record that is no handshake, which ends the connection when it is read.
        second.write_all(b"\x16\x03\x01\x00\x05hello").unwrap();
        let heard = hear(&mut second, world.patience_before());
        if stays_or_ends(heard.end) == "ends" { "heard" } else { "waits" }.to_owned()
    }),
];

#[test]
fn tls_is_what_the_keys_say() {
    if !has("openssl") {
        return;
    }
    let config = |both: &str, secure: &str, hasty: &str, narrow: &str, web: &str| {
        let tls = |rest: &str| format!("tls = {{ cert = \"a.pem\", key = \"a.key\"{rest} }}");
        [
            "process = { workers = 1 }\n".to_owned(),
            listener("both", "web", both),
            listener("secure", "web", secure),
            listener("hasty", "echo", &tls(hasty)),
            listener("narrow", "echo", &tls(narrow)),
            format!("[web]\nhandshake_timeout = \"{web}\"\n"),
        ]
        .concat()
    };
    let before = config(
        "",
        "tls = { cert = \"a.pem\", key = \"a.key\" }",
        ", handshake_timeout = \"1h\"",
        ", max_handshakes = 100, handshake_timeout = \"1h\"",
        "1h",
    );
    let after = config(
        "tls = { cert = \"a.pem\", key = \"a.key\" }",
        "tls = { cert = \"b.pem\", key = \"b.key\", certificates = [{ cert = \"c.pem\", key = \"c.key\" }], \
         min_version = \"1.3\", alpn = [\"own\"] }",
        ", handshake_timeout = \"100ms\"",
        ", max_handshakes = 1, handshake_timeout = \"1h\"",
        // So long that the handshakes of the other cases are made within it.
        "5s",
    );
    check(certificates, &before, &after, TLS);
}

fn certificates(dir: &Path) {
    for name in ["a", "b", "c"] {
        let (host, cert, key) = (format!("{name}.test"), format!("{name}.pem"), format!("{name}.key"));
        let made =
            tidegate_in(dir, ["cert", "--self-signed", "--host", &host, "--cert", &cert, "--key", &key]);
        assert!(made.status.success(), "{made:?}");
    }
}

/// What `openssl s_client` says of a listener.
fn openssl(world: &World, listener: &str, args: &[&str]) -> String {
    let address = world.server.address_now(listener).to_string();
    let mut command = Command::new("openssl");
    let command = clean(&mut command, world.dir.path()).args(["s_client", "-connect", &address]).args(args);
    let output = output_of(command.stdin(Stdio::null()));
    // One form of it has blanks around the sign.
    String::from_utf8_lossy(&output.stdout).replace("CN = ", "CN=")
}

/// Whose certificate is shown.
fn subject(world: &World) -> String {
    let text = openssl(world, "secure", &[]);
    let name = text.lines().find(|line| line.trim_start().starts_with("subject="));
    name.and_then(|line| line.rsplit_once("CN=")).map_or(text.clone(), |(_, name)| name.to_owned())
}

/// What becomes of who says nothing.
fn silent(world: &World, listener: &str) -> String {
    let address: SocketAddr = world.server.address_now(listener);
    stays_or_ends(hear(&mut connect(address), world.patience()).end)
}

fn connections(world: &World, listener: &str) -> u64 {
    world.server.status().listeners.iter().find(|it| it.name == listener).unwrap().connections
}
