//! What tshark finds in a capture, packet by packet, to be compared with what we find.
//!
//! The two agree on every round trip that both tell and on which packets were sent before or came late. Where they differ is
//! written down, and checked, in [`compare`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use tidegate_capture::{Finding, Options, Report, Trigger, analyse_from};

use crate::support::output_of;

/// A packet, as tshark sees it.
struct Theirs {
    fields: HashMap<&'static str, String>,
}

const FIELDS: [&str; 21] = [
    "frame.number",
    "tcp.stream",
    "ip.src",
    "ip.dst",
    "ipv6.src",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.nxtseq",
    "tcp.ack",
    "tcp.flags.syn",
    "tcp.analysis.ack_rtt",
    "tcp.analysis.initial_rtt",
    "tcp.analysis.retransmission",
    "tcp.analysis.fast_retransmission",
    "tcp.analysis.spurious_retransmission",
    "tcp.analysis.out_of_order",
    "tcp.analysis.lost_segment",
    "tcp.analysis.duplicate_ack",
    "tcp.analysis.zero_window",
    "tcp.analysis.keep_alive",
];

impl Theirs {
    fn has(&self, name: &str) -> bool {
        !self.fields[name].is_empty()
    }

    fn number(&self, name: &str) -> u64 {
        self.fields[name].parse().unwrap_or(0)
    }

    /// Whether a time is less than nothing: packets that were stamped on two processors may stand the wrong way round.
    fn is_backwards(&self, name: &str) -> bool {
        self.fields[name].starts_with('-')
    }

    fn ns(&self, name: &str) -> Option<u64> {
        let text = &self.fields[name];
        if text.starts_with('-') {
            return None;
        }
        let (s, fraction) = text.split_once('.')?;
        let (Ok(s), Ok(fraction)) = (s.parse::<u64>(), fraction.parse::<u64>()) else {
            panic!("tshark says {text:?} for {name}");
        };
        Some(s * 1_000_000_000 + fraction)
    }

    /// From and to, as addresses with ports.
    fn ends(&self) -> [String; 2] {
        let address = |end: &str| {
            let ip = ["ip", "ipv6"].map(|ip| &self.fields[&*format!("{ip}.{end}")]);
            let ip: IpAddr = ip.into_iter().find(|ip| !ip.is_empty()).unwrap().parse().unwrap();
            let port = u16::try_from(self.number(&format!("tcp.{end}port"))).unwrap();
            SocketAddr::new(ip, port).to_string()
        };
        [address("src"), address("dst")]
    }

    /// Sent before, or late.
    fn is_again(&self) -> bool {
        self.has("tcp.analysis.retransmission") || self.has("tcp.analysis.out_of_order")
    }
}

fn theirs(path: &Path) -> BTreeMap<u64, Theirs> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(path).args(["-Y", "tcp", "-T", "fields", "-E", "occurrence=f"]);
    command.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let output = output_of(&mut command);
    assert!(output.status.success(), "{output:?}");
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    let packets = lines.map(|line| {
        let fields = FIELDS.into_iter().zip(line.split('\t').map(str::to_owned)).collect();
        let packet = Theirs { fields };
        (packet.number("frame.number"), packet)
    });
    packets.collect()
}

/// How much there was to agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreement {
    pub(crate) packets: usize,
    /// Round trips that are the same to the nanosecond.
    pub(crate) round_trips: usize,
    /// Round trips that tshark tells of data that was sent again or came late, and we do not.
    pub(crate) ambiguous: usize,
    pub(crate) handshakes: usize,
    /// Packets of data that was sent before or came late.
    pub(crate) again: usize,
    pub(crate) gaps: usize,
    pub(crate) duplicate_acks: usize,
    pub(crate) zero_windows: usize,
    /// Directions of connections whose jitter is that of tshark's round trips.
    pub(crate) jitters: usize,
}

/// Compares packet by packet, and panics where they differ otherwise than by definition.
pub(crate) fn compare(path: &Path) -> (Report, Agreement) {
    let mut ours: BTreeMap<u64, Vec<Finding>> = BTreeMap::new();
    let mut watch = |number, finding| ours.entry(number).or_default().push(finding);
    let report = analyse_from(File::open(path).unwrap(), &Options::default(), &mut watch).unwrap();
    let theirs = theirs(path);
    let mut seen = Seen::default();
    let mut agreement = Agreement { packets: theirs.len(), ..Agreement::default() };
    for (number, packet) in &theirs {
        let found = ours.remove(number).unwrap_or_default();
        let context = || format!("packet {number}: {found:?}, and tshark: {:?}", packet.fields);
        compare_round_trip(packet, &found, &seen, &mut agreement, &context);
        seen.jitter(packet, &found);
        compare_losses(packet, &found, &seen, &mut agreement, &context);
        seen.note(packet, &found);
    }
    assert!(ours.is_empty(), "tshark does not have {ours:?}");
    agreement.jitters = seen.compare_jitters(&report);
    (report, agreement)
}

