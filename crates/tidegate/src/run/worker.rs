//! A worker's process: event loops on threads of their own; the main thread listens to the master and to signals.
//!
//! Invariant: the main thread never waits for a loop but for a bounded time, so that the master's questions are answered
//! also when a loop is stuck: by saying nothing, which is what makes its neighbours accept for it.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tidegate_engine::{ProcessMetrics, ProcessWord, Words};
use tidegate_log::LogClient;
use tidegate_process::{Child, ChildEvent, Within};
use tidegate_sys::shared::SharedMemory;

use super::build::{Built, Listening};
use super::generation::{HANDOFF_FD, LISTEN_PREFIX, Source};
use super::handout::Handout;
use super::logging;
use super::loops::{Covered, WorkerLoops};
use super::questions::Questioned;
use super::watch::Watch;
use crate::board::Board;
use crate::sockets::Bound;
use crate::status::{ProcessState, ROLE_WORKER, StatusSource, unix_time};
use crate::{Error, ServerBuilder};

/// Plays the part of worker `index` until it is told to end.
pub(crate) fn run(
    server: &ServerBuilder,
    mut child: Child,
    handout: &Handout,
    index: u32,
) -> Result<(), Error> {
    let board = Board::take(&mut child)?;
    let log = logging::of_child(server, &format!("worker {index}"), handout.generation, board.as_ref())?;
    let status = handout.status(server, &mut child, board);
    let outcome =
        status.and_then(|status| serve(server, &mut child, handout, index, (&status, log.as_ref())));
    logging::end_of_child(&child, "worker failed", &outcome, log);
    outcome
}

fn serve(
    server: &ServerBuilder,
    child: &mut Child,
    handout: &Handout,
    index: u32,
    (status, log): (&StatusSource, Option<&LogClient>),
) -> Result<(), Error> {
    let worker = usize::try_from(index).unwrap_or(usize::MAX);
    let seat = child.seat();
    let places = own_places(status, worker, seat);
    places.iter().for_each(|place| announce(place, ROLE_WORKER, index.into(), handout.generation, seat));
    let own = places[0].clone();
    let words = child.first_words().map_err(Error::system("reading the first words"))?;
    let sockets = Inherited::take(server, child, &words)?;
    let built = Built::new(server, status, places.clone(), worker, sockets)?;
    let waker = child.waker();
    let loops = WorkerLoops::start(built, move || waker.wake())?;
    loops.publish(&places);
    own.set(ProcessWord::State, ProcessState::Ready as u64);
    tracing::info!(listeners = server.listeners.len(), loops = server.loop_count(), "worker serves");
    logging::ready(server, child)?;
    let questioned = Questioned {
        generation: handout.generation,
        worker: index,
        seat,
        listeners: server.site_names(),
        log,
    };
    for word in &words {
        questioned.answer(word, &loops);
    }
    let watches =
        server.layout().seats().zip(places).map(|(seat, own)| Watch::new(server, seat, own, log.cloned()));
    let watches = watches.collect();
    let outcome = Serving { server, child, loops: &loops, own: &own, watches, questioned }.until_told();
    let joined = if outcome.is_ok() { loops.join() } else { Ok(()) };
    own.set(ProcessWord::State, ProcessState::Ended as u64);
    tracing::info!("worker ends");
    outcome.and(joined)
}

/// The places of a worker among the counters of its generation.
fn own_places(status: &StatusSource, worker: usize, seat: u32) -> Vec<ProcessMetrics> {
    let Some(view) = status.generations.last() else { return Vec::new() };
    let places = view.layout.of_worker(worker, usize::try_from(seat).unwrap_or(0));
    places.map(|place| view.metrics.process(place)).collect()
}

/// A worker that serves, and listens to its master.
struct Serving<'a> {
    server: &'a ServerBuilder,
    child: &'a mut Child,
    loops: &'a WorkerLoops,
    own: &'a ProcessMetrics,
    watches: Vec<Watch>,
    questioned: Questioned<'a>,
}

