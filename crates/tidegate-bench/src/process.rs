//! `ServerProcess`: a measured server as a process of its own, so that its processor time and memory are its own.
//!
//! Invariant: it ends when this value is dropped, and also when this process ends, since a server serves as long as its
//! standard input is open. Its first line on standard output says where it listens, or why it does not.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::limits::timespec;

/// A running server.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    /// The server serves until this is closed.
    stdin: Option<ChildStdin>,
    address: SocketAddr,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program cannot be run.
    #[error("the server cannot be run")]
    Run(#[source] io::Error),
    /// The server says why.
    #[error("{0}")]
    Refused(String),
    /// It ended, or said something else.
    #[error("the server said {0:?} in place of its address")]
    Silent(String),
}

const READY: &str = "listening ";
const REFUSED: &str = "refused ";
/// How long a server that was told to end may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a server prints when it serves.
#[must_use]
pub fn ready_line(address: SocketAddr) -> String {
    format!("{READY}{address}\n")
}

/// What a server prints when it cannot.
#[must_use]
pub fn refusal_line(reason: &str) -> String {
    format!("{REFUSED}{}\n", reason.replace('\n', " "))
}

impl ServerProcess {
    /// Runs a program with these arguments, and waits until it serves.
    ///
    /// # Errors
    ///
    /// It cannot be run, or does not serve.
    pub fn start(program: &Path, arguments: &[String]) -> Result<Self, StartError> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A key on the terminal is for this process, which ends the server when its time has come.
        let mut child = command.process_group(0).spawn().map_err(StartError::Run)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut this = Self { child, stdin, address: SocketAddr::from(([0, 0, 0, 0], 0)) };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line).map_err(StartError::Run)?;
        }
        this.address = parse(line.trim_end())?;
        Ok(this)
    }

    /// Which process it is.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.stdin = None;
        if !ended_within(&self.child, PATIENCE) {
            // It may have ended just now, which is what is wanted.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Waits for a child, but not for ever.
pub(crate) fn ended_within(child: &Child, patience: Duration) -> bool {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return false };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timespec(patience))).is_ok_and(|ready| ready > 0)
}

fn parse(line: &str) -> Result<SocketAddr, StartError> {
    if let Some(reason) = line.strip_prefix(REFUSED) {
        return Err(StartError::Refused(reason.to_owned()));
    }
    let address = line.strip_prefix(READY).and_then(|address| address.parse().ok());
    address.ok_or_else(|| StartError::Silent(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_understood_as_it_was_meant() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        assert_eq!(parse(ready_line(address).trim_end()).unwrap(), address);
        let refused = parse(refusal_line("no\nuring").trim_end()).unwrap_err();
        assert_eq!(refused.to_string(), "no uring");
        assert!(matches!(parse(""), Err(StartError::Silent(_))));
        assert!(matches!(parse("listening nowhere"), Err(StartError::Silent(_))));
    }

    #[test]
    fn a_program_that_says_nothing_is_no_server() {
        let error = ServerProcess::start(Path::new("true"), &[]).unwrap_err();
        assert_eq!(error.to_string(), "the server said \"\" in place of its address");
        assert!(matches!(ServerProcess::start(Path::new("/none"), &[]), Err(StartError::Run(_))));
    }

    #[test]
    fn a_server_ends_with_its_standard_input() {
        let script = "echo listening 127.0.0.1:1; read line".to_owned();
        let server = ServerProcess::start(Path::new("sh"), &["-c".to_owned(), script]).unwrap();
        let pid = server.pid();
        assert_eq!(server.address().port(), 1);
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
