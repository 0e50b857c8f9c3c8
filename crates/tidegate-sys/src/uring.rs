//! `Ring`: an io_uring(7) that owns what the kernel works on.
//!
//! Operations are queued as submissions, and [`Ring::enter`] gives all of them to the kernel and waits in the same
//! system call. What they came to is read by [`Ring::next_event`].
//!
//! ```text
//!   accept, receive, send, poll, cancel, end          enter()                      next()
//!   ──────────────▶ submissions ─────────────▶ kernel ────────▶ completions ──────────────▶ Event
//!      bytes to send go in ▲                     ▲ │ received bytes in a provided buffer       │
//!                          └─ spare() ◀── sent ──┘ └──▶ received() ── the next call gives it back
//! ```
//!
//! Invariant, on which the safety of the whole rests: memory that an operation reads or writes belongs to the ring from
//! the call that queues the operation until its last completion has been seen, and is leaked when that never comes.
//!
//! A ring belongs to the thread that first enters it (`IORING_SETUP_SINGLE_ISSUER`), which need not be the one that made
//! it. Nothing here keeps a policy: what is cancelled, retried or limited is the caller's affair.

mod buffers;
mod event;
mod kernel;
mod lifetime;
mod peer;
mod sends;
mod setup;
mod submit;

pub use event::{Event, Operation, Readiness};
pub use peer::accepted_peer;
pub use setup::Unavailable;
pub use submit::Tell;

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::thread::ThreadId;

use io_uring::{IoUring, cqueue, squeue};
use rustix::io::Errno;
use rustix::time::Timespec;

use self::buffers::Buffers;
use self::event::{Kind, result, split};
use self::kernel::RingFd;
use self::sends::{Sending, Sends};

/// An io_uring with one ring of provided buffers.
pub struct Ring {
    ring: IoUring,
    buffers: Buffers,
    /// Reaped, and not looked at yet. Attempts to send are not among them.
    events: VecDeque<cqueue::Entry>,
    /// Submissions that the queue has no room for yet.
    backlog: VecDeque<squeue::Entry>,
    /// Attempts to send since the last time that everything had been submitted.
    attempts: Vec<Attempt>,
    /// Those that are to be told of.
    told: Vec<Attempt>,
    sends: Sends,
    /// Sockets whose closing is queued.
    ending: Vec<OwnedFd>,
    /// Emptied buffers for the next sends.
    spares: Vec<Vec<u8>>,
    spare_bytes: usize,
    /// Bytes of attempts that were sent whole, since it was last asked for.
    sent: usize,
    /// Operations that will bring another completion; attempts and cancellations do not count.
    in_flight: usize,
    /// The thread that has entered the ring; `None` until one has.
    owner: Option<Owner>,
}

struct Owner {
    thread: ThreadId,
    fd: RingFd,
}

/// A send that does not wait.
struct Attempt {
    word: u64,
    bytes: Vec<u8>,
    /// Its completion, which is there only when not all bytes were taken or when it was asked for.
    result: Option<i32>,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("in_flight", &self.in_flight)
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

/// Words, which name operations to their user, must be below this.
pub const WORD_LIMIT: u64 = 1 << 60;

/// How many completions at most are gathered before [`Ring::enter`] returns, give or take one batch of the kernel's.
const GATHERED: usize = GATHERED_U32 as usize;
const GATHERED_U32: u32 = 256;
/// Of what waits for the thread, the kernel does so much in one call when one completion is asked for
/// (`IO_LOCAL_TW_DEFAULT_MAX`).
const KERNEL_BATCH: usize = 20;
/// Emptied buffers that are kept, in bytes.
const SPARE_BYTES: usize = 4 << 20;
const NEW_SPARE_BYTES: usize = 4 << 10;

impl Ring {
    /// Submits everything that is queued, and waits for a completion; without a `timeout`, for as long as it takes. A
    /// signal ends the wait early, and a timeout of zero does not wait.
    ///
    /// Everything that [`next_event`](Self::next_event) has should have been taken before, and is otherwise kept.
    ///
    /// # Errors
    ///
    /// What io_uring_enter(2) answered, but for `EINTR` and the end of the time. `EEXIST` when another thread entered
    /// the ring before.
    pub fn enter(&mut self, timeout: Option<Timespec>) -> Result<(), Errno> {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let fd = self.own()?;
        self.buffers.release();
        // Who does not wait asks for what has happened, all of it. Else the rest is the next turn's, which costs no call
        // more and less than asking for much.
        let gathers = timeout == Some(NOW);
        let (mut wanted, mut timeout) = (u32::from(!gathers), timeout);
        loop {
            let all = self.fill();
            let queued = self.queued();
            let (least, limit) = if all { (wanted, timeout) } else { (0, Some(NOW)) };
            let before = self.events.len();
            let entered = kernel::enter(fd, queued, least, limit.as_ref());
            self.reap();
            let brought = self.events.len() - before;
            match entered {
                Ok(()) | Err(Errno::INTR | Errno::TIME) => {}
                // The completion queue is to be emptied first (io_uring_enter(2)), which has just been done.
                Err(Errno::BUSY | Errno::AGAIN) if brought > 0 => {}
                Err(errno) => return Err(errno),
            }
            if self.queued() > 0 || !self.backlog.is_empty() {
                continue;
            }
            self.resolve();
            if !gathers
                || brought < KERNEL_BATCH
                || self.events.len() >= GATHERED
                || !self.ring.submission().taskrun()
            {
                return Ok(());
            }
            // More has happened than the kernel does in one call that asks for little; so much is asked for now.
            (wanted, timeout) = (GATHERED_U32, Some(NOW));
        }
    }

