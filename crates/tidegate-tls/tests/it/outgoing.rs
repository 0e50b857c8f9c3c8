//! Connections that a loop makes over TLS: what is agreed upon, whom it trusts, and what becomes of those that fail.
//!
//! Each wish ends in exactly one of an open connection and a failure, whatever the peer does in its handshake; the books of the
//! loop, which are checked at the end of each case, say so too.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, Error as RustlsError, ServerConfig, ServerConnection, StreamOwned};
use tidegate_engine::{
    BoxedService, ClientLayer, Closed, ConnHandle, ConnState, Connect, ConnectFailed, ConnectFailure,
    Decoded, EngineConfig, Flow, Io, ListenerMetrics, ListenerWord, LoopBuilder, LoopHandle, Metrics, Peer,
    Phase, Reason, Refusal, Running, Security, Service, UpstreamConfig,
};
use tidegate_tls::{Roots, Tls, TlsClient, TlsClientBuilder, Version};

use crate::support::{PATIENCE, check_the_books, pattern, prepare_the_process, until};

under_each_model!(
    both_sides_talk_and_the_service_is_told_how_it_is_secured,
    the_wish_s_own_name_comes_before_the_layer_s,
    a_server_that_is_not_trusted_is_refused_and_both_are_told_why,
    whoever_asks_for_it_trusts_anybody,
    an_answer_may_come_byte_by_byte_and_with_what_follows_in_one_piece,
    much_goes_both_ways_at_once,
    sessions_go_on_in_the_next_connection,
    a_peer_that_speaks_no_tls_or_goes_away_is_a_failure,
    a_peer_that_says_no_more_is_given_up_in_time,
    a_handshake_ends_with_the_loop_or_by_its_operator,
    a_record_that_was_changed_ends_the_connection,
    a_storm_of_good_and_bad_peers_ends_with_one_outcome_for_each,
    an_upstream_is_made_again,
    a_tie_passes_on_what_either_side_sends,
);

/// What the client's service saw.
#[derive(Debug)]
enum Seen {
    Opened(Option<Security>),
    Note(&'static str, ConnHandle<&'static str>),
    Failed(ConnectFailed<&'static str>),
    Got(Vec<u8>),
    Eof,
    Closed(Closed),
}

/// Sends what it is posted, and tells what it sees.
struct Caller {
    seen: Sender<Seen>,
}

impl Caller {
    fn tell(&self, seen: Seen) {
        // A case may have seen enough.
        let _ = self.seen.send(seen);
    }
}

impl Service for Caller {
    type Session = ();
    type Head = ();
    type Note = &'static str;

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        self.tell(Seen::Opened(io.security().cloned()));
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), bytes: &[u8]) -> Flow {
        assert!(io.security().is_some(), "it was secured when it was opened");
        self.tell(Seen::Got(bytes.to_vec()));
        Flow::Continue
    }

    fn on_note(&self, io: &mut Io<'_>, (): &mut (), note: &'static str) -> Flow {
        self.tell(Seen::Note(note, io.handle()));
        io.send(note.as_bytes());
        if note == "bye" { Flow::CloseAfterFlush(Reason::DONE) } else { Flow::Continue }
    }

    fn on_eof(&self, _: &mut Io<'_>, (): &mut ()) -> Flow {
        self.tell(Seen::Eof);
        Flow::CloseAfterFlush(Reason::PEER_CLOSED)
    }

    fn on_connect_failed(&self, failed: ConnectFailed<&'static str>) {
        self.tell(Seen::Failed(failed));
    }

    fn on_close(&self, (): (), closed: &Closed) {
        self.tell(Seen::Closed(*closed));
    }
}

/// A loop with a client over TLS. When it is dropped it is stopped, and its books must balance.
struct Bench {
    running: Option<Running>,
    handle: LoopHandle,
    metrics: ListenerMetrics,
    seen: Receiver<Seen>,
}

