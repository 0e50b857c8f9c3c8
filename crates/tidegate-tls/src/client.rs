//! `TlsClient`: the layer of a client: whom it trusts, by which name it asks, and what it offers.
//!
//! Invariant: a server is checked against roots and a name, unless [`TlsClientBuilder::insecure`] was called; early data
//! (RFC 8446, section 2.3) is never sent, since anybody can send it a second time.

use std::fmt;
use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, SupportedProtocolVersion};
use tidegate_engine::{ClientLayer, LayerError, LayerSession, Target};

use crate::session::Session;
use crate::tls::{check_alpn, provider_arc};
use crate::trust::{Advice, Anybody};
use crate::{Roots, TlsError, Version};

/// TLS under a service whose connections are outgoing ones.
///
/// Sessions go on from one connection to the next to the same name, unless that is
/// [refused](TlsClientBuilder::without_resumption), as long as all of them come from the same `TlsClient`.
///
/// ```
/// use std::sync::Arc;
/// use tidegate_engine::BoxedService;
/// use tidegate_tls::{Roots, TlsClient};
///
/// # use tidegate_engine::{Decoded, Flow, Io, Peer, Refusal, Service};
/// # struct Caller;
/// # impl Service for Caller {
/// #     type Session = ();
/// #     type Head = ();
/// #     type Note = ();
/// #     fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> { Ok(()) }
/// #     fn decode(&self, _: &mut (), input: &[u8]) -> Decoded<()> {
/// #         Decoded::Message { len: input.len(), head: () }
/// #     }
/// #     fn on_message(&self, _: &mut Io<'_>, _: &mut (), _: (), _: &[u8]) -> Flow { Flow::Continue }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let key = rcgen::KeyPair::generate()?;
/// # let pem = rcgen::CertificateParams::new(["localhost".to_owned()])?.self_signed(&key)?.pem();
/// let roots = Roots::from_pem(pem.as_bytes())?;
/// let tls = TlsClient::builder().roots(roots).server_name("api.example.org").alpn(["http/1.1"]).build()?;
/// let service = BoxedService::new(Caller).client_layer(Arc::new(tls));
/// # drop(service);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
    advice: Advice,
}

/// Puts a [`TlsClient`] together.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct TlsClientBuilder {
    trust: Trust,
    name: Option<String>,
    alpn: Vec<Vec<u8>>,
    versions: &'static [&'static SupportedProtocolVersion],
    ciphers: Vec<String>,
    resumption: Resumption,
    advice: Advice,
}

/// Who is trusted.
#[derive(Clone, Debug)]
enum Trust {
    Nobody,
    Roots(Roots),
    Anybody,
}

impl TlsClient {
    /// Versions 1.2 and 1.3; nobody is trusted yet.
    pub fn builder() -> TlsClientBuilder {
        TlsClientBuilder {
            trust: Trust::Nobody,
            name: None,
            alpn: Vec::new(),
            versions: Version::Tls12.and_later(),
            ciphers: Vec::new(),
            resumption: Resumption::default(),
            advice: Advice::default(),
        }
    }

    /// By what a server is asked for and checked: what the wish for the connection says, or the layer's own name, or the
    /// address.
    fn name_of(&self, target: &Target, name: Option<&str>) -> Result<ServerName<'static>, LayerError> {
        if let Some(name) = name {
            return server_name(name).map_err(|error| LayerError(error.to_string()));
        }
        match (&self.name, target) {
            (Some(name), _) => Ok(name.clone()),
            (None, Target::Inet(address)) => Ok(ServerName::from(address.ip())),
            (None, Target::Unix(_)) => Err(LayerError(
                "a Unix socket has no name that a server could be checked by; give it one".into(),
            )),
        }
    }
}

impl TlsClientBuilder {
    /// Servers whose certificate one of these has signed are trusted.
    pub fn roots(mut self, roots: Roots) -> Self {
        self.trust = Trust::Roots(roots);
        self
    }

    /// Whoever answers is taken for the one who was asked for. Anybody on the way can then read and change everything, so it is
    /// for tests alone; a record of the log says so each time.
    pub fn insecure(mut self) -> Self {
        self.trust = Trust::Anybody;
        self
    }

    /// By which name servers are asked for (RFC 6066, section 3) and checked, where
    /// [`Connect::server_name`](tidegate_engine::Connect::server_name) says nothing else: a host name or an address. Default:
    /// the address of the target; a server is asked for by no name then.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The protocols above, the most wanted first (RFC 7301). A server that knows none of them refuses. Default: none.
    pub fn alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// The lowest version that a server may choose. Default 1.2.
    pub fn min_version(mut self, version: Version) -> Self {
        self.versions = version.and_later();
        self
    }

    /// The only version that a server may choose.
    pub fn only_version(mut self, version: Version) -> Self {
        self.versions = version.alone();
        self
    }

