//! `Tls`: the layer of a listener: its certificates, versions and limits.
//!
//! Invariant: early data (RFC 8446, section 2.3) is never accepted, since anybody can send it a second time.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use tidegate_engine::{Layer, LayerSession, Peer};

use crate::certificates::Certificates;
use crate::session::Session;
use crate::tickets::Tickets;
use crate::{Certificate, TicketSecret};

/// TLS under a service.
///
/// ```
/// use std::sync::Arc;
/// use tidegate_engine::BoxedService;
/// use tidegate_tls::{Certificate, Tls};
///
/// # use tidegate_engine::{Decoded, Flow, Io, Peer, Refusal, Service};
/// # struct Echo;
/// # impl Service for Echo {
/// #     type Session = ();
/// #     type Head = ();
/// #     type Note = ();
/// #     fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> { Ok(()) }
/// #     fn decode(&self, _: &mut (), input: &[u8]) -> Decoded<()> {
/// #         Decoded::Message { len: input.len(), head: () }
/// #     }
/// #     fn on_message(&self, io: &mut Io<'_>, _: &mut (), _: (), bytes: &[u8]) -> Flow {
/// #         io.send(bytes);
/// #         Flow::Continue
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let key = rcgen::KeyPair::generate()?;
/// # let own = rcgen::CertificateParams::new(["localhost".to_owned()])?.self_signed(&key)?;
/// # let (certificate, key) = (own.pem(), key.serialize_pem());
/// let certificate = Certificate::from_pem(certificate.as_bytes(), key.as_bytes())?;
/// let tls = Tls::builder().certificate(certificate).alpn(["http/1.1"]).build()?;
/// let service = BoxedService::new(Echo).layer(Arc::new(tls));
/// # drop(service);
/// # Ok(())
/// # }
/// ```
pub struct Tls {
    config: Arc<ServerConfig>,
    handshake_timeout: Duration,
    max_handshakes: usize,
}

/// Puts a [`Tls`] together.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct TlsBuilder {
    certificates: Vec<Certificate>,
    min_version: Version,
    alpn: Vec<Vec<u8>>,
    handshake_timeout: Duration,
    max_handshakes: usize,
    tickets: Option<(TicketSecret, String)>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.2, RFC 5246.
    #[default]
    Tls12,
    /// 1.3, RFC 8446.
    Tls13,
}

/// Why there is no layer.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// There is nothing to show to a peer.
    #[error("no certificate was given")]
    NoCertificate,
    /// What is to be the name of a server is none.
    #[error("\"{}\" is no name of a server: a host name or an address is, without a port", .0.escape_debug())]
    ServerName(String),
    /// Nobody is trusted, so that no server could be.
    #[error("no root certificate was given, so that no server would be trusted")]
    NoRoots,
    /// No cipher suite of this name, or none of the versions that may be used.
    #[error("no cipher suite {asked:?} with these versions; there are {known}")]
    Cipher {
        /// What was asked for.
        asked: String,
        /// What can be.
        known: String,
    },
    /// The name of a protocol above is not one.
    #[error("\"{0}\" is no name of a protocol: it has 1 to 255 bytes")]
    Alpn(String),
    /// The system has no random bytes.
    #[error("the system has no random bytes")]
    Random,
    /// rustls does not take it.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
}

impl Tls {
    /// Versions 1.2 and 1.3, without a certificate.
    pub fn builder() -> TlsBuilder {
        TlsBuilder {
            certificates: Vec::new(),
            min_version: Version::Tls12,
            alpn: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: DEFAULT_MAX_HANDSHAKES,
            tickets: None,
        }
    }
}

/// See [`Layer::max_handshakes`].
const DEFAULT_MAX_HANDSHAKES: usize = 2000;

impl TlsBuilder {
    /// Adds a certificate. The first is for peers that ask for no name, or for one that no certificate has; of several for a
    /// name, as one of ECDSA and one of RSA, a peer gets the first that it can check.
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.certificates.push(certificate);
        self
    }

    /// The lowest version that a peer may have. Default 1.2.
    pub fn min_version(mut self, version: Version) -> Self {
        self.min_version = version;
        self
    }

    /// The protocols above, the most wanted first (RFC 7301). A peer that offers others alone is refused; one that offers none
    /// is not. Default: none, and whatever is offered is passed over.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// How long a connection has for its handshake. Default 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Handshakes at the same time in each loop, at least 1. Default 2000. Further ones wait.
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        self.max_handshakes = handshakes.max(1);
        self
    }

    /// The secret that the tickets are sealed with: whoever has the same, and the same context, understands them. Without it
    /// sessions go on only where they began.
    pub fn tickets(mut self, secret: &TicketSecret, context: impl Into<String>) -> Self {
        self.tickets = Some((secret.clone(), context.into()));
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn build(self) -> Result<Tls, TlsError> {
        if self.certificates.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        check_alpn(&self.alpn)?;
        let versions = self.min_version.and_later();
        let (secret, context) = match self.tickets {
            Some(given) => given,
            None => (TicketSecret::generate()?, String::new()),
        };
        let certificates = Arc::new(Certificates::new(&self.certificates));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider_arc()))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(certificates);
        config.alpn_protocols = self.alpn;
        config.ticketer = Arc::new(Tickets::new(&secret, &context));
        // What one worker remembers the others do not know.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        let config = Arc::new(config);
        // So that no connection is the first to find out.
        rustls::server::UnbufferedServerConnection::new(Arc::clone(&config))?;
        Ok(Tls { config, handshake_timeout: self.handshake_timeout, max_handshakes: self.max_handshakes })
    }
}

impl Version {
    /// This one and those after it.
    pub(crate) fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => &VERSIONS,
            Self::Tls13 => &VERSIONS[..1],
        }
    }

    pub(crate) fn alone(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => &VERSIONS[1..],
            Self::Tls13 => &VERSIONS[..1],
        }
    }
}

/// The newest first.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

/// RFC 7301, section 3.1.
pub(crate) fn check_alpn(protocols: &[Vec<u8>]) -> Result<(), TlsError> {
    match protocols.iter().find(|name| !(1..=255).contains(&name.len())) {
        Some(wrong) => Err(TlsError::Alpn(String::from_utf8_lossy(wrong).into_owned())),
        None => Ok(()),
    }
}

impl Layer for Tls {
    fn accept(&self, _peer: &Peer<'_>) -> Box<dyn LayerSession> {
        Box::new(Session::of_server(&self.config))
    }

    fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    fn max_handshakes(&self) -> usize {
        self.max_handshakes
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("handshake_timeout", &self.handshake_timeout)
            .field("max_handshakes", &self.max_handshakes)
            .finish_non_exhaustive()
    }
}

/// The cryptography of all sessions.
pub(crate) fn provider() -> &'static CryptoProvider {
    provider_arc()
}

pub(crate) fn provider_arc() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()))
}
