//! Starting a child: fork, arrange, exec.
//!
//! The one invariant: everything that allocates, locks or can wait is done before the fork; behind it stand bare calls of
//! the system only, and a failure there comes back to the parent through a pipe. It does not wait for the child.

use std::ffi::{NulError, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::arguments::{Arguments, Told};
use super::credentials::{Change, Credentials};
use super::{Exe, FIRST_FD, Process, is_supervision_variable};
use crate::signal::SignalSet;

/// Why a child was not started. Nothing is left of the attempt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// Title, argument, variable or role with a zero byte.
    #[error("an argument or variable of the child holds a zero byte")]
    Nul(#[from] NulError),
    /// The name of a descriptor has a character that its list is written with.
    #[error("descriptor name {0:?} is empty or holds ',' or '='")]
    Name(String),
    /// The pipe, the fork or the pidfd failed.
    #[error("starting a child process: {step}")]
    Start {
        /// What was tried.
        step: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The child could not become the new program.
    #[error("child process: {step}")]
    Child {
        /// What the child tried.
        step: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

/// One child to be started.
///
/// It gets the environment of this process, the standard streams, and the descriptors that are named, at the numbers from
/// 3 on; everything else is closed. Its title is what `ps` shows (`argv[0]`). What a service manager told this process
/// about sockets, readiness and watchdog is not for it: those variables are left out.
#[derive(Debug)]
pub struct Spawn<'a> {
    exe: &'a Exe,
    told: Told<'a>,
    mask: SignalSet,
    user: Option<&'a Credentials>,
}

impl<'a> Spawn<'a> {
    /// A child of this binary, with this title and role, no arguments, no descriptors, and no blocked signals.
    #[must_use]
    pub fn new(exe: &'a Exe, title: impl Into<OsString>, role: impl Into<String>) -> Self {
        Self { exe, told: Told::new(title.into(), role.into()), mask: SignalSet::empty(), user: None }
    }

    /// Adds arguments behind the title.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.told.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment, or replaces it.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.told.env.push((key.into(), value.into()));
        self
    }

    /// Hands over a descriptor by name; the child gets a duplicate.
    #[must_use]
    pub fn fd(mut self, name: impl Into<String>, fd: BorrowedFd<'a>) -> Self {
        self.told.fds.push((name.into(), fd));
        self
    }

    /// What the child blocks when its program begins. Signals that wait are kept over exec, so a set that the child reads
    /// from a [`SignalFd`](crate::signal::SignalFd) loses none that arrives while it starts.
    #[must_use]
    pub fn mask(mut self, mask: SignalSet) -> Self {
        self.mask = mask;
        self
    }

    /// Lets the child be this user from before its program begins, without any capability and any way to one; see
    /// [`Credentials`]. The binary must be executable for that user.
    #[must_use]
    pub fn user(mut self, user: &'a Credentials) -> Self {
        self.user = Some(user);
        self
    }

    /// Starts it, and returns when its program has begun.
    ///
    /// # Errors
    ///
    /// See [`SpawnError`]; there is no child then.
    pub fn start(&self) -> Result<Process, SpawnError> {
        let step = |step| move |error: Errno| SpawnError::Start { step, source: error.into() };
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(step("pipe"))?;
        let mut image = self.image(writer.as_fd())?;
        // SAFETY: the child does nothing but `become_program`, which makes async-signal-safe calls only.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: we are the child of a fork, and the only thread in it.
            unsafe { image.become_program() }
        }
        let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else {
            return Err(SpawnError::Start { step: "fork", source: io::Error::last_os_error() });
        };
        drop(writer);
        let failure = read_failure(&reader);
        match (failure, Process::of_child(pid)) {
            (Ok(None), Ok(process)) => Ok(process),
            (Ok(Some(failure)), _) => Err(abandon(pid, failure)),
            (Err(source), _) => Err(abandon(pid, SpawnError::Start { step: "exec pipe", source })),
            (_, Err(source)) => Err(abandon(pid, SpawnError::Start { step: "pidfd", source })),
        }
    }

    /// Everything that the child needs, allocated here.
    fn image(&self, report: BorrowedFd<'_>) -> Result<Image, SpawnError> {
        let change = self.user.map(Credentials::change).transpose();
        Ok(Image {
            arguments: self.told.arguments(FIRST_FD.., is_supervision_variable)?,
            exe: self.exe.as_fd().as_raw_fd(),
            report: report.as_raw_fd(),
            sources: self.told.fds.iter().map(|(_, fd)| fd.as_raw_fd()).collect(),
            mask: self.mask,
            change: change.map_err(|source| SpawnError::Start { step: "own credentials", source })?,
        })
    }
}

/// What the child works with between fork and exec.
struct Image {
    arguments: Arguments,
    exe: RawFd,
    report: RawFd,
    /// The descriptors to be placed from [`FIRST_FD`] on; the child turns each into its safe duplicate.
    sources: Vec<RawFd>,
    mask: SignalSet,
    change: Option<Change>,
}

impl Image {
    /// Arranges descriptors, credentials and signals, and becomes the program; a failure is reported, and the child ends.
    ///
    /// # Safety
    ///
    /// Only to be called in the child of a fork.
    unsafe fn become_program(&mut self) -> ! {
        // SAFETY: as the caller promises.
        let (failed, errno) = unsafe { self.try_become_program() };
        let report = [errno.raw_os_error().to_ne_bytes(), (failed as i32).to_ne_bytes()];
        // SAFETY: the buffer is ours; when the parent has gone there is nobody left to be told.
        unsafe { libc::write(self.report, report.as_ptr().cast(), size_of_val(&report)) };
        // SAFETY: ends the child at once, without running what belongs to the parent.
        unsafe { libc::_exit(127) }
    }

    /// Returns the step that failed.
    ///
    /// # Safety
    ///
    /// Only to be called in the child of a fork.
    unsafe fn try_become_program(&mut self) -> (Step, Errno) {
        self.arguments.write_own_pid();
        // SAFETY: as the caller promises.
        if let Err(failed) = unsafe { self.arrange_descriptors() } {
            return failed;
        }
        if let Some(change) = &self.change
            && let Err(failed) = change.make()
        {
            return failed;
        }
        // SAFETY: the set is initialised.
        if unsafe { libc::sigprocmask(libc::SIG_SETMASK, self.mask.as_raw(), ptr::null_mut()) } < 0 {
            return (Step::Mask, last_errno());
        }
        let (argv, envp) = (self.arguments.argv(), self.arguments.envp());
        // SAFETY: both lists end with a null pointer and consist of zero-terminated strings; returns only on failure.
        unsafe { libc::syscall(libc::SYS_execveat, self.exe, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) };
        let step = if self.change.is_some() { Step::ExecAsUser } else { Step::Exec };
        (step, last_errno())
    }

    /// Places the named descriptors, and lets exec close everything else.
    ///
    /// # Safety
    ///
    /// Only to be called in the child of a fork.
    unsafe fn arrange_descriptors(&mut self) -> Result<(), (Step, Errno)> {
        // Numbers above all the places, so that nothing is overwritten that is still needed.
        let behind =
            FIRST_FD + libc::c_int::try_from(self.sources.len()).unwrap_or(libc::c_int::MAX - FIRST_FD);
        let all = self.sources.iter_mut().chain([&mut self.exe, &mut self.report]);
        for fd in all {
            // SAFETY: makes a new descriptor; nothing of ours is changed by it.
            let high = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, behind) };
            if high < 0 {
                return Err((Step::Duplicate, last_errno()));
            }
            *fd = high;
        }
        for (place, source) in (FIRST_FD..).zip(&self.sources) {
            // SAFETY: whatever stood at that place is not needed any more, since its duplicate is above.
            if unsafe { libc::dup2(*source, place) } < 0 {
                return Err((Step::Place, last_errno()));
            }
        }
        // Marked to be closed by exec, and not closed here: the binary and the pipe are needed until then. A sibling
        // that kept our end of somebody's control channel would hide the end of the other side.
        let (first, last, flags) = (behind.cast_unsigned(), u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: only changes flags of descriptors in this process.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } < 0 {
            return Err((Step::CloseRange, last_errno()));
        }
        Ok(())
    }
}

