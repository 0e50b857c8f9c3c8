//! The part that a process plays, and the side of the child: what it was given, and what it is told.
//!
//! The one invariant: the end of the master is never missed. Its end of the control channel closes with it, however it
//! ended, and [`ChildEvent::MasterGone`] follows. What the child does then is decided by its program.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use tidegate_sys::process::{InheritError, Inherited};
use tidegate_sys::shared::sealed_bytes;
use tidegate_sys::signal::{self, Signal};

use crate::clock::timespec;
use crate::control::{Channel, FIRST_WORD, Received, ToChild, ToMaster};
use crate::master::{SUCCESSOR, TakeOverError, TakenOver};
use crate::role::Role;
use crate::signals::{Signals, SignalsError};

/// The part that this process was started for.
#[derive(Debug)]
pub enum Part {
    /// It is a child of a master.
    Child(Child),
    /// It is a master that goes on where another image of this process was.
    Successor(Box<TakenOver>),
}

impl Part {
    /// The part of this process, or `None` when nobody gave it one: it is a program that somebody has started. To be
    /// called first of all in a program: it must have one thread only, and can be called with success once.
    ///
    /// # Errors
    ///
    /// See [`ChildError`].
    pub fn from_env() -> Result<Option<Self>, ChildError> {
        let Some(inherited) = Inherited::take()? else { return Ok(None) };
        if inherited.role == SUCCESSOR {
            // As for a child: the kernel has named it by the number of the descriptor that it was executed from.
            rustix::thread::set_name(c"tidegate").map_err(io::Error::from)?;
            return Ok(Some(Self::Successor(Box::new(TakenOver::of(inherited)?))));
        }
        Child::of(inherited).map(|child| Some(Self::Child(child)))
    }
}

/// This process, when it is a child of a master.
///
/// ```no_run
/// use std::os::fd::OwnedFd;
/// use tidegate_process::{Child, ChildEvent};
///
/// # fn accept_from(_: &[(String, OwnedFd)]) {}
/// # fn let_go() {}
/// fn serve(mut child: Child) -> std::io::Result<()> {
///     accept_from(&child.take_fds_with_prefix("listen:"));
///     child.ready()?;
///     loop {
///         match child.wait_event(None)? {
///             Some(ChildEvent::Ping) => child.pong()?,
///             Some(ChildEvent::Cover { fds, .. }) => accept_from(&fds),
///             Some(ChildEvent::Stop) => return Ok(()),
///             Some(ChildEvent::Quit(_) | ChildEvent::MasterGone) => let_go(),
///             _ => {}
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Child {
    role: Role,
    seat: u32,
    fds: Vec<(String, OwnedFd)>,
    /// None once the master has gone, and that was told.
    channel: Option<Channel>,
    signals: Signals,
    wake: Arc<OwnedFd>,
    /// What came behind the first words.
    put_back: Option<ChildEvent>,
}

/// What a child is told.
#[derive(Debug)]
pub enum ChildEvent {
    /// Accept nothing more, finish what is in flight, and end.
    Quit(Within),
    /// End at once.
    Stop,
    /// Open the log files again.
    Reopen,
    /// The master has ended without telling. Stop accepting, finish what is in flight, and end within the shutdown
    /// timeout. Told once.
    MasterGone,
    /// A [`ChildWaker`] was used.
    Woken,
    /// Say by [`Child::pong`] that everything here makes progress; say nothing when it does not.
    Ping,
    /// A neighbour is absent: accept from its descriptors, too.
    Cover {
        /// The neighbour.
        slot: u32,
        /// Its descriptors, named as if they had been inherited.
        fds: Vec<(String, OwnedFd)>,
    },
    /// The neighbour is back: take what waits at its descriptors, and let go of them.
    Uncover {
        /// The neighbour.
        slot: u32,
    },
    /// Accept nothing until [`ChildEvent::Resume`].
    Pause,
    /// Accept again.
    Resume,
    /// A question, to be answered by [`Child::answer`].
    Ask {
        /// Which.
        ticket: u64,
        /// The question.
        text: String,
    },
}

