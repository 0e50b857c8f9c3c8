//! The kinds of values that keys have, and how a TOML value becomes one.
//!
//! Invariant: what `read` returns is canonical (one spelling per value, in JSON) and deserialises into the
//! type of its key. It looks at one value alone and never at the file system; what depends on more is in
//! `check.rs`.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::cpus::CpuSet;
use super::error::Problem;
use super::nearest::nearest;
use super::nested::{self, Field};
use super::tls;
use super::units::{ByteSize, UnitError, format_duration, parse_duration};
use super::value::{Address, Database, Levels, Name, ServiceName};
use super::words::Level;

/// What the values of a key are, with their limits (both ends included).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    /// 0 stands for "the system's".
    IntOrZero {
        min: i64,
        max: i64,
    },
    IntOrAuto {
        min: i64,
        max: i64,
    },
    Duration {
        min: Duration,
        max: Duration,
    },
    /// From 1 ms; "0s" stands for "never".
    DurationOrOff {
        max: Duration,
    },
    Size {
        min: u64,
        max: u64,
    },
    Word(&'static [&'static str]),
    /// Made absolute; where empty is allowed, it stands for a default.
    Path {
        empty: bool,
    },
    /// At most so many bytes.
    Text {
        max: usize,
    },
    Name,
    Address,
    Service,
    UrlPath,
    HeaderValue,
    Database,
    Levels,
    CpuSets,
    /// A table with keys of its own: see `tls`.
    Tls,
    /// `example.com`, `*.example.com`, an address, or `*`: in lower case.
    HostPattern,
    /// `192.0.2.0/24`, `2001:db8::/32`, a single address, or `unix`.
    Network,
    /// A token (RFC 9110, section 5.6.2).
    HeaderName,
    /// What may stand in a `Location`.
    Location,
    /// `404`, `4xx` or `5xx`.
    ErrorStatus,
    /// A name of a file, without a folder.
    FileName,
    /// An array.
    List {
        of: &'static Self,
        max: usize,
    },
    /// A table with these fields.
    Record(&'static [Field]),
    /// An array of such tables.
    Records {
        fields: &'static [Field],
        max: usize,
    },
    /// A table whose names are free.
    Map {
        names: &'static Self,
        of: &'static Self,
        max: usize,
    },
}

/// What reading a value depends on.
#[derive(Debug)]
pub(crate) struct Context {
    /// What relative paths are relative to; `None` leaves them as they are.
    pub(crate) current_dir: Option<PathBuf>,
    /// Names of services besides those built in.
    pub(crate) services: Vec<String>,
}

impl Kind {
    /// Whether the values are strings in a file, so that a variable or `--set` needs no quotes around them.
    pub(crate) fn is_text(self) -> bool {
        !matches!(
            self,
            Self::Bool
                | Self::Int { .. }
                | Self::IntOrZero { .. }
                | Self::IntOrAuto { .. }
                | Self::CpuSets
                | Self::Tls
                | Self::List { .. }
                | Self::Record(_)
                | Self::Records { .. }
                | Self::Map { .. }
        )
    }

