//! `Lane`: where an acceptor's connections may go: to a loop of its own process, or to a worker by its channel.
//!
//! What was chosen for a lane in a turn is handed over at its end: to a loop in one post, to a worker in messages of up to
//! [`BATCH`] connections. A channel that is full is passed over until [`RETRY_AFTER`] has passed: who reads it says nothing.
//!
//! Invariant: a connection is in the batch of its lane until the loop or the kernel has taken it; nothing else drops it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tidegate_sys::fd_channel::FdChannel;
use tidegate_timer::Instant;

use crate::LoopHandle;
use crate::accepting::RETRY_AFTER;
use crate::handover::{BATCH, encode};
use crate::intake::Arrival;

/// Tells how many connections a worker has, by its number.
#[derive(Clone)]
pub(crate) struct Load(pub(crate) Arc<dyn Fn(usize) -> usize + Send + Sync>);

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Load")
    }
}

/// A worker that is not busy has counted by then what it was sent.
const UNSEEN_FOR: Duration = Duration::from_millis(10);
/// The load of a worker that is to get no connections for the time being.
const NO_ROOM: usize = usize::MAX;

#[derive(Debug)]
pub(crate) struct Lane {
    to: To,
    /// Chosen for this lane, and not handed over yet. For a loop, counted in there.
    pub(super) batch: Vec<Arrival>,
}

#[derive(Debug)]
enum To {
    Loop(LoopHandle),
    Worker(Worker),
}

/// A worker, as its acceptor sees it.
#[derive(Debug)]
struct Worker {
    channel: FdChannel,
    number: usize,
    load: Load,
    /// What `load` answered last, and how many were sent since it answered something else, which the worker may not have
    /// counted yet: an estimate, and right again when none was sent for [`UNSEEN_FOR`].
    known: usize,
    unseen: usize,
    sent_at: Instant,
    /// Its channel did not take a message, or its load says that it has no room; tried again from then on.
    full_until: Option<Instant>,
    /// Nobody will ever read it.
    closed: bool,
}

impl Lane {
    pub(crate) fn to_loop(handle: LoopHandle) -> Self {
        Self { to: To::Loop(handle), batch: Vec::new() }
    }

    pub(crate) fn to_worker(number: usize, channel: FdChannel, load: Load) -> Self {
        let known = (load.0)(number);
        let worker = Worker {
            channel,
            number,
            load,
            known,
            unseen: 0,
            sent_at: Instant::default(),
            full_until: None,
            closed: false,
        };
        Self { to: To::Worker(worker), batch: Vec::new() }
    }

    /// A turn begins: what the worker says of itself is read again.
    pub(super) fn begin(&mut self, now: Instant) {
        if let To::Worker(worker) = &mut self.to {
            let known = (worker.load.0)(worker.number);
            if known != worker.known || worker.sent_at + UNSEEN_FOR <= now {
                worker.known = known;
                worker.unseen = 0;
            }
            if known == NO_ROOM {
                worker.full_until = Some(now + RETRY_AFTER);
            }
        }
    }

    /// Counts a connection in.
    pub(super) fn assign(&mut self, arrival: Arrival) {
        if let To::Loop(handle) = &self.to {
            handle.shared.intake.enter();
        }
        self.batch.push(arrival);
    }

    /// Hands over what was assigned. What is still in the batch then was not taken, and is counted out.
    pub(super) fn hand_over(&mut self, now: Instant, message: &mut Vec<u8>) {
        if self.batch.is_empty() {
            return;
        }
        match &mut self.to {
            To::Loop(handle) => {
                let intake = &handle.shared.intake;
                if !intake.hand_over(&mut self.batch) {
                    self.batch.iter().for_each(|_| intake.leave());
                }
            }
            To::Worker(worker) => worker.send(&mut self.batch, now, message),
        }
    }

    /// Whether another connection may be assigned.
    pub(super) fn has_room(&self, now: Instant) -> bool {
        match &self.to {
            To::Loop(handle) => handle.shared.intake.has_room(),
            To::Worker(worker) => !worker.closed && worker.full_until.is_none_or(|at| at <= now),
        }
    }

    /// When a channel that was full is tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match &self.to {
            To::Loop(_) => None,
            To::Worker(worker) => worker.full_until.filter(|_| !worker.closed),
        }
    }

    /// Whether it will never take another.
    pub(super) fn is_closed(&self) -> bool {
        match &self.to {
            To::Loop(handle) => handle.shared.intake.is_closed(),
            To::Worker(worker) => worker.closed,
        }
    }

    /// The connections of the loop; of a worker, what is known of them.
    pub(super) fn connections(&self) -> usize {
        match &self.to {
            To::Loop(handle) => handle.shared.intake.connections(),
            To::Worker(worker) => {
                let known = if worker.known == NO_ROOM { 0 } else { worker.known };
                known.saturating_add(worker.unseen).saturating_add(self.batch.len())
            }
        }
    }

    /// The loop's side of it.
    #[cfg(test)]
    pub(super) fn intake(&self) -> &crate::intake::Intake {
        match &self.to {
            To::Loop(handle) => &handle.shared.intake,
            To::Worker(_) => panic!("a worker's loops are not known here"),
        }
    }
}

impl Worker {
    /// Sends as much of the batch as the channel takes.
    fn send(&mut self, batch: &mut Vec<Arrival>, now: Instant, message: &mut Vec<u8>) {
        let mut sent = 0;
        while sent < batch.len() && !self.closed {
            let end = batch.len().min(sent + BATCH);
            match self.send_message(&batch[sent..end], message) {
                Ok(()) => {
                    sent = end;
                    self.full_until = None;
                }
                Err(error) => {
                    self.refused(&error, now);
                    break;
                }
            }
        }
        if sent > 0 {
            self.unseen = self.unseen.saturating_add(sent);
            self.sent_at = now;
        }
        // The worker has descriptors of its own now; these copies are closed.
        batch.drain(..sent);
    }

    fn send_message(&self, arrivals: &[Arrival], message: &mut Vec<u8>) -> io::Result<()> {
        encode(arrivals, message);
        let mut fds = [self.channel.as_fd(); BATCH];
        for (fd, arrival) in fds.iter_mut().zip(arrivals) {
            *fd = arrival.socket.as_fd();
        }
        let fds: &[BorrowedFd<'_>] = &fds[..arrivals.len()];
        self.channel.send(message, fds)
    }

    /// Out of room or memory, or too many descriptors on their way for this user: that passes. The rest does not.
    fn refused(&mut self, error: &io::Error, now: Instant) {
        match Errno::from_io_error(error) {
            Some(Errno::AGAIN | Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => {
                self.full_until = Some(now + RETRY_AFTER);
            }
            _ => {
                self.closed = true;
                tracing::error!(worker = self.number, %error, "a worker's channel takes no connections any more");
            }
        }
    }
}
