//! Datagrams in servers inside another program, and the example that serves them with processes of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use tidegate::config::{Acceptor, Backend, Dispatch, Engine};
use tidegate::{Chargen, Datagrams, Daytime, ListenOptions, Server, SpawnedServer, echo, echo_datagrams};

const PATIENCE: Duration = Duration::from_secs(10);

fn client(address: impl std::net::ToSocketAddrs) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(address).unwrap();
    socket
}

fn ask(client: &UdpSocket, bytes: &[u8]) -> Vec<u8> {
    client.send(bytes).unwrap();
    let mut buffer = [0; 2048];
    loop {
        match client.recv(&mut buffer) {
            // A call with a limit of time is not begun again by the kernel (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => return buffer[..received.unwrap()].to_vec(),
        }
    }
}

fn udp(server: &SpawnedServer, name: &str) -> UdpSocket {
    client(server.address(name).unwrap())
}

#[test]
fn the_same_under_every_model_and_beside_connections() {
    let models: [fn(&mut Engine); 7] = [
        |_| {},
        |engine| engine.dispatch = Dispatch::Pool,
        |engine| engine.dispatch = Dispatch::Reactor,
        |engine| engine.dispatch = Dispatch::LeaderFollower,
        |engine| engine.backend = Backend::Uring,
        |engine| engine.loops = 3,
        |engine| (engine.loops, engine.acceptor) = (3, Acceptor::Main),
    ];
    for (number, model) in models.into_iter().enumerate() {
        if number == 4 && tidegate_engine::Uring::new().is_err() {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let server = Server::builder()
            .engine(model)
            .listen("127.0.0.1:0", echo)
            .listen_datagrams("udp:127.0.0.1:0", echo_datagrams)
            .listen_datagrams_named("local", format!("unixgram:{}", path.display()), || Ok(echo_datagrams()))
            .spawn()
            .unwrap();
        let clients: Vec<UdpSocket> = (0..20).map(|_| udp(&server, "listener-2")).collect();
        for client in &clients {
            assert_eq!(ask(client, b"datagram"), b"datagram", "{number}");
        }
        let own = UnixDatagram::bind(folder.path().join("own")).unwrap();
        own.set_read_timeout(Some(PATIENCE)).unwrap();
        own.send_to(b"local", &path).unwrap();
        let mut buffer = [0; 9];
        assert_eq!(own.recv(&mut buffer).unwrap(), 5, "{number}");
        let mut stream = TcpStream::connect(server.address("main").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        std::io::Write::write_all(&mut stream, b"stream").unwrap();
        stream.read_exact(&mut buffer[..6]).unwrap();
        assert_eq!(&buffer[..6], b"stream", "{number}");
        server.quit(Duration::ZERO);
        server.join().unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn a_server_of_datagrams_alone_behind_an_acceptor() {
    let server = Server::builder()
        .engine(|engine| (engine.loops, engine.acceptor) = (2, Acceptor::Main))
        .listen_datagrams("udp:127.0.0.1:0", echo_datagrams)
        .spawn()
        .unwrap();
    assert_eq!(ask(&udp(&server, "main"), b"x"), b"x");
}

#[test]
fn a_closure_serves_datagrams_at_every_address_of_the_machine() {
    let shout = || Datagrams::new(|io, _, bytes| io.reply(&bytes.to_ascii_uppercase()));
    let server = Server::builder().listen_datagrams("udp:0.0.0.0:0", shout).spawn().unwrap();
    let port = server.address("main").unwrap().port();
    // A connected socket hears the address only that it has sent to.
    for address in ["127.0.0.1", "127.0.0.7"] {
        let client = client((address, port));
        assert_eq!(ask(&client, b"quiet"), b"QUIET");
    }
}

#[test]
fn the_classic_services_answer_connections_and_datagrams() {
    let server = Server::builder()
        .listen_datagrams("udp:127.0.0.1:0", || Chargen)
        .listen_datagrams("udp:127.0.0.1:0", || Daytime)
        .listen("127.0.0.1:0", || Chargen)
        .listen("127.0.0.1:0", || Daytime)
        .spawn()
        .unwrap();
    let chargen = udp(&server, "main");
    assert_eq!(ask(&chargen, b"hello"), br##" !"#$"##);
    assert_eq!(ask(&chargen, &[0; 1000]).len(), 512);
    let line = String::from_utf8(ask(&udp(&server, "listener-2"), b"")).unwrap();
    let is_line = |line: &str| line.ends_with("-UTC\r\n") && line.split(' ').count() == 5;
    assert!(is_line(&line), "{line:?}");
    let connect = |name| {
        let stream = TcpStream::connect(server.address(name).unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut line = String::new();
    connect("listener-4").read_to_string(&mut line).unwrap();
    assert!(is_line(&line), "{line:?}");
    // Far more than waits for a peer at a time, and all of it in order.
    let mut text = vec![0; 2_000_000];
    connect("listener-3").read_exact(&mut text).unwrap();
    for (number, line) in text.chunks_exact(74).enumerate() {
        assert_eq!(usize::from(line[0]), 32 + number % 95);
        assert_eq!(&line[72..], b"\r\n");
    }
}

#[test]
fn what_does_not_go_together_is_refused_with_the_reason() {
    let datagrams = |address: &str, options| {
        let server = Server::builder();
        let server = server.listen_datagrams_with("d", address, options, || Ok(echo_datagrams()));
        server.spawn().unwrap_err().to_string()
    };
    let none = ListenOptions::default();
    for (error, part) in [
        (datagrams("127.0.0.1:0", none), "what comes there are connections"),
        (datagrams("udp:127.0.0.1:0", none.nodelay(false)), "has no option nodelay"),
        (datagrams("udp:127.0.0.1:0", none.backlog(7)), "has no option backlog"),
        (datagrams("udp:224.0.0.1:7", none), "an address of many machines"),
        (datagrams("udp:localhost:7", none), "not an address"),
        (
            Server::builder().listen("udp:127.0.0.1:0", echo).spawn().unwrap_err().to_string(),
            "listen_datagrams",
        ),
    ] {
        assert!(error.contains(part), "{error}");
    }
    let options = none.receive_buffer(65_536).send_buffer(65_536);
    let server = Server::builder();
    server.listen_datagrams_with("d", "udp:127.0.0.1:0", options, || Ok(echo_datagrams())).spawn().unwrap();
}

#[test]
fn an_address_that_is_taken_is_named_with_its_holder() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp:{}", socket.local_addr().unwrap());
    let error = Server::builder().listen_datagrams(&address, echo_datagrams).spawn().unwrap_err().to_string();
    assert!(error.contains(&address) && error.contains("in use by this server itself"), "{error}");
}

#[test]
fn the_example_serves() {
    // Cargo builds the examples with the tests, beside them.
    let tests = std::env::current_exe().unwrap();
    let example = tests.parent().unwrap().parent().unwrap().join("examples/udp_echo");
    assert!(example.exists(), "run all tests of the package, which builds its examples");
    let mut server = Command::new(example).arg("udp:127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().rsplit('=').next().unwrap().strip_prefix("udp:").unwrap();
    let answers: Vec<_> = (0..20).map(|_| ask(&client(address), b"hello")).collect();
    let status = Command::new("sh").arg("-c").arg(format!("kill -QUIT {}", server.id())).status().unwrap();
    let code = server.wait().unwrap().code();
    assert!(status.success() && answers.iter().all(|answer| answer == b"hello"), "{answers:?}");
    assert_eq!(code, Some(0));
}
