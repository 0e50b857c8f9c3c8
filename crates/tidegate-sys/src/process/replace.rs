//! Becoming another program in place: exec without fork.
//!
//! The one invariant: a failure changes nothing. The flags of the descriptors are as before, the environment and the signal
//! mask were never touched, and the process goes on where it was.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

use super::arguments::{Arguments, Told};
use super::descriptors::open_at_exec;
use super::{Exe, FIRST_FD, SpawnError, is_activation_variable};

/// Why a process did not become the other program. It is what it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplaceError {
    /// Title, arguments, environment or the name of a descriptor cannot be handed over.
    #[error("what the new program is told")]
    Told(#[from] SpawnError),
    /// The descriptor has the number of a standard stream, or is named twice.
    #[error("descriptor {name:?} has the number {number}, which is a standard stream's or was named before")]
    Number {
        /// Its name.
        name: String,
        /// Its number.
        number: i32,
    },
    /// A call of the system failed.
    #[error("becoming another program: {step}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// The error of the system.
        source: io::Error,
    },
}

/// Another program in the place of this one: `execveat(2)` keeps the pid, the parent, the children and what is named.
///
/// The new program gets the environment of this process, the standard streams, and the descriptors that are named, under
/// the numbers that they have; everything else is closed. It finds them by [`Inherited::take`](super::Inherited::take), as
/// a child does. The locks of a named file (`flock(2)`) stay held, and children that were not waited for are still its
/// children: see [`Process::adopt`](super::Process::adopt).
///
/// The mask of the calling thread becomes the mask of the process. Signals that are blocked and wait are kept, so none is
/// lost that comes between the old program and the new one. All other threads end at this moment, without unwinding; no
/// destructor runs.
///
/// Of the environment the variables of a socket activation are left out, since their descriptors are not at their places
/// any more.
#[derive(Debug)]
pub struct Replace<'a> {
    exe: &'a Exe,
    told: Told<'a>,
}

