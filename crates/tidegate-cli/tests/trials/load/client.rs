//! `Client`: one client of the load, its connection and how far its request is.
//!
//! ```text
//!  Away ──connect──▶ Connecting ──▶ Idle ──ask──▶ Asking ──answered──▶ Idle      kept
//!   ▲                                                 └────answered──▶ Ending    everyone else
//!   └── the connection has ended, orderly or by a failure, which is recorded ◀──┘
//! ```
//!
//! Invariant: `wake` is when it wants to act by itself. Its socket is registered edge-triggered once, so it is read up to
//! `EAGAIN` or the end that the event told of; a slow reader looks again at its next step in any case.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socket_with, sockopt};

use super::answer::{Answer, End, Expected, Progress};
use super::tally::{Failure, Kind, Tally};

/// What all clients share in a turn.
pub(super) struct Turn<'a> {
    pub(super) epoll: &'a OwnedFd,
    pub(super) begin: Instant,
    pub(super) now: Instant,
    /// What is under way is finished at once, and nothing new begins.
    pub(super) draining: bool,
    pub(super) tally: &'a mut Tally,
    pub(super) scratch: &'a mut [u8],
    /// Clients that have been served once; the slow ones do not count.
    pub(super) warm: &'a mut usize,
}

/// What one client does for ever.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) kind: Kind,
    pub(super) to: SocketAddr,
    pub(super) request: &'static [u8],
    pub(super) expected: Expected,
    /// Between an answer and the next request, on average; `None`: only at the beginning and at the end.
    pub(super) pause: Option<Duration>,
    /// It asks no more when its connection has ended as it should.
    pub(super) once: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away,
    Connecting,
    Idle,
    Asking,
    /// Answered; the server is to end it.
    Ending,
    Done,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    index: u64,
    script: Script,
    state: State,
    socket: Option<OwnedFd>,
    port: u16,
    /// When it acts by itself.
    pub(super) wake: Option<Instant>,
    written: usize,
    answer: Answer,
    /// Answers on this connection.
    served: u64,
    is_warm: bool,
    /// The last request before the end has been asked.
    said_goodbye: bool,
    /// When what is under way began, for the latency and the patience.
    since: Instant,
    random: u64,
}

/// Between the bytes of a slow request, and the pieces of an answer that is read slowly.
const SLOW_STEP: Duration = Duration::from_millis(40);
const SLOW_PIECE: usize = 48 << 10;
/// Without an answer for so long a request has failed.
const PATIENCE: Duration = Duration::from_secs(10);
const SLOW_PATIENCE: Duration = Duration::from_secs(60);
const AFTER_FAILURE: Duration = Duration::from_millis(20);
/// Clients begin within this time, so that they do not come at once for ever.
const START_SPREAD: Duration = Duration::from_millis(200);

