//! `HandlerPool`: threads that handle messages for event loops, and the bounded queue before them.
//!
//! The half-synchronous side of `Dispatch::Pool`: a loop puts complete messages on the queue, and each comes back to the
//! loop it came from with what its handler asked for. The queue never blocks a loop: what does not fit waits there, and
//! the loop is told when there is room.
//!
//! Invariant: after [`HandlerPool::stop`] no thread of the pool runs and no message is in its queue.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::job::{Home, Job};

/// How a pool is made.
#[derive(Clone)]
pub struct PoolConfig {
    /// How many threads; at least 1.
    pub threads: usize,
    /// How many messages wait for a thread; at least 1. Default 1024.
    pub queue: usize,
    /// The stack of each thread, in bytes. Default 1 MiB.
    pub stack_bytes: usize,
    /// Called first on each thread, with its number.
    pub on_start: Arc<dyn Fn(usize) + Send + Sync>,
}

impl Default for PoolConfig {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self { threads, queue: 1024, stack_bytes: 1 << 20, on_start: Arc::new(|_| {}) }
    }
}

impl std::fmt::Debug for PoolConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolConfig")
            .field("threads", &self.threads)
            .field("queue", &self.queue)
            .field("stack_bytes", &self.stack_bytes)
            .finish_non_exhaustive()
    }
}

/// Threads for the handlers of one or several loops. Dropping it stops it.
///
/// ```
/// use tidegate_engine::{Dispatch, EngineConfig, HandlerPool, LoopBuilder, PoolConfig};
///
/// # fn main() -> std::io::Result<()> {
/// let pool = HandlerPool::start(&PoolConfig { threads: 4, ..PoolConfig::default() })?;
/// let config = EngineConfig { dispatch: Dispatch::Pool, ..EngineConfig::default() };
/// let builder = LoopBuilder::new(config).pool(&pool);
/// # drop(builder);
/// pool.stop();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct HandlerPool {
    handle: PoolHandle,
    threads: Vec<JoinHandle<()>>,
}

/// Puts jobs on the queue.
#[derive(Clone, Debug)]
pub(crate) struct PoolHandle {
    jobs: Sender<Order>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Set before the threads are told to end.
    stopped: AtomicBool,
    /// Some loops wait for room.
    any_waits: AtomicBool,
    waiting: Mutex<Vec<Arc<Home>>>,
    /// The queue's other end, kept so that nothing is left in it after the end; `None` from then on.
    queue: Mutex<Option<Receiver<Order>>>,
}

#[derive(Debug)]
enum Order {
    Handle(Box<Job>),
    End,
}

/// Why a job was not put on the queue. It comes back with the reason.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is no room. The home of the job is woken when there is.
    Full(Box<Job>),
    /// The pool has been stopped.
    Stopped(Box<Job>),
}

impl HandlerPool {
    /// A pool without threads, whose messages are handled when whoever has the [`HandlerSteps`] says so: the seam for
    /// another executor, and for a simulated one. Of the configuration only the queue is asked for.
    #[must_use]
    pub fn stepped(config: &PoolConfig) -> (Self, HandlerSteps) {
        let (jobs, queue) = crossbeam_channel::bounded(config.queue.max(1));
        let pool = Self { handle: PoolHandle { jobs, shared: Shared::new(&queue) }, threads: Vec::new() };
        let shared = Arc::clone(&pool.handle.shared);
        (pool, HandlerSteps { queue, shared })
    }

    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// The kernel's, when it has no memory or no permission for a thread; those already started are stopped.
    pub fn start(config: &PoolConfig) -> io::Result<Self> {
        let (jobs, queue) = crossbeam_channel::bounded(config.queue.max(1));
        let shared = Shared::new(&queue);
        let mut pool = Self { handle: PoolHandle { jobs, shared }, threads: Vec::new() };
        for number in 0..config.threads.max(1) {
            let (queue, shared) = (queue.clone(), Arc::clone(&pool.handle.shared));
            let on_start = Arc::clone(&config.on_start);
            let thread =
                std::thread::Builder::new().name(format!("pool-{number}")).stack_size(config.stack_bytes);
            // An error drops the pool, which stops what has been started.
            pool.threads.push(thread.spawn(move || {
                on_start(number);
                serve(&queue, &shared);
            })?);
        }
        Ok(pool)
    }

