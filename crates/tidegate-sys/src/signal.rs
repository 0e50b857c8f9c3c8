//! Signals as events: a blocked set, and a descriptor that yields what arrives.
//!
//! The one invariant: a signal that belongs to a [`SignalSet`] can be blocked, so a set never holds a fault signal, `TRAP`,
//! `ABRT`, `KILL` or `STOP`. Blocking a fault would turn a crash into a silent kill or an endless loop.
//!
//! A thread inherits the mask of the thread that starts it. A set must therefore be blocked while there is one thread
//! only; else the kernel delivers the signal to a thread that does not block it, and the default action ends the
//! process. What a signal means is decided elsewhere.

pub mod first;

use std::fmt;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

pub use rustix::process::Signal;

/// A set of signals that may be blocked (`sigset_t`).
///
/// ```
/// use tidegate_sys::signal::{Signal, SignalSet};
///
/// let set = SignalSet::of(&[Signal::TERM, Signal::INT]);
/// assert!(set.contains(Signal::TERM));
/// assert!(!set.contains(Signal::HUP));
/// ```
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// No signal at all: the mask that a process has by default.
    #[must_use]
    pub fn empty() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset(3) initialises the set that it is given, and cannot fail on a valid pointer.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: initialised by the line above.
        Self(unsafe { set.assume_init() })
    }

    /// The set of these signals.
    ///
    /// # Panics
    ///
    /// When one of them must never be blocked: a fault (`SEGV`, `BUS`, `FPE`, `ILL`, `SYS`), `TRAP`, `ABRT`, `KILL` or
    /// `STOP`.
    #[must_use]
    pub fn of(signals: &[Signal]) -> Self {
        let mut set = Self::empty();
        for &signal in signals {
            assert!(is_blockable(signal), "SIG{} must not be blocked", name(signal));
            // SAFETY: the set is initialised, and the number is a valid signal, which is the only cause of an error.
            unsafe { libc::sigaddset(&raw mut set.0, signal.as_raw()) };
        }
        set
    }

    /// Whether the set holds `signal`.
    #[must_use]
    pub fn contains(&self, signal: Signal) -> bool {
        // SAFETY: the set is initialised.
        unsafe { libc::sigismember(&raw const self.0, signal.as_raw()) == 1 }
    }

    /// Adds the set to what the calling thread blocks (`pthread_sigmask(3)`), and returns the mask before.
    ///
    /// # Errors
    ///
    /// The system's error; none is known for valid sets.
    pub fn block(&self) -> io::Result<Self> {
        change_mask(libc::SIG_BLOCK, self)
    }

    /// Makes the set the mask of the calling thread, and returns the mask before.
    ///
    /// # Errors
    ///
    /// The system's error; none is known for valid sets.
    pub fn set_mask(&self) -> io::Result<Self> {
        change_mask(libc::SIG_SETMASK, self)
    }

    /// What the calling thread blocks at this moment.
    ///
    /// # Errors
    ///
    /// The system's error; none is known.
    pub fn current_mask() -> io::Result<Self> {
        Self::empty().block()
    }

    /// The set as the system wants it, for the few calls between fork and exec.
    pub(crate) fn as_raw(&self) -> &libc::sigset_t {
        &self.0
    }
}

impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(NAMES.iter().filter(|(s, _)| self.contains(*s)).map(|(_, n)| n)).finish()
    }
}