impl<'a> Replace<'a> {
    /// The binary `exe` with this title and role, no arguments and no descriptors.
    #[must_use]
    pub fn new(exe: &'a Exe, title: impl Into<OsString>, role: impl Into<String>) -> Self {
        Self { exe, told: Told::new(title.into(), role.into()) }
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

    /// Keeps a descriptor, by name, under the number that it has: 3 or more, and each once only.
    #[must_use]
    pub fn fd(mut self, name: impl Into<String>, fd: BorrowedFd<'a>) -> Self {
        self.told.fds.push((name.into(), fd));
        self
    }

    /// Becomes the program; returns only when that failed.
    ///
    /// While it runs no other thread should start programs by other means than [`Spawn`](super::Spawn): they could inherit
    /// what is meant for the new program.
    pub fn exec(&self) -> ReplaceError {
        match self.try_exec() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_exec(&self) -> Result<std::convert::Infallible, ReplaceError> {
        let mut kept = Vec::with_capacity(self.told.fds.len());
        for (name, fd) in &self.told.fds {
            let number = fd.as_raw_fd();
            if number < FIRST_FD || kept.contains(&number) {
                return Err(ReplaceError::Number { name: name.clone(), number });
            }
            kept.push(number);
        }
        let mut arguments = self.told.arguments(kept.iter().copied(), is_activation_variable)?;
        arguments.write_own_pid();
        let step = |step| move |source| ReplaceError::Io { step, source };
        let flags = self.told.fds.iter().map(|(_, fd)| Ok((*fd, fcntl_getfd(fd)?)));
        let flags = flags.collect::<io::Result<Vec<_>>>().map_err(step("flags of a descriptor"))?;
        let open_at_exec = open_at_exec().map_err(step("reading /proc/self/fd"))?;
        // From here on nothing is allocated.
        let (what, source) = become_program(self.exe, &arguments, &flags);
        restore(&flags, &open_at_exec);
        Err(ReplaceError::Io { step: what, source: source.into() })
    }
}

/// Closes at exec everything but the standard streams and what is kept, and executes. Returns the step that failed.
fn become_program(
    exe: &Exe,
    arguments: &Arguments,
    kept: &[(BorrowedFd<'_>, FdFlags)],
) -> (&'static str, Errno) {
    let (first, flags) = (FIRST_FD.cast_unsigned(), libc::CLOSE_RANGE_CLOEXEC);
    // SAFETY: only changes flags of descriptors in this process.
    if unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) } < 0 {
        return ("close_range", last_errno());
    }
    for (fd, flags) in kept {
        if let Err(errno) = fcntl_setfd(fd, *flags - FdFlags::CLOEXEC) {
            return ("flags of a descriptor", errno);
        }
    }
    let (exe, argv, envp) = (exe.as_fd().as_raw_fd(), arguments.argv(), arguments.envp());
    // SAFETY: both lists end with a null pointer and consist of zero-terminated strings; returns only on failure.
    unsafe { libc::syscall(libc::SYS_execveat, exe, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) };
    ("exec of the binary", last_errno())
}

/// Puts the flags back as they were: of what was kept, and of what had no flag before.
fn restore(kept: &[(BorrowedFd<'_>, FdFlags)], open_at_exec: &[RawFd]) {
    for (fd, flags) in kept {
        // Setting a flag of an open descriptor cannot fail.
        let set = fcntl_setfd(fd, *flags);
        debug_assert!(set.is_ok(), "flags of an open descriptor: {set:?}");
    }
    for &number in open_at_exec {
        // SAFETY: only its flag is changed. It was open a moment ago; when another thread has closed it since, the call
        // fails, or clears the flag of what took its place, as it was cleared for the number before.
        let _ = unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// A failed exec touches the flags of all descriptors for a moment, and puts back what it found: one at a time.
    fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn a_file_that_is_no_program_changes_nothing() {
        let _alone = alone();
        let file = tempfile::NamedTempFile::new().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        // As careless code leaves it, and as it must be found again.
        let careless = tempfile::tempfile().unwrap();
        fcntl_setfd(&careless, FdFlags::empty()).unwrap();
        let exe = Exe::open(file.path()).unwrap();
        let replace = Replace::new(&exe, "title", "role").fd("reader", reader.as_fd());
        let error = replace.fd("writer", writer.as_fd()).exec();
        let ReplaceError::Io { step, source } = error else { panic!("{error:?}") };
        assert_eq!((step, source.kind()), ("exec of the binary", io::ErrorKind::PermissionDenied));
        for fd in [reader.as_fd(), writer.as_fd(), exe.as_fd()] {
            assert_eq!(fcntl_getfd(fd).unwrap(), FdFlags::CLOEXEC);
        }
        assert_eq!(fcntl_getfd(&careless).unwrap(), FdFlags::empty());
        assert!(std::env::var_os(super::super::ENV_ROLE).is_none());
    }

    #[test]
    fn an_executable_text_without_interpreter_is_an_error() {
        let _alone = alone();
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no-program");
        std::fs::write(&path, "this is text").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let exe = Exe::open(&path).unwrap();
        let error = Replace::new(&exe, "title", "role").exec();
        let ReplaceError::Io { step, source } = error else { panic!("{error:?}") };
        assert_eq!((step, source.raw_os_error()), ("exec of the binary", Some(libc::ENOEXEC)));
    }

    #[test]
    fn standard_streams_and_doubles_are_refused() {
        let exe = Exe::open_self().unwrap();
        let error = Replace::new(&exe, "title", "role").fd("in", rustix::stdio::stdin()).exec();
        assert!(matches!(error, ReplaceError::Number { number: 0, .. }), "{error:?}");
        let error = Replace::new(&exe, "title", "role").fd("a", exe.as_fd()).fd("b", exe.as_fd()).exec();
        assert!(matches!(error, ReplaceError::Number { name, .. } if name == "b"));
        let error = Replace::new(&exe, "title", "role").fd("a=b", exe.as_fd()).exec();
        assert!(matches!(error, ReplaceError::Told(SpawnError::Name(_))), "{error:?}");
    }
}
