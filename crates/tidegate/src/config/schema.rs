//! The table of keys: everything the configuration knows, once.
//!
//! Invariant: parsing, unknown-key detection, names of environment variables, `tidegate config` and the table
//! of docs/configuration.md are all derived from here, so they cannot disagree. It holds no code per key;
//! rules that involve more than one key are in `check.rs`.

use std::time::Duration;

use serde_json::Value as Json;
use toml::de::DeValue;

use super::MAX_WORKERS;
use super::error::Problem;
use super::kind::{Context, Kind, literal};
use super::nested::Field;
use super::words::{
    Accept, Acceptor, AccessLog, Backend, Balance, Dispatch, OnUnknown, RequestId, Timers, Trigger,
};

/// One key of the configuration.
#[derive(Debug)]
pub(crate) struct Key {
    /// `"process.workers"`; the key of an array's element is `"listen.address"`.
    pub(crate) path: &'static str,
    /// What its values are.
    pub(crate) kind: Kind,
    /// What it is when nobody says.
    pub(crate) default: Default,
    /// Which of its values this version serves.
    pub(crate) now: Now,
    /// Whether a reload applies a change; otherwise only a restart does.
    pub(crate) reload: bool,
    /// What it means, in a sentence.
    pub(crate) doc: &'static str,
}

impl Key {
    /// The last part of the path.
    pub(crate) fn name(&self) -> &'static str {
        split(self.path).1
    }

    /// The section it stands in; `""` for the top of the file.
    pub(crate) fn section(&self) -> &'static str {
        split(self.path).0
    }
}

impl Key {
    /// The canonical form of a value that this version serves, or what is wrong with it and what is allowed.
    pub(crate) fn read(&self, value: &DeValue<'_>, context: &Context) -> Result<Json, Problem> {
        let read = self.kind.read(value, context).and_then(|value| {
            let text = literal(&value);
            let served = match self.now {
                Now::All => true,
                Now::Except(literals) => !literals.contains(&text.as_str()),
            };
            if served { Ok(value) } else { Err(Problem::not_yet(&text)) }
        });
        read.map_err(|problem| {
            // What is wrong inside of it says itself what is allowed there.
            if problem.is_placed() { problem } else { problem.or_allowed(|| self.allowed(&context.services)) }
        })
    }

    /// What this version allows, in words.
    pub(crate) fn allowed(&self, services: &[String]) -> String {
        match self.now {
            Now::Except(literals) => self.kind.allowed(services, literals),
            Now::All => self.kind.allowed(services, &[]),
        }
    }
}

/// What a key is when nobody says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Default {
    /// This, in TOML.
    Value(&'static str),
    /// Empty, and something below `data_dir` in its place.
    Derived(&'static str),
    /// It has to be said.
    Required,
    /// It is absent.
    Absent,
}

/// Which values are served by this version. The others are refused, since ignoring them would be a lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Now {
    /// All.
    All,
    /// All but these (canonical TOML).
    Except(&'static [&'static str]),
}

/// A table of the file.
#[derive(Debug)]
pub(crate) struct Section {
    /// `"process"`, `"web.respond"`.
    pub(crate) path: &'static str,
    /// How many elements it may have when it is an array of tables.
    pub(crate) rows: Option<usize>,
    /// What it is about.
    pub(crate) doc: &'static str,
}

/// What a path names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    Key(&'static Key),
    Section(&'static Section),
}

/// What `name` is in `section`, if anything.
pub(crate) fn lookup(section: &str, name: &str) -> Option<Item> {
    let here = |path: &str| !path.is_empty() && split(path) == (section, name);
    let key = KEYS.iter().find(|key| here(key.path)).map(Item::Key);
    key.or_else(|| SECTIONS.iter().find(|section| here(section.path)).map(Item::Section))
}

/// The keys of one section, in order.
pub(crate) fn keys(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section() == section)
}

/// The names that may stand in a section: its keys and its subsections.
pub(crate) fn names(section: &str) -> impl Iterator<Item = &'static str> {
    let tables = SECTIONS.iter().map(|section| section.path).filter(|path| !path.is_empty());
    KEYS.iter()
        .map(|key| key.path)
        .chain(tables)
        .filter(move |path| split(path).0 == section)
        .map(|path| split(path).1)
}

