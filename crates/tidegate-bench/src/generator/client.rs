//! `Client`: the service whose connections ask.
//!
//! ```text
//!  on_open      Take(lane)         greeting answered           Go                 End, or the time is over
//! ─────────▶ New ─────────▶ Greeting ──────────────▶ Ready ─────────▶ Asking ─────────▶ nothing in flight: closed
//!                  └─────── no greeting ───────────────▲
//! ```
//!
//! Invariant: a connection never has more requests in flight than the pipeline allows, and each of them stands in `in_flight`
//! with the time from which it is measured: when it was sent, or at a constant rate when it was due, so that a server that
//! stalls cannot hide the requests that it kept from being sent.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_engine::{
    Closed, ConnHandle, ConnectFailed, Decoded, Flow, Io, Limits, Peer, Phase, Reason, Refusal, Service,
    TimerToken,
};

use super::course::{Course, Pace, Times, now};
use super::dialogue::{Answers, Dialogue, Heard};
use super::spec::MAX_IN_FLIGHT_BYTES;
use super::tally::Tally;

/// The service of one thread.
#[derive(Debug)]
pub(super) struct Client<D> {
    pub(super) dialogue: D,
    pub(super) course: Arc<Course>,
    pub(super) tally: Arc<Mutex<Tally>>,
    /// Holds two events of a connection at the most: it is not made anew before the driver has seen its end.
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
    /// Requests that have been sent.
    pub(super) sent: u64,
}

/// What a connection is told.
#[derive(Debug)]
pub(super) enum Note {
    /// This is its place.
    Take(Lane),
    /// Asking begins.
    Go,
    /// It ends as soon as nothing is in flight.
    End,
}

/// What the driver is told.
#[derive(Debug)]
pub(super) enum Event {
    /// A connection is ready to ask.
    Opened(u32, ConnHandle<Note>),
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
    state: S,
    lane: Lane,
    stage: Stage,
    in_flight: VecDeque<u64>,
    /// When the timer is set for; 0: it is not.
    armed: u64,
    answered: u64,
    /// Since when something is in flight and nothing has come.
    waiting_since: u64,
    /// What was wrong with the last answer.
    trouble: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Greeting,
    Ready,
    Asking,
    Ending,
}

/// An answer was wrong.
const WRONG: Reason = Reason::custom(40);
/// The run is over. A reset, or the ports of a large run would be in TIME_WAIT when the next one needs them.
const OVER: Reason = Reason::custom(41);
/// The login was refused.
const REJECTED: Reason = Reason::custom(42);
/// The next request is due.
const DUE: TimerToken = TimerToken(0);
/// An answer may be overdue.
const OVERDUE: TimerToken = TimerToken(1);

