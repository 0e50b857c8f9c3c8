//! The types of single values: counts, addresses, names.
//!
//! Invariant: a value of one of these types is one that the server can act on; what is wrong does not become
//! a value. They are written to JSON as the text that stands in the file.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::words::Level;

/// A number, or `"auto"`: as many as the process has processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "CountText", try_from = "CountText")]
pub enum Count {
    /// As many as [`std::thread::available_parallelism`] reports, which knows cgroups and affinity.
    Auto,
    /// Exactly so many.
    Exactly(u32),
}

impl Count {
    /// The number meant: `Auto` asks the system, and is 1 where the system does not say. At most `max`.
    #[must_use]
    pub fn resolve(self, max: u32) -> u32 {
        let number = match self {
            Self::Auto => {
                std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(max))
            }
            Self::Exactly(number) => number,
        };
        number.min(max)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(number) => number.fmt(f),
        }
    }
}

/// [`Count`] as TOML and JSON know it: a number or a word.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum CountText {
    Number(u32),
    Word(String),
}

impl From<Count> for CountText {
    fn from(count: Count) -> Self {
        match count {
            Count::Auto => Self::Word("auto".to_owned()),
            Count::Exactly(number) => Self::Number(number),
        }
    }
}

impl TryFrom<CountText> for Count {
    type Error = Invalid;

    fn try_from(text: CountText) -> Result<Self, Invalid> {
        match text {
            CountText::Number(number) => Ok(Self::Exactly(number)),
            CountText::Word(word) if word == "auto" => Ok(Self::Auto),
            CountText::Word(_) => Err(Invalid("expected a number or \"auto\"")),
        }
    }
}

/// Why a text is not a value of one of these types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(&'static str);

impl Invalid {
    pub(crate) const fn new(why: &'static str) -> Self {
        Self(why)
    }
}

/// The name of a listener, and of a program's own service: 1 to 32 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > 32 || !text.bytes().all(known) {
            return Err(Invalid("expected 1 to 32 of a-z, 0-9 and \"-\""));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// `"127.0.0.1:8080"`, `"[::1]:8080"`; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `"unix:/path"`. Absolute once a configuration was loaded, and at most [`UNIX_PATH_MAX`] bytes.
    Unix(PathBuf),
    /// `"udp:127.0.0.1:7000"`, `"udp:[::1]:7000"`: for datagrams. Port 0 takes a free one.
    Udp(SocketAddr),
    /// `"unixgram:/path"`: a Unix socket for datagrams, with a path as in `Unix`.
    Unixgram(PathBuf),
}

impl Address {
    /// Whether what comes there are datagrams, and not connections.
    #[must_use]
    pub fn is_datagram(&self) -> bool {
        matches!(self, Self::Udp(_) | Self::Unixgram(_))
    }
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(path) = text.strip_prefix("unix:") {
            return socket_path(path, "no path after \"unix:\"").map(Self::Unix);
        }
        if let Some(path) = text.strip_prefix("unixgram:") {
            return socket_path(path, "no path after \"unixgram:\"").map(Self::Unixgram);
        }
        let inet = |text: &str| text.parse::<SocketAddr>().map_err(|_| Invalid("not an address"));
        match text.strip_prefix("udp:") {
            Some(text) => match inet(text)? {
                // What comes there has been sent to many, and no answer could leave from it.
                address if is_of_many(address.ip()) => Err(Invalid("an address of many machines")),
                address => Ok(Self::Udp(address)),
            },
            None => inet(text).map(Self::Tcp),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp:{address}"),
            Self::Unixgram(path) => write!(f, "unixgram:{}", path.display()),
        }
    }
}

fn socket_path(path: &str, missing: &'static str) -> Result<PathBuf, Invalid> {
    match path {
        "" => Err(Invalid(missing)),
        path if path.contains('\0') => Err(Invalid("a NUL in the path")),
        path => Ok(PathBuf::from(path)),
    }
}

fn is_of_many(ip: IpAddr) -> bool {
    ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// What a listener serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServiceName {
    /// Static sites and fixed answers over HTTP.
    Web,
    /// The same over TLS is where everybody is sent to.
    Redirect,
    /// The message gateway.
    Gateway,
    /// Metrics, health, status.
    Admin,
    /// Sends back what comes.
    Echo,
    /// Reads and forgets.
    Discard,
    /// Tells the time.
    Daytime,
    /// Sends characters without end, or as many as came in a datagram.
    Chargen,
    /// A service of the program that uses the library (see
    /// [`LoadOptions::services`](super::LoadOptions::services)).
    Named(Name),
}

