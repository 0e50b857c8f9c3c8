//! `listen.tls`: one value with keys of its own, since a listener has all of it or nothing.
//!
//! Invariant: what [`read`] returns deserialises into [`ListenerTls`]; paths are absolute. Whether the files can be served is
//! asked apart ([`Config::check_certificates`](super::Config::check_certificates)): they change while the configuration does not.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Problem;
use super::kind::{Context, Kind, quote};
use super::nearest::nearest;
use super::units;
use super::words::TlsVersion;

/// TLS of a listener: `{ cert = "…", key = "…" }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate chain, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Further certificates, for peers that ask for a name of theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateFiles>,
    /// The lowest version.
    #[serde(default = "lowest_version")]
    pub min_version: TlsVersion,
    /// The protocols above, the most wanted first; `None`: those of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Vec<String>>,
    /// How long a handshake may take; `None`: as long as the service says.
    #[serde(default, with = "units::duration_or_absent", skip_serializing_if = "Option::is_none")]
    pub handshake_timeout: Option<Duration>,
    /// Handshakes at the same time in each loop; `None`: as many as the library has by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_handshakes: Option<usize>,
}

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The chain, in PEM.
    pub cert: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

impl ListenerTls {
    /// All certificates, the first for whoever asks for no name.
    pub fn files(&self) -> impl Iterator<Item = CertificateFiles> {
        let first = CertificateFiles { cert: self.cert.clone(), key: self.key.clone() };
        std::iter::once(first).chain(self.certificates.iter().cloned())
    }
}

const fn lowest_version() -> TlsVersion {
    TlsVersion::Tls12
}

/// What the value has, in words.
pub(super) const ALLOWED: &str = "{ cert = \"PATH\", key = \"PATH\" }, and in it certificates, min_version, alpn, handshake_timeout and max_handshakes";

const CERT: &str = "cert";
const KEY: &str = "key";
const CERTIFICATES: &str = "certificates";
const ALPN: &str = "alpn";
/// The keys with a single value, but for those of a certificate.
const SINGLE: [(&str, Kind); 3] = [
    ("min_version", Kind::Word(TlsVersion::WORDS)),
    ("handshake_timeout", Kind::Duration { min: Duration::from_millis(1), max: Duration::from_secs(3600) }),
    ("max_handshakes", Kind::Int { min: 1, max: 1_000_000 }),
];
/// All keys.
pub(super) const NAMES: [&str; 7] =
    [CERT, KEY, CERTIFICATES, "min_version", ALPN, "handshake_timeout", "max_handshakes"];
/// How many further certificates there may be.
const MAX_CERTIFICATES: usize = 256;
/// How many protocols there may be.
const MAX_PROTOCOLS: usize = 16;

/// The canonical form of the value, or what is wrong with it.
pub(super) fn read(table: &DeTable<'_>, context: &Context) -> Result<Json, Problem> {
    if let Some(name) = table.keys().map(|name| name.get_ref()).find(|name| !NAMES.contains(&&***name)) {
        let near = nearest(name, NAMES).map(quote);
        return Err(Problem::new(format!("unknown key {} in tls", quote(name))).near(near));
    }
    let mut object = files(table, "tls", context)?;
    for (name, kind) in SINGLE {
        if let Some(value) = table.get(name) {
            object.insert(name.to_owned(), single(kind, name, value, context)?);
        }
    }
    if let Some(value) = table.get(CERTIFICATES) {
        object.insert(CERTIFICATES.to_owned(), certificates(value, context)?);
    }
    if let Some(value) = table.get(ALPN) {
        object.insert(ALPN.to_owned(), protocols(value)?);
    }
    Ok(Json::Object(object))
}

/// A certificate and its key.
fn files(table: &DeTable<'_>, owner: &str, context: &Context) -> Result<Map<String, Json>, Problem> {
    let mut object = Map::new();
    for name in [CERT, KEY] {
        let Some(value) = table.get(name) else {
            return Err(Problem::new(format!("{owner} has no {name}")));
        };
        object.insert(name.to_owned(), single(Kind::Path { empty: false }, name, value, context)?);
    }
    Ok(object)
}

fn single(kind: Kind, name: &str, value: &Spanned<DeValue<'_>>, context: &Context) -> Result<Json, Problem> {
    let read = kind.read(value.get_ref(), context);
    read.map_err(|problem| problem.within(name).allowed(kind.allowed(&[], &[])))
}

fn certificates(value: &Spanned<DeValue<'_>>, context: &Context) -> Result<Json, Problem> {
    let wrong = || Problem::new("certificates is no array of tables".to_owned());
    let elements = value.get_ref().as_array().ok_or_else(wrong)?;
    if elements.len() > MAX_CERTIFICATES {
        return Err(Problem::new(format!("{} certificates are too many", elements.len())));
    }
    let element = |(idx, element): (usize, &Spanned<DeValue<'_>>)| {
        let owner = format!("certificates[{idx}]");
        let table = element.get_ref().as_table().ok_or_else(wrong)?;
        if let Some(name) =
            table.keys().map(|name| name.get_ref()).find(|name| ![CERT, KEY].contains(&&***name))
        {
            return Err(Problem::new(format!("unknown key {} in {owner}", quote(name))));
        }
        files(table, &owner, context).map(Json::Object)
    };
    elements.iter().enumerate().map(element).collect()
}

fn protocols(value: &Spanned<DeValue<'_>>) -> Result<Json, Problem> {
    let wrong = || {
        Problem::new(format!(
            "alpn is no array of 1 to {MAX_PROTOCOLS} names, each of 1 to 255 visible ASCII characters"
        ))
    };
    let elements =
        value.get_ref().as_array().filter(|elements| (1..=MAX_PROTOCOLS).contains(&elements.len()));
    let name = |element: &Spanned<DeValue<'_>>| match element.get_ref() {
        DeValue::String(name)
            if (1..=255).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            Ok(Json::from(&**name))
        }
        _ => Err(wrong()),
    };
    elements.ok_or_else(wrong)?.iter().map(name).collect()
}