impl<D: Dialogue> Client<D> {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The driver has gone when its run was given up; then nobody is to be told.
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    fn take(&self, io: &mut Io<'_>, session: &mut Session<D::State>, lane: Lane) {
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

    fn get_ready(&self, io: &mut Io<'_>, session: &mut Session<D::State>) {
        session.stage = Stage::Ready;
        self.tell(Event::Opened(session.lane.number, io.handle()));
        if self.course.times().is_some() {
            self.go(io, session);
        }
    }

    fn go(&self, io: &mut Io<'_>, session: &mut Session<D::State>) {
        if session.stage == Stage::Ready {
            session.stage = Stage::Asking;
            self.fill(io, session, now());
        }
    }

    /// Asks as much as may be in flight.
    #[inline]
    fn fill(&self, io: &mut Io<'_>, session: &mut Session<D::State>, now: u64) {
        let Some(times) = self.course.times() else { return };
        if session.stage != Stage::Asking || now >= times.end {
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
        let at = times.go + pace.due(session.lane.number, session.lane.sent);
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
    fn count(&self, session: &mut Session<D::State>, answers: Answers, bytes: usize, now: u64) -> bool {
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

    fn wrong(&self, session: &mut Session<D::State>, text: String) -> Flow {
        session.trouble = Some(text);
        Flow::Abort(WRONG)
    }

    /// What becomes of a connection after its answers.
    #[inline]
    fn follow(&self, io: &mut Io<'_>, session: &mut Session<D::State>, now: u64, last: bool) -> Flow {
        if last {
            return Flow::Abort(Reason::DONE);
        }
        if session.stage == Stage::Ending {
            return if session.in_flight.is_empty() { Flow::Abort(OVER) } else { Flow::Continue };
        }
        self.fill(io, session, now);
        Flow::Continue
    }

    /// The engine's deadline counts from what was received last, which may have been long before anything was asked.
    fn look_at_wait(&self, io: &mut Io<'_>, session: &Session<D::State>) -> Flow {
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

    /// Counts what a connection has lost by its end.
    fn count_loss(&self, session: &Session<D::State>, closed: &Closed) {
        let lost = session.in_flight.len() as u64;
        let now = now();
        let mut tally = self.tally();
        let address = closed.address;
        match closed.reason {
            OVER => {}
            WRONG => {
                tally.failures.wrong += lost.max(1);
                let text = session.trouble.as_deref().unwrap_or("an answer that nobody had asked for");
                tally.failures.tell(|| text.to_owned());
            }
            // Said beforehand, and a `GET` may be asked again (RFC 9112, section 9.3.2).
            Reason::DONE => return,
            // At the end of the run what is still in flight has had its time.
            Reason::STOPPED | Reason::IDLE_TIMEOUT | Reason::HEAD_TIMEOUT | Reason::WRITE_TIMEOUT => {
                tally.failures.timeout += lost;
                if lost > 0 {
                    tally.failures.tell(|| format!("no answer of {address} within {:?}", self.timeout));
                }
            }
            Reason::PEER_CLOSED => {
                tally.failures.closed += lost;
                if lost > 0 {
                    tally
                        .failures
                        .tell(|| format!("{address} closed a connection with a request unanswered"));
                }
            }
            Reason::INPUT_OVERFLOW => {
                tally.failures.wrong += lost.max(1);
                tally.failures.tell(|| format!("an answer of {address} has a head that is too long"));
            }
            reason => {
                tally.failures.reset += lost.max(1);
                let errno = closed.errno.map(std::io::Error::from_raw_os_error);
                let why = errno.map_or_else(|| reason.name().to_owned(), |error| error.to_string());
                tally.failures.tell(|| format!("a connection to {address}: {why}"));
            }
        }
        self.count_waiting(session, &mut tally, now);
    }

    /// At a constant rate, what had no answer took at least as long as it has waited: left out, the worst would be missing.
    fn count_waiting(&self, session: &Session<D::State>, tally: &mut Tally, now: u64) {
        let (Some(_), Some(times)) = (&self.pace, self.course.times()) else { return };
        for &since in session.in_flight.iter().filter(|since| times.counts(**since)) {
            tally.latency.record(Duration::from_nanos(now.saturating_sub(since)), 1);
            tally.lost += 1;
        }
    }
}

impl<D: Dialogue> Service for Client<D> {
    type Session = Session<D::State>;
    type Head = Answers;
    type Note = Note;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<Self::Session, Refusal> {
        let lane = Lane { number: 0, sent: 0 };
        Ok(Session {
            state: self.dialogue.begin(lane.number),
            lane,
            stage: Stage::New,
            in_flight: VecDeque::with_capacity(self.pipeline),
            armed: 0,
            answered: 0,
            waiting_since: 0,
            trouble: None,
        })
    }

    fn on_connect_failed(&self, failed: ConnectFailed<Note>) {
        if let Some(Note::Take(lane)) = failed.note {
            self.tell(Event::Failed(lane, format!("connect to {}: {}", failed.target, failed.error)));
        }
    }

    #[inline]
    fn decode(&self, session: &mut Self::Session, input: &[u8]) -> Decoded<Answers> {
        let heard = match session.stage {
            Stage::Greeting => self.dialogue.hear_greeting(input),
            _ => self.dialogue.hear(&mut session.state, input),
        };
        match heard {
            Heard::Answers { len, answers } => Decoded::Message { len, head: answers },
            Heard::Need(at_least) => Decoded::Need { phase: Phase::Head, at_least },
            Heard::Wrong(text) => {
                session.trouble = Some(text);
                Decoded::Close(if session.stage == Stage::Greeting { REJECTED } else { WRONG })
            }
        }
    }

    #[inline]
    fn on_message(
        &self,
        io: &mut Io<'_>,
        session: &mut Self::Session,
        answers: Answers,
        bytes: &[u8],
    ) -> Flow {
        if session.stage == Stage::Greeting {
            self.get_ready(io, session);
            return Flow::Continue;
        }
        let now = now();
        if !self.count(session, answers, bytes.len(), now) {
            return self.wrong(session, "an answer that nobody had asked for".to_owned());
        }
        self.follow(io, session, now, answers.last)
    }

    fn on_note(&self, io: &mut Io<'_>, session: &mut Self::Session, note: Note) -> Flow {
        match note {
            Note::Take(lane) => self.take(io, session, lane),
            Note::Go => self.go(io, session),
            Note::End => {
                session.stage = Stage::Ending;
                return self.follow(io, session, now(), false);
            }
        }
        Flow::Continue
    }

    fn on_timer(&self, io: &mut Io<'_>, session: &mut Self::Session, timer: TimerToken) -> Flow {
        if timer == OVERDUE {
            return self.look_at_wait(io, session);
        }
        let now = now();
        let due = std::mem::take(&mut session.armed);
        if session.in_flight.len() < self.pipeline
            && self.course.times().is_some_and(|times| times.counts(due))
        {
            self.tally().lateness.record(Duration::from_nanos(now.saturating_sub(due)), 1);
        }
        self.fill(io, session, now);
        Flow::Continue
    }

    fn on_deadline(&self, io: &mut Io<'_>, session: &mut Self::Session, phase: Phase) -> Flow {
        if phase == Phase::Idle && session.stage != Stage::Greeting {
            return self.look_at_wait(io, session);
        }
        Flow::Abort(phase.timeout_reason())
    }

    fn on_eof(&self, _: &mut Io<'_>, session: &mut Self::Session) -> Flow {
        let ended = self.dialogue.hear_end(&mut session.state);
        if self.count(session, ended, 0, now()) {
            return Flow::Abort(Reason::PEER_CLOSED);
        }
        self.wrong(session, "an answer that nobody had asked for".to_owned())
    }

    fn on_close(&self, session: Self::Session, closed: &Closed) {
        if matches!(session.stage, Stage::New | Stage::Greeting) && closed.reason != Reason::STOPPED {
            let why = session.trouble.unwrap_or_else(|| format!("{} before it was ready", closed.reason));
            if closed.reason == REJECTED {
                return self.tell(Event::Rejected(why));
            }
            return self
                .tell(Event::Failed(session.lane, format!("connection to {}: {why}", closed.address)));
        }
        self.count_loss(&session, closed);
        let mut lane = session.lane;
        if closed.reason == Reason::DONE {
            lane.sent -= session.in_flight.len() as u64;
        }
        self.tell(Event::Closed { lane, was_useful: session.answered > 0 });
    }

    fn limits(&self) -> Limits {
        let timeout = Some(self.timeout);
        Limits {
            idle_timeout: timeout,
            head_timeout: timeout,
            body_timeout: timeout,
            write_timeout: timeout,
            // While it would not read, neither would a server that waits for it to: an echo of much would stand still.
            high_water_bytes: usize::MAX,
            low_water_bytes: usize::MAX,
            max_output_bytes: 2 * MAX_IN_FLIGHT_BYTES,
            ..Limits::default()
        }
    }
}
