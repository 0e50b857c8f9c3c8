//! `Client`: what a connection asks, and what becomes of its answers.
//!
//! ```text
//!  on_open      Take(lane)         greeting answered           Go               Settle
//! ─────────▶ New ─────────▶ Greeting ──────────────▶ Ready ─────────▶ Asking ─────────▶ Settling
//!                  └─────── no greeting ───────────────▲ ▲                                 │
//!                                                        └────── nothing in flight ────────┘
//! ```
//!
//! The engine's callbacks are in `service.rs`, and what a connection loses by its end in `loss.rs`.
//!
//! Invariant: a connection never has more requests in flight than the pipeline allows, and each of them stands in `in_flight`
//! with the time from which it is measured: when it was sent, or at a constant rate when it was due, so that a server that
//! stalls cannot hide the requests that it kept from being sent.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_engine::{ConnHandle, Flow, Io, Reason, TimerToken};

use super::course::{Course, Pace, Times, now};
use super::dialogue::{Answers, Dialogue};
use super::tally::Tally;

/// The service of one thread.
#[derive(Debug)]
pub(super) struct Client<D> {
    pub(super) dialogue: D,
    pub(super) course: Arc<Course>,
    pub(super) tally: Arc<Mutex<Tally>>,
    /// Holds three events of a connection at the most: it is not made anew before the driver has seen its end.
    pub(super) events: Sender<Event>,
    pub(super) pipeline: usize,
    pub(super) pace: Option<Pace>,
    pub(super) timeout: Duration,
}

/// The place of a connection in the run, which outlives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    /// Which of all connections it is.
    pub(super) number: u32,
    /// Which of those that ask; none when it is silent.
    pub(super) turn: Option<u32>,
    /// Requests that have been sent.
    pub(super) sent: u64,
}

/// What a connection is told.
#[derive(Debug)]
pub(super) enum Note {
    /// This is its place, and since when it was wanted.
    Take(Lane, u64),
    /// Asking begins.
    Go,
    /// It asks nothing more, and tells when nothing is in flight.
    Settle,
    /// What it has in flight has had its time.
    GiveUp,
    /// It ends.
    End,
}

/// What the driver is told.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection is ready to ask.
    Opened(u32, ConnHandle<Note>),
    /// A connection that was to settle has.
    Settled(Lane),
    /// A connection has ended.
    Closed {
        lane: Lane,
        /// It had brought an answer.
        was_useful: bool,
    },
    /// A connection could not be made.
    Failed(Lane, String),
    /// A connection was made and was not let in.
    Rejected(String),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session<S> {
    pub(super) state: S,
    pub(super) lane: Lane,
    pub(super) stage: Stage,
    pub(super) in_flight: VecDeque<u64>,
    /// When the timer is set for; 0: it is not.
    pub(super) armed: u64,
    pub(super) answered: u64,
    /// Since when something is in flight and nothing has come.
    pub(super) waiting_since: u64,
    /// What was wrong with the last answer.
    pub(super) trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    New,
    Greeting,
    Ready,
    Asking,
    Settling,
}

/// An answer was wrong.
pub(super) const WRONG: Reason = Reason::custom(40);
/// The run is over. A reset, or the ports of a large run would be in TIME_WAIT when the next one needs them.
pub(super) const OVER: Reason = Reason::custom(41);
/// The login was refused.
pub(super) const REJECTED: Reason = Reason::custom(42);
/// The next request is due.
pub(super) const DUE: TimerToken = TimerToken(0);
/// An answer may be overdue.
pub(super) const OVERDUE: TimerToken = TimerToken(1);

impl<S> Session<S> {
    /// Of a connection that nobody has told its place yet.
    pub(super) fn new(state: S, pipeline: usize) -> Self {
        Self {
            state,
            lane: Lane { number: 0, turn: None, sent: 0 },
            stage: Stage::New,
            in_flight: VecDeque::with_capacity(pipeline),
            armed: 0,
            answered: 0,
            waiting_since: 0,
            trouble: None,
        }
    }
}

impl<D: Dialogue> Client<D> {
    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver has gone when its run was given up; then nobody is to be told.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    pub(super) fn take(&self, io: &mut Io<'_>, session: &mut Session<D::State>, lane: Lane, since: u64) {
        let mut tally = self.tally();
        tally.connect.record(Duration::from_nanos(now().saturating_sub(since)), 1);
        if let Some(security) = io.security() {
            tally.secured.count(security);
        }
        drop(tally);
        session.lane = lane;
        session.state = self.dialogue.begin(lane.number);
        match self.dialogue.greeting() {
            Some(greeting) => {
                session.stage = Stage::Greeting;
                io.send(greeting);
            }
            None => self.get_ready(io, session),
        }
    }

    pub(super) fn get_ready(&self, io: &mut Io<'_>, session: &mut Session<D::State>) {
        session.stage = Stage::Ready;
        self.tell(Event::Opened(session.lane.number, io.handle()));
        if self.course.times().is_some() {
            self.go(io, session);
        }
    }

