//! `Connection`: two flows, and what they tell about the way between the two ends.
//!
//! Invariant: a packet's findings are counted for the side that sent it, but for data that the capture does not have, which
//! belongs to the side that sent that.

use std::net::SocketAddr;

use crate::assembly::{Assembly, Chunk};
use crate::dialogue::{Dialogue, Exchange, ProtocolChoice};
use crate::finding::{Counts, Finding, Side};
use crate::flow::Flow;
use crate::message::Stamp;
use crate::packet::Segment;
use crate::report::{ConnectionReport, End};
use crate::rtt::Rtt;

/// A connection, as far as it was captured.
#[derive(Debug)]
pub(crate) struct Connection {
    client: SocketAddr,
    server: SocketAddr,
    flows: [Flow; 2],
    counts: [Counts; 2],
    /// From the place of the capture to the client, and to the server.
    rtts: [Rtt; 2],
    handshake: Handshake,
    /// Shortest times to each side and back that no waiting of an application is in.
    shortest_ns: [Option<u64>; 2],
    assemblies: [Assembly; 2],
    dialogue: Dialogue,
    /// How often data was sent again or came late.
    disturbances: u64,
    fins: [bool; 2],
    is_reset: bool,
    first_ns: u64,
    last_ns: u64,
    /// What it was told to hold at the last packet, in bytes.
    held: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Handshake {
    /// The number and the time of the client's SYN.
    syn: Option<(u32, u64)>,
    has_answer: bool,
    /// Something of it was sent again.
    is_ambiguous: bool,
    is_done: bool,
    rtt_ns: Option<u64>,
}

/// What is to be done with what was found.
pub(crate) struct Sink<'a> {
    pub(crate) found: &'a mut Vec<Finding>,
    /// By how much the round trip that was found differs from the one before.
    pub(crate) difference_ns: Option<u64>,
    /// Requests that were answered, and the shortest time to the server and back so far.
    pub(crate) exchanges: &'a mut Vec<(Exchange, Option<u64>)>,
}

/// Bytes that wait in one direction of one connection at most.
const MAX_EARLY: usize = 1 << 20;

impl Connection {
    pub(crate) fn new(client: SocketAddr, server: SocketAddr, now_ns: u64, choice: ProtocolChoice) -> Self {
        Self {
            client,
            server,
            flows: Default::default(),
            counts: Default::default(),
            rtts: Default::default(),
            handshake: Handshake::default(),
            shortest_ns: [None; 2],
            assemblies: Default::default(),
            dialogue: Dialogue::new(choice),
            disturbances: 0,
            fins: [false; 2],
            is_reset: false,
            first_ns: now_ns,
            last_ns: now_ns,
            held: 0,
        }
    }

    /// Whether a SYN begins another connection between the same ends.
    pub(crate) fn is_over_for(&self, segment: &Segment<'_>) -> bool {
        segment.syn && segment.ack.is_none() && self.handshake.syn.is_none_or(|(seq, _)| seq != segment.seq)
    }

    /// Both sides have said that they are done, or one has broken it off.
    pub(crate) fn is_over(&self) -> bool {
        self.is_reset || self.fins == [true; 2]
    }

    pub(crate) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// What puts it before or behind another one in a list.
    pub(crate) fn begin(&self) -> (u64, SocketAddr, SocketAddr) {
        (self.first_ns, self.client, self.server)
    }

    /// Who sent it.
    pub(crate) fn side(&self, segment: &Segment<'_>) -> Side {
        if segment.from == self.client { Side::Client } else { Side::Server }
    }

    /// Memory that it takes, in bytes, since its last packet.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// A packet of this connection.
    pub(crate) fn take(&mut self, segment: &Segment<'_>, sink: &mut Sink<'_>) {
        self.look_at(segment, sink);
        self.held = size_of::<Self>()
            + self.flows.iter().map(Flow::held).sum::<usize>()
            + self.rtts.iter().map(Rtt::held).sum::<usize>()
            + self.assemblies.iter().map(Assembly::waiting).sum::<usize>()
            + self.dialogue.held();
    }

