//! [`run`]: connects, lets the threads ask, looks at what they have counted, and ends.
//!
//! ```text
//!  one connection ─▶ the others, some at a time ─▶ Go ─▶ warm-up ─▶ measured, a look each second ─▶ End ─▶ last answers
//! ```
//!
//! Invariant: each place of the run has one connection or one that is being made, but for the moment before it is made anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use tidegate_engine::{BoxError, ConnHandle};

use super::client::{Event, Lane, Note};
use super::course::{Course, Times, now};
use super::dialogue::Dialogue;
use super::echo::Echo;
use super::http::Http;
use super::msg::Msg;
use super::report::{LoadReport, Progress, Second};
use super::spec::{Ask, LoadSpec, SpecError};
use super::tally::Tally;
use super::threads::{Asker, pace};
use crate::connect::raise_descriptor_limit;
use crate::procfs::ThreadTime;

/// Why a run did not take place.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be run as it was asked for.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The process may not have descriptors enough.
    #[error(
        "{connections} connections need about {needed} descriptors, and this process may have {most} (ulimit -Hn)"
    )]
    Descriptors {
        /// How many connections were asked for.
        connections: usize,
        /// Descriptors that they need, with those of the process itself.
        needed: u64,
        /// The hard limit.
        most: u64,
    },
    /// The server cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The server did not let a connection in.
    #[error("{0}")]
    Rejected(String),
    /// A thread of the client could not be started, or failed.
    #[error("a thread of the client: {0}")]
    Thread(BoxError),
}

/// Loads a server as the spec says, and calls `progress` now and then, each second at least.
///
/// # Errors
///
/// [`LoadError`]: nothing was measured. What fails later, once the connections stand, is in the report.
pub fn run(spec: &LoadSpec, progress: &mut dyn FnMut(&Progress)) -> Result<LoadReport, LoadError> {
    spec.check()?;
    let most = raise_descriptor_limit().unwrap_or(u64::MAX);
    let needed = spec.connections as u64 + OWN_DESCRIPTORS;
    if needed > most {
        return Err(LoadError::Descriptors { connections: spec.connections, needed, most });
    }
    match &spec.ask {
        Ask::Echo { size } => drive(spec, progress, || Ok(Echo::new(*size))),
        Ask::Http { path, host, headers } => drive(spec, progress, || Ok(Http::new(path, host, headers))),
        Ask::Msg { code, size, login } => drive(spec, progress, || Msg::new(*code, *size, login.as_ref())),
    }
}

fn drive<D: Dialogue>(
    spec: &LoadSpec,
    progress: &mut dyn FnMut(&Progress),
    dialogue: impl Fn() -> Result<D, SpecError>,
) -> Result<LoadReport, LoadError> {
    let course = Arc::new(Course::default());
    let (sender, events) = channel();
    let mut askers = Vec::with_capacity(spec.threads);
    for nth in 0..spec.threads {
        let asker = Asker::start(nth, spec, dialogue()?, &course, &sender);
        askers.push(asker.map_err(LoadError::Thread)?);
    }
    let mut driver = Driver::new(spec, askers, events, progress);
    driver.connect_all()?;
    let times = Times::from_now(spec.warmup, spec.duration);
    course.set(times);
    driver.tell_all(|| Note::Go);
    driver.measure(&times)?;
    driver.finish(&times)?;
    Ok(driver.report())
}

/// The thread that watches the others.
struct Driver<'a> {
    spec: &'a LoadSpec,
    askers: Vec<Asker>,
    events: Receiver<Event>,
    progress: &'a mut dyn FnMut(&Progress),
    places: Vec<Place>,
    /// Places with a connection.
    open: usize,
    /// Places that want one, and from when on; the nearest first.
    wanted: VecDeque<(Instant, u32)>,
    /// Connections that are being made.
    under_way: usize,
    reconnects: u64,
    /// Nothing is asked any more, so nothing is made anew.
    finishing: bool,
    all: Tally,
    per_second: Vec<Second>,
    cpu: Duration,
    waiting: Duration,
}

