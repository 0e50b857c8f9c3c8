//! `tidegate-sim`: runs seeds, and tells what happened in one that failed.
//!
//! Invariant: the exit code is 0 when nothing failed, 1 when something did, 2 when the command line is wrong.

mod report;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tidegate_sim::{Scenario, Seen, explain, try_seed};

use report::Report;

/// Runs the real engine and the real supervisor in simulated worlds, each of which follows from a seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// How many seeds of each scenario.
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,
    /// This one only, and what happens in it is told.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// This scenario only.
    #[arg(long, value_enum)]
    scenario: Option<Name>,
    /// Tells what happens in every run, not only in one that fails.
    #[arg(long)]
    trace: bool,
    /// Tells a failing run whole: it is not made smaller.
    #[arg(long)]
    whole: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    LoopInline,
    LoopPool,
    Outgoing,
    Supervisor,
}

impl From<Name> for Scenario {
    fn from(name: Name) -> Self {
        match name {
            Name::LoopInline => Self::LoopInline,
            Name::LoopPool => Self::LoopPool,
            Name::Outgoing => Self::Outgoing,
            Name::Supervisor => Self::Supervisor,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args, &mut Report::new(io::stdout(), io::stderr().is_terminal())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Who reads is gone; there is nobody to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            Report::<io::Stdout>::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// False when a run failed; the first one of each scenario is explained, and ends it.
fn run(args: &Args, report: &mut Report<io::Stdout>) -> io::Result<bool> {
    let scenarios = args.scenario.map_or_else(|| Scenario::ALL.to_vec(), |name| vec![name.into()]);
    let seeds = match args.seed {
        Some(seed) => seed..seed.saturating_add(1),
        None => args.from..args.from.saturating_add(args.seeds),
    };
    let is_traced = args.trace || args.seed.is_some();
    let mut all_held = true;
    for scenario in scenarios {
        let mut seen = Seen::default();
        let mut done = 0;
        report.begin(scenario, seeds.end - seeds.start);
        for seed in seeds.clone() {
            let outcome = try_seed(scenario, seed, is_traced);
            let has_failed = outcome.violation.is_some();
            seen.add(&outcome.seen);
            done += 1;
            if is_traced && (!has_failed || args.whole) {
                report.trace(scenario, seed, &outcome)?;
            } else if has_failed && args.whole {
                report.trace(scenario, seed, &try_seed(scenario, seed, true))?;
            }
            if has_failed {
                all_held = false;
                report.failed(scenario, seed, &outcome)?;
                if !args.whole
                    && let Some(failure) = explain(scenario, seed)
                {
                    report.explain(&failure)?;
                }
                break;
            }
            report.progress(done);
        }
        report.end(scenario, done, &seen)?;
    }
    Ok(all_held)
}