    /// Only these cipher suites, by their names in the registry of IANA, as `TLS_AES_128_GCM_SHA256`. Default: all.
    pub fn ciphers<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.ciphers = names.into_iter().map(Into::into).collect();
        self
    }

    /// Each connection begins anew, with a full handshake.
    pub fn without_resumption(mut self) -> Self {
        self.resumption = Resumption::disabled();
        self
    }

    /// What stands behind the error when a server is not trusted: how this program is told whom to trust.
    pub fn advice(mut self, text: &str) -> Self {
        self.advice = Advice::new(text);
        self
    }

    /// The layer.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    pub fn build(self) -> Result<TlsClient, TlsError> {
        check_alpn(&self.alpn)?;
        let name = self.name.as_deref().map(server_name).transpose()?;
        let provider = with_ciphers(&self.ciphers, self.versions)?;
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(self.versions)?;
        let builder = match self.trust {
            Trust::Nobody => return Err(TlsError::NoRoots),
            Trust::Roots(roots) => builder.with_root_certificates(roots.store),
            Trust::Anybody => {
                tracing::warn!(
                    server = self.name.as_deref(),
                    "TLS without a check of the server's certificate: anybody could be at the other end"
                );
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody))
            }
        };
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = self.alpn;
        config.resumption = self.resumption;
        config.enable_early_data = false;
        Ok(TlsClient { config: Arc::new(config), name, advice: self.advice })
    }
}

impl ClientLayer for TlsClient {
    fn connect(&self, target: &Target, name: Option<&str>) -> Result<Box<dyn LayerSession>, LayerError> {
        let name = self.name_of(target, name)?;
        // Its own way of writing it: an address is not asked for, only checked.
        let asked = Some(name.to_str().to_ascii_lowercase().into_boxed_str());
        let conn = UnbufferedClientConnection::new(Arc::clone(&self.config), name);
        let conn = conn.map_err(|error| LayerError(error.to_string()))?;
        Ok(Box::new(Session::of_client(conn, asked, self.advice.clone())))
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("name", &self.name).finish_non_exhaustive()
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    // The brackets are those of an address with a port.
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    ServerName::try_from(bare.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
}

/// The cryptography of all sessions, with some of its suites.
fn with_ciphers(
    names: &[String],
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Arc<CryptoProvider>, TlsError> {
    if names.is_empty() {
        return Ok(Arc::clone(provider_arc()));
    }
    let mut provider = CryptoProvider::clone(provider_arc());
    provider
        .cipher_suites
        .retain(|suite| versions.iter().any(|version| version.version == suite.version().version));
    let name_of =
        |suite: &rustls::SupportedCipherSuite| suite.suite().as_str().map_or("", crate::session::cipher);
    if let Some(asked) =
        names.iter().find(|name| !provider.cipher_suites.iter().any(|suite| name_of(suite) == *name))
    {
        let known = provider.cipher_suites.iter().map(name_of).collect::<Vec<_>>().join(", ");
        return Err(TlsError::Cipher { asked: asked.clone(), known });
    }
    provider.cipher_suites.retain(|suite| names.iter().any(|name| name == name_of(suite)));
    Ok(Arc::new(provider))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insecure() -> TlsClientBuilder {
        TlsClient::builder().insecure()
    }

    #[test]
    fn what_cannot_be_is_told_when_it_is_built() {
        let error = |builder: TlsClientBuilder| builder.build().unwrap_err().to_string();
        assert_eq!(
            error(TlsClient::builder()),
            "no root certificate was given, so that no server would be trusted"
        );
        assert!(error(insecure().server_name("a b")).starts_with("\"a b\" is no name of a server"));
        assert!(error(insecure().server_name("example.org:443")).contains("without a port"));
        assert!(error(insecure().alpn([""])).contains("is no name of a protocol"));
        let told = error(insecure().ciphers(["TLS_AES_128_GCM_SHA256"]).only_version(Version::Tls12));
        assert!(told.contains("no cipher suite \"TLS_AES_128_GCM_SHA256\""), "{told}");
        assert!(told.contains("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"), "{told}");
        // The suites decide which of the versions there can be.
        assert!(insecure().ciphers(["TLS_AES_128_GCM_SHA256"]).build().is_ok());
        assert!(insecure().ciphers(["TLS_AES_128_GCM_SHA256"]).only_version(Version::Tls13).build().is_ok());
    }

    #[test]
    fn the_name_is_the_wish_s_or_the_layer_s_or_the_address() {
        let tls = insecure().build().unwrap();
        let named = insecure().server_name("b.example").build().unwrap();
        let inet: Target = "[::1]:443".parse().unwrap();
        let unix: Target = "unix:/a".parse().unwrap();
        let name = |tls: &TlsClient, target: &Target, name| {
            tls.name_of(target, name).map(|name| name.to_str().into_owned())
        };
        assert_eq!(name(&tls, &inet, Some("a.example")).unwrap(), "a.example");
        assert_eq!(name(&named, &inet, Some("a.example")).unwrap(), "a.example");
        assert_eq!(name(&named, &unix, None).unwrap(), "b.example");
        assert_eq!(name(&tls, &inet, None).unwrap(), "::1");
        assert_eq!(name(&tls, &inet, Some("[::2]")).unwrap(), "::2");
        assert!(name(&tls, &unix, None).unwrap_err().0.contains("a Unix socket has no name"));
        assert!(name(&tls, &inet, Some("a b")).is_err());
    }
}