impl Serving<'_> {
    /// Serves until the loops have ended.
    fn until_told(mut self) -> Result<(), Error> {
        let timeout = self.server.config.process.shutdown_timeout;
        let interval = self.watches[0].interval();
        let mut give_up_at: Option<Instant> = None;
        let mut drain_until: Option<Instant> = None;
        let mut told = false;
        loop {
            let left = drain_until.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = left.map_or(interval, |left| left.min(interval));
            let event = self.child.wait_event(Some(wait)).map_err(Error::system("waiting for orders"))?;
            self.watches.iter_mut().for_each(Watch::look);
            told |= matches!(event, Some(ChildEvent::Quit(_) | ChildEvent::MasterGone | ChildEvent::Stop));
            match event {
                Some(ChildEvent::Quit(within)) => drain_until = self.quit(within),
                Some(ChildEvent::MasterGone) => {
                    tracing::error!("the master has gone; finishing what is in flight");
                    self.retiring();
                    self.loops.quit_behind_acceptor(timeout);
                    drain_until = None;
                    // Nobody is left who would end a loop that is stuck in a callback.
                    give_up_at = Some(Instant::now() + timeout + STUCK_AFTER);
                }
                Some(ChildEvent::Stop) => {
                    self.retiring();
                    self.loops.stop();
                }
                Some(ChildEvent::Woken) if self.loops.is_finished() => return Ok(()),
                Some(ChildEvent::Woken) if self.loops.has_ended() && !told => {
                    // A loop that ends by itself has failed; without it a part of the connections would not be served,
                    // and without the acceptor none.
                    told = true;
                    self.loops.stop();
                }
                Some(other) => self.obey(other)?,
                None => {}
            }
            if drain_until.take_if(|at| *at <= Instant::now()).is_some() {
                // What is left is closed with its reason.
                self.loops.quit(Duration::ZERO);
            }
            if give_up_at.is_some_and(|at| at <= Instant::now()) {
                return Err(Error::Service("the event loop is stuck; ending without it".into()));
            }
        }
    }

    fn obey(&mut self, event: ChildEvent) -> Result<(), Error> {
        match event {
            ChildEvent::Ping if self.watches.iter().all(|watch| watch.turns(ANSWERS_WITHIN)) => {
                tell(self.child.pong());
            }
            ChildEvent::Cover { slot, fds } => {
                match slot == self.questioned.worker {
                    true => tracing::info!(sockets = fds.len(), "accepting from more sockets"),
                    false => tracing::info!(slot, sockets = fds.len(), "accepting for a neighbour"),
                }
                for (name, fd) in fds {
                    self.cover(slot, &name, fd)?;
                }
            }
            ChildEvent::Uncover { slot } => {
                tracing::info!(slot, "no longer accepting for a neighbour");
                self.loops.release(slot);
            }
            ChildEvent::Pause => self.loops.pause(None),
            ChildEvent::Resume => self.loops.resume(None),
            ChildEvent::Ask { ticket, text } => {
                tell(self.child.answer(ticket, &self.questioned.answer(&text, self.loops)));
            }
            // A worker has no files of its own to open again.
            _ => {}
        }
        Ok(())
    }

    fn cover(&self, slot: u32, name: &str, fd: OwnedFd) -> Result<(), Error> {
        match Source::parse(name) {
            Some(Source::Listen { listener, slot: at, shared }) => {
                let socket = Covered { listener, slot: at, shared, nodelay: self.nodelay(listener) };
                self.loops.adopt(slot, socket, fd);
                Ok(())
            }
            Some(Source::Handoff) => self.loops.adopt_channel(slot, fd),
            None => {
                tracing::warn!(name, "a descriptor that is not known was handed over");
                Ok(())
            }
        }
    }

    fn nodelay(&self, listener: usize) -> bool {
        self.server.listeners.get(listener).is_none_or(|listener| listener.options.tcp.nodelay)
    }

    /// Begins to end; returns until when those who have nothing in flight may stay, if they may.
    fn quit(&self, within: Within) -> Option<Instant> {
        self.retiring();
        let (grace, drain_until) = match within {
            Within::Time(time) => (time, None),
            Within::Drain(limit) => {
                (Duration::MAX, limit.and_then(|limit| Instant::now().checked_add(limit)))
            }
            Within::Configured => (self.server.config.process.shutdown_timeout, None),
        };
        self.loops.quit(grace);
        drain_until
    }

    fn retiring(&self) {
        self.own.set(ProcessWord::State, ProcessState::Retiring as u64);
    }
}

