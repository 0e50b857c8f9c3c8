//! Outgoing connections inside the simulated kernel, and their targets.
//!
//! ```text
//!   connect ──▶ Connecting ── the target's answer ──▶ reported, some turns later ──▶ Open
//!                    └────────────────────────────────────────────────────────────▶ Closed
//! ```
//!
//! Invariant: what is reported of an attempt is what the target has answered, and nothing is while it is silent.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tidegate_reactor::{Completion, Errno, Target, Token};

use super::dial_plan::{Answer, FIRST_DIAL, FIRST_MEMBER, TargetIs, dial_of};
use super::kernel::{Coming, Kernel};
use super::ledger::Note;
use super::peer::Peer;
use super::plan::Lack;
use super::socket::{Side, Socket};

/// The target of the upstream, and the connections to it that were begun.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) is: TargetIs,
    /// Since when it has been so.
    pub(crate) since: tidegate_engine::Instant,
    pub(crate) begun: u32,
}

impl Kernel {
    /// The loop connects.
    pub(crate) fn dial(&mut self, token: Token, fd: OwnedFd, target: &Target) -> Result<(), Errno> {
        let (conn, answer) = self.begin_dial(target)?;
        if let Answer::AtOnce(errno) = answer {
            return self.fail_dial(conn, errno);
        }
        if let Answer::Full(_) = answer {
            self.ledger.lock().seen.at("the target's queue is full");
            return Err(Errno::AGAIN);
        }
        if let Some(errno) = self.has_lack(|lack| lack == Lack::Watches) {
            return self.fail_dial(conn, errno);
        }
        let plan = Arc::clone(&self.plan);
        let dial = plan.dials.get(conn.wrapping_sub(FIRST_DIAL) as usize);
        let (is_unix, send_buffer) = dial.map_or((false, 20_000), |dial| (dial.is_unix, dial.send_buffer));
        self.claim(conn, token);
        let mut socket = Socket::new(is_unix, send_buffer);
        socket.side = Side::Connecting(token);
        socket.descriptor = Some(fd);
        self.sockets.insert(conn, socket);
        self.say(|| format!("kernel: #{conn} begins to connect to {target}"));
        match answer {
            Answer::Connected(after) => self.at(self.now + after, Coming::Answer(conn, Ok(()))),
            Answer::Refused(after, errno) => self.at(self.now + after, Coming::Answer(conn, Err(errno))),
            Answer::Silence | Answer::AtOnce(_) | Answer::Full(_) => {}
        }
        Ok(())
    }

    /// Which connection it is, and what will come of it.
    fn begin_dial(&mut self, target: &Target) -> Result<(u32, Answer), Errno> {
        let Some(number) = dial_of(target) else {
            let Some(upstream) = &mut self.upstream else { return Err(Errno::BADF) };
            upstream.begun += 1;
            let soon = Duration::from_micros(self.random.below(900));
            let answer = match upstream.is {
                TargetIs::Up | TargetIs::HangingUp => Answer::Connected(soon),
                TargetIs::Refusing => Answer::Refused(soon, Errno::CONNREFUSED),
                TargetIs::Silent => Answer::Silence,
            };
            return Ok((FIRST_MEMBER + upstream.begun, answer));
        };
        let answer = self.plan.dials[number as usize].answer;
        let mut ledger = self.ledger.lock();
        let now = self.now;
        let Some(dial) = ledger.dials.get_mut(&number) else {
            ledger.violated(|| format!("dial {number} was never asked for"));
            return Err(Errno::BADF);
        };
        let begun = *dial.begun_at.get_or_insert(now);
        let answer = match answer {
            Answer::Full(time) if now >= begun + time => Answer::Connected(Duration::from_micros(90)),
            answer => answer,
        };
        dial.is_tried_again = matches!(answer, Answer::Full(_));
        Ok((FIRST_DIAL + number, answer))
    }

    fn fail_dial(&mut self, conn: u32, errno: Errno) -> Result<(), Errno> {
        self.say(|| format!("kernel: #{conn} cannot even begin to connect: {errno}"));
        self.note_failure(conn, errno);
        Err(errno)
    }

    fn note_failure(&self, conn: u32, errno: Errno) {
        if let Some(dial) = self.ledger.lock().dials.get_mut(&conn.wrapping_sub(FIRST_DIAL)) {
            dial.errno = Some(errno);
        }
    }

    /// The target has answered.
    pub(super) fn answered(&mut self, conn: u32, answer: Result<(), Errno>) {
        let plan = Arc::clone(&self.plan);
        let Some(socket) = self.sockets.get_mut(&conn) else { return };
        if !matches!(socket.side, Side::Connecting(_)) || socket.answer.is_some() {
            return;
        }
        socket.answer = Some(answer);
        self.say(|| match answer {
            Ok(()) => format!("target: accepts #{conn}"),
            Err(errno) => format!("target: does not accept #{conn}: {errno}"),
        });
        if answer.is_err() {
            return;
        }
        let dial = plan.dials.get(conn.wrapping_sub(FIRST_DIAL) as usize);
        let peer = dial.map_or_else(
            || Peer::target(conn, 0, None),
            |dial| Peer::target(conn, dial.talk, dial.refusal.filter(|answer| !answer.is_empty())),
        );
        self.peers.insert(conn, peer);
        if conn >= FIRST_MEMBER && self.upstream.as_ref().is_some_and(|it| it.is == TargetIs::HangingUp) {
            self.peer_ends(conn);
        }
        if self.ledger.lock().settling_since.is_some() {
            self.in_us(300, Coming::Turn(conn));
        }
    }