fn last_errno() -> Errno {
    // SAFETY: errno is a plain integer of this thread.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// What the child was at when it failed; its number goes through the pipe.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Duplicate,
    Place,
    CloseRange,
    Bounding,
    Ambient,
    Groups,
    GroupId,
    UserId,
    Capabilities,
    NoNewPrivs,
    Mask,
    Exec,
    ExecAsUser,
}

const STEP_NAMES: [&str; 13] = [
    "fcntl of an inherited descriptor",
    "dup2 of an inherited descriptor",
    "close_range",
    "dropping the bounding set of capabilities",
    "clearing the ambient capabilities",
    "setgroups",
    "setresgid",
    "setresuid",
    "giving up all capabilities",
    "setting no_new_privs",
    "sigprocmask",
    "exec of the binary",
    "exec of the binary, which the user of the child must be allowed to execute",
];

/// Waits for the program of the child to begin, which closes the pipe, or for the report of its failure.
fn read_failure(pipe: &OwnedFd) -> io::Result<Option<SpawnError>> {
    let mut report = [0; 8];
    let read = loop {
        match rustix::io::read(pipe, &mut report) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    // Eight bytes are far below PIPE_BUF, so they arrive as one.
    let (errno, step) = report.split_at(4);
    let number = |bytes: &[u8]| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let step = usize::try_from(number(step)).ok().and_then(|step| STEP_NAMES.get(step)).unwrap_or(&"?");
    let failure = || SpawnError::Child { step, source: explained(step, number(errno)) };
    Ok((read != 0).then(failure))
}

/// The binary is open, so it is something else that is not there (execveat(2), "ENOENT").
fn explained(step: &str, errno: i32) -> io::Error {
    let of_exec = [Step::Exec, Step::ExecAsUser].map(|step| STEP_NAMES[step as usize]);
    if errno == libc::ENOENT && of_exec.contains(&step) {
        let text = "it is a script, or its interpreter (the dynamic linker) is not there";
        return io::Error::new(io::ErrorKind::NotFound, text);
    }
    io::Error::from_raw_os_error(errno)
}

/// Ends and reaps a child that is of no use.
fn abandon(pid: Pid, error: SpawnError) -> SpawnError {
    // It is our child and not reaped, so the number is still its own; when it has ended by itself there is nothing to do.
    let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    debug_assert!(killed.is_ok() || killed == Err(Errno::SRCH), "kill of our own child: {killed:?}");
    while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_the_list_are_refused() {
        let exe = Exe::open_self().unwrap();
        for name in ["", "a,b", "a=b"] {
            let spawn = Spawn::new(&exe, "title", "role").fd(name, exe.as_fd());
            assert!(matches!(spawn.start(), Err(SpawnError::Name(_))), "{name}");
        }
    }

    #[test]
    fn zero_bytes_are_refused() {
        let exe = Exe::open_self().unwrap();
        assert!(matches!(Spawn::new(&exe, "a\0b", "role").start(), Err(SpawnError::Nul(_))));
    }

    #[test]
    fn a_file_that_is_no_program_is_an_error_with_its_step() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let exe = Exe::open(file.path()).unwrap();
        let error = Spawn::new(&exe, "title", "role").start().unwrap_err();
        let SpawnError::Child { step, source } = error else { panic!("{error:?}") };
        assert_eq!((step, source.kind()), ("exec of the binary", io::ErrorKind::PermissionDenied));
    }
}
