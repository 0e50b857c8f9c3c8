//! Handshakes: what is agreed upon, what is refused, how long one may take, and how many there may be.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tidegate_engine::{
    BoxedService, Decoded, EngineConfig, Flow, Io, Limits, ListenerWord, LoopBuilder, Metrics, Peer,
    ProcessMetrics, Reason, Refusal, Running, Service,
};
use tidegate_tls::{Tls, TlsBuilder, Version};

use crate::client::{Client, Identity, identity, localhost, trusting};
use crate::support::until;

under_each_model!(
    what_was_agreed_upon_is_told_in_every_callback,
    a_handshake_may_come_byte_by_byte_and_with_what_follows_in_one_piece,
    the_certificate_is_that_of_the_name,
    sessions_go_on_in_another_server_with_the_same_secret,
    a_peer_that_speaks_no_tls_is_told_so_and_no_service_knows_of_it,
    a_record_that_was_changed_ends_the_connection,
    a_handshake_that_takes_too_long_is_reset,
    handshakes_beyond_the_limit_wait_for_their_turn,
    a_peer_that_goes_away_in_its_handshake_is_no_failure,
    records_that_no_handshake_has_end_their_connection_alone,
    those_that_wait_in_vain_leave_their_turn_to_others,
    a_record_that_never_becomes_whole_does_not_keep_an_idle_peer,
    what_comes_behind_the_peers_last_word_is_ignored,
    an_end_without_a_word_is_one_but_not_in_the_middle_of_a_record,
);

/// Answers each line with how the connection is secured, and with the line.
#[derive(Default)]
struct Teller {
    /// Another time than usual for idle peers.
    idle: Option<Duration>,
    /// Stays when the peer has ended its side.
    stays: bool,
}

impl Teller {
    fn tell(io: &mut Io<'_>, line: &[u8]) {
        let text = match io.security() {
            None => "in the clear".to_owned(),
            Some(security) => format!(
                "{} {} alpn={} name={} resumed={}",
                security.protocol,
                security.cipher,
                security.alpn.as_deref().map_or("-".into(), String::from_utf8_lossy),
                security.server_name.as_deref().unwrap_or("-"),
                security.resumed,
            ),
        };
        io.send_vectored(&[text.as_bytes(), b" ", line]);
    }
}

impl Service for Teller {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Self::tell(io, b"open\n");
        Ok(())
    }

    fn decode(&self, _: &mut (), input: &[u8]) -> Decoded<()> {
        match input.iter().position(|byte| *byte == b'\n') {
            Some(at) => Decoded::Message { len: at + 1, head: () },
            None => Decoded::Need { phase: tidegate_engine::Phase::Head, at_least: input.len() + 1 },
        }
    }

    fn on_message(&self, io: &mut Io<'_>, _: &mut (), _: (), line: &[u8]) -> Flow {
        Self::tell(io, line);
        Flow::Continue
    }

    fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits { idle_timeout: self.idle.or(usual.idle_timeout), ..usual }
    }

    fn on_eof(&self, io: &mut Io<'_>, _: &mut ()) -> Flow {
        Self::tell(io, b"eof\n");
        if self.stays { Flow::Continue } else { Flow::CloseAfterFlush(Reason::PEER_CLOSED) }
    }
}

/// A loop that serves a [`Teller`].
struct Telling {
    running: Option<Running>,
    address: SocketAddr,
    metrics: ProcessMetrics,
}

impl Telling {
    fn new(config: EngineConfig, builder: TlsBuilder) -> Self {
        Self::serving(config, builder, Teller::default())
    }

    fn idle_after(config: EngineConfig, idle: Duration) -> Self {
        let builder = Tls::builder().certificate(localhost().certificate.clone());
        Self::serving(config, builder, Teller { idle: Some(idle), stays: true })
    }

