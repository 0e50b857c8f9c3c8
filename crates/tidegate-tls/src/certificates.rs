//! `Certificates`: which certificate a peer gets, by the name that it asks for.
//!
//! Invariant: the first certificate is for whoever asks for no name or for one that nobody has, so that every peer gets one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::Certificate;

/// The certificates of a listener.
#[derive(Debug)]
pub(crate) struct Certificates {
    all: Vec<Arc<CertifiedKey>>,
    /// By name, as numbers in `all`; the first that fits the peer is taken.
    exact: HashMap<String, Vec<usize>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<usize>>,
}

thread_local! {
    /// The name that was asked for in the step that this thread is in: the session cannot be asked for it.
    static ASKED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// Takes the name that was asked for since the last call.
pub(crate) fn take_asked() -> Option<Box<str>> {
    ASKED.with_borrow_mut(Option::take)
}

impl Certificates {
    pub(crate) fn new(certificates: &[Certificate]) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (number, certificate) in certificates.iter().enumerate() {
            for name in certificate.names() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut wildcard, rest),
                    None => (&mut exact, name.as_str()),
                };
                let numbers: &mut Vec<usize> = map.entry(name.to_owned()).or_default();
                numbers.push(number);
            }
        }
        let all = certificates.iter().map(|certificate| Arc::clone(&certificate.key)).collect();
        Self { all, exact, wildcard }
    }

    /// Those for a name, the most fitting first.
    fn named<'a>(&'a self, name: Option<&str>) -> impl Iterator<Item = &'a Arc<CertifiedKey>> {
        let exact = name.and_then(|name| self.exact.get(name));
        let wildcard = name.and_then(|name| self.wildcard.get(name.split_once('.')?.1));
        exact.into_iter().chain(wildcard).flatten().filter_map(|number| self.all.get(*number))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let schemes = hello.signature_schemes();
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        let found = self
            .named(name.as_deref())
            .find(fits)
            .or_else(|| self.all.iter().find(fits))
            // None fits: rustls says so with the right alert.
            .or_else(|| self.all.first())
            .map(Arc::clone);
        ASKED.set(name.map(String::into_boxed_str));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str]) -> Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let own = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Certificate::from_pem(own.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    #[test]
    fn exact_names_come_before_wildcards_which_stand_for_one_label() {
        let all = [
            certificate(&["default.example"]),
            certificate(&["*.example.com", "example.com"]),
            certificate(&["WWW.example.com"]),
        ];
        let certificates = Certificates::new(&all);
        let found = |name: &str| -> Vec<usize> {
            let number = |key: &Arc<CertifiedKey>| {
                certificates.all.iter().position(|own| Arc::ptr_eq(own, key)).unwrap()
            };
            certificates.named(Some(name)).map(number).collect()
        };
        assert_eq!(found("www.example.com"), [2, 1]);
        assert_eq!(found("api.example.com"), [1]);
        assert_eq!(found("example.com"), [1]);
        assert_eq!(found("a.b.example.com"), [0; 0]);
        assert_eq!(found("com"), [0; 0]);
        assert_eq!(found(""), [0; 0]);
        assert_eq!(found("default.example"), [0]);
    }
}
