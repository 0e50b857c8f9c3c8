//! Detaching from the terminal: the command returns when the server is ready, and the server goes on without it.
//!
//! ```text
//!   starter ──fork── (setsid) ──fork── daemon        Waiter ◄── what it writes to standard error, until it is ready
//!      │                 └ ends at once    │                ◄── "ready" or "failed", from the Notifier
//!      └ Waiter::wait … exit code          └ serves on
//! ```
//!
//! The one invariant: the starter learns of every end. A daemon that dies without a word closes its side of the channel,
//! and nobody else has that side: not the process between, nor a child of the daemon, since it is closed at exec.
//!
//! It writes no pid file, and opens nothing for the server.

mod waiter;

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, chdir, setsid, umask, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::process::descriptors::open_at_exec;
use crate::process::thread_count;

pub use waiter::{Outcome, Waiter};

/// Which of the two processes the caller of [`detach`] is now.
#[derive(Debug)]
pub enum Detached {
    /// The one that was started by the user, and that ends with what the waiter tells.
    Starter(Waiter),
    /// The one that serves.
    Daemon(Notifier),
}

/// Why a process cannot detach, or was not detached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetachError {
    /// A fork takes over only the thread that calls it.
    #[error("the process has {0} threads already, one is needed")]
    Threads(usize),
    /// A call of the system failed.
    #[error("detaching from the terminal: {step}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