    fn look_at(&mut self, segment: &Segment<'_>, sink: &mut Sink<'_>) {
        let side = self.side(segment);
        let (this, that) = (side.index(), side.other().index());
        self.last_ns = self.last_ns.max(segment.time_ns);
        self.counts[this].packets += 1;
        self.counts[this].bytes += u64::from(segment.len);
        sink.found.clear();
        if self.flows[this].is_duplicate(segment) {
            sink.found.push(Finding::Duplicate);
            self.counts[this].add(Finding::Duplicate);
            return;
        }
        let (start, end) = self.flows[this].place(segment);
        self.shake_hands(side, segment, sink.found);
        if !segment.rst {
            let is_plain = start == end && self.flows[this].is_next(start);
            self.flows[that].acknowledged(segment, is_plain, sink.found);
        }
        self.note_acknowledged(side, segment, sink);
        let already = sink.found.len();
        if !segment.rst {
            self.flows[this].sent(segment, self.shortest_way_ns(), sink.found);
        }
        for finding in &sink.found[already..] {
            self.counts[this].add(*finding);
            let is_disturbing =
                matches!(finding, Finding::Retransmission { .. } | Finding::Reordered | Finding::Gap);
            self.disturbances += u64::from(is_disturbing);
        }
        self.note_end(side, segment);
        self.begin_data(side, segment, start);
        self.hear(side, segment, start, sink);
    }

    /// The three packets of the handshake, seen from wherever they were captured.
    fn shake_hands(&mut self, side: Side, segment: &Segment<'_>, found: &mut Vec<Finding>) {
        let handshake = &mut self.handshake;
        match (side, segment.syn, segment.ack) {
            (Side::Client, true, None) => {
                handshake.is_ambiguous |= handshake.syn.is_some();
                handshake.syn.get_or_insert((segment.seq, segment.time_ns));
            }
            (Side::Server, true, Some(_)) => {
                handshake.is_ambiguous |= handshake.has_answer;
                handshake.has_answer = true;
            }
            (Side::Client, false, Some(_)) if handshake.has_answer && !handshake.is_done && !segment.rst => {
                handshake.is_done = true;
                let Some((_, syn_ns)) = handshake.syn.filter(|_| !handshake.is_ambiguous) else { return };
                let rtt_ns = segment.time_ns.saturating_sub(syn_ns);
                handshake.rtt_ns = Some(rtt_ns);
                found.push(Finding::Handshake { rtt_ns });
            }
            _ => {}
        }
    }

    /// Counts what an acknowledgement told.
    fn note_acknowledged(&mut self, side: Side, segment: &Segment<'_>, sink: &mut Sink<'_>) {
        let (this, that) = (side.index(), side.other().index());
        let is_kernels_answer = segment.len == 0;
        sink.difference_ns = None;
        for finding in sink.found.iter() {
            match *finding {
                Finding::Uncaptured => self.counts[that].add(Finding::Uncaptured),
                // What acknowledges has come from this side, so that is where the way went to and came back from.
                Finding::RoundTrip { rtt_ns } => {
                    sink.difference_ns = self.rtts[this].record(rtt_ns);
                    if is_kernels_answer {
                        keep_least(&mut self.shortest_ns[this], rtt_ns);
                    }
                }
                Finding::HalfHandshake { rtt_ns } => keep_least(&mut self.shortest_ns[this], rtt_ns),
                other => self.counts[this].add(other),
            }
        }
        if sink.found.contains(&Finding::Uncaptured)
            && let Some(acked) = self.flows[that].acked()
        {
            let other = side.other();
            self.hand_on(other, segment.time_ns, sink, |assembly, out| assembly.skip_to(acked, out));
        }
    }

