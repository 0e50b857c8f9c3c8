//! `run`: every model in every scenario, side by side.
//!
//! Invariant: rounds are interleaved, each model once a round, so that a machine that slows down for a while slows all of
//! them; a row is the median of its rounds. A model that cannot run is a row with the reason, never a row that is missing.

use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::measure::{Sample, Subject, Syscalls, Times, measure};
use crate::models::chain;
use crate::procfs::kernel_release;
use crate::table::markdown;
use crate::{Failures, LatencySummary, Model, Scenario, ServerProcess, Stop, middle, pollers};

/// What is run, and how long.
#[derive(Clone, Debug)]
pub struct Matrix {
    /// The program whose command `bench serve` is the server; usually this one.
    pub program: PathBuf,
    /// Which models, by name.
    pub models: Vec<String>,
    /// Which scenarios.
    pub scenarios: Vec<Scenario>,
    /// How often each is measured.
    pub rounds: usize,
    /// How long each time. System calls are counted in the first round only.
    pub times: Times,
    /// The processor that the server and all its threads share; the client is where its caller put it.
    pub server_cpu: Option<usize>,
    /// Threads of the models that have a pool.
    pub pool_threads: NonZero<usize>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What is being measured.
    pub scenario: &'a str,
    /// With which model.
    pub model: &'a str,
    /// How many measurements are done, of how many.
    pub done: usize,
    /// All of them.
    pub all: usize,
}

/// Everything that was measured, and where.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// How often each was measured.
    pub rounds: usize,
    /// How long each time, in seconds.
    pub seconds: f64,
    /// The processor of the server.
    pub server_cpu: Option<usize>,
    /// Threads of the models that have a pool.
    pub pool_threads: usize,
    /// In the order they were asked for.
    pub scenarios: Vec<ScenarioReport>,
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioReport {
    /// What was asked.
    #[serde(flatten)]
    pub scenario: Scenario,
    /// One row for each model, in the order they were asked for.
    pub rows: Vec<Row>,
}

/// One model in one scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The model's name.
    pub model: String,
    /// What was measured, or why nothing was.
    #[serde(flatten)]
    pub result: RowResult,
}

/// What came of a row.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RowResult {
    /// Medians.
    Measured(Box<Median>),
    /// Why nothing was measured.
    Failed(String),
}

/// The medians of a model's rounds. What went wrong is added up.
#[derive(Clone, Debug, Serialize)]
pub struct Median {
    /// Answers per second.
    pub rate: f64,
    /// Times from question to answer; `max_us` is the longest of all rounds.
    #[serde(flatten)]
    pub latency: LatencySummary,
    /// The server's processor time per answer, in microseconds.
    pub cpu_us: f64,
    /// The server's resident memory, in bytes.
    pub resident_bytes: u64,
    /// What failed in all rounds.
    pub failures: Failures,
    /// System calls per answer.
    pub syscalls: Syscalls,
}

