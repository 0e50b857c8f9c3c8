//! Outgoing connections: asked for, being connected, there.
//!
//! ```text
//!   asked for ──▶ Connecting ──▶ Handshaking (of a client with a layer) ──▶ on_open, on_note ──▶ as any other ──▶ on_close
//!       │              │ refused       │ not agreed, too late, the loop ends
//!       └──────────────┴───────────────┴────────▶ on_connect_failed
//! ```
//!
//! Invariant: what is being connected has a slot of the table and a place in `pending`, both or neither, until it has agreed with
//! its peer if it has a layer. It has no session of a service yet, so all that can be asked of it from outside is to close it.

use std::any::Any;
use std::collections::HashMap;

use tidegate_reactor::{End, Errno, Reactor, Target, Token};
use tidegate_timer::{Instant, TimerQueue};

use super::upstreams::Seat;
use super::{Loop, Stage};
use crate::accepting::RETRY_AFTER;
use crate::conn::{Conn, State};
use crate::connect::{Connect, Dial};
use crate::host::{self, Event};
use crate::io::{Due, Retirement};
use crate::layered::{Layered, guarded};
use crate::metrics::{ListenerWord, ProcessWord};
use crate::wish::Wish;
use crate::{ConnectFailure, LayerError, Reason};

/// What is being connected.
pub(crate) type Pending = HashMap<Token, Wanted>;

/// A connection that is not there yet.
pub(crate) struct Wanted {
    connect: Connect,
    note: Option<Box<dyn Any + Send>>,
    seat: Option<Seat>,
    /// When it is given up.
    until: Instant,
    /// It is not being connected at the moment, but tried again.
    waits: bool,
}

impl<R: Reactor> Loop<R> {
    /// Begins to connect.
    pub(super) fn dial(&mut self, dial: Dial) {
        self.sites[usize::from(dial.site)].metrics.add(ListenerWord::Connects, 1);
        if let Err(missed) = self.try_dial(dial) {
            let (dial, failure) = *missed;
            self.missed(dial, failure);
        }
    }

    fn try_dial(&mut self, dial: Dial) -> Result<(), Box<(Dial, ConnectFailure)>> {
        if self.is_stopped() {
            return Err(Box::new((dial, ConnectFailure::Stopped)));
        }
        if self.memory.refuses() || self.conns.is_full() || !self.turn.shared.intake.try_enter() {
            return Err(Box::new((dial, ConnectFailure::NoRoom)));
        }
        let (site, peer, now) = (dial.site, dial.connect.target.peer(), self.turn.now);
        let Some(token) = self.conns.insert(|id| Conn::new(id, site, peer, now)) else {
            self.room_again();
            return Err(Box::new((dial, ConnectFailure::NoRoom)));
        };
        if let Some(conn) = self.conns.get_mut(token) {
            conn.state = State::Connecting;
        }
        self.turn.shared.set_generation(token.slot, token.generation);
        let Dial { connect, note, seat, .. } = dial;
        let until = self.turn.later(now + connect.deadline);
        self.pending.insert(token, Wanted { connect, note, seat, until, waits: false });
        if self.conns.is_full() {
            let moment = self.moment();
            self.accepting.fill_up(&mut self.reactor, moment);
        }
        self.begin_connect(token);
        Ok(())
    }

    /// Has a socket connect.
    fn begin_connect(&mut self, token: Token) {
        let Some(wanted) = self.pending.get_mut(&token) else { return };
        let target = &wanted.connect.target;
        let begun = wanted.connect.socket().and_then(|socket| self.reactor.connect(token, socket, target));
        // The queue of a Unix socket may be full, and nothing says when it is not (unix(7)).
        wanted.waits = begun == Err(Errno::AGAIN) && matches!(target, Target::Unix(_));
        let at = match begun {
            Ok(()) => wanted.until,
            Err(_) if wanted.waits => wanted.until.min(self.turn.now + RETRY_AFTER),
            Err(errno) => return self.on_connect_failed(token, errno),
        };
        if let Some(conn) = self.conns.get_mut(token) {
            conn.deadline = Some(self.turn.timers.insert(at, Due::Deadline(token)));
            conn.deadline_at = at;
        }
    }

    /// It is there; one with a layer has still to agree with its peer.
    pub(super) fn on_connected(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if let Some(key) = conn.deadline.take() {
            self.turn.timers.cancel(key);
        }
        // Its life begins now.
        *conn = Conn::new(token, conn.site, conn.who.peer, self.turn.now);
        let site = usize::from(conn.site);
        if self.sites[site].client_layer.is_some() { self.begin_session(token) } else { self.hand_on(token) }
    }

