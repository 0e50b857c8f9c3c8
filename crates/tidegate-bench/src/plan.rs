//! `Plan`: what a server can take: one connection, then many, then more until nothing is gained by it.
//!
//! ```text
//!  single ─▶ concurrent ─▶ stress: twice as many each time ─▶ a few stages around the knee
//!    1          400          800, 1600, …  until throughput rises no more, something fails, or a limit is reached
//! ```
//!
//! Invariant: each stage has connections of its own, and its figures of client and server are of the same while. A stage
//! that could not be run is told with its reason and ends the plan; it is never left out.

use std::time::Duration;

use serde::Serialize;

use crate::chart::{Axis, Chart, Kind, Picture, Series, page};
use crate::models::chain;
use crate::{LoadError, LoadSpec, Percentiles, Progress, Sampler, Stop, Usage, run, server_at};

/// What is done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom, what, for how long; the number of its connections is that of each stage.
    pub load: LoadSpec,
    /// Which stages.
    pub stages: Stages,
}

/// Which stages there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stages {
    /// Those of the picture above, with at most so many connections.
    Find {
        /// The stress ends there.
        max_connections: usize,
    },
    /// These, and no others.
    Fixed(Vec<usize>),
}

/// Why a stage was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// One connection.
    Single,
    /// What a busy server has.
    Concurrent,
    /// More, until nothing is gained.
    Stress,
    /// Between two others, to find the knee.
    Knee,
    /// It was asked for.
    Fixed,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageReport {
    /// Why it was run.
    pub role: Role,
    /// How many connections asked.
    pub connections: usize,
    /// What came of it.
    #[serde(flatten)]
    pub result: StageResult,
}

/// What came of a stage.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StageResult {
    /// Its figures.
    Measured(Stage),
    /// Why there are none.
    Failed(String),
}

/// The figures of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stage {
    /// Right answers.
    pub requests: u64,
    /// What failed, the warm-up included.
    pub failed: u64,
    /// Right answers per second.
    pub rate: f64,
    /// Times from question to answer.
    #[serde(flatten)]
    pub latency: Percentiles,
    /// Which share of the time the client's threads ran, 1 for all of them: near that they are the limit.
    pub client_busy: f64,
    /// What the server's processes used, if they are on this machine.
    pub server: Option<Usage>,
}

/// The fewest connections that bring nearly all of the throughput: more of them bring waiting.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Knee {
    /// How many.
    pub connections: usize,
    /// Right answers per second with them.
    pub rate: f64,
    /// The share of the best stage's.
    pub share: f64,
    /// Times from question to answer with them.
    #[serde(flatten)]
    pub latency: Percentiles,
}

/// Everything that was found out.
#[derive(Clone, Debug, Serialize)]
pub struct PlanReport {
    /// The server.
    pub to: Vec<String>,
    /// What was asked.
    pub ask: String,
    /// Requests in flight on each connection.
    pub pipeline: usize,
    /// How long each stage was measured, in seconds.
    pub seconds: f64,
    /// The first of the server's processes, or why it is not known.
    pub server: Result<u32, String>,
    /// In the order of their connections.
    pub stages: Vec<StageReport>,
    /// If anything was measured.
    pub knee: Option<Knee>,
    /// Why there were no further stages.
    pub ended: String,
}

const CONCURRENT: usize = 400;
const STRESS: usize = 800;
/// A stage that is not better by this share is no better.
const GAIN: f64 = 0.05;
/// So many of them in a row end the stress: one may have been disturbed.
const IDLE_STAGES: usize = 2;
/// What counts as nearly all of the throughput.
const NEARLY: f64 = 0.95;
/// Stages that look for the knee between two others.
const KNEE_STAGES: usize = 3;
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Carries a plan out. `watch` is told before each stage. A stage that is stopped has the figures that it had by then.
pub fn carry_out(plan: &Plan, stop: &Stop, watch: &mut dyn FnMut(Role, usize)) -> PlanReport {
    let server = plan.load.to.first().ok_or_else(|| "no address".to_owned()).and_then(server_at);
    let pid = server.as_ref().ok().copied();
    let mut stage = |role, connections| {
        watch(role, connections);
        run_stage(plan, connections, pid, stop)
    };
    let (mut stages, ended) = match &plan.stages {
        Stages::Fixed(all) => fixed(all, &mut stage),
        Stages::Find { max_connections } => find(*max_connections, &mut stage),
    };
    stages.sort_by_key(|stage| stage.connections);
    PlanReport {
        to: plan.load.to.iter().map(ToString::to_string).collect(),
        ask: plan.load.ask.name().to_owned(),
        pipeline: plan.load.pipeline,
        seconds: plan.load.duration.as_secs_f64(),
        server,
        knee: knee(&stages),
        stages,
        ended,
    }
}

/// `None` when the plan was stopped before anything of the stage was measured.
type RunStage<'a> = &'a mut dyn FnMut(Role, usize) -> Option<StageResult>;

const STOPPED: &str = "it was stopped";

fn fixed(all: &[usize], run: RunStage<'_>) -> (Vec<StageReport>, String) {
    let mut stages = Vec::new();
    for &connections in all {
        let Some(result) = run(Role::Fixed, connections) else { return (stages, STOPPED.to_owned()) };
        stages.push(StageReport { role: Role::Fixed, connections, result });
    }
    (stages, "these were the stages asked for".to_owned())
}

