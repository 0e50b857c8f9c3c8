//! Starting a child: fork, arrange, exec.
//!
//! The one invariant: everything that allocates, locks or can wait is done before the fork; behind it stand bare calls of
//! the system only, and a failure there comes back to the parent through a pipe. It does not wait for the child.

use std::env;
use std::ffi::{CString, NulError, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::{ENV_FDS, ENV_PID, ENV_ROLE, Exe, FIRST_FD, Process, RESERVED_ENV};
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
/// 3 on; everything else is closed. Its title is what `ps` shows (`argv[0]`).
#[derive(Debug)]
pub struct Spawn<'a> {
    exe: &'a Exe,
    title: OsString,
    role: String,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    fds: Vec<(String, BorrowedFd<'a>)>,
    mask: SignalSet,
}

impl<'a> Spawn<'a> {
    /// A child of this binary, with this title and role, no arguments, no descriptors, and no blocked signals.
    #[must_use]
    pub fn new(exe: &'a Exe, title: impl Into<OsString>, role: impl Into<String>) -> Self {
        Self {
            exe,
            title: title.into(),
            role: role.into(),
            args: Vec::new(),
            env: Vec::new(),
            fds: Vec::new(),
            mask: SignalSet::empty(),
        }
    }

    /// Adds arguments behind the title.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to the environment, or replaces it.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Hands over a descriptor by name; the child gets a duplicate.
    #[must_use]
    pub fn fd(mut self, name: impl Into<String>, fd: BorrowedFd<'a>) -> Self {
        self.fds.push((name.into(), fd));
        self
    }

    /// What the child blocks when its program begins. Signals that wait are kept over exec, so a set that the child reads
    /// from a [`SignalFd`](crate::signal::SignalFd) loses none that arrives while it starts.
    #[must_use]
    pub fn mask(mut self, mask: SignalSet) -> Self {
        self.mask = mask;
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
        let c_string = |text: &OsStr| CString::new(text.as_bytes());
        let args = std::iter::once(&self.title).chain(&self.args);
        let args = args.map(|arg| c_string(arg)).collect::<Result<Vec<_>, _>>()?;
        let env = self.environment()?;
        let env = env.iter().map(|variable| c_string(variable)).collect::<Result<Vec<_>, _>>()?;
        let mut env: Vec<Vec<u8>> = env.into_iter().map(CString::into_bytes_with_nul).collect();
        let pointers =
            |list: Vec<*const libc::c_char>| -> Vec<_> { list.into_iter().chain([ptr::null()]).collect() };
        let argv = pointers(args.iter().map(|arg| arg.as_ptr()).collect());
        let envp =
            pointers(env.iter_mut().map(|variable| variable.as_mut_ptr().cast_const().cast()).collect());
        let pid_digits = env.last_mut().map_or(ptr::null_mut(), |pid| pid[ENV_PID.len() + 1..].as_mut_ptr());
        let sources: Vec<RawFd> = self.fds.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        Ok(Image {
            argv,
            envp,
            pid_digits,
            exe: self.exe.as_fd().as_raw_fd(),
            report: report.as_raw_fd(),
            sources,
            mask: self.mask,
            _args: args,
            _env: env,
        })
    }

    /// The variables of the child. The last one is the pid, of fixed width, filled in by the child itself.
    fn environment(&self) -> Result<Vec<OsString>, SpawnError> {
        let mut list = String::new();
        for ((name, _), number) in self.fds.iter().zip(FIRST_FD..) {
            if name.is_empty() || name.contains([',', '=']) {
                return Err(SpawnError::Name(name.clone()));
            }
            let comma = if list.is_empty() { "" } else { "," };
            list.push_str(&format!("{comma}{name}={number}"));
        }
        let is_replaced = |key: &OsString| {
            RESERVED_ENV.iter().any(|reserved| key == reserved) || self.env.iter().any(|(new, _)| new == key)
        };
        let kept = env::vars_os().filter(|(key, _)| !is_replaced(key));
        let own = [(ENV_ROLE, self.role.as_str()), (ENV_FDS, &list), (ENV_PID, NO_PID)];
        let own = own.map(|(key, value)| (OsString::from(key), OsString::from(value)));
        let all = kept.chain(self.env.iter().cloned()).chain(own);
        Ok(all
            .map(|(mut variable, value)| {
                variable.push("=");
                variable.push(value);
                variable
            })
            .collect())
    }
}

/// What the child works with between fork and exec. The pointers lead into `_args` and `_env`, which are not touched
/// again as long as it lives.
struct Image {
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    pid_digits: *mut u8,
    exe: RawFd,
    report: RawFd,
    /// The descriptors to be placed from [`FIRST_FD`] on; the child turns each into its safe duplicate.
    sources: Vec<RawFd>,
    mask: SignalSet,
    _args: Vec<CString>,
    _env: Vec<Vec<u8>>,
}

impl Image {
    /// Arranges descriptors and signals, and becomes the program; a failure is reported, and the child ends.
    ///
    /// # Safety
    ///
    /// Only to be called in the child of a fork.
    unsafe fn become_program(&mut self) -> ! {
        // SAFETY: as the caller promises.
        let failed = unsafe { self.try_become_program() };
        // SAFETY: errno is a plain integer of this thread.
        let errno = unsafe { *libc::__errno_location() };
        let report = [errno.to_ne_bytes(), (failed as i32).to_ne_bytes()];
        // SAFETY: the buffer is ours; when the parent has gone there is nobody left to be told.
        unsafe { libc::write(self.report, report.as_ptr().cast(), size_of_val(&report)) };
        // SAFETY: ends the child at once, without running what belongs to the parent.
        unsafe { libc::_exit(127) }
    }

    /// Returns the step that failed, with errno set.
    ///
    /// # Safety
    ///
    /// Only to be called in the child of a fork.
    unsafe fn try_become_program(&mut self) -> Step {
        // SAFETY: points to the ten digits of the last variable, which nobody else sees in this process.
        unsafe { write_pid(self.pid_digits) };
        // Numbers above all the places, so that nothing is overwritten that is still needed.
        let behind =
            FIRST_FD + libc::c_int::try_from(self.sources.len()).unwrap_or(libc::c_int::MAX - FIRST_FD);
        let all = self.sources.iter_mut().chain([&mut self.exe, &mut self.report]);
        for fd in all {
            // SAFETY: makes a new descriptor; nothing of ours is changed by it.
            let high = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, behind) };
            if high < 0 {
                return Step::Duplicate;
            }
            *fd = high;
        }
        for (place, source) in (FIRST_FD..).zip(&self.sources) {
            // SAFETY: whatever stood at that place is not needed any more, since its duplicate is above.
            if unsafe { libc::dup2(*source, place) } < 0 {
                return Step::Place;
            }
        }
        // Marked to be closed by exec, and not closed here: the binary and the pipe are needed until then. A sibling
        // that kept our end of somebody's control channel would hide the end of the other side.
        let (first, last, flags) = (behind.cast_unsigned(), u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        // SAFETY: only changes flags of descriptors in this process.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } < 0 {
            return Step::CloseRange;
        }
        // SAFETY: the set is initialised.
        if unsafe { libc::sigprocmask(libc::SIG_SETMASK, self.mask.as_raw(), ptr::null_mut()) } < 0 {
            return Step::Mask;
        }
        let (argv, envp) = (self.argv.as_ptr(), self.envp.as_ptr());
        // SAFETY: both lists end with a null pointer and consist of zero-terminated strings; returns only on failure.
        unsafe { libc::syscall(libc::SYS_execveat, self.exe, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) };
        Step::Exec
    }
}