    fn serving(config: EngineConfig, builder: TlsBuilder, teller: Teller) -> Self {
        crate::support::prepare_the_process();
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let metrics = Metrics::on_heap(1).process(0);
        let service = BoxedService::new(teller).layer(Arc::new(builder.build().unwrap()));
        let builder = LoopBuilder::new(config).metrics(metrics.clone());
        let running = builder.listen_boxed("teller", socket, Ok(service)).spawn().unwrap();
        Self { running: Some(running), address, metrics }
    }

    fn plain(config: EngineConfig) -> Self {
        Self::new(config, Tls::builder().certificate(localhost().certificate.clone()))
    }

    fn client(&self, config: &Arc<ClientConfig>, name: &str) -> Client {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tls = ClientConnection::new(Arc::clone(config), name).unwrap();
        Client::with(TcpStream::connect(self.address).unwrap(), tls)
    }

    fn raw(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        stream
    }

    fn closed(&self, reason: Reason) -> u64 {
        self.metrics.listener(0).closed(reason)
    }

    fn count(&self, word: ListenerWord) -> u64 {
        self.metrics.listener(0).get(word)
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(running) = self.running.take()
            && !std::thread::panicking()
        {
            running.stop();
            running.join().unwrap();
            crate::support::check_the_books(&self.metrics.listener(0));
        }
    }
}

fn what_was_agreed_upon_is_told_in_every_callback(config: EngineConfig) {
    let tls = || Tls::builder().certificate(localhost().certificate.clone());
    let server = Telling::new(config, tls().alpn(["h9", "http/1.1"]));
    let mut client = trusting(&[localhost().der.clone()]);
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut client = server.client(&Arc::new(client), "LOCALHOST");
    let secured = "TLSv1.3 TLS_AES_256_GCM_SHA384 alpn=http/1.1 name=localhost resumed=false";
    client.expect(&format!("{secured} open"));
    client.send("first\nsecond\n");
    client.expect(&format!("{secured} first"));
    client.expect(&format!("{secured} second"));
    client.end_input();
    assert_eq!(client.rest(), format!("{secured} eof\n").as_bytes());
    drop(client);
    assert_eq!(server.count(ListenerWord::Handshakes), 1);
    assert_eq!(server.count(ListenerWord::HandshakesResumed), 0);
    // The older version, without a word about what is above; and one that is refused.
    let mut older = trusting(&[localhost().der.clone()]);
    older = with_versions(&older, &[&rustls::version::TLS12]);
    let older = Arc::new(older);
    let mut client = server.client(&older, "localhost");
    client.expect("TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 alpn=- name=localhost resumed=false open");
    client.send("x\n");
    assert!(client.line().ends_with(" x"));
    let newer = Telling::new(config, tls().min_version(Version::Tls13));
    let name = ServerName::try_from("localhost").unwrap();
    let mut refused = ClientConnection::new(older, name).unwrap();
    refused.complete_io(&mut newer.raw()).unwrap_err();
    until(|| newer.closed(Reason::TLS_FAILED) == 1);
}

/// The same roots, with other versions.
fn with_versions(_: &ClientConfig, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(localhost().der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

fn a_handshake_may_come_byte_by_byte_and_with_what_follows_in_one_piece(config: EngineConfig) {
    let server = Telling::plain(config);
    for byte_by_byte in [true, false] {
        let client = Arc::new(trusting(&[localhost().der.clone()]));
        let mut tls = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
        // What is written during the handshake follows it at once.
        tls.writer().write_all(b"early bird\n").unwrap();
        let mut stream = server.raw();
        stream.set_nodelay(true).unwrap();
        while tls.is_handshaking() || tls.wants_write() {
            let mut sealed = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut sealed).unwrap();
            }
            if byte_by_byte {
                sealed.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
            } else {
                stream.write_all(&sealed).unwrap();
            }
            if tls.is_handshaking() {
                tls.read_tls(&mut stream).unwrap();
                tls.process_new_packets().unwrap();
            }
        }
        let mut text = [0; 200];
        let mut got = Vec::new();
        while got.iter().filter(|byte| **byte == b'\n').count() < 2 {
            if tls.wants_read() {
                tls.read_tls(&mut stream).unwrap();
                tls.process_new_packets().unwrap();
            }
            if let Ok(n) = tls.reader().read(&mut text) {
                got.extend_from_slice(&text[..n]);
            }
        }
        let got = String::from_utf8(got).unwrap();
        assert!(got.contains(" open\n") && got.ends_with(" early bird\n"), "{got}");
    }
}

