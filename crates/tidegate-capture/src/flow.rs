//! `Flow`: what one side of a connection sends, and what becomes of it.
//!
//! ```text
//!        acked                 hole                    next
//!  ────────┼─────────────────┼──────┼────────────────────┼────────▶ positions
//!   done   │    unacked      │      │      unacked       │  to come
//! ```
//!
//! Invariants: `acked <= next`; holes and unacked segments are sorted, lie between the two (a segment may reach below
//! `acked`), and are bounded in number. Positions do not wrap ([`sequence`](crate::sequence)).

use std::collections::VecDeque;

use crate::finding::{Finding, Trigger};
use crate::packet::Segment;
use crate::sequence::{first, is_before, position};

/// What one side sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    /// Behind the last byte that was sent, or that the other side says was; `None` before anything is known.
    next: Option<u64>,
    /// Up to here the other side has it; `None` as long as `next` is.
    acked: Option<u64>,
    holes: Vec<Hole>,
    unacked: VecDeque<Sent>,
    /// How often the last acknowledgement was repeated.
    duplicate_acks: u32,
    /// The end of the last range that arrived out of order.
    sacked: Option<u64>,
    /// What the other side said last about its room.
    window: Option<u16>,
    /// Since when it has none.
    zero_since: Option<u64>,
    zero_ns: u64,
    recent: VecDeque<Recent>,
    /// What was acknowledged before it was captured, if it ever is; the oldest first, and bounded.
    unseen: VecDeque<(u64, u64)>,
    /// What was sent again and may have been lost before; the oldest first, and bounded.
    again: VecDeque<(u64, u64)>,
}

/// Data that has not come, though later data has.
#[derive(Clone, Copy, Debug)]
struct Hole {
    start: u64,
    end: u64,
    /// When the segment behind it came, and what its sender's clock said.
    opened_ns: u64,
    timestamp: Option<u32>,
}

/// A segment that waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
struct Sent {
    start: u64,
    end: u64,
    time_ns: u64,
    is_syn: bool,
    /// It was sent again, or came late.
    is_ambiguous: bool,
}

/// By which a packet is known again: no sender gives two packets the same identification within so short a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Recent {
    ip_id: u16,
    seq: u32,
    ack: Option<u32>,
    len: u32,
}

const MAX_HOLES: usize = 64;
const MAX_UNSEEN: usize = 64;
const MAX_AGAIN: usize = 256;
const MAX_UNACKED: usize = 4_096;
const MAX_RECENT: usize = 64;
/// Less than this between a gap and what fills it is no retransmission, where no round trip is known.
const UNKNOWN_RTT_NS: u64 = 3_000_000;

impl Flow {
    /// Where the data of a segment begins and ends; a SYN and a FIN take a place each.
    pub(crate) fn place(&self, segment: &Segment<'_>) -> (u64, u64) {
        let start = self.next.map_or_else(|| first(segment.seq), |next| position(next, segment.seq));
        (start, start + u64::from(segment.len) + u64::from(segment.syn) + u64::from(segment.fin))
    }

    /// Whether a segment that begins here follows all that was sent.
    pub(crate) fn is_next(&self, start: u64) -> bool {
        self.next == Some(start)
    }

