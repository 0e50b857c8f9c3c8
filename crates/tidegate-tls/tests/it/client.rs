//! Clients that speak TLS and never wait for ever: in place of those of the engine's own tests.
//!
//! Invariant: a client that was told the end was told it in the words of TLS, too; [`Client::rest`] sees to that.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore};
use tidegate_engine::{BoxedService, Layer};
use tidegate_tls::{Certificate, Tls};

use crate::lab::Lab;
use crate::support::PATIENCE;

/// A certificate of a host for the tests, and what trusts it.
pub(crate) struct Identity {
    pub(crate) certificate: Certificate,
    pub(crate) der: CertificateDer<'static>,
}

pub(crate) fn identity(names: &[&str]) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let own = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let certificate = Certificate::from_pem(own.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    Identity { certificate, der: own.der().clone() }
}

/// The one of all servers here that say nothing else.
pub(crate) fn localhost() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| identity(&["localhost"]))
}

pub(crate) fn layer() -> Arc<dyn Layer> {
    Arc::new(Tls::builder().certificate(localhost().certificate.clone()).build().unwrap())
}

/// The service under TLS.
pub(crate) fn boxed(lab: Lab) -> BoxedService {
    BoxedService::new(lab).layer(layer())
}

/// A client has come as far as to be known when it has agreed with the server, so a loop that stands still has none waiting.
pub(crate) const UNGREETED: u64 = 0;

/// Whether a counter of bytes that were sent or received is right: what the service wrote or read, a record for each byte at the
/// most, and a few handshakes.
pub(crate) fn counts(counted: u64, bytes: u64) -> bool {
    (bytes + 100..30 * bytes + 8000).contains(&counted)
}

