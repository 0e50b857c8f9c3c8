//! `Certificate`: a chain with its private key, checked to belong together, and what it says of itself.
//!
//! Invariant: a `Certificate` can be served: there is a chain, a key of a kind that signs, and the key is the chain's own. Whether
//! peers trust it is theirs to say; that it is out of date is told, and no error.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as RustlsError, InconsistentKeys};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::provider;

/// A certificate chain with its private key, ready to be served.
#[derive(Clone)]
pub struct Certificate {
    pub(crate) key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
}

/// Why a certificate cannot be served. It names the file, or `certificate` and `key` where there was none.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{}: {reason}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the kernel says.
        reason: std::io::Error,
    },
    /// There is no certificate in it.
    #[error("{origin}: no certificate in it; one begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate {
        /// Where it was looked for.
        origin: String,
    },
    /// What stands there cannot be read as a certificate.
    #[error("{origin}: not a certificate: {reason}")]
    BadCertificate {
        /// Where it stands.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no private key in it.
    #[error("{origin}: no private key in it; one begins with -----BEGIN PRIVATE KEY-----")]
    NoKey {
        /// Where it was looked for.
        origin: String,
    },
    /// The key needs a password, which nobody is there to give.
    #[error(
        "{origin}: the private key is encrypted; write it without a password, as by `openssl pkey -in KEY -out NEW`"
    )]
    EncryptedKey {
        /// Where it stands.
        origin: String,
    },
    /// The key is of no kind that is served.
    #[error(
        "{origin}: the private key cannot be used: {reason}; ECDSA P-256 and P-384, Ed25519 and RSA from 2048 bits can"
    )]
    BadKey {
        /// Where it stands.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("{key}: the private key is not that of the first certificate in {certificate}")]
    Mismatch {
        /// Where the certificate stands.
        certificate: String,
        /// Where the key stands.
        key: String,
    },
}

/// What an operator should know of a certificate that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateWarning {
    /// It is out of date.
    #[error("the certificate expired {days} days ago")]
    Expired {
        /// Whole days since.
        days: i64,
    },
    /// It will be soon.
    #[error("the certificate expires in {days} days")]
    ExpiresSoon {
        /// Whole days until then.
        days: i64,
    },
    /// It is not valid yet.
    #[error("the certificate is not valid for another {days} days; is the clock right?")]
    NotYetValid {
        /// Days until then, rounded up.
        days: i64,
    },
}

/// When an operator is told that a certificate will expire.
const SOON_DAYS: i64 = 14;
const DAY_SECONDS: i64 = 86_400;

impl Certificate {
    /// Reads a chain, its own certificate first, and its private key, each from a file of PEM.
    ///
    /// # Errors
    ///
    /// [`CertificateError`], with the file.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|reason| CertificateError::Read { path: path.to_owned(), reason })
        };
        let origins = Origins { certificate: certificate.display(), key: key.display() };
        Self::parse(&read(certificate)?, &read(key)?, &origins)
    }

    /// From PEM in memory: the chain, its own certificate first, and the private key.
    ///
    /// # Errors
    ///
    /// [`CertificateError`].
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        Self::parse(certificate, key, &Origins { certificate: "certificate", key: "key" })
    }

    fn parse<D: fmt::Display>(
        certificate: &[u8],
        key: &[u8],
        origins: &Origins<D>,
    ) -> Result<Self, CertificateError> {
        let origin = || origins.certificate.to_string();
        let bad = |reason: String| CertificateError::BadCertificate { origin: origin(), reason };
        let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|error| bad(error.to_string()))?;
        let Some(own) = chain.first() else {
            return Err(CertificateError::NoCertificate { origin: origin() });
        };
        let (_, parsed) = X509Certificate::from_der(own).map_err(|error| bad(error.to_string()))?;
        let names = names_of(&parsed);
        let (not_before, not_after) =
            (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let key = private_key(key, &origins.key)?;
        let certified = CertifiedKey::from_der(chain, key, provider()).map_err(|error| match error {
            RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                CertificateError::Mismatch { certificate: origin(), key: origins.key.to_string() }
            }
            RustlsError::InvalidCertificate(error) => bad(error.to_string()),
            error => CertificateError::BadKey { origin: origins.key.to_string(), reason: error.to_string() },
        })?;
        Ok(Self { key: Arc::new(certified), names, not_before, not_after })
    }

    /// The host names that it is for, in lower case; `*.` stands for one label.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When it expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// What an operator should know of it at `unix_time`.
    #[must_use]
    pub fn warning(&self, unix_time: u64) -> Option<CertificateWarning> {
        let now = i64::try_from(unix_time).unwrap_or(i64::MAX);
        let left = self.not_after.saturating_sub(now);
        if left < 0 {
            return Some(CertificateWarning::Expired { days: -left / DAY_SECONDS });
        }
        if now < self.not_before {
            let days = (self.not_before - now + DAY_SECONDS - 1) / DAY_SECONDS;
            return Some(CertificateWarning::NotYetValid { days });
        }
        let days = left / DAY_SECONDS;
        (days < SOON_DAYS).then_some(CertificateWarning::ExpiresSoon { days })
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// How errors name what was read.
struct Origins<D> {
    certificate: D,
    key: D,
}

/// The names that the certificate is for (RFC 6125, section 6.4.4): the common name counts only where there are no others.
fn names_of(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let listed = alternatives.into_iter().flat_map(|names| names.value.general_names.iter());
    let names: Vec<String> = listed
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if !names.is_empty() || certificate.subject_alternative_name().ok().flatten().is_some() {
        return names;
    }
    let common = certificate.subject().iter_common_name();
    common.filter_map(|name| name.as_str().ok()).map(str::to_ascii_lowercase).collect()
}

fn private_key(pem: &[u8], origin: &impl fmt::Display) -> Result<PrivateKeyDer<'static>, CertificateError> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if holds(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
            Err(CertificateError::EncryptedKey { origin: origin.to_string() })
        }
        Err(pem::Error::NoItemsFound) => Err(CertificateError::NoKey { origin: origin.to_string() }),
        Err(error) => Err(CertificateError::BadKey { origin: origin.to_string(), reason: error.to_string() }),
    }
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
