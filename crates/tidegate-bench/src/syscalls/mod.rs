//! Counting the system calls of a running process, with whatever tool there is.
//!
//! perf(1) counts in the kernel and hardly slows the process down. strace(1) stops it twice for each call, which makes it
//! several times slower: a loop then finds more to do after each wait, and the threads of a pool sleep and wake for every
//! message. For a single thread both tell the same; for several only perf(1) tells what happens without it.
//!
//! Invariant: counting begins when [`SyscallCounter::attach`] returns and ends in [`SyscallCounter::finish`].

mod perf;
mod strace;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::process::Child;
use std::str::FromStr;

use rustix::process::{Pid, Signal, kill_process};

use perf::Perf;
use strace::Strace;

/// What counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CountingTool {
    /// perf(1), or else strace(1).
    #[default]
    Auto,
    /// perf(1), which needs the kernel's tracepoints and usually root.
    Perf,
    /// strace(1).
    Strace,
}

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of auto, perf, strace")]
pub struct UnknownTool(String);

impl fmt::Display for CountingTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Perf => "perf",
            Self::Strace => "strace",
        })
    }
}

impl FromStr for CountingTool {
    type Err = UnknownTool;

    fn from_str(name: &str) -> Result<Self, UnknownTool> {
        [Self::Auto, Self::Perf, Self::Strace]
            .into_iter()
            .find(|tool| tool.to_string() == name)
            .ok_or_else(|| UnknownTool(name.to_owned()))
    }
}

/// Why nothing could be counted.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// The tool is not there, or cannot be run.
    #[error("{tool} cannot be run: {source}")]
    Run {
        /// Which tool.
        tool: CountingTool,
        /// What the kernel answered.
        source: io::Error,
    },
    /// It did not get hold of the process.
    #[error("{tool} did not attach: {said:?}")]
    Attach {
        /// Which tool.
        tool: CountingTool,
        /// What it said in place.
        said: String,
    },
    /// It told nothing.
    #[error("{0} gave no counts")]
    Silent(CountingTool),
    /// Neither of the two.
    #[error("{0}; {1}")]
    Neither(Box<Self>, Box<Self>),
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallCounts {
    /// By whom.
    pub tool: CountingTool,
    /// All calls.
    pub total: u64,
    /// Calls by name; perf(1) names only those that a server makes often.
    pub by_name: BTreeMap<String, u64>,
}

/// Calls that wait for the kernel to report something.
const POLLER_CALLS: [&str; 6] =
    ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "io_uring_enter"];

impl SyscallCounts {
    /// Those calls that wait. With io_uring it is the same call that carries out everything else.
    #[must_use]
    pub fn poller(&self) -> u64 {
        POLLER_CALLS.iter().filter_map(|name| self.by_name.get(*name)).sum()
    }
}

/// A tool that counts.
#[derive(Debug)]
pub struct SyscallCounter(Inner);

#[derive(Debug)]
enum Inner {
    Perf(Perf),
    Strace(Strace),
}

impl SyscallCounter {
    /// Attaches to all threads of some processes, and to those they start later.
    ///
    /// # Errors
    ///
    /// The tool is not there, or may not look at the process.
    pub fn attach(tool: CountingTool, pids: &[u32]) -> Result<Self, CountError> {
        let pids = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let perf = || Perf::attach(&pids).map(|perf| Self(Inner::Perf(perf)));
        let strace = || Strace::attach(&pids).map(|strace| Self(Inner::Strace(strace)));
        match tool {
            CountingTool::Perf => perf(),
            CountingTool::Strace => strace(),
            CountingTool::Auto => perf().or_else(|first| {
                strace().map_err(|second| CountError::Neither(Box::new(first), Box::new(second)))
            }),
        }
    }

    /// Lets go of the process, and tells what was counted.
    ///
    /// # Errors
    ///
    /// The tool told nothing, as when the process has gone.
    pub fn finish(self) -> Result<SyscallCounts, CountError> {
        match self.0 {
            Inner::Perf(perf) => perf.finish(),
            Inner::Strace(strace) => strace.finish(),
        }
    }
}

/// A tool's process, which never outlives this value.
#[derive(Debug)]
struct ToolProcess(Child);

impl ToolProcess {
    /// Asks it to tell what it has counted, and to end.
    fn interrupt(&self) {
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            // When it has ended by itself, what it told is in the pipe all the same.
            let _ = kill_process(pid, Signal::INT);
        }
    }
}

impl Drop for ToolProcess {
    fn drop(&mut self) {
        // After its work is done it has ended. Killed, it lets go of the process as well (ptrace(2)).
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_found_by_name() {
        for tool in [CountingTool::Auto, CountingTool::Perf, CountingTool::Strace] {
            assert_eq!(tool.to_string().parse(), Ok(tool));
        }
        assert_eq!(
            "gdb".parse::<CountingTool>().unwrap_err().to_string(),
            "\"gdb\" is none of auto, perf, strace"
        );
    }

    #[test]
    fn all_that_waits_is_the_pollers_share() {
        let calls = [("epoll_wait", 1), ("poll", 2), ("recvfrom", 4), ("io_uring_enter", 8)];
        let by_name = calls.map(|(name, calls)| (name.to_owned(), calls)).into();
        let counts = SyscallCounts { tool: CountingTool::Perf, total: 20, by_name };
        assert_eq!(counts.poller(), 11);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_with_a_reason() {
        // Beyond the kernel's highest pid (PID_MAX_LIMIT, 2^22).
        let error = SyscallCounter::attach(CountingTool::Auto, &[5_000_000]).unwrap_err();
        let CountError::Neither(perf, strace) = error else { panic!("{error}") };
        assert!(perf.to_string().starts_with("perf "), "{perf}");
        assert!(strace.to_string().starts_with("strace "), "{strace}");
    }
}