/// A place of the run, and the connection that has it.
#[derive(Debug)]
struct Place {
    conn: Option<ConnHandle<Note>>,
    lane: Lane,
}

/// Descriptors besides those of connections: standard ones, pollers, wakers, with room to spare.
const OWN_DESCRIPTORS: u64 = 64;
/// Connections that are made at the same time: fewer than the queue of any server that is to have thousands.
const UNDER_WAY: usize = 128;
/// After a connection that brought nothing, its place waits so long for another.
const PAUSE: Duration = Duration::from_millis(100);
/// How often is looked at what the threads have counted.
const LOOK: Duration = Duration::from_secs(1);
/// How often something is shown while nothing is counted.
const SHOW: Duration = Duration::from_millis(200);
/// A last stretch that is shorter than that belongs to the second before it.
const SHORT: Duration = Duration::from_millis(100);
/// Points of a place's requests that were not sent, at the most: they are evenly spaced, and so many tell it well enough.
const UNSENT_POINTS: u64 = 4096;

impl<'a> Driver<'a> {
    fn new(
        spec: &'a LoadSpec,
        askers: Vec<Asker>,
        events: Receiver<Event>,
        progress: &'a mut dyn FnMut(&Progress),
    ) -> Self {
        let numbers = (0_u32..).take(spec.connections);
        let places = numbers.map(|number| Place { conn: None, lane: Lane { number, sent: 0 } }).collect();
        Self {
            spec,
            askers,
            events,
            progress,
            places,
            open: 0,
            wanted: VecDeque::new(),
            under_way: 0,
            reconnects: 0,
            finishing: false,
            all: Tally::default(),
            per_second: Vec::new(),
            cpu: Duration::ZERO,
            waiting: Duration::ZERO,
        }
    }

    /// Makes all connections. The first of them alone: when the server is not there, that is all there is to say.
    fn connect_all(&mut self) -> Result<(), LoadError> {
        let patience = Instant::now() + self.spec.timeout;
        self.wanted.push_back((Instant::now(), 0));
        while self.open == 0 {
            self.turn(patience)?;
            if let Some(text) = self.all.failures.first.take_if(|_| self.open == 0) {
                return Err(LoadError::Unreachable(text));
            }
            if self.open == 0 && Instant::now() >= patience {
                let to = self.spec.to.first().map(ToString::to_string).unwrap_or_default();
                return Err(LoadError::Unreachable(format!(
                    "{to}: no connection within {:?}",
                    self.spec.timeout
                )));
            }
        }
        self.wanted.extend((1_u32..).take(self.spec.connections - 1).map(|number| (Instant::now(), number)));
        let mut last = Instant::now();
        // As long as some come, the others are waited for.
        while self.open < self.spec.connections && last.elapsed() < self.spec.timeout {
            let before = self.open;
            self.turn(Instant::now() + SHOW)?;
            if self.open > before {
                last = Instant::now();
            }
            self.show(&Progress::Connecting { open: self.open, of: self.spec.connections });
        }
        Ok(())
    }

    fn show(&mut self, progress: &Progress) {
        (self.progress)(progress);
    }

    fn tell_all(&self, note: impl Fn() -> Note) {
        for conn in self.places.iter().filter_map(|place| place.conn.as_ref()) {
            // One that has gone tells so itself. The mailbox is larger than any loop's share that fits into the ports of an
            // address; beyond it a loop needs a moment.
            while conn.post(note()) == Err(tidegate_engine::HandleError::Full) {
                std::thread::yield_now();
            }
        }
    }

