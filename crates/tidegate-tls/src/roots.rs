//! `Roots`: whose signature makes a server trusted.
//!
//! Invariant: a `Roots` that was made by reading holds at least one certificate, so that a wrong file is told when it is read
//! and not when the first server is found to be trusted by nobody.

use std::fmt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Certificates of issuers that are trusted.
#[derive(Clone)]
pub struct Roots {
    pub(crate) store: RootCertStore,
}

/// Why there are no roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
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
    #[error("{origin}: certificate {nth}: {reason}")]
    BadCertificate {
        /// Where it stands.
        origin: String,
        /// Which of them, from 1.
        nth: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The system has none.
    #[error(
        "this system has no root certificates{reason}; install them (on Debian: ca-certificates), set SSL_CERT_FILE to a \
file of them, or name a file of your own"
    )]
    NoneOfSystem {
        /// What was found instead, with a colon before it; nothing when nothing was.
        reason: String,
    },
}

impl Roots {
    /// Those that the system trusts, where OpenSSL looks for them: `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. What
    /// cannot be read of them is left out, as long as there are any.
    ///
    /// # Errors
    ///
    /// [`RootsError::NoneOfSystem`].
    pub fn of_system() -> Result<Self, RootsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        let (taken, _) = store.add_parsable_certificates(found.certs);
        if taken == 0 {
            let reason = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(RootsError::NoneOfSystem { reason });
        }
        Ok(Self { store })
    }

    /// Those in a file of PEM. A certificate that is signed by itself is its own root.
    ///
    /// # Errors
    ///
    /// [`RootsError`], with the file.
    pub fn read(path: &Path) -> Result<Self, RootsError> {
        let text =
            std::fs::read(path).map_err(|reason| RootsError::Read { path: path.to_owned(), reason })?;
        Self::parse(&text, &path.display())
    }

    /// Those in memory, as PEM.
    ///
    /// # Errors
    ///
    /// [`RootsError`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        Self::parse(pem, &"roots")
    }

    fn parse(pem: &[u8], origin: &dyn fmt::Display) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        for (at, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let bad = |reason: String| RootsError::BadCertificate {
                origin: origin.to_string(),
                nth: at + 1,
                reason,
            };
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            store.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if store.is_empty() {
            return Err(RootsError::NoCertificate { origin: origin.to_string() });
        }
        Ok(Self { store })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.store.len()
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_says_where_it_stands() {
        let key = rcgen::KeyPair::generate().unwrap();
        let own = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        assert_eq!(Roots::from_pem(own.pem().as_bytes()).unwrap().count(), 1);
        let error = Roots::from_pem(key.serialize_pem().as_bytes()).unwrap_err().to_string();
        assert_eq!(error, "roots: no certificate in it; one begins with -----BEGIN CERTIFICATE-----");
        let torn = own.pem() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let error = Roots::from_pem(torn.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("roots: certificate 2: "), "{error}");
        let error = Roots::read(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.starts_with("/nowhere/at/all: "), "{error}");
    }
}
