//! Layers: handshakes, and the bytes of connections that have a layer between them and their service.
//!
//! ```text
//!   accepted ──▶ Handshaking ── first byte ──▶ its turn ──▶ agreed ──▶ on_open, as any other connection
//!                    │ too late: TLS_TIMEOUT      │ not agreed: an alert, TLS_FAILED
//!                    └────────────────────────────┴───────────────────────────▶ closed, and no service knows of it
//! ```
//!
//! An outgoing connection of a client with a layer begins its handshake at once, is not counted, and is not told of either
//! when it fails: see `event_loop::outgoing`.
//!
//! What the layer makes of the input stands in `Conn::input`, where it is handled as if it had waited there. Its output is in
//! `event_loop::sealing`.
//!
//! Invariant: of each site at most `max_handshakes` are counted, and each that is counted is left once: agreed, or closed.

use std::collections::VecDeque;

use tidegate_reactor::{End, Reactor, Token};
use tidegate_timer::Instant;

use super::{Loop, Stage};
use crate::accepting::Reports;
use crate::conn::{Conn, Eof, State};
use crate::host::Event;
use crate::io::Retirement;
use crate::layer::{LayerError, LayerState};
use crate::layered::Layered;
use crate::metrics::ListenerWord;
use crate::{ConnectFailure, Peer, Reason};

/// The handshakes of a loop.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    /// By site.
    sites: Vec<Handshaking>,
    failures: Reports,
}

/// The handshakes of a site.
#[derive(Debug, Default)]
struct Handshaking {
    /// How many are counted.
    active: usize,
    /// Those whose turn has not come, oldest first. Some may have ended meanwhile.
    waiting: VecDeque<Token>,
}

impl Handshakes {
    pub(crate) fn new(sites: usize) -> Self {
        Self {
            sites: std::iter::repeat_with(Handshaking::default).take(sites).collect(),
            failures: Reports::default(),
        }
    }

    /// Whether a failure is to be reported now; then also how many were not.
    fn report(&mut self, now: Instant) -> Option<u64> {
        self.failures.pass(now)
    }
}

impl<R: Reactor> Loop<R> {
    /// It is known who is at the other end: has the connection agree with its layer, or opens it when it has none.
    pub(super) fn shake_hands(&mut self, token: Token, site: usize) {
        let Some(layer) = &self.sites[site].layer else { return self.open(token, site) };
        let mut layered = Layered::new(self.turn.now + layer.0.handshake_timeout());
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.state = State::Handshaking;
        // What came with what has told who it is belongs to the layer.
        let early = std::mem::take(&mut conn.input);
        layered.keep_more(&early);
        conn.aside.get_or_insert_default().layer = Some(layered);
        if early.is_empty() { self.settle(token) } else { self.ask_for_handshake(token) }
    }

    /// Something was received of a connection with a layer.
    pub(super) fn on_sealed(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let data = self.reactor.received();
        let takes = match conn.state {
            State::Handshaking | State::Tied => true,
            State::Open => !conn.is_over(),
            State::Connecting | State::Greeting | State::Flushing(_) | State::Lingering(_) => false,
        };
        if !takes {
            let n = u32::try_from(data.len()).unwrap_or(u32::MAX);
            return self.throw_away(token, n);
        }
        let waits = conn.reading.paused;
        match conn.layer_mut() {
            Some(layer) if !layer.has_begun() => {
                layer.keep_more(data);
                // One that waits for its turn may still get what had been on its way.
                if waits { self.settle(token) } else { self.ask_for_handshake(token) }
            }
            _ => self.unseal(token, Came::Received),
        }
    }

    /// The turn of a handshake that had to wait has come, unless it has begun.
    pub(super) fn handshake(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.layer().is_some_and(|layer| layer.counted && !layer.has_begun()) {
            self.begin_handshake(token);
        } else {
            self.settle(token);
        }
    }

    /// Begins a handshake, or has it wait until there are fewer. While any waits, some are active: who ends hands its place on.
    fn ask_for_handshake(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let site = usize::from(conn.site);
        let Some(layer) = &self.sites[site].layer else { return };
        let Handshaking { active, waiting } = &mut self.handshakes.sites[site];
        if *active >= layer.0.max_handshakes().max(1) || !waiting.is_empty() {
            waiting.push_back(token);
            conn.reading.paused = true;
            return self.settle(token);
        }
        *active += 1;
        if let Some(layered) = conn.layer_mut() {
            layered.counted = true;
        }
        self.begin_handshake(token);
    }

    /// Begins a handshake that is counted.
    fn begin_handshake(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let site = usize::from(conn.site);
        let Some(layer) = &self.sites[site].layer else { return };
        let session = layer.0.accept(&Peer { address: conn.who.peer, listener: &self.sites[site].name });
        conn.reading.paused = false;
        if let Some(layered) = conn.layer_mut() {
            layered.begin(session);
        }
        self.unseal(token, Came::Before);
    }

    /// A connection does not count among the handshakes any more: the next one's turn has come.
    pub(super) fn leave_handshake(&mut self, conn: &mut Conn) {
        let site = usize::from(conn.site);
        if conn.layer_mut().is_some_and(|layer| std::mem::take(&mut layer.counted)) {
            self.give_turn(site);
        }
    }

    fn give_turn(&mut self, site: usize) {
        let Handshaking { active, waiting } = &mut self.handshakes.sites[site];
        while let Some(token) = waiting.pop_front() {
            if let Some(conn) = self.conns.get_mut(token)
                && conn.state == State::Handshaking
                && let Some(layer) = conn.layer_mut()
            {
                // The place is its own from now on, so whatever ends it before it begins hands it on.
                layer.counted = true;
                // Its bytes were read, so no completion will bring it back.
                if !std::mem::replace(&mut conn.listed, true) {
                    self.again.push(token);
                }
                return;
            }
        }
        *active -= 1;
    }