impl ServiceName {
    /// The word of the configuration file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Web => "web",
            Self::Redirect => "redirect",
            Self::Gateway => "gateway",
            Self::Admin => "admin",
            Self::Echo => "echo",
            Self::Discard => "discard",
            Self::Daytime => "daytime",
            Self::Chargen => "chargen",
            Self::Named(name) => name.as_str(),
        }
    }
}

impl FromStr for ServiceName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(match text {
            "web" => Self::Web,
            "redirect" => Self::Redirect,
            "gateway" => Self::Gateway,
            "admin" => Self::Admin,
            "echo" => Self::Echo,
            "discard" => Self::Discard,
            "daytime" => Self::Daytime,
            "chargen" => Self::Chargen,
            _ => Self::Named(text.parse()?),
        })
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where accounts are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Database {
    /// `"sqlite:/path"`.
    Sqlite(PathBuf),
}

impl FromStr for Database {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_prefix("sqlite:") {
            None => Err(Invalid("not a database")),
            Some("") => Err(Invalid("no path after \"sqlite:\"")),
            Some(path) if path.contains('\0') => Err(Invalid("a NUL in the path")),
            // A database in memory would be another one in every worker.
            Some(path) if path.starts_with(":memory:") => Err(Invalid("each worker would have its own")),
            Some(path) => Ok(Self::Sqlite(PathBuf::from(path))),
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

/// Which records are kept: `"info"`, or `"warn,tidegate_web=debug"` with a level per target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Levels {
    /// For targets that are not named.
    default: Level,
    /// A target is matched by the longest prefix here that ends at a `::`.
    targets: Vec<(String, Level)>,
}

impl Levels {
    /// The level of targets that are not named.
    #[must_use]
    pub const fn default_level(&self) -> Level {
        self.default
    }

    /// The named targets, in the order of the text.
    pub fn targets(&self) -> impl Iterator<Item = (&str, Level)> {
        self.targets.iter().map(|(target, level)| (target.as_str(), *level))
    }
}

impl FromStr for Levels {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let level = |word: &str| {
            serde_json::from_value(serde_json::Value::from(word)).map_err(|_| Invalid("not a level"))
        };
        let mut default = None;
        let mut targets = Vec::new();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None if default.is_some() => return Err(Invalid("two levels without a target")),
                None => default = Some(level(part)?),
                Some((target, word)) => {
                    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte);
                    if target.is_empty() || !target.bytes().all(known) {
                        return Err(Invalid("not a target"));
                    }
                    targets.push((target.to_owned(), level(word)?));
                }
            }
        }
        Ok(Self { default: default.unwrap_or(Level::Info), targets })
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.default.fmt(f)?;
        self.targets.iter().try_for_each(|(target, level)| write!(f, ",{target}={level}"))
    }
}

/// Reads by `FromStr`, and is written as the text that this function gives of it.
macro_rules! as_text {
    ($($name:ident by $text:expr,)+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let text: Result<String, Invalid> = $text(self);
                serializer.serialize_str(&text.map_err(S::Error::custom)?)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )+};
}

as_text! {
    Name by |name: &Name| Ok(name.to_string()),
    ServiceName by |name: &ServiceName| Ok(name.to_string()),
    Levels by |levels: &Levels| Ok(levels.to_string()),
    Address by |address: &Address| match address {
        Address::Tcp(address) => Ok(address.to_string()),
        Address::Unix(path) => prefixed("unix:", path),
        Address::Udp(address) => Ok(format!("udp:{address}")),
        Address::Unixgram(path) => prefixed("unixgram:", path),
    },
    Database by |Database::Sqlite(path): &Database| prefixed("sqlite:", path),
}

/// A path behind its scheme. `Display` would replace what is not UTF-8, and another path would come back.
fn prefixed(scheme: &str, path: &Path) -> Result<String, Invalid> {
    path.to_str().map(|path| format!("{scheme}{path}")).ok_or(Invalid("the path is not UTF-8"))
}

/// The longest path of a Unix socket: `sun_path` has 108 bytes, the last of which ends it (unix(7)).
pub const UNIX_PATH_MAX: usize = 107;