fn find(max_connections: usize, run: RunStage<'_>) -> (Vec<StageReport>, String) {
    let mut stages: Vec<StageReport> = Vec::new();
    let (mut best, mut idle, mut connections) = (0.0, 0, 1);
    let ended = loop {
        let role = match connections {
            1 => Role::Single,
            CONCURRENT => Role::Concurrent,
            _ => Role::Stress,
        };
        let Some(result) = run(role, connections) else { break STOPPED.to_owned() };
        let (rate, failed) = match &result {
            StageResult::Measured(stage) => (stage.rate, stage.failed),
            StageResult::Failed(_) => (0.0, 1),
        };
        stages.push(StageReport { role, connections, result });
        if failed > 0 {
            break format!("not all of {connections} connections were served");
        }
        idle = if rate > best * (1.0 + GAIN) { 0 } else { idle + 1 };
        best = rate.max(best);
        if role == Role::Stress && idle >= IDLE_STAGES {
            break format!("throughput rose no more by {} %", GAIN * 100.0);
        }
        connections = match connections {
            1 => CONCURRENT,
            CONCURRENT => STRESS,
            more => more * 2,
        };
        if connections > max_connections {
            break format!("{connections} connections would be more than {max_connections}");
        }
    };
    for _ in 0..KNEE_STAGES {
        let Some(connections) = between(&mut stages) else { break };
        let Some(result) = run(Role::Knee, connections) else { break };
        stages.push(StageReport { role: Role::Knee, connections, result });
    }
    (stages, ended)
}

fn rates(stages: &[StageReport]) -> impl Iterator<Item = (usize, &Stage)> {
    stages.iter().filter_map(|stage| match &stage.result {
        StageResult::Measured(figures) if figures.failed == 0 => Some((stage.connections, figures)),
        _ => None,
    })
}

fn best(stages: &[StageReport]) -> f64 {
    rates(stages).map(|(_, stage)| stage.rate).fold(0.0, f64::max)
}

fn knee(stages: &[StageReport]) -> Option<Knee> {
    let best = best(stages);
    let (connections, stage) =
        rates(stages).find(|(_, stage)| stage.rate > 0.0 && stage.rate >= best * NEARLY)?;
    Some(Knee { connections, rate: stage.rate, share: stage.rate / best, latency: stage.latency })
}

/// A number of connections, halfway on a logarithmic axis, between the knee and the stage before it.
fn between(stages: &mut [StageReport]) -> Option<usize> {
    stages.sort_by_key(|stage| stage.connections);
    let high = knee(stages)?.connections;
    let low = rates(stages)
        .map(|(connections, _)| connections)
        .take_while(|&connections| connections < high)
        .last()?;
    let middle = low.saturating_mul(high).isqrt();
    // Closer than that they are the same for the purpose.
    (middle > low + low / 4 && middle < high).then_some(middle)
}

fn run_stage(plan: &Plan, connections: usize, server: Option<u32>, stop: &Stop) -> Option<StageResult> {
    let threads = plan.load.threads.min(connections);
    let load = LoadSpec { connections, threads, ..plan.load.clone() };
    let (mut sampler, mut usage) = (None, None);
    let report = run(&load, stop, &mut |progress| match progress {
        // A server that has gone meanwhile is seen by its clients.
        Progress::Begin => sampler = server.and_then(|pid| Sampler::start(pid, SAMPLE_EVERY).ok()),
        Progress::End => usage = sampler.take().and_then(Sampler::finish),
        _ => {}
    });
    Some(match report {
        Err(LoadError::Stopped) => return None,
        Ok(report) => StageResult::Measured(Stage {
            requests: report.requests,
            failed: report.failures.total(),
            rate: report.rate,
            latency: report.latency,
            client_busy: report.client_busy,
            server: usage,
        }),
        Err(error) => StageResult::Failed(chain(&error)),
    })
}

impl Stage {
    /// The server's processor time per answer, in microseconds.
    #[must_use]
    pub fn cpu_us(&self) -> Option<f64> {
        let cores = self.server.as_ref()?.cores;
        (self.rate > 0.0).then(|| cores / self.rate * 1e6)
    }
}

impl PlanReport {
    /// Whether there was a stage, and no request of any failed.
    #[must_use]
    pub fn is_right(&self) -> bool {
        !self.stages.is_empty()
            && self
                .stages
                .iter()
                .all(|stage| matches!(&stage.result, StageResult::Measured(stage) if stage.failed == 0))
    }

    /// Throughput, latency and the server's processors against connections, as a picture in SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        let measured = || {
            self.stages.iter().filter_map(|stage| match &stage.result {
                StageResult::Measured(figures) => Some((stage.connections, figures)),
                StageResult::Failed(_) => None,
            })
        };
        let series = |name: &str, figure: fn(&Stage) -> Option<f64>| Series {
            name: name.to_owned(),
            #[expect(clippy::cast_precision_loss, reason = "connections are far below 2^52")]
            points: measured().filter_map(|(at, stage)| Some((at as f64, figure(stage)?))).collect(),
            kind: Kind::Line,
        };
        let chart = |what: &str, label: &str, log, series| Chart {
            title: format!("{what}: {} at {}", self.ask, self.to.join(" ")),
            x: Axis { label: "connections".to_owned(), log: true },
            y: Axis { label: label.to_owned(), log },
            series,
        };
        let rate = chart("Throughput", "requests/s", false, vec![series("", |stage| Some(stage.rate))]);
        let times = vec![
            series("p50", |stage| Some(stage.latency.p50_us)),
            series("p99", |stage| Some(stage.latency.p99_us)),
            series("longest", |stage| Some(stage.latency.max_us)),
        ];
        let times = chart("Latency", "µs", true, times);
        let cores = vec![series("", |stage| Some(stage.server.as_ref()?.cores))];
        let cores = chart("Processors that the server kept busy", "processors", false, cores);
        page(&[Picture::Chart(&rate), Picture::Chart(&times), Picture::Chart(&cores)])
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
