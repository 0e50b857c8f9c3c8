//! `Stop`: what ends a run before its time.
//!
//! Invariant: it can be asked for from any thread and stays asked for; a run looks at it several times a second, and what it
//! has measured until then is in its report.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use tidegate_sys::signal::first;

/// Asked for by one thread, looked at by another. Copies are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    by_signal: bool,
}

impl Stop {
    /// Asked for by the first SIGINT or SIGTERM of this process, too. A second one ends the process.
    ///
    /// # Errors
    ///
    /// What sigaction(2) answered.
    pub fn on_signal() -> io::Result<Self> {
        first::note(&[Signal::INT, Signal::TERM])?;
        Ok(Self { by_signal: true, ..Self::default() })
    }

    /// Asks for the end.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Whether it has been asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || (self.by_signal && first::has_come())
    }
}