impl Bench {
    fn new(config: EngineConfig, tls: TlsClientBuilder) -> Self {
        prepare_the_process();
        let (seen_by, seen) = channel();
        let metrics = Metrics::on_heap(1).process(0);
        let service = BoxedService::new(Caller { seen: seen_by }).client_layer(layer(tls));
        let builder = LoopBuilder::new(config).client_boxed("caller", Ok(service));
        let running = builder.metrics(metrics.clone()).spawn().unwrap();
        let handle = running.handle();
        Self { running: Some(running), handle, metrics: metrics.listener(0), seen }
    }

    fn connect(&self, to: SocketAddr, note: &'static str) {
        self.ask(Connect::to(to), note);
    }

    fn ask(&self, connect: Connect, note: &'static str) {
        self.handle.connect("caller", connect, note).unwrap();
    }

    fn see(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("what the test waits for was not seen")
    }

    fn expect_open(&self, note: &str) -> (Security, ConnHandle<&'static str>) {
        let opened = self.see();
        let Seen::Opened(Some(security)) = opened else { panic!("{opened:?}") };
        match self.see() {
            Seen::Note(got, handle) if got == note => (security, handle),
            other => panic!("{other:?}"),
        }
    }

    fn expect_failure(&self) -> ConnectFailed<&'static str> {
        match self.see() {
            Seen::Failed(failed) => failed,
            other => panic!("{other:?}"),
        }
    }

    /// How the handshake failed.
    fn expect_refusal(&self) -> String {
        match self.expect_failure().error {
            ConnectFailure::Handshake(error) => error.0,
            other => panic!("{other:?}"),
        }
    }

    fn expect_close(&self, reason: Reason) -> Closed {
        match self.see() {
            Seen::Closed(closed) if closed.reason == reason => closed,
            other => panic!("{other:?}"),
        }
    }

    fn hear(&self, text: &[u8]) {
        let mut heard = Vec::new();
        while heard.len() < text.len() {
            match self.see() {
                Seen::Got(bytes) => heard.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
        assert!(heard == text, "{} bytes were heard, and other ones", heard.len());
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(running) = self.running.take() {
            running.stop();
            running.join().unwrap();
        }
        check_the_books(&self.metrics);
        assert_eq!(self.handle.connections(), 0, "connections that are counted after the end");
    }
}

fn layer(tls: TlsClientBuilder) -> Arc<dyn ClientLayer> {
    Arc::new(tls.build().unwrap())
}

/// A server's certificate, by another's hand than Tidegate's.
struct Host {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    roots: Roots,
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

impl Host {
    fn new(names: &[&str]) -> Self {
        Self::of(
            &rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
                .unwrap(),
        )
    }

    /// With another issuer than the others have.
    fn named(common: &str, names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        Self::of(&params)
    }

    fn of(params: &rcgen::CertificateParams) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let (certificate, key) = (own.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let roots = Roots::from_pem(own.pem().as_bytes()).unwrap();
        let config = config_of(&certificate, &key, |_| {});
        Self { listener, config, roots, certificate, key }
    }

    fn localhost() -> Self {
        Self::new(&["localhost", "127.0.0.1"])
    }

    fn with(mut self, change: impl FnOnce(&mut ServerConfig)) -> Self {
        self.config = config_of(&self.certificate, &self.key, change);
        self
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// What trusts this one.
    fn client(&self) -> TlsClientBuilder {
        TlsClient::builder().roots(self.roots.clone()).server_name("localhost")
    }

    fn accept_raw(&self) -> TcpStream {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn session(&self) -> ServerConnection {
        ServerConnection::new(Arc::clone(&self.config)).unwrap()
    }

    /// With the handshake still to be done, which happens with the first reading or writing.
    fn accept(&self) -> Stream {
        StreamOwned::new(self.session(), self.accept_raw())
    }
}

fn config_of(
    certificate: &CertificateDer<'static>,
    key: &PrivateKeyDer<'static>,
    change: impl FnOnce(&mut ServerConfig),
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config =
        builder.with_no_client_auth().with_single_cert(vec![certificate.clone()], key.clone_key()).unwrap();
    change(&mut config);
    Arc::new(config)
}

fn read(stream: &mut Stream, n: usize) -> Vec<u8> {
    let mut got = vec![0; n];
    stream.read_exact(&mut got).unwrap();
    got
}

/// Tells the end, and waits for the other's.
fn end(stream: &mut Stream) {
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the end is told in the words of TLS");
    assert_eq!(rest, b"");
}

fn both_sides_talk_and_the_service_is_told_how_it_is_secured(config: EngineConfig) {
    let host =
        Host::localhost().with(|config| config.alpn_protocols = vec![b"other".to_vec(), b"echo".to_vec()]);
    for (version, protocol, cipher) in [
        (Version::Tls13, "TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        (Version::Tls12, "TLSv1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
    ] {
        let bench = Bench::new(config, host.client().alpn(["echo"]).only_version(version).ciphers([cipher]));
        bench.connect(host.address(), "ping");
        let mut peer = host.accept();
        assert_eq!(read(&mut peer, 4), b"ping");
        assert_eq!(peer.conn.server_name(), Some("localhost"));
        let (security, handle) = bench.expect_open("ping");
        assert_eq!(
            security,
            Security {
                protocol,
                cipher,
                alpn: Some(b"echo"[..].into()),
                server_name: Some("localhost".into()),
                resumed: false
            }
        );
        peer.write_all(b"pong").unwrap();
        bench.hear(b"pong");
        handle.send(*b" and more").unwrap();
        assert_eq!(read(&mut peer, 9), b" and more");
        end(&mut peer);
        assert!(matches!(bench.see(), Seen::Eof));
        bench.expect_close(Reason::PEER_CLOSED);
        assert_eq!(bench.metrics.get(ListenerWord::Handshakes), 1);
        // The other way round: the end is the client's.
        bench.connect(host.address(), "bye");
        let mut peer = host.accept();
        assert_eq!(read(&mut peer, 3), b"bye");
        end(&mut peer);
        bench.expect_open("bye");
        bench.expect_close(Reason::DONE);
    }
}

fn the_wish_s_own_name_comes_before_the_layer_s(config: EngineConfig) {
    let host = Host::new(&["a.example", "127.0.0.1"]);
    let bench = Bench::new(config, host.client());
    bench.ask(Connect::to(host.address()).server_name("a.example"), "hello");
    let mut peer = host.accept();
    assert_eq!(read(&mut peer, 5), b"hello");
    assert_eq!(peer.conn.server_name(), Some("a.example"));
    bench.expect_open("hello");
    // The layer's own is none of this server's.
    bench.connect(host.address(), "wrong");
    let mut peer = host.accept();
    assert!(peer.conn.complete_io(&mut peer.sock).is_err());
    assert!(bench.expect_refusal().ends_with("it is for a.example, 127.0.0.1, and not for localhost"));
    // Without either, the address is checked, and nobody is asked for.
    let nameless = Bench::new(config, TlsClient::builder().roots(host.roots.clone()));
    nameless.connect(host.address(), "hello");
    let mut peer = host.accept();
    assert_eq!(read(&mut peer, 5), b"hello");
    assert_eq!(peer.conn.server_name(), None);
    nameless.expect_open("hello");
}

fn a_server_that_is_not_trusted_is_refused_and_both_are_told_why(config: EngineConfig) {
    let mut old = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    (old.not_before, old.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    let mut early = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    (early.not_before, early.not_after) =
        (rcgen::date_time_ymd(4000, 1, 1), rcgen::date_time_ymd(4001, 1, 1));
    let mut authority = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = Host::of(&authority);
    let (host, renewed) = (Host::localhost(), Host::localhost());
    let stranger = Host::named("stranger", &["localhost"]);
    let trusted = |host: &Host| host.client().advice("ask somebody");
    let (other, old, early) = (Host::new(&["b.example"]), Host::of(&old), Host::of(&early));
    for (host, tls, why, alert) in [
        (&host, trusted(&stranger), "it is signed by itself, or by an issuer", AlertDescription::UnknownCA),
        (&renewed, trusted(&host), "the root of that name has another key; ", AlertDescription::DecryptError),
        (
            &other,
            trusted(&other),
            "it is for b.example, and not for localhost",
            AlertDescription::BadCertificate,
        ),
        (&old, trusted(&old), "it expired ", AlertDescription::CertificateExpired),
        (&early, trusted(&early), "it is not valid for another ", AlertDescription::CertificateExpired),
        (
            &authority,
            trusted(&authority),
            "it is one of an authority (CA:TRUE)",
            AlertDescription::CertificateUnknown,
        ),
    ] {
        for version in [Version::Tls13, Version::Tls12] {
            let bench = Bench::new(config, tls.clone().only_version(version));
            bench.connect(host.address(), "in vain");
            let mut peer = host.accept();
            let told = peer.conn.complete_io(&mut peer.sock).unwrap_err();
            let told = told.get_ref().and_then(|error| error.downcast_ref::<RustlsError>());
            assert_eq!(told, Some(&RustlsError::AlertReceived(alert)));
            let failed = bench.expect_failure();
            assert_eq!(failed.note, Some("in vain"));
            let text = failed.error.to_string();
            let whole = "the handshake failed: the server's certificate is not trusted: ";
            assert!(text.starts_with(&format!("{whole}{why}")) && text.ends_with("; ask somebody"), "{text}");
            assert_eq!(bench.metrics.get(ListenerWord::ConnectFailures), 1);
            assert_eq!(bench.metrics.get(ListenerWord::Handshakes), 0);
        }
    }
}

fn whoever_asks_for_it_trusts_anybody(config: EngineConfig) {
    let host = Host::new(&["b.example"]);
    for version in [Version::Tls13, Version::Tls12] {
        let tls = TlsClient::builder().insecure().server_name("localhost").only_version(version);
        let bench = Bench::new(config, tls);
        bench.connect(host.address(), "hello");
        assert_eq!(read(&mut host.accept(), 5), b"hello");
        bench.expect_open("hello");
    }
}

fn an_answer_may_come_byte_by_byte_and_with_what_follows_in_one_piece(config: EngineConfig) {
    let host = Host::localhost();
    let bench = Bench::new(config, host.client());
    for byte_by_byte in [true, false] {
        bench.connect(host.address(), "hello");
        let (mut stream, mut tls) = (host.accept_raw(), host.session());
        // The server may send before it has heard the end of the handshake: its text stands in the piece with its certificate.
        while tls.is_handshaking() {
            tls.read_tls(&mut stream).unwrap();
            tls.process_new_packets().unwrap();
            let mut sealed = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut sealed).unwrap();
            }
            let size = if byte_by_byte { 1 } else { sealed.len().max(1) };
            sealed.chunks(size).for_each(|piece| stream.write_all(piece).unwrap());
        }
        tls.writer().write_all(b"what follows").unwrap();
        let mut sealed = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut sealed).unwrap();
        }
        let size = if byte_by_byte { 1 } else { sealed.len() };
        sealed.chunks(size).for_each(|piece| stream.write_all(piece).unwrap());
        bench.expect_open("hello");
        bench.hear(b"what follows");
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        bench.expect_close(Reason::PEER_RESET);
    }
}

fn much_goes_both_ways_at_once(config: EngineConfig) {
    let host = Host::localhost();
    let bench = Bench::new(config, host.client());
    bench.connect(host.address(), "go");
    let text = pattern(1_000_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = host.accept();
            assert_eq!(read(&mut peer, 2), b"go");
            let mut at = 0;
            while at < text.len() {
                // An echo, so that both directions are under way at once.
                let mut piece = vec![0; 20_000.min(text.len() - at)];
                peer.read_exact(&mut piece).unwrap();
                peer.write_all(&piece).unwrap();
                at += piece.len();
            }
            end(&mut peer);
        });
        let (_, handle) = bench.expect_open("go");
        text.chunks(70_000).for_each(|piece| handle.send(piece).unwrap());
        bench.hear(&text);
        assert!(matches!(bench.see(), Seen::Eof));
        bench.expect_close(Reason::PEER_CLOSED);
    });
}

