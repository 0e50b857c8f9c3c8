//! `Events`: what one epoll_wait(2) brought, in memory that is reused from wait to wait.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::epoll::{self, Event, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

/// The events of one wait.
pub struct Events(Vec<Event>);

// SAFETY: an `Event` is a number and flags that the kernel wrote. `rustix` shows the number as a pointer as well, which is
// what makes it `!Send`; here it is only ever read as the number it was registered as.
unsafe impl Send for Events {}

impl Events {
    /// Room for at most `capacity` events a wait.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Waits for events, without a limit when `timeout` is `None`. What the last wait brought is forgotten.
    ///
    /// # Errors
    ///
    /// What epoll_wait(2) answered, `EINTR` included.
    pub fn wait(&mut self, epoll: impl AsFd, timeout: Option<&Timespec>) -> Result<(), Errno> {
        self.0.clear();
        if let Some(timeout) = timeout.filter(|timeout| is_fine(timeout))
            && !LACKS_PWAIT2.load(Ordering::Relaxed)
        {
            match self.wait_finely(epoll.as_fd(), timeout) {
                Err(Errno::NOSYS | Errno::PERM) => LACKS_PWAIT2.store(true, Ordering::Relaxed),
                outcome => return outcome,
            }
        }
        epoll::wait(epoll, rustix::buffer::spare_capacity(&mut self.0), timeout).map(drop)
    }

    /// epoll_pwait2(2), whose time-out is not rounded up to a millisecond.
    fn wait_finely(&mut self, epoll: BorrowedFd<'_>, timeout: &Timespec) -> Result<(), Errno> {
        // The kernel's timespec has two 64-bit numbers on every architecture.
        let timeout: [i64; 2] = [timeout.tv_sec, timeout.tv_nsec];
        let spare = self.0.spare_capacity_mut();
        let room = i32::try_from(spare.len()).unwrap_or(i32::MAX);
        let no_signals = std::ptr::null::<libc::sigset_t>();
        // SAFETY: the kernel writes at most `room` events, for which `spare` has the memory, in the layout of `Event`, which is
        // that of its own `epoll_event`; the time-out is only read, and no signal mask is given.
        let got = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                epoll.as_raw_fd(),
                spare.as_mut_ptr(),
                room,
                timeout.as_ptr(),
                no_signals,
                0_usize,
            )
        };
        let got = usize::try_from(got)
            .map_err(|_| Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))?;
        // SAFETY: the vector was empty, and the kernel has written the first `got` events behind its end.
        unsafe { self.0.set_len(got) };
        Ok(())
    }

    /// The number and the flags of an event.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(u64, EventFlags)> {
        self.0.get(index).map(|event| (event.data.u64(), event.flags))
    }
}

/// The kernel is older than 5.11, or a filter of system calls does not let it through.
static LACKS_PWAIT2: AtomicBool = AtomicBool::new(false);

/// A wait that is so short that a millisecond more would make a difference; longer ones do without the newer call.
fn is_fine(timeout: &Timespec) -> bool {
    timeout.tv_sec == 0 && timeout.tv_nsec < 100_000_000 && timeout.tv_nsec % 1_000_000 != 0
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("len", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use rustix::event::epoll::{CreateFlags, EventData};
    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn woken_epoll() -> (OwnedFd, OwnedFd) {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let woken = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &woken, EventData::new_u64(1 << 40 | 7), EventFlags::IN).unwrap();
        (epoll, woken)
    }

    #[test]
    fn a_fine_wait_brings_the_same_events_as_a_coarse_one() {
        let (epoll, _woken) = woken_epoll();
        let mut events = Events::with_capacity(4);
        for tv_nsec in [0, 1_000_000, 300_001] {
            events.wait(&epoll, Some(&Timespec { tv_sec: 0, tv_nsec })).unwrap();
            assert_eq!(events.get(0), Some((1 << 40 | 7, EventFlags::IN)), "{tv_nsec}");
            assert_eq!(events.get(1), None);
        }
    }

    #[test]
    fn a_fine_wait_is_never_too_short_and_brings_nothing() {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let mut events = Events::with_capacity(4);
        let begin = Instant::now();
        match events.wait(&epoll, Some(&Timespec { tv_sec: 0, tv_nsec: 1_300_000 })) {
            // A debugger may have interrupted it.
            Err(Errno::INTR) => return,
            outcome => outcome.unwrap(),
        }
        assert!(begin.elapsed() >= Duration::from_nanos(1_300_000));
        assert_eq!(events.get(0), None);
    }
}
