//! The client as the engine sees it: a service whose connections are outgoing ones.
//!
//! Invariant: each connection that is asked for is told of once as made or failed, and once as ended if it was made.

use std::time::Duration;

use tidegate_engine::{
    Closed, ConnectFailed, Decoded, Flow, Io, Limits, Peer, Phase, Reason, Refusal, Service, TimerToken,
};

use super::client::{Client, Event, Note, OVER, OVERDUE, REJECTED, Session, Stage, WRONG};
use super::course::now;
use super::dialogue::{Answers, Dialogue, Heard};
use super::spec::MAX_IN_FLIGHT_BYTES;

impl<D: Dialogue> Service for Client<D> {
    type Session = Session<D::State>;
    type Head = Answers;
    type Note = Note;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<Self::Session, Refusal> {
        Ok(Session::new(self.dialogue.begin(0), self.pipeline))
    }

    fn on_connect_failed(&self, failed: ConnectFailed<Note>) {
        if let Some(Note::Take(lane, _)) = failed.note {
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
            Note::Take(lane, since) => self.take(io, session, lane, since),
            Note::Go => self.go(io, session),
            Note::Settle => self.settle(io, session),
            Note::GiveUp => return Flow::Abort(Reason::IDLE_TIMEOUT),
            Note::End => return Flow::Abort(OVER),
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