/// What came before, by the stream and the port that sent it.
#[derive(Default)]
struct Seen {
    /// The highest acknowledgement.
    acked: HashMap<(u64, u64), u64>,
    ends: HashSet<(u64, u64, u64)>,
    last: HashMap<(u64, u64), u64>,
    last_ack: HashMap<(u64, u64), u64>,
    /// Streams of which the capture does not have all.
    uncaptured: HashSet<u64>,
    /// By the ends, from who acknowledges to whom: the last round trip and the jitter, in nanoseconds.
    jitters: HashMap<[String; 2], Jitter>,
}

#[derive(Clone, Copy)]
struct Jitter {
    last: f64,
    value: f64,
    /// tshark does not have all of its round trips.
    is_ours_alone: bool,
}

impl Seen {
    fn note(&mut self, packet: &Theirs, found: &[Finding]) {
        let of = (packet.number("tcp.stream"), packet.number("tcp.srcport"));
        if found.contains(&Finding::Uncaptured) {
            self.uncaptured.insert(of.0);
        }
        let end = packet.number("tcp.nxtseq");
        let acked = self.acked.entry(of).or_default();
        *acked = packet.number("tcp.ack").max(*acked);
        self.last_ack.insert(of, packet.number("tcp.ack"));
        self.ends.insert((of.0, of.1, end));
        let last = self.last.entry(of).or_default();
        *last = end.max(*last);
    }

    /// As much, or more, was acknowledged before.
    fn is_repeated(&self, packet: &Theirs) -> bool {
        let of = (packet.number("tcp.stream"), packet.number("tcp.srcport"));
        self.acked.get(&of).is_some_and(|acked| *acked >= packet.number("tcp.ack"))
    }

    /// This side's packet before acknowledged as much.
    fn is_as_before(&self, packet: &Theirs) -> bool {
        let of = (packet.number("tcp.stream"), packet.number("tcp.srcport"));
        self.last_ack.get(&of) == Some(&packet.number("tcp.ack"))
    }

    /// Reckons the jitter of tshark's round trips by RFC 3550, section 6.4.1.
    fn jitter(&mut self, packet: &Theirs, found: &[Finding]) {
        if !found.iter().any(|finding| matches!(finding, Finding::RoundTrip { .. })) {
            return;
        }
        let theirs = packet.ns("tcp.analysis.ack_rtt");
        let ns = theirs.unwrap_or(0) as f64;
        let jitter = self.jitters.entry(packet.ends()).or_insert(Jitter {
            last: ns,
            value: 0.0,
            is_ours_alone: false,
        });
        jitter.is_ours_alone |= theirs.is_none();
        jitter.value += ((ns - jitter.last).abs() - jitter.value) / 16.0;
        jitter.last = ns;
    }

    /// How many of them there were to compare.
    fn compare_jitters(&self, report: &Report) -> usize {
        let mut compared = 0;
        for connection in &report.connections {
            let ends = [connection.client.clone(), connection.server.clone()];
            let back = [connection.server.clone(), connection.client.clone()];
            for (ends, rtt) in [(ends, &connection.rtt_to_client), (back, &connection.rtt_to_server)] {
                let theirs = self.jitters.get(&ends).filter(|jitter| !jitter.is_ours_alone);
                let (Some(theirs), Some(rtt)) = (theirs, rtt) else { continue };
                let ours = rtt.jitter_ns.unwrap() as f64;
                assert!(
                    (ours - theirs.value).abs() <= 0.5,
                    "{ends:?}: {ours}, and by tshark {}",
                    theirs.value
                );
                compared += 1;
            }
        }
        compared
    }

    /// A segment of the other side ends where this acknowledges.
    fn is_end_of_a_segment(&self, packet: &Theirs) -> bool {
        let (stream, port, ack) =
            (packet.number("tcp.stream"), packet.number("tcp.srcport"), packet.number("tcp.ack"));
        self.ends.iter().any(|end| end.0 == stream && end.1 != port && end.2 == ack)
    }

