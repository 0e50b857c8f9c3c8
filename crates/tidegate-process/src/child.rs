//! The side of the child: what it was given, and what it is told.
//!
//! The one invariant: the end of the master is never missed. Its end of the control channel closes with it, however it
//! ended, and [`ChildEvent::MasterGone`] follows. What the child does then is decided by its program.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use tidegate_sys::process::{InheritError, Inherited};
use tidegate_sys::signal::{self, Signal};

use crate::clock::timespec;
use crate::control::{Channel, Received, ToChild, ToMaster};
use crate::role::Role;
use crate::signals::{Signals, SignalsError};

/// This process, when it is a child of a master.
#[derive(Debug)]
pub struct Child {
    role: Role,
    fds: Vec<(String, OwnedFd)>,
    /// None once the master has gone, and that was told.
    channel: Option<Channel>,
    signals: Signals,
    wake: Arc<OwnedFd>,
}

/// What a child is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildEvent {
    /// Accept nothing more, finish what is in flight, and end.
    Quit {
        /// Within this time, when the master said it; none when it came as a signal, and the configuration holds.
        timeout: Option<Duration>,
    },
    /// End at once.
    Stop,
    /// Open the log files again.
    Reopen,
    /// The master has ended without telling. Stop accepting, finish what is in flight, and end within the shutdown
    /// timeout. Told once.
    MasterGone,
    /// A [`ChildWaker`] was used.
    Woken,
}