/// How long what is in flight may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// This long.
    Time(Duration),
    /// Others have taken over: who has nothing in flight may stay this long, or as long as it likes.
    Drain(Option<Duration>),
    /// As long as the configuration says; it came as a signal.
    Configured,
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
    /// What the image before handed over cannot be used.
    #[error("what the program before handed over cannot be used")]
    TakeOver(#[from] TakeOverError),
    /// A call of the system failed.
    #[error("preparing the child")]
    Io(#[from] io::Error),
}

impl Child {
    fn of(inherited: Inherited) -> Result<Self, ChildError> {
        let (role, seat) = without_seat(&inherited.role);
        let role = role.ok_or(ChildError::Role(inherited.role))?;
        let mut fds = inherited.fds;
        let control = take(&mut fds, CONTROL_FD).ok_or(ChildError::NoChannel)?;
        let signals = Signals::block()?;
        // After exec from a descriptor the kernel calls a process by the number of it.
        rustix::thread::set_name(c"tidegate").map_err(io::Error::from)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let channel = Some(Channel::from_fd(control)?);
        Ok(Self { role, seat, fds, channel, signals, wake: Arc::new(wake), put_back: None })
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Which of the processes with its role in its generation it is: 0, or 1 for one that replaces another.
    #[must_use]
    pub fn seat(&self) -> u32 {
        self.seat
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

    /// Tells the master, for the status, what this child is at; cut at 4 KiB.
    ///
    /// # Errors
    ///
    /// As for [`Child::ready`].
    pub fn status(&self, text: &str) -> io::Result<()> {
        self.tell(&ToMaster::Status(text.to_owned()))
    }

    /// Tells the master that everything here makes progress.
    ///
    /// # Errors
    ///
    /// As for [`Child::ready`].
    pub fn pong(&self) -> io::Result<()> {
        self.tell(&ToMaster::Pong)
    }

    /// Tells the master, for people, why this child is about to end; cut at 4 KiB.
    ///
    /// # Errors
    ///
    /// As for [`Child::ready`].
    pub fn failed(&self, why: &str) -> io::Result<()> {
        self.tell(&ToMaster::Failed(why.to_owned()))
    }

    /// Answers a question.
    ///
    /// # Errors
    ///
    /// As for [`Child::ready`], and that of making the memory file.
    pub fn answer(&self, ticket: u64, answer: &[u8]) -> io::Result<()> {
        let file = sealed_bytes("tidegate-answer", answer)?;
        let channel = self.channel.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        channel.send_with(&ToMaster::Answer { ticket }, &[file.as_fd()])
    }

    /// A handle by which another thread ends a [`Child::wait_event`], for example when the work is done.
    #[must_use]
    pub fn waker(&self) -> ChildWaker {
        ChildWaker(Arc::clone(&self.wake))
    }

    /// Waits until the child is told something, but no longer than `timeout`; `None` when that has passed.
    ///
    /// It must be called by the thread that called [`Part::from_env`] or by one that was started later. The same can be
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

    /// What was said to all processes before this one was started, as [`ChildEvent::Ask`] would bring it later: the words
    /// of [`MasterHooks::first_words`](crate::MasterHooks::first_words). To be asked for before anything else is; who does
    /// not ask gets them as events.
    ///
    /// # Errors
    ///
    /// The kernel's, when the control channel cannot be read.
    pub fn first_words(&mut self) -> io::Result<Vec<String>> {
        let mut words = Vec::new();
        while self.put_back.is_none() {
            match self.next_message()? {
                Some(ChildEvent::Ask { ticket: FIRST_WORD, text }) => words.push(text),
                Some(other) => self.put_back = Some(other),
                None => break,
            }
        }
        Ok(words)
    }

    /// What has been told already. The control channel first: it says more than a signal that means the same.
    fn next_event(&mut self) -> io::Result<Option<ChildEvent>> {
        if let Some(event) = self.put_back.take() {
            return Ok(Some(event));
        }
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
        let mut fds = Vec::new();
        while let Some(channel) = &self.channel {
            let message = match channel.recv(&mut fds)? {
                Received::Message(message) => message,
                Received::Invalid(error) => {
                    tracing::warn!(%error, "message of the master is not understood");
                    continue;
                }
                Received::Empty => break,
                Received::Closed => {
                    self.channel = None;
                    return Ok(Some(ChildEvent::MasterGone));
                }
            };
            return Ok(Some(match message {
                ToChild::Stop => ChildEvent::Stop,
                ToChild::Quit { timeout, drain: true } => ChildEvent::Quit(Within::Drain(timeout)),
                ToChild::Quit { timeout, drain: false } => {
                    ChildEvent::Quit(timeout.map_or(Within::Configured, Within::Time))
                }
                ToChild::Reopen => ChildEvent::Reopen,
                ToChild::Ping => ChildEvent::Ping,
                ToChild::Cover { slot, names } => {
                    ChildEvent::Cover { slot, fds: names.into_iter().zip(fds).collect() }
                }
                ToChild::Uncover { slot } => ChildEvent::Uncover { slot },
                ToChild::Pause => ChildEvent::Pause,
                ToChild::Resume => ChildEvent::Resume,
                ToChild::Ask { ticket, text } => ChildEvent::Ask { ticket, text },
            }));
        }
        Ok(None)
    }

    /// What a signal means to this child; `None` when it is ignored, or left to the master.
    fn event_of(&self, signal: Signal) -> Option<ChildEvent> {
        let event = match signal {
            Signal::USR1 => return Some(ChildEvent::Reopen),
            Signal::TERM => ChildEvent::Stop,
            Signal::QUIT => ChildEvent::Quit(Within::Configured),
            _ => return None,
        };
        // A signal to the whole group must not end the log server before those that still log, nor a worker before its
        // acceptor, and a worker that was signalled alone needs a neighbour that accepts in its place: so the master, which
        // knows whether it was signalled too, decides. Without a master the signal is obeyed.
        let leaves_to_master = match self.role {
            Role::LogServer => true,
            Role::Worker(_) => signal == Signal::QUIT,
            Role::Acceptor | Role::Process(_) | Role::Probe => false,
        };
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

/// A role and a seat, as they stand in the environment of a child.
pub(crate) fn with_seat(role: Role, seat: u32) -> String {
    format!("{role}/{seat}")
}

fn without_seat(text: &str) -> (Option<Role>, u32) {
    match text.split_once('/') {
        Some((role, seat)) => {
            (Role::parse(role).filter(|_| seat.parse::<u32>().is_ok()), seat.parse().unwrap_or(0))
        }
        None => (Role::parse(text), 0),
    }
}

fn take(fds: &mut Vec<(String, OwnedFd)>, name: &str) -> Option<OwnedFd> {
    let index = fds.iter().position(|(known, _)| known == name)?;
    Some(fds.remove(index).1)
}

/// The name of the descriptor of the control channel.
pub(crate) const CONTROL_FD: &str = "control";
