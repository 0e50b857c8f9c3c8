//! What a process finds that was started by a [`Spawn`](super::Spawn) or became this program by a
//! [`Replace`](super::Replace).
//!
//! The one invariant: it is taken once, by the process it was meant for, and leaves no trace: no variable in the
//! environment, no descriptor that a further exec would hand on. What the role and the names mean is decided elsewhere.

use std::env;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::BorrowedFd;
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

use super::{ENV_FDS, ENV_PID, ENV_ROLE, FIRST_FD, RESERVED_ENV, thread_count};

/// The part that this process was given, and its descriptors by name, in the order in which they were given.
#[derive(Debug)]
pub struct Inherited {
    /// The role, as the parent wrote it.
    pub role: String,
    /// Name and descriptor of everything that was handed over.
    pub fds: Vec<(String, OwnedFd)>,
}

/// Why what was inherited cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// Another thread could be reading the environment while it is changed, and would not block what this one blocks.
    #[error("the process has {0} threads already, one is needed")]
    Threads(usize),
    /// It was taken before in this process.
    #[error("the inherited descriptors were taken before")]
    Twice,
    /// The variables are not what a parent writes.
    #[error("{ENV_FDS} is malformed at {0:?}")]
    Malformed(String),
    /// A descriptor that is named is not open.
    #[error("inherited descriptor {name:?} ({number}) is not open")]
    Closed {
        /// Its name.
        name: String,
        /// Its number.
        number: i32,
    },
    /// A call of the system failed.
    #[error("taking the inherited descriptors")]
    Io(#[from] io::Error),
}

impl Inherited {
    /// Takes what this process inherited; `None` when no parent gave it a role.
    ///
    /// The variables are removed from the environment, and the descriptors are closed at exec from here on.
    ///
    /// # Errors
    ///
    /// See [`InheritError`]; in particular when the process has more than one thread.
    pub fn take() -> Result<Option<Self>, InheritError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);

        let is_for_us = env::var(ENV_PID).is_ok_and(|pid| pid.parse() == Ok(process::id()));
        let Ok(role) = env::var(ENV_ROLE) else { return Ok(None) };
        if !is_for_us {
            return Ok(None);
        }
        let numbers = parse_fds(&env::var(ENV_FDS).unwrap_or_default())?;
        match thread_count()? {
            1 => {}
            threads => return Err(InheritError::Threads(threads)),
        }
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(InheritError::Twice);
        }
        for name in RESERVED_ENV {
            // SAFETY: this is the only thread of the process, so nobody reads the environment meanwhile.
            unsafe { env::remove_var(name) };
        }
        let fds = numbers.into_iter().map(adopt).collect::<Result<_, _>>()?;
        Ok(Some(Self { role, fds }))
    }
}

/// Makes a descriptor that the parent placed at `number` our own.
pub(super) fn adopt((name, number): (String, i32)) -> Result<(String, OwnedFd), InheritError> {
    // SAFETY: the number is not -1, and is only asked for its flags; that it is open is what the question finds out.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let Ok(flags) = fcntl_getfd(borrowed) else { return Err(InheritError::Closed { name, number }) };
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC).map_err(io::Error::from)?;
    // SAFETY: the parent placed it there for this very process (the pid says so), the numbers differ from each other, and
    // they are taken once only; so nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    Ok((name, fd))
}

/// `name=number,name=number`; no number is that of a standard stream, and no two are equal.
fn parse_fds(text: &str) -> Result<Vec<(String, i32)>, InheritError> {
    let mut fds: Vec<(String, i32)> = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let entry = part.rsplit_once('=').filter(|(name, _)| !name.is_empty());
        let entry = entry.and_then(|(name, number)| Some((name, number.parse::<i32>().ok()?)));
        let is_free = |number| number >= FIRST_FD && fds.iter().all(|(_, taken)| *taken != number);
        match entry {
            Some((name, number)) if is_free(number) => fds.push((name.to_owned(), number)),
            _ => return Err(InheritError::Malformed(part.to_owned())),
        }
    }
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_parsed_in_order() {
        let fds = parse_fds("control=3,listen:web:0=17,metrics=5").unwrap();
        let names: Vec<_> = fds.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        assert_eq!(names, [("control", 3), ("listen:web:0", 17), ("metrics", 5)]);
        assert!(parse_fds("").unwrap().is_empty());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["control", "=3", "a=3,b=3", "a=5,b=4,c=5", "a=x", "a=-1", "a=2", "a=3,b=99999999999"] {
            assert!(matches!(parse_fds(text), Err(InheritError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_process_without_a_role_inherits_nothing() {
        assert!(Inherited::take().unwrap().is_none());
    }
}
