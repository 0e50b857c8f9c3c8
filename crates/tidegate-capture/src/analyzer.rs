//! `Analyzer`: which connection a packet belongs to, and what all of them come to.
//!
//! Invariant: everything that grows with the file has a limit: connections at a time, those listed, kinds of messages, and
//! data that waits for what comes before it. What is beyond one is still in the totals.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

use crate::connection::{Connection, Sink};
use crate::dialogue::{Exchange, Protocol, ProtocolChoice};
use crate::file::{CaptureError, CaptureFile, Packet};
use crate::finding::{Counts, Finding, Side};
use crate::packet::{Segment, Skip, decode};
use crate::report::{ConnectionReport, FileReport, MessageReport, Report, TotalReport};
use crate::rtt::RttReport;
use crate::sample::{Course, Spread};

/// What is asked of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Only connections to this port, which is then known to be the server's.
    pub port: Option<u16>,
    /// Which protocols are looked for in the data.
    pub protocol: ProtocolChoice,
    /// How many connections are listed.
    pub listed: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { port: None, protocol: ProtocolChoice::Auto, listed: 1_000 }
    }
}

/// Takes packets, and tells what they come to.
///
/// ```
/// use tidegate_capture::{Analyzer, Options};
///
/// let report = Analyzer::new(Options::default()).finish();
/// assert_eq!(report.total.connections, 0);
/// ```
#[derive(Debug)]
pub struct Analyzer {
    options: Options,
    /// By the two ends, the lesser one first.
    connections: HashMap<(SocketAddr, SocketAddr), Connection>,
    file: FileReport,
    last_ns: u64,
    /// Data that waits, in bytes.
    waiting: usize,
    found: Vec<Finding>,
    exchanges: Vec<(Exchange, Option<u64>)>,
    total: Total,
    listed: Vec<ConnectionReport>,
}

#[derive(Debug, Default)]
struct Total {
    connections: u64,
    handshake: Spread,
    rtts: [Spread; 2],
    differences: [Spread; 2],
    courses: [Course; 2],
    counts: [Counts; 2],
    messages: HashMap<(Protocol, String), Times>,
}

#[derive(Debug, Default)]
struct Times {
    to_first: Spread,
    to_last: Spread,
    thinking: Spread,
}

/// Connections that are followed at the same time.
const MAX_CONNECTIONS: usize = 16_384;
/// Data that waits for what comes before it, in all connections.
const MAX_WAITING: usize = 64 << 20;
/// Kinds of messages; all beyond are one.
const MAX_KINDS: usize = 256;
const OTHER_KINDS: &str = "(others)";

/// Reads a capture file and tells what it comes to. Damage behind the head of the file is told in the report, with what was
/// read before it.
///
/// # Errors
///
/// [`CaptureError`] when the file cannot be opened or is none.
///
/// ```no_run
/// let report = tidegate_capture::analyse("web.pcapng".as_ref(), &tidegate_capture::Options::default())?;
/// for message in &report.messages {
///     println!("{} {} ns", message.what, message.to_first_byte.p99_ns);
/// }
/// # Ok::<(), tidegate_capture::CaptureError>(())
/// ```
pub fn analyse(path: &Path, options: &Options) -> Result<Report, CaptureError> {
    let file = File::open(path).map_err(CaptureError::Open)?;
    analyse_from(file, options, &mut |_, _| {})
}

/// The same from any source, and tells each finding with the number of its packet.
///
/// # Errors
///
/// [`CaptureError`] when it is no capture.
pub fn analyse_from(
    source: impl Read,
    options: &Options,
    watch: &mut dyn FnMut(u64, Finding),
) -> Result<Report, CaptureError> {
    let mut file = CaptureFile::open(source)?;
    let mut analyzer = Analyzer::new(*options);
    analyzer.file.format = file.format();
    loop {
        match file.next_packet() {
            Ok(Some(packet)) => {
                let number = packet.number;
                analyzer.take(&packet).iter().for_each(|finding| watch(number, *finding));
            }
            Ok(None) => return Ok(analyzer.finish()),
            Err(error) => {
                analyzer.file.damage = Some(describe(&error));
                return Ok(analyzer.finish());
            }
        }
    }
}

