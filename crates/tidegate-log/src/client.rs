//! The client: what a process does with its records.
//!
//! A [`LogClient`] is a handle on a bounded queue and on the one thread, `log-client`, that empties it: to the log server (or
//! into a store in the same process) and, when wanted, to standard error. A thread that logs only ever takes the queue's
//! lock, for as long as a record is copied; it never waits for a socket, a disk or a terminal. A record stays in the queue
//! until the server has taken charge of it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::EventfdFlags;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::encode::{Head, resource_json};
use crate::queue::{Queue, To};
use crate::screen::{self, Screen};
use crate::sender::{Destination, Sender};
use crate::socket::SocketLink;
use crate::{Levels, MAX_LINE_BYTES, Recent, Resource, Severity, SharedStore, TidegateLayer};

/// Where the records of a process go.
#[derive(Clone, Debug)]
pub enum LogTo {
    /// To the log server that listens at this path.
    Socket(PathBuf),
    /// Straight into a store in this process: for the log server itself, and for a program that has none.
    Store(SharedStore),
}

/// When records also go to standard error, in the form for people.
///
/// Where standard error is closed or the null device when the client is started, as that of a daemon is, it is
/// [`Never`](Self::Never) in any case: what is written there has reached nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StderrMode {
    /// All of them: a server in the foreground.
    Always,
    /// Those that the log server has not acknowledged while it cannot be relied on: it is not connected, or has not
    /// acknowledged anything for 3 s, or its disk takes nothing.
    WhenAway,
    /// None. What finds no room in the queue while the server is away is dropped, counted and reported as soon as there is
    /// room.
    Never,
}

/// How a process logs.
#[derive(Debug)]
pub struct ClientOptions {
    /// Where records go.
    pub to: LogTo,
    /// Who writes them.
    pub resource: Resource,
    /// Which are recorded.
    pub levels: Levels,
    /// Whether they also go to standard error.
    pub stderr: StderrMode,
    /// Written to instead of standard error.
    pub stderr_fd: Option<OwnedFd>,
    /// The bytes of records that wait for the log server; beyond that they are dropped and counted. Default 1 MiB; no less
    /// than 128 KiB is taken.
    pub ring_bytes: usize,
    /// Where warnings and errors are kept besides, for those who share it. Default: nowhere.
    pub recent: Option<Recent>,
}

impl ClientOptions {
    /// The defaults: level `info`, standard error while the log server is away.
    #[must_use]
    pub fn new(to: LogTo, resource: Resource) -> Self {
        Self {
            to,
            resource,
            levels: Levels::default(),
            stderr: StderrMode::WhenAway,
            stderr_fd: None,
            ring_bytes: DEFAULT_RING_BYTES,
            recent: None,
        }
    }
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The path is no address of a socket: at most 107 bytes are.
    #[error("log socket {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no descriptor or no thread for it.
    #[error("start the log client")]
    Start(#[source] io::Error),
    /// The program has a subscriber of its own already.
    #[error("a tracing subscriber is installed already")]
    AlreadyInstalled,
}

/// What [`LogClient::flush`] achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "records may be left"]
pub struct Flushed {
    /// Records that the log server has not acknowledged.
    pub unsent: u64,
    /// Records that were dropped since the client was started: the log server never gets them.
    pub dropped: u64,
}

/// A handle on the log of this process. Clones share it; the last one ends the thread, without waiting for anything.
#[derive(Clone, Debug)]
pub struct LogClient {
    owner: Arc<Owner>,
    levels: Levels,
    recent: Option<Recent>,
}

/// Starts to log and makes the client the program's `tracing` subscriber, once and for all.
///
/// Call it after the last `fork` (a child does not inherit the thread) and after signals are blocked (the thread inherits
/// that).
///
/// # Errors
///
/// See [`ClientError`]. A log server that is away is none: records wait for it.
///
/// ```
/// use tidegate_log::{ClientOptions, LogTo, Resource};
/// let to = LogTo::Socket("log.sock".into());
/// let log = tidegate_log::install(ClientOptions::new(to, Resource::this_process("worker 0", 1)))?;
/// tracing::info!(address = "127.0.0.1:8080", "listening");
/// let flushed = log.flush(std::time::Duration::from_secs(1));
/// assert_eq!(flushed.unsent, 1, "nobody listens there; it went to standard error");
/// # Ok::<(), tidegate_log::ClientError>(())
/// ```
pub fn install(options: ClientOptions) -> Result<LogClient, ClientError> {
    let client = LogClient::start(options)?;
    let subscriber = tracing_subscriber::registry().with(client.layer());
    tracing::subscriber::set_global_default(subscriber).map_err(|_| ClientError::AlreadyInstalled)?;
    Ok(client)
}

/// Makes every panic a record of severity `ERROR`, besides what the present hook does.
///
/// The present hook, which writes to standard error and would wait for it, is left out while that has no room: a reader who
/// has stopped reading must not stop the thread of an event loop.
pub fn log_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("a payload that is no text");
        tracing::error!(target: "panic", thread = thread.name().unwrap_or("unnamed"), location, "{text}");
        if screen::stderr_has_room() {
            before(panic);
        }
    }));
}

