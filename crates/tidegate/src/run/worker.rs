//! A worker's process: event loops on threads of their own; the main thread listens to the master and to signals.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_engine::{Metrics, ProcessMetrics, ProcessWord, Words};
use tidegate_log::LogClient;
use tidegate_process::{Child, ChildEvent};
use tidegate_sys::shared::SharedMemory;

use super::build::{Built, Listening};
use super::logging;
use super::loops::WorkerLoops;
use super::watch::Watch;
use crate::sockets::real_address;
use crate::status::{ProcessState, unix_time};
use crate::{Error, ServerBuilder};

/// The name under which the counters are handed over.
pub(crate) const METRICS_FD: &str = "metrics";
/// What the names of listening sockets begin with; behind it stand the number of the listener and the slot in the worker.
pub(crate) const LISTEN_PREFIX: &str = "listen:";

/// Plays the part of worker `index` until it is told to end.
pub(crate) fn run(server: &ServerBuilder, mut child: Child, index: u32) -> Result<(), Error> {
    let log = match server.operated {
        true => Some(logging::to_server(&server.config, &format!("worker {index}"))?),
        false => None,
    };
    let outcome = serve(server, &mut child, index, log.as_ref());
    if let Err(error) = &outcome {
        tracing::error!(error = %chain(error), "worker failed");
    }
    if let Some(log) = log {
        let _ = log.close(logging::FLUSH_TIMEOUT);
    }
    outcome
}

fn serve(
    server: &ServerBuilder,
    child: &mut Child,
    index: u32,
    log: Option<&LogClient>,
) -> Result<(), Error> {
    let metrics = metrics_of(server, child)?;
    let worker = usize::try_from(index).unwrap_or(usize::MAX);
    let places: Vec<ProcessMetrics> =
        server.layout().of_worker(worker).map(|place| metrics.process(place)).collect();
    places.iter().for_each(|place| announce(place, 2, index.into()));
    let own = places[0].clone();
    let timeout = server.config.process.shutdown_timeout;
    let mut inherited = child.take_fds_with_prefix(LISTEN_PREFIX);
    let built = Built::new(server, &metrics, worker, |slot| take_sockets(server, &mut inherited, slot))?;
    let waker = child.waker();
    let loops = WorkerLoops::start(built, move || waker.wake())?;
    loops.publish(&places);
    own.set(ProcessWord::State, ProcessState::Ready as u64);
    tracing::info!(listeners = server.listeners.len(), loops = server.loop_count(), "worker serves");
    child.ready().map_err(Error::system("telling the master"))?;
    let mut watches: Vec<Watch> = server
        .layout()
        .seats()
        .zip(places)
        .map(|(seat, own)| Watch::new(server, seat, own, log.cloned()))
        .collect();
    let interval = watches[0].interval();
    let mut give_up_at = None;
    let mut told = false;
    loop {
        let event = child.wait_event(Some(interval)).map_err(Error::system("waiting for orders"))?;
        watches.iter_mut().for_each(Watch::look);
        told |= matches!(event, Some(ChildEvent::Quit { .. } | ChildEvent::MasterGone | ChildEvent::Stop));
        match event {
            Some(ChildEvent::Quit { timeout: within }) => {
                own.set(ProcessWord::State, ProcessState::Retiring as u64);
                loops.quit(within.unwrap_or(timeout));
            }
            Some(ChildEvent::MasterGone) => {
                tracing::error!("the master has gone; finishing what is in flight");
                own.set(ProcessWord::State, ProcessState::Retiring as u64);
                loops.quit(timeout);
                // Nobody is left who would end a loop that is stuck in a callback.
                give_up_at = Some(Instant::now() + timeout + STUCK_AFTER);
            }
            Some(ChildEvent::Stop) => {
                own.set(ProcessWord::State, ProcessState::Retiring as u64);
                loops.stop();
            }
            Some(ChildEvent::Woken) if loops.is_finished() => break,
            Some(ChildEvent::Woken) if loops.has_ended() && !told => {
                // A loop that ends by itself has failed; without it a part of the connections would not be served, and
                // without the acceptor none.
                told = true;
                loops.stop();
            }
            // A worker has no files of its own to open again.
            Some(ChildEvent::Reopen | ChildEvent::Woken) | None => {}
        }
        if give_up_at.is_some_and(|at| at <= Instant::now()) {
            return Err(Error::Service("the event loop is stuck; ending without it".into()));
        }
    }
    let outcome = loops.join();
    own.set(ProcessWord::State, ProcessState::Ended as u64);
    tracing::info!("worker ends");
    outcome
}

/// How long after its time-out a loop without a master is given up.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The sockets in a slot of this worker, in the order of the listeners.
fn take_sockets(
    server: &ServerBuilder,
    inherited: &mut Vec<(String, OwnedFd)>,
    slot: usize,
) -> Result<Vec<Listening>, Error> {
    let mut sockets = Vec::with_capacity(server.listeners.len());
    for (index, listener) in server.listeners.iter().enumerate() {
        let wanted = format!("{index}:{slot}");
        let found =
            inherited.iter().position(|(name, _)| name.strip_suffix(SHARED_SUFFIX).unwrap_or(name) == wanted);
        let Some(at) = found else {
            return Err(Error::Service(
                format!("no socket was handed over for listener \"{}\"", listener.name).into(),
            ));
        };
        let (name, fd) = inherited.swap_remove(at);
        let address = real_address(&listener.address, &fd);
        sockets.push(Listening { fd, shared: name.ends_with(SHARED_SUFFIX), address });
    }
    Ok(sockets)
}

/// Marks the socket of a listener that all workers poll.
pub(crate) const SHARED_SUFFIX: &str = ":shared";

/// The counters that all processes share.
pub(crate) fn metrics_of(server: &ServerBuilder, child: &mut Child) -> Result<Metrics, Error> {
    let fd =
        child.take_fd(METRICS_FD).ok_or_else(|| Error::Service("no counters were handed over".into()))?;
    let memory = SharedMemory::from_fd(fd).map_err(Error::system("mapping the counters"))?;
    Ok(Metrics::new(Arc::new(SharedWords(memory)), server.counted_listeners()))
}

/// Shared memory as the words of [`Metrics`].
#[derive(Debug)]
pub(crate) struct SharedWords(pub(crate) SharedMemory);

impl Words for SharedWords {
    fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        self.0.as_atomics()
    }
}

/// Enters this process into its place among the counters.
pub(crate) fn announce(own: &ProcessMetrics, role: u64, index: u64) {
    // The place still has what the process before left there.
    let restarts = own.get(ProcessWord::Restarts) + u64::from(own.get(ProcessWord::Pid) != 0);
    own.begin();
    own.set(ProcessWord::Restarts, restarts);
    own.set(ProcessWord::Role, role);
    own.set(ProcessWord::Index, index);
    own.set(ProcessWord::Generation, logging::GENERATION);
    own.set(ProcessWord::StartedUnix, unix_time());
    own.set(ProcessWord::State, ProcessState::Starting as u64);
    own.set(ProcessWord::Pid, std::process::id().into());
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}