    /// It acknowledges everything that the other side has sent.
    fn is_all(&self, packet: &Theirs) -> bool {
        let (stream, port) = (packet.number("tcp.stream"), packet.number("tcp.srcport"));
        let others = self.last.iter().find(|(of, _)| of.0 == stream && of.1 != port);
        others.is_none_or(|(_, last)| *last <= packet.number("tcp.ack"))
    }
}

fn compare_round_trip(
    packet: &Theirs,
    found: &[Finding],
    seen: &Seen,
    agreement: &mut Agreement,
    context: &dyn Fn() -> String,
) {
    if packet.is_backwards("tcp.analysis.ack_rtt") {
        return;
    }
    let ours = found.iter().find_map(|finding| match finding {
        Finding::RoundTrip { rtt_ns } | Finding::HalfHandshake { rtt_ns } => Some(*rtt_ns),
        _ => None,
    });
    match (ours, packet.ns("tcp.analysis.ack_rtt")) {
        (Some(ours), Some(theirs)) => {
            assert_eq!(ours, theirs, "{}", context());
            agreement.round_trips += 1;
        }
        // tshark measures from the first copy of what was sent again, and from a needless copy that is acknowledged once
        // more. By Karn's algorithm we tell neither, nor of what came late.
        (None, Some(_)) => {
            let is_told_off =
                found.iter().any(|finding| matches!(finding, Finding::Ambiguous | Finding::Duplicate));
            assert!(is_told_off || seen.is_repeated(packet), "{}", context());
            agreement.ambiguous += 1;
        }
        // tshark tells nothing of an acknowledgement within a segment.
        (Some(_), None) => assert!(!seen.is_end_of_a_segment(packet), "{}", context()),
        (None, None) => {}
    }
    if let Some(rtt_ns) = found.iter().find_map(|finding| match finding {
        Finding::Handshake { rtt_ns } => Some(*rtt_ns),
        _ => None,
    }) {
        assert_eq!(packet.ns("tcp.analysis.initial_rtt"), Some(rtt_ns), "{}", context());
        agreement.handshakes += 1;
    }
}

fn compare_losses(
    packet: &Theirs,
    found: &[Finding],
    seen: &Seen,
    agreement: &mut Agreement,
    context: &dyn Fn() -> String,
) {
    let has = |is_it: fn(&Finding) -> bool| found.iter().any(is_it);
    let is_again = has(|finding| {
        matches!(finding, Finding::Retransmission { .. } | Finding::Reordered | Finding::Duplicate)
    });
    // A doubled acknowledgement is a repeated one for tshark.
    let is_doubled_ack =
        has(|finding| *finding == Finding::Duplicate) && packet.has("tcp.analysis.duplicate_ack");
    // For tshark it depends on what else was captured late.
    let is_captured_late = has(|finding| *finding == Finding::CapturedLate);
    assert!(is_again == packet.is_again() || is_doubled_ack || is_captured_late, "{}", context());
    agreement.again += usize::from(is_again);
    if packet.has("tcp.analysis.fast_retransmission") {
        // We ask for one repeated acknowledgement or a selective one, tshark for two and no more than 20 ms.
        let is_fast = has(|finding| {
            matches!(
                finding,
                Finding::Retransmission { trigger: Trigger::Fast, .. }
                    | Finding::Reordered
                    | Finding::Duplicate
            )
        });
        assert!(is_fast || is_captured_late, "{}", context());
    }
    if has(|finding| matches!(finding, Finding::Retransmission { is_needless: false, .. })) {
        assert!(!packet.has("tcp.analysis.spurious_retransmission"), "{}", context());
    }
    // What was acknowledged without being captured is no gap for us any more, and for tshark it is one.
    let is_gap = has(|finding| *finding == Finding::Gap);
    let may_differ = !is_gap && seen.uncaptured.contains(&packet.number("tcp.stream"));
    assert!(is_gap == packet.has("tcp.analysis.lost_segment") || may_differ, "{}", context());
    agreement.gaps += usize::from(is_gap);
    assert_eq!(
        has(|finding| *finding == Finding::ZeroWindow),
        packet.has("tcp.analysis.zero_window"),
        "{}",
        context()
    );
    agreement.zero_windows += usize::from(packet.has("tcp.analysis.zero_window"));
    // tshark also counts answers to data that came twice, when nothing is missing.
    let is_ours = has(|finding| *finding == Finding::DuplicateAck);
    if packet.has("tcp.analysis.duplicate_ack") {
        assert!(is_ours || is_doubled_ack || seen.is_all(packet), "{}", context());
    } else {
        // For tshark it is none when an older one has come in between.
        assert!(!is_ours || !seen.is_as_before(packet), "{}", context());
    }
    agreement.duplicate_acks += usize::from(is_ours);
}