    /// Watches until nothing is asked any more.
    fn measure(&mut self, times: &Times) -> Result<(), LoadError> {
        let begin = instant(times.begin);
        let end = begin + self.spec.duration;
        while Instant::now() < begin {
            let left = begin.saturating_duration_since(Instant::now());
            self.show(&Progress::WarmingUp { left });
            self.turn(begin.min(Instant::now() + LOOK))?;
        }
        let before = self.times();
        self.show(&Progress::Begin);
        let mut from = begin;
        while from < end {
            let mut to = (from + LOOK).min(end);
            if end.saturating_duration_since(to) < SHORT {
                to = end;
            }
            while Instant::now() < to {
                self.turn(to)?;
            }
            self.look(begin, from, to);
            from = to;
        }
        let after = self.times();
        self.show(&Progress::End);
        self.cpu = after.on_cpu.saturating_sub(before.on_cpu);
        self.waiting = after.waiting.saturating_sub(before.waiting);
        Ok(())
    }

    /// What all threads have had of the processors.
    fn times(&self) -> ThreadTime {
        self.askers.iter().map(Asker::time).fold(ThreadTime::default(), |sum, time| ThreadTime {
            on_cpu: sum.on_cpu + time.on_cpu,
            waiting: sum.waiting + time.waiting,
        })
    }

    /// Takes what was counted between two moments.
    fn look(&mut self, begin: Instant, from: Instant, to: Instant) {
        let mut counted = Tally::default();
        for asker in &self.askers {
            counted.take(&mut asker.tally());
        }
        let last = Second::of(&counted, to - begin, to - from);
        self.per_second.push(last);
        self.all.take(&mut counted);
        let (elapsed, of) = (to - begin, self.spec.duration);
        let (failures, open) = (self.all.failures.total(), self.open);
        self.show(&Progress::Measuring { elapsed, of, last, failures, open });
    }