/// Without a master nobody is told; that it has gone comes as an event of its own.
pub(crate) fn tell(told: std::io::Result<()>) {
    if let Err(error) = told {
        tracing::debug!(%error, "the master is not told");
    }
}

/// How long after its time-out a loop without a master is given up.
const STUCK_AFTER: Duration = Duration::from_secs(5);
/// A turn that takes longer than this makes neighbours accept for this worker.
pub(crate) const ANSWERS_WITHIN: Duration = Duration::from_millis(500);

/// What this worker accepts from.
pub(crate) struct Inherited {
    listening: Vec<(Source, OwnedFd)>,
    /// The ends of channels through which connections come.
    pub(crate) channels: Vec<OwnedFd>,
    /// The listeners that are paused, by their names.
    pub(crate) paused: Vec<String>,
}

impl Inherited {
    /// All sockets of a server of one process.
    pub(crate) fn of(bound: &[Bound], slots: usize) -> std::io::Result<Self> {
        let mut listening = Vec::new();
        for (listener, bound) in bound.iter().enumerate() {
            for slot in 0..slots {
                for (_, fd) in bound.for_slot(slot) {
                    let source = Source::Listen { listener, slot, shared: bound.is_shared() };
                    listening.push((source, fd.try_clone()?));
                }
            }
        }
        Ok(Self { listening, channels: Vec::new(), paused: Vec::new() })
    }

    fn take(server: &ServerBuilder, child: &mut Child, words: &[String]) -> Result<Self, Error> {
        let mut listening = Vec::new();
        for (rest, fd) in child.take_fds_with_prefix(LISTEN_PREFIX) {
            let source = Source::parse(&format!("{LISTEN_PREFIX}{rest}"));
            listening.push((
                source.ok_or_else(|| Error::Service("an unknown socket was handed over".into()))?,
                fd,
            ));
        }
        let channels: Vec<OwnedFd> = child.take_fd(HANDOFF_FD).into_iter().collect();
        if listening.is_empty() && channels.is_empty() && !server.listeners.is_empty() {
            return Err(Error::Service("nothing to accept from was handed over".into()));
        }
        let paused = words.iter().filter_map(|word| paused_by(word).map(str::to_owned)).collect();
        Ok(Self { listening, channels, paused })
    }

    /// The sockets in a slot of this worker, by listener.
    pub(crate) fn in_slot(&mut self, listeners: usize, wanted: usize) -> Vec<Vec<Listening>> {
        let mut sockets: Vec<Vec<Listening>> = (0..listeners).map(|_| Vec::new()).collect();
        for (source, fd) in std::mem::take(&mut self.listening) {
            match source {
                Source::Listen { listener, slot, shared } if slot == wanted && listener < listeners => {
                    sockets[listener].push(Listening { fd, shared });
                }
                other => self.listening.push((other, fd)),
            }
        }
        sockets
    }
}

/// The listener that a first word says is paused.
pub(crate) fn paused_by(word: &str) -> Option<&str> {
    word.strip_prefix("pause listener ")
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
pub(crate) fn announce(own: &ProcessMetrics, role: u64, index: u64, generation: u32, seat: u32) {
    // The place still has what the process before left there.
    let restarts = own.get(ProcessWord::Restarts) + u64::from(own.get(ProcessWord::Pid) != 0);
    own.begin();
    own.set(ProcessWord::Restarts, restarts);
    own.set(ProcessWord::Role, role);
    own.set(ProcessWord::Index, index);
    own.set(ProcessWord::Generation, generation.into());
    own.set(ProcessWord::Seat, seat.into());
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