    /// Nothing has come, and the layer of a client says what it has to say first.
    pub(super) fn speak_first(&mut self, token: Token) {
        self.unseal(token, Came::Before);
    }

    /// Has the layer take what came, sends what it answers, and handles what it means.
    fn unseal(&mut self, token: Token, came: Came) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let mut plain = std::mem::take(&mut conn.input);
        let Some(layer) = conn.layer_mut() else { return };
        if plain.capacity() == 0 {
            plain = self.spares.take();
        }
        let data = match came {
            Came::Received => self.reactor.received(),
            Came::Before => &[],
        };
        let outcome = layer.receive(data, &mut plain, &mut self.work);
        if plain.is_empty() {
            self.spares.keep(plain);
        } else {
            conn.last_in = self.turn.now;
            conn.input = plain;
        }
        if self.send_sealed(token) {
            self.after_unsealing(token, outcome);
        }
    }

    fn after_unsealing(&mut self, token: Token, outcome: Result<LayerState, LayerError>) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.state == State::Handshaking && matches!(outcome, Ok(LayerState::Open | LayerState::Ended)) {
            self.agree(token);
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.state == State::Tied {
            let (partner, plain) = (conn.partner(), std::mem::take(&mut conn.input));
            self.pass(token, partner, &plain);
            self.spares.keep(plain);
            self.settle(token);
        } else {
            self.pump(token);
        }
        match outcome {
            Ok(LayerState::Handshaking | LayerState::Open) => {}
            Ok(LayerState::Ended) => {
                if self.conns.get_mut(token).is_some_and(|conn| !conn.has_ended()) {
                    self.on_ended(token);
                }
            }
            Err(error) => self.layer_failed(token, &error),
        }
    }

    /// The peer's FIN. Without a word of the layer before it, it is an end as well, as many clients make it; but in the middle
    /// of a record something is missing, and the service must not take what it has for all.
    pub(super) fn on_fin(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let opened = matches!(conn.state, State::Open | State::Tied);
        if opened && !conn.has_ended() && conn.layer().is_some_and(Layered::is_amid_step) {
            conn.eof = Eof::Told;
            return self
                .layer_failed(token, &LayerError("the connection ended in the middle of a record".into()));
        }
        self.on_ended(token);
    }

    /// The handshake is done: the service is told of the connection.
    fn agree(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let site = usize::from(conn.site);
        conn.state = State::Open;
        conn.last_in = self.turn.now;
        conn.reading.since = self.turn.now;
        let metrics = &self.sites[site].metrics;
        metrics.add(ListenerWord::Handshakes, 1);
        let counted = conn.layer_mut().is_some_and(|layer| {
            if layer.secure().is_some_and(|security| security.resumed) {
                metrics.add(ListenerWord::HandshakesResumed, 1);
            }
            std::mem::take(&mut layer.counted)
        });
        if counted {
            self.give_turn(site);
        }
        if self.pending.contains_key(&token) {
            return self.hand_on(token);
        }
        self.open(token, site);
        let retirement = self.turn.retirement;
        if let (Stage::Retiring { .. }, Some(conn)) = (self.stage, self.conns.get_mut(token))
            && retirement != Retirement::None
            && conn.state == State::Open
        {
            // The others have been told already, and it was not known to its service then.
            conn.told = retirement;
            self.event(token, Event::Retire);
        }
    }

    /// The layer cannot go on: the peer is told why, and nothing more is done for it.
    pub(super) fn layer_failed(&mut self, token: Token, error: &LayerError) {
        if self.is_unconnected(token) {
            return self.on_unconnected(token, ConnectFailure::Handshake(error.clone()));
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        let opened = conn.state != State::Handshaking;
        if let Some(suppressed) = self.handshakes.report(self.turn.now) {
            let (listener, peer) = (&*self.sites[usize::from(conn.site)].name, conn.who.peer);
            tracing::info!(listener, %peer, opened, %error, suppressed, "TLS failed; the connection is closed");
        }
        match conn.state {
            // Nobody can say any more that it has ended in order.
            State::Tied => return self.close_with(token, Reason::TLS_FAILED, End::Reset, None),
            State::Open if conn.away => return self.close(token, Reason::TLS_FAILED, None),
            State::Open | State::Handshaking => {}
            State::Connecting | State::Greeting | State::Flushing(_) | State::Lingering(_) => return,
        }
        let site = usize::from(conn.site);
        conn.state = State::Flushing(Reason::TLS_FAILED);
        conn.reading.paused = false;
        conn.input = Vec::new();
        let counted = conn.layer_mut().is_some_and(|layer| {
            // The alert was the last word.
            layer.closed = true;
            std::mem::take(&mut layer.counted)
        });
        if counted {
            self.give_turn(site);
        }
        self.settle(token);
    }

    /// The peer went away in the midst of the handshake.
    pub(super) fn on_handshake_ended(&mut self, token: Token) {
        self.close(token, Reason::PEER_CLOSED, None);
    }

    /// The handshake has taken too long.
    pub(super) fn handshake_too_late(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if let Some(suppressed) = self.handshakes.report(self.turn.now) {
            let (listener, peer) = (&*self.sites[usize::from(conn.site)].name, conn.who.peer);
            let (received, waited) = (conn.bytes_in, conn.reading.paused);
            tracing::info!(listener, %peer, received, waited, suppressed, "the TLS handshake was not done in time");
        }
        self.close(token, Reason::TLS_TIMEOUT, None);
    }
}

/// Where what a layer is to take comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// It was just received.
    Received,
    /// It has been kept.
    Before,
}