    /// How many threads there are.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Handles what is on the queue, then ends the threads. What a loop wants to put on the queue from now on is refused,
    /// and its connection is closed with [`Reason::STOPPED`](crate::Reason::STOPPED). Waits for handlers that run.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.handle.shared.stopped.store(true, Ordering::Release);
        for _ in &self.threads {
            // Waits for room, which the threads make. It fails when there is nobody left to end.
            if self.handle.jobs.send(Order::End).is_err() {
                break;
            }
        }
        for thread in self.threads.drain(..) {
            // A handler's panic is caught by its job, so this one would be of `on_start`, and was printed.
            let _ = thread.join();
        }
        // The last receiver: what slipped in behind the end goes home as it is dropped.
        drop(lock(&self.handle.shared.queue).take());
        self.handle.shared.wake_waiting();
    }
}

impl Drop for HandlerPool {
    fn drop(&mut self) {
        self.end();
    }
}

fn serve(queue: &Receiver<Order>, shared: &Shared) {
    while let Ok(Order::Handle(job)) = queue.recv() {
        shared.made_room();
        job.run();
    }
}

/// The other side of a [stepped](HandlerPool::stepped) pool's queue. To be dropped when the pool is stopped: what is still
/// in the queue then goes home unhandled.
#[derive(Debug)]
pub struct HandlerSteps {
    queue: Receiver<Order>,
    shared: Arc<Shared>,
}

/// A message that was taken from the queue of a pool. Dropped unhandled it goes home all the same, and its connection is
/// closed with [`Reason::STOPPED`](crate::Reason::STOPPED).
#[derive(Debug)]
pub struct QueuedMessage(Box<Job>);

impl HandlerSteps {
    /// Takes the next message from the queue, as a thread of the pool that has nothing to do.
    pub fn take(&mut self) -> Option<QueuedMessage> {
        let Ok(Order::Handle(job)) = self.queue.try_recv() else { return None };
        self.shared.made_room();
        Some(QueuedMessage(job))
    }
}

impl QueuedMessage {
    /// Calls the handler, and sends the session home.
    pub fn handle(self) {
        self.0.run();
    }
}

impl Shared {
    fn new(queue: &Receiver<Order>) -> Arc<Self> {
        Arc::new(Self {
            stopped: AtomicBool::new(false),
            any_waits: AtomicBool::new(false),
            waiting: Mutex::default(),
            queue: Mutex::new(Some(queue.clone())),
        })
    }

    /// A message was taken from the queue.
    fn made_room(&self) {
        if self.any_waits.load(Ordering::Acquire) {
            self.wake_waiting();
        }
    }

    fn wake_waiting(&self) {
        let waiting = {
            let mut waiting = lock(&self.waiting);
            self.any_waits.store(false, Ordering::Release);
            std::mem::take(&mut *waiting)
        };
        waiting.iter().for_each(|home| home.wake());
    }
}

impl PoolHandle {
    /// Puts a job on the queue.
    pub(crate) fn submit(&self, job: Box<Job>) -> Result<(), Refused> {
        let job = match self.try_submit(job) {
            Err(Refused::Full(job)) => job,
            other => return other,
        };
        {
            let mut waiting = lock(&self.shared.waiting);
            if !waiting.iter().any(|home| Arc::ptr_eq(home, &job.home)) {
                waiting.push(Arc::clone(&job.home));
            }
            self.shared.any_waits.store(true, Ordering::Release);
        }
        // A thread may have made room before it could see that somebody waits.
        self.try_submit(job)
    }

    fn try_submit(&self, job: Box<Job>) -> Result<(), Refused> {
        if self.shared.stopped.load(Ordering::Acquire) {
            return Err(Refused::Stopped(job));
        }
        match self.jobs.try_send(Order::Handle(job)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Order::Handle(job))) => Err(Refused::Full(job)),
            Err(TrySendError::Disconnected(Order::Handle(job))) => Err(Refused::Stopped(job)),
            Err(TrySendError::Full(Order::End) | TrySendError::Disconnected(Order::End)) => {
                unreachable!("what comes back is what was sent")
            }
        }
    }
}

impl HandlerPool {
    pub(crate) fn handle(&self) -> PoolHandle {
        self.handle.clone()
    }
}

/// Every change under these locks is one operation, so a panic leaves what they guard whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