/// Writes the pid of this process as ten decimal digits.
///
/// # Safety
///
/// `digits` points to ten writable bytes.
unsafe fn write_pid(digits: *mut u8) {
    // SAFETY: getpid(2) cannot fail.
    let mut rest = unsafe { libc::getpid() }.cast_unsigned();
    for place in (0..NO_PID.len()).rev() {
        let digit = b"0123456789"[(rest % 10) as usize];
        // SAFETY: one of the ten bytes that the caller promises.
        unsafe { digits.add(place).write(digit) };
        rest /= 10;
    }
}

/// What the child was at when it failed; its number goes through the pipe.
#[derive(Clone, Copy)]
enum Step {
    Duplicate,
    Place,
    CloseRange,
    Mask,
    Exec,
}

const STEP_NAMES: [&str; 5] = [
    "fcntl of an inherited descriptor",
    "dup2 of an inherited descriptor",
    "close_range",
    "sigprocmask",
    "exec of the binary",
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
    let failure = || SpawnError::Child { step, source: io::Error::from_raw_os_error(number(errno)) };
    Ok((read != 0).then(failure))
}

/// Ends and reaps a child that is of no use.
fn abandon(pid: Pid, error: SpawnError) -> SpawnError {
    // It is our child and not reaped, so the number is still its own; when it has ended by itself there is nothing to do.
    let killed = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    debug_assert!(killed.is_ok() || killed == Err(Errno::SRCH), "kill of our own child: {killed:?}");
    while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    error
}

/// The value of the pid variable until the child has filled in its own; as wide as any pid.
const NO_PID: &str = "0000000000";

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

    #[test]
    fn the_pid_is_written_in_ten_digits() {
        let mut digits = *b"xxxxxxxxxx";
        // SAFETY: ten bytes.
        unsafe { write_pid(digits.as_mut_ptr()) };
        assert_eq!(std::str::from_utf8(&digits).unwrap().parse(), Ok(std::process::id()));
    }
}
