//! Title, arguments and environment of a program that is about to be executed, as the kernel wants them.
//!
//! The one invariant: the pointers lead into strings that this value owns and never changes, but for the digits of the pid,
//! which a child fills in. It executes nothing.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;

use super::{ENV_FDS, ENV_PID, ENV_ROLE, RESERVED_ENV, SpawnError};

/// What a program is told, as it was asked for.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) title: OsString,
    pub(super) role: String,
    pub(super) args: Vec<OsString>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) fds: Vec<(String, BorrowedFd<'a>)>,
}

impl<'a> Told<'a> {
    /// Only the title and the role.
    pub(super) fn new(title: OsString, role: String) -> Self {
        Self { title, role, args: Vec::new(), env: Vec::new(), fds: Vec::new() }
    }

    /// As the kernel wants it: the named descriptors stand at `numbers`, in their order, and of our own environment all
    /// variables are handed on but those that `is_dropped` names.
    pub(super) fn arguments(
        &self,
        numbers: impl IntoIterator<Item = i32>,
        is_dropped: impl Fn(&OsStr) -> bool,
    ) -> Result<Arguments, SpawnError> {
        let args = std::iter::once(&self.title).chain(&self.args);
        let args = args.map(|arg| CString::new(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let env = self.environment(numbers, is_dropped)?;
        let env = env.into_iter().map(|variable| CString::new(variable.into_vec()));
        let env = env.map(|variable| variable.map(CString::into_bytes_with_nul));
        Ok(Arguments::new(args, env.collect::<Result<_, _>>()?))
    }

    /// The variables; the last one is the pid.
    fn environment(
        &self,
        numbers: impl IntoIterator<Item = i32>,
        is_dropped: impl Fn(&OsStr) -> bool,
    ) -> Result<Vec<OsString>, SpawnError> {
        let mut list = String::new();
        for ((name, _), number) in self.fds.iter().zip(numbers) {
            if name.is_empty() || name.contains([',', '=']) {
                return Err(SpawnError::Name(name.clone()));
            }
            let comma = if list.is_empty() { "" } else { "," };
            list.push_str(&format!("{comma}{name}={number}"));
        }
        let is_replaced = |key: &OsString| {
            RESERVED_ENV.iter().any(|reserved| key == reserved) || self.env.iter().any(|(new, _)| new == key)
        };
        let kept = env::vars_os().filter(|(key, _)| !is_replaced(key) && !is_dropped(key));
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

/// The two lists of `execveat(2)`, each with a null pointer at its end.
pub(super) struct Arguments {
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    pid_digits: *mut u8,
    _args: Vec<CString>,
    _env: Vec<Vec<u8>>,
}

impl Arguments {
    /// `env` are zero-terminated variables, of which the last one is the pid, with ten digits.
    fn new(args: Vec<CString>, mut env: Vec<Vec<u8>>) -> Self {
        let pointers =
            |list: Vec<*const libc::c_char>| -> Vec<_> { list.into_iter().chain([ptr::null()]).collect() };
        let argv = pointers(args.iter().map(|arg| arg.as_ptr()).collect());
        let envp =
            pointers(env.iter_mut().map(|variable| variable.as_mut_ptr().cast_const().cast()).collect());
        let pid_digits = env.last_mut().map_or(ptr::null_mut(), |pid| pid[ENV_PID.len() + 1..].as_mut_ptr());
        Self { argv, envp, pid_digits, _args: args, _env: env }
    }

    pub(super) fn argv(&self) -> *const *const libc::c_char {
        self.argv.as_ptr()
    }

    pub(super) fn envp(&self) -> *const *const libc::c_char {
        self.envp.as_ptr()
    }

    /// Fills in the pid of the calling process, which is the one that will execute the program. Async-signal-safe.
    pub(super) fn write_own_pid(&mut self) {
        // SAFETY: points to the ten digits of the last variable, which is ours; nobody else reads it meanwhile.
        unsafe { write_pid(self.pid_digits) };
    }
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arguments").field("args", &self._args).finish_non_exhaustive()
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

/// The value of the pid variable until it is filled in; as wide as any pid.
const NO_PID: &str = "0000000000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_is_written_in_ten_digits() {
        let mut digits = *b"xxxxxxxxxx";
        // SAFETY: ten bytes.
        unsafe { write_pid(digits.as_mut_ptr()) };
        assert_eq!(std::str::from_utf8(&digits).unwrap().parse(), Ok(std::process::id()));
    }

    #[test]
    fn variables_are_dropped_replaced_and_added() {
        let mut told = Told::new("title".into(), "worker:1".to_owned());
        told.env.push(("PATH".into(), "/new".into()));
        told.fds.push(("in".to_owned(), rustix::stdio::stdin()));
        told.fds.push(("out".to_owned(), rustix::stdio::stdout()));
        let is_dropped = |key: &OsStr| key != "PATH";
        let variables = told.environment([7, 4], is_dropped).unwrap();
        let own = ["TIDEGATE_ROLE=worker:1", "TIDEGATE_FDS=in=7,out=4", "TIDEGATE_PID=0000000000"];
        assert_eq!(variables[0], "PATH=/new");
        assert_eq!(variables[1..], own);
    }
}
