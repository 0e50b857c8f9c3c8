//! `Job`: a message on its way to a handler thread and back, and [`Home`], where it comes back to.
//!
//! Invariant: a job that carries a session comes home exactly once, whatever becomes of the thread or the queue that had
//! it: what is dropped unhandled goes home by its destructor, and its connection is closed.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tidegate_reactor::Waker;

use crate::errand::Errand;
use crate::event_loop::relief::Buffers;
use crate::{Flow, Reason};

/// A message with the session of its connection.
pub(crate) struct Job {
    pub(crate) errand: Errand,
    pub(crate) message: Vec<u8>,
    /// What the handler answered.
    pub(crate) flow: Flow,
    /// Whether it was handled at all.
    pub(crate) handled: bool,
    pub(crate) home: Arc<Home>,
}

/// Several jobs. They move by their boxes, which the queue, the mailbox and the loop hand on to each other.
pub(crate) type Jobs = Vec<Box<Job>>;

impl Job {
    pub(crate) fn new(errand: Errand, home: Arc<Home>) -> Self {
        Self { errand, message: Vec::new(), flow: Flow::Abort(Reason::STOPPED), handled: false, home }
    }

    /// Handles the message and goes home.
    pub(crate) fn run(mut self: Box<Self>) {
        if let Some((away, mut io)) = self.errand.begin() {
            self.flow = away.message(&mut io, &self.message);
            self.handled = true;
        }
        let home = Arc::clone(&self.home);
        home.receive(self);
    }
}

impl Buffers for Job {
    fn buffer_bytes(&self) -> usize {
        self.message.capacity() + self.errand.record.out.capacity()
    }

    fn free_buffers(&mut self) {
        self.message = Vec::new();
        self.errand.record.out = Vec::new();
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(errand) = self.errand.take() {
            let home = Arc::clone(&self.home);
            home.receive(Box::new(Self::new(errand, Arc::clone(&home))));
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("errand", &self.errand).field("flow", &self.flow).finish_non_exhaustive()
    }
}

/// Where the jobs of one loop come back to.
#[derive(Debug)]
pub(crate) struct Home {
    jobs: Mutex<Jobs>,
    arrived: Condvar,
    waker: Waker,
}

impl Home {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { jobs: Mutex::default(), arrived: Condvar::new(), waker }
    }

    fn receive(&self, job: Box<Job>) {
        let mut jobs = self.lock();
        jobs.push(job);
        // The first one wakes the loop; those that follow before it comes are taken in the same turn.
        let wake = jobs.len() == 1;
        drop(jobs);
        self.arrived.notify_one();
        if wake {
            self.waker.wake();
        }
    }

    /// Takes what has come, and gives the emptied vector back for what comes next.
    pub(crate) fn collect(&self, jobs: &mut Jobs) {
        std::mem::swap(&mut *self.lock(), jobs);
    }

    /// As [`collect`](Self::collect), but waits until there is something. For a loop that has ended.
    pub(crate) fn wait(&self, jobs: &mut Jobs) {
        let mut waiting = self.lock();
        while waiting.is_empty() {
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::swap(&mut *waiting, jobs);
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Jobs> {
        // Every change under the lock is one operation, so a panic leaves it whole.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