    /// The fields of the tables that the values are, or hold, if their names are fixed.
    pub(crate) fn field_names(self) -> Vec<&'static str> {
        match self {
            Self::Record(fields) | Self::Records { fields, .. } => {
                fields.iter().map(|field| field.name).collect()
            }
            Self::Tls => tls::NAMES.to_vec(),
            _ => Vec::new(),
        }
    }

    /// The canonical form of a value, or what is wrong with it.
    pub(crate) fn read(self, value: &DeValue<'_>, context: &Context) -> Result<Json, Problem> {
        match self {
            Self::Bool => value.as_bool().map(Json::from).ok_or_else(|| self.mistyped(value)),
            Self::Int { .. } | Self::IntOrZero { .. } => match value {
                DeValue::Integer(number) => self.integer(number),
                _ => Err(self.mistyped(value)),
            },
            Self::IntOrAuto { .. } => match value {
                DeValue::Integer(number) => self.integer(number),
                DeValue::String(word) if word == "auto" => Ok(Json::from("auto")),
                DeValue::String(word) => Err(unknown(word, ["auto"])),
                _ => Err(self.mistyped(value)),
            },
            Self::Size { min, max } => {
                let size = match value {
                    DeValue::Integer(number) => number.to_string().parse(),
                    DeValue::String(text) => text.parse(),
                    _ => return Err(self.mistyped(value)),
                };
                let size: ByteSize = size.map_err(|error| self.unreadable(value, &error))?;
                if !(min..=max).contains(&size.get()) {
                    return Err(out_of_range(size));
                }
                Ok(Json::from(size.to_string()))
            }
            Self::CpuSets => self.cpu_sets(value),
            Self::Tls => match value {
                DeValue::Table(table) => tls::read(table, context),
                _ => Err(self.mistyped(value)),
            },
            Self::List { of, max } => nested::list(of, max, value, context),
            Self::Record(fields) => nested::record(fields, value, context),
            Self::Records { fields, max } => nested::records(fields, max, value, context),
            Self::Map { names, of, max } => nested::map(names, of, max, value, context),
            _ => match value {
                DeValue::String(text) => self.text(text, context).map(Json::from),
                DeValue::Integer(number)
                    if matches!(self, Self::Duration { .. } | Self::DurationOrOff { .. }) =>
                {
                    Err(self.unreadable(value, &UnitError::NoUnit).near(Some(format!("\"{number}s\""))))
                }
                _ => Err(self.mistyped(value)),
            },
        }
    }

    /// What is allowed, in words, without the literals of later versions: the end of every message, and a
    /// column of the documentation.
    pub(crate) fn allowed(self, services: &[String], except: &[&str]) -> String {
        let one_of = |words: &[&str]| {
            let literals = words.iter().map(quote).filter(|literal| !except.contains(&literal.as_str()));
            one_of(&literals.collect::<Vec<String>>())
        };
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Int { min, max } => format!("a number from {min} to {max}"),
            Self::IntOrZero { min, max } => format!("0, or a number from {min} to {max}"),
            Self::IntOrAuto { min, max } => format!("\"auto\" or a number from {min} to {max}"),
            Self::Duration { min, max } => {
                format!("a duration from \"{}\" to \"{}\"", format_duration(min), format_duration(max))
            }
            Self::DurationOrOff { max } => {
                format!("\"0s\", or a duration from \"1ms\" to \"{}\"", format_duration(max))
            }
            Self::Size { min, max } => {
                format!("a size from \"{}\" to \"{}\"", ByteSize::new(min), ByteSize::new(max))
            }
            Self::Word(words) => one_of(words),
            Self::Path { empty: true } => "a path, or \"\"".to_owned(),
            Self::Path { empty: false } => "a path".to_owned(),
            Self::Text { max } => format!("a string of at most {max} bytes"),
            Self::Name => "1 to 32 of a-z, 0-9 and \"-\"".to_owned(),
            Self::Address => {
                "\"IP:port\", \"[IPv6]:port\", \"unix:/path\", \"udp:IP:port\" or \"unixgram:/path\""
                    .to_owned()
            }
            Self::Service => one_of(&services_known(services).collect::<Vec<&str>>()),
            Self::UrlPath => {
                "a path that begins with \"/\", of at most 1024 bytes, without \"?\", \"#\" and control \
                              characters"
                    .to_owned()
            }
            Self::HeaderValue => "1 to 256 visible ASCII characters and spaces".to_owned(),
            Self::Database => "\"sqlite:PATH\", or \"\"".to_owned(),
            Self::Levels => format!("{}, and \"target=level\" after commas", one_of(Level::WORDS)),
            Self::CpuSets => "an array of processor lists, as [\"0\", \"1-3,5\"]".to_owned(),
            Self::Tls => tls::ALLOWED.to_owned(),
            Self::HostPattern => "a host name, \"*.\" and a domain, an IP address, or \"*\"".to_owned(),
            Self::Network => "an IP address, a network as \"192.0.2.0/24\", or \"unix\"".to_owned(),
            Self::HeaderName => "a field name of letters, digits and \"-\", at most 64".to_owned(),
            Self::Location => {
                "a path that begins with \"/\", or an http or https URL, in visible ASCII".to_owned()
            }
            Self::ErrorStatus => "a status from 400 to 599, \"4xx\" or \"5xx\"".to_owned(),
            Self::FileName => "a file name of at most 255 bytes, without \"/\"".to_owned(),
            Self::List { of, max } => format!("an array of at most {max}; each: {}", of.allowed(&[], &[])),
            Self::Record(fields) => nested::fields(fields),
            Self::Records { fields, max } => {
                format!("an array of at most {max}; each: {}", nested::fields(fields))
            }
            Self::Map { of, max, .. } => {
                format!("a table of at most {max}; each value: {}", of.allowed(&[], &[]))
            }
        }
    }

    /// The kinds that are strings in TOML.
    fn text(self, text: &str, context: &Context) -> Result<String, Problem> {
        match self {
            Self::Duration { min, max } => self.duration(text, |duration| (min..=max).contains(&duration)),
            Self::DurationOrOff { max } => {
                let from = Duration::from_millis(1);
                self.duration(text, |duration| duration.is_zero() || (from..=max).contains(&duration))
            }
            Self::Word(words) if words.contains(&text) => Ok(text.to_owned()),
            Self::Word(words) => Err(unknown(text, words.iter().copied())),
            Self::Path { empty: true } if text.is_empty() => Ok(String::new()),
            Self::Path { .. } => absolute(text, context),
            Self::Text { max } if text.len() <= max => Ok(text.to_owned()),
            Self::Text { .. } => Err(Problem::new(format!("{} bytes are too many", text.len()))),
            Self::Name if text.parse::<Name>().is_ok() => Ok(text.to_owned()),
            Self::Address => self.address(text, context),
            Self::Service => Self::service(text, context),
            Self::UrlPath if is_url_path(text) => Ok(text.to_owned()),
            Self::HeaderValue if is_header_value(text) => Ok(text.to_owned()),
            Self::Database => self.database(text, context),
            Self::Levels => self.levels(text),
            Self::HostPattern => host_pattern(text),
            Self::Network => network(text),
            Self::HeaderName if is_header_name(text) => Ok(text.to_owned()),
            Self::Location if is_location(text) => Ok(text.to_owned()),
            Self::ErrorStatus if is_error_status(text) => Ok(text.to_owned()),
            Self::FileName if is_file_name(text) => Ok(text.to_owned()),
            _ => Err(Problem::new(format!("{} is not allowed", quote(text)))),
        }
    }

    fn integer(self, number: &DeInteger<'_>) -> Result<Json, Problem> {
        let value = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let fits = |value: i64| match self {
            Self::Int { min, max } | Self::IntOrAuto { min, max } => (min..=max).contains(&value),
            Self::IntOrZero { min, max } => value == 0 || (min..=max).contains(&value),
            _ => false,
        };
        value.filter(|value| fits(*value)).map(Json::from).ok_or_else(|| out_of_range(number))
    }

    fn duration(self, text: &str, fits: impl Fn(Duration) -> bool) -> Result<String, Problem> {
        let duration = parse_duration(text).map_err(|error| {
            let problem = Problem::new(format!("{} is not a duration: {error}", quote(text)));
            problem.near((error == UnitError::NoUnit).then(|| format!("\"{text}s\"")))
        })?;
        if !fits(duration) {
            return Err(out_of_range(quote(text)));
        }
        Ok(format_duration(duration))
    }

    fn address(self, text: &str, context: &Context) -> Result<String, Problem> {
        match text.parse() {
            Ok(Address::Tcp(address)) => Ok(address.to_string()),
            Ok(Address::Unix(path)) => Ok(format!("unix:{}", absolute_path(&path, context)?)),
            Ok(Address::Udp(address)) => Ok(format!("udp:{address}")),
            Ok(Address::Unixgram(path)) => Ok(format!("unixgram:{}", absolute_path(&path, context)?)),
            Err(error) => Err(Problem::new(format!("{}: {error}", quote(text)))
                .near(similar_address(text).filter(|near| *near != quote(text)))),
        }
    }

    fn service(text: &str, context: &Context) -> Result<String, Problem> {
        if services_known(&context.services).any(|known| known == text) && text.parse::<ServiceName>().is_ok()
        {
            return Ok(text.to_owned());
        }
        Err(unknown(text, services_known(&context.services)))
    }

    fn database(self, text: &str, context: &Context) -> Result<String, Problem> {
        if text.is_empty() {
            return Ok(String::new());
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Err(Problem::not_yet("a postgres:// database"));
        }
        match text.parse() {
            Ok(Database::Sqlite(path)) => Ok(format!("sqlite:{}", absolute_path(&path, context)?)),
            Err(error) => Err(Problem::new(format!("{}: {error}", quote(text)))),
        }
    }

    fn levels(self, text: &str) -> Result<String, Problem> {
        text.parse::<Levels>().map(|levels| levels.to_string()).map_err(|error| {
            let near = if text.contains(',') { None } else { nearest(text, Level::WORDS.iter().copied()) };
            Problem::new(format!("{}: {error}", quote(text))).near(near.map(quote))
        })
    }

    fn cpu_sets(self, value: &DeValue<'_>) -> Result<Json, Problem> {
        let elements = value.as_array().ok_or_else(|| self.mistyped(value))?;
        if elements.len() > MAX_CPU_SETS {
            return Err(Problem::new(format!("{} sets are too many", elements.len())));
        }
        let set = |element: &Spanned<DeValue<'_>>| match element.get_ref() {
            DeValue::String(text) => match text.parse::<CpuSet>() {
                Ok(set) => Ok(Json::from(set.to_string())),
                Err(error) => Err(Problem::new(format!("{}: {error}", quote(text)))),
            },
            other => Err(self.mistyped(other)),
        };
        elements.iter().map(set).collect()
    }

    fn mistyped(self, value: &DeValue<'_>) -> Problem {
        let found = match value.type_str() {
            kind @ ("integer" | "array") => format!("an {kind}"),
            kind => format!("a {kind}"),
        };
        Problem::new(format!("{found} is not allowed"))
    }

    fn unreadable(self, value: &DeValue<'_>, error: &UnitError) -> Problem {
        let found = match value {
            DeValue::String(text) => quote(text),
            DeValue::Integer(number) => number.to_string(),
            other => other.type_str().to_owned(),
        };
        let what = if matches!(self, Self::Size { .. }) { "size" } else { "duration" };
        Problem::new(format!("{found} is not a {what}: {error}"))
    }
}

