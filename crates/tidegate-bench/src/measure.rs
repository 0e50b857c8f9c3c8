//! `measure`: one server under one load, with what it costs.
//!
//! Invariant: every figure of a [`Sample`] is of the same while, when all connections stand and the load has warmed up. The
//! system calls are counted in a while of their own behind it, since counting slows the server down.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use crate::models::chain;
use crate::{
    CountingTool, Failures, LatencySummary, LoadError, LoadReport, LoadSpec, Progress, Scenario, Stop,
    SyscallCounter, cpu_time, resident_bytes, run,
};

/// The server that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its process.
    pub pid: u32,
    /// Where it listens.
    pub address: SocketAddr,
}

/// How long is measured.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Before anything counts.
    pub warmup: Duration,
    /// What counts.
    pub measure: Duration,
    /// How long system calls are counted afterwards; zero: not at all.
    pub trace: Duration,
    /// What counts them.
    pub tool: CountingTool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Right answers.
    pub requests: u64,
    /// Right answers per second.
    pub rate: f64,
    /// Times from question to answer.
    #[serde(flatten)]
    pub latency: LatencySummary,
    /// The server's processor time per answer, in microseconds.
    pub cpu_us: f64,
    /// The server's resident memory at the end, in bytes.
    pub resident_bytes: u64,
    /// What failed, the warm-up and the counting of system calls included.
    pub failures: Failures,
    /// System calls per answer, if they were to be counted.
    pub syscalls: Syscalls,
}

/// System calls per answer, if they were counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Syscalls {
    /// Nobody asked for them.
    NotAsked,
    /// They were.
    Counted(SyscallsPerRequest),
    /// Why they could not be.
    Uncounted(String),
}

/// System calls per answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SyscallsPerRequest {
    /// Those that wait: epoll_wait(2), poll(2), io_uring_enter(2).
    pub poller: f64,
    /// All others.
    pub others: f64,
    /// Each by name, the most frequent first, those below one in a thousand requests left out.
    pub by_name: Vec<(String, f64)>,
    /// Who counted: `perf` or `strace`.
    pub tool: String,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The server cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The run was stopped.
    #[error("it was stopped")]
    Stopped,
    /// The server is not there any more.
    #[error("the server has gone")]
    Gone(#[source] io::Error),
}

/// Loads a server and measures it.
///
/// # Errors
///
/// The connections cannot be made, or the server goes away. Wrong answers are no error; they are counted.
pub fn measure(
    subject: Subject,
    scenario: &Scenario,
    times: &Times,
    stop: &Stop,
) -> Result<Sample, MeasureError> {
    let spec = LoadSpec {
        connections: scenario.connections,
        active: scenario.active,
        pipeline: scenario.pipeline,
        warmup: times.warmup,
        duration: times.measure,
        ..LoadSpec::new(vec![subject.address.into()], scenario.ask())
    };
    let (report, [before, after]) =
        load_beside(&spec, stop, || Ok((cpu_time(subject.pid)?, resident_bytes(subject.pid)?)))?;
    let mut failures = report.failures.clone();
    let (syscalls, failed) = trace(&[subject.pid], &spec, times, stop)?;
    failures.add(failed);
    let cpu = after.0.saturating_sub(before.0);
    Ok(Sample {
        requests: report.requests,
        rate: report.rate,
        latency: report.latency.summary(),
        cpu_us: cpu_us_per_answer(cpu, &report),
        resident_bytes: after.1,
        failures,
        syscalls,
    })
}

/// Loads a server, and looks at something when it begins to count and when it ends.
///
/// # Errors
///
/// [`MeasureError`]; what `look` answers is [`Gone`](MeasureError::Gone).
pub(crate) fn load_beside<T>(
    spec: &LoadSpec,
    stop: &Stop,
    mut look: impl FnMut() -> io::Result<T>,
) -> Result<(LoadReport, [T; 2]), MeasureError> {
    let (mut before, mut after) = (None, None);
    let report = run(spec, stop, &mut |progress| match progress {
        Progress::Begin => before = Some(look()),
        Progress::End => after = Some(look()),
        _ => {}
    })?;
    let (Some(before), Some(after), None) = (before, after, report.stopped_of) else {
        return Err(MeasureError::Stopped);
    };
    let [before, after] = [before, after].map(|looked| looked.map_err(MeasureError::Gone));
    Ok((report, [before?, after?]))
}

/// Counts the system calls of a load, from a moment when nothing is in flight to another, so that the calls are those of the
/// answers and of no others; and what failed meanwhile.
pub(crate) fn trace(
    pids: &[u32],
    spec: &LoadSpec,
    times: &Times,
    stop: &Stop,
) -> Result<(Syscalls, Failures), MeasureError> {
    if times.trace.is_zero() {
        return Ok((Syscalls::NotAsked, Failures::default()));
    }
    let spec = LoadSpec { settle: true, duration: times.trace, timeout: PATIENCE, ..spec.clone() };
    let (mut counter, mut counts) = (None, None);
    let report = run(&spec, stop, &mut |progress| match progress {
        Progress::Begin => counter = Some(SyscallCounter::attach(times.tool, pids)),
        Progress::Settled => counts = counter.take().map(|counter| counter.and_then(SyscallCounter::finish)),
        _ => {}
    })?;
    let counts = match (counts, report.stopped_of) {
        (Some(Ok(counts)), None) => counts,
        (Some(Err(error)), None) => return Ok((Syscalls::Uncounted(chain(&error)), report.failures)),
        _ => return Err(MeasureError::Stopped),
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of answers are far below 2^52")]
    let each = |calls: u64| crate::per(calls, report.answered as f64);
    let mut by_name: Vec<_> =
        counts.by_name.iter().map(|(name, calls)| (name.clone(), each(*calls))).collect();
    by_name.retain(|(_, share)| *share >= 0.001);
    by_name.sort_by(|a, b| b.1.total_cmp(&a.1));
    let poller = each(counts.poller());
    let others = each(counts.total) - poller;
    let tool = counts.tool.to_string();
    Ok((Syscalls::Counted(SyscallsPerRequest { poller, others, by_name, tool }), report.failures))
}

/// How long what is in flight may take: 10,000 answers of a server that is being traced.
const PATIENCE: Duration = Duration::from_secs(30);

/// All of the time when there was no answer, which no reader will take for a good figure.
#[expect(clippy::cast_precision_loss, reason = "counts of answers are far below 2^52")]
pub(crate) fn cpu_us_per_answer(cpu: Duration, report: &LoadReport) -> f64 {
    cpu.as_secs_f64() * 1e6 / report.requests.max(1) as f64
}

/// Keeps this thread, and what it starts from now on, on one processor.
///
/// # Errors
///
/// What sched_setaffinity(2) answered, as when there is no such processor.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no processor {cpu}")));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}
