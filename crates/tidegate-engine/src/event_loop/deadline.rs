//! Deadlines: one timer for all those of a connection, and the timers of services.
//!
//! The deadline timer is re-armed at once only to be earlier; when it expires too early it is armed again. So a
//! connection that is busy does not touch the wheel.

use std::time::Duration;

use tidegate_reactor::{Reactor, Token};
use tidegate_timer::{Instant, TimerQueue};

use super::Loop;
use crate::conn::{Conn, State};
use crate::host::Event;
use crate::io::{Due, Turn};
use crate::{Limits, Phase, Reason};

/// How long a connection whose last answer was sent is kept for the peer's end.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// Timers that are served in a turn: a thousand peers that came together and are late together must not hold up the others.
const TIMERS_IN_A_TURN: usize = 128;

impl<R: Reactor> Loop<R> {
    /// Serves what is due, the earliest first. What is left over is due in the next turn, which does not wait then.
    pub(super) fn expire_timers(&mut self) {
        for _ in 0..TIMERS_IN_A_TURN {
            let Some(due) = self.turn.timers.pop_expired(self.turn.now) else { return };
            match due {
                Due::Service(token, timer) => {
                    if let Some(conn) = self.conns.get_mut(token) {
                        conn.timers.retain(|(t, _)| *t != timer);
                        self.event(token, Event::Timer(timer));
                    }
                }
                Due::Deadline(token) => self.on_deadline(token),
                Due::Redial(seat) => self.dial_member(seat),
                Due::Datagrams(site, timer) => self.on_datagram_timer(site, timer),
                Due::Start(site) => self.start_datagrams(site),
            }
        }
    }

    /// The deadline timer of a connection expired. It may have been set for a deadline that has moved since.
    fn on_deadline(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.deadline = None;
        conn.deadline_at = Instant::MAX;
        if conn.state == State::Connecting {
            return self.connect_deadline_passed(token);
        }
        if conn.away && self.visits.is_some() {
            // Its socket is with a thread. What the peer has taken is looked at when it is back.
            conn.last_out = self.turn.now;
        }
        let limits = &self.sites[usize::from(conn.site)].limits;
        match conn.due(limits, LINGER) {
            Some((phase, at)) if at <= self.turn.now => self.deadline_passed(token, phase),
            _ if conn.pace().is_some() => self.judge_pace(token),
            _ => self.settle(token),
        }
    }

    fn deadline_passed(&mut self, token: Token, phase: Phase) {
        // A socket is reported writable when much of its buffer is free; a slow peer may have taken less, but something.
        if phase == Phase::Write && self.drain(token).is_none_or(|taken| taken > 0) {
            return self.settle(token);
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        match conn.state {
            State::Connecting => {}
            State::Greeting => self.close(token, Reason::HEAD_TIMEOUT, None),
            State::Handshaking if self.pending.contains_key(&token) => self.connect_deadline_passed(token),
            State::Handshaking => self.handshake_too_late(token),
            State::Lingering(_) => self.end_lingering(token),
            State::Flushing(_) => self.close(token, Reason::WRITE_TIMEOUT, None),
            State::Tied => self.tied_deadline_passed(token, phase),
            State::Open => {
                // Whatever the service answers, the same deadline does not pass a second time.
                conn.last_in = self.turn.now;
                conn.last_out = self.turn.now;
                conn.reading.since = self.turn.now;
                self.event(token, Event::Deadline(phase));
            }
        }
    }

    /// Sets the connection's timer when its deadline is earlier than what the timer is set for.
    #[inline]
    pub(super) fn arm_deadline(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let limits = &self.sites[usize::from(conn.site)].limits;
        arm(conn, limits, &mut self.turn, &mut self.reactor);
    }
}

/// Sets a connection's timer when its deadline, or that of its pace, is earlier than what the timer is set for.
#[inline]
pub(super) fn arm(conn: &mut Conn, limits: &Limits, turn: &mut Turn, reactor: &mut impl Reactor) {
    let awaited = conn.awaited();
    let due = conn.due_of(awaited, limits, LINGER).map(|(_, at)| at);
    let token = conn.who.id;
    let pace = conn.pace_due(awaited, limits, turn.now, || reactor.unsent_bytes(token));
    let Some(at) = pace.map_or(due, |pace| Some(due.map_or(pace, |at| at.min(pace)))) else { return };
    if at >= conn.deadline_at {
        return;
    }
    set(conn, turn, at);
}

/// Sets a connection's timer, in place of what it is set for.
fn set(conn: &mut Conn, turn: &mut Turn, at: Instant) {
    if let Some(key) = conn.deadline.take() {
        turn.timers.cancel(key);
    }
    let at = turn.later(at);
    conn.deadline = Some(turn.timers.insert(at, Due::Deadline(conn.who.id)));
    conn.deadline_at = at;
}
