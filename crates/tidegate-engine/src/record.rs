//! `Record`: what callbacks asked of their connection, until its owner does it.
//!
//! A callback runs in the loop or on another thread; either way it only writes here. Invariant: between events the record
//! of a loop is empty, so that nothing meant for one connection reaches another.

use tidegate_timer::Instant;

use crate::output::{FILE_WEIGHT, FilePart};
use crate::{Phase, TimerToken};

/// What the callbacks of one batch asked for.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Bytes to send.
    pub(crate) out: Vec<u8>,
    /// Files among them: after how many bytes of `out` each one comes.
    pub(crate) files: Vec<(usize, FilePart)>,
    /// Whether reading is to pause; the last word counts.
    pub(crate) pause: Option<bool>,
    /// What is to be awaited between messages.
    pub(crate) expect: Option<Phase>,
    /// Timers to set and to take back, in this order.
    pub(crate) timers: Vec<TimerWish>,
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

/// The scratch is given back to the allocator above this size, which only a huge batch reaches.
const OUT_KEPT_BYTES: usize = 1 << 20;

impl Record {
    /// What there is to send, as the water marks measure it.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        self.out.len() + self.files.len() * FILE_WEIGHT
    }

    /// Whether there is nothing to send.
    #[inline]
    pub(crate) fn sends_nothing(&self) -> bool {
        self.out.is_empty() && self.files.is_empty()
    }

    /// What was to be sent has been, or is for nobody.
    #[inline]
    pub(crate) fn clear_output(&mut self) {
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
        self.timers.clear();
        self.counts.clear();
    }
}
