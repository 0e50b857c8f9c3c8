//! What a packet was found to be, and how often that was found.
//!
//! Invariant: every count in a report is a count of [`Finding`]s, so whoever watches them can add them up again.

use serde::Serialize;

/// One of the ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Who opened it.
    Client,
    /// Who accepted it.
    Server,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// What a packet was found to be. A packet may be several of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// It ends a handshake of which nothing was sent twice.
    Handshake {
        /// From the SYN to the client's acknowledgement of the answer.
        rtt_ns: u64,
    },
    /// It acknowledges the SYN of the other side, which was sent once.
    HalfHandshake {
        /// From the SYN to here.
        rtt_ns: u64,
    },
    /// It acknowledges what the other side sent, once and in order.
    RoundTrip {
        /// From the last segment that it acknowledges to here.
        rtt_ns: u64,
    },
    /// It acknowledges something that was sent again, came late or was not captured, so that nobody knows which packet it
    /// answers (Karn's algorithm, RFC 6298, section 3).
    Ambiguous,
    /// It has data that was sent before.
    Retransmission {
        /// What made the sender send it again.
        trigger: Trigger,
        /// The copy before it was captured too, and so was lost, if it was, behind the place of the capture.
        was_seen: bool,
        /// The other side had acknowledged the data before.
        is_needless: bool,
    },
    /// It was sent before others that came before it.
    Reordered,
    /// The network, or the capture, has brought the same packet twice.
    Duplicate,
    /// Data before it is missing up to now.
    Gap,
    /// It acknowledges data that was never captured, one range of it.
    Uncaptured,
    /// It was captured behind its own acknowledgement, as happens where several processors capture.
    CapturedLate,
    /// It repeats an acknowledgement because of data that came out of order (RFC 5681, section 2).
    DuplicateAck,
    /// It tells of data that arrived twice (RFC 2883).
    DuplicateSack {
        /// The data had been sent again, which was in vain then; else the network has doubled it.
        was_sent_again: bool,
    },
    /// Its sender has no room for data.
    ZeroWindow,
    /// It asks for a sign of life (RFC 1122, section 4.2.3.6), or whether there is room again.
    KeepAlive,
}

/// What made a sender send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The other side had said that something is missing, by repeated or by selective acknowledgements.
    Fast,
    /// Nothing came for too long.
    Timeout,
}

/// What one side sent, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Bytes of data in them, those sent again included.
    pub bytes: u64,
    /// Packets with data (or a SYN or FIN) that was sent before.
    pub retransmissions: u64,
    /// Those of them that answer repeated or selective acknowledgements.
    pub fast: u64,
    /// Those of them that a timer has sent.
    pub by_timeout: u64,
    /// Those of them whose data the other side had acknowledged before.
    pub needless: u64,
    /// Those of them of which no earlier copy was captured: it was lost before the place of the capture.
    pub lost_before_capture: u64,
    /// Copies that must have been lost, on either side of the capture: retransmissions without needless ones, be they
    /// needless to be seen here or by what the receiver says of them.
    pub lost: u64,
    /// Packets that came behind others that were sent after them.
    pub reordered: u64,
    /// Packets that came twice without being sent twice.
    pub duplicates: u64,
    /// Packets before which data was missing.
    pub gaps: u64,
    /// Ranges of data that the other side acknowledged and the capture does not have.
    pub uncaptured: u64,
    /// Packets that were captured behind their own acknowledgement.
    pub captured_late: u64,
    /// Repeated acknowledgements.
    pub duplicate_acks: u64,
    /// Acknowledgements that tell of data that came twice.
    pub duplicate_sacks: u64,
    /// Those of them whose data the other side had sent again, needlessly as they tell.
    pub duplicate_sacks_of_copies: u64,
    /// Acknowledgements that nothing can be told from, because what they acknowledge was sent again or came late.
    pub ambiguous_acks: u64,
    /// Packets that say there is no room.
    pub zero_windows: u64,
    /// For how long there was none, in nanoseconds.
    pub zero_window_ns: u64,
    /// Packets that ask for a sign of life.
    pub keep_alives: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, finding: Finding) {
        match finding {
            Finding::Handshake { .. } | Finding::HalfHandshake { .. } | Finding::RoundTrip { .. } => {}
            Finding::Ambiguous => self.ambiguous_acks += 1,
            Finding::Retransmission { trigger, was_seen, is_needless } => {
                self.retransmissions += 1;
                self.fast += u64::from(trigger == Trigger::Fast);
                self.by_timeout += u64::from(trigger == Trigger::Timeout);
                self.needless += u64::from(is_needless);
                self.lost_before_capture += u64::from(!was_seen);
            }
            Finding::Reordered => self.reordered += 1,
            Finding::Duplicate => self.duplicates += 1,
            Finding::Gap => self.gaps += 1,
            Finding::Uncaptured => self.uncaptured += 1,
            Finding::CapturedLate => self.captured_late += 1,
            Finding::DuplicateAck => self.duplicate_acks += 1,
            Finding::DuplicateSack { was_sent_again } => {
                self.duplicate_sacks += 1;
                self.duplicate_sacks_of_copies += u64::from(was_sent_again);
            }
            Finding::ZeroWindow => self.zero_windows += 1,
            Finding::KeepAlive => self.keep_alives += 1,
        }
    }

    /// Adds what another connection has, or the same.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.retransmissions += other.retransmissions;
        self.fast += other.fast;
        self.by_timeout += other.by_timeout;
        self.needless += other.needless;
        self.lost_before_capture += other.lost_before_capture;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.duplicates += other.duplicates;
        self.gaps += other.gaps;
        self.uncaptured += other.uncaptured;
        self.captured_late += other.captured_late;
        self.duplicate_acks += other.duplicate_acks;
        self.duplicate_sacks += other.duplicate_sacks;
        self.duplicate_sacks_of_copies += other.duplicate_sacks_of_copies;
        self.ambiguous_acks += other.ambiguous_acks;
        self.zero_windows += other.zero_windows;
        self.zero_window_ns += other.zero_window_ns;
        self.keep_alives += other.keep_alives;
    }

    /// What was lost of what this side sent, when the other side says of so many copies more that they were needless.
    pub(crate) fn settle(&mut self, told_needless: u64) {
        self.lost = self.retransmissions.saturating_sub(self.needless + told_needless);
    }
}
