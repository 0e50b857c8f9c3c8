//! `Asker`: a thread that asks: an event loop with the connections of its share.
//!
//! Invariant: the thread has ended when its `Asker` has been joined or dropped, so no run outlives its report.

use std::io;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_engine::{
    Backend, BoxError, BoxedService, Connect, EngineConfig, LoopBuilder, LoopHandle, Target, TimerKind,
    Trigger,
};

use super::client::{Client, Event, Lane, Note};
use super::course::{Course, Pace, now};
use super::dialogue::Dialogue;
use super::spec::{LoadSpec, MAX_IN_FLIGHT_BYTES};
use super::tally::Tally;
use crate::procfs::{self, ThreadTime};

/// A thread that asks.
#[derive(Debug)]
pub(super) struct Asker {
    handle: LoopHandle,
    tally: Arc<Mutex<Tally>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    /// Its number in the kernel.
    tid: i32,
}

/// The one client of each loop.
const NAME: &str = "load";

impl Asker {
    /// Starts thread number `nth`, which has nothing to do yet.
    pub(super) fn start<D: Dialogue>(
        nth: usize,
        spec: &LoadSpec,
        dialogue: D,
        course: &Arc<Course>,
        events: &Sender<Event>,
    ) -> Result<Self, BoxError> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let client = Client {
            dialogue,
            course: Arc::clone(course),
            tally: Arc::clone(&tally),
            events: events.clone(),
            pipeline: spec.pipeline,
            pace: pace(spec),
            timeout: spec.timeout,
        };
        let config = EngineConfig {
            max_connections: spec.connections.div_ceil(spec.threads),
            // Each connection may have that much in flight; most of the time it has next to nothing.
            max_buffer_bytes: MAX_IN_FLIGHT_BYTES.saturating_mul(64),
            backend: Backend::Epoll,
            trigger: Trigger::Edge,
            // The one queue with the resolution of the clock: a wheel would send late by up to a millisecond.
            timers: TimerKind::Heap,
            ..EngineConfig::default()
        };
        let mut service = BoxedService::new(client);
        if let Some(tls) = &spec.tls {
            service = service.client_layer(Arc::new(tls.clone()));
        }
        let (mut event_loop, handle) = LoopBuilder::new(config).client_boxed(NAME, Ok(service)).build()?;
        let (told, tid) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("load-{nth}")).spawn(move || {
            // The kernel would otherwise let it sleep up to 50 us longer than until a request is due. A kernel that refuses
            // makes the lateness larger, which is reported.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            // Nobody waits for it only when the run has been given up.
            let _ = told.send(rustix::thread::gettid().as_raw_nonzero().get());
            event_loop.run()
        })?;
        let tid = tid.recv()?;
        Ok(Self { handle, tally, thread: Some(thread), tid })
    }

    /// Makes a connection for a place of the run.
    pub(super) fn connect(
        &self,
        to: &Target,
        from: Option<IpAddr>,
        timeout: Duration,
        lane: Lane,
    ) -> Result<(), BoxError> {
        let mut connect = Connect::to(to.clone()).deadline(timeout);
        if let Some(from) = from {
            connect = connect.from(from);
        }
        Ok(self.handle.connect(NAME, connect, Note::Take(lane, now()))?)
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread has had of the processors; nothing once it has ended.
    pub(super) fn time(&self) -> ThreadTime {
        procfs::thread_time(self.tid).unwrap_or_default()
    }

    /// Ends what is left of its connections, and the thread.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.handle.stop();
        match self.thread.take() {
            Some(thread) => {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the client panicked")))
            }
            None => Ok(()),
        }
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // Whoever wants to know how it ended has called `stop`.
        let _ = self.stop();
    }
}

/// When requests are due, if there is a rate.
pub(super) fn pace(spec: &LoadSpec) -> Option<Pace> {
    let asking = u32::try_from(spec.asking()).unwrap_or(u32::MAX);
    spec.rate.map(|rate| Pace::new(rate, asking))
}