impl Client {
    pub(super) fn new(index: usize, script: Script, now: Instant) -> Self {
        let answer = Answer::new(script.expected.clone());
        let mut client = Self {
            index: index as u64,
            script,
            state: State::Away,
            socket: None,
            port: 0,
            wake: None,
            written: 0,
            answer,
            served: 0,
            is_warm: false,
            said_goodbye: false,
            since: now,
            random: 0x9e37_79b9_7f4a_7c15 ^ (index as u64 + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9),
        };
        client.wake = Some(now + client.around(START_SPREAD / 2));
        client
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The socket has an event, or the time to act has come.
    pub(super) fn drive(&mut self, turn: &mut Turn<'_>, flags: Option<EventFlags>) {
        let is_due = self.wake.is_some_and(|wake| wake <= turn.now);
        if is_due {
            self.wake = None;
        }
        match self.state {
            State::Away if turn.draining => self.state = State::Done,
            State::Away if is_due => self.connect(turn),
            State::Connecting => {
                self.connected(turn, flags);
                // A server without room may have said so already, and what an event tells of is told once.
                let has_more =
                    flags.is_some_and(|flags| flags.intersects(EventFlags::IN | EventFlags::RDHUP));
                if self.state == State::Asking && has_more {
                    self.read(turn, flags);
                }
            }
            State::Idle if is_due => self.ask(turn),
            State::Idle => self.read(turn, flags),
            State::Asking => {
                self.write(turn, is_due || flags.is_none());
                if self.state == State::Asking && self.may_read(is_due, turn.draining) {
                    self.read(turn, flags);
                }
            }
            State::Ending => self.read(turn, flags),
            State::Away | State::Done => {}
        }
    }

    /// Everything new ends here: what is idle asks a last time if it is to stay for good, and is done otherwise.
    pub(super) fn drain(&mut self, turn: &mut Turn<'_>) {
        match (self.state, self.script.kind) {
            (State::Away, _) | (State::Idle, Kind::Keep) => self.end(State::Done),
            (State::Idle, Kind::Gateway) if !self.said_goodbye => {
                self.said_goodbye = true;
                self.ask(turn);
            }
            (State::Idle, Kind::Gateway) => self.end(State::Done),
            _ => self.drive(turn, None),
        }
    }

    /// Whatever takes too long has failed.
    pub(super) fn check_patience(&mut self, turn: &mut Turn<'_>) {
        let patience = if self.script.kind.is_slow() { SLOW_PATIENCE } else { PATIENCE };
        let waited = turn.now.saturating_duration_since(self.since);
        if matches!(self.state, State::Connecting | State::Asking | State::Ending) && waited > patience {
            let state = self.state;
            self.fail(turn, format!("{state:?} for {waited:.1?}"), None);
        }
    }

    /// The load has ended while something was under way.
    pub(super) fn give_up(&mut self, turn: &mut Turn<'_>) {
        let state = self.state;
        if state != State::Done {
            self.fail(turn, format!("{state:?} when the load ended"), None);
        }
    }

    fn connect(&mut self, turn: &mut Turn<'_>) {
        self.since = turn.now;
        (self.served, self.written) = (0, 0);
        match self.open(turn) {
            Ok(socket) => {
                self.socket = Some(socket);
                self.state = State::Connecting;
                turn.tally.connections += 1;
            }
            Err(errno) => self.fail(turn, "connecting".to_owned(), Some(errno)),
        }
    }

    fn open(&self, turn: &Turn<'_>) -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if self.script.kind == Kind::SlowRead {
            // Or the whole answer would be in the kernel at once.
            sockopt::set_socket_recv_buffer_size(&socket, SLOW_PIECE)?;
        }
        match rustix::net::connect(&socket, &self.script.to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(turn.epoll, &socket, EventData::new_u64(self.index), flags)?;
        Ok(socket)
    }

    fn connected(&mut self, turn: &mut Turn<'_>, flags: Option<EventFlags>) {
        let (Some(socket), Some(flags)) = (&self.socket, flags) else { return };
        match sockopt::socket_error(socket) {
            Ok(Ok(())) if flags.contains(EventFlags::OUT) => {
                let address = rustix::net::getsockname(socket).map(SocketAddr::try_from);
                self.port = address.map_or(0, |address| address.map_or(0, |address| address.port()));
                self.begin_request(turn);
            }
            Ok(Ok(())) => {}
            Ok(Err(errno)) | Err(errno) => self.fail(turn, "connecting".to_owned(), Some(errno)),
        }
    }

    /// The next request of a connection that stands.
    fn ask(&mut self, turn: &mut Turn<'_>) {
        // An end that has come already is seen now, and crosses nothing.
        if self.socket.is_some() {
            self.read(turn, None);
        }
        if self.state == State::Idle {
            self.since = turn.now;
            self.begin_request(turn);
        }
    }

    fn begin_request(&mut self, turn: &mut Turn<'_>) {
        self.state = State::Asking;
        self.written = 0;
        self.answer.begin();
        self.write(turn, true);
    }

    fn write(&mut self, turn: &mut Turn<'_>, may_step: bool) {
        let is_slow = self.script.kind == Kind::SlowSend && !turn.draining;
        let rest = &self.script.request[self.written..];
        if rest.is_empty() || (is_slow && !may_step) {
            return;
        }
        let Some(socket) = &self.socket else { return };
        let piece = if is_slow { &rest[..1] } else { rest };
        match rustix::net::send(socket, piece, SendFlags::NOSIGNAL) {
            Ok(sent) => self.written += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => {
                let what = format!("sending byte {} after {} answers", self.written, self.served);
                return self.fail(turn, what, Some(errno));
            }
        }
        let is_stepping = self.script.kind == Kind::SlowRead || self.written < self.script.request.len();
        if is_stepping {
            self.wake = Some(turn.now + SLOW_STEP);
        }
    }

    /// A slow reader reads at its own times only, and in small pieces.
    fn may_read(&self, is_due: bool, draining: bool) -> bool {
        self.script.kind != Kind::SlowRead || is_due || draining
    }

    fn read(&mut self, turn: &mut Turn<'_>, flags: Option<EventFlags>) {
        let is_slow = self.script.kind == Kind::SlowRead && !turn.draining;
        let has_ended =
            flags.is_none_or(|flags| flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR));
        let room = if is_slow { SLOW_PIECE } else { turn.scratch.len() };
        while let Some(socket) = &self.socket {
            let got = match rustix::net::recv(socket, &mut turn.scratch[..room], RecvFlags::empty()) {
                Ok((0, _)) => return self.ended(turn),
                Ok((got, _)) => got,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(errno) => {
                    let what = format!(
                        "{:?}: {} bytes of the answer came, after {} others",
                        self.state,
                        self.answer.received(),
                        self.served
                    );
                    return self.fail(turn, what, Some(errno));
                }
            };
            self.take(turn, got);
            // The end may have been told of while a slow reader did not listen.
            let is_drained = !is_slow && got < room && !has_ended;
            if is_drained || (is_slow && self.state == State::Asking) {
                break;
            }
        }
        if is_slow && self.state == State::Asking {
            self.wake = Some(turn.now + SLOW_STEP);
        }
    }

