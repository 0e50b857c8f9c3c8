//! `Report`: what people read of the runs.
//!
//! Invariant: progress goes to a terminal only; what is piped is the same for the same seeds, but for the time taken.

use std::io::{self, Write};
use std::time::Instant;

use tidegate_sim::{Failure, Outcome, Scenario, Seen};

/// Writes to `out`, and progress to standard error.
#[derive(Debug)]
pub(crate) struct Report<W> {
    out: W,
    is_terminal: bool,
    began: Instant,
    total: u64,
    name: &'static str,
}

/// How many runs pass between two signs of progress.
const PROGRESS_EVERY: u64 = 100;

impl<W: Write> Report<W> {
    pub(crate) fn new(out: W, is_terminal: bool) -> Self {
        Self { out, is_terminal, began: Instant::now(), total: 0, name: "" }
    }

    pub(crate) fn begin(&mut self, scenario: Scenario, total: u64) {
        self.began = Instant::now();
        (self.total, self.name) = (total, scenario.name());
    }

    pub(crate) fn progress(&self, done: u64) {
        if self.is_terminal && done.is_multiple_of(PROGRESS_EVERY) {
            // A terminal that takes nothing has nobody before it.
            let _ = write!(io::stderr(), "\r{}: {done} of {}", self.name, self.total);
        }
    }

    pub(crate) fn trace(&mut self, scenario: Scenario, seed: u64, outcome: &Outcome) -> io::Result<()> {
        writeln!(self.out, "{}, seed {seed}:", scenario.name())?;
        writeln!(self.out, "  ({})", scenario.legend())?;
        outcome.trace.iter().try_for_each(|line| writeln!(self.out, "  {line}"))
    }

    pub(crate) fn failed(&mut self, scenario: Scenario, seed: u64, outcome: &Outcome) -> io::Result<()> {
        self.clear();
        let violation = outcome.violation.as_deref().unwrap_or_default();
        writeln!(self.out, "FAILED: {}, seed {seed}: {violation}", scenario.name())?;
        writeln!(self.out, "  again: tidegate-sim --scenario {} --seed {seed}", scenario.name())?;
        self.out.flush()
    }

    pub(crate) fn explain(&mut self, failure: &Failure) -> io::Result<()> {
        let (whole, small) = failure.steps;
        let violation = failure.small.violation.as_deref().unwrap_or_default();
        writeln!(self.out, "  with {small} of {whole} steps: {violation}")?;
        failure.small.trace.iter().try_for_each(|line| writeln!(self.out, "  {line}"))
    }

    pub(crate) fn end(&mut self, scenario: Scenario, done: u64, seen: &Seen) -> io::Result<()> {
        self.clear();
        let took = self.began.elapsed().as_secs_f64();
        writeln!(self.out, "{}: {done} of {} seeds in {took:.1} s", scenario.name(), self.total)?;
        let places = scenario.places().iter().map(|place| format!("{place} {}", seen.count(place)));
        writeln!(self.out, "  {}", places.collect::<Vec<_>>().join(", "))
    }

    /// What cannot be written is told where it can.
    pub(crate) fn complain(error: &io::Error) {
        let _ = writeln!(io::stderr(), "tidegate-sim: the report cannot be written: {error}");
    }

    fn clear(&self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
