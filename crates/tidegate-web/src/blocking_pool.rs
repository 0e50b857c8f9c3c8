//! `BlockingPool`: a bounded number of threads for what may block, and a bounded queue in front of them.
//!
//! Invariant: a job that was taken runs, unless the pool is dropped first; then it is dropped, which answers its request. A
//! job that panics costs its own request, and no thread.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};

/// What is to be done.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Threads on which handlers may block; clones share them.
#[derive(Clone)]
pub struct BlockingPool {
    crew: Arc<Crew>,
}

struct Crew {
    /// `None` only while the crew is being dropped. Not longer than there are permits.
    queue: Option<Sender<(Job, Permit)>>,
    threads: Vec<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
    /// Permits that nobody has: one for each thread and each place in the queue.
    free: Arc<AtomicUsize>,
}

/// The right to submit one job. It is free again when the job is done.
#[derive(Debug)]
pub(crate) struct Permit {
    free: Arc<AtomicUsize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.free.fetch_add(1, Ordering::Relaxed);
    }
}

impl BlockingPool {
    /// Starts `threads` threads, at least 1, before which `queue` jobs may wait.
    ///
    /// # Errors
    ///
    /// The kernel gives no thread.
    pub fn start(threads: usize, queue: usize) -> std::io::Result<Self> {
        let threads = threads.max(1);
        let places = threads.saturating_add(queue);
        let (sender, receiver) = unbounded();
        let closing = Arc::new(AtomicBool::new(false));
        let mut crew = Crew {
            queue: Some(sender),
            threads: Vec::new(),
            closing: Arc::clone(&closing),
            free: Arc::new(AtomicUsize::new(places)),
        };
        for index in 0..threads {
            let (receiver, closing) = (receiver.clone(), Arc::clone(&closing));
            let thread = thread::Builder::new()
                .name(format!("web-blocking-{index}"))
                .spawn(move || run(&receiver, &closing))?;
            crew.threads.push(thread);
        }
        Ok(Self { crew: Arc::new(crew) })
    }

    /// A place for a job, if there is one. Taken before the job is made, so that a job is never made in vain.
    pub(crate) fn permit(&self) -> Option<Permit> {
        let free = &self.crew.free;
        let taken = free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
        taken.is_ok().then(|| Permit { free: Arc::clone(free) })
    }

    /// Has a job done.
    pub(crate) fn submit(&self, permit: Permit, job: Job) {
        if let Some(queue) = &self.crew.queue
            && queue.send((job, permit)).is_err()
        {
            tracing::error!("the blocking pool has no thread any more");
        }
    }
}

impl Drop for Crew {
    /// Drops what waits, and waits for what runs.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.queue = None;
        for thread in self.threads.drain(..) {
            // The last owner may be a job; its thread ends by itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the blocking pool panicked");
            }
        }
    }
}

fn run(queue: &Receiver<(Job, Permit)>, closing: &AtomicBool) {
    for (job, _permit) in queue {
        let done = catch_unwind(AssertUnwindSafe(|| {
            if closing.load(Ordering::Relaxed) {
                drop(job);
            } else {
                job();
            }
        }));
        if done.is_err() {
            tracing::error!("a handler on the blocking pool panicked");
        }
    }
}

impl fmt::Debug for BlockingPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockingPool({} threads)", self.crew.threads.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use std::time::Duration;

    const WAIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_full_queue_takes_no_more_and_a_panic_stops_no_thread() {
        let pool = BlockingPool::start(1, 1).unwrap();
        let (started, has_started) = bounded::<()>(1);
        let (release, released) = bounded::<()>(1);
        let first: Job = Box::new(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
            panic!("a bug");
        });
        pool.submit(pool.permit().unwrap(), first);
        has_started.recv_timeout(WAIT).unwrap();
        let (done, is_done) = bounded::<()>(1);
        pool.submit(pool.permit().unwrap(), Box::new(move || done.send(()).unwrap()));
        assert!(pool.permit().is_none());
        release.send(()).unwrap();
        is_done.recv_timeout(WAIT).unwrap();
        drop(pool.permit().expect("the first has given its permit back"));
    }

    #[test]
    fn what_waits_when_the_pool_ends_is_dropped() {
        let pool = BlockingPool::start(1, 2).unwrap();
        let (started, has_started) = bounded::<()>(1);
        let (release, released) = bounded::<()>(1);
        let (dropped, was_dropped) = bounded::<()>(1);
        let first: Job = Box::new(move || {
            started.send(()).unwrap();
            released.recv().unwrap();
        });
        pool.submit(pool.permit().unwrap(), first);
        has_started.recv_timeout(WAIT).unwrap();
        pool.submit(pool.permit().unwrap(), Box::new(move || dropped.send(()).unwrap()));
        pool.crew.closing.store(true, Ordering::Relaxed);
        release.send(()).unwrap();
        drop(pool);
        assert!(was_dropped.recv().is_err(), "not run, and its channel is gone");
    }
}