/// Measures everything. `watch` is told before each measurement.
#[must_use]
pub fn run(matrix: &Matrix, stop: &Stop, watch: &mut dyn FnMut(Progress<'_>)) -> Report {
    let all = matrix.scenarios.len() * matrix.models.len() * matrix.rounds;
    let mut done = 0;
    let mut scenarios = Vec::new();
    for scenario in &matrix.scenarios {
        let mut taken: Vec<Result<Vec<Sample>, String>> = vec![Ok(Vec::new()); matrix.models.len()];
        for round in 0..matrix.rounds {
            for (model, taken) in matrix.models.iter().zip(&mut taken) {
                watch(Progress { scenario: scenario.name, model, done, all });
                done += 1;
                // What failed once is not tried again: its row tells why.
                let Ok(samples) = taken else { continue };
                match once(matrix, scenario, model, round, stop) {
                    Ok(sample) => samples.push(sample),
                    // What there is of earlier rounds stays.
                    Err(_) if stop.is_asked() && !samples.is_empty() => {}
                    Err(reason) => *taken = Err(reason),
                }
            }
        }
        let rows = matrix.models.iter().zip(taken).map(|(model, taken)| {
            let result = match taken.and_then(|samples| median(&samples).ok_or_else(|| "no rounds".into())) {
                Ok(median) => RowResult::Measured(Box::new(median)),
                Err(reason) => RowResult::Failed(reason),
            };
            Row { model: model.clone(), result }
        });
        scenarios.push(ScenarioReport { scenario: *scenario, rows: rows.collect() });
    }
    Report {
        kernel: kernel_release(),
        rounds: matrix.rounds,
        seconds: matrix.times.measure.as_secs_f64(),
        server_cpu: matrix.server_cpu,
        pool_threads: matrix.pool_threads.get(),
        scenarios,
    }
}

impl Report {
    /// A table in Markdown for each scenario.
    #[must_use]
    pub fn markdown(&self) -> String {
        markdown(self)
    }
}

fn once(
    matrix: &Matrix,
    scenario: &Scenario,
    model: &str,
    round: usize,
    stop: &Stop,
) -> Result<Sample, String> {
    if stop.is_asked() {
        return Err("stopped before it was measured".to_owned());
    }
    let mut arguments = ["bench", "serve"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    option("model", model.to_owned());
    option("service", scenario.service.to_string());
    option("max-connections", (scenario.connections + SPARE_CONNECTIONS).to_string());
    option("pool-threads", matrix.pool_threads.to_string());
    if let Some(cpu) = matrix.server_cpu {
        option("cpu", cpu.to_string());
    }
    let server = ServerProcess::start(&matrix.program, &arguments).map_err(|error| chain(&error))?;
    let found = pollers(server.pid()).map_err(|error| chain(&error))?;
    if !Model::waits_on(model, &found) {
        return Err(format!("the server does not wait on what its model names: it has {}", found.join(", ")));
    }
    let trace = if round == 0 { matrix.times.trace } else { Duration::ZERO };
    let subject = Subject { pid: server.pid(), address: server.address() };
    measure(subject, scenario, &Times { trace, ..matrix.times }, stop).map_err(|error| chain(&error))
}

/// So that a server does not stop accepting just when all are there.
const SPARE_CONNECTIONS: usize = 16;

fn median(samples: &[Sample]) -> Option<Median> {
    let of = |figure: fn(&Sample) -> f64| {
        let mut figures: Vec<f64> = samples.iter().map(figure).collect();
        middle(&mut figures)
    };
    let mut memory: Vec<u64> = samples.iter().map(|sample| sample.resident_bytes).collect();
    memory.sort_unstable();
    let first = samples.first()?;
    let mut failures = Failures::default();
    samples.iter().for_each(|sample| failures.add(sample.failures.clone()));
    Some(Median {
        rate: of(|sample| sample.rate)?,
        latency: LatencySummary {
            p50_us: of(|sample| sample.latency.p50_us)?,
            p99_us: of(|sample| sample.latency.p99_us)?,
            max_us: samples.iter().map(|sample| sample.latency.max_us).fold(0.0, f64::max),
        },
        cpu_us: of(|sample| sample.cpu_us)?,
        resident_bytes: *memory.get(memory.len() / 2)?,
        failures,
        syscalls: first.syscalls.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CountingTool;

    fn sample(rate: f64, max_us: f64, reset: u64) -> Sample {
        Sample {
            requests: 1,
            rate,
            latency: LatencySummary { p50_us: rate / 2.0, p99_us: rate, max_us },
            cpu_us: -rate,
            resident_bytes: 7,
            failures: Failures { reset, ..Failures::default() },
            syscalls: Syscalls::NotAsked,
        }
    }

    #[test]
    fn medians_are_taken_of_each_figure_and_faults_added_up() {
        let samples = [sample(3.0, 9.0, 1), sample(1.0, 99.0, 0), sample(2.0, 5.0, 4)];
        let median = median(&samples).unwrap();
        assert_eq!((median.rate, median.cpu_us, median.latency.p50_us), (2.0, -2.0, 1.0));
        assert_eq!((median.latency.max_us, median.failures.reset, median.resident_bytes), (99.0, 5, 7));
    }

    #[test]
    fn the_middle_of_an_even_number_lies_between() {
        assert_eq!(middle(&mut [4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(middle(&mut []), None);
        assert!(median(&[]).is_none());
    }

    #[test]
    fn a_program_that_cannot_run_is_a_row_with_the_reason() {
        let (zero, tool) = (Duration::ZERO, CountingTool::Auto);
        let times = Times { warmup: zero, measure: zero, trace: zero, tool };
        let matrix = Matrix {
            program: "/no/such/program".into(),
            models: vec!["poll".into(), "epoll-edge-inline".into()],
            scenarios: vec![Scenario::ALL[0]],
            rounds: 2,
            times,
            server_cpu: None,
            pool_threads: NonZero::<usize>::MIN,
        };
        let mut seen = Vec::new();
        let report = run(&matrix, &Stop::default(), &mut |progress| {
            seen.push((progress.done, progress.model.to_owned()))
        });
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[3], (3, "epoll-edge-inline".to_owned()));
        for row in &report.scenarios[0].rows {
            let RowResult::Failed(reason) = &row.result else { panic!("{row:?}") };
            assert_eq!(reason, "the server cannot be run: No such file or directory (os error 2)");
        }
    }
}