/// Why a process cannot be a child.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// What it inherited cannot be taken.
    #[error("what the master handed over cannot be taken")]
    Inherit(#[from] InheritError),
    /// The role is none of this program's.
    #[error("unknown role {0:?}")]
    Role(String),
    /// The master handed no control channel over.
    #[error("no control channel was handed over")]
    NoChannel,
    /// The signals cannot be taken over.
    #[error("the signals cannot be taken over")]
    Signals(#[from] SignalsError),
    /// A call of the system failed.
    #[error("preparing the child")]
    Io(#[from] io::Error),
}

impl Child {
    /// The child that this process is, or `None` when no master started it. To be called first of all in a program: it
    /// must have one thread only, and can be called with success once.
    ///
    /// # Errors
    ///
    /// See [`ChildError`].
    pub fn from_env() -> Result<Option<Self>, ChildError> {
        let Some(inherited) = Inherited::take()? else { return Ok(None) };
        let role = Role::parse(&inherited.role).ok_or(ChildError::Role(inherited.role))?;
        let mut fds = inherited.fds;
        let control = take(&mut fds, CONTROL_FD).ok_or(ChildError::NoChannel)?;
        let signals = Signals::block()?;
        // After exec from a descriptor the kernel calls a process by the number of it.
        rustix::thread::set_name(c"tidegate").map_err(io::Error::from)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let channel = Some(Channel::from_fd(control));
        Ok(Some(Self { role, fds, channel, signals, wake: Arc::new(wake) }))
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The number of a worker; none for another role.
    #[must_use]
    pub fn index(&self) -> Option<u32> {
        self.role.index()
    }

    /// Takes an inherited descriptor by its name.
    pub fn take_fd(&mut self, name: &str) -> Option<OwnedFd> {
        take(&mut self.fds, name)
    }

    /// Takes all inherited descriptors whose names begin with `prefix`, with the rest of the names, in their order.
    pub fn take_fds_with_prefix(&mut self, prefix: &str) -> Vec<(String, OwnedFd)> {
        let (taken, left) =
            std::mem::take(&mut self.fds).into_iter().partition(|(name, _)| name.starts_with(prefix));
        self.fds = left;
        let taken: Vec<(String, OwnedFd)> = taken;
        taken.into_iter().map(|(name, fd)| (name[prefix.len()..].to_owned(), fd)).collect()
    }

    /// Tells the master that this child serves.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when the master has gone, which [`Child::wait_event`] tells as well.
    pub fn ready(&self) -> io::Result<()> {
        self.tell(&ToMaster::Ready)
    }

    /// Tells the master that this child has begun to end.
    ///
    /// # Errors
    ///
    /// As for [`Child::ready`].
    pub fn stopping(&self) -> io::Result<()> {
        self.tell(&ToMaster::Stopping)
    }

    /// Tells the master, for the status, what this child is at; cut at 510 bytes.
    ///
    /// # Errors
    ///
    /// As for [`Child::ready`].
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.tell(&ToMaster::Status(text.to_owned()))
    }

    /// A handle by which another thread ends a [`Child::wait_event`], for example when the work is done.
    #[must_use]
    pub fn waker(&self) -> ChildWaker {
        ChildWaker(Arc::clone(&self.wake))
    }

    /// Waits until the child is told something, but no longer than `timeout`; `None` when that has passed.
    ///
    /// It must be called by the thread that called [`Child::from_env`] or by one that was started later. The same can be
    /// told twice, as when a signal went to the whole group and the master passes it on.
    ///
    /// # Errors
    ///
    /// The errors of `poll(2)` and of reading; none is expected in a healthy system.
    pub fn wait_event(&mut self, timeout: Option<Duration>) -> io::Result<Option<ChildEvent>> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.next_event()? {
                return Ok(Some(event));
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
            self.wait_readable(left)?;
        }
    }

    /// What has been told already. The control channel first: it says more than a signal that means the same.
    fn next_event(&mut self) -> io::Result<Option<ChildEvent>> {
        if let Some(event) = self.next_message()? {
            return Ok(Some(event));
        }
        while let Some(received) = self.signals.read()? {
            let (name, sender_pid) = (signal::name(received.signal), received.sender_pid);
            let event = self.event_of(received.signal);
            tracing::info!(signal = name, sender_pid, obeyed = event.is_some(), "signal received");
            if event.is_some() {
                return Ok(event);
            }
        }
        let mut count = [0; 8];
        match rustix::io::read(&*self.wake, &mut count) {
            Ok(_) => Ok(Some(ChildEvent::Woken)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn next_message(&mut self) -> io::Result<Option<ChildEvent>> {
        while let Some(channel) = &self.channel {
            match channel.recv()? {
                Received::Message(ToChild::Stop) => return Ok(Some(ChildEvent::Stop)),
                Received::Message(ToChild::Quit { timeout }) => {
                    return Ok(Some(ChildEvent::Quit { timeout: Some(timeout) }));
                }
                Received::Message(ToChild::Reopen) => return Ok(Some(ChildEvent::Reopen)),
                Received::Invalid(error) => tracing::warn!(%error, "message of the master is not understood"),
                Received::Empty => break,
                Received::Closed => {
                    self.channel = None;
                    return Ok(Some(ChildEvent::MasterGone));
                }
            }
        }
        Ok(None)
    }

    /// What a signal means to this child; `None` when it is ignored, or left to the master.
    fn event_of(&self, signal: Signal) -> Option<ChildEvent> {
        let event = match signal {
            Signal::USR1 => return Some(ChildEvent::Reopen),
            Signal::TERM => ChildEvent::Stop,
            Signal::QUIT => ChildEvent::Quit { timeout: None },
            _ => return None,
        };
        // A signal to the whole group must not end the log server before those that still log, so the master, which
        // knows whether it was signalled too, decides. Without a master the signal is obeyed.
        let leaves_to_master = self.role == Role::LogServer && self.channel.is_some();
        let told = leaves_to_master && self.tell(&ToMaster::Signalled(signal.as_raw())).is_ok();
        (!told).then_some(event)
    }

    fn wait_readable(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut fds =
            vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&*self.wake, PollFlags::IN)];
        if let Some(channel) = &self.channel {
            fds.push(PollFd::new(channel, PollFlags::IN));
        }
        match poll(&mut fds, timeout.map(timespec).as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&self, message: &ToMaster) -> io::Result<()> {
        let channel = self.channel.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        channel.send(message)
    }
}

/// Ends a [`Child::wait_event`] from another thread.
#[derive(Clone, Debug)]
pub struct ChildWaker(Arc<OwnedFd>);

impl ChildWaker {
    /// Makes `wait_event` return [`ChildEvent::Woken`], now or at its next call; several calls may become one event.
    pub fn wake(&self) {
        match rustix::io::write(&*self.0, &1u64.to_ne_bytes()) {
            // A counter that is full wakes as well.
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => tracing::error!(%error, "waking the main thread"),
        }
    }
}

fn take(fds: &mut Vec<(String, OwnedFd)>, name: &str) -> Option<OwnedFd> {
    let index = fds.iter().position(|(known, _)| known == name)?;
    Some(fds.remove(index).1)
}

/// The name of the descriptor of the control channel.
pub(crate) const CONTROL_FD: &str = "control";
