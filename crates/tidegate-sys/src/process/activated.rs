//! Descriptors that a service manager opened for this process (`sd_listen_fds(3)`).
//!
//! The one invariant: they are taken once, by the process whose pid the manager wrote down, and are closed at exec from then
//! on. What kind of descriptors they are is checked by who takes them.

use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use super::FIRST_FD;
use super::inherited::{InheritError, adopt};

/// Why activated descriptors cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivationError {
    /// They were taken before in this process.
    #[error("the activated descriptors were taken before")]
    Twice,
    /// `LISTEN_FDS` is no number of descriptors.
    #[error("LISTEN_FDS is {0:?}, and not a number up to {MAX_FDS}")]
    Count(String),
    /// `LISTEN_FDNAMES` has another number of names.
    #[error("LISTEN_FDNAMES has {names} names for {fds} descriptors")]
    Names {
        /// How many names there are.
        names: usize,
        /// How many descriptors there are.
        fds: usize,
    },
    /// A descriptor is not open.
    #[error("activated descriptor {number} ({name:?}) is not open")]
    Closed {
        /// Its name.
        name: String,
        /// Its number.
        number: i32,
    },
    /// A call of the system failed.
    #[error("taking the activated descriptors")]
    Io(#[source] io::Error),
}

/// Takes the descriptors that a service manager opened for this process, with their names, in their order; none when there
/// is no manager, or they were meant for another process. One without a name is `unknown`, as in `sd_listen_fds(3)`.
///
/// The variables stay in the environment: nobody else has this pid, and what is started by [`Spawn`](super::Spawn) or
/// [`Replace`](super::Replace) does not see them.
///
/// # Errors
///
/// See [`ActivationError`].
pub fn take_activated() -> Result<Vec<(String, OwnedFd)>, ActivationError> {
    static TAKEN: AtomicBool = AtomicBool::new(false);

    let is_for_us = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(process::id()));
    let Some(count) = env::var_os("LISTEN_FDS").filter(|_| is_for_us) else { return Ok(Vec::new()) };
    let numbers = parse(&count.to_string_lossy(), env::var("LISTEN_FDNAMES").ok().as_deref())?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(ActivationError::Twice);
    }
    let fds = numbers.into_iter().map(|entry| {
        adopt(entry).map_err(|error| match error {
            InheritError::Closed { name, number } => ActivationError::Closed { name, number },
            InheritError::Io(source) => ActivationError::Io(source),
            other => ActivationError::Io(io::Error::other(other)),
        })
    });
    fds.collect()
}

/// Names and numbers.
fn parse(count: &str, names: Option<&str>) -> Result<Vec<(String, i32)>, ActivationError> {
    let fds = count.parse().ok().filter(|&fds| fds <= MAX_FDS);
    let fds: usize = fds.ok_or_else(|| ActivationError::Count(count.to_owned()))?;
    let names: Vec<&str> = match names {
        Some(names) if fds > 0 => names.split(':').collect(),
        _ => vec!["unknown"; fds],
    };
    if names.len() != fds {
        return Err(ActivationError::Names { names: names.len(), fds });
    }
    Ok(names.into_iter().map(str::to_owned).zip(FIRST_FD..).collect())
}

const MAX_FDS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_with_numbers_from_three_on() {
        let web = ("web".to_owned(), 3);
        assert_eq!(parse("2", Some("web:gateway")).unwrap(), [web, ("gateway".to_owned(), 4)]);
        assert_eq!(parse("1", None).unwrap(), [("unknown".to_owned(), 3)]);
        assert!(parse("0", Some("")).unwrap().is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        for count in ["", "-1", "x", "1025", "99999999999999999999"] {
            assert!(matches!(parse(count, None), Err(ActivationError::Count(_))), "{count}");
        }
        for names in ["a", "a:b:c", ""] {
            assert!(matches!(parse("2", Some(names)), Err(ActivationError::Names { .. })), "{names}");
        }
    }

    #[test]
    fn a_process_without_a_manager_takes_nothing() {
        assert!(take_activated().unwrap().is_empty());
    }
}