fn sessions_go_on_in_the_next_connection(config: EngineConfig) {
    let host = Host::localhost();
    for version in [Version::Tls13, Version::Tls12] {
        for (tls, resumed) in [
            (host.client().only_version(version), [false, true]),
            (host.client().only_version(version).without_resumption(), [false, false]),
        ] {
            let bench = Bench::new(config, tls);
            for resumed in resumed {
                bench.connect(host.address(), "hello");
                let mut peer = host.accept();
                assert_eq!(read(&mut peer, 5), b"hello");
                let (security, _) = bench.expect_open("hello");
                assert_eq!(security.resumed, resumed);
                // What is heard now came behind the tickets.
                peer.write_all(b"hello").unwrap();
                bench.hear(b"hello");
                end(&mut peer);
                assert!(matches!(bench.see(), Seen::Eof));
                bench.expect_close(Reason::PEER_CLOSED);
            }
            let counted = bench.metrics.get(ListenerWord::HandshakesResumed);
            assert_eq!(counted, u64::from(resumed[1]));
        }
    }
}

fn a_peer_that_speaks_no_tls_or_goes_away_is_a_failure(config: EngineConfig) {
    let host = Host::localhost();
    let bench = Bench::new(config, host.client());
    // What a web server answers whom nobody told of TLS.
    bench.connect(host.address(), "to http");
    let mut peer = host.accept_raw();
    assert!(peer.read(&mut [0; 4096]).unwrap() > 0, "the client speaks first");
    peer.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
    let text = bench.expect_refusal();
    assert!(text.contains("received corrupt message"), "{text}");
    bench.connect(host.address(), "to nobody");
    let mut peer = host.accept_raw();
    assert!(peer.read(&mut [0; 4096]).unwrap() > 0);
    drop(peer);
    assert_eq!(bench.expect_refusal(), "the peer closed the connection in the midst of it");
    bench.connect(host.address(), "to a reset");
    let mut peer = host.accept_raw();
    assert!(peer.read(&mut [0; 4096]).unwrap() > 0);
    sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(bench.expect_refusal(), "Connection reset by peer (os error 104)");
    assert_eq!(bench.metrics.get(ListenerWord::ConnectFailures), 3);
}

