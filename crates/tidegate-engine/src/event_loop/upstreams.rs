//! The connections that the loop keeps open to its upstreams.
//!
//! ```text
//!               its time has come            there                  ended
//!   ┌─▶ Waiting ─────────────────▶ Dialled ────────▶ Open(token) ─────────┐
//!   │                                 │ refused, too late                 │    the loop retires: Idle
//!   └─────────────────────────────────┴───────────────────────────────────┘
//! ```
//!
//! Invariant: a member that is `Waiting` has a timer, and nothing else wakes it; so a member is dialled once at a time. A
//! loop that is to end dials no member again.

use std::sync::Arc;

use tidegate_reactor::{Reactor, Token};
use tidegate_timer::TimerQueue;

use super::{Loop, Stage};
use crate::accepting::Reports;
use crate::conn::{Conn, State};
use crate::connect::{Connect, Dial};
use crate::io::Due;
use crate::upstream::{Jitter, OpenSet, UpstreamConfig};
use crate::{ConnectFailure, Flow, Reason};

/// An upstream of the loop.
#[derive(Debug)]
pub(crate) struct Pool {
    site: u16,
    config: UpstreamConfig,
    members: Box<[Member]>,
    open: Arc<OpenSet>,
    jitter: Jitter,
    failures: Reports,
}

/// One of the connections that are to be.
#[derive(Clone, Copy, Debug)]
struct Member {
    stands: Stands,
    /// In a row.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    Idle,
    Dialled,
    Open(Token),
    Waiting,
}

/// Which member of which pool: their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) pool: u16,
    pub(crate) member: u16,
}

impl Pool {
    /// All members wait; whoever makes it sets their timers, by [`seats`](Self::seats).
    pub(crate) fn new(site: u16, config: UpstreamConfig, open: Arc<OpenSet>) -> Self {
        let members = vec![Member { stands: Stands::Waiting, failures: 0 }; config.connections];
        let jitter = Jitter::new(config.seed);
        Self { site, config, members: members.into(), open, jitter, failures: Reports::default() }
    }

    /// The members of all pools.
    pub(crate) fn seats(pools: &[Self]) -> impl Iterator<Item = Seat> {
        let all = pools.iter().enumerate();
        all.flat_map(|(pool, it)| (0..it.members.len()).map(move |member| seat(pool, member)))
    }

    /// Connections that are there, or are being made.
    fn connections(&self) -> usize {
        self.members
            .iter()
            .filter(|member| matches!(member.stands, Stands::Dialled | Stands::Open(_)))
            .count()
    }
}

impl<R: Reactor> Loop<R> {
    /// The time has come to make a connection.
    pub(super) fn dial_member(&mut self, seat: Seat) {
        let pool = &mut self.pools[usize::from(seat.pool)];
        let stands = &mut pool.members[usize::from(seat.member)].stands;
        if self.stage != Stage::Serving {
            *stands = Stands::Idle;
            return;
        }
        *stands = Stands::Dialled;
        let connect = Connect::to(pool.config.target.clone()).deadline(pool.config.connect_timeout);
        let dial = Dial { site: pool.site, connect, note: None, seat: Some(seat) };
        self.dial(dial);
    }

    /// It is there.
    pub(super) fn member_connected(&mut self, seat: Seat, token: Token) {
        // Its service may have ended it already.
        if !self.conns.get_mut(token).is_some_and(|conn| conn.state == State::Open) {
            return self.member_failed(seat, None);
        }
        let pool = &mut self.pools[usize::from(seat.pool)];
        pool.members[usize::from(seat.member)].stands = Stands::Open(token);
        pool.open.set(usize::from(seat.member), Some(token));
        let (name, target) = (&*self.sites[usize::from(pool.site)].name, &pool.config.target);
        tracing::debug!(upstream = name, %target, member = seat.member, "upstream connected");
    }

    /// It could not be made, or did not last.
    pub(super) fn member_failed(&mut self, seat: Seat, failure: Option<ConnectFailure>) {
        let pool = &mut self.pools[usize::from(seat.pool)];
        let member = &mut pool.members[usize::from(seat.member)];
        member.stands = Stands::Idle;
        if self.stage != Stage::Serving {
            return;
        }
        let wait = pool.jitter.draw(pool.config.backoff.ceiling(member.failures));
        member.failures = member.failures.saturating_add(1);
        member.stands = Stands::Waiting;
        let (name, target) = (&*self.sites[usize::from(pool.site)].name, &pool.config.target);
        if let Some(error) = failure
            && let Some(suppressed) = pool.failures.pass(self.turn.now)
        {
            tracing::warn!(upstream = name, %target, %error, retry_in = ?wait, suppressed, "upstream not connected");
        }
        let at = self.turn.later(self.turn.now + wait);
        self.turn.timers.insert(at, Due::Redial(seat));
    }

    /// A connection takes no more notes, so nobody is to be named it, if it is one that is named.
    #[inline]
    pub(super) fn leave_pool(&mut self, token: Token) {
        if self.pools.is_empty() {
            return;
        }
        let Some(site) = self.conns.get_mut(token).map(|conn| conn.site) else { return };
        if let Some((pool, member)) = self.member(site, token) {
            self.pools[pool].open.set(member, None);
        }
    }

    /// The numbers of a pool and of the member of it that this connection is.
    fn member(&self, site: u16, token: Token) -> Option<(usize, usize)> {
        let (at, pool) = self.pools.iter().enumerate().find(|(_, pool)| pool.site == site)?;
        let member = pool.members.iter().position(|member| member.stands == Stands::Open(token))?;
        Some((at, member))
    }

    /// A connection of a site has ended, which may be one that is to be there.
    pub(super) fn member_closed(&mut self, conn: &Conn) {
        let Some((at, member)) = self.member(conn.site, conn.who.id) else { return };
        let pool = &mut self.pools[at];
        pool.open.set(member, None);
        let lasted = self.turn.now.saturating_duration_since(conn.opened);
        let failures = &mut pool.members[member].failures;
        if lasted >= pool.config.backoff.ceiling(*failures) {
            *failures = 0;
        }
        self.member_failed(seat(at, member), None);
    }

    /// Ends the connections that are kept for others, when there are no others and the loop retires.
    pub(super) fn empty_pools(&mut self) {
        let kept: usize = self.pools.iter().map(Pool::connections).sum();
        if kept == 0 || self.conns.len() > kept || !self.turn.wishes.is_empty() {
            return;
        }
        for token in self.conns.keys() {
            match self.conns.get_mut(token).map(|conn| (conn.state, conn.away)) {
                Some((State::Connecting | State::Handshaking, _)) if self.pending.contains_key(&token) => {
                    self.on_unconnected(token, ConnectFailure::Stopped)
                }
                Some((State::Open, false)) => self.apply(token, Flow::CloseAfterFlush(Reason::SHUTDOWN)),
                _ => {}
            }
        }
    }
}

fn seat(pool: usize, member: usize) -> Seat {
    let number = |n| u16::try_from(n).expect("the builder limits pools and their members");
    Seat { pool: number(pool), member: number(member) }
}