/// A client's configuration that trusts these certificates.
pub(crate) fn trusting(certificates: &[CertificateDer<'static>]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

/// A client of the lab.
pub(crate) struct Client {
    duplex: Arc<Duplex>,
    /// What was decrypted and not read.
    plain: Vec<u8>,
    /// How receiving failed while nothing was to be read; the kernel says so once.
    failed: Option<std::io::Error>,
}

/// Reads and writes at the same time.
struct Duplex {
    stream: TcpStream,
    tls: Mutex<ClientConnection>,
    /// Held while what has been encrypted is written, which keeps it in order.
    writing: Mutex<()>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        let config = Arc::new(trusting(&[localhost().der.clone()]));
        let name = ServerName::try_from("localhost").unwrap();
        Self::with(stream, ClientConnection::new(config, name).unwrap())
    }

    /// With the handshake done.
    pub(crate) fn with(mut stream: TcpStream, mut tls: ClientConnection) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        sockopt::set_socket_recv_buffer_size(&stream, 32 << 10).unwrap();
        // A server that refuses ends it right behind the handshake, and that is seen when something is read.
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        let duplex = Duplex { stream, tls: Mutex::new(tls), writing: Mutex::new(()) };
        let mut this = Self { duplex: Arc::new(duplex), plain: Vec::new(), failed: None };
        this.take_early();
        this.receive_tickets();
        this
    }

    /// What came with the end of the handshake.
    fn take_early(&mut self) {
        let mut tls = self.duplex.tls.lock().unwrap();
        let waiting = tls.process_new_packets().unwrap().plaintext_bytes_to_read();
        self.plain.resize(waiting, 0);
        tls.reader().read_exact(&mut self.plain).unwrap();
    }

    /// What is left unread would turn the end into a reset.
    fn receive_tickets(&mut self) {
        let due = |tls: &ClientConnection| {
            tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) && tls.tls13_tickets_received() < 2
        };
        while due(&self.tls()) {
            // One that is refused gets the end behind them, which is seen when something is read.
            match self.read() {
                Ok(1..) => {}
                Ok(0) => return,
                Err(error) => {
                    self.failed = Some(error);
                    return;
                }
            }
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.duplex.stream
    }

    pub(crate) fn tls(&self) -> MutexGuard<'_, ClientConnection> {
        self.duplex.tls.lock().unwrap()
    }

    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) {
        self.duplex.write(bytes.as_ref()).unwrap();
    }

    /// Writes from another thread, so that this one can read.
    pub(crate) fn send_aside(&self, bytes: Vec<u8>) -> std::thread::JoinHandle<std::io::Result<()>> {
        let duplex = Arc::clone(&self.duplex);
        std::thread::spawn(move || duplex.write(&bytes))
    }

    /// Writes a letter now and then, until nobody takes it any more.
    pub(crate) fn dribble(&self) -> std::thread::JoinHandle<()> {
        let duplex = Arc::clone(&self.duplex);
        std::thread::spawn(move || {
            // The pace of the peer, not a wait for anything.
            while duplex.write(b"e").is_ok() {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        })
    }

    pub(crate) fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.plain.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.plain.drain(..=at).collect();
                line.pop();
                return String::from_utf8(line).unwrap();
            }
            assert!(
                self.read().unwrap() > 0,
                "the end came after {:?}",
                String::from_utf8_lossy(&self.plain)
            );
        }
    }

    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// Says something and hears it: everything before it has been handled.
    pub(crate) fn round_trip(&mut self) {
        self.send("echo there and back\n");
        self.expect("there and back");
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        while self.plain.len() < n {
            assert!(self.read().unwrap() > 0, "the end came after {} of {n} bytes", self.plain.len());
        }
        self.plain.drain(..n).collect()
    }

    /// Everything up to the end, which is told by TLS and then by FIN.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.read().unwrap() > 0 {}
        assert!(self.told_end(), "FIN came, and nothing of TLS before it");
        std::mem::take(&mut self.plain)
    }

    /// Everything up to what TLS says is the end; FIN may not be there yet.
    pub(crate) fn rest_so_far(&mut self) -> Vec<u8> {
        while !self.told_end() {
            assert!(self.read().unwrap() > 0, "FIN came, and nothing of TLS before it");
        }
        std::mem::take(&mut self.plain)
    }

    /// Everything up to a reset.
    pub(crate) fn until_reset(&mut self) -> Vec<u8> {
        let error = loop {
            match self.read() {
                Ok(0) => panic!("FIN came, and a reset was expected"),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        std::mem::take(&mut self.plain)
    }

    /// Tells the end in the words of TLS.
    pub(crate) fn end_input(&self) {
        self.tls().send_close_notify();
        self.duplex.write(b"").unwrap();
    }

    /// Ends with a reset.
    pub(crate) fn reset(self) {
        sockopt::set_socket_linger(self.stream(), Some(Duration::ZERO)).unwrap();
    }

    /// Whether the server has said that nothing more follows.
    pub(crate) fn told_end(&self) -> bool {
        self.tls().process_new_packets().unwrap().peer_has_closed()
    }

    /// Receives once; answers how many bytes came, 0 at FIN.
    fn read(&mut self) -> std::io::Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut sealed = [0; 16 << 10];
        let len = loop {
            // A ring of io_uring in the same process interrupts what else its threads wait for.
            match (&self.duplex.stream).read(&mut sealed) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let mut tls = self.duplex.tls.lock().unwrap();
        let mut rest = &sealed[..len];
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            let state = tls.process_new_packets().map_err(std::io::Error::other)?;
            let before = self.plain.len();
            self.plain.resize(before + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut self.plain[before..])?;
        }
        Ok(len)
    }
}

impl Duplex {
    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        let order = self.writing.lock().unwrap();
        let mut pieces = bytes.chunks(16 << 10).peekable();
        loop {
            let mut sealed = Vec::new();
            let mut tls = self.tls.lock().unwrap();
            if let Some(piece) = pieces.next() {
                tls.writer().write_all(piece)?;
            }
            while tls.wants_write() {
                tls.write_tls(&mut sealed)?;
            }
            drop(tls);
            (&self.stream).write_all(&sealed)?;
            if pieces.peek().is_none() {
                drop(order);
                return Ok(());
            }
        }
    }
}
