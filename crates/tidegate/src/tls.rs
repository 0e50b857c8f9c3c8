//! TLS of a configuration: the certificates as they were read, and the layers that are made of them.
//!
//! The master reads the files, which it alone may have the right to, and hands on what it read: so all workers of a generation
//! serve the same certificates, also one that is started again later. Invariant: a child reads no file of a certificate, and a
//! listener with TLS never serves without.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_engine::{BoxError, Layer};
use tidegate_tls::{Certificate, CertificateWarning, TicketSecret, Tls, TlsBuilder, Version};

use crate::Error;
use crate::config::{Config, ConfigErrors, Listener, ListenerTls, ServiceName, TlsVersion};

/// What the layers of all listeners are made of.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Material {
    /// By the name of the listener: chain and key, in PEM.
    certificates: BTreeMap<String, Vec<(String, String)>>,
    /// Of which the keys of tickets are made; `None` where nobody has TLS.
    tickets: Option<(u64, [u8; 32])>,
}

impl fmt::Debug for Material {
    /// Keys are no affair of a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("listeners", &self.certificates.len()).finish_non_exhaustive()
    }
}

/// What every listener of the service `web` speaks.
const WEB_PROTOCOLS: [&str; 1] = ["http/1.1"];

impl Material {
    /// Reads the certificates of all listeners. Tickets of `before` are understood on.
    ///
    /// # Errors
    ///
    /// Each that cannot be served, with the place of the key.
    pub(crate) fn read(config: &Config, before: Option<&Self>) -> Result<Self, ConfigErrors> {
        let mut certificates = BTreeMap::new();
        let mut errors = Vec::new();
        for listener in &config.listen {
            let Some(tls) = &listener.tls else { continue };
            let mut own = Vec::new();
            for files in tls.files() {
                match read_pair(&files.cert, &files.key) {
                    Ok(pair) => own.push(pair),
                    Err(message) => {
                        errors.push(config.error_at(&format!("listen.{}.tls", listener.name), message));
                    }
                }
            }
            certificates.insert(listener.name.to_string(), own);
        }
        if !errors.is_empty() {
            return Err(ConfigErrors::new(errors, 0));
        }
        let mut tickets = before.and_then(Self::secret).map(|secret| secret.to_parts());
        if tickets.is_none() && !certificates.is_empty() {
            let secret = TicketSecret::generate().map_err(|error| {
                ConfigErrors::new(vec![config.error_at("listen", format!("no key for tickets: {error}"))], 0)
            })?;
            tickets = Some(secret.to_parts());
        }
        Ok(Self { certificates, tickets })
    }

    /// The same, for children that are started now: what they need not know any more is left out.
    pub(crate) fn handed_on(&self) -> Self {
        let tickets = self.secret().map(|secret| secret.to_parts());
        Self { certificates: self.certificates.clone(), tickets }
    }

    /// What another image of the process needs to go on with the same tickets, and nothing else.
    pub(crate) fn tickets_alone(&self) -> Self {
        Self { certificates: BTreeMap::new(), ..self.handed_on() }
    }

    /// With the tickets of `other`, if it has any.
    pub(crate) fn with_tickets_of(self, other: &Self) -> Self {
        Self { tickets: other.tickets.or(self.tickets), ..self }
    }

    fn secret(&self) -> Option<TicketSecret> {
        self.tickets.map(|(period, bytes)| TicketSecret::from_parts(period, bytes))
    }

    /// The layer of a listener; `None` for one without TLS.
    ///
    /// # Errors
    ///
    /// That its certificates were not handed on, or cannot be served.
    pub(crate) fn layer(
        &self,
        listener: &Listener,
        config: &Config,
    ) -> Result<Option<Arc<dyn Layer>>, BoxError> {
        let Some(tls) = &listener.tls else { return Ok(None) };
        let pairs = self.certificates.get(listener.name.as_str());
        let pairs = pairs.filter(|pairs| !pairs.is_empty());
        let pairs =
            pairs.ok_or_else(|| format!("listener \"{}\": no certificate was handed on", listener.name))?;
        let mut builder = options(Tls::builder(), tls, listener, config);
        for (certificate, key) in pairs {
            builder = builder.certificate(Certificate::from_pem(certificate.as_bytes(), key.as_bytes())?);
        }
        if let Some(secret) = self.secret() {
            builder = builder.tickets(&secret, listener.name.as_str());
        }
        Ok(Some(Arc::new(builder.build()?)))
    }

    /// Certificates that are out of date now, or nearly: for each the listener, its names, and what is to be said.
    pub(crate) fn warnings(&self) -> Vec<(&str, String, CertificateWarning)> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        let all = self.certificates.iter().flat_map(|(listener, pairs)| {
            pairs.iter().map(move |(certificate, key)| (listener.as_str(), certificate, key))
        });
        all.filter_map(|(listener, certificate, key)| {
            let certificate = Certificate::from_pem(certificate.as_bytes(), key.as_bytes()).ok()?;
            Some((listener, certificate.names().join(" "), certificate.warning(now)?))
        })
        .collect()
    }

    /// Logs the [`warnings`](Self::warnings).
    pub(crate) fn warn(&self) {
        for (listener, names, warning) in self.warnings() {
            tracing::warn!(listener, names, "{warning}");
        }
    }
}

fn options(mut builder: TlsBuilder, tls: &ListenerTls, listener: &Listener, config: &Config) -> TlsBuilder {
    let is_web = matches!(listener.service, ServiceName::Web | ServiceName::Admin);
    builder = builder.min_version(match tls.min_version {
        TlsVersion::Tls12 => Version::Tls12,
        TlsVersion::Tls13 => Version::Tls13,
    });
    builder = match &tls.alpn {
        Some(protocols) => builder.alpn(protocols.iter().map(String::as_str)),
        None if is_web => builder.alpn(WEB_PROTOCOLS),
        None => builder,
    };
    if let Some(timeout) = tls.handshake_timeout.or(is_web.then_some(config.web.handshake_timeout)) {
        builder = builder.handshake_timeout(timeout);
    }
    match tls.max_handshakes {
        Some(handshakes) => builder.max_handshakes(handshakes),
        None => builder,
    }
}

/// The two files, which belong together.
fn read_pair(certificate: &Path, key: &Path) -> Result<(String, String), String> {
    Certificate::read(certificate, key).map_err(|error| error.to_string())?;
    let read =
        |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let pair = (read(certificate)?, read(key)?);
    // They were read a second time, and may have been changed between.
    Certificate::from_pem(pair.0.as_bytes(), pair.1.as_bytes()).map_err(|error| error.to_string())?;
    Ok(pair)
}

impl From<tidegate_tls::TlsError> for Error {
    fn from(error: tidegate_tls::TlsError) -> Self {
        Self::Service(error.into())
    }
}
