//! [`run`]: connects, lets the threads ask, looks at what they have counted, and ends.
//!
//! ```text
//!  one connection ─▶ the others, some at a time ─▶ Go ─▶ warm-up ─▶ measured, a look each second ─▶ Settle ─▶ last answers
//! ```
//!
//! Invariant: what counts is counted between two moments that are the same for all threads.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::ask::Ask;
use super::client::Note;
use super::course::{Course, Times, now};
use super::dialogue::Dialogue;
use super::echo::Echo;
use super::error::LoadError;
use super::http::Http;
use super::msg::Msg;
use super::places::Places;
use super::report::{LoadReport, Progress, Second};
use super::spec::{LoadSpec, SpecError};
use super::stop::Stop;
use super::tally::Tally;
use super::threads::{Asker, pace};
use super::unsent::count_unsent;
use crate::limits::raise_descriptor_limit;
use crate::procfs::ThreadTime;

/// Loads a server as the spec says, and calls `progress` now and then, several times a second.
///
/// # Errors
///
/// [`LoadError`]: nothing was measured. What fails later, once the connections stand, is in the report.
pub fn run(
    spec: &LoadSpec,
    stop: &Stop,
    progress: &mut dyn FnMut(&Progress),
) -> Result<LoadReport, LoadError> {
    let (report, held) = run_held(spec, stop, progress)?;
    held.close()?;
    Ok(report)
}

/// As [`run`], and the connections stand as long as what stands beside the report.
///
/// # Errors
///
/// As [`run`].
pub fn run_held(
    spec: &LoadSpec,
    stop: &Stop,
    progress: &mut dyn FnMut(&Progress),
) -> Result<(LoadReport, Held), LoadError> {
    spec.check()?;
    let most = raise_descriptor_limit().unwrap_or(u64::MAX);
    let needed = spec.connections as u64 + OWN_DESCRIPTORS;
    if needed > most {
        return Err(LoadError::Descriptors { connections: spec.connections, needed, most });
    }
    let run = Run { spec, stop, progress };
    match &spec.ask {
        Ask::Echo { size } => drive(run, || Ok(Echo::new(*size))),
        Ask::Http { path, host, headers } => drive(run, || Ok(Http::new(path, host, headers))),
        Ask::Msg { code, size, login } => drive(run, || Msg::new(*code, *size, login.as_ref())),
    }
}

/// The connections of a run that is over. They are closed when it is dropped.
#[derive(Debug)]
pub struct Held {
    places: Places,
    is_closed: bool,
}

impl Held {
    fn close(mut self) -> Result<(), LoadError> {
        self.is_closed = true;
        self.places.close(CLOSING)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_closed {
            // Whoever wants to know how they ended closes them.
            let _ = self.places.close(CLOSING);
        }
    }
}

/// What was asked for.
struct Run<'a> {
    spec: &'a LoadSpec,
    stop: &'a Stop,
    progress: &'a mut dyn FnMut(&Progress),
}

fn drive<D: Dialogue>(
    run: Run<'_>,
    dialogue: impl Fn() -> Result<D, SpecError>,
) -> Result<(LoadReport, Held), LoadError> {
    let spec = run.spec;
    let course = Arc::new(Course::default());
    let (sender, events) = channel();
    let mut askers = Vec::with_capacity(spec.threads);
    for nth in 0..spec.threads {
        let asker = Asker::start(nth, spec, dialogue()?, &course, &sender);
        askers.push(asker.map_err(LoadError::Thread)?);
    }
    let mut driver = Driver {
        run,
        places: Places::new(spec, askers, events),
        all: Tally::default(),
        per_second: Vec::new(),
        cpu: Duration::ZERO,
        waiting: Duration::ZERO,
    };
    driver.connect_all()?;
    if spec.settle {
        driver.warm_up_apart(&course)?;
        driver.show(&Progress::Begin);
    }
    let warmup = if spec.settle { Duration::ZERO } else { spec.warmup };
    let times = Times::from_now(warmup, spec.duration);
    course.set(times);
    driver.places.go();
    let end = driver.measure(&times)?;
    driver.finish(&times, end)?;
    Ok(driver.report(&times, end))
}

/// The thread that watches the others.
struct Driver<'a> {
    run: Run<'a>,
    places: Places,
    all: Tally,
    per_second: Vec<Second>,
    cpu: Duration,
    waiting: Duration,
}

