//! Datagrams, by UDP and over Unix sockets: told whole, answered, bounded, and never in the way of connections.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::net::sockopt;
use tidegate_engine::{
    CounterDef, DatagramIo, DatagramLimits, DatagramPeer, DatagramService, EngineConfig, ListenerWord,
    LoopBuilder, Metrics, ProcessMetrics, ProcessWord, Running, Socket, Sockets, TimerToken,
};

use crate::support::{PATIENCE, pattern, prepare_the_process, until};

under_each_model!(
    answers_come_back_whole_and_in_order,
    every_size_from_nothing_to_the_largest,
    a_panic_costs_its_datagram_alone,
    timers_and_the_first_callback,
    a_flood_keeps_no_connection_waiting,
    unix_sockets_with_and_without_names,
    retiring_handles_what_has_come_and_says_goodbye,
    sockets_come_and_go,
    paused_sockets_keep_what_comes,
    what_is_too_much_is_dropped_and_counted,
    several_loops_share_one_socket,
);

/// Does what the first word of a datagram says.
struct Puppet {
    limits: DatagramLimits,
    seen: Mutex<Sender<String>>,
    /// Whoever sent last, in order to be told goodbye.
    last: Mutex<Option<DatagramPeer>>,
}

const TICK: TimerToken = TimerToken(1);

impl DatagramService for Puppet {
    const COUNTERS: &'static [CounterDef] = &[CounterDef { name: "seen", help: "Datagrams seen." }];

    fn on_start(&self, io: &mut DatagramIo<'_>) {
        self.tell(&format!("start {}", io.listener()));
        io.set_timer(TICK, Duration::from_millis(1));
    }

    fn on_datagram(&self, io: &mut DatagramIo<'_>, from: &DatagramPeer, bytes: &[u8]) {
        io.count(0, 1);
        *self.last.lock().unwrap() = Some(*from);
        let (word, rest) = bytes.split_at(bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len()));
        match word {
            b"panic" => panic!("as ordered"),
            b"tell" => self.tell(&from.to_string()),
            b"many" => (0..2000).for_each(|_| io.reply(&[b'm'; 1000])),
            b"timer" => {
                io.set_timer(TimerToken(2), Duration::from_secs(600));
                io.set_timer(TimerToken(2), Duration::from_millis(2));
                io.set_timer(TimerToken(3), Duration::from_millis(1));
                io.cancel_timer(TimerToken(3));
            }
            _ => io.reply(if word == b"echo" { &rest[1..] } else { bytes }),
        }
    }

    fn on_timer(&self, io: &mut DatagramIo<'_>, timer: TimerToken) {
        self.tell(&format!("timer {}", timer.0));
        if let (2, Some(peer)) = (timer.0, *self.last.lock().unwrap()) {
            io.send_to(&peer, b"late");
        }
        // Nobody to answer.
        io.reply(b"nobody");
    }

    fn on_retire(&self, io: &mut DatagramIo<'_>) {
        assert!(io.retiring());
        if let Some(peer) = *self.last.lock().unwrap() {
            io.send_to(&peer, b"goodbye");
        }
        self.tell("retire");
    }

    fn limits(&self) -> DatagramLimits {
        self.limits
    }
}

impl Puppet {
    fn tell(&self, what: &str) {
        // The test may have seen enough.
        let _ = self.seen.lock().unwrap().send(what.to_owned());
    }
}

/// A loop with a puppet, which is stopped when it is dropped.
struct Server {
    running: Option<Running>,
    metrics: ProcessMetrics,
    seen: Receiver<String>,
}

impl Server {
    fn new(config: EngineConfig, sockets: impl Into<Sockets>) -> Self {
        Self::with(config, sockets, DatagramLimits::default(), |builder| builder)
    }

    fn with(
        config: EngineConfig,
        sockets: impl Into<Sockets>,
        limits: DatagramLimits,
        more: impl FnOnce(LoopBuilder) -> LoopBuilder,
    ) -> Self {
        prepare_the_process();
        let (sender, seen) = channel();
        let puppet = Puppet { limits, seen: Mutex::new(sender), last: Mutex::default() };
        let metrics = Metrics::on_heap(2).process(0);
        let builder = LoopBuilder::new(config).listen_datagrams("puppet", sockets, || Ok(puppet));
        let running = more(builder.metrics(metrics.clone())).spawn().unwrap();
        Self { running: Some(running), metrics, seen }
    }

    fn udp(config: EngineConfig) -> (Self, SocketAddr) {
        let (socket, address) = udp();
        (Self::new(config, socket), address)
    }

    fn count(&self, word: ListenerWord) -> u64 {
        self.metrics.listener(0).get(word)
    }

    /// Waits until the puppet has told this.
    fn expect(&self, what: &str) {
        while self.seen.recv_timeout(PATIENCE).expect(what) != what {}
    }

    fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    fn join(&mut self) {
        self.running.take().unwrap().join().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            let ended = running.join();
            assert!(std::thread::panicking() || ended.is_ok(), "{ended:?}");
        }
    }
}

fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn client(to: SocketAddr) -> UdpSocket {
    let (socket, _) = udp();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn ask(client: &UdpSocket, bytes: &[u8]) -> Vec<u8> {
    client.send(bytes).unwrap();
    answer(client)
}

fn answer(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 66_000];
    let len = client.recv(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

fn answers_come_back_whole_and_in_order(config: EngineConfig) {
    let (server, address) = Server::udp(config);
    let clients: Vec<_> = (0..5).map(|_| client(address)).collect();
    for round in 0..20u8 {
        for (number, client) in (0u8..).zip(&clients) {
            (0..4).for_each(|n| assert_eq!(client.send(&[round, number, n]).unwrap(), 3));
        }
        for (number, client) in (0u8..).zip(&clients) {
            (0..4).for_each(|n| assert_eq!(answer(client), [round, number, n]));
        }
    }
    assert_eq!(server.count(ListenerWord::DatagramsIn), 400);
    until(|| server.count(ListenerWord::DatagramsOut) == 400);
    assert_eq!(server.count(ListenerWord::BytesIn), 1200);
    assert_eq!(server.count(ListenerWord::BytesOut), 1200);
    assert_eq!(server.metrics.listener(0).service(0), 400);
}

fn every_size_from_nothing_to_the_largest(config: EngineConfig) {
    let (server, address) = Server::udp(config);
    let client = client(address);
    for len in [0, 1, 511, 512, 1472, 1473, 9000, 65_000, 65_507] {
        let sent = pattern(len);
        assert!(ask(&client, &sent) == sent, "{len}");
    }
    assert_eq!(server.count(ListenerWord::DatagramsTruncated), 0);
}

fn a_panic_costs_its_datagram_alone(config: EngineConfig) {
    let (server, address) = Server::udp(config);
    let client = client(address);
    for word in ["panic", "a", "panic", "panic", "b"] {
        client.send(word.as_bytes()).unwrap();
    }
    assert_eq!((answer(&client), answer(&client)), (b"a".to_vec(), b"b".to_vec()));
    assert_eq!(server.metrics.get(ProcessWord::Panics), 3);
}

fn timers_and_the_first_callback(config: EngineConfig) {
    let (server, address) = Server::udp(config);
    server.expect("start puppet");
    server.expect("timer 1");
    let client = client(address);
    assert_eq!(ask(&client, b"timer"), b"late");
    let told: Vec<String> = server.seen.try_iter().collect();
    assert!(!told.iter().any(|told| told == "timer 3"), "{told:?}");
    until(|| server.count(ListenerWord::DatagramsDropped) == 2);
}

fn a_flood_keeps_no_connection_waiting(config: EngineConfig) {
    let (socket, address) = udp();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let tcp = listener.local_addr().unwrap();
    let lab = crate::lab::Lab::quiet();
    let server = Server::with(config, socket, DatagramLimits::default(), |builder| {
        builder.listen("lab", listener, || Ok(lab))
    });
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let client = client(address);
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                // Its own queue is full of answers that nobody reads, which is not what is asked here.
                let _ = client.send(&[0; 200]);
            }
        });
        // The flood has begun.
        until(|| server.count(ListenerWord::DatagramsIn) > 1000);
        let mut connected = crate::support::Client::new(tcp);
        (0..50).for_each(|_| connected.round_trip());
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

fn unix_sockets_with_and_without_names(config: EngineConfig) {
    let folder = tempfile::tempdir().unwrap();
    let (path, own) = (folder.path().join("server"), folder.path().join("client"));
    let server = Server::new(config, UnixDatagram::bind(&path).unwrap());
    // Whose answer to nobody is dropped, too.
    server.expect("timer 1");
    until(|| server.count(ListenerWord::DatagramsDropped) == 1);
    let (named, unnamed) = (UnixDatagram::bind(&own).unwrap(), UnixDatagram::unbound().unwrap());
    named.set_read_timeout(Some(PATIENCE)).unwrap();
    named.send_to(b"hello", &path).unwrap();
    let mut buffer = [0; 100];
    assert_eq!(named.recv(&mut buffer).unwrap(), 5);
    named.send_to(b"tell", &path).unwrap();
    server.expect(&format!("unix:{}", own.display()));
    unnamed.send_to(b"tell", &path).unwrap();
    server.expect("unix");
    let dropped = server.count(ListenerWord::DatagramsDropped);
    unnamed.send_to(b"nobody can be answered", &path).unwrap();
    until(|| server.count(ListenerWord::DatagramsDropped) == dropped + 1);
    // More than is received of one.
    sockopt::set_socket_send_buffer_size(&named, 400_000).unwrap();
    named.send_to(&vec![0; 70_000], &path).unwrap();
    until(|| server.count(ListenerWord::DatagramsTruncated) == 1);
    // A peer that does not read keeps nobody else from being answered.
    let deaf = UnixDatagram::bind(folder.path().join("deaf")).unwrap();
    for _ in 0..2000 {
        deaf.send_to(b"x", &path).unwrap();
    }
    named.send_to(b"still", &path).unwrap();
    assert_eq!(named.recv(&mut buffer).unwrap(), 5);
    assert!(server.count(ListenerWord::DatagramsDropped) > dropped + 1);
}

