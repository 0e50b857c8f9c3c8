//! The processes of the children, and the calls that start, tell and reap them.
//!
//! The one invariant: a process is known by its pidfd from its start until it is reaped, so no call reaches another one.
//! Nothing is decided here.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tidegate_sys::process::{Credentials, Exe, ExitStatus, Process, Spawn, SpawnError};
use tidegate_sys::signal::Signal;

use super::plan::ChildSpec;
use crate::child::{CONTROL_FD, with_seat};
use crate::control::{Channel, FIRST_WORD, MAX_FDS, Received, ToChild, ToMaster};
use crate::role::Role;
use crate::signals::Signals;

/// The process of a child.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) role: Role,
    pub(crate) generation: u32,
    pub(crate) title: String,
    /// Which of the processes with its role in its generation it is: 1 for one that replaces another.
    pub(crate) seat: u32,
    pub(crate) process: Process,
    /// None once the child has closed its end.
    pub(crate) channel: Option<Channel>,
    /// What it last said it is at.
    pub(crate) status: String,
    /// Why it is about to end, as it said.
    pub(crate) failed: Option<String>,
}

/// How a child is started.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) exe: &'a Exe,
    pub(crate) args: &'a [OsString],
    pub(crate) user: Option<&'a Credentials>,
    pub(crate) generation: u32,
    pub(crate) seat: u32,
    /// What it is to know before it begins: see [`Child::first_words`](crate::Child::first_words).
    pub(crate) first_words: &'a [String],
}

/// Why a child could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("control channel")]
    Channel(#[source] io::Error),
    #[error("no plan has a child of the role {0}")]
    NoSpec(Role),
    #[error("{0}")]
    Probe(String),
    #[error("opening the program")]
    Program(#[source] io::Error),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl Running {
    /// Starts the process of a child.
    pub(crate) fn start(spec: &ChildSpec, how: &Start<'_>) -> Result<Self, StartError> {
        let (channel, theirs) = Channel::pair().map_err(StartError::Channel)?;
        // There before the child is: it knows them before it does anything.
        for text in how.first_words {
            let word = ToChild::Ask { ticket: FIRST_WORD, text: text.clone() };
            if let Err(error) = channel.send(&word) {
                tracing::warn!(role = %spec.role, %error, text, "a child cannot be told what was said before");
            }
        }
        let mut spawn = Spawn::new(how.exe, spec.title.as_str(), with_seat(spec.role, how.seat))
            .args(how.args)
            .fd(CONTROL_FD, theirs.as_fd())
            // Blocked from its first moment, and read when it is ready to: what arrives meanwhile is not lost.
            .mask(Signals::set());
        if let Some(user) = how.user {
            spawn = spawn.user(user);
        }
        for (name, fd) in &spec.fds {
            spawn = spawn.fd(name, fd.as_fd());
        }
        for (key, value) in &spec.env {
            spawn = spawn.env(key, value);
        }
        Ok(Self {
            role: spec.role,
            generation: how.generation,
            title: spec.title.clone(),
            seat: how.seat,
            process: spawn.start()?,
            channel: Some(channel),
            status: String::new(),
            failed: None,
        })
    }

    /// The next message of the child, with its descriptors; the end of its channel is noted, and is no message.
    pub(crate) fn next_message(&mut self) -> Option<(ToMaster, Vec<OwnedFd>)> {
        let mut fds = Vec::new();
        loop {
            match self.channel.as_ref()?.recv(&mut fds) {
                Ok(Received::Message(message)) => return Some((message, fds)),
                Ok(Received::Invalid(error)) => {
                    tracing::warn!(role = %self.role, %error, "message of a child is not understood");
                }
                Ok(Received::Empty) => return None,
                Ok(Received::Closed) => self.channel = None,
                Err(error) => {
                    tracing::warn!(role = %self.role, %error, "control channel of a child failed");
                    self.channel = None;
                }
            }
        }
    }

    /// Tells the child something; by a signal of the same meaning, if there is one, when its channel does not take it.
    pub(crate) fn tell(&self, message: &ToChild) {
        let Err(error) = self.send(message, &[]) else { return };
        let signal = match message {
            ToChild::Stop => Some(Signal::TERM),
            ToChild::Quit { .. } => Some(Signal::QUIT),
            ToChild::Reopen => Some(Signal::USR1),
            _ => None,
        };
        match signal {
            Some(signal) => {
                tracing::warn!(role = %self.role, %error, "control channel does not take a message, a signal is sent");
                self.signal(signal);
            }
            // A ping that is not sent is one that is not answered; the others are asked for again, or run out of time.
            None => {
                tracing::debug!(role = %self.role, %error, ?message, "control channel does not take a message")
            }
        }
    }

    /// Hands the descriptors of an absent neighbour over, in as many messages as they take.
    pub(crate) fn cover(&self, slot: u32, fds: &[(String, Arc<OwnedFd>)]) {
        for part in fds.chunks(MAX_FDS) {
            let names = part.iter().map(|(name, _)| name.clone()).collect();
            let fds: Vec<BorrowedFd<'_>> = part.iter().map(|(_, fd)| fd.as_fd()).collect();
            if let Err(error) = self.send(&ToChild::Cover { slot, names }, &fds) {
                tracing::warn!(role = %self.role, slot, %error, "a neighbour cannot be told to accept for another");
                return;
            }
        }
    }

    fn send(&self, message: &ToChild, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match &self.channel {
            Some(channel) => channel.send_with(message, fds),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = self.process.signal(signal) {
            tracing::error!(role = %self.role, pid = self.process.pid(), %error, "child cannot be signalled");
        }
    }

    /// Reaps the process if it has ended.
    pub(crate) fn reap(&self) -> Option<ExitStatus> {
        match self.process.try_wait() {
            Ok(status) => status,
            Err(error) => {
                // Somebody else reaped it; that it has ended is certain, how it did is not known.
                tracing::error!(role = %self.role, pid = self.process.pid(), %error, "exit status is lost");
                Some(ExitStatus::Code(u8::MAX))
            }
        }
    }
}
