//! `Models`: the server itself in every combination of its concurrency models, under the same loads, side by side.
//!
//! Invariant: rounds are interleaved, each combination once a round, so that a machine that slows down for a while slows all
//! of them; a row is the median of its rounds. Every combination is in the report: with figures, or with the reason why it
//! has none, in the words of the configuration where that refused it.

mod combination;
mod report;
mod row;
mod server;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

pub use combination::Combination;
pub use report::{Kind, ModelsReport, Refused, Row, RowResult, ScenarioTable};
pub use row::Figures;

use tidegate_sys::socket::reset_on_close;

use crate::measure::{MeasureError, Times, cpu_us_per_answer, load_beside, trace};
use crate::procfs::{kernel_release, sleeps};
use crate::{Ask, LoadSpec, ServerProcess, Snapshot, Stop, Usage, family, pollers};
use report::Taken;
use server::Site;

/// What is run.
#[derive(Clone, Debug)]
pub struct Models {
    /// The program that is the server, by its command `run`; usually this one.
    pub program: PathBuf,
    /// Which combinations.
    pub combinations: Vec<Combination>,
    /// Whether a plain loop on poll(2) is measured as well, where it can serve the scenario.
    pub baseline: bool,
    /// Worker processes of each server.
    pub workers: u16,
    /// Under which loads.
    pub scenarios: Vec<Scenario>,
    /// How often each is measured.
    pub rounds: usize,
    /// How long each time. System calls are counted in the first round only.
    pub times: Times,
    /// After this time no further measurement begins.
    pub limit: Duration,
}

/// One load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is called.
    pub name: String,
    /// The listener that is asked: `echo`, `web` or `gateway`.
    pub listener: &'static str,
    /// What is asked.
    pub ask: Ask,
    /// Connections that ask.
    pub connections: usize,
    /// Requests in flight on each.
    pub pipeline: usize,
}

impl Scenario {
    /// The names there are.
    pub const NAMES: [&'static str; 4] = ["echo", "http", "msg", "pipelined"];

    /// The scenario of this name with so many connections; `None` when there is none.
    #[must_use]
    pub fn named(name: &str, connections: usize) -> Option<Self> {
        let (path, host) = ("/hello".to_owned(), "tidegate.example".to_owned());
        let http = Ask::Http { path, host, headers: Vec::new() };
        let (listener, ask, pipeline) = match name {
            "echo" => ("echo", Ask::Echo { size: 64 }, 1),
            "http" => ("web", http, 1),
            "msg" => ("gateway", Ask::Msg { code: 0, size: 0, login: None }, 1),
            "pipelined" => ("web", http, 16),
            _ => return None,
        };
        Some(Self { name: name.to_owned(), listener, ask, connections, pipeline })
    }

    /// The service of the poll(2) loop that answers it.
    fn baseline(&self) -> Option<&'static str> {
        match self.listener {
            "echo" => Some("echo"),
            "web" => Some("hello"),
            _ => None,
        }
    }
}

/// Where a run is.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The server that is measured now.
    pub model: String,
    /// How many servers have been, of how many.
    pub done: usize,
    /// All of them, once for each round.
    pub all: usize,
}

/// Measures everything.
///
/// # Errors
///
/// There is no place for the servers' files, or the program cannot be run.
pub fn run(models: &Models, stop: &Stop, watch: &mut dyn FnMut(&Progress)) -> io::Result<ModelsReport> {
    let begin = Instant::now();
    let most = models.scenarios.iter().map(|scenario| scenario.connections).max().unwrap_or(0);
    let site =
        Site::new(&models.program, models.workers, (most + SPARE_CONNECTIONS).max(DEFAULT_CONNECTIONS))?;
    let mut taken = Taken::new(models.scenarios.len());
    let mut subjects = Vec::new();
    for combination in &models.combinations {
        match site.check(&combination.settings())?.into_iter().next() {
            Some(reason) => taken.refuse(reason, combination.to_string()),
            None => subjects.push(Kind::Combination(*combination)),
        }
    }
    if models.baseline {
        subjects.push(Kind::Baseline);
    }
    let all = subjects.len() * models.rounds;
    for round in 0..models.rounds {
        for (nth, subject) in subjects.iter().enumerate() {
            if stop.is_asked() {
                taken.fail(*subject, STOPPED);
                continue;
            }
            if begin.elapsed() > models.limit {
                taken
                    .fail(*subject, &format!("the {} s that all may take were over", models.limit.as_secs()));
                continue;
            }
            watch(&Progress { model: subject.to_string(), done: round * subjects.len() + nth, all });
            let trace = if round == 0 { models.times.trace } else { Duration::ZERO };
            let visit = Visit { models, site: &site, times: Times { trace, ..models.times }, stop };
            visit.measure(*subject, &mut taken);
        }
    }
    Ok(ModelsReport {
        kernel: kernel_release(),
        processors: thread::available_parallelism().map_or(1, NonZero::get),
        workers: models.workers,
        rounds: models.rounds,
        seconds: models.times.measure.as_secs_f64(),
        took_s: begin.elapsed().as_secs_f64(),
        scenarios: taken.tables(&models.scenarios),
        refused: taken.into_refused(),
    })
}