/// Forks twice. In the second child, the daemon, this returns with a session of its own and no terminal, the mode mask
/// 027, `/` as its folder, standard input and output at `/dev/null`, and a standard error that the starter copies until
/// the daemon is ready. Relative paths must have been made absolute before.
///
/// What the starter inherited from the shell and does not need is closed in the daemon. It is told by its flag: what this
/// program opens is closed at exec and stays open here, with the program; what is not and does not stand in `keep` goes.
///
/// # Errors
///
/// See [`DetachError`]; there is no daemon then.
pub fn detach(keep: &[BorrowedFd<'_>]) -> Result<Detached, DetachError> {
    let step = |step| move |source: io::Error| DetachError::Io { step, source };
    match thread_count().map_err(step("reading /proc/self/task"))? {
        1 => {}
        threads => return Err(DetachError::Threads(threads)),
    }
    let prepared = Prepared::new(keep).map_err(step("pipe, socket pair and /dev/null"))?;
    // What waits in the buffer would be written by both. When nobody reads it, it is lost either way.
    let _ = io::stdout().flush();
    // SAFETY: there is one thread only, so the child finds everything in a state that it can go on with.
    match unsafe { libc::fork() } {
        0 => Ok(Detached::Daemon(prepared.leave())),
        number if number > 0 => {
            let waiter = Waiter::new(prepared.stderr_reader, prepared.status_reader);
            if let Some(pid) = Pid::from_raw(number) {
                reap(pid).map_err(step("waiting for the process between"))?;
            }
            Ok(Detached::Starter(waiter))
        }
        _ => Err(step("fork")(io::Error::last_os_error())),
    }
}

/// Sends standard error to `/dev/null`. For the children of a daemon, when they are ready: they inherited the pipe that its
/// starter reads from, and nobody does any more.
///
/// # Errors
///
/// What open(2) of `/dev/null` answered.
pub fn discard_stderr() -> io::Result<()> {
    Ok(dup2_stderr(open_null()?)?)
}

/// The side of the daemon: tells its starter once that it serves, or that it does not.
///
/// It survives a [`Replace`](crate::process::Replace) when it is named there. One that is dropped without a word tells the
/// starter that the daemon has died.
#[derive(Debug)]
pub struct Notifier(OwnedFd);

impl Notifier {
    /// The notifier behind a descriptor that passed over an exec.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it is not one.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        match sockopt::socket_type(&fd) {
            Ok(SocketType::SEQPACKET) => {
                fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
                Ok(Self(fd))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not the channel to a starter")),
        }
    }

    /// Tells the starter that this process serves, and lets it end. From now on standard error goes to `/dev/null`.
    ///
    /// # Errors
    ///
    /// What open(2) of `/dev/null` or send(2) answered. A starter that has gone is none: the user did not wait.
    pub fn ready(self) -> io::Result<()> {
        discard_stderr()?;
        self.tell(waiter::READY, std::process::id())
    }

    /// Tells the starter the code that it shall end with. It still copies what comes through standard error, and ends when
    /// this process has ended, or has dropped this.
    ///
    /// # Errors
    ///
    /// What send(2) answered.
    pub fn failed(&self, code: u8) -> io::Result<()> {
        self.tell(waiter::FAILED, u32::from(code))
    }

    fn tell(&self, kind: u8, number: u32) -> io::Result<()> {
        let message = waiter::encode(kind, number);
        loop {
            match send(&self.0, &message, SendFlags::NOSIGNAL) {
                Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What both sides need, made before the first fork, where a failure is an ordinary error.
struct Prepared {
    null: OwnedFd,
    stderr_reader: OwnedFd,
    stderr_writer: OwnedFd,
    status_reader: OwnedFd,
    notifier: Notifier,
    /// What the daemon does not need.
    close: Vec<RawFd>,
}

impl Prepared {
    fn new(keep: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let mut close = open_at_exec()?;
        close.retain(|number| keep.iter().all(|kept| kept.as_raw_fd() != *number));
        let (stderr_reader, stderr_writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&stderr_reader, fcntl_getfl(&stderr_reader)? | OFlags::NONBLOCK)?;
        let (status_reader, notifier) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let notifier = Notifier(notifier);
        Ok(Self { null: open_null()?, stderr_reader, stderr_writer, status_reader, notifier, close })
    }

    /// The way of the first child: it returns in the second one only.
    fn leave(self) -> Notifier {
        match self.try_leave() {
            Ok(()) => self.notifier,
            Err((step, errno)) => {
                let kind = waiter::FIRST_STEP + step as u8;
                // When the starter has gone there is nobody left to be told.
                let _ = self.notifier.tell(kind, errno.raw_os_error().cast_unsigned());
                exit_now(1)
            }
        }
    }

    fn try_leave(&self) -> Result<(), (Step, Errno)> {
        let failed = |step| move |errno| (step, errno);
        setsid().map_err(failed(Step::Session))?;
        // SAFETY: there is one thread only. The leader of the session ends, so the daemon, which is none, can never get a
        // terminal by opening one.
        match unsafe { libc::fork() } {
            0 => {}
            number if number > 0 => exit_now(0),
            _ => {
                let error = Errno::from_io_error(&io::Error::last_os_error());
                return Err((Step::Fork, error.unwrap_or(Errno::AGAIN)));
            }
        }
        umask(Mode::from_raw_mode(0o027));
        chdir("/").map_err(failed(Step::Folder))?;
        dup2_stdin(&self.null).map_err(failed(Step::Streams))?;
        dup2_stdout(&self.null).map_err(failed(Step::Streams))?;
        dup2_stderr(&self.stderr_writer).map_err(failed(Step::Streams))?;
        for &number in &self.close {
            // SAFETY: it was open before the fork without being closed at exec, so it was inherited and nobody here owns it.
            unsafe { rustix::io::close(number) };
        }
        Ok(())
    }
}

/// What a child was at when it failed; its number goes to the starter.
#[derive(Clone, Copy, Debug)]
enum Step {
    Session,
    Fork,
    Folder,
    Streams,
}

const STEP_NAMES: [&str; 4] = ["setsid", "second fork", "chdir to /", "dup2 of a standard stream"];

/// Ends a child of a fork without running what belongs to its parent.
fn exit_now(code: i32) -> ! {
    // SAFETY: always allowed, and does not return.
    unsafe { libc::_exit(code) }
}

fn reap(pid: Pid) -> io::Result<()> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            // No child left: somebody ignores CHLD, and the kernel has reaped it.
            Ok(_) | Err(Errno::CHILD) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn open_null() -> io::Result<OwnedFd> {
    Ok(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_refused() {
        // The runner of the tests has more than one.
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(matches!(detach(&[]), Err(DetachError::Threads(_)))));
        });
    }

    #[test]
    fn a_notifier_is_a_socket_of_its_kind() {
        assert!(Notifier::from_fd(open_null().unwrap()).is_err());
    }

    #[test]
    fn a_starter_that_has_gone_is_no_error() {
        let prepared = Prepared::new(&[]).unwrap();
        drop(prepared.status_reader);
        prepared.notifier.failed(1).unwrap();
    }
}
