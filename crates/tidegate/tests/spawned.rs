//! Servers inside another program: `Server::builder()…spawn()`, with real sockets.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{getpeername, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tidegate::config::{Acceptor, Backend, Dispatch, Engine};
use tidegate::{
    ConnHandle, Connect, Decoded, Error, Flow, Io, ListenOptions, Peer, Phase, Reason, Refusal, Server,
    Service, SpawnedServer, Stream, Target, UpstreamConfig, discard, echo,
};

fn spawn_echo() -> SpawnedServer {
    Server::builder().listen("127.0.0.1:0", echo).spawn().unwrap()
}

fn connect(server: &SpawnedServer, name: &str) -> TcpStream {
    let stream = TcpStream::connect(server.address(name).unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Sends, ends the sending side, and reads to the end.
fn exchange(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn an_echo_server_echoes_until_it_is_dropped() {
    let server = spawn_echo();
    assert_eq!(exchange(connect(&server, "main"), b"hello"), b"hello");
    let mut held = connect(&server, "main");
    held.write_all(b"x").unwrap();
    held.read_exact(&mut [0]).unwrap();
    drop(server);
    assert_eq!(held.read(&mut [0]).unwrap(), 0, "the server has closed it");
}

type Change = fn(&mut Engine);

#[test]
fn a_program_chooses_the_model_for_its_own_service() {
    let models: [Change; 5] = [
        |engine| engine.dispatch = Dispatch::Pool,
        |engine| engine.dispatch = Dispatch::Reactor,
        |engine| engine.dispatch = Dispatch::LeaderFollower,
        |engine| engine.backend = Backend::Uring,
        |engine| (engine.loops, engine.acceptor) = (2, Acceptor::Main),
    ];
    for model in models {
        let server = Server::builder().engine(model).listen("127.0.0.1:0", echo).spawn().unwrap();
        assert_eq!(exchange(connect(&server, "main"), b"hello"), b"hello");
    }
}

#[test]
fn what_does_not_go_together_is_refused_with_the_reason() {
    let wrong: [(Change, &str); 3] = [
        (
            |engine| (engine.dispatch, engine.backend) = (Dispatch::Reactor, Backend::Uring),
            "engine.backend: ",
        ),
        (|engine| (engine.dispatch, engine.loops) = (Dispatch::LeaderFollower, 2), "engine.loops: "),
        (|engine| engine.acceptor = Acceptor::Main, "engine.acceptor: "),
    ];
    for (change, reason) in wrong {
        let refused = Server::builder().engine(change).listen("127.0.0.1:0", echo).spawn();
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn listeners_have_names_and_services_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let server = Server::builder()
        .listen("127.0.0.1:0", echo)
        .listen("127.0.0.1:0", discard)
        .listen_named("local", format!("unix:{}", socket.display()), || Ok(echo()))
        .spawn()
        .unwrap();
    let names: Vec<&str> = server.ready().listeners.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["main", "listener-2", "local"]);
    assert_eq!(exchange(connect(&server, "main"), b"a"), b"a");
    assert_eq!(exchange(connect(&server, "listener-2"), b"a"), b"");
    let mut local = UnixStream::connect(&socket).unwrap();
    local.write_all(b"u").unwrap();
    local.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    local.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"u");
    drop(server);
    assert!(!socket.exists(), "the socket file goes with the server");
}

#[test]
fn a_closure_is_a_service() {
    let shout = || {
        Stream::new(|io, bytes| {
            io.send(&bytes.to_ascii_uppercase());
            if bytes.contains(&b'.') { Flow::CloseAfterFlush(Reason::DONE) } else { Flow::Continue }
        })
    };
    let server = Server::builder().listen("127.0.0.1:0", shout).spawn().unwrap();
    let mut stream = connect(&server, "main");
    stream.write_all(b"stop.").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"STOP.");
}

#[test]
fn a_server_of_several_loops_serves_and_ends() {
    let server = Server::builder().listen("127.0.0.1:0", echo).loops(3).spawn().unwrap();
    for _ in 0..30 {
        assert_eq!(exchange(connect(&server, "main"), b"hello"), b"hello");
    }
    server.quit(Duration::from_secs(30));
    server.join().unwrap();
}

#[test]
fn quitting_ends_when_the_connections_have() {
    let server = spawn_echo();
    let mut idle = connect(&server, "main");
    idle.write_all(b"x").unwrap();
    idle.read_exact(&mut [0]).unwrap();
    server.quit(Duration::from_secs(30));
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "an idle stream is ended in order");
    drop(idle);
    server.join().unwrap();
}

#[test]
fn a_taken_address_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Server::builder().listen(address.clone(), echo).spawn().unwrap_err();
    assert!(matches!(error, Error::Bind(_)));
    assert!(error.to_string().contains(&address), "{error}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn an_address_that_is_none_is_an_error() {
    let error = Server::builder().listen("127.0.0.1", echo).spawn().unwrap_err();
    assert!(matches!(error, Error::Address { .. }));
    assert_eq!(error.exit_code(), 2);
}

#[test]
fn a_factory_that_fails_fails_the_start() {
    let failing = || if true { Err("no licence".into()) } else { Ok(echo()) };
    let error = Server::builder().listen_named("main", "127.0.0.1:0", failing).spawn().unwrap_err();
    assert!(error.to_string().contains("no licence"), "{error}");
}

