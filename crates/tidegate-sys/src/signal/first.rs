//! A first signal that is noted, and a second one with its default action: for tools that have something to tell when a user
//! ends them, and that start other programs, which would inherit a blocked mask (`signal(7)`).
//!
//! The one invariant: the handler stores to an atomic and does nothing else, so it may interrupt anything
//! (`signal-safety(7)`).

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Signal, SignalSet};

static SEEN: AtomicBool = AtomicBool::new(false);

/// From now on the first signal of each kind is noted for [`has_come`], and the next one of it does what it always does
/// (`SA_RESETHAND`, `sigaction(2)`). Calls that were interrupted go on (`SA_RESTART`).
///
/// # Errors
///
/// `EINVAL` for `KILL` and `STOP`.
pub fn note(signals: &[Signal]) -> io::Result<()> {
    extern "C" fn handler(_: libc::c_int) {
        SEEN.store(true, Ordering::Relaxed);
    }
    let handler: extern "C" fn(libc::c_int) = handler;
    for signal in signals {
        // SAFETY: every field of the structure is an integer or a nullable pointer, for which zero is a value.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_mask = SignalSet::empty().0;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
        // SAFETY: the handler has the signature that a call without SA_SIGINFO has, and only stores to an atomic.
        let result = unsafe { libc::sigaction(signal.as_raw(), &raw const action, ptr::null_mut()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Whether one of the signals of [`note`] has come.
#[must_use]
pub fn has_come() -> bool {
    SEEN.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpid, kill_process};

    use super::*;

    #[test]
    fn a_signal_is_noted_and_nothing_ends() {
        note(&[Signal::USR2]).unwrap();
        assert!(!has_come());
        kill_process(getpid(), Signal::USR2).unwrap();
        // It may be another thread that it comes to.
        while !has_come() {
            std::thread::yield_now();
        }
        assert!(note(&[Signal::KILL]).is_err());
    }
}