    pub(super) fn go(&self, io: &mut Io<'_>, session: &mut Session<D::State>) {
        if matches!(session.stage, Stage::Ready | Stage::Asking) && session.lane.turn.is_some() {
            session.stage = Stage::Asking;
            self.fill(io, session, now());
        }
    }

    /// Asks nothing more than what is due already. One that is not ready has nothing in flight, nor will it before it is told
    /// to go.
    pub(super) fn settle(&self, io: &mut Io<'_>, session: &mut Session<D::State>) {
        if session.stage == Stage::Asking {
            if self.pace.is_some() {
                self.fill(io, session, now());
            }
            session.stage = Stage::Settling;
        }
        self.tell_settled(session);
    }

    fn tell_settled(&self, session: &mut Session<D::State>) {
        if session.in_flight.is_empty() {
            if session.stage == Stage::Settling {
                session.stage = Stage::Ready;
            }
            self.tell(Event::Settled(session.lane));
        }
    }

    /// Asks as much as may be in flight.
    #[inline]
    pub(super) fn fill(&self, io: &mut Io<'_>, session: &mut Session<D::State>, now: u64) {
        let Some(times) = self.course.times() else { return };
        // At a constant rate a request that fell due before the end is asked however late its timer was.
        if session.stage != Stage::Asking || (self.pace.is_none() && now >= times.end) {
            return;
        }
        let mut bytes = 0;
        if session.in_flight.is_empty() {
            session.waiting_since = now;
        }
        while session.in_flight.len() < self.pipeline {
            let Some(since) = self.due(io, session, times, now) else { break };
            let parts = self.dialogue.ask(&mut session.state);
            bytes += parts[0].len() + parts[1].len();
            io.send_vectored(&parts);
            session.lane.sent += 1;
            session.in_flight.push_back(since);
        }
        if times.counts(now) {
            self.tally().bytes_out += bytes as u64;
        }
    }

    /// From when on the next request is measured, if it is due; otherwise its timer is set.
    #[inline]
    fn due(&self, io: &mut Io<'_>, session: &mut Session<D::State>, times: &Times, now: u64) -> Option<u64> {
        let Some(pace) = &self.pace else { return Some(now) };
        let at = times.go + pace.due(session.lane.turn?, session.lane.sent);
        if at <= now {
            return (at < times.end).then_some(at);
        }
        if at < times.end && session.armed != at {
            session.armed = at;
            io.set_timer(DUE, Duration::from_nanos(at.saturating_sub(io.now().as_nanos())));
        }
        None
    }

    /// Counts answers. False when there are more of them than questions.
    #[inline]
    pub(super) fn count(
        &self,
        session: &mut Session<D::State>,
        answers: Answers,
        bytes: usize,
        now: u64,
    ) -> bool {
        let Some(times) = self.course.times() else { return answers.count == 0 };
        let mut tally = self.tally();
        if times.counts(now) {
            tally.bytes_in += bytes as u64;
        }
        for nth in 0..answers.count {
            let Some(since) = session.in_flight.pop_front() else { return false };
            // The first ones take the blame, since which of them were refused makes no difference to the count.
            if nth >= answers.refused && self.is_counted(times, since, now) {
                tally.latency.record(Duration::from_nanos(now.saturating_sub(since)), 1);
            }
        }
        if now >= times.begin {
            tally.answered += u64::from(answers.count.saturating_sub(answers.refused));
        }
        session.answered += u64::from(answers.count);
        session.waiting_since = now;
        if answers.refused > 0 {
            tally.failures.status += u64::from(answers.refused);
            tally.failures.tell(|| format!("an answer with status {}", answers.status));
        }
        true
    }

    /// At a constant rate the requests are the same whatever the server does, so all that were due within the time count;
    /// otherwise all answers that came within it.
    #[inline]
    fn is_counted(&self, times: &Times, since: u64, now: u64) -> bool {
        times.counts(if self.pace.is_some() { since } else { now })
    }

    pub(super) fn wrong(&self, session: &mut Session<D::State>, text: String) -> Flow {
        session.trouble = Some(text);
        Flow::Abort(WRONG)
    }

    /// What becomes of a connection after its answers.
    #[inline]
    pub(super) fn follow(
        &self,
        io: &mut Io<'_>,
        session: &mut Session<D::State>,
        now: u64,
        last: bool,
    ) -> Flow {
        if last {
            return Flow::Abort(Reason::DONE);
        }
        match session.stage {
            Stage::Settling => self.tell_settled(session),
            _ => self.fill(io, session, now),
        }
        Flow::Continue
    }

    /// The engine's deadline counts from what was received last, which may have been long before anything was asked.
    pub(super) fn look_at_wait(&self, io: &mut Io<'_>, session: &Session<D::State>) -> Flow {
        if session.in_flight.is_empty() {
            return Flow::Continue;
        }
        let waited = Duration::from_nanos(now().saturating_sub(session.waiting_since));
        let left = self.timeout.saturating_sub(waited);
        if left.is_zero() {
            return Flow::Abort(Reason::IDLE_TIMEOUT);
        }
        io.set_timer(OVERDUE, left);
        Flow::Continue
    }
}