fn out_of_range(found: impl std::fmt::Display) -> Problem {
    Problem::new(format!("{found} is out of range"))
}

fn unknown<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Problem {
    Problem::new(format!("unknown value {}", quote(text))).near(nearest(text, words).map(quote))
}

/// A canonical value as TOML: what JSON writes differently is tables.
pub(crate) fn literal(value: &Json) -> String {
    match value {
        Json::Null => "\"\"".to_owned(),
        Json::String(text) => quote(text),
        Json::Array(elements) => {
            format!("[{}]", elements.iter().map(literal).collect::<Vec<String>>().join(", "))
        }
        Json::Object(members) if members.is_empty() => "{}".to_owned(),
        Json::Object(members) => {
            let member = |(name, value): (&String, &Json)| {
                let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
                let is_bare = !name.is_empty() && name.bytes().all(bare);
                let name = if is_bare { name.clone() } else { quote(name) };
                format!("{name} = {}", literal(value))
            };
            format!("{{ {} }}", members.iter().map(member).collect::<Vec<String>>().join(", "))
        }
        // Numbers and booleans are the same in JSON and TOML.
        other => other.to_string(),
    }
}

/// A text as a TOML basic string on one line.
pub(crate) fn quote(text: impl AsRef<str>) -> String {
    let mut quoted = String::from("\"");
    for char in text.as_ref().chars() {
        match char {
            '"' | '\\' => quoted.extend(['\\', char]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            char if char.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(char));
            }
            char => quoted.push(char),
        }
    }
    quoted.push('"');
    quoted
}