    /// What an operation came to. The bytes of the last [`Event::Receive`] are given back to the kernel.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        self.buffers.release();
        while let Some(cqe) = self.events.pop_front() {
            if let Some(event) = self.event(&cqe) {
                return Some(event);
            }
        }
        None
    }

    /// What an [`attempt`](Self::attempt) came to that is told of. They are over when [`enter`](Self::enter) returns, and
    /// so can be looked at before everything else.
    #[inline]
    pub fn next_attempt(&mut self) -> Option<Event> {
        let Attempt { word, bytes, result: number } = self.told.pop()?;
        Some(Event::Send { word, bytes, from: 0, result: result(number.unwrap_or(0)) })
    }

    /// The bytes of the last [`Event::Receive`]; empty when that was an end or an error.
    #[inline]
    #[must_use]
    pub fn received(&self) -> &[u8] {
        self.buffers.current()
    }

    /// Takes what a listener has accepted out of turn: the first of its events, when there is one.
    pub fn next_accept(&mut self, word: u64) -> Option<Event> {
        self.reap();
        let name = Kind::Accept.name(word);
        let at = self.events.iter().position(|cqe| cqe.user_data() == name)?;
        let cqe = self.events.remove(at)?;
        self.event(&cqe)
    }

    /// An empty buffer for bytes to send, which may have been used before.
    #[inline]
    #[must_use]
    pub fn spare(&mut self) -> Vec<u8> {
        let Some(spare) = self.spares.pop() else { return Vec::with_capacity(NEW_SPARE_BYTES) };
        self.spare_bytes -= spare.capacity();
        spare
    }

    /// Keeps a buffer for the next [`spare`](Self::spare), unless there are enough.
    #[inline]
    pub fn keep(&mut self, mut bytes: Vec<u8>) {
        if self.spare_bytes + bytes.capacity() <= SPARE_BYTES {
            self.spare_bytes += bytes.capacity();
            bytes.clear();
            self.spares.push(bytes);
        }
    }

    /// How many bytes were sent, since this was last asked, by attempts that told nobody.
    #[inline]
    pub fn take_sent(&mut self) -> usize {
        std::mem::take(&mut self.sent)
    }

    /// Moves the kernel's completions to `events`, but for those that concern only the ring.
    fn reap(&mut self) {
        for cqe in self.ring.completion() {
            match split(cqe.user_data()) {
                (Kind::Attempt, index) => {
                    if let Some(attempt) = usize::try_from(index).ok().and_then(|i| self.attempts.get_mut(i))
                    {
                        attempt.result = Some(cqe.result());
                    }
                }
                // A cancellation that found nothing came too late, which the completion of what it was for says better.
                (Kind::Order, _) => {}
                _ => self.events.push_back(cqe),
            }
        }
    }

    /// Everything has been submitted and its completions reaped, so each attempt is over: one that does not wait is
    /// done within its submission (`MSG_DONTWAIT` is `REQ_F_NOWAIT`, which is never polled for nor handed to a worker).
    fn resolve(&mut self) {
        // The kernel has closed these.
        self.ending.drain(..).for_each(std::mem::forget);
        let mut attempts = std::mem::take(&mut self.attempts);
        for attempt in attempts.drain(..) {
            if attempt.result.is_some() {
                self.told.push(attempt);
            } else {
                self.sent += attempt.bytes.len();
                self.keep(attempt.bytes);
            }
        }
        self.attempts = attempts;
    }

    /// What a completion means; `None` when it means nothing to the caller.
    #[inline]
    fn event(&mut self, cqe: &cqueue::Entry) -> Option<Event> {
        let (kind, word) = split(cqe.user_data());
        let more = cqueue::more(cqe.flags());
        if !more {
            self.in_flight -= 1;
        }
        let result = result(cqe.result());
        let poll = |readiness| Some(Event::Poll { word, readiness, result: result.map(drop), more });
        match kind {
            Kind::Receive => {
                self.buffers.take(cqe.flags(), result.unwrap_or(0));
                Some(Event::Receive { word, result, more })
            }
            Kind::Send => {
                let Sending { word, bytes, from } = self.sends.remove(word)?;
                Some(Event::Send { word, bytes, from, result })
            }
            Kind::Accept => {
                let result = result.map(|_| adopt(cqe.result()));
                Some(Event::Accept { word, result, more })
            }
            Kind::PollInput => poll(Readiness::Input),
            Kind::PollArrival => poll(Readiness::Arrival),
            Kind::PollOutput => poll(Readiness::Output),
            Kind::PollHangup => poll(Readiness::Hangup),
            Kind::Order | Kind::Attempt => None,
        }
    }
}

/// Takes over what an accept has brought.
fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just opened this descriptor for us, and the completion that says so is looked at once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