fn describe(error: &CaptureError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Analyzer {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            connections: HashMap::new(),
            file: FileReport::default(),
            last_ns: 0,
            waiting: 0,
            found: Vec::new(),
            exchanges: Vec::new(),
            total: Total::default(),
            listed: Vec::new(),
        }
    }

    /// Takes the next packet, and returns what it was found to be.
    pub fn take(&mut self, packet: &Packet<'_>) -> &[Finding] {
        self.found.clear();
        self.count(packet);
        match decode(packet) {
            Ok(segment) => self.take_segment(&segment),
            Err(Skip::Other) => self.file.other_protocols += 1,
            Err(Skip::Fragment) => self.file.fragments += 1,
            Err(Skip::Broken) => self.file.broken += 1,
            Err(Skip::Link(link)) => {
                self.file.unknown_links += 1;
                self.file.unknown_link.get_or_insert(link);
            }
        }
        &self.found
    }

    fn count(&mut self, packet: &Packet<'_>) {
        if self.file.packets == 0 {
            (self.file.first_ns, self.last_ns) = (packet.time_ns, packet.time_ns);
        }
        self.file.packets += 1;
        self.last_ns = self.last_ns.max(packet.time_ns);
    }

    fn take_segment(&mut self, segment: &Segment<'_>) {
        let is_asked_for = |port| segment.from.port() == port || segment.to.port() == port;
        if !self.options.port.is_none_or(is_asked_for) {
            self.file.other_connections += 1;
            return;
        }
        self.file.segments += 1;
        let key = (segment.from.min(segment.to), segment.from.max(segment.to));
        if self.connections.get(&key).is_some_and(|connection| connection.is_over_for(segment))
            && let Some(mut connection) = self.connections.remove(&key)
        {
            self.end(&mut connection);
        }
        if self.connections.len() == MAX_CONNECTIONS && !self.connections.contains_key(&key) {
            self.make_room();
        }
        let (port, choice) = (self.options.port, self.options.protocol);
        let connection = self.connections.entry(key).or_insert_with(|| {
            let (client, server) = ends(segment, port);
            Connection::new(client, server, segment.time_ns, choice)
        });
        let before = connection.waiting();
        let room = MAX_WAITING.saturating_sub(self.waiting - before);
        let mut sink =
            Sink { found: &mut self.found, difference_ns: None, exchanges: &mut self.exchanges, room };
        connection.take(segment, &mut sink);
        let difference_ns = sink.difference_ns;
        self.waiting = self.waiting - before + connection.waiting();
        let side = connection.side(segment);
        self.total.note(side, segment.time_ns, &self.found, difference_ns);
        self.total.answered(&mut self.exchanges);
    }

    /// Takes connections off the list: those that have ended, or else those of which nothing came for the longest time.
    fn make_room(&mut self) {
        let mut times: Vec<u64> = self.connections.values().map(Connection::last_ns).collect();
        let quarter = times.len() / 4;
        let (_, oldest, _) = times.select_nth_unstable(quarter);
        let oldest = *oldest;
        let has_over = self.connections.values().any(Connection::is_over);
        let is_out = |connection: &Connection| {
            if has_over { connection.is_over() } else { connection.last_ns() <= oldest }
        };
        let mut out: Vec<_> = self.connections.extract_if(|_, connection| is_out(connection)).collect();
        out.sort_by_key(|(_, connection)| connection.last_ns());
        out.iter_mut().for_each(|(_, connection)| self.end(connection));
    }

    fn end(&mut self, connection: &mut Connection) {
        self.waiting -= connection.waiting();
        connection.conclude(&mut self.exchanges);
        self.total.answered(&mut self.exchanges);
        let report = connection.report();
        self.total.connections += 1;
        self.total.counts[0].merge(&report.from_client);
        self.total.counts[1].merge(&report.from_server);
        if self.listed.len() < self.options.listed {
            self.listed.push(report);
        }
    }

    /// What all of it comes to.
    #[must_use]
    pub fn finish(mut self) -> Report {
        let mut rest: Vec<_> = std::mem::take(&mut self.connections).into_values().collect();
        rest.sort_by_cached_key(|connection| connection.report().first_ns);
        rest.iter_mut().for_each(|connection| self.end(connection));
        self.file.duration_ns = self.last_ns.saturating_sub(self.file.first_ns);
        let connections_not_listed = self.total.connections - self.listed.len() as u64;
        let messages = self.total.message_reports();
        let total = self.total.report();
        let [course_to_client, course_to_server] = self.total.courses;
        // By side, as the round trips.
        let (course_to_client, course_to_server) =
            (course_to_client.into_points(), course_to_server.into_points());
        Report {
            file: self.file,
            total,
            connections: self.listed,
            connections_not_listed,
            messages,
            course_to_server,
            course_to_client,
        }
    }
}