/// What an empty key stands for, given the folder of everything.
pub(crate) fn derived(key: &Key, data_dir: &str) -> Option<String> {
    match key.default {
        Default::Derived(form) => Some(form.replace(DATA_DIR, data_dir)),
        _ => None,
    }
}

/// `("web", "root")` of `"web.root"`, `("", "data_dir")` of `"data_dir"`.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// Stands for the value of `data_dir` in `Default::Derived`.
const DATA_DIR: &str = "<data_dir>";
/// The array of listeners.
pub(crate) const LISTEN: &str = "listen";
/// The array of fixed answers.
pub(crate) const RESPOND: &str = "web.respond";
/// The array of sites.
pub(crate) const SITE: &str = "web.site";

/// The elements of the arrays when nobody says, as a file would have them.
pub(crate) const BUILT_IN_ROWS: &str = r#"
[[listen]]
name = "web"
address = "127.0.0.1:8080"
service = "web"

[[listen]]
name = "gateway"
address = "127.0.0.1:9000"
service = "gateway"

[[listen]]
name = "admin"
address = "127.0.0.1:8081"
service = "admin"

[[web.respond]]
path = "/hello"
body = "Hello, World!"
"#;

/// The sections in the order of the file. Each follows the one that holds it, as TOML wants it.
pub(crate) const SECTIONS: &[Section] = &[
    Section { path: "", rows: None, doc: "The top of the file." },
    Section { path: "process", rows: None, doc: "Master, workers, and how they start and stop." },
    Section { path: "engine", rows: None, doc: "The event loops of each worker." },
    Section {
        path: LISTEN,
        rows: Some(64),
        doc: "One table per listener. A file with any replaces the three built in.",
    },
    Section { path: "web", rows: None, doc: "The service `web`." },
    Section {
        path: RESPOND,
        rows: Some(256),
        doc: "One table per fixed answer. It matches the whole path, before files. A file with any replaces the one \
              built in; `respond = []` in `[web]` removes it.",
    },
    Section {
        path: SITE,
        rows: Some(256),
        doc: "One table per site: what is served under some names in place of what `[web]` says. A key that is the same in \
              `[web]` has its value from there when it is not said here.",
    },
    Section { path: "gateway", rows: None, doc: "The service `gateway`." },
    Section { path: "accounts", rows: None, doc: "Who may log in." },
    Section { path: "log", rows: None, doc: "Records, and the log server that keeps them." },
];

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86400);
const YEAR: Duration = Duration::from_secs(365 * 86400);
const MONTH: Duration = Duration::from_secs(30 * 86400);
const YEARS: Duration = Duration::from_secs(10 * 365 * 86400);
const MILLI: Duration = Duration::from_millis(1);

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// A key that a reload applies and of which all values are served: what most are.
const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default: Default::Value(default), now: Now::All, reload: true, doc }
}

impl Key {
    const fn now(self, now: Now) -> Self {
        Self { now, ..self }
    }

    const fn default(self, default: Default) -> Self {
        Self { default, ..self }
    }

    const fn restart(self) -> Self {
        Self { reload: false, ..self }
    }
}

/// A field that has to be there.
const fn required(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, default: Default::Required }
}

/// A field that has a default.
const fn optional(name: &'static str, kind: Kind, default: &'static str) -> Field {
    Field { name, kind, default: Default::Value(default) }
}

const CACHE_CONTROL: &[Field] =
    &[required("files", Kind::Text { max: 256 }), required("value", Kind::HeaderValue)];