fn the_certificate_is_that_of_the_name(config: EngineConfig) {
    let others: Vec<Identity> =
        vec![identity(&["*.example.com"]), identity(&["example.org", "www.example.com"])];
    let mut builder = Tls::builder().certificate(localhost().certificate.clone());
    for other in &others {
        builder = builder.certificate(other.certificate.clone());
    }
    let server = Telling::new(config, builder);
    // Each name is trusted by one certificate alone.
    for (name, trusted) in [
        ("a.example.com", &others[0]),
        ("www.example.com", &others[1]),
        ("example.org", &others[1]),
        ("localhost", localhost()),
    ] {
        let client = Arc::new(trusting(std::slice::from_ref(&trusted.der)));
        let mut client = server.client(&client, name);
        assert!(client.line().contains(&format!("name={name} ")));
    }
    // Whoever asks for another name gets the first one, and decides for itself.
    let client = Arc::new(trusting(&[localhost().der.clone()]));
    let name = ServerName::try_from("elsewhere.test").unwrap();
    let mut stranger = ClientConnection::new(client, name).unwrap();
    let error = stranger.complete_io(&mut server.raw()).unwrap_err();
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

fn sessions_go_on_in_another_server_with_the_same_secret(config: EngineConfig) {
    let secret = tidegate_tls::TicketSecret::generate().unwrap();
    let tls = |context| Tls::builder().certificate(localhost().certificate.clone()).tickets(&secret, context);
    let (one, other) = (Telling::new(config, tls("web")), Telling::new(config, tls("web")));
    let elsewhere = Telling::new(config, tls("admin"));
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let mut client = with_versions(&trusting(&[]), versions);
        client.resumption = Resumption::in_memory_sessions(8);
        let client = Arc::new(client);
        let resumed = |server: &Telling| server.client(&client, "localhost").line().contains("resumed=true");
        assert!(!resumed(&one), "there is no session yet");
        assert!(resumed(&other), "the other worker understands the ticket");
        assert!(resumed(&one));
        assert!(!resumed(&elsewhere), "tickets are of one listener");
    }
    assert_eq!(one.count(ListenerWord::Handshakes), 4);
    assert_eq!(one.count(ListenerWord::HandshakesResumed), 2);
    assert_eq!(elsewhere.count(ListenerWord::HandshakesResumed), 0);
}

fn a_peer_that_speaks_no_tls_is_told_so_and_no_service_knows_of_it(config: EngineConfig) {
    let server = Telling::plain(config);
    let mut stream = server.raw();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    // A fatal alert (RFC 8446, section 6), and FIN behind it.
    assert_eq!((answer.len(), &answer[..3], answer[5]), (7, &[21, 3, 3][..], 2), "{answer:?}");
    drop(stream);
    until(|| server.closed(Reason::TLS_FAILED) == 1);
    assert_eq!(server.count(ListenerWord::Handshakes), 0);
    assert_eq!(server.count(ListenerWord::Messages), 0);
}

