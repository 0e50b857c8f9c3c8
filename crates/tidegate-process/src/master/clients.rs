//! The clients of the control socket, served between everything else.
//!
//! The one invariant: no client makes the master wait. Streams do not block, each client has a deadline for its request
//! and one for its answer, and there are at most [`MAX_CLIENTS`]; more wait in the backlog. A client whose request begins
//! something is answered when that has ended. The answers are given by the hooks.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::PollFlags;
use tidegate_timer::Instant;

use super::frozen::Talk;
use crate::control_socket::{ControlSocket, MAX_REQUEST_BYTES};

/// The control socket and those who ask there.
#[derive(Debug)]
pub(crate) struct Clients {
    socket: ControlSocket,
    clients: Vec<Client>,
    next_id: u64,
    /// After a failed accept nobody is accepted until then, so that a lack of descriptors is not a busy loop.
    paused_until: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    id: ClientId,
    stream: UnixStream,
    pid: i32,
    state: State,
    /// None while it is the master that the client waits for.
    deadline: Option<Instant>,
}

/// A client, for as long as it is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ClientId(u64);

#[derive(Debug)]
enum State {
    Reading {
        request: Vec<u8>,
    },
    /// A request was handed to the master.
    Asked,
    Writing {
        answer: Vec<u8>,
        written: usize,
    },
    Done,
}

/// What became ready.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    Listener,
    Client(ClientId),
}

impl Clients {
    pub(crate) fn new(socket: ControlSocket) -> Self {
        Self { socket, clients: Vec::new(), next_id: 0, paused_until: None }
    }

    pub(crate) fn socket(&self) -> &ControlSocket {
        &self.socket
    }

    /// The connection of a client that waits, to be handed on.
    pub(crate) fn stream(&self, id: ClientId) -> Option<&UnixStream> {
        self.clients.iter().find(|client| client.id == id).map(|client| &client.stream)
    }

    /// Takes over a client that waits for an answer.
    pub(crate) fn resume(&mut self, fd: OwnedFd) -> ClientId {
        self.add(fd.into(), 0, State::Asked, None)
    }

    /// Takes over a client as [`talks`](Self::talks) has left it; gives its request back if that is to be answered.
    pub(crate) fn resume_talk(
        &mut self,
        fd: OwnedFd,
        talk: Talk,
        now: Instant,
    ) -> Option<(ClientId, Vec<u8>)> {
        let deadline = Some(now + TIME_PER_STEP);
        match talk {
            Talk::Read(request) => self.add(fd.into(), 0, State::Reading { request }, deadline),
            Talk::Write(answer) => self.add(fd.into(), 0, State::Writing { answer, written: 0 }, deadline),
            Talk::Answer(request) => return Some((self.resume(fd), request)),
        };
        None
    }

    /// What is to be done for the clients, for another image. `asked` is what those asked who wait for an answer; for others
    /// who wait there is nothing.
    pub(crate) fn talks<'a>(
        &'a self,
        asked: impl Fn(ClientId) -> Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a UnixStream, Talk)> {
        self.clients.iter().filter_map(move |client| {
            let talk = match &client.state {
                State::Reading { request } => Talk::Read(request.clone()),
                State::Asked => Talk::Answer(asked(client.id)?.to_owned()),
                State::Writing { answer, written } => Talk::Write(answer[*written..].to_owned()),
                State::Done => return None,
            };
            Some((&client.stream, talk))
        })
    }

    fn add(&mut self, stream: UnixStream, pid: i32, state: State, deadline: Option<Instant>) -> ClientId {
        let id = ClientId(self.next_id);
        self.next_id += 1;
        self.clients.push(Client { id, stream, pid, state, deadline });
        id
    }

    /// What is to be polled, and for what.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (Ready, BorrowedFd<'_>, PollFlags)> {
        let has_room = self.clients.len() < MAX_CLIENTS && self.paused_until.is_none();
        let listener = has_room.then(|| (Ready::Listener, self.socket.as_fd(), PollFlags::IN));
        let clients = self.clients.iter().map(|client| {
            let flags = match client.state {
                State::Reading { .. } | State::Done => PollFlags::IN,
                // Only that it has gone; what it says besides its request does not matter.
                State::Asked => PollFlags::empty(),
                State::Writing { .. } => PollFlags::OUT,
            };
            (Ready::Client(client.id), client.stream.as_fd(), flags)
        });
        listener.into_iter().chain(clients)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.clients.iter().filter_map(|client| client.deadline).chain(self.paused_until).min()
    }

    /// Does what became possible; gives back a request that is complete, to be answered by [`Clients::answer`], now or
    /// later.
    pub(crate) fn on_ready(&mut self, ready: Ready, now: Instant) -> Option<(ClientId, Vec<u8>)> {
        match ready {
            Ready::Listener => {
                self.accept(now);
                None
            }
            Ready::Client(id) => {
                let client = self.clients.iter_mut().find(|client| client.id == id)?;
                client.on_ready().map(|request| (id, request))
            }
        }
    }

    /// Answers a client whose request was given back, unless it has gone meanwhile.
    pub(crate) fn answer(&mut self, id: ClientId, answer: Vec<u8>, now: Instant) {
        if let Some(client) = self.clients.iter_mut().find(|client| client.id == id) {
            client.state = State::Writing { answer, written: 0 };
            client.deadline = Some(now + TIME_PER_STEP);
            client.write();
        }
    }

    /// Lets those go who are done or too slow.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.clients.retain(|client| {
            let is_late = client.deadline.is_some_and(|deadline| deadline <= now);
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
                    self.add(stream, pid, state, Some(now + TIME_PER_STEP));
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
            // It hung up, and nobody waits any more.
            State::Asked => self.give_up("went before it was answered"),
            State::Done => None,
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
                self.deadline = None;
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
