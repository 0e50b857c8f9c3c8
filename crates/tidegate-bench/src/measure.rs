//! `measure`: one server under one load, with what it costs.
//!
//! Invariant: every figure of a [`Sample`] is of the same while, when all connections stand and the load has warmed up. The
//! system calls are counted in a while of their own behind it, since counting slows the server down.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use crate::load::per;
use crate::{
    ConnectError, CountError, CountingTool, ExchangeError, LatencySummary, Load, LoadPlan, Scenario,
    SyscallCounter, cpu_time, resident_bytes,
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
    /// Connections closed for a wrong answer.
    pub wrong: u64,
    /// Connections that the server closed.
    pub lost: u64,
    /// System calls per answer, if they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syscalls: Option<SyscallsPerRequest>,
    /// Why they were not, if they should have been.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untraced: Option<String>,
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
    /// The scenario cannot be asked.
    #[error("the scenario is impossible")]
    Exchange(#[from] ExchangeError),
    /// The connections cannot be made.
    #[error("the connections cannot be made")]
    Connect(#[from] ConnectError),
    /// The client's poller failed.
    #[error("the client cannot wait")]
    Wait(#[from] Errno),
    /// The server is not there any more.
    #[error("the server has gone")]
    Gone(#[source] io::Error),
}

/// Loads a server and measures it.
///
/// # Errors
///
/// The connections cannot be made, or the server goes away. Wrong answers are no error; they are counted.
pub fn measure(subject: Subject, scenario: &Scenario, times: &Times) -> Result<Sample, MeasureError> {
    let mut load = Load::connect(LoadPlan {
        targets: vec![subject.address],
        sources: Vec::new(),
        connections: scenario.connections,
        active: scenario.active,
        exchange: scenario.exchange()?,
    })?;
    let warmed = load.run(times.warmup)?;
    let before = cpu_time(subject.pid).map_err(MeasureError::Gone)?;
    let outcome = load.run(times.measure)?;
    let cpu = cpu_time(subject.pid).map_err(MeasureError::Gone)?.saturating_sub(before);
    let resident_bytes = resident_bytes(subject.pid).map_err(MeasureError::Gone)?;
    let (mut wrong, mut lost) = (warmed.wrong + outcome.wrong, warmed.lost + outcome.lost);
    let traced = if times.trace.is_zero() { None } else { Some(trace(&[subject.pid], &mut load, times)?) };
    let (syscalls, untraced) = match traced {
        None => (None, None),
        Some(Err(error)) => (None, Some(error.to_string())),
        Some(Ok(traced)) => {
            wrong += traced.wrong;
            lost += traced.lost;
            (Some(traced.syscalls), None)
        }
    };
    Ok(Sample {
        requests: outcome.answers(),
        rate: outcome.rate(),
        latency: outcome.latency.summary(),
        cpu_us: per_answer(cpu.as_secs_f64() * 1e6, outcome.answers()),
        resident_bytes,
        wrong,
        lost,
        syscalls,
        untraced,
    })
}

pub(crate) struct Traced {
    pub(crate) syscalls: SyscallsPerRequest,
    pub(crate) wrong: u64,
    pub(crate) lost: u64,
}

/// Counts from a moment when nothing is in flight to another, so that the calls are those of the answers and of no others.
pub(crate) fn trace(
    pids: &[u32],
    load: &mut Load,
    times: &Times,
) -> Result<Result<Traced, CountError>, Errno> {
    let before = load.drain(PATIENCE)?;
    let counter = match SyscallCounter::attach(times.tool, pids) {
        Ok(counter) => counter,
        Err(error) => return Ok(Err(error)),
    };
    let (outcome, rest) = (load.run(times.trace)?, load.drain(PATIENCE)?);
    let counts = match counter.finish() {
        Ok(counts) => counts,
        Err(error) => return Ok(Err(error)),
    };
    #[expect(clippy::cast_precision_loss, reason = "counts of answers are far below 2^52")]
    let answers = (outcome.answers() + rest.answers()) as f64;
    let each = |calls: u64| per(calls, answers);
    let mut by_name: Vec<_> =
        counts.by_name.iter().map(|(name, calls)| (name.clone(), each(*calls))).collect();
    by_name.retain(|(_, share)| *share >= 0.001);
    by_name.sort_by(|a, b| b.1.total_cmp(&a.1));
    let poller = each(counts.poller());
    let syscalls = SyscallsPerRequest {
        poller,
        others: each(counts.total) - poller,
        by_name,
        tool: counts.tool.to_string(),
    };
    let wrong = before.wrong + outcome.wrong + rest.wrong;
    let lost = before.lost + outcome.lost + rest.lost;
    Ok(Ok(Traced { syscalls, wrong, lost }))
}

/// How long what is in flight may take: 10,000 answers of a server that is being traced.
const PATIENCE: Duration = Duration::from_secs(30);

/// A quantity per answer; all of it when there was none, which no reader will take for a good figure.
#[expect(clippy::cast_precision_loss, reason = "counts of answers are far below 2^52")]
fn per_answer(quantity: f64, answers: u64) -> f64 {
    quantity / answers.max(1) as f64
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