/// Descriptors besides those of connections: standard ones, pollers, wakers, with room to spare.
const OWN_DESCRIPTORS: u64 = 64;
/// How often is looked at what the threads have counted.
const LOOK: Duration = Duration::from_secs(1);
/// How often something is shown, and it is looked whether the run is to end.
const SHOW: Duration = Duration::from_millis(200);
/// A last stretch that is shorter than that belongs to the second before it.
const SHORT: Duration = Duration::from_millis(100);
/// How long answers may take that are in flight when a run is stopped.
const STOPPING: Duration = Duration::from_millis(500);
/// How long connections may take to close, which takes no answer of the server.
const CLOSING: Duration = Duration::from_secs(10);

impl Driver<'_> {
    /// Makes all connections, the first of them alone.
    fn connect_all(&mut self) -> Result<(), LoadError> {
        let spec = self.run.spec;
        let patience = Instant::now() + spec.timeout;
        self.places.begin();
        while self.places.open() == 0 {
            self.turn_unless_stopped(patience)?;
            if self.places.open() > 0 {
                break;
            }
            if let Some(text) = &self.places.failures().first {
                return Err(LoadError::Unreachable(text.clone()));
            }
            if Instant::now() >= patience {
                let to = spec.to.first().map(ToString::to_string).unwrap_or_default();
                return Err(LoadError::Unreachable(format!("{to}: no connection within {:?}", spec.timeout)));
            }
        }
        self.places.begin_others();
        let mut last = Instant::now();
        // As long as some come, the others are waited for.
        while self.places.open() < spec.connections && last.elapsed() < spec.timeout {
            let before = self.places.open();
            self.turn_unless_stopped(Instant::now() + SHOW)?;
            if self.places.open() > before {
                last = Instant::now();
            }
            self.show(&Progress::Connecting { open: self.places.open(), of: spec.connections });
        }
        self.show(&Progress::Ready { open: self.places.open(), of: spec.connections });
        Ok(())
    }

    fn show(&mut self, progress: &Progress) {
        (self.run.progress)(progress);
    }

    /// As long as nothing counts yet, there is no report of a run that is stopped.
    fn turn_unless_stopped(&mut self, until: Instant) -> Result<(), LoadError> {
        if self.run.stop.is_asked() {
            return Err(LoadError::Stopped);
        }
        self.places.turn(until.min(Instant::now() + SHOW))
    }

    fn warm_up(&mut self, end: Instant) -> Result<(), LoadError> {
        while Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            self.show(&Progress::WarmingUp { left });
            self.turn_unless_stopped(end)?;
        }
        Ok(())
    }

    /// Warms up, and waits until nothing is in flight.
    fn warm_up_apart(&mut self, course: &Course) -> Result<(), LoadError> {
        let times = Times::of_warmup(self.run.spec.warmup);
        course.set_warmup(times);
        self.places.go();
        self.warm_up(instant(times.end))?;
        self.settle(instant(times.end) + self.run.spec.timeout)?;
        if self.run.stop.is_asked() { Err(LoadError::Stopped) } else { Ok(()) }
    }

    /// Watches until nothing counts any more, and answers when that was.
    fn measure(&mut self, times: &Times) -> Result<u64, LoadError> {
        let begin = instant(times.begin);
        let end = begin + self.run.spec.duration;
        self.warm_up(begin)?;
        let before = self.times();
        if !self.run.spec.settle {
            self.show(&Progress::Begin);
        }
        let (mut from, mut stopped) = (begin, None);
        while from < end && stopped.is_none() {
            let mut to = (from + LOOK).min(end);
            if end.saturating_duration_since(to) < SHORT {
                to = end;
            }
            while Instant::now() < to && stopped.is_none() {
                self.places.turn(to.min(Instant::now() + SHOW))?;
                stopped = self.run.stop.is_asked().then(now);
            }
            self.look(begin, from, stopped.map_or(to, |at| instant(at).min(to)));
            from = to;
        }
        let after = self.times();
        self.show(&Progress::End);
        self.cpu = after.on_cpu.saturating_sub(before.on_cpu);
        self.waiting = after.waiting.saturating_sub(before.waiting);
        Ok(stopped.map_or(times.end, |at| at.clamp(times.begin + 1, times.end)))
    }

    /// What all threads have had of the processors.
    fn times(&self) -> ThreadTime {
        self.places.askers().iter().map(Asker::time).fold(ThreadTime::default(), |sum, time| ThreadTime {
            on_cpu: sum.on_cpu + time.on_cpu,
            waiting: sum.waiting + time.waiting,
        })
    }

    /// Takes what was counted between two moments.
    fn look(&mut self, begin: Instant, from: Instant, to: Instant) {
        let mut counted = Tally::default();
        for asker in self.places.askers() {
            counted.take(&mut asker.tally());
        }
        let elapsed = to.saturating_duration_since(begin);
        let last = Second::of(&counted, elapsed, to.saturating_duration_since(from));
        self.per_second.push(last);
        self.all.take(&mut counted);
        let (of, open) = (self.run.spec.duration, self.places.open());
        let failures = self.all.failures.total() + self.places.failures().total();
        self.show(&Progress::Measuring { elapsed, of, last, failures, open });
    }

    /// Lets nothing further be asked, and waits until nothing is in flight. What is then has had its time.
    fn settle(&mut self, patience: Instant) -> Result<(), LoadError> {
        self.places.settle();
        let mut patience = patience;
        while self.places.unsettled() > 0 && Instant::now() < patience {
            if self.run.stop.is_asked() {
                patience = patience.min(Instant::now() + STOPPING);
            }
            self.show(&Progress::Settling { left: self.places.unsettled() });
            self.places.turn(patience.min(Instant::now() + SHOW))?;
        }
        let has_had_its_time = !self.run.stop.is_asked();
        self.places.tell_unsettled(|| if has_had_its_time { Note::GiveUp } else { Note::End });
        let patience = Instant::now() + CLOSING;
        while self.places.unsettled() > 0 && Instant::now() < patience {
            self.places.turn(patience)?;
        }
        Ok(())
    }

    /// Waits for the last answers, and takes what was counted last.
    fn finish(&mut self, times: &Times, end: u64) -> Result<(), LoadError> {
        self.places.begin_closing();
        let patience = if end < times.end { STOPPING } else { self.run.spec.timeout };
        self.settle(instant(end) + patience)?;
        self.show(&Progress::Settled);
        for asker in self.places.askers() {
            self.all.take(&mut asker.tally());
        }
        self.all.failures.add(self.places.failures().clone());
        if let Some(pace) = pace(self.run.spec) {
            count_unsent(&pace, &Times { end, ..*times }, self.places.lanes(), &mut self.all);
        }
        Ok(())
    }

    fn report(mut self, times: &Times, end: u64) -> (LoadReport, Held) {
        let spec = self.run.spec;
        let measured = Duration::from_nanos(end - times.begin).min(spec.duration);
        let seconds = measured.as_secs_f64();
        // Those among the latencies that stand for requests without an answer are none.
        let requests = self.all.latency.count() - self.all.unsent - self.all.lost;
        let threads = u32::try_from(spec.threads).unwrap_or(u32::MAX);
        let report = LoadReport {
            ask: spec.ask.name().to_owned(),
            to: spec.to.iter().map(ToString::to_string).collect(),
            connections: spec.connections,
            asking: spec.asking(),
            pipeline: spec.pipeline,
            threads: spec.threads,
            wanted_rate: spec.rate,
            seconds,
            stopped_of: (end < times.end).then_some(spec.duration.as_secs_f64()),
            requests,
            rate: crate::per(requests, seconds),
            answered: self.all.answered,
            bytes_in: self.all.bytes_in,
            bytes_out: self.all.bytes_out,
            failures: std::mem::take(&mut self.all.failures),
            unsent: self.all.unsent,
            unanswered: self.all.lost,
            reconnects: self.places.reconnects(),
            made: self.all.connect.count(),
            connect: self.all.connect.percentiles(),
            tls: spec.tls.as_ref().map(|_| std::mem::take(&mut self.all.secured)),
            latency: self.all.latency.percentiles(),
            curve: self.all.latency.curve(),
            lateness: spec.rate.map(|_| self.all.lateness.percentiles()),
            per_second: self.per_second,
            client_cpu_seconds: self.cpu.as_secs_f64(),
            client_busy: self.cpu.as_secs_f64() / (seconds * f64::from(threads)),
            client_starved: self.waiting.as_secs_f64() / (seconds * f64::from(threads)),
        };
        (report, Held { places: self.places, is_closed: false })
    }
}

/// A time of the course on the clock of this thread, which is the same one.
fn instant(at: u64) -> Instant {
    let (here, now) = (Instant::now(), now());
    match at.checked_sub(now) {
        Some(ahead) => here + Duration::from_nanos(ahead),
        None => here.checked_sub(Duration::from_nanos(now - at)).unwrap_or(here),
    }
}
