//! The signals that the processes live by, blocked and read as events.
//!
//! The one invariant: they are blocked while the process has a single thread, so every later thread blocks them too, and
//! each arrives here and nowhere else. What they mean is decided by the supervisor and by the child.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tidegate_sys::process::thread_count;
use tidegate_sys::signal::{self, Received, Signal, SignalFd, SignalSet};

/// `TERM`, `INT`, `QUIT`, `HUP`, `USR1`, `USR2` and `WINCH` of this process; `PIPE` is ignored.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

/// Why the signals cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalsError {
    /// A thread that runs already does not block them, and the kernel would deliver them to it.
    #[error("the process has {0} threads already; signals are taken over before any is started")]
    Threads(usize),
    /// A call of the system failed.
    #[error("taking over the signals")]
    Io(#[from] io::Error),
}

impl Signals {
    /// Blocks the signals in this process and opens the descriptor that yields them. To be called first of all, before any
    /// thread is started.
    ///
    /// # Errors
    ///
    /// See [`SignalsError`].
    pub fn block() -> Result<Self, SignalsError> {
        match thread_count()? {
            1 => {}
            threads => return Err(SignalsError::Threads(threads)),
        }
        let set = Self::set();
        set.block()?;
        signal::ignore(Signal::PIPE)?;
        // A parent may have left CHLD ignored; then the kernel would reap our children, and their status were lost.
        signal::reset(Signal::CHILD)?;
        Ok(Self { fd: SignalFd::new(&set)? })
    }

    /// The signals that are taken over.
    pub(crate) fn set() -> SignalSet {
        SignalSet::of(&[
            Signal::TERM,
            Signal::INT,
            Signal::QUIT,
            Signal::HUP,
            Signal::USR1,
            Signal::USR2,
            Signal::WINCH,
        ])
    }

    /// The next signal that waits, if one does; poll the descriptor to know.
    ///
    /// # Errors
    ///
    /// What read(2) answered.
    pub fn read(&self) -> io::Result<Option<Received>> {
        self.fd.read()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