/// Client and server of a connection, by the first packet of it that was captured.
fn ends(segment: &Segment<'_>, port: Option<u16>) -> (SocketAddr, SocketAddr) {
    let (from, to) = (segment.from, segment.to);
    let is_from_server = match (segment.syn, segment.ack, port) {
        (true, None, _) => false,
        (true, Some(_), _) => true,
        (false, _, Some(port)) if (from.port() == port) != (to.port() == port) => from.port() == port,
        // Ports that are given to clients are high ones.
        _ => from.port() < to.port(),
    };
    if is_from_server { (to, from) } else { (from, to) }
}

impl Total {
    /// Counts the times that a packet has told.
    fn note(&mut self, side: Side, time_ns: u64, found: &[Finding], difference_ns: Option<u64>) {
        for finding in found {
            match *finding {
                Finding::Handshake { rtt_ns } => self.handshake.record(rtt_ns),
                Finding::RoundTrip { rtt_ns } => {
                    self.rtts[side.index()].record(rtt_ns);
                    self.courses[side.index()].record(time_ns, rtt_ns);
                }
                _ => {}
            }
        }
        if let Some(difference_ns) = difference_ns {
            self.differences[side.index()].record(difference_ns);
        }
    }

    fn answered(&mut self, exchanges: &mut Vec<(Exchange, Option<u64>)>) {
        for (exchange, network_ns) in exchanges.drain(..) {
            let mut key = (exchange.protocol, exchange.what);
            if self.messages.len() >= MAX_KINDS && !self.messages.contains_key(&key) {
                OTHER_KINDS.clone_into(&mut key.1);
            }
            let times = self.messages.entry(key).or_default();
            times.to_first.record(exchange.to_first_ns);
            times.to_last.record(exchange.to_last_ns);
            if let Some(network_ns) = network_ns.filter(|_| exchange.is_undisturbed) {
                times.thinking.record(exchange.to_first_ns.saturating_sub(network_ns));
            }
        }
    }

    fn report(&self) -> TotalReport {
        let rtt = |side: Side| {
            Some(RttReport {
                times: self.rtts[side.index()].percentiles()?,
                smoothed_ns: None,
                variation_ns: None,
                timeout_ns: None,
                jitter_ns: None,
                differences: self.differences[side.index()].percentiles(),
            })
        };
        let [from_clients, from_servers] = self.counts;
        TotalReport {
            connections: self.connections,
            handshake: self.handshake.percentiles(),
            rtt_to_server: rtt(Side::Server),
            rtt_to_client: rtt(Side::Client),
            from_clients,
            from_servers,
        }
    }

    fn message_reports(&self) -> Vec<MessageReport> {
        let told = self.messages.iter().filter_map(|((protocol, what), times)| {
            Some(MessageReport {
                protocol: *protocol,
                what: what.clone(),
                to_first_byte: times.to_first.percentiles()?,
                to_last_byte: times.to_last.percentiles()?,
                thinking: times.thinking.percentiles(),
            })
        });
        let mut told: Vec<_> = told.collect();
        told.sort_by(|a, b| {
            let by_count = b.to_first_byte.count.cmp(&a.to_first_byte.count);
            by_count.then_with(|| (a.protocol, &a.what).cmp(&(b.protocol, &b.what)))
        });
        told
    }
}
