//! `Analyzer`: which connection a packet belongs to, and what all of them come to.
//!
//! Invariant: everything that grows with the file has a limit: connections at a time, the memory that they take, those
//! listed, and kinds of messages. What is beyond one is still in the totals.

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
    /// Memory that the connections take, in bytes.
    held: usize,
    limits: Limits,
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

/// What is followed at the same time.
#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: usize,
    /// Memory that they take, in bytes.
    held: usize,
}

const LIMITS: Limits = Limits { connections: 16_384, held: 256 << 20 };
/// How long the last packets of a connection may take.
const SETTLE_NS: u64 = 1_000_000_000;
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
            held: 0,
            limits: LIMITS,
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
        if self.connections.len() >= self.limits.connections && !self.connections.contains_key(&key) {
            self.make_room();
        }
        let (port, choice) = (self.options.port, self.options.protocol);
        let connection = self.connections.entry(key).or_insert_with(|| {
            let (client, server) = ends(segment, port);
            Connection::new(client, server, segment.time_ns, choice)
        });
        let mut sink = Sink { found: &mut self.found, difference_ns: None, exchanges: &mut self.exchanges };
        self.held -= connection.held();
        connection.take(segment, &mut sink);
        self.held += connection.held();
        let difference_ns = sink.difference_ns;
        let side = connection.side(segment);
        self.total.note(side, segment.time_ns, &self.found, difference_ns);
        self.total.answered(&mut self.exchanges);
        while self.held > self.limits.held {
            self.make_room();
        }
    }

    /// Takes a quarter of the connections off the list: those that have ended first, and then those of which nothing came
    /// for the longest time. Never fewer, since each time looks at all of them.
    fn make_room(&mut self) {
        // Something may still come of one that has ended just now, and would be taken for another connection.
        let settled_ns = self.last_ns.saturating_sub(SETTLE_NS);
        let rank = |it: &Connection| (!(it.is_over() && it.last_ns() < settled_ns), it.last_ns());
        let mut ranks: Vec<_> = self.connections.values().map(rank).collect();
        let quarter = ranks.len() / 4;
        let (_, last, _) = ranks.select_nth_unstable(quarter);
        let last = *last;
        let out = self.connections.extract_if(|_, connection| rank(connection) <= last);
        let mut out: Vec<_> = out.map(|(_, connection)| connection).collect();
        out.sort_by_key(|connection| (connection.last_ns(), connection.begin()));
        out.iter_mut().for_each(|connection| self.end(connection));
    }

    fn end(&mut self, connection: &mut Connection) {
        self.held -= connection.held();
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
        rest.sort_by_key(Connection::begin);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection of one packet with this much data, `nth` in time and port.
    fn packet(nth: u16, flags: u8, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(40 + data.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet.extend_from_slice(&[&nth.to_be_bytes()[..], &[0, 80, 0, 0, 0, 9, 0, 0, 0, 1]].concat());
        packet.extend_from_slice(&[0x50, flags, 1, 0, 0, 0, 0, 0]);
        packet.extend_from_slice(data);
        packet
    }

    fn take(analyzer: &mut Analyzer, time_ns: u64, bytes: &[u8]) {
        let original_len = u32::try_from(bytes.len()).unwrap();
        analyzer.take(&Packet { number: 1, time_ns, link: 101, bytes, original_len });
        let held: usize = analyzer.connections.values().map(Connection::held).sum();
        assert_eq!(analyzer.held, held);
        assert!(held <= analyzer.limits.held && analyzer.connections.len() <= analyzer.limits.connections);
    }

    fn ports(analyzer: &Analyzer) -> Vec<u16> {
        let mut ports: Vec<_> = analyzer.connections.keys().map(|(client, _)| client.port()).collect();
        ports.sort_unstable();
        ports
    }

    fn with(limits: Limits) -> Analyzer {
        Analyzer { limits, ..Analyzer::new(Options::default()) }
    }

    const RST: u8 = 4;
    const ACK: u8 = 16;

    #[test]
    fn room_is_made_by_those_that_have_ended_and_then_by_the_longest_silent() {
        let mut analyzer = with(Limits { connections: 8, held: usize::MAX });
        for nth in 1000..1008 {
            take(&mut analyzer, u64::from(nth), &packet(nth, if nth == 1006 { RST } else { ACK }, b""));
        }
        take(&mut analyzer, 2 * SETTLE_NS, &packet(1008, RST, b""));
        assert_eq!(ports(&analyzer), [1002, 1003, 1004, 1005, 1007, 1008]);
        for nth in 1009..1012 {
            take(&mut analyzer, 2 * SETTLE_NS + u64::from(nth), &packet(nth, ACK, b""));
        }
        // One that has only just ended goes in its turn.
        assert_eq!(ports(&analyzer), [1005, 1007, 1008, 1009, 1010, 1011]);
        assert_eq!(analyzer.finish().total.connections, 12);
    }

    #[test]
    fn memory_is_bounded_whatever_takes_it() {
        const LIMIT: usize = 1 << 20;
        let mut analyzer = with(Limits { connections: usize::MAX, held: LIMIT });
        let head = [b"GET /".as_slice(), &[b'x'; 8_000]].concat();
        let mut most = 0;
        for nth in 1..2_000 {
            // Heads that are never whole, and segments that nobody acknowledges.
            take(&mut analyzer, u64::from(nth), &packet(nth, ACK, &head));
            most = most.max(analyzer.connections.len());
        }
        assert!((16..200).contains(&most), "{most}");
        assert_eq!(analyzer.finish().total.connections, 1_999);
    }
}