/// The server's end of a connection, found among the descriptors of this process.
fn accepted(client: &TcpStream) -> OwnedFd {
    let (this, wanted) = (pidfd_open(getpid(), PidfdFlags::empty()).unwrap(), client.local_addr().unwrap());
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = fds.map(|fd| fd.unwrap().file_name().into_string().unwrap().parse().unwrap());
    let mut copies = numbers.filter_map(|number| pidfd_getfd(&this, number, PidfdGetfdFlags::empty()).ok());
    let peer = |fd: &OwnedFd| SocketAddr::try_from(getpeername(fd).ok().flatten()?).ok();
    copies.find(|fd| peer(fd) == Some(wanted)).expect("the server has accepted")
}

#[test]
fn connections_have_the_options_of_their_listener() {
    let options = ListenOptions::default()
        .nodelay(false)
        .keepalive(Duration::from_secs(60))
        .reset_on_close()
        .receive_buffer(40_000)
        .send_buffer(50_000);
    let server = Server::builder()
        .listen("127.0.0.1:0", echo)
        .listen_with("special", "127.0.0.1:0", options, || Ok(echo()))
        .spawn()
        .unwrap();
    let [plain, special] = ["main", "special"].map(|name| {
        let mut client = connect(&server, name);
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        let accepted = accepted(&client);
        (client, accepted)
    });
    assert!(sockopt::tcp_nodelay(&plain.1).unwrap() && !sockopt::socket_keepalive(&plain.1).unwrap());
    assert!(!sockopt::tcp_nodelay(&special.1).unwrap() && sockopt::socket_keepalive(&special.1).unwrap());
    let linger = [&plain, &special].map(|(_, accepted)| sockopt::socket_linger(accepted).unwrap());
    assert_eq!(linger, [None, Some(Duration::ZERO)]);
    assert_eq!(sockopt::tcp_keepidle(&special.1).unwrap(), Duration::from_secs(60));
    assert_eq!(sockopt::tcp_keepintvl(&special.1).unwrap(), Duration::from_secs(12));
    assert_eq!(sockopt::tcp_keepcnt(&special.1).unwrap(), 5);
    assert_eq!(sockopt::socket_recv_buffer_size(&special.1).unwrap(), 80_000);
    assert_eq!(sockopt::socket_send_buffer_size(&special.1).unwrap(), 100_000);
}

#[test]
fn a_unix_socket_has_no_options_of_tcp() {
    let options = ListenOptions::default().keepalive(Duration::from_secs(1));
    let error = Server::builder().listen_with("main", "unix:s", options, || Ok(echo())).spawn().unwrap_err();
    assert_eq!(error.to_string(), "address \"unix:s\": a Unix socket has no option keepalive");
    assert_eq!(error.exit_code(), 2);
}

/// Asks an upstream's connection, or one of its own, to greet, for each line that comes.
struct Asker {
    target: Target,
}

impl Service for Asker {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        match input.iter().position(|byte| *byte == b'\n') {
            Some(end) => Decoded::Message { len: end + 1, head: () },
            None => Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 },
        }
    }

    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), line: &[u8]) -> Flow {
        let me: ConnHandle<()> = io.handle();
        if line == b"once\n" {
            io.connect("once", Connect::to(self.target.clone()), me).unwrap();
        } else {
            match io.upstream("kept").unwrap().pick() {
                Ok(kept) => kept.post(me).unwrap(),
                Err(_) => io.send(b"not connected\n"),
            }
        }
        Flow::Continue
    }
}

/// Passes what it hears to whoever asked last.
struct Greeter;

impl Service for Greeter {
    type Session = Option<ConnHandle<()>>;
    type Head = ();
    type Note = ConnHandle<()>;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<Self::Session, Refusal> {
        Ok(None)
    }

    fn decode(&self, _: &mut Self::Session, input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, _: &mut Io<'_>, asker: &mut Self::Session, (): (), bytes: &[u8]) -> Flow {
        asker.as_ref().unwrap().send(bytes).unwrap();
        Flow::Continue
    }

    fn on_note(&self, io: &mut Io<'_>, session: &mut Self::Session, asker: ConnHandle<()>) -> Flow {
        *session = Some(asker);
        io.send(b"hello\n");
        Flow::Continue
    }
}

#[test]
fn services_have_clients_and_upstreams_in_every_loop() {
    let target = spawn_echo();
    let address = target.address("main").unwrap();
    let config = UpstreamConfig { connections: 2, ..UpstreamConfig::to(address) };
    for acceptor in [Acceptor::Each, Acceptor::Main] {
        let server = Server::builder()
            .engine(|engine| (engine.loops, engine.acceptor) = (2, acceptor))
            .client("once", || Ok(Greeter))
            .listen_named("main", "127.0.0.1:0", move || Ok(Asker { target: address.into() }))
            .upstream("kept", config.clone(), || Ok(Greeter))
            .spawn()
            .unwrap();
        for _ in 0..4 {
            let mut client = connect(&server, "main");
            let mut hello = [0; 6];
            client.write_all(b"once\n").unwrap();
            client.read_exact(&mut hello).unwrap();
            assert_eq!(&hello, b"hello\n");
            // The upstream of this loop may just be on its way.
            loop {
                client.write_all(b"kept\n").unwrap();
                client.read_exact(&mut hello).unwrap();
                if &hello == b"hello\n" {
                    break;
                }
                client.read_exact(&mut [0; 8]).unwrap();
            }
        }
    }
}

#[test]
fn two_of_a_name_are_an_error() {
    let error = |server: tidegate::ServerBuilder| server.spawn().unwrap_err().to_string();
    let server = || Server::builder().listen("127.0.0.1:0", echo);
    let expected = |name: &str| format!("client \"{name}\": there is a listener or a client of that name");
    assert!(error(server().client("main", || Ok(Greeter))).contains(&expected("main")));
    let twice = server().client("x", || Ok(Greeter)).client("x", || Ok(Greeter));
    assert!(error(twice).contains(&expected("x")));
}