    /// Between the two ends and back, as far as is known.
    fn shortest_way_ns(&self) -> Option<u64> {
        let [to_client, to_server] = self.shortest_ns;
        to_client.zip(to_server).map(|(one, other)| one + other)
    }

    fn note_end(&mut self, side: Side, segment: &Segment<'_>) {
        self.fins[side.index()] |= segment.fin;
        self.is_reset |= segment.rst;
    }

    /// Finds where the data of both sides begins, so that it is known when its begin was not captured.
    fn begin_data(&mut self, side: Side, segment: &Segment<'_>, start: u64) {
        if segment.syn {
            self.assemblies[side.index()].begin(start + 1);
            return;
        }
        for (flow, assembly) in self.flows.iter().zip(&mut self.assemblies) {
            if let Some(acked) = flow.acked() {
                assembly.begin(acked);
            }
        }
    }

    /// Lets the dialogue hear what has come in order.
    fn hear(&mut self, side: Side, segment: &Segment<'_>, start: u64, sink: &mut Sink<'_>) {
        let this = side.index();
        if !self.dialogue.is_silent() && segment.len > 0 && !segment.rst {
            let at = start + u64::from(segment.syn);
            let (data, len) = (segment.data, u64::from(segment.len));
            self.hand_on(side, segment.time_ns, sink, |assembly, out| {
                assembly.push(at, data, len, MAX_EARLY, out)
            });
        }
        if (segment.fin || segment.rst) && self.assemblies[this].waiting() == 0 {
            let now = self.stamp(segment.time_ns);
            let network = self.shortest_ns[Side::Server.index()];
            self.dialogue.end(side, now, &mut |exchange| sink.exchanges.push((exchange, network)));
        }
    }

    fn hand_on(
        &mut self,
        side: Side,
        time_ns: u64,
        sink: &mut Sink<'_>,
        act: impl FnOnce(&mut Assembly, &mut dyn FnMut(Chunk<'_>)),
    ) {
        let now = self.stamp(time_ns);
        let network = self.shortest_ns[Side::Server.index()];
        let dialogue = &mut self.dialogue;
        act(&mut self.assemblies[side.index()], &mut |chunk| {
            dialogue.hear(side, now, chunk, &mut |exchange| sink.exchanges.push((exchange, network)));
        });
    }

    fn stamp(&self, time_ns: u64) -> Stamp {
        Stamp { time_ns, disturbances: self.disturbances }
    }

    /// Nothing more comes: what is being said is taken for said.
    pub(crate) fn conclude(&mut self, exchanges: &mut Vec<(Exchange, Option<u64>)>) {
        let network = self.shortest_ns[Side::Server.index()];
        self.dialogue.conclude(&mut |exchange| exchanges.push((exchange, network)));
    }

    /// What is to be told of it.
    pub(crate) fn report(&self) -> ConnectionReport {
        let mut counts = self.counts;
        for side in [Side::Client, Side::Server] {
            let (this, that) = (side.index(), side.other().index());
            counts[this].settle(self.counts[that].duplicate_sacks_of_copies);
            counts[this].zero_window_ns = self.flows[that].zero_window_ns(self.last_ns);
        }
        let [from_client, from_server] = counts;
        let [to_client, to_server] = &self.rtts;
        ConnectionReport {
            client: self.client.to_string(),
            server: self.server.to_string(),
            first_ns: self.first_ns,
            duration_ns: self.last_ns.saturating_sub(self.first_ns),
            end: match (self.is_reset, self.fins) {
                (true, _) => End::Reset,
                (false, [true, true]) => End::Closed,
                _ => End::Open,
            },
            has_begin: self.handshake.syn.is_some(),
            handshake_ns: self.handshake.rtt_ns,
            rtt_to_server: to_server.report(),
            rtt_to_client: to_client.report(),
            from_client,
            from_server,
        }
    }
}

fn keep_least(least: &mut Option<u64>, ns: u64) {
    *least = Some(least.map_or(ns, |before| before.min(ns)));
}