fn a_record_that_was_changed_ends_the_connection(config: EngineConfig) {
    let server = Telling::plain(config);
    let client = Arc::new(trusting(&[localhost().der.clone()]));
    let mut client = server.client(&client, "localhost");
    assert!(client.line().ends_with(" open"));
    client.send("fine\n");
    assert!(client.line().ends_with(" fine"));
    let mut sealed = Vec::new();
    {
        let mut tls = client.tls();
        tls.writer().write_all(b"changed\n").unwrap();
        tls.write_tls(&mut sealed).unwrap();
    }
    let last = sealed.len() - 1;
    sealed[last] ^= 1;
    client.stream().write_all(&sealed).unwrap();
    let mut told = Vec::new();
    client.stream().read_to_end(&mut told).unwrap();
    assert!(!told.is_empty(), "an alert comes before FIN");
    drop(client);
    until(|| server.closed(Reason::TLS_FAILED) == 1);
    assert_eq!(server.count(ListenerWord::Messages), 1);
}

fn a_handshake_that_takes_too_long_is_reset(config: EngineConfig) {
    let timeout = Duration::from_millis(50);
    let tls = Tls::builder().certificate(localhost().certificate.clone()).handshake_timeout(timeout);
    let server = Telling::new(config, tls);
    let (silent, begun) = (server.raw(), server.raw());
    (&begun).write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    for mut stream in [silent, begun] {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    until(|| server.closed(Reason::TLS_TIMEOUT) == 2);
}

fn handshakes_beyond_the_limit_wait_for_their_turn(config: EngineConfig) {
    let tls = Tls::builder().certificate(localhost().certificate.clone()).max_handshakes(2);
    let server = Telling::new(config, tls);
    // Those that say nothing do not count; these two do, and are never done.
    let silent: Vec<TcpStream> = (0..5).map(|_| server.raw()).collect();
    let begun: Vec<TcpStream> = (0..2).map(|_| server.raw()).collect();
    for (n, stream) in begun.iter().enumerate() {
        let mut stream = stream;
        stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        until(|| server.count(ListenerWord::BytesIn) == 6 * (n as u64 + 1));
    }
    let client = Arc::new(trusting(&[localhost().der.clone()]));
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let (client, mut stream) = (Arc::clone(&client), server.raw());
            let mut tls = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
            let before = server.count(ListenerWord::BytesIn);
            tls.write_tls(&mut stream).unwrap();
            until(|| server.count(ListenerWord::BytesIn) > before);
            (tls, stream)
        })
        .collect();
    assert_eq!(server.count(ListenerWord::BytesOut), 0, "nobody was answered whose turn has not come");
    // One place is enough for all of them, one after the other.
    drop(begun.into_iter().next());
    for (mut tls, mut stream) in waiting {
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
    }
    until(|| server.count(ListenerWord::Handshakes) == 4);
    drop(silent);
}

/// A client that is through its handshake, if it came to that.
fn agreed(server: &Telling) -> Option<(ClientConnection, TcpStream)> {
    let (client, mut stream) = (Arc::new(trusting(&[localhost().der.clone()])), server.raw());
    let mut tls = ClientConnection::new(client, ServerName::try_from("localhost").unwrap()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).ok()?;
    }
    // What the server says behind it comes with its next flight.
    while tls.wants_write() {
        tls.write_tls(&mut stream).ok()?;
    }
    Some((tls, stream))
}

fn records_that_no_handshake_has_end_their_connection_alone(config: EngineConfig) {
    let server = Telling::plain(config);
    // A piece of a ClientHello, and behind it text, an alert or nothing where the rest of it is due.
    let piece = [22, 3, 1, 0, 5, 1, 0, 2, 0, 3];
    let others = [&[23, 3, 3, 0, 1, 0][..], &[21, 3, 3, 0, 2, 2, 40], &[22, 3, 1, 0, 0]];
    for (n, other) in others.into_iter().enumerate() {
        let mut stream = server.raw();
        stream.write_all(&[&piece[..], other].concat()).unwrap();
        let mut told = Vec::new();
        // However it ends, it does.
        let _ = stream.read_to_end(&mut told);
        until(|| server.closed(Reason::TLS_FAILED) == n as u64 + 1);
    }
    assert!(agreed(&server).is_some());
}