fn a_peer_that_says_no_more_is_given_up_in_time(config: EngineConfig) {
    let host = Host::localhost();
    let bench = Bench::new(config, host.client());
    let deadline = Duration::from_millis(50);
    bench.ask(Connect::to(host.address()).deadline(deadline), "in vain");
    let mut peer = host.accept_raw();
    assert_eq!(bench.expect_failure().error, ConnectFailure::Deadline(deadline));
    let mut told = Vec::new();
    peer.read_to_end(&mut told).unwrap();
    assert_eq!(told.first(), Some(&22), "it had said hello");
    // Nor does it help to go on slowly.
    bench.ask(Connect::to(host.address()).deadline(deadline), "in vain");
    let mut peer = host.accept_raw();
    peer.write_all(&[22, 3, 3, 0, 100]).unwrap();
    while peer.write_all(&[2]).is_ok() {
        // The pace of the peer, not a wait for anything.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(bench.expect_failure().error, ConnectFailure::Deadline(deadline));
}

fn a_handshake_ends_with_the_loop_or_by_its_operator(config: EngineConfig) {
    let host = Host::localhost();
    let mut bench = Bench::new(config, host.client());
    bench.connect(host.address(), "closed");
    let mut peer = host.accept_raw();
    assert!(peer.read(&mut [0; 4096]).unwrap() > 0);
    let page = bench.handle.connections_page(None, 10, PATIENCE).unwrap();
    assert_eq!(page[0].state, ConnState::Handshaking);
    bench.handle.close(page[0].id, Reason::OPERATOR).unwrap();
    assert_eq!(bench.expect_failure().error, ConnectFailure::Closed(Reason::OPERATOR));
    bench.connect(host.address(), "stopped");
    let mut peer = host.accept_raw();
    assert!(peer.read(&mut [0; 4096]).unwrap() > 0);
    let running = bench.running.take().unwrap();
    running.stop();
    running.join().unwrap();
    assert_eq!(bench.expect_failure().error, ConnectFailure::Stopped);
}

fn a_record_that_was_changed_ends_the_connection(config: EngineConfig) {
    let host = Host::localhost();
    let bench = Bench::new(config, host.client());
    bench.connect(host.address(), "hello");
    let mut peer = host.accept();
    assert_eq!(read(&mut peer, 5), b"hello");
    bench.expect_open("hello");
    peer.conn.writer().write_all(b"something").unwrap();
    let mut sealed = Vec::new();
    while peer.conn.wants_write() {
        peer.conn.write_tls(&mut sealed).unwrap();
    }
    *sealed.last_mut().unwrap() ^= 1;
    peer.sock.write_all(&sealed).unwrap();
    let told = peer.read(&mut [0; 1]).unwrap_err();
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
    drop(peer);
    bench.expect_close(Reason::TLS_FAILED);
}

fn a_storm_of_good_and_bad_peers_ends_with_one_outcome_for_each(config: EngineConfig) {
    const EACH: usize = 40;
    let (host, stranger) = (Host::localhost(), Host::named("stranger", &["localhost"]));
    let bench = Bench::new(config, host.client());
    let rude = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let rude_address = rude.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..EACH {
                drop(rude.accept().unwrap());
            }
        });
        for host in [&host, &stranger] {
            scope.spawn(move || {
                for _ in 0..EACH {
                    let mut peer = host.accept();
                    // Of those that are not trusted nothing comes.
                    let _ = peer.read(&mut [0; 4]);
                }
            });
        }
        for _ in 0..EACH {
            bench.connect(host.address(), "good");
            bench.connect(stranger.address(), "stranger");
            bench.connect(rude_address, "rude");
        }
        let (mut opened, mut refused) = (0, 0);
        let mut closed = 0;
        while opened + refused < 3 * EACH || closed < EACH {
            match bench.see() {
                Seen::Note("good", _) => opened += 1,
                Seen::Failed(failed) => {
                    assert!(matches!(failed.error, ConnectFailure::Handshake(_)), "{failed:?}");
                    assert!(matches!(failed.note, Some("stranger" | "rude")), "{failed:?}");
                    refused += 1;
                }
                Seen::Opened(..) | Seen::Eof => {}
                Seen::Closed(_) => closed += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((opened, refused), (EACH, 2 * EACH));
    });
    assert_eq!(bench.metrics.get(ListenerWord::Connects), 3 * EACH as u64);
    assert_eq!(bench.metrics.get(ListenerWord::ConnectFailures), 2 * EACH as u64);
}