/// So that a server does not stop accepting just when all are there; and what it has by itself.
const SPARE_CONNECTIONS: usize = 1000;
const DEFAULT_CONNECTIONS: usize = 10_000;

const STOPPED: &str = "stopped before it was measured";

/// One round of one model.
struct Visit<'a> {
    models: &'a Models,
    site: &'a Site,
    times: Times,
    stop: &'a Stop,
}

impl Visit<'_> {
    /// All scenarios on one server.
    fn measure(&self, subject: Kind, taken: &mut Taken) {
        let Kind::Combination(combination) = subject else {
            for (nth, scenario) in self.models.scenarios.iter().enumerate() {
                if let Some(service) = scenario.baseline() {
                    self.add(taken, nth, subject, self.baseline(scenario, service));
                }
            }
            return;
        };
        let server = match self.site.start(&combination.settings()) {
            Ok(server) => server,
            Err(reason) => return taken.fail(subject, &reason),
        };
        if let Err(reason) = waits_as_it_says(&combination, server.pid()) {
            return taken.fail(subject, &reason);
        }
        let wakes = server.address("echo").and_then(|to| wakes_per_accept(server.pid(), to));
        for (nth, scenario) in self.models.scenarios.iter().enumerate() {
            let figures =
                server.address(scenario.listener).and_then(|to| self.once(server.pid(), to, scenario));
            let figures = figures.map(|figures| Figures { wakes_per_accept: wakes.clone().ok(), ..figures });
            self.add(taken, nth, subject, figures);
        }
    }

    /// What was under way when the run was stopped is no reason against what was measured before.
    fn add(&self, taken: &mut Taken, scenario: usize, subject: Kind, figures: Result<Figures, String>) {
        match figures {
            Err(_) if self.stop.is_asked() => taken.fail(subject, STOPPED),
            figures => taken.add(scenario, subject, figures),
        }
    }

    fn baseline(&self, scenario: &Scenario, service: &str) -> Result<Figures, String> {
        let most = (scenario.connections + SPARE_CONNECTIONS).to_string();
        let arguments =
            ["bench", "serve", "--model", "poll", "--service", service, "--max-connections", &most];
        let arguments = arguments.map(str::to_owned);
        let server = ServerProcess::start(&self.models.program, &arguments).map_err(|error| chain(&error))?;
        let wakes = wakes_per_accept(server.pid(), server.address()).ok();
        let figures = self.once(server.pid(), server.address(), scenario)?;
        Ok(Figures { wakes_per_accept: wakes, ..figures })
    }

    /// One scenario on one server.
    fn once(&self, pid: u32, to: SocketAddr, scenario: &Scenario) -> Result<Figures, String> {
        let spec = LoadSpec {
            connections: scenario.connections,
            pipeline: scenario.pipeline,
            warmup: self.times.warmup,
            duration: self.times.measure,
            ..LoadSpec::new(vec![to.into()], scenario.ask.clone())
        };
        let told = |error: MeasureError| chain(&error);
        let (report, [before, after]) = load_beside(&spec, self.stop, || Snapshot::of(pid)).map_err(told)?;
        let pids = family(pid).map_err(|error| chain(&error))?;
        let (syscalls, failed) = trace(&pids, &spec, &self.times, self.stop).map_err(told)?;
        let cpu_us = cpu_us_per_answer(after.cpu_since(&before), &report);
        let usage = Usage::over(&[before, after]).unwrap_or_default();
        let mut failures = report.failures;
        failures.add(failed);
        Ok(Figures {
            requests: report.requests,
            failures,
            rate: report.rate,
            latency: report.latency.summary(),
            cpu_us,
            memory_bytes: usage.memory_bytes,
            processes: usage.processes,
            threads: usage.threads,
            wakes_per_accept: None,
            syscalls,
        })
    }
}