fn those_that_wait_in_vain_leave_their_turn_to_others(config: EngineConfig) {
    let tls = Tls::builder().certificate(localhost().certificate.clone());
    let server = Telling::new(config, tls.max_handshakes(1).handshake_timeout(Duration::from_millis(300)));
    let begun: Vec<TcpStream> = (0..60).map(|_| server.raw()).collect();
    for mut stream in &begun {
        stream.write_all(&[22, 3, 1]).unwrap();
    }
    until(|| server.closed(Reason::TLS_TIMEOUT) == 60);
    until(|| agreed(&server).is_some());
}

fn a_record_that_never_becomes_whole_does_not_keep_an_idle_peer(config: EngineConfig) {
    let server = Telling::idle_after(config, Duration::from_millis(400));
    let (_, stream) = agreed(&server).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let dribbling = std::thread::spawn(move || {
        writer.write_all(&[23, 3, 3, 64, 0])?;
        loop {
            writer.write_all(&[0])?;
            // The pace of the peer, not a wait for anything.
            std::thread::park_timeout(Duration::from_millis(5));
        }
        #[expect(unreachable_code, reason = "names the type of the error")]
        Ok::<(), std::io::Error>(())
    });
    until(|| server.closed(Reason::IDLE_TIMEOUT) == 1);
    assert!(dribbling.join().unwrap().is_err());
    drop(stream);
}

fn a_peer_that_goes_away_in_its_handshake_is_no_failure(config: EngineConfig) {
    let server = Telling::plain(config);
    for text in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
        let mut stream = server.raw();
        stream.write_all(text).unwrap();
        drop(stream);
    }
    until(|| server.closed(Reason::PEER_CLOSED) == 2);
    assert_eq!(server.closed(Reason::TLS_FAILED), 0);
}

fn what_comes_behind_the_peers_last_word_is_ignored(config: EngineConfig) {
    let server = Telling::idle_after(config, Duration::from_millis(300));
    let (mut tls, stream) = agreed(&server).unwrap();
    let mut sealed = Vec::new();
    tls.writer().write_all(b"the last\n").unwrap();
    tls.send_close_notify();
    while tls.wants_write() {
        tls.write_tls(&mut sealed).unwrap();
    }
    // More than any record or handshake has, at once and behind it.
    sealed.extend_from_slice(&[23; 100_000]);
    (&stream).write_all(&sealed).unwrap();
    until(|| server.count(ListenerWord::Messages) == 1);
    let writer = std::thread::spawn(move || {
        (&stream).write_all(&[0; 300_000])?;
        Ok::<_, std::io::Error>(stream)
    });
    until(|| server.closed(Reason::IDLE_TIMEOUT) == 1);
    drop(writer.join().unwrap());
    assert_eq!(server.closed(Reason::TLS_FAILED), 0);
}

fn an_end_without_a_word_is_one_but_not_in_the_middle_of_a_record(config: EngineConfig) {
    let server = Telling::plain(config);
    for cut in [false, true] {
        let (mut tls, mut stream) = agreed(&server).unwrap();
        let mut sealed = Vec::new();
        tls.writer().write_all(b"whole\n").unwrap();
        tls.write_tls(&mut sealed).unwrap();
        if cut {
            tls.writer().write_all(b"lost\n").unwrap();
            tls.write_tls(&mut sealed).unwrap();
            sealed.pop();
        }
        stream.write_all(&sealed).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // The server tells its end, too.
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        assert!(!told.is_empty());
        let closed = || server.closed(Reason::PEER_CLOSED) + server.closed(Reason::TLS_FAILED);
        until(|| closed() == 1 + u64::from(cut));
    }
    assert_eq!((server.closed(Reason::PEER_CLOSED), server.closed(Reason::TLS_FAILED)), (1, 1));
    assert_eq!(server.count(ListenerWord::Messages), 2);
}