    /// Has the layer of a client speak to the peer first.
    fn begin_session(&mut self, token: Token) {
        let (Some(wanted), Some(conn)) = (self.pending.get(&token), self.conns.get_mut(token)) else {
            return;
        };
        let Some(layer) = &self.sites[usize::from(conn.site)].client_layer else { return };
        let mut layered = Layered::new(wanted.until);
        let connect = &wanted.connect;
        match guarded(|| layer.0.connect(&connect.target, connect.name())).flatten() {
            Ok(session) => layered.begin(session),
            Err(error) => return self.on_unconnected(token, ConnectFailure::Handshake(error)),
        }
        conn.state = State::Handshaking;
        conn.aside.get_or_insert_default().layer = Some(layered);
        self.speak_first(token);
    }

    /// It is there, and its service gets it.
    pub(super) fn hand_on(&mut self, token: Token) {
        let Some(Wanted { note, seat, .. }) = self.pending.remove(&token) else { return };
        let Some(conn) = self.conns.get_mut(token) else { return host::discard(note) };
        let site = usize::from(conn.site);
        self.publish_open(site, 1);
        self.open(token, site);
        match note {
            // One that was refused hears of nothing.
            Some(note) if self.is_open(token) => self.event(token, Event::Note(note)),
            note => host::discard(note),
        }
        if let Some(seat) = seat {
            self.member_connected(seat, token);
        }
        self.tell_late_comer(token);
    }

    fn is_open(&mut self, token: Token) -> bool {
        self.conns.get_mut(token).is_some_and(|conn| conn.state == State::Open)
    }

    /// The others have been told already that the loop retires.
    pub(super) fn tell_late_comer(&mut self, token: Token) {
        let retirement = self.turn.retirement;
        if let (Stage::Retiring { .. }, Some(conn)) = (self.stage, self.conns.get_mut(token))
            && retirement != Retirement::None
            && conn.told < retirement
        {
            conn.told = retirement;
            self.event(token, Event::Retire);
        }
    }

    /// It is not to be had, or not in time.
    pub(super) fn on_unconnected(&mut self, token: Token, failure: ConnectFailure) {
        let Some(mut conn) = self.conns.remove(token) else { return };
        self.turn.shared.set_generation(token.slot, 0);
        self.reactor.close(token, End::Fin);
        if let Some(key) = conn.deadline.take() {
            self.turn.timers.cancel(key);
        }
        if let Some(mut output) = conn.output.take() {
            output.clear(&mut self.turn.pool);
        }
        self.memory.forget(&conn);
        self.room_again();
        if let Some(Wanted { connect, note, seat, .. }) = self.pending.remove(&token) {
            self.missed(Dial { site: conn.site, connect, note, seat }, failure);
        }
    }

    /// Whether it is an outgoing connection that its service does not know yet.
    pub(super) fn is_unconnected(&mut self, token: Token) -> bool {
        let state = self.conns.get_mut(token).map(|conn| conn.state);
        matches!(state, Some(State::Connecting | State::Handshaking)) && self.pending.contains_key(&token)
    }

    /// It ends in the midst of its handshake.
    pub(super) fn on_unagreed(&mut self, token: Token, reason: Reason, errno: Option<i32>) {
        let failure = match errno {
            Some(errno) => ConnectFailure::Handshake(LayerError(Errno::from_raw_os_error(errno).to_string())),
            None if reason == Reason::PEER_CLOSED => ConnectFailure::Handshake(LayerError(
                "the peer closed the connection in the midst of it".into(),
            )),
            None => ConnectFailure::Closed(reason),
        };
        self.on_unconnected(token, failure);
    }

    /// Its time is over, or it is to be tried again.
    pub(super) fn connect_deadline_passed(&mut self, token: Token) {
        let Some(wanted) = self.pending.get(&token) else { return };
        if wanted.waits && self.turn.now < wanted.until {
            return self.begin_connect(token);
        }
        let deadline = wanted.connect.deadline;
        self.on_unconnected(token, ConnectFailure::Deadline(deadline));
    }

    pub(super) fn on_connect_failed(&mut self, token: Token, errno: Errno) {
        self.on_unconnected(token, ConnectFailure::Refused(errno));
    }

    /// Tells the service that it does not get a connection.
    pub(super) fn missed(&mut self, dial: Dial, failure: ConnectFailure) {
        let (site, seat) = (usize::from(dial.site), dial.seat);
        let (metrics, name) = (&self.sites[site].metrics, &*self.sites[site].name);
        metrics.add(ListenerWord::ConnectFailures, 1);
        tracing::debug!(client = name, target = %dial.connect.target, error = %failure, "not connected");
        if self.hosts[site].connect_failed(dial, failure.clone(), &self.metrics).is_err() {
            self.metrics.add(ProcessWord::Panics, 1);
        }
        if let Some(seat) = seat {
            self.member_failed(seat, Some(failure));
        }
    }

    /// The loop has ended: of what was asked for nothing will come.
    pub(super) fn drop_wishes(&mut self) {
        while let Some(wish) = self.turn.wishes.pop_front() {
            let Wish::Connect(dial) = wish else { continue };
            self.sites[usize::from(dial.site)].metrics.add(ListenerWord::Connects, 1);
            self.missed(dial, ConnectFailure::Stopped);
        }
    }
}