fn retiring_handles_what_has_come_and_says_goodbye(config: EngineConfig) {
    let (socket, address) = udp();
    let twin = socket.try_clone().unwrap();
    let mut server =
        Server::with(config, Sockets::from(vec![Socket::own(socket)]), DatagramLimits::default(), |b| b);
    let client = client(address);
    assert_eq!(ask(&client, b"one"), b"one");
    (0..100u8).for_each(|n| assert_eq!(client.send(&[n]).unwrap(), 1));
    server.running().quit(PATIENCE);
    server.join();
    (0..100u8).for_each(|n| assert_eq!(answer(&client), [n]));
    assert_eq!(answer(&client), b"goodbye");
    // The socket lives on with whoever has it, and nobody takes anything from it.
    client.send(b"later").unwrap();
    twin.set_nonblocking(false).unwrap();
    twin.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(twin.recv(&mut [0; 10]).unwrap(), 5);
}

fn sockets_come_and_go(config: EngineConfig) {
    let (server, _) = Server::udp(config);
    let (socket, address) = udp();
    let handle = server.running().handle();
    handle.adopt(7, 0, Socket::own(socket.try_clone().unwrap()));
    let client = client(address);
    assert_eq!(ask(&client, b"one"), b"one");
    client.send(b"two").unwrap();
    handle.release(7);
    assert_eq!(answer(&client), b"two");
    until(|| {
        // From now on it is the test that hears what comes.
        client.send(b"?").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.recv(&mut [0; 10]).is_ok()
    });
    handle.adopt(8, 0, Socket::own(socket));
    until(|| {
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        client.send(b"three").unwrap();
        let mut buffer = [0; 10];
        client.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == b"three")
    });
}

fn paused_sockets_keep_what_comes(config: EngineConfig) {
    let (server, address) = Server::udp(config);
    let client = client(address);
    assert_eq!(ask(&client, b"one"), b"one");
    let handle = server.running().handle();
    handle.pause(Some(0));
    // An order that is answered, so that the one before it has been carried out.
    handle.connections_page(None, 1, PATIENCE).unwrap();
    let before = server.count(ListenerWord::DatagramsIn);
    client.send(b"two").unwrap();
    handle.connections_page(None, 1, PATIENCE).unwrap();
    assert_eq!(server.count(ListenerWord::DatagramsIn), before);
    handle.resume(None);
    assert_eq!(answer(&client), b"two");
}

fn what_is_too_much_is_dropped_and_counted(config: EngineConfig) {
    let (socket, address) = udp();
    let limits = DatagramLimits { max_queued_bytes: 64 << 10 };
    let server = Server::with(config, socket, limits, |builder| builder);
    let client = client(address);
    let before = || server.count(ListenerWord::DatagramsDropped);
    // A callback that sends more than may wait: the first ones come, the rest is counted.
    client.send(b"many").unwrap();
    until(|| server.count(ListenerWord::DatagramsOut) + before() >= 2000);
    assert_eq!(answer(&client), [b'm'; 1000]);
    let out = server.count(ListenerWord::DatagramsOut);
    assert!((60..=62).contains(&out), "{out}");
}

fn several_loops_share_one_socket(config: EngineConfig) {
    let (socket, address) = udp();
    let servers: Vec<_> =
        (0..3).map(|_| Server::new(config, Socket::shared(socket.try_clone().unwrap()))).collect();
    drop(socket);
    let clients: Vec<_> = (0..20).map(|_| client(address)).collect();
    for n in 0..10u8 {
        clients.iter().for_each(|client| assert_eq!(client.send(&[n]).unwrap(), 1));
        clients.iter().for_each(|client| assert_eq!(answer(client), [n]));
    }
    let handled: u64 = servers.iter().map(|server| server.count(ListenerWord::DatagramsIn)).sum();
    assert_eq!(handled, 200);
}

#[test]
fn a_socket_of_the_wrong_kind_is_refused() {
    let (udp, _) = udp();
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let builder = || LoopBuilder::new(EngineConfig::default());
    let puppet = || {
        let seen = Mutex::new(channel().0);
        Ok(Puppet { limits: DatagramLimits::default(), seen, last: Mutex::default() })
    };
    assert!(builder().listen_datagrams("puppet", tcp, puppet).build().is_err());
    assert!(builder().listen("lab", udp, || Ok(crate::lab::Lab::quiet())).build().is_err());
}