/// `a, b or c`.
pub(crate) fn one_of(literals: &[impl AsRef<str>]) -> String {
    let literals: Vec<&str> = literals.iter().map(AsRef::as_ref).collect();
    match literals.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => literals.concat(),
    }
}

fn services_known(named: &[String]) -> impl Iterator<Item = &str> {
    SERVICES.iter().copied().chain(named.iter().map(String::as_str))
}

fn absolute(text: &str, context: &Context) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::new("an empty path".to_owned()));
    }
    if text.contains('\0') {
        return Err(Problem::new(format!("{}: a NUL in the path", quote(text))));
    }
    absolute_path(Path::new(text), context)
}

/// The path from the root on. It is lexical: symbolic links and `..` stay.
fn absolute_path(path: &Path, context: &Context) -> Result<String, Problem> {
    let joined = match &context.current_dir {
        Some(current_dir) => current_dir.join(path),
        None => path.to_owned(),
    };
    let path = if joined.is_absolute() { std::path::absolute(&joined).unwrap_or(joined) } else { joined };
    match path.to_str() {
        Some(text) if text.len() <= PATH_MAX => Ok(text.to_owned()),
        Some(text) => Err(Problem::new(format!("a path of {} bytes, more than {PATH_MAX}", text.len()))),
        None => Err(Problem::new("the current folder is not UTF-8: give an absolute path".to_owned())),
    }
}