impl LogClient {
    /// Starts the thread, without installing a subscriber: see [`layer`](Self::layer).
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn start(options: ClientOptions) -> Result<Self, ClientError> {
        let capacity = options.ring_bytes.max(2 * MAX_LINE_BYTES);
        let screen = Screen::new(options.stderr_fd);
        let mode = if screen.is_blind() { StderrMode::Never } else { options.stderr };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(Queue::new(capacity, mode))),
            progress: Condvar::new(),
            wake: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|errno| ClientError::Start(errno.into()))?,
            resource: resource_json(&options.resource),
        });
        let destination = match options.to {
            LogTo::Store(store) => Destination::Store(store),
            LogTo::Socket(path) => match SocketLink::new(&path, &options.resource) {
                Ok(link) => Destination::Socket(Box::new(link)),
                Err(errno) => return Err(ClientError::Path { path, source: errno.into() }),
            },
        };
        let mut sender = Sender::new(Arc::clone(&shared), destination, screen);
        // Connected before the first record, it does not go to standard error for nothing.
        sender.connect();
        std::thread::Builder::new()
            .name("log-client".to_owned())
            .stack_size(THREAD_STACK_BYTES)
            .spawn(move || sender.run())
            .map_err(ClientError::Start)?;
        Ok(Self { owner: Arc::new(Owner(shared)), levels: options.levels, recent: options.recent })
    }

    /// The layer that records events through this client, for a subscriber of the program's own.
    #[must_use]
    pub fn layer(&self) -> TidegateLayer {
        TidegateLayer::new(self.clone())
    }

    /// Which events are recorded. A clone of it stays in step with [`set_levels`](Self::set_levels).
    #[must_use]
    pub const fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Records by other levels, from the next event on, whichever thread logs it.
    ///
    /// A thread that logs takes no lock for it: `tracing` keeps at each call site whether its events are wanted, and a change
    /// makes it ask again.
    ///
    /// ```
    /// use tidegate_log::{ClientOptions, LogClient, LogTo, Resource};
    /// let to = LogTo::Socket("log.sock".into());
    /// let log = LogClient::start(ClientOptions::new(to, Resource::this_process("worker 0", 1)))?;
    /// log.set_levels(&log.levels().with_target("tidegate_engine=trace")?);
    /// assert_eq!(log.levels().to_string(), "info,tidegate_engine=trace");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_levels(&self, levels: &Levels) {
        self.levels.replace(levels);
    }

    /// Waits until the log server has acknowledged every record logged before the call, and standard error has shown those
    /// that it is to show. Ends early when nobody listens at the log socket: then standard error has them, if it may.
    pub fn flush(&self, timeout: Duration) -> Flushed {
        let shared = self.shared();
        let deadline = Instant::now() + timeout;
        let mut state = shared.lock();
        state.flushes += 1;
        let this = state.flushes;
        let mut target = state.queue.end();
        let mut reporting = state.queue.lost().unreported > 0;
        shared.wake();
        loop {
            if reporting && state.queue.lost().unreported == 0 {
                reporting = false;
                target = state.queue.end();
            }
            let shown = state.queue.is_done(To::Screen, target);
            let stored = state.queue.is_done(To::Server, target) && !reporting;
            if shown && (stored || state.nobody >= this) || state.over {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = shared.wait(state, left);
        }
        Flushed { unsent: state.queue.undelivered(target), dropped: state.queue.lost().total }
    }

    /// Flushes, and ends the connection for good, so that the log server need not wait for this client when it stops. What
    /// is logged afterwards goes to standard error only, unless that is never wanted.
    pub fn close(&self, timeout: Duration) -> Flushed {
        let deadline = Instant::now() + timeout;
        let flushed = self.flush(timeout);
        let shared = self.shared();
        let mut state = shared.lock();
        state.queue.close();
        shared.wake();
        // Even without time left: the thread does not block, and the caller counts on the connection having ended.
        let deadline = deadline.max(Instant::now() + CLOSE_GRACE);
        while !(state.disconnected || state.over) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = shared.wait(state, left);
        }
        flushed
    }

    /// Whether the log server cannot be relied on at present.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.shared().lock().queue.is_away()
    }

    /// Records dropped since the start: the log server never gets them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.shared().lock().queue.lost().total
    }

    /// What stands in the records of this process besides what is logged.
    pub(crate) fn head<'a>(&'a self, target: &'a str, severity: Severity) -> Head<'a> {
        Head { time: jiff::Timestamp::now(), severity, target, resource: &self.shared().resource }
    }

    /// Queues a record that lacks its end.
    pub(crate) fn offer(&self, severity: Severity, line: &[u8]) {
        if let Some(recent) = &self.recent {
            recent.put(severity, line);
        }
        let mut state = self.shared().lock();
        state.queue.offer(line);
        let mut wake = std::mem::take(&mut state.parked);
        if state.lingering && state.queue.is_half_full() {
            state.lingering = false;
            wake = true;
        }
        drop(state);
        if wake {
            self.shared().wake();
        }
    }

    fn shared(&self) -> &Shared {
        &self.owner.0
    }
}