fn an_upstream_is_made_again(config: EngineConfig) {
    prepare_the_process();
    let host = Host::localhost();
    let (seen_by, seen) = channel();
    let metrics = Metrics::on_heap(1).process(0);
    let service = BoxedService::new(Caller { seen: seen_by }).client_layer(layer(host.client()));
    let builder = LoopBuilder::new(config).metrics(metrics.clone());
    let running =
        builder.upstream_boxed("up", UpstreamConfig::to(host.address()), Ok(service)).spawn().unwrap();
    let upstream = running.handle().upstream::<&'static str>("up").unwrap();
    // One that fails in its handshake is made again, as is one that ends.
    drop(host.accept_raw());
    assert!(matches!(seen.recv_timeout(PATIENCE), Ok(Seen::Failed(_))));
    for _ in 0..2 {
        let mut peer = host.accept();
        peer.conn.complete_io(&mut peer.sock).unwrap();
        until(|| upstream.pick().is_ok_and(|handle| handle.post("hello").is_ok()));
        assert_eq!(read(&mut peer, 5), b"hello");
        end(&mut peer);
    }
    let mut peer = host.accept();
    peer.conn.complete_io(&mut peer.sock).unwrap();
    until(|| upstream.open() == 1);
    running.stop();
    running.join().unwrap();
    check_the_books(&metrics.listener(0));
    assert_eq!(metrics.listener(0).get(ListenerWord::Handshakes), 3);
}

