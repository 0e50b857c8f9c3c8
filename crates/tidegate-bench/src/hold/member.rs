//! `run_member`: one process of those that hold connections together.
//!
//! Invariant: a message that was due was answered, or it is missing in the report. It reads its standard input only to learn
//! when to begin, and that nobody wants it any more.

use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvError, channel};
use std::thread;
use std::time::Duration;

use super::MemberReport;
use crate::{Ask, LoadError, LoadReport, LoadSpec, Progress, Stop, run_held};

/// What one process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPlan {
    /// Where to connect to, in turn.
    pub targets: Vec<SocketAddr>,
    /// Where to connect from, in turn; empty: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// How many connections.
    pub connections: usize,
    /// Each asks once in this time.
    pub every: Duration,
    /// How long they ask.
    pub time: Duration,
    /// How long a connection may take to be made, and an answer to come.
    pub patience: Duration,
}

/// Why a member could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The connections cannot be made.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Some of them can, others cannot.
    #[error("{open} of {of} connections could be made")]
    Some {
        /// How many stand.
        open: usize,
        /// How many there were to be.
        of: usize,
    },
    /// Standard output, or a thread for standard input.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Who started it has gone.
    #[error("nobody waits for the result any more")]
    Orphaned,
}

const MESSAGE_BYTES: usize = 64;

/// Connects, says so on `output`, waits for a line on `input`, holds, says what came of it, and closes the connections when
/// `input` ends.
///
/// # Errors
///
/// The connections cannot be made, or `input` ends.
pub fn run_member(
    plan: &MemberPlan,
    input: impl BufRead + Send + 'static,
    output: &mut impl Write,
) -> Result<(), MemberError> {
    let stop = Stop::default();
    let lines = read(input, stop.clone())?;
    let mut begun = Ok(());
    let held = run_held(&plan.load(), &stop, &mut |progress| {
        if let Progress::Ready { open, of } = *progress {
            begun = if open < of { Err(MemberError::Some { open, of }) } else { begin(of, &lines, output) };
            if begun.is_err() {
                stop.ask();
            }
        }
    });
    begun?;
    let (report, held) = match held {
        Ok((report, held)) if report.stopped_of.is_none() => (report, held),
        Ok(_) | Err(LoadError::Stopped) => return Err(MemberError::Orphaned),
        Err(error) => return Err(error.into()),
    };
    let text = serde_json::to_string(&MemberReport::of(&report)).map_err(io::Error::from)?;
    writeln!(output, "{text}")?;
    output.flush()?;
    // The connections stay until all members are done, so that what they cost together can be looked at.
    while lines.recv().is_ok() {}
    drop(held);
    Ok(())
}

/// Says that all stand, and waits until it is to begin.
fn begin(connections: usize, lines: &Receiver<()>, output: &mut impl Write) -> Result<(), MemberError> {
    writeln!(output, "{connections}")?;
    output.flush()?;
    lines.recv().map_err(|RecvError| MemberError::Orphaned)
}

/// A thread that passes on the first line, and that everything is to stop when there are no more.
fn read(mut input: impl BufRead + Send + 'static, stop: Stop) -> io::Result<Receiver<()>> {
    let (sender, lines) = channel();
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut line = String::new();
        let first = input.by_ref().take(16).read_line(&mut line);
        if first.is_ok_and(|len| len > 0) && sender.send(()).is_ok() {
            // An error is an end as well.
            let _ = io::copy(&mut input, &mut io::sink());
        }
        stop.ask();
    })?;
    Ok(lines)
}

impl MemberPlan {
    fn load(&self) -> LoadSpec {
        #[expect(clippy::cast_precision_loss, reason = "connections are far below 2^52")]
        let rate = self.connections as f64 / self.every.as_secs_f64();
        LoadSpec {
            from: self.sources.clone(),
            connections: self.connections,
            rate: Some(rate),
            warmup: Duration::ZERO,
            duration: self.time,
            timeout: self.patience,
            ..LoadSpec::new(
                self.targets.iter().map(|&target| target.into()).collect(),
                Ask::Echo { size: MESSAGE_BYTES },
            )
        }
    }
}

impl MemberReport {
    fn of(report: &LoadReport) -> Self {
        let failures = &report.failures;
        let broken = failures.total() - failures.wrong - failures.status;
        Self {
            due: report.requests + report.unsent + report.unanswered,
            answered: report.requests,
            wrong: failures.wrong,
            // One that ended in order, with nothing on its way, is no failure of a request.
            lost: broken.max(report.reconnects.saturating_sub(failures.wrong)),
            latency: report.latency.summary(),
        }
    }
}