    /// Memory beside itself that it has taken, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.holes.capacity() * size_of::<Hole>()
            + self.unacked.capacity() * size_of::<Sent>()
            + self.recent.capacity() * size_of::<Recent>()
            + (self.unseen.capacity() + self.again.capacity()) * size_of::<(u64, u64)>()
    }

    /// Whether everything that was sent has arrived.
    pub(crate) fn is_acked(&self) -> bool {
        self.next.is_some() && self.next == self.acked
    }

    /// Up to where the other side has it.
    pub(crate) fn acked(&self) -> Option<u64> {
        self.acked
    }

    /// For how long the other side has had no room, in nanoseconds, up to now.
    pub(crate) fn zero_window_ns(&self, now_ns: u64) -> u64 {
        self.zero_ns + self.zero_since.map_or(0, |since| now_ns.saturating_sub(since))
    }

    /// Whether this very packet was there before.
    pub(crate) fn is_duplicate(&mut self, segment: &Segment<'_>) -> bool {
        let Some(ip_id) = segment.ip_id else { return false };
        let this = Recent { ip_id, seq: segment.seq, ack: segment.ack, len: segment.len };
        if self.recent.contains(&this) {
            return true;
        }
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(this);
        false
    }

    /// A segment comes by. `rtt_ns` is the shortest round trip between the two ends, if one is known.
    pub(crate) fn sent(&mut self, segment: &Segment<'_>, rtt_ns: Option<u64>, found: &mut Vec<Finding>) {
        let (start, end) = self.place(segment);
        let next = *self.next.get_or_insert(start);
        self.acked.get_or_insert(start);
        if start + 1 == next && end <= next && self.is_acked() && !segment.syn && !segment.fin {
            found.push(Finding::KeepAlive);
            return;
        }
        if start > next {
            // A packet without data tells as well that data was sent before it.
            self.open_hole(segment, (next, start), found);
        } else if start < next && start < end {
            self.sent_below(segment, (start, end.min(next)), rtt_ns, found);
        }
        if end > next && start < end {
            self.keep(segment, (start.max(next), end), false);
        }
        self.next = Some(end.max(next));
    }

    fn open_hole(&mut self, segment: &Segment<'_>, (start, end): (u64, u64), found: &mut Vec<Finding>) {
        found.push(Finding::Gap);
        let (opened_ns, timestamp) = (segment.time_ns, segment.timestamp);
        self.holes.push(Hole { start, end, opened_ns, timestamp });
        if self.holes.len() > MAX_HOLES {
            self.holes.remove(0);
            found.push(Finding::Uncaptured);
        }
    }

    /// A segment, or a part of one, that lies below what was sent already.
    fn sent_below(
        &mut self,
        segment: &Segment<'_>,
        (start, end): (u64, u64),
        rtt_ns: Option<u64>,
        found: &mut Vec<Finding>,
    ) {
        let trigger = self.trigger(start);
        let hole = self.holes.iter().position(|hole| hole.start < end && start < hole.end);
        let Some(hole) = hole else {
            if self.unseen.iter().any(|range| range.0 < end && start < range.1) {
                found.push(Finding::CapturedLate);
                return;
            }
            self.unacked
                .iter_mut()
                .filter(|sent| sent.start < end && start < sent.end)
                .for_each(|sent| sent.is_ambiguous = true);
            let is_needless = self.acked.is_some_and(|acked| end <= acked);
            if !is_needless {
                self.note_again((start, end));
            }
            found.push(Finding::Retransmission { trigger, was_seen: true, is_needless });
            return;
        };
        let is_late = self.holes[hole].is_late(segment, rtt_ns.unwrap_or(UNKNOWN_RTT_NS));
        self.holes = self.holes.iter().flat_map(|hole| hole.without(start, end)).collect();
        self.keep(segment, (start, end), true);
        found.push(if is_late {
            Finding::Reordered
        } else {
            self.note_again((start, end));
            Finding::Retransmission { trigger, was_seen: false, is_needless: false }
        });
    }

    fn note_again(&mut self, range: (u64, u64)) {
        if self.again.len() == MAX_AGAIN {
            self.again.pop_front();
        }
        self.again.push_back(range);
    }

    fn trigger(&self, start: u64) -> Trigger {
        let is_asked_for = self.duplicate_acks > 0 && self.acked == Some(start);
        let is_passed_over = self.sacked.is_some_and(|sacked| sacked > start);
        if is_asked_for || is_passed_over { Trigger::Fast } else { Trigger::Timeout }
    }

    fn keep(&mut self, segment: &Segment<'_>, (start, end): (u64, u64), is_ambiguous: bool) {
        if self.acked.is_some_and(|acked| end <= acked) {
            return;
        }
        if self.unacked.len() == MAX_UNACKED {
            self.unacked.pop_front();
        }
        let at = self.unacked.partition_point(|sent| sent.start < start);
        let (time_ns, is_syn) = (segment.time_ns, segment.syn);
        self.unacked.insert(at, Sent { start, end, time_ns, is_syn, is_ambiguous });
    }

    /// The other side acknowledges. `is_plain` is a packet that does nothing else, and is in its place.
    pub(crate) fn acknowledged(&mut self, segment: &Segment<'_>, is_plain: bool, found: &mut Vec<Finding>) {
        let Some(ack) = segment.ack else { return };
        let (Some(next), Some(acked)) = (self.next, self.acked) else {
            (self.next, self.acked) = (Some(first(ack)), Some(first(ack)));
            return;
        };
        let ack = position(acked, ack);
        let is_repeated = is_plain && ack == acked && ack < next && segment.window != 0;
        if is_repeated && self.window == Some(segment.window) {
            self.duplicate_acks = self.duplicate_acks.saturating_add(1);
            found.push(Finding::DuplicateAck);
        }
        self.note_window(segment, found);
        self.note_sacks(segment, ack.max(acked), found);
        // What lies further ahead than any window belongs to something else.
        if ack <= acked || ack > next + MAX_AHEAD {
            return;
        }
        self.duplicate_acks = 0;
        self.acked = Some(ack);
        self.settle(ack, segment.time_ns, found);
    }

    /// Takes what is acknowledged off the list, and tells the round trip.
    fn settle(&mut self, ack: u64, now_ns: u64, found: &mut Vec<Finding>) {
        let mut is_ambiguous = false;
        let mut below = 0;
        for hole in &mut self.holes {
            if hole.start < ack {
                below += 1;
                self.unseen.push_back((hole.start, hole.end.min(ack)));
            }
            hole.start = hole.start.max(ack.min(hole.end));
        }
        self.holes.retain(|hole| hole.start < hole.end);
        if let Some(next) = self.next.filter(|next| *next < ack) {
            self.next = Some(ack);
            self.unseen.push_back((next, ack));
            below += 1;
        }
        self.unseen.drain(..self.unseen.len().saturating_sub(MAX_UNSEEN));
        is_ambiguous |= below > 0;
        found.extend(std::iter::repeat_n(Finding::Uncaptured, below));
        let mut last = None;
        while let Some(sent) = self.unacked.front().filter(|sent| sent.start < ack).copied() {
            is_ambiguous |= sent.is_ambiguous;
            last = Some(sent);
            if sent.end > ack {
                self.unacked[0].start = ack;
                break;
            }
            self.unacked.pop_front();
        }
        let Some(last) = last.filter(|last| ack <= last.end) else { return };
        let rtt_ns = now_ns.saturating_sub(last.time_ns);
        found.push(match (is_ambiguous, last.is_syn) {
            (true, _) => Finding::Ambiguous,
            (false, true) => Finding::HalfHandshake { rtt_ns },
            (false, false) => Finding::RoundTrip { rtt_ns },
        });
    }

    fn note_window(&mut self, segment: &Segment<'_>, found: &mut Vec<Finding>) {
        self.window = Some(segment.window);
        if segment.syn || segment.fin || segment.rst {
            return;
        }
        if segment.window == 0 {
            found.push(Finding::ZeroWindow);
            self.zero_since.get_or_insert(segment.time_ns);
        } else if let Some(since) = self.zero_since.take() {
            self.zero_ns += segment.time_ns.saturating_sub(since);
        }
    }

    fn note_sacks(&mut self, segment: &Segment<'_>, ack: u64, found: &mut Vec<Finding>) {
        let range =
            |range: Option<(u32, u32)>| range.map(|(start, end)| (position(ack, start), position(ack, end)));
        let [first, second, ..] = segment.sacks.map(range);
        let Some((start, end)) = first else { return };
        // RFC 2883, section 4: the first range tells of a duplicate when it is acknowledged, or lies within the second.
        let is_within = |(outer_start, outer_end)| outer_start <= start && end <= outer_end;
        if end <= ack || second.is_some_and(is_within) {
            let again = self.again.iter().position(|again| start < again.1 && again.0 < end);
            let was_sent_again = again.and_then(|at| self.again.remove(at)).is_some();
            found.push(Finding::DuplicateSack { was_sent_again });
        }
        let ends = segment.sacks.iter().filter_map(|it| range(*it)).map(|(_, end)| end);
        self.sacked = self.sacked.into_iter().chain(ends).max().filter(|end| *end > ack);
    }
}

/// More than any window (RFC 7323, section 2.3).
const MAX_AHEAD: u64 = 1 << 30;

impl Hole {
    /// Whether what fills it was sent before what came before it. The sender's clock tells (RFC 7323), unless it has not
    /// moved; then a time that is too short for the receiver to have asked for it.
    fn is_late(&self, segment: &Segment<'_>, rtt_ns: u64) -> bool {
        match (segment.timestamp, self.timestamp) {
            (Some(of_this), Some(of_later)) if is_before(of_this, of_later) => true,
            (Some(of_this), Some(of_later)) if is_before(of_later, of_this) => false,
            _ => segment.time_ns.saturating_sub(self.opened_ns) < rtt_ns,
        }
    }

    /// What is left of it when these positions are filled.
    fn without(&self, start: u64, end: u64) -> impl Iterator<Item = Self> + use<> {
        let before = Self { end: self.end.min(start.max(self.start)), ..*self };
        let after = Self { start: self.start.max(end.min(self.end)), ..*self };
        let parts = if start >= self.end || end <= self.start {
            [*self, Self { end: self.start, ..*self }]
        } else {
            [before, after]
        };
        parts.into_iter().filter(|hole| hole.start < hole.end)
    }
}