    fn take(&mut self, turn: &mut Turn<'_>, got: usize) {
        let state = self.state;
        if state != State::Asking {
            return self.fail(turn, format!("{got} bytes that nobody asked for, {state:?}"), None);
        }
        match self.answer.take(&turn.scratch[..got]) {
            Ok(Progress::Partial) => {}
            // A server without room says so before it is asked.
            Ok(Progress::Complete(End::Kept | End::Last)) if self.written < self.script.request.len() => {
                self.fail(turn, format!("an answer to {} bytes of a request", self.written), None);
            }
            Ok(Progress::Complete(end)) => self.answered(turn, end),
            Err(what) => self.fail(turn, what, None),
        }
    }

    fn answered(&mut self, turn: &mut Turn<'_>, end: End) {
        self.served += 1;
        let took = turn.now.saturating_duration_since(self.since);
        let is_slow = self.script.kind.is_slow();
        if !self.is_warm && !is_slow {
            self.is_warm = true;
            *turn.warm += 1;
        }
        if end == End::Overloaded {
            turn.tally.overloaded += 1;
        } else {
            turn.tally.answered(self.script.kind, (!is_slow).then_some(took), turn.now - turn.begin);
        }
        self.wake = None;
        match (self.script.kind, end) {
            (Kind::Keep | Kind::Gateway, End::Kept) => {
                self.state = State::Idle;
                self.wake = self.script.pause.map(|pause| turn.now + self.around(pause));
                if turn.draining {
                    self.drain(turn);
                }
            }
            (Kind::Keep, End::Last) => {
                turn.tally.reconnected += 1;
                self.pause(turn);
            }
            (_, End::Kept) => self.fail(turn, "no Connection: close".to_owned(), None),
            (_, End::Last | End::Overloaded) => {
                self.state = State::Ending;
                self.since = turn.now;
            }
        }
    }

    /// The server has ended the connection in order.
    fn ended(&mut self, turn: &mut Turn<'_>) {
        let received = self.answer.received();
        match (self.state, self.script.kind) {
            (State::Ending, _) => self.pause(turn),
            (State::Idle, Kind::Keep) => {
                turn.tally.reconnected += 1;
                self.reconnect(turn);
            }
            (State::Asking, Kind::Keep) if self.served > 0 && received == 0 => {
                turn.tally.raced += 1;
                self.reconnect(turn);
            }
            (state, _) => {
                let (written, served) = (self.written, self.served);
                let what = format!(
                    "{state:?}: ended after {written} bytes of the request and {received} of the answer, {served} others before"
                );
                self.fail(turn, what, None);
            }
        }
    }

    fn fail(&mut self, turn: &mut Turn<'_>, what: String, errno: Option<Errno>) {
        let at = turn.now - turn.begin;
        let errno = errno.map(Errno::raw_os_error);
        turn.tally.fail(Failure { at, kind: self.script.kind, port: self.port, what, errno });
        self.end(if turn.draining { State::Done } else { State::Away });
        self.wake = (!turn.draining).then(|| turn.now + AFTER_FAILURE);
    }

    /// The connection has ended as it should; the next one comes after a pause.
    fn pause(&mut self, turn: &Turn<'_>) {
        let is_last = turn.draining || self.script.once;
        self.end(if is_last { State::Done } else { State::Away });
        let pause = self.around(self.script.pause.unwrap_or_default());
        self.wake = (!is_last).then(|| turn.now + pause);
    }

    /// The connection has gone, and its request is asked on another at once.
    fn reconnect(&mut self, turn: &mut Turn<'_>) {
        self.end(State::Away);
        if turn.draining && self.script.kind == Kind::Keep {
            self.state = State::Done;
        } else {
            self.connect(turn);
        }
    }

    fn end(&mut self, state: State) {
        // The last descriptor of a socket takes it out of the epoll, see epoll(7).
        self.socket = None;
        self.state = state;
        self.wake = None;
    }

    /// Half of it to one and a half.
    fn around(&mut self, time: Duration) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        time / 2 + time.mul_f64((self.random >> 40) as f64 / (1_u64 << 24) as f64)
    }
}
