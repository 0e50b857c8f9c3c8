//! `ProgressLine`: where a long run is, on one line of a terminal.
//!
//! Invariant: nothing is written where nobody looks: only to standard error, and only when that is a terminal.

use std::io::{self, IsTerminal, Write};

use tidegate_bench::hold::{HoldPlan, HoldProgress};

/// The line.
#[derive(Debug, Default)]
pub(crate) struct ProgressLine {
    shown: bool,
}

/// To the start of the line, and what stands there away (ECMA-48, CR and EL).
const BLANK_LINE: &str = "\r\x1b[K";

impl ProgressLine {
    /// Shows a text in place of the last one.
    pub(crate) fn show(&mut self, text: &str) {
        if io::stderr().is_terminal() {
            self.shown = true;
            write(&format!("{BLANK_LINE}{text}"));
        }
    }

    /// Takes the text away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            write(BLANK_LINE);
        }
    }
}

fn write(text: &str) {
    // Progress that cannot be shown is no reason to stop.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// What a hold's progress reads like.
pub(crate) fn of_hold(now: HoldProgress, plan: &HoldPlan) -> String {
    match now {
        HoldProgress::Connected(count) => format!("{count} of {} connections stand", plan.connections),
        HoldProgress::Holding(time) => format!(
            "{} connections held for {} of {} s",
            plan.connections,
            time.as_secs(),
            plan.time.as_secs()
        ),
    }
}