fn change_mask(how: libc::c_int, set: &SignalSet) -> io::Result<SignalSet> {
    let mut old = SignalSet::empty();
    // SAFETY: both sets are initialised and live through the call.
    let error = unsafe { libc::pthread_sigmask(how, &raw const set.0, &raw mut old.0) };
    if error == 0 { Ok(old) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Ignores `signal` in the whole process (`SIG_IGN`); exec hands that on to the new program.
///
/// # Errors
///
/// `EINVAL` for `KILL` and `STOP`.
pub fn ignore(signal: Signal) -> io::Result<()> {
    set_disposition(signal, libc::SIG_IGN)
}

/// Gives `signal` its default action again.
///
/// A process inherits what its parent ignored. An ignored `CHLD` makes the kernel reap children by itself, and their
/// exit status is lost (`sigaction(2)`); who waits for children resets it first.
///
/// # Errors
///
/// `EINVAL` for `KILL` and `STOP`.
pub fn reset(signal: Signal) -> io::Result<()> {
    set_disposition(signal, libc::SIG_DFL)
}

fn set_disposition(signal: Signal, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: every field of the structure is an integer or a nullable pointer, for which zero is a value.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_mask = SignalSet::empty().0;
    // SAFETY: the action is SIG_IGN or SIG_DFL, so no code of ours is ever called by it.
    let result = unsafe { libc::sigaction(signal.as_raw(), &raw const action, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A signal as it was read from a [`SignalFd`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which signal.
    pub signal: Signal,
    /// The process that sent it; 0 when the kernel did (a key on the terminal, for example).
    pub sender_pid: u32,
    /// The real user of the sender.
    pub sender_uid: u32,
    /// How it was sent (`si_code`): 0 is `kill(2)`, 128 is the kernel itself.
    pub code: i32,
}

/// A descriptor that is readable when a signal of its set waits (`signalfd(2)`); non-blocking, closed at exec.
///
/// It yields the signals that are sent to the process or to the thread that reads; they must be blocked, else their
/// action happens and nothing can be read.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// A descriptor for the signals of `set`.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE` and `ENOMEM`.
    pub fn new(set: &SignalSet) -> io::Result<Self> {
        // SAFETY: -1 asks for a new descriptor, and the set is initialised.
        let fd = unsafe { libc::signalfd(-1, &raw const set.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal, or `None` when none waits.
    ///
    /// # Errors
    ///
    /// The error of `read(2)`, and `InvalidData` for a number that is not a named signal.
    pub fn read(&self) -> io::Result<Option<Received>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = mem::size_of::<libc::signalfd_siginfo>();
        let read = loop {
            // SAFETY: the buffer is ours and as large as is said.
            let read = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
            if read >= 0 {
                break read.cast_unsigned();
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            }
        };
        if read != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{read} of {size} bytes")));
        }
        // SAFETY: all of it was zeroed, and then written by the kernel; it consists of integers only.
        let info = unsafe { info.assume_init() };
        let number = info.ssi_signo.cast_signed();
        let signal = Signal::from_named_raw(number)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("signal {number}")))?;
        Ok(Some(Received { signal, sender_pid: info.ssi_pid, sender_uid: info.ssi_uid, code: info.ssi_code }))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The name of a signal without its `SIG`, as `kill -l` prints it; `?` for one without a name here.
#[must_use]
pub fn name(signal: Signal) -> &'static str {
    NAMES.iter().find(|(known, _)| *known == signal).map_or("?", |(_, name)| name)
}

/// The name of a signal by its number; real-time signals have none.
#[must_use]
pub fn name_of_raw(number: i32) -> &'static str {
    Signal::from_named_raw(number).map_or("?", name)
}

fn is_blockable(signal: Signal) -> bool {
    const NEVER: [Signal; 9] = [
        Signal::SEGV,
        Signal::BUS,
        Signal::FPE,
        Signal::ILL,
        Signal::SYS,
        Signal::TRAP,
        Signal::ABORT,
        Signal::KILL,
        Signal::STOP,
    ];
    !NEVER.contains(&signal)
}

const NAMES: [(Signal, &str); 31] = [
    (Signal::HUP, "HUP"),
    (Signal::INT, "INT"),
    (Signal::QUIT, "QUIT"),
    (Signal::ILL, "ILL"),
    (Signal::TRAP, "TRAP"),
    (Signal::ABORT, "ABRT"),
    (Signal::BUS, "BUS"),
    (Signal::FPE, "FPE"),
    (Signal::KILL, "KILL"),
    (Signal::USR1, "USR1"),
    (Signal::SEGV, "SEGV"),
    (Signal::USR2, "USR2"),
    (Signal::PIPE, "PIPE"),
    (Signal::ALARM, "ALRM"),
    (Signal::TERM, "TERM"),
    (Signal::STKFLT, "STKFLT"),
    (Signal::CHILD, "CHLD"),
    (Signal::CONT, "CONT"),
    (Signal::STOP, "STOP"),
    (Signal::TSTP, "TSTP"),
    (Signal::TTIN, "TTIN"),
    (Signal::TTOU, "TTOU"),
    (Signal::URG, "URG"),
    (Signal::XCPU, "XCPU"),
    (Signal::XFSZ, "XFSZ"),
    (Signal::VTALARM, "VTALRM"),
    (Signal::PROF, "PROF"),
    (Signal::WINCH, "WINCH"),
    (Signal::IO, "IO"),
    (Signal::POWER, "PWR"),
    (Signal::SYS, "SYS"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn a_set_holds_what_it_was_given() {
        let set = SignalSet::of(&[Signal::TERM, Signal::USR1]);
        assert!(set.contains(Signal::TERM) && set.contains(Signal::USR1) && !set.contains(Signal::INT));
        assert_eq!(format!("{set:?}"), "{\"USR1\", \"TERM\"}");
    }

    #[test]
    fn fault_signals_are_refused() {
        for signal in [Signal::SEGV, Signal::BUS, Signal::FPE, Signal::ILL, Signal::TRAP, Signal::KILL] {
            assert!(std::panic::catch_unwind(|| SignalSet::of(&[signal])).is_err(), "{signal:?}");
        }
    }

    #[test]
    fn blocked_signals_are_read_with_their_sender() {
        // In a thread of its own, because the mask is the thread's, and the signal is sent to that thread alone.
        thread::spawn(|| {
            let set = SignalSet::of(&[Signal::USR2, Signal::WINCH]);
            let before = set.block().unwrap();
            assert!(!before.contains(Signal::USR2));
            assert!(SignalSet::current_mask().unwrap().contains(Signal::USR2));
            let fd = SignalFd::new(&set).unwrap();
            assert_eq!(fd.read().unwrap(), None);
            // SAFETY: raise(3) sends the signal to the calling thread, which blocks it.
            assert_eq!(unsafe { libc::raise(libc::SIGUSR2) }, 0);
            let received = fd.read().unwrap().unwrap();
            assert_eq!((received.signal, received.sender_pid), (Signal::USR2, std::process::id()));
            assert_eq!(fd.read().unwrap(), None);
            before.set_mask().unwrap();
            assert!(!SignalSet::current_mask().unwrap().contains(Signal::USR2));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn names_are_those_of_kill() {
        assert_eq!(name(Signal::TERM), "TERM");
        assert_eq!(name_of_raw(9), "KILL");
        assert_eq!(name_of_raw(40), "?");
    }
}
