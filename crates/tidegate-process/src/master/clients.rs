//! The clients of the control socket, served between everything else.
//!
//! The one invariant: no client makes the master wait. Streams do not block, each client has a deadline for its request
//! and one for its answer, and there are at most [`MAX_CLIENTS`]; more wait in the backlog. The answers are given by the
//! hooks.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::PollFlags;
use tidegate_timer::Instant;

use crate::control_socket::{ControlSocket, MAX_REQUEST_BYTES};

/// The control socket and those who ask there.
#[derive(Debug)]
pub(crate) struct Clients {
    socket: ControlSocket,
    clients: Vec<Client>,
    /// After a failed accept nobody is accepted until then, so that a lack of descriptors is not a busy loop.
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    pid: i32,
    state: State,
    deadline: Instant,
}

#[derive(Debug)]
enum State {
    Reading {
        request: Vec<u8>,
    },
    /// A request was handed to the master, which answers in the same turn.
    Asked,
    Writing {
        answer: Vec<u8>,
        written: usize,
    },
    Done,
}

/// What became ready: the listener, or the client of a number that is good until [`Clients::sweep`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    Listener,
    Client(usize),
}

impl Clients {
    pub(crate) fn new(socket: ControlSocket) -> Self {
        Self { socket, clients: Vec::new(), paused_until: None }
    }

    /// What is to be polled, and for what.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>, PollFlags)> {
        let has_room = self.clients.len() < MAX_CLIENTS && self.paused_until.is_none();
        let listener = has_room.then(|| (Ready::Listener, self.socket.as_fd(), PollFlags::IN));
        let clients = self.clients.iter().enumerate().map(|(index, client)| {
            let flags = match client.state {
                State::Reading { .. } | State::Asked | State::Done => PollFlags::IN,
                State::Writing { .. } => PollFlags::OUT,
            };
            (Ready::Client(index), client.stream.as_fd(), flags)
        });
        listener.into_iter().chain(clients)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.clients.iter().map(|client| client.deadline).chain(self.paused_until).min()
    }

    /// Does what became possible; gives back a request that is complete, to be answered by [`Clients::answer`].
    pub(crate) fn on_ready(&mut self, ready: Ready, now: Instant) -> Option<Vec<u8>> {
        match ready {
            Ready::Listener => {
                self.accept(now);
                None
            }
            Ready::Client(index) => self.clients.get_mut(index).and_then(Client::on_ready),
        }
    }

    /// Answers the client whose request was given back.
    pub(crate) fn answer(&mut self, ready: Ready, answer: Vec<u8>, now: Instant) {
        if let Ready::Client(index) = ready
            && let Some(client) = self.clients.get_mut(index)
        {
            client.state = State::Writing { answer, written: 0 };
            client.deadline = now + TIME_PER_STEP;
            client.write();
        }
    }

    /// Lets those go who are done or too slow. The numbers of the others change.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.clients.retain(|client| {
            let is_late = client.deadline <= now;
            if is_late && !matches!(client.state, State::Done) {
                tracing::warn!(peer_pid = client.pid, "control client is too slow and is let go");
            }
            !is_late && !matches!(client.state, State::Done)
        });
    }

    fn accept(&mut self, now: Instant) {
        while self.clients.len() < MAX_CLIENTS {
            match self.socket.accept() {
                Ok(Some((stream, pid))) => {
                    let state = State::Reading { request: Vec::new() };
                    self.clients.push(Client { stream, pid, state, deadline: now + TIME_PER_STEP });
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "control client cannot be accepted");
                    self.paused_until = Some(now + PAUSE_AFTER_ERROR);
                    return;
                }
            }
        }
    }
}

impl Client {
    fn on_ready(&mut self) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Reading { .. } => self.read(),
            State::Writing { .. } => {
                self.write();
                None
            }
            State::Asked | State::Done => None,
        }
    }

    /// Reads on; gives the request back when its line has ended.
    fn read(&mut self) -> Option<Vec<u8>> {
        let State::Reading { request } = &mut self.state else { return None };
        let mut part = [0; MAX_REQUEST_BYTES + 1];
        loop {
            match self.stream.read(&mut part) {
                // Without the end of its line a request may have been cut off.
                Ok(0) => break self.give_up("ended within its request"),
                Ok(read) => request.extend_from_slice(&part[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break self.give_up("is gone"),
            }
            let end = request.iter().position(|byte| *byte == b'\n');
            if end.unwrap_or(request.len()) > MAX_REQUEST_BYTES {
                break self.give_up("sent too long a request");
            }
            if let Some(end) = end {
                let mut request = std::mem::take(request);
                request.truncate(end);
                self.state = State::Asked;
                return Some(request);
            }
        }
    }

    fn write(&mut self) {
        while let State::Writing { answer, written } = &mut self.state {
            if *written == answer.len() {
                self.state = State::Done;
                return;
            }
            match self.stream.write(&answer[*written..]) {
                Ok(count) => *written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.give_up("went before its answer was sent");
                }
            }
        }
    }

    fn give_up(&mut self, what: &str) -> Option<Vec<u8>> {
        tracing::debug!(peer_pid = self.pid, "control client {what}");
        self.state = State::Done;
        None
    }
}

const MAX_CLIENTS: usize = 16;
/// For the request, and again for the answer.
const TIME_PER_STEP: Duration = Duration::from_secs(5);
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);