    /// Waits for the last answers, and ends the threads.
    fn finish(&mut self, times: &Times) -> Result<(), LoadError> {
        self.finishing = true;
        self.wanted.clear();
        self.tell_all(|| Note::End);
        let patience = instant(times.end) + self.spec.timeout;
        while self.open + self.under_way > 0 && Instant::now() < patience {
            self.show(&Progress::Finishing { open: self.open });
            self.turn(patience.min(Instant::now() + SHOW))?;
        }
        for asker in &mut self.askers {
            asker.stop().map_err(|error| LoadError::Thread(error.into()))?;
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event)?;
        }
        for asker in &self.askers {
            self.all.take(&mut asker.tally());
        }
        self.count_unsent(times);
        Ok(())
    }

    /// Requests of a constant rate that were due and never sent have waited until now: left out, the worst would be missing.
    fn count_unsent(&mut self, times: &Times) {
        let Some(pace) = pace(self.spec) else { return };
        let now = now();
        for Place { lane, .. } in &self.places {
            let due = |nth| times.go.saturating_add(pace.due(lane.number, nth));
            let first = first_at(lane.sent, |nth| due(nth) >= times.begin);
            let end = first_at(first, |nth| due(nth) >= times.end);
            let count = end - first;
            self.all.unsent += count;
            let step = count.div_ceil(UNSENT_POINTS).max(1);
            for nth in (first..end).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
                let waited = Duration::from_nanos(now.saturating_sub(due(nth)));
                self.all.latency.record(waited, step.min(end - nth));
            }
        }
    }

    /// Makes what connections are due, then handles events until there is none or the time has come.
    fn turn(&mut self, until: Instant) -> Result<(), LoadError> {
        self.connect_some()?;
        let next = match self.wanted.front() {
            Some((at, _)) if self.under_way < UNDER_WAY => until.min(*at),
            _ => until,
        };
        match self.events.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(event) => self.take(event)?,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(LoadError::Thread("it has ended before its time".into()));
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event)?;
        }
        Ok(())
    }

    fn connect_some(&mut self) -> Result<(), LoadError> {
        let now = Instant::now();
        while self.under_way < UNDER_WAY {
            let Some(&(at, number)) = self.wanted.front() else { break };
            if at > now {
                break;
            }
            self.wanted.pop_front();
            let place = number as usize;
            let to = &self.spec.to[place % self.spec.to.len()];
            let asker = &self.askers[place % self.askers.len()];
            let lane = self.places[place].lane;
            asker.connect(to, self.spec.timeout, lane).map_err(LoadError::Thread)?;
            self.under_way += 1;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), LoadError> {
        match event {
            Event::Opened(number, conn) => {
                if self.finishing {
                    // One that has gone already tells so itself.
                    let _ = conn.post(Note::End);
                }
                self.places[number as usize].conn = Some(conn);
                self.under_way -= 1;
                self.open += 1;
            }
            Event::Closed { lane, was_useful } => {
                let place = &mut self.places[lane.number as usize];
                *place = Place { conn: None, lane };
                self.open -= 1;
                self.want(lane.number, if was_useful { Duration::ZERO } else { PAUSE });
            }
            Event::Failed(lane, text) => {
                self.under_way -= 1;
                self.all.failures.connect += 1;
                self.all.failures.tell(|| text);
                self.want(lane.number, PAUSE);
            }
            Event::Rejected(text) => return Err(LoadError::Rejected(text)),
        }
        Ok(())
    }

    /// A place has lost its connection, or did not get one.
    fn want(&mut self, number: u32, pause: Duration) {
        if self.finishing {
            return;
        }
        self.reconnects += 1;
        let at = Instant::now() + pause;
        if pause.is_zero() {
            self.wanted.push_front((at, number));
        } else {
            self.wanted.push_back((at, number));
        }
    }

    fn report(mut self) -> LoadReport {
        let spec = self.spec;
        let seconds = spec.duration.as_secs_f64();
        let requests = self.all.latency.count() - self.unanswered();
        let threads = u32::try_from(spec.threads).unwrap_or(u32::MAX);
        LoadReport {
            ask: spec.ask.name().to_owned(),
            to: spec.to.iter().map(ToString::to_string).collect(),
            connections: spec.connections,
            pipeline: spec.pipeline,
            threads: spec.threads,
            wanted_rate: spec.rate,
            seconds,
            requests,
            rate: crate::load::per(requests, seconds),
            bytes_in: self.all.bytes_in,
            bytes_out: self.all.bytes_out,
            failures: std::mem::take(&mut self.all.failures),
            unsent: self.all.unsent,
            reconnects: self.reconnects,
            latency: self.all.latency.percentiles(),
            curve: self.all.latency.curve(),
            lateness: spec.rate.map(|_| self.all.lateness.percentiles()),
            per_second: self.per_second,
            client_cpu_seconds: self.cpu.as_secs_f64(),
            client_busy: self.cpu.as_secs_f64() / (seconds * f64::from(threads)),
            client_starved: self.waiting.as_secs_f64() / (seconds * f64::from(threads)),
        }
    }

    /// Those among the latencies that stand for requests without an answer.
    fn unanswered(&self) -> u64 {
        self.all.unsent + self.all.lost
    }
}

/// The first number from `from` on of which `is_there` holds, which holds of all that come after it.
fn first_at(from: u64, is_there: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut step) = (from, 1);
    while !is_there(low + step - 1) {
        low += step;
        step *= 2;
    }
    // Now it is in low..low + step.
    let mut high = low + step - 1;
    while low < high {
        let middle = low + (high - low) / 2;
        if is_there(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// A time of the course on the clock of this thread, which is the same one.
fn instant(at: u64) -> Instant {
    Instant::now() + Duration::from_nanos(at.saturating_sub(now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_is_found_from_wherever_it_is_looked_for() {
        for first in [0, 1, 2, 3, 17, 1000, 1 << 40] {
            for from in [0, 1, 5, 900] {
                assert_eq!(first_at(from, |nth| nth >= first), first.max(from), "{first} from {from}");
            }
        }
    }
}