    /// Reports what came of connecting.
    pub(super) fn complete_connect(&mut self, conn: u32) -> Option<Completion> {
        let socket = self.sockets.get_mut(&conn)?;
        let (Side::Connecting(token), Some(answer)) = (socket.side, socket.answer.take()) else {
            return None;
        };
        // Reset by now, it may be told as an error of connecting, or as one of the connection.
        let answer = socket.broken.filter(|_| self.random.chance(50)).map_or(answer, Err);
        match answer {
            Ok(()) => {
                socket.side = Side::Open(token);
                self.say(|| format!("kernel: #{conn} is connected"));
                Some(Completion::Connected(token))
            }
            Err(errno) => {
                self.note_failure(conn, errno);
                self.say(|| format!("kernel: #{conn} is not connected: {errno}"));
                Some(Completion::Failed(token, errno))
            }
        }
    }

    /// The connection has this slot from now on, which has to be free.
    pub(super) fn claim(&mut self, conn: u32, token: Token) {
        let clash = self.tokens.insert((token.slot, token.generation), conn);
        let taken = self.sockets.iter().find(|(_, other)| match other.side {
            Side::Open(other) | Side::Connecting(other) => other.slot == token.slot,
            _ => false,
        });
        let taken = clash.or(taken.map(|(conn, _)| *conn));
        let mut ledger = self.ledger.lock();
        ledger.check(taken.is_none(), || format!("#{conn} gets slot {} of {taken:?}", token.slot));
        ledger.by_id.insert((token.slot, token.generation), conn);
    }

    /// Another thread asks for a connection.
    pub(super) fn ask_to_dial(&mut self, dial: u32) {
        let connect = self.plan.dials[dial as usize].connect(dial);
        self.ledger.lock().asks(dial);
        let Some(handle) = &self.handle else { return };
        let asked = handle.connect("client", connect, super::proxy::Wanted { dial, door: None });
        self.ledger.lock().check(asked.is_ok(), || format!("dial {dial} is not accepted: {asked:?}"));
    }

    /// The target of the upstream is like this from now on.
    pub(super) fn turn_target(&mut self, is: TargetIs) {
        let now = self.now;
        if let Some(upstream) = self.upstream.as_mut().filter(|upstream| upstream.is != is) {
            (upstream.is, upstream.since) = (is, now);
        }
    }

    pub(super) fn break_members(&mut self, by_reset: bool) {
        let members: Vec<u32> = self.peers.range(FIRST_MEMBER..).map(|(conn, _)| *conn).collect();
        for conn in members {
            if by_reset {
                self.peer_breaks(conn, false);
            } else {
                self.peer_ends(conn);
            }
        }
    }

    /// Another thread has something for the upstream.
    pub(super) fn pick(&mut self) {
        let Some(handle) = self.handle.as_ref().filter(|_| self.upstream.is_some()) else { return };
        let picked = handle.upstream::<Note>("up").map(|upstream| upstream.pick());
        let mut ledger = self.ledger.lock();
        let open = ledger.open_members();
        match picked {
            Ok(Ok(handle)) => {
                let id = handle.id();
                let conn = ledger.by_id.get(&(id.slot(), id.generation())).copied();
                ledger.say(|| format!("thread: picks {conn:?} of {open:?}"));
                let is_right = conn.is_some_and(|conn| open.contains(&conn));
                ledger.check(is_right, || format!("{conn:?} is picked, and open are {open:?}"));
                ledger.seen.at("picked");
                let conn = conn.unwrap_or_default();
                let taken = handle.post(Note { conn, awaited: None }).is_ok();
                ledger.check(taken, || format!("#{conn} is picked, and takes no note"));
            }
            Ok(Err(_)) => {
                ledger.seen.at("nothing to pick");
                // One that is ending takes nothing more, and in the end all are.
                let sends = |conn: &&u32| {
                    self.sockets
                        .get(*conn)
                        .is_some_and(|socket| socket.shut_at.is_none() && socket.broken.is_none())
                };
                let is_right = ledger.is_told_to_end || !open.iter().any(|conn| sends(&conn));
                ledger.check(is_right, || format!("nothing is picked, and open are {open:?}"));
            }
            Err(error) => ledger.violated(|| format!("the upstream is not known: {error}")),
        }
    }

    /// Connections of the upstream that are open, and those that are being made.
    pub(super) fn members(&self) -> (usize, usize) {
        let sides = |is: fn(&Side) -> bool| {
            self.sockets.range(FIRST_MEMBER..).filter(|(_, socket)| is(&socket.side)).count()
        };
        (sides(|side| matches!(side, Side::Open(_))), sides(|side| matches!(side, Side::Connecting(_))))
    }

    /// Places in the loop that are taken.
    pub(super) fn taken_places(&self) -> usize {
        self.sockets.values().filter(|socket| socket.is_taken()).count()
    }
}