const REDIRECT: &[Field] = &[
    required("from", Kind::UrlPath),
    required("to", Kind::Location),
    optional("status", Kind::Int { min: 301, max: 308 }, "308"),
];
const BASIC_AUTH: &[Field] = &[
    optional("realm", Kind::HeaderValue, r#""Restricted""#),
    required("users", Kind::Path { empty: false }),
    optional("max_failures", Kind::Int { min: 0, max: 1_000_000 }, "10"),
];
const LIMIT_REQUESTS: &[Field] = &[
    required("rate", Kind::Int { min: 1, max: 1_000_000 }),
    optional("burst", Kind::Int { min: 1, max: 1_000_000 }, "1"),
];
const HSTS: &[Field] = &[
    optional("max_age", Kind::Duration { min: Duration::ZERO, max: YEARS }, r#""365d""#),
    optional("subdomains", Kind::Bool, "false"),
    optional("preload", Kind::Bool, "false"),
];

/// Every key, section by section.
#[rustfmt::skip]
pub(crate) const KEYS: &[Key] = &[
    key("data_dir", Kind::Path { empty: false }, r#""tidegate-data""#,
        "The folder of everything the server keeps; made at the start when it is missing.").restart(),

    key("process.workers", Kind::IntOrAuto { min: 0, max: MAX_WORKERS as i64 }, r#""auto""#,
        "Worker processes. `\"auto\"`: one per processor; 0: everything in one process."),
    key("process.accept", Kind::Word(Accept::WORDS), r#""reuseport""#,
        "How connections come to workers: each has sockets of its own, all poll the same one, or a process accepts and hands them over. Unix sockets are always shared or handed over."),
    key("process.daemon", Kind::Bool, "false", "Leave the terminal and run in the background, as `tidegate start` does.").restart(),
    key("process.pid_file", Kind::Path { empty: true }, r#""""#, "Where the master writes its process id.")
        .default(Default::Derived("<data_dir>/tidegate.pid")).restart(),
    key("process.control_socket", Kind::Path { empty: true }, r#""""#,
        "The socket of `tidegate status` and the other commands, mode 0600.")
        .default(Default::Derived("<data_dir>/control.sock")).restart(),
    key("process.user", Kind::Text { max: 256 }, r#""""#,
        "The user that the children become when started as root; the master keeps its own.").restart(),
    key("process.shutdown_timeout", Kind::Duration { min: Duration::ZERO, max: DAY }, r#""30s""#,
        "`QUIT`: what is still open after it is closed with a reason."),
    key("process.shutdown_delay", Kind::Duration { min: Duration::ZERO, max: HOUR }, r#""0s""#,
        "`/readyz` says 503 this long before accepting stops."),
    key("process.drain_timeout", Kind::DurationOrOff { max: MONTH }, r#""0s""#,
        "How long a retired generation may drain; `\"0s\"`: no limit."),
    key("process.max_generations", Kind::Int { min: 1, max: 64 }, "8",
        "Generations of workers at a time; a reload beyond it waits for the oldest to end."),
    key("process.hang_timeout", Kind::DurationOrOff { max: HOUR }, r#""30s""#,
        "A worker whose loop has not turned for this long is replaced; `\"0s\"`: never."),
    key("process.max_open_files", Kind::IntOrZero { min: 64, max: 1_000_000_000 }, "0",
        "The limit of open descriptors per process; 0: the soft limit is raised to the hard one.").restart(),

    key("engine.backend", Kind::Word(Backend::WORDS), r#""auto""#,
        "The kernel interface under the loops. `\"auto\"`: what was measured to be no slower, which is epoll; `\"uring\"` falls back to epoll, with a record, where the kernel cannot do all that is needed."),
    key("engine.trigger", Kind::Word(Trigger::WORDS), r#""edge""#,
        "How connections are registered with epoll: reported while ready, when they become ready, or once at a time."),
    key("engine.dispatch", Kind::Word(Dispatch::WORDS), r#""inline""#, "Which threads run the handlers: the loop; a pool that gets complete messages; a pool that reads, handles and writes what the loop finds ready; or threads that take turns in waiting and do the rest themselves."),
    key("engine.loops", Kind::Int { min: 1, max: 256 }, "1", "Event loops per worker, each on a thread of its own; they share `max_connections` evenly."),
    key("engine.acceptor", Kind::Word(Acceptor::WORDS), r#""each""#,
        "Who accepts: each loop for itself, or in each worker an acceptor, on a thread of its own, for all of its loops."),
    key("engine.balance", Kind::Word(Balance::WORDS), r#""round-robin""#,
        "Who gets the next connection when one accepts for others: each in turn, whoever has fewest, or always the same for a peer's address. Who is full is passed over."),
    key("engine.pool_threads", Kind::IntOrAuto { min: 1, max: 1024 }, r#""auto""#,
        "Threads of the pool, per worker, when `engine.dispatch` has one; `\"auto\"`: one per processor."),
    key("engine.timers", Kind::Word(Timers::WORDS), r#""wheel""#,
        "The data structure of deadlines and timers; the wheel is the fastest for the mix that a server has."),
    key("engine.max_connections", Kind::Int { min: 1, max: 1_000_000 }, "10000",
        "Connections per worker; the tables grow as needed up to it."),
    key("engine.max_buffer_bytes", Kind::Size { min: MIB, max: 64 * GIB }, r#""256MiB""#,
        "What the connections of a worker may hold in memory, input and output, before the slowest reader is closed. See docs/operations.md, *Memory*."),
    key("engine.idle_timeout", Kind::DurationOrOff { max: MONTH }, r#""10m""#,
        "A connection of the services `echo` and `discard` without a byte for this long is closed; `\"0s\"`: never."),
    key("engine.stall_after", Kind::DurationOrOff { max: HOUR }, r#""1s""#,
        "A loop whose turn takes longer is reported, with what it is in; `\"0s\"`: never."),
    key("engine.thread_stack", Kind::Size { min: 64 * KIB, max: GIB }, r#""1MiB""#,
        "Stack of each thread that runs a loop, or belongs to a pool of one."),
    key("engine.cpu_affinity", Kind::CpuSets, "[]",
        "The processors of each loop: `[\"0\", \"1-3,5\"]`. Loops are counted over all workers, and take the sets in turn; `[]`: no binding."),
    key("engine.nice", Kind::Int { min: -20, max: 19 }, "0",
        "Niceness of the threads that run loops and their pools, see nice(2); 0: as the server was started. Below that it needs `CAP_SYS_NICE`, or room in `RLIMIT_NICE`."),

    key("listen.name", Kind::Name, r#""""#, "What logs, metrics and `--set listen.NAME.…` call it. Unique.")
        .default(Default::Required),
    key("listen.address", Kind::Address, r#""""#,
        "Port 0 takes a free one and keeps it over reloads. No two alike, but for port 0. What begins with `udp:` or `unixgram:` is for datagrams.")
        .default(Default::Required),
    key("listen.service", Kind::Service, r#""""#, "What it serves. `echo`, `discard`, `daytime` and `chargen` serve datagrams too.")
        .default(Default::Required).now(Now::Except(&[r#""syslog""#])),
    key("listen.backlog", Kind::Int { min: 1, max: 65535 }, "4096",
        "Connections that wait to be accepted, per socket, see listen(2)."),
    key("listen.nodelay", Kind::Bool, "true",
        "What is sent leaves at once (`TCP_NODELAY`); `false`: a small segment waits for the acknowledgement of the one before it."),
    key("listen.keepalive", Kind::DurationOrOff { max: Duration::from_secs(9 * 3600) }, "",
        "Silence after which the kernel asks whether the peer is there (`TCP_KEEPIDLE`, in whole seconds), five times, a fifth of it apart, but 1 s to 75 s; `\"0s\"`: never. When nobody says: `\"60s\"` for `web` and `admin`, `\"0s\"` for the others.")
        .default(Default::Absent),
    key("listen.user_timeout", Kind::DurationOrOff { max: DAY }, "",
        "How long what was sent may stay unacknowledged, or the peer's window shut, before the kernel gives the connection up (`TCP_USER_TIMEOUT`); `\"0s\"`: as long as the kernel tries, about a quarter of an hour. When nobody says: `\"60s\"` for `web` and `admin`, `\"0s\"` for the others.")
        .default(Default::Absent),
    key("listen.linger", Kind::Duration { min: Duration::ZERO, max: HOUR }, "",
        "`\"0s\"`: every end is a reset, which leaves no TIME_WAIT and loses what the peer has not received (`SO_LINGER`). Longer times are refused: close(2) would keep the loop waiting for so long.")
        .default(Default::Absent),
    key("listen.receive_buffer", Kind::Size { min: 0, max: GIB }, "0",
        "The kernel's receive buffer of each connection, or of a socket for datagrams (`SO_RCVBUF`); the kernel doubles it, and caps it at twice `net.core.rmem_max`, which is logged; 0: it sizes it as needed."),
    key("listen.send_buffer", Kind::Size { min: 0, max: GIB }, "0",
        "The kernel's send buffer of each connection (`SO_SNDBUF`), as `receive_buffer` with `net.core.wmem_max`; 0: it sizes it as needed."),
    key("listen.max_unsent", Kind::Size { min: 0, max: GIB }, "",
        "What may wait in the kernel to be sent for the first time (`TCP_NOTSENT_LOWAT`): what a peer that does not read costs there, some megabytes without it. `\"0B\"`: as `net.ipv4.tcp_notsent_lowat` says. When nobody says: `\"128KiB\"` with `tls`, `\"0B\"` without, where large files to fast peers would cost more calls.")
        .default(Default::Absent),
    key("listen.tls", Kind::Tls, "",
        "TLS, as `{ cert = \"a.pem\", key = \"a.key\" }`. See docs/configuration.md, *TLS*.").default(Default::Absent),
    key("listen.proxy_protocol", Kind::Bool, "false",
        "Each connection begins with a header of the PROXY protocol, version 1 or 2, and its peer is whom that names. Whoever reaches such a listener can name any address: let nobody but the balancer."),

    key("web.root", Kind::Path { empty: true }, r#""""#,
        "The folder that is served; it must exist. `\"\"`: the built-in welcome site."),
    key("web.keep_alive", Kind::Duration { min: MILLI, max: DAY }, r#""75s""#,
        "How long a connection may wait for its next request."),
    key("web.head_timeout", Kind::Duration { min: MILLI, max: HOUR }, r#""15s""#,
        "How long the head of a request may take from its first byte to its last."),
    key("web.handshake_timeout", Kind::Duration { min: MILLI, max: HOUR }, r#""10s""#,
        "How long the TLS handshake of a connection may take, where `listen.tls` does not say otherwise."),
    key("web.min_rate", Kind::Int { min: 0, max: 1_000_000_000 }, "500",
        "Bytes per second that a request's body, or an answer that waits for the client, has to make; a slower body is told 408, a slower reader is reset. 0: any rate will do."),
    key("web.min_rate_grace", Kind::Duration { min: MILLI, max: HOUR }, r#""5s""#,
        "How long a body or an answer may take before its rate is looked at."),
    key("web.max_connections_per_address", Kind::Int { min: 0, max: 1_000_000 }, "0",
        "Connections that one address may have at a time with all workers; one more is reset. An IPv6 address counts by its first 64 bits. 0: no limit."),
    key("web.api", Kind::Bool, "false",
        "Registering and logging in with the accounts of the gateway, under `/api`: see docs/api.md."),
    key("web.api_session_lifetime", Kind::Duration { min: SECOND, max: YEAR }, r#""7d""#,
        "How long somebody stays logged in."),
    key("web.api_sign_window", Kind::Duration { min: SECOND, max: DAY }, r#""5m""#,
        "How far the time of a signed login may be from the server's, before and after."),
    key("web.api_max_failures", Kind::Int { min: 1, max: 1_000_000 }, "10",
        "Failed logins for a name from an address within 15 minutes; ten times as many for a name from anywhere, and from an address for any name. Further ones are answered with 429."),
    key("web.api_max_registrations", Kind::Int { min: 0, max: 1_000_000 }, "20",
        "Accounts that an address may ask for within an hour, whether it gets them or not; further ones are answered with 429. 0: no limit."),

    key("web.index", Kind::List { of: &Kind::FileName, max: 16 }, r#"["index.html"]"#,
        "The files that stand for their folder, in the order in which they are looked for."),
    key("web.try_files", Kind::List { of: &Kind::Text { max: 1024 }, max: 16 }, "[]",
        "What is tried in turn for a path: `$uri` and `$uri.html` are files, `$uri/` the folder, `/index.html` always that file, `=404` at the end a status. `[]`: the file or the folder of the path."),
    key("web.autoindex", Kind::Bool, "false", "A folder without an index is answered with a list of its files, as HTML or JSON."),
    key("web.cache_control", Kind::Records { fields: CACHE_CONTROL, max: 64 }, "[]",
        "The `Cache-Control` of files, by glob: `[{ files = \"*.css\", value = \"max-age=3600\" }]`. The first that matches counts; without a slash a glob is for the name in whatever folder."),
    key("web.error_pages", Kind::Map { names: &Kind::ErrorStatus, of: &Kind::UrlPath, max: 64 }, "{}",
        "Files under the root that answer errors: `{ 404 = \"/404.html\", 5xx = \"/sorry.html\" }`. Read when the workers start, at most 256 KiB each."),
    key("web.compress", Kind::Bool, "true", "Text is compressed for clients that take it."),
    key("web.precompressed", Kind::Bool, "false",
        "`FILE.br`, `FILE.zst` and `FILE.gz` are sent in place of `FILE` to clients that take them."),
    key("web.dot_files", Kind::Bool, "false", "Names that begin with a dot are served; otherwise they are a 404, but for `.well-known`."),
    key("web.max_cached_files", Kind::Int { min: 1, max: 1_000_000 }, "1024",
        "Files that are kept open or in memory, for each site in each loop."),
    key("web.max_cached_bytes", Kind::Size { min: 0, max: 64 * GIB }, r#""32MiB""#,
        "What these may take of memory, for each site in each loop: small files, and what has been compressed."),
    key("web.max_ranges", Kind::Int { min: 0, max: 1024 }, "16",
        "Ranges that a request may ask for; who asks for more gets the whole file. 0: ranges are not served."),
    key("web.max_head_bytes", Kind::Size { min: KIB, max: MIB }, r#""16KiB""#,
        "The head of a request; more is a 431."),
    key("web.max_fields", Kind::Int { min: 1, max: 10_000 }, "100", "Fields of a request; more are a 431."),
    key("web.max_target_bytes", Kind::Size { min: 64, max: MIB }, r#""8KiB""#,
        "The target of a request; more is a 414. Not more than `web.max_head_bytes`."),
    key("web.max_body_bytes", Kind::Size { min: 0, max: TIB }, r#""10MiB""#, "The body of a request; more is a 413."),
    key("web.max_overhead_bytes", Kind::Size { min: 64, max: MIB }, r#""4KiB""#,
        "What says nothing in a request: empty lines before it, chunk extensions and trailers, in all."),
    key("web.max_requests_per_connection", Kind::Int { min: 0, max: 1_000_000_000 }, "0",
        "Requests of a connection, the last of which ends it; 0: no limit."),
    key("web.trusted_proxies", Kind::List { of: &Kind::Network, max: 1024 }, "[]",
        "Who is believed in `X-Forwarded-For` and `X-Forwarded-Proto`: balancers, by their addresses. With them the client's address is the last one in the list that is not trusted."),
    key("web.access_log", Kind::Word(AccessLog::WORDS), r#""off""#,
        "Whether requests are recorded, with the target `tidegate_web::access`: as lines of the combined format, or with attributes. See docs/operations.md, *Access log*."),
    key("web.access_log_sample", Kind::Int { min: 1, max: 1_000_000_000 }, "1", "One in so many requests is recorded."),
    key("web.request_id", Kind::Word(RequestId::WORDS), r#""off""#,
        "The field `X-Request-Id` of answers: none, a new one for each request, or the one that the request came with if it can be one."),
    key("web.https_port", Kind::Int { min: 1, max: 65535 }, "443",
        "The port that listeners of the service `redirect` send their clients to."),

    key("web.site.hosts", Kind::List { of: &Kind::HostPattern, max: 256 }, "[]",
        "The names: `example.com`, `*.example.com` for all below it, `*` or none for what no other site has. The nearest counts."),
    key("web.site.listeners", Kind::List { of: &Kind::Name, max: 64 }, "[]",
        "The listeners that have the site; `[]`: all of the service `web`."),
    key("web.site.root", Kind::Path { empty: true }, "", "The folder that is served; `\"\"`: none.").default(Default::Absent),
    key("web.site.index", Kind::List { of: &Kind::FileName, max: 16 }, "", "As in `[web]`.").default(Default::Absent),
    key("web.site.try_files", Kind::List { of: &Kind::Text { max: 1024 }, max: 16 }, "", "As in `[web]`.")
        .default(Default::Absent),
    key("web.site.autoindex", Kind::Bool, "", "As in `[web]`.").default(Default::Absent),
    key("web.site.cache_control", Kind::Records { fields: CACHE_CONTROL, max: 64 }, "", "As in `[web]`.")
        .default(Default::Absent),
    key("web.site.error_pages", Kind::Map { names: &Kind::ErrorStatus, of: &Kind::UrlPath, max: 64 }, "",
        "As in `[web]`.").default(Default::Absent),
    key("web.site.compress", Kind::Bool, "", "As in `[web]`.").default(Default::Absent),
    key("web.site.precompressed", Kind::Bool, "", "As in `[web]`.").default(Default::Absent),
    key("web.site.dot_files", Kind::Bool, "", "As in `[web]`.").default(Default::Absent),
    key("web.site.redirects", Kind::Records { fields: REDIRECT, max: 1024 }, "[]",
        "Paths that are somewhere else, tried in this order before files: `[{ from = \"/old/*\", to = \"https://example.com/new/*\", status = 301 }]`. What `*` stands for is put in; the query stays."),
    key("web.site.headers", Kind::Map { names: &Kind::HeaderName, of: &Kind::HeaderValue, max: 64 }, "{}",
        "Fields that every answer gets which has none of this name; `Vary` is added to what an answer says itself."),
    key("web.site.allow", Kind::List { of: &Kind::Network, max: 1024 }, "[]",
        "Who is let in; others are told 403, unless this is empty. The longest prefix in `allow` and `deny` counts."),
    key("web.site.deny", Kind::List { of: &Kind::Network, max: 1024 }, "[]", "Who is told 403."),
    key("web.site.basic_auth", Kind::Record(BASIC_AUTH), "",
        "Asks for a name and a password: `{ realm = \"…\", users = \"FILE\" }`, the file with lines that `tidegate password` prints. Read when the workers start. `max_failures`: wrong passwords for a name from an address within 15 minutes, ten times as many from an address for any name; further ones are a 429; 0: no limit.")
        .default(Default::Absent),
    key("web.site.limit_rate", Kind::Size { min: 0, max: GIB }, r#""0B""#,
        "Bytes per second of the bodies of a connection; 0: no limit."),
    key("web.site.limit_requests", Kind::Record(LIMIT_REQUESTS), "",
        "How often an address may ask, per second in the long run, and at once after a pause; more is a 429. A /64 of IPv6 counts as one.")
        .default(Default::Absent),
    key("web.site.hsts", Kind::Record(HSTS), "",
        "`Strict-Transport-Security`: tells browsers over TLS to come over TLS only.").default(Default::Absent),

    key("web.respond.path", Kind::UrlPath, r#""""#, "The path it answers. Unique.").default(Default::Required),
    key("web.respond.status", Kind::Int { min: 200, max: 599 }, "200", "The status code."),
    key("web.respond.body", Kind::Text { max: 65536 }, r#""""#, "The body, at most 65536 bytes."),
    key("web.respond.content_type", Kind::HeaderValue, r#""text/plain; charset=utf-8""#, "The media type."),

    key("gateway.heartbeat_interval", Kind::DurationOrOff { max: DAY }, r#""60s""#,
        "A connection is closed after 2 × this + 10 s without a complete valid frame; `\"0s\"`: never."),
    key("gateway.max_queued_frames", Kind::Int { min: 1, max: 1_000_000 }, "400",
        "Frames to a client that the kernel has not taken; with more the connection is closed."),
    key("gateway.max_frames_per_second", Kind::Int { min: 0, max: 1_000_000 }, "0",
        "Frames that a client may send per second; 0: no limit."),
    key("gateway.on_unknown", Kind::Word(OnUnknown::WORDS), r#""drop""#, "What a frame without a handler does."),

    key("accounts.database", Kind::Database, r#""""#, "Where accounts are kept: `sqlite:PATH`. **Not yet**: `postgres://…`.")
        .default(Default::Derived("sqlite:<data_dir>/accounts.db")),
    key("accounts.threads", Kind::Int { min: 1, max: 64 }, "2",
        "Threads per worker that hash passwords and ask the database."),
    key("accounts.queue", Kind::Int { min: 1, max: 65536 }, "256",
        "Logins per worker that wait for such a thread; further ones are refused at once."),

    key("log.level", Kind::Levels, r#""info""#,
        "What is kept: a level, and levels for targets: `\"warn,tidegate_web=debug\"`."),
    key("log.dir", Kind::Path { empty: true }, r#""""#, "The folder of the files of JSON lines, and of nothing else.")
        .default(Default::Derived("<data_dir>/log")).restart(),
    key("log.socket", Kind::Path { empty: true }, r#""""#, "Where the log server receives records.")
        .default(Default::Derived("<data_dir>/log.sock")).restart(),
    key("log.max_file_bytes", Kind::Size { min: 4 * KIB, max: TIB }, r#""64MiB""#,
        "The largest file; the next one is begun then, and each day.").restart(),
    key("log.max_total_bytes", Kind::Size { min: 4 * KIB, max: 1024 * TIB }, r#""1GiB""#,
        "All files together; the oldest go first. Not less than `log.max_file_bytes`.").restart(),
    key("log.client_buffer", Kind::Size { min: 4 * KIB, max: GIB }, r#""1MiB""#,
        "Records of one process that wait for the log server; further ones are dropped and counted."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::overlay::{RESERVED_ENV, RESERVED_ENV_PREFIXES, env_name};
    use super::*;

    const CONTEXT: Context = Context { current_dir: None, services: Vec::new() };

    fn canonical(key: &Key, text: &str) -> String {
        let value = DeValue::parse(text).unwrap_or_else(|error| panic!("{}: {error}", key.path));
        literal(&key.kind.read(value.get_ref(), &CONTEXT).unwrap_or_else(|_| panic!("{}: {text}", key.path)))
    }

    #[test]
    fn defaults_are_served() {
        for key in KEYS {
            if let Default::Value(text) = key.default {
                assert_eq!(canonical(key, &canonical(key, text)), canonical(key, text), "{}", key.path);
                let value = DeValue::parse(text).unwrap();
                assert!(key.read(value.get_ref(), &CONTEXT).is_ok(), "{}", key.path);
            }
        }
    }

    #[test]
    fn literals_of_later_versions_are_values_of_their_keys() {
        for key in KEYS {
            if let Now::Except(literals) = key.now {
                for text in literals {
                    assert_eq!(canonical(key, text), *text, "{}", key.path);
                }
            }
        }
    }

    #[test]
    fn paths_and_variables_are_unique_and_not_reserved() {
        let sections = SECTIONS.iter().map(|section| section.path);
        let paths: Vec<&str> = KEYS.iter().map(|key| key.path).chain(sections).collect();
        let unique: BTreeSet<String> = paths.iter().map(|path| env_name(path)).collect();
        assert_eq!(unique.len(), paths.len());
        for name in unique {
            assert!(!RESERVED_ENV.contains(&name.as_str()), "{name}");
            assert!(!RESERVED_ENV_PREFIXES.iter().any(|prefix| name.starts_with(prefix)), "{name}");
        }
    }

    #[test]
    fn every_key_stands_in_a_section_and_ends_its_sentence() {
        for key in KEYS {
            assert!(SECTIONS.iter().any(|section| section.path == key.section()), "{}", key.path);
            assert!(key.doc.ends_with(['.', '`']), "{}", key.path);
        }
    }
}