/// One that fell back to another poller is found out.
fn waits_as_it_says(combination: &Combination, pid: u32) -> Result<(), String> {
    let found: Vec<String> = family(pid)
        .map_err(|error| error.to_string())?
        .into_iter()
        .flat_map(|pid| pollers(pid).unwrap_or_default())
        .collect();
    if combination.waits_on(&found) {
        return Ok(());
    }
    Err(format!(
        "this kernel does not have all that {} needs: the server took another back end",
        combination.backend
    ))
}

const ACCEPTS: u32 = 50;
const BETWEEN_ACCEPTS: Duration = Duration::from_millis(2);
const IDLE: Duration = Duration::from_millis(100);

/// How many threads a new connection wakes, when they come one by one: all threads of the server that went to sleep, less
/// what they do anyway when nothing happens. One is the least; more are woken for nothing, or pass the connection on.
fn wakes_per_accept(pid: u32, to: SocketAddr) -> Result<f64, String> {
    let pids = family(pid).map_err(|error| error.to_string())?;
    let count = || pids.iter().filter_map(|&pid| sleeps(pid).ok()).sum::<u64>();
    let (first, begin) = (count(), Instant::now());
    thread::sleep(IDLE);
    let (second, middle) = (count(), Instant::now());
    let mut held = Vec::new();
    for _ in 0..ACCEPTS {
        let stream = TcpStream::connect(to).map_err(|error| format!("connect to {to}: {error}"))?;
        // Thousands of connections that the client closes would fill the kernel's table of TIME_WAIT.
        reset_on_close(&stream).map_err(|error| error.to_string())?;
        held.push(stream);
        // The server is to sleep again before the next one comes.
        thread::sleep(BETWEEN_ACCEPTS);
    }
    let (third, end) = (count(), Instant::now());
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let (idle, busy) = (second.saturating_sub(first) as f64, third.saturating_sub(second) as f64);
    let idle = idle * (end - middle).as_secs_f64() / (middle - begin).as_secs_f64();
    Ok((busy - idle).max(0.0) / f64::from(ACCEPTS))
}

/// An error with all its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let further = error.to_string();
        // Some errors show their source themselves.
        if !text.ends_with(&further) {
            text = format!("{text}: {further}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CountingTool;

    fn models(program: &str) -> Models {
        let (zero, tool) = (Duration::ZERO, CountingTool::Auto);
        Models {
            program: program.into(),
            combinations: Combination::all(1)[..2].to_vec(),
            baseline: false,
            workers: 1,
            scenarios: vec![Scenario::named("echo", 4).unwrap()],
            rounds: 2,
            times: Times { warmup: zero, measure: zero, trace: zero, tool },
            limit: Duration::from_secs(60),
        }
    }

    #[test]
    fn every_name_is_a_scenario() {
        for name in Scenario::NAMES {
            assert_eq!(Scenario::named(name, 7).unwrap().connections, 7);
        }
        assert_eq!(Scenario::named("ftp", 7), None);
    }

    #[test]
    fn a_program_that_refuses_everything_has_its_words_in_the_report() {
        let report = run(&models("false"), &Stop::default(), &mut |_| panic!("nothing is measured")).unwrap();
        assert!(report.scenarios[0].rows.is_empty());
        assert_eq!(report.refused[0].models.len(), 2);
        assert!(report.refused[0].reason.contains("exit status: 1"), "{report:?}");
        assert!(run(&models("/no/such/program"), &Stop::default(), &mut |_| ()).is_err());
    }

    #[test]
    fn a_program_that_does_not_serve_is_a_row_with_the_reason() {
        let mut seen = 0;
        let report = run(&models("true"), &Stop::default(), &mut |_| seen += 1).unwrap();
        assert_eq!((report.refused.len(), seen), (0, 4));
        for row in &report.scenarios[0].rows {
            let RowResult::Failed(reason) = &row.result else { panic!("{row:?}") };
            assert!(reason.starts_with("the server ended"), "{reason}");
        }
        let late = Models { limit: Duration::ZERO, ..models("true") };
        let report = run(&late, &Stop::default(), &mut |_| panic!("the time is over")).unwrap();
        assert_eq!(report.scenarios[0].rows.len(), 2);
    }
}
