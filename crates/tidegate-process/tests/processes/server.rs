//! A master with its children, as a test sees it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::part::{CONTROL, SCENARIO};

/// For whatever is waited for: far beyond what it takes, so that only a failure gets there.
const BOUND: Duration = Duration::from_secs(30);

/// A master in a process group of its own.
pub(crate) struct Server {
    master: Child,
    lines: Receiver<String>,
    /// All lines so far.
    seen: Vec<String>,
    /// Which of them were waited for already.
    taken: Vec<bool>,
}

impl Server {
    pub(crate) fn start(scenario: &str) -> Self {
        Self::start_with(scenario, |_| {})
    }

    pub(crate) fn start_with_control(scenario: &str, path: &std::path::Path) -> Self {
        Self::start_with(scenario, |command| {
            command.env(CONTROL, path);
        })
    }

    fn start_with(scenario: &str, arrange: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(SCENARIO, scenario).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        // What a master may find in its environment, and must not take for its own.
        command.env("TIDEGATE_ROLE", "worker:9").env("TIDEGATE_PID", "1").env("TIDEGATE_FDS", "control=3");
        arrange(&mut command);
        let mut master = command.spawn().unwrap();
        let output = BufReader::new(master.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { master, lines, seen: Vec::new(), taken: Vec::new() }
    }

    /// Starts a scenario, and waits until it serves.
    pub(crate) fn ready(scenario: &str) -> Self {
        let mut server = Self::start(scenario);
        server.wait_for("master ready");
        server
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.master.id()).unwrap()
    }

    /// Waits for a line that begins so; returns it.
    pub(crate) fn wait_for(&mut self, beginning: &str) -> String {
        self.wait(beginning, |line| line.starts_with(beginning))
    }

    /// Waits until the role says something, and returns the pid of its process.
    pub(crate) fn wait_for_child(&mut self, role: &str, what: &str) -> i32 {
        let pid_of = |line: &str| {
            let (pid, said) = line.strip_prefix(role)?.strip_prefix(' ')?.split_once(' ')?;
            (said == what).then(|| pid.parse().unwrap())
        };
        let line = self.wait(&format!("{role} … {what}"), |line| pid_of(line).is_some());
        pid_of(&line).unwrap()
    }

    /// Waits for a record whose line contains all of these.
    pub(crate) fn wait_for_log(&mut self, parts: &[&str]) -> String {
        let is_meant = |line: &str| line.starts_with("log ") && parts.iter().all(|part| line.contains(part));
        self.wait(&parts.join(" … "), is_meant)
    }

    /// Waits for a line that was not waited for yet.
    fn wait(&mut self, what: &str, is_meant: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + BOUND;
        let mut next = 0;
        loop {
            while next < self.seen.len() {
                if !self.taken[next] && is_meant(&self.seen[next]) {
                    self.taken[next] = true;
                    return self.seen[next].clone();
                }
                next += 1;
            }
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.push(line),
                Err(error) => panic!("no line {what:?}: {error}; there are {:#?}", self.seen),
            }
        }
    }

    /// Waits until no process is left, and returns the exit code of the master, or its signal as a negative number.
    pub(crate) fn wait_end(&mut self) -> i32 {
        let deadline = Instant::now() + BOUND;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("a process is left: {:#?}", self.seen),
            }
        }
        let status = self.master.wait().unwrap();
        if let Some(signal) = status.signal() {
            // Its children have ended, but who reaps them now is not ours.
            return -signal;
        }
        // Everything was reaped, so nothing is left of the group.
        let group = Pid::from_raw(self.pid()).unwrap();
        let left = rustix::process::test_kill_process_group(group);
        assert_eq!(left, Err(rustix::io::Errno::SRCH), "a process is left in the group: {:#?}", self.seen);
        status.code().unwrap()
    }

    /// Where the first line stands that begins so.
    pub(crate) fn position(&self, part: &str) -> usize {
        let found = self.seen.iter().position(|line| line.contains(part));
        found.unwrap_or_else(|| panic!("no line with {part:?} in {:#?}", self.seen))
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.seen.iter().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn signal_master(&self, signal: Signal) {
        self.signal(self.pid(), signal);
    }

    pub(crate) fn signal(&self, pid: i32, signal: Signal) {
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub(crate) fn signal_group(&self, signal: Signal) {
        kill_process_group(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    fn push(&mut self, line: String) {
        self.seen.push(line);
        self.taken.push(false);
    }
}

impl Drop for Server {
    /// After a failure nothing shall be left either.
    fn drop(&mut self) {
        if matches!(self.master.try_wait(), Ok(None)) {
            let group = Pid::from_raw(self.pid()).unwrap();
            // The group is there, because its leader has not been reaped.
            kill_process_group(group, Signal::KILL).unwrap();
            self.master.wait().unwrap();
        }
    }
}