/// What was meant by what people write in place of an address.
fn similar_address(text: &str) -> Option<String> {
    let (scheme, text) = text.strip_prefix("udp:").map_or(("", text), |text| ("udp:", text));
    let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
    let port: u16 = port.parse().ok()?;
    let host = match host {
        "localhost" => "127.0.0.1",
        "" | "*" => "0.0.0.0",
        host => host,
    };
    let plain = format!("{host}:{port}").parse::<SocketAddr>();
    plain
        .or_else(|_| format!("[{host}]:{port}").parse())
        .ok()
        .map(|address| quote(format!("{scheme}{address}")))
}

fn is_url_path(text: &str) -> bool {
    let fits = |char: char| !char.is_control() && char != '?' && char != '#';
    text.starts_with('/') && text.len() <= 1024 && text.chars().all(fits)
}

fn is_header_value(text: &str) -> bool {
    let fits = |byte: u8| (b' '..=b'~').contains(&byte);
    (1..=256).contains(&text.len()) && text.trim() == text && text.bytes().all(fits)
}

fn is_header_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}

fn is_error_status(text: &str) -> bool {
    let code = |text: &str| text.parse::<u16>().is_ok_and(|code| (400..=599).contains(&code));
    ["4xx", "5xx"].contains(&text) || (text.len() == 3 && code(text))
}

fn is_file_name(text: &str) -> bool {
    let special = |char: char| char == '/' || char.is_control();
    (1..=255).contains(&text.len()) && ![".", ".."].contains(&text) && !text.contains(special)
}

fn is_location(text: &str) -> bool {
    let rooted =
        text.starts_with('/') || ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    rooted
        && text.len() <= 2048
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

/// A host name as names are compared: in lower case, without the dot of the root.
fn host_pattern(text: &str) -> Result<String, Problem> {
    let wrong = |why: &str| Err(Problem::new(format!("{}: {why}", quote(text))));
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if lower == "*" || lower.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) {
        return Ok(lower);
    }
    let address = lower.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&lower);
    if let Ok(IpAddr::V6(address)) = address.parse() {
        return Ok(format!("[{address}]"));
    }
    let domain = lower.strip_prefix("*.").unwrap_or(&lower);
    let label = |label: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        (1..=63).contains(&label.len()) && label.bytes().all(fits)
    };
    match domain {
        _ if domain.contains(':') => wrong("a port does not belong here"),
        _ if !domain.is_ascii() => wrong("not ASCII: write the name in its \"xn--\" form"),
        _ if domain.len() > 253 || !domain.split('.').all(label) => wrong("not a host name"),
        _ => Ok(lower),
    }
}

/// An address or a network; what is behind its prefix has to be zero, for it would not mean what it seems to.
fn network(text: &str) -> Result<String, Problem> {
    let wrong = |why: String| Problem::new(format!("{}: {why}", quote(text)));
    if text == "unix" || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_owned());
    }
    let network: IpNet = text.parse().map_err(|_| wrong("not a network".to_owned()))?;
    if network.addr() != network.network() {
        let near = Some(quote(network.trunc().to_string()));
        return Err(wrong("there are bits behind the prefix".to_owned()).near(near));
    }
    Ok(network.to_string())
}

/// More than the loops of a large machine, and no more than can be read.
const MAX_CPU_SETS: usize = 1024;

/// The services a listener can name. One of them is of a later version; the schema says which.
const SERVICES: [&str; 9] =
    ["web", "redirect", "gateway", "admin", "echo", "discard", "daytime", "chargen", "syslog"];

/// The longest path that the kernel takes, see path_resolution(7).
const PATH_MAX: usize = 4095;
