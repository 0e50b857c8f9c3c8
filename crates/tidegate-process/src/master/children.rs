//! The processes of the children, and the calls that start, tell and reap them.
//!
//! The one invariant: a process is known by its pidfd from its start until it is reaped, so no call reaches another one.
//! Nothing is decided here.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tidegate_sys::process::{Exe, ExitStatus, Process, Spawn, SpawnError};
use tidegate_sys::signal::Signal;

use crate::child::CONTROL_FD;
use crate::control::{Channel, Received, ToChild, ToMaster};
use crate::role::Role;
use crate::signals::Signals;

/// A child that the master keeps.
#[derive(Clone, Debug)]
pub struct ChildSpec {
    /// What it is for.
    pub role: Role,
    /// Its name in the list of processes.
    pub title: String,
    /// The generation of the configuration that it serves, for the status.
    pub generation: u32,
    /// What it inherits, by name: letters, digits, `:`, `.`, `-` and `_`; the name `control` is the master's own.
    pub fds: Vec<(String, Arc<OwnedFd>)>,
    /// What is added to its environment.
    pub env: Vec<(OsString, OsString)>,
}

impl ChildSpec {
    /// A child with the title of its role, of the first generation, that inherits nothing.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, title: role.title(), generation: 1, fds: Vec::new(), env: Vec::new() }
    }

    /// Adds a descriptor that the child inherits.
    #[must_use]
    pub fn fd(mut self, name: impl Into<String>, fd: Arc<OwnedFd>) -> Self {
        self.fds.push((name.into(), fd));
        self
    }
}

/// A child and its process, while it has one.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) spec: ChildSpec,
    pub(crate) running: Option<Running>,
    /// What it last said it is at.
    pub(crate) status: String,
}

/// The process of a child.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    /// None once the child has closed its end.
    pub(crate) channel: Option<Channel>,
}

/// Why a child could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("control channel")]
    Channel(#[source] io::Error),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

impl Kept {
    pub(crate) fn new(spec: ChildSpec) -> Self {
        Self { spec, running: None, status: String::new() }
    }

    /// Starts the process, and returns its pid.
    pub(crate) fn start(&mut self, exe: &Exe, args: &[OsString]) -> Result<u32, StartError> {
        let (channel, theirs) = Channel::pair().map_err(StartError::Channel)?;
        let mut spawn = Spawn::new(exe, self.spec.title.as_str(), self.spec.role.to_string())
            .args(args)
            .fd(CONTROL_FD, theirs.as_fd())
            // Blocked from its first moment, and read when it is ready to: what arrives meanwhile is not lost.
            .mask(Signals::set());
        for (name, fd) in &self.spec.fds {
            spawn = spawn.fd(name, fd.as_fd());
        }
        for (key, value) in &self.spec.env {
            spawn = spawn.env(key, value);
        }
        let process = spawn.start()?;
        let pid = process.pid();
        self.status.clear();
        self.running = Some(Running { process, channel: Some(channel) });
        Ok(pid)
    }

    /// The next message of the child; the end of its channel is noted, and is no message.
    pub(crate) fn next_message(&mut self) -> Option<ToMaster> {
        let running = self.running.as_mut()?;
        loop {
            match running.channel.as_ref()?.recv() {
                Ok(Received::Message(message)) => return Some(message),
                Ok(Received::Invalid(error)) => {
                    tracing::warn!(role = %self.spec.role, %error, "message of a child is not understood");
                }
                Ok(Received::Empty) => return None,
                Ok(Received::Closed) => running.channel = None,
                Err(error) => {
                    tracing::warn!(role = %self.spec.role, %error, "control channel of a child failed");
                    running.channel = None;
                }
            }
        }
    }

    /// Tells the child something; by a signal of the same meaning when its channel does not take it.
    pub(crate) fn tell(&self, message: ToChild) {
        let Some(running) = &self.running else { return };
        let sent = match &running.channel {
            Some(channel) => channel.send(&message),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if let Err(error) = sent {
            tracing::warn!(role = %self.spec.role, %error, "control channel does not take a message, a signal is sent");
            self.signal(match message {
                ToChild::Stop => Signal::TERM,
                ToChild::Quit { .. } => Signal::QUIT,
                ToChild::Reopen => Signal::USR1,
            });
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let Some(running) = &self.running else { return };
        if let Err(error) = running.process.signal(signal) {
            tracing::error!(role = %self.spec.role, pid = running.process.pid(), %error, "child cannot be signalled");
        }
    }

    /// Reaps the process if it has ended.
    pub(crate) fn reap(&mut self) -> Option<ExitStatus> {
        let running = self.running.as_ref()?;
        match running.process.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => {
                self.running = None;
                Some(status)
            }
            Err(error) => {
                // Somebody else reaped it; that it has ended is certain, how it did is not known.
                tracing::error!(role = %self.spec.role, pid = running.process.pid(), %error, "exit status is lost");
                self.running = None;
                Some(ExitStatus::Code(u8::MAX))
            }
        }
    }
}
