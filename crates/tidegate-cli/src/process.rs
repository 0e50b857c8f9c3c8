//! `ServerProcess`: the server that runs with a configuration, found and held.
//!
//! The one invariant: it is held by a pidfd that was opened while the process was known to be the server, so no signal and
//! no wait ever means another process that got the same number later.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tidegate::Status;
use tidegate::config::Config;

use crate::ask::ask;

/// The master, or the one process when there are no workers.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    pub(crate) pid: u64,
    pidfd: OwnedFd,
    /// Whether it answers on the control socket; a server of one process has none.
    pub(crate) has_control: bool,
}

impl ServerProcess {
    /// The server that runs with this configuration.
    ///
    /// # Errors
    ///
    /// When none runs, or the one that does cannot be asked.
    pub(crate) fn find(config: &Config) -> anyhow::Result<Self> {
        if let Some(answer) = ask(config, "status")? {
            let status: Status =
                serde_json::from_slice(&answer).context("the server's answer is not understood")?;
            let master = status.processes.iter().find(|process| process.role == "master");
            let pid = master.context("the server's answer names no master")?.pid;
            return Self::open(pid, true);
        }
        match Self::of_pid_file(&config.pid_file())? {
            Some(server) => Ok(server),
            None => bail!(
                "no server runs with this configuration: nothing answers at {}",
                config.control_socket().display()
            ),
        }
    }

    /// The process that holds the lock of the pid file.
    fn of_pid_file(path: &Path) -> anyhow::Result<Option<Self>> {
        let reading = || format!("pid file {}", path.display());
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(reading)?,
        };
        let Ok(pid) = text.trim().parse::<u64>() else { return Ok(None) };
        let Ok(server) = Self::open(pid, false) else { return Ok(None) };
        // Asked after the pidfd was opened: if that process holds the lock now, it is the one the pidfd stands for. Trying
        // to lock would tell as well, but could keep a server that starts in this moment from doing so.
        let inode = fs::metadata(path).with_context(reading)?.ino();
        Ok(holds_lock(pid, inode).with_context(|| format!("locks of process {pid}"))?.then_some(server))
    }

    fn open(pid: u64, has_control: bool) -> anyhow::Result<Self> {
        let raw =
            i32::try_from(pid).ok().and_then(Pid::from_raw).with_context(|| format!("{pid} is no pid"))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).with_context(|| format!("process {pid}"))?;
        Ok(Self { pid, pidfd, has_control })
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        pidfd_send_signal(&self.pidfd, signal).with_context(|| format!("signalling process {}", self.pid))
    }

    /// Waits until it has ended, but no longer than `bound`.
    pub(crate) fn wait_end(&self, bound: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + bound;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
            let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&left)) {
                Ok(0) => bail!("the server, process {}, has not ended within {}", self.pid, seconds(bound)),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("waiting for the end of the server"),
            }
        }
    }
}

/// Whether the process has a file open that it has locked, by what the kernel says of each of its descriptors
/// (proc_pid_fdinfo(5)). The list of all locks of the system would not do: it is read in pieces, and a lock that goes
/// away meanwhile makes the reader miss another.
fn holds_lock(pid: u64, inode: u64) -> io::Result<bool> {
    let entries = match fs::read_dir(format!("/proc/{pid}/fdinfo")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        // A descriptor that was closed in this moment holds nothing.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        if text.lines().filter_map(|line| line.strip_prefix("lock:")).any(|lock| is_lock_of(lock, pid, inode))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a lock, as /proc/locks (proc_locks(5)) and fdinfo have it, is the flock of this process on a file with this inode. The device is not
/// compared: on some file systems stat(2) and the kernel's list number it differently.
fn is_lock_of(line: &str, pid: u64, inode: u64) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, holder, file, ..] = fields[..] else { return false };
    let inode_of = file.rsplit_once(':').map(|(_, inode)| inode);
    holder.parse() == Ok(pid) && inode_of.and_then(|text| text.parse().ok()) == Some(inode)
}

fn seconds(time: Duration) -> String {
    tidegate::config::format_duration(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_known_by_its_kind_holder_and_inode() {
        let line = "1: FLOCK  ADVISORY  WRITE 4711 08:01:99 0 EOF";
        assert!(is_lock_of(line, 4711, 99));
        assert!(!is_lock_of(line, 4712, 99));
        assert!(!is_lock_of(line, 4711, 9));
        assert!(!is_lock_of("1: POSIX  ADVISORY  WRITE 4711 08:01:99 0 EOF", 4711, 99));
        // Somebody who waits for the lock does not hold it.
        assert!(!is_lock_of("1: -> FLOCK  ADVISORY  WRITE 4711 08:01:99 0 EOF", 4711, 99));
        assert!(!is_lock_of("", 4711, 99));
    }

    #[test]
    fn a_pid_file_without_its_lock_is_no_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.pid");
        assert!(ServerProcess::of_pid_file(&path).unwrap().is_none());
        fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(ServerProcess::of_pid_file(&path).unwrap().is_none());
        let file = fs::File::open(&path).unwrap();
        file.lock().unwrap();
        let found = ServerProcess::of_pid_file(&path).unwrap().unwrap();
        assert_eq!(found.pid, u64::from(std::process::id()));
        assert!(found.wait_end(Duration::ZERO).is_err());
    }
}
