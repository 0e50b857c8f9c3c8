//! Why a server is not trusted, in words that say what to do; and `Anybody`, the verifier that trusts whoever answers.
//!
//! Invariant: a handshake whose server is not trusted fails, unless somebody has asked for [`Anybody`] by name; and even then
//! whoever answers has the key of the certificate that it shows.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use tidegate_engine::LayerError;

use crate::tls::provider;

/// How the program at hand is told to trust somebody else; it stands behind every error that is about trust.
#[derive(Clone, Debug, Default)]
pub(crate) struct Advice(Option<Arc<str>>);

const DAY_SECONDS: u64 = 86_400;

impl Advice {
    pub(crate) fn new(text: &str) -> Self {
        Self(Some(text.into()))
    }

    /// What rustls says, in other words where they help.
    pub(crate) fn explain(&self, error: &Error) -> LayerError {
        let Error::InvalidCertificate(wrong) = error else { return LayerError(error.to_string()) };
        let mut text = format!("the server's certificate is not trusted: {}", reason(wrong));
        if let Some(advice) = &self.0 {
            text.push_str("; ");
            text.push_str(advice);
        }
        LayerError(text)
    }
}

fn reason(error: &CertificateError) -> String {
    let days = |later: &UnixTime, earlier: &UnixTime| {
        later.as_secs().saturating_sub(earlier.as_secs()).div_ceil(DAY_SECONDS)
    };
    match error {
        CertificateError::UnknownIssuer => {
            "it is signed by itself, or by an issuer who is none of the roots".to_owned()
        }
        CertificateError::BadSignature
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the root of that name has another key; is the file of roots older than the certificate?"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = match presented.as_slice() {
                [] => "nobody".to_owned(),
                names => names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(", "),
            };
            format!("it is for {names}, and not for {}", expected.to_str())
        }
        CertificateError::ExpiredContext { time, not_after } => {
            format!("it expired {} days ago", days(time, not_after))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            format!("it is not valid for another {} days; is the clock right?", days(not_before, time))
        }
        // What openssl-req(1) makes, unless it is told otherwise. The error has no other name here.
        CertificateError::Other(error) if error.0.to_string() == "CaUsedAsEndEntity" => {
            "it is one of an authority (CA:TRUE), which cannot be a server's own; make another that says CA:FALSE".to_owned()
        }
        other => other.to_string(),
    }
}

/// A name without what says of which kind it is, as in `DnsName("localhost")`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest);
    inner.trim_end_matches(')').trim_matches('"')
}

/// Trusts whoever answers.
#[derive(Debug)]
pub(crate) struct Anybody;

fn algorithms(provider: &CryptoProvider) -> &rustls::crypto::WebPkiSupportedAlgorithms {
    &provider.signature_verification_algorithms
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, algorithms(provider()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, algorithms(provider()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms(provider()).supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_a_sentence_and_the_advice_stands_behind_it() {
        let day = |n| UnixTime::since_unix_epoch(std::time::Duration::from_secs(n * DAY_SECONDS));
        let expected = ServerName::try_from("a.example").unwrap();
        let presented = vec!["DnsName(\"localhost\")".to_owned(), "b.example".to_owned()];
        let named = CertificateError::NotValidForNameContext { expected: expected.clone(), presented };
        let nobody = CertificateError::NotValidForNameContext { expected, presented: Vec::new() };
        let expired = CertificateError::ExpiredContext { time: day(12), not_after: day(10) };
        let early = CertificateError::NotValidYetContext { time: day(1), not_before: day(4) };
        let advice = Advice::new("do that");
        for (error, text) in [
            (
                CertificateError::UnknownIssuer,
                "it is signed by itself, or by an issuer who is none of the roots",
            ),
            (
                CertificateError::BadSignature,
                "the root of that name has another key; is the file of roots older than the certificate?",
            ),
            (named, "it is for localhost, b.example, and not for a.example"),
            (nobody, "it is for nobody, and not for a.example"),
            (expired, "it expired 2 days ago"),
            (early, "it is not valid for another 3 days; is the clock right?"),
        ] {
            let told = advice.explain(&Error::InvalidCertificate(error));
            assert_eq!(told.0, format!("the server's certificate is not trusted: {text}; do that"));
        }
        let other = advice.explain(&Error::HandshakeNotComplete);
        assert_eq!(other.0, Error::HandshakeNotComplete.to_string());
    }
}
