//! A started child, by pidfd (`pidfd_open(2)`).
//!
//! The one invariant: a signal reaches this very process or nobody, since the descriptor names the process and not its
//! number. Dropping the handle neither ends nor reaps the child.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use crate::signal::{self, Signal};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended itself with this code, 0 to 255.
    Code(u8),
    /// It was ended by the signal of this number.
    Signal(i32),
}

impl ExitStatus {
    /// Whether it ended itself with code 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number} ({})", signal::name_of_raw(*number)),
        }
    }
}

/// A child of this process. Its descriptor becomes readable when the child has ended.
///
/// Who drops it before [`Process::try_wait`] has given a status leaves a zombie.
#[derive(Debug)]
#[must_use = "a child that nobody waits for becomes a zombie"]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// The handle of a child that this process has, by its number: one that an earlier program in this process started
    /// (see [`Replace`](super::Replace)), whether it runs or has ended and was not waited for.
    ///
    /// # Errors
    ///
    /// `ECHILD` when the process is not a child of ours, `ESRCH` when there is none, `EINVAL` for 0.
    pub fn adopt(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)?;
        let process = Self::of_child(pid)?;
        // Asks, and takes nothing away: an end that is waited for later is still there.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        retry_on_intr(|| waitid(WaitId::PidFd(process.pidfd.as_fd()), options))?;
        Ok(process)
    }

    /// The handle of a child that has not been waited for.
    pub(crate) fn of_child(pid: Pid) -> io::Result<Self> {
        // No race: the number cannot be given to another process before this one has been reaped, which is our part.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid: pid.as_raw_nonzero().get().cast_unsigned(), pidfd })
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal (`pidfd_send_signal(2)`).
    ///
    /// # Errors
    ///
    /// `ESRCH` when it has ended and been reaped, `EPERM` when it may not be signalled.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, signal)?)
    }

    /// Its status if it has ended, which is reaped by that; `None` while it runs. Never waits.
    ///
    /// # Errors
    ///
    /// `ECHILD` when it was reaped before, for example because `CHLD` is ignored.
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.waitid(WaitIdOptions::NOHANG)
    }

    /// Waits until it has ended, reaps it and returns its status.
    ///
    /// # Errors
    ///
    /// As for [`Process::try_wait`].
    pub fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.waitid(WaitIdOptions::empty())? {
                return Ok(status);
            }
        }
    }

    fn waitid(&self, options: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
        let options = options | WaitIdOptions::EXITED;
        let status = retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), options))?;
        Ok(status.and_then(|status| match (status.exit_status(), status.terminating_signal()) {
            // wait(2) keeps the low eight bits of what was given to exit(3), so this always fits.
            (Some(code), _) => Some(ExitStatus::Code(u8::try_from(code & 0xff).unwrap_or(u8::MAX))),
            (None, Some(number)) => Some(ExitStatus::Signal(number)),
            (None, None) => None,
        }))
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_child_is_adopted() {
        // The parent of the test is surely no child of it.
        let parent = rustix::process::getppid().unwrap().as_raw_nonzero().get().cast_unsigned();
        let error = Process::adopt(parent).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
        for none in [0, u32::MAX] {
            assert_eq!(Process::adopt(none).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
    }
}