/// The near side of a relay: asks for the far one, and is tied to it.
struct Near(SocketAddr);

impl Service for Near {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        io.pause();
        let me: ConnHandle<()> = io.handle();
        io.connect("far", Connect::to(self.0), me).map_err(|_| Reason::REFUSED.into())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Need { phase: Phase::Idle, at_least: input.len() + 1 }
    }

    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        Flow::Continue
    }
}

struct Far;

impl Service for Far {
    type Session = ();
    type Head = ();
    type Note = ConnHandle<()>;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Need { phase: Phase::Idle, at_least: input.len() + 1 }
    }

    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn on_note(&self, io: &mut Io<'_>, (): &mut (), near: ConnHandle<()>) -> Flow {
        io.tie(&near).unwrap();
        Flow::Continue
    }
}

fn a_tie_passes_on_what_either_side_sends(config: EngineConfig) {
    prepare_the_process();
    let host = Host::localhost();
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let metrics = Metrics::on_heap(2).process(0);
    let far = BoxedService::new(Far).client_layer(layer(host.client()));
    let to = host.address();
    let builder = LoopBuilder::new(config).metrics(metrics.clone()).listen("near", socket, || Ok(Near(to)));
    let running = builder.client_boxed("far", Ok(far)).spawn().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut peer = host.accept();
    let text = pattern(500_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(read(&mut peer, text.len()) == text);
            peer.write_all(&text).unwrap();
            end(&mut peer);
        });
        client.write_all(&text).unwrap();
        let mut back = vec![0; text.len()];
        client.read_exact(&mut back).unwrap();
        assert!(back == text);
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the end is passed on");
        drop(client);
    });
    until(|| (0..2).all(|site| metrics.listener(site).get(ListenerWord::Open) == 0));
    running.stop();
    running.join().unwrap();
    (0..2).for_each(|site| check_the_books(&metrics.listener(site)));
}

#[test]
fn a_layer_of_the_other_side_is_refused() {
    let host = Host::localhost();
    let error = |builder: LoopBuilder| builder.build().unwrap_err().to_string();
    let caller = || BoxedService::new(Caller { seen: channel().0 });
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let listener = LoopBuilder::new(EngineConfig::default());
    let listener = listener.listen_boxed("door", socket, Ok(caller().client_layer(layer(host.client()))));
    assert_eq!(error(listener), "listener \"door\": its layer is one for outgoing connections");
    let identity = crate::client::localhost();
    let tls = Tls::builder().certificate(identity.certificate.clone()).build().unwrap();
    let client = LoopBuilder::new(EngineConfig::default());
    let client = client.client_boxed("phone", Ok(caller().layer(Arc::new(tls))));
    assert_eq!(error(client), "client \"phone\": its layer is one for connections that are accepted");
}
