//! The beginning of a ring on its thread, and its end.

use std::io;
use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::time::Timespec;

use io_uring::types::CancelBuilder;

use super::kernel::{self, RingFd};
use super::{Owner, Ring};

/// How often the end of a ring waits, and how long each time: five seconds in all.
const PATIENCE_TURNS: u32 = 50;
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

impl Ring {
    /// By which number this thread names the ring; the first one that asks becomes its owner.
    #[inline]
    pub(super) fn own(&mut self) -> Result<RingFd, Errno> {
        match &self.owner {
            Some(owner) => Ok(owner.fd),
            None => self.enable(),
        }
    }

    fn enable(&mut self) -> Result<RingFd, Errno> {
        self.ring.submitter().register_enable_rings().map_err(|error| errno(&error))?;
        // Without it the kernel counts the ring's users at each call, and nothing else.
        let fd =
            kernel::register_fd(&self.ring).map_or(RingFd::Plain(self.ring.as_raw_fd()), RingFd::Registered);
        self.owner = Some(Owner { thread: std::thread::current().id(), fd });
        Ok(fd)
    }

    /// Whether this thread may enter the ring.
    pub(super) fn is_own(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.thread == std::thread::current().id())
    }

    /// Submits what is queued, cancels everything and waits for the ends. False when some have not come in time.
    fn quiesce(&mut self) -> bool {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        if self.queued() == 0 && self.backlog.is_empty() && self.in_flight == 0 {
            return true;
        }
        // A ring that nobody entered is this thread's now.
        if self.enter(Some(AT_ONCE)).is_err() {
            return false;
        }
        self.forget_events();
        for _ in 0..PATIENCE_TURNS {
            if self.in_flight == 0 {
                return true;
            }
            // What cannot be found any more is on its way.
            let _ = self.ring.submitter().register_sync_cancel(None, CancelBuilder::any());
            if self.enter(Some(PATIENCE)).is_err() {
                return false;
            }
            self.forget_events();
        }
        false
    }

    fn forget_events(&mut self) {
        while self.next_event().is_some() {}
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if !self.quiesce() {
            // The kernel may go on with what is in flight until it has noticed that the ring is gone.
            self.buffers.leak();
            self.sends.leak();
            self.attempts.drain(..).for_each(std::mem::forget);
        }
        if let Some(Owner { fd: RingFd::Registered(index), .. }) = self.owner
            && self.is_own()
        {
            kernel::unregister_fd(&self.ring, index);
        }
    }
}

pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}
