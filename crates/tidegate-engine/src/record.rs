//! `Record`: what callbacks asked of their connection, until its owner does it.
//!
//! A callback runs in the loop or on another thread; either way it only writes here. Invariant: between events the record
//! of a loop is empty, so that nothing meant for one connection reaches another.

use std::ops::Range;

use tidegate_timer::Instant;

use crate::output::{FILE_WEIGHT, FilePart};
use crate::wish::Wish;
use crate::{Phase, TimerToken};

/// What the callbacks of one batch asked for.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// A part of what the reactor received last, to be sent first, from where it is.
    pub(crate) forward: Range<usize>,
    /// Bytes to send.
    pub(crate) out: Vec<u8>,
    /// Files among them: after how many bytes of `out` each one comes.
    pub(crate) files: Vec<(usize, FilePart)>,
    /// Whether reading is to pause; the last word counts.
    pub(crate) pause: Option<bool>,
    /// What is to be awaited between messages.
    pub(crate) expect: Option<Phase>,
    /// The service is to be told when its output has been taken.
    pub(crate) tell_sent: bool,
    /// Timers to set and to take back, in this order.
    pub(crate) timers: Vec<TimerWish>,
    /// What is to be done at the end of the turn.
    pub(crate) wishes: Vec<Wish>,
    /// What is to be added to the service's own counters, where the callback is not on the thread that owns them.
    pub(crate) counts: Vec<(usize, u64)>,
}

/// What is to be done with a timer of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerWish {
    pub(crate) token: TimerToken,
    /// When it is to expire; `None` takes it back.
    pub(crate) at: Option<Instant>,
}

/// Where received bytes stand, as numbers: they are compared with others, never followed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    address: usize,
    len: usize,
}

impl Received {
    pub(crate) fn at(data: &[u8]) -> Self {
        Self { address: data.as_ptr().addr(), len: data.len() }
    }

    /// Which part of what was received `bytes` are, if they are.
    #[inline]
    fn find(self, bytes: &[u8]) -> Option<Range<usize>> {
        let start = bytes.as_ptr().addr().checked_sub(self.address)?;
        let end = start.checked_add(bytes.len())?;
        (end <= self.len).then_some(start..end)
    }
}

/// Below this a copy costs less than a call of its own for what follows.
const FORWARD_FROM_BYTES: usize = 2 << 10;
/// The scratch is given back to the allocator above this size, which only a huge batch reaches.
const OUT_KEPT_BYTES: usize = 1 << 20;

impl Record {
    /// Bytes to send, but for those of files.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.forward.len() + self.out.len()
    }

    /// Appends bytes. Large ones that stand in `received` are not copied, as long as nothing is to be sent before them.
    #[inline]
    pub(crate) fn send(&mut self, bytes: &[u8], received: Received) {
        if bytes.len() >= FORWARD_FROM_BYTES
            && self.out.is_empty()
            && self.files.is_empty()
            && let Some(range) = received.find(bytes)
            && (self.forward.is_empty() || self.forward.end == range.start)
        {
            let start = if self.forward.is_empty() { range.start } else { self.forward.start };
            self.forward = start..range.end;
        } else {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Copies what was to be forwarded in front of the rest: it cannot be sent at once.
    pub(crate) fn copy_forward(&mut self, received: &[u8]) {
        let range = std::mem::take(&mut self.forward);
        let len = range.len();
        self.out.splice(..0, received[range].iter().copied());
        for (position, _) in &mut self.files {
            *position += len;
        }
    }

    /// What there is to send, as the water marks measure it.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        self.bytes() + self.files.len() * FILE_WEIGHT
    }

    /// Whether there is nothing to send.
    #[inline]
    pub(crate) fn sends_nothing(&self) -> bool {
        self.out.is_empty() && self.forward.is_empty() && self.files.is_empty()
    }

    /// What was to be sent has been, or is for nobody.
    #[inline]
    pub(crate) fn clear_output(&mut self) {
        self.forward = 0..0;
        self.files.clear();
        self.out.clear();
        if self.out.capacity() > OUT_KEPT_BYTES {
            self.out.shrink_to(OUT_KEPT_BYTES);
        }
    }

    /// Forgets everything: the connection has ended.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.clear_output();
        self.pause = None;
        self.expect = None;
        self.tell_sent = false;
        self.timers.clear();
        self.wishes.clear();
        self.counts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_received_is_forwarded_and_only_first() {
        let data: Vec<u8> = (0..=255).cycle().take(16 << 10).collect();
        let received = Received::at(&data);
        let mut record = Record::default();
        record.send(&data[100..5000], received);
        record.send(&data[5000..9000], received);
        assert_eq!((record.forward.clone(), record.bytes()), (100..9000, 8900));
        // Not next to it, small, or from elsewhere: all are copied, and what follows them too.
        record.send(&data[..4000], received);
        record.send(&data[9000..14_000], received);
        assert_eq!(record.out.len(), 9000);
        record.copy_forward(&data);
        let all = [&data[100..9000], &data[..4000], &data[9000..14_000]].concat();
        assert!(record.out == all && record.forward.is_empty());
        let mut record = Record::default();
        record.send(&data[..FORWARD_FROM_BYTES - 1], received);
        record.send(&data.clone(), received);
        assert!(record.forward.is_empty());
        assert_eq!(record.out.len(), FORWARD_FROM_BYTES - 1 + data.len());
        assert_eq!(Received::default().find(&data), None);
    }
}
