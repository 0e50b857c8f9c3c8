//! `Members`: the processes that hold connections, and what they say.
//!
//! Invariant: all of them have ended when this value has been dropped.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{HoldError, MemberPlan, MemberReport};
use crate::limits::timespec;
use crate::process::ended_within;

pub(super) struct Members(Vec<Member>);

struct Member {
    child: Child,
    output: BufReader<ChildStdout>,
}

/// How long members that were told to end may take, each.
const PATIENCE: Duration = Duration::from_secs(5);

impl Members {
    pub(super) fn start(program: &Path, plans: &[MemberPlan]) -> Result<Self, HoldError> {
        let mut this = Self(Vec::new());
        for (number, plan) in plans.iter().enumerate() {
            let refuse = |reason: String| HoldError::Member { number, reason };
            let mut command = Command::new(program);
            command.args(arguments(plan)).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().map_err(|error| refuse(error.to_string()))?;
            let Some(output) = child.stdout.take() else { return Err(refuse("it has no output".into())) };
            this.0.push(Member { child, output: BufReader::new(output) });
        }
        Ok(this)
    }

    /// Waits until a member is connected; answers with how many connections.
    pub(super) fn connected(&mut self, number: usize) -> Result<usize, HoldError> {
        let line = self.line(number)?;
        line.trim().parse().map_err(|_| odd(number, &line))
    }

    /// Lets all begin.
    pub(super) fn go(&mut self) -> Result<(), HoldError> {
        for (number, member) in self.0.iter_mut().enumerate() {
            let Some(stdin) = &mut member.child.stdin else { continue };
            let told = stdin.write_all(b"go\n");
            told.map_err(|error| HoldError::Member { number, reason: error.to_string() })?;
        }
        Ok(())
    }

    /// A member that says something, or has ended, within this time.
    pub(super) fn ready(&self, within: Duration) -> Result<Option<usize>, HoldError> {
        let outputs = self.0.iter().map(|member| member.output.get_ref());
        let mut fds: Vec<_> = outputs.map(|output| PollFd::new(output, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&timespec(within))) {
            Ok(_) => Ok(fds.iter().position(|fd| !fd.revents().is_empty())),
            Err(Errno::INTR) => Ok(None),
            Err(error) => Err(HoldError::Proc(error.into())),
        }
    }

    /// Waits for what a member saw.
    pub(super) fn report(&mut self, number: usize) -> Result<MemberReport, HoldError> {
        let line = self.line(number)?;
        serde_json::from_str(&line).map_err(|_| odd(number, &line))
    }

    fn line(&mut self, number: usize) -> Result<String, HoldError> {
        let mut line = String::new();
        let read = self.0[number].output.read_line(&mut line);
        read.map_err(|error| HoldError::Member { number, reason: error.to_string() })?;
        Ok(line)
    }
}

fn odd(number: usize, line: &str) -> HoldError {
    // It says itself why on standard error, which it shares with this process.
    let reason =
        if line.is_empty() { "it ended before its time".to_owned() } else { format!("it said {line:?}") };
    HoldError::Member { number, reason }
}

impl Drop for Members {
    fn drop(&mut self) {
        for member in &mut self.0 {
            // A member whose input ends, ends.
            member.child.stdin = None;
        }
        for member in &mut self.0 {
            if !ended_within(&member.child, PATIENCE) {
                // It may have ended just now, which is what is wanted.
                let _ = member.child.kill();
            }
            let _ = member.child.wait();
        }
    }
}

/// A plan as the arguments of `bench hold-member`.
fn arguments(plan: &MemberPlan) -> Vec<String> {
    let mut arguments = ["bench", "hold-member"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
    for target in &plan.targets {
        option("to", target.to_string());
    }
    for source in &plan.sources {
        option("from", source.to_string());
    }
    option("connections", plan.connections.to_string());
    option("every", format!("{}ms", plan.every.as_millis()));
    option("for", format!("{}ms", plan.time.as_millis()));
    option("patience", format!("{}ms", plan.patience.as_millis()));
    arguments
}