/// Ends the thread when the last handle is gone.
#[derive(Debug)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.wake();
    }
}

/// What the handles and the thread share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Told by the thread after every step, for those that wait for something.
    progress: Condvar,
    /// An eventfd; written to end the thread's wait.
    wake: OwnedFd,
    /// The resource as a JSON object.
    pub(crate) resource: String,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) queue: Queue,
    /// The thread waits for a record: who queues one takes this and wakes it.
    pub(crate) parked: bool,
    /// The thread looks again in a moment, unless there is a reason not to wait for that.
    pub(crate) lingering: bool,
    /// How many flushes have been asked for.
    pub(crate) flushes: u64,
    /// An attempt to connect that was made after so many flushes had been asked for found that nobody listens.
    pub(crate) nobody: u64,
    /// The connection was ended on request.
    pub(crate) disconnected: bool,
    /// There is no handle any more, or no thread.
    pub(crate) over: bool,
}

impl State {
    const fn new(queue: Queue) -> Self {
        Self {
            queue,
            parked: false,
            lingering: false,
            flushes: 0,
            nobody: 0,
            disconnected: false,
            over: false,
        }
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // The queue's cursors are set in an order that is sound after each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        self.progress.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn announce_progress(&self) {
        self.progress.notify_all();
    }

    pub(crate) const fn wake_fd(&self) -> &OwnedFd {
        &self.wake
    }

    /// Ends the thread's wait, or its next one.
    fn wake(&self) {
        // The one error there can be says that the counter is full: then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

const DEFAULT_RING_BYTES: usize = 1 << 20;
/// How long `close` waits for the thread in any case.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// Parsing a record for standard error is the deepest the thread goes.
const THREAD_STACK_BYTES: usize = 256 << 10;
