//! `Obedient`: a service that does what its peers' requests say, and writes down what it sees.
//!
//! Invariant: every answer is a frame with a number of its own, so that the peer can tell whether one is missing.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{
    Closed, Decoded, Flow, Instant, Io, Limits, Peer, Phase, Reason, Refusal, Service, TimerToken,
};

use super::ledger::{Note, SharedLedger};
use super::plan::{AtEof, Op};
use super::wire::{FILE_UNIT, HEAD_BYTES, Head, Kind};

pub(crate) struct Obedient {
    pub(crate) ledger: SharedLedger,
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) overload_answer: Option<&'static [u8]>,
}

/// Timers of the service's own, apart from those that peers ask for.
const RESUME: u32 = 100;
const GOODBYE: u32 = 101;
/// The body of a streamed frame.
const STREAMED_BYTES: u16 = 1_000;

/// Deadlines and marks: short, so that many of them pass in a run.
pub(crate) const LIMITS: Limits = Limits {
    idle_timeout: Some(Duration::from_secs(3)),
    head_timeout: Some(Duration::from_millis(800)),
    body_timeout: Some(Duration::from_millis(1_200)),
    write_timeout: Some(Duration::from_secs(2)),
    max_input_bytes: 32 << 10,
    high_water_bytes: 24 << 10,
    low_water_bytes: 6 << 10,
    max_output_bytes: 128 << 10,
    min_rate_bytes: 0,
    min_rate_grace: Duration::ZERO,
    max_connections_per_address: 0,
};

/// Of which connection of the plan it is.
#[derive(Debug)]
pub(crate) struct Session {
    conn: u32,
}

impl Service for Obedient {
    type Session = Session;
    type Head = Head;
    type Note = Note;

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<Session, Refusal> {
        let mut ledger = self.ledger.lock();
        let Some(conn) = ledger.opened(io.id(), Some(io.handle())) else {
            return Err(Reason::REFUSED.into());
        };
        match ledger.conn_plan(conn).refusal {
            Some(answer) => Err(Refusal { reason: Reason::REFUSED, answer }),
            None => Ok(Session { conn }),
        }
    }

    fn decode(&self, session: &mut Session, input: &[u8]) -> Decoded<Head> {
        decode(&self.ledger, session.conn, input)
    }

    fn on_message(&self, io: &mut Io<'_>, session: &mut Session, head: Head, bytes: &[u8]) -> Flow {
        let conn = session.conn;
        let op = {
            let mut ledger = self.ledger.lock();
            let Some(request) = ledger.conn_plan(conn).script.get(head.number as usize).copied() else {
                ledger.violated(|| format!("#{conn}: request {} was never said", head.number));
                return Flow::Abort(Reason::PROTOCOL_ERROR);
            };
            if ledger.message(conn, io.id(), head, bytes).is_none() {
                return Flow::Continue;
            }
            request.op
        };
        self.obey(io, conn, op, head)
    }

    fn on_note(&self, io: &mut Io<'_>, session: &mut Session, note: Note) -> Flow {
        let conn = session.conn;
        {
            let mut ledger = self.ledger.lock();
            ledger.check(note.conn == conn, || format!("#{conn}: on_note with a note for #{}", note.conn));
            let Some(entry) = ledger.called(conn, io.id(), "on_note") else { return Flow::Continue };
            let awaits = entry.awaits;
            match (note.awaited, awaits) {
                // Somebody else's note does not end the wait.
                (None, Some(_)) => return Flow::Suspend,
                (None, None) => {}
                (Some(number), _) => {
                    entry.awaits = None;
                    ledger.check(awaits == Some(number), || {
                        format!("#{conn}: note {number} while {awaits:?} is awaited")
                    });
                }
            }
        }
        self.answer(io, conn, 20);
        Flow::Continue
    }

    fn on_timer(&self, io: &mut Io<'_>, session: &mut Session, timer: TimerToken) -> Flow {
        let conn = session.conn;
        {
            let mut ledger = self.ledger.lock();
            let now = io.now();
            ledger.expired(conn, timer, now);
            let Some(entry) = ledger.called(conn, io.id(), "on_timer") else { return Flow::Continue };
            if timer.0 == RESUME {
                entry.paused = false;
                io.resume();
            }
        }
        self.answer(io, conn, 10);
        if timer.0 == GOODBYE { self.goodbye(conn) } else { Flow::Continue }
    }

    fn on_drained(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        let conn = session.conn;
        let mut ledger = self.ledger.lock();
        ledger.seen.at("drained");
        let Some(entry) = ledger.called(conn, io.id(), "on_drained") else { return Flow::Continue };
        let (streams, ended) = (entry.stream > 0, entry.eof_told);
        let at_eof = ledger.conn_plan(conn).at_eof;
        drop(ledger);
        if !streams {
            return Flow::Continue;
        }
        self.stream(io, conn);
        let is_done = self.ledger.lock().conns.get(&conn).is_some_and(|entry| entry.stream == 0);
        if ended && is_done && at_eof != AtEof::Later { self.goodbye(conn) } else { Flow::Continue }
    }

    fn on_deadline(&self, io: &mut Io<'_>, session: &mut Session, phase: Phase) -> Flow {
        let conn = session.conn;
        let reason = phase.timeout_reason();
        let mut ledger = self.ledger.lock();
        ledger.seen.at("deadline");
        let now = io.now();
        let Some(entry) = ledger.called(conn, io.id(), "on_deadline") else { return Flow::Continue };
        let (since, after) = match phase {
            Phase::Idle => (entry.last_in, LIMITS.idle_timeout),
            Phase::Head => (entry.opened, LIMITS.head_timeout),
            Phase::Body => (entry.last_in, LIMITS.body_timeout),
            Phase::Write => (entry.last_out, LIMITS.write_timeout),
        };
        let waited = now.saturating_duration_since(since);
        ledger.check(after.is_some_and(|after| waited >= after), || {
            format!("#{conn}: the deadline of phase {phase:?} after {waited:?}")
        });
        ledger.timed_out(conn, reason);
        let answers = ledger.conn_plan(conn).answers_deadline && phase != Phase::Write;
        ledger.end(conn, reason, answers);
        drop(ledger);
        if answers {
            self.send(io, conn, Kind::Answer, 0, 5);
            return Flow::CloseAfterFlush(reason);
        }
        Flow::Abort(reason)
    }

    fn on_eof(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        let conn = session.conn;
        let mut ledger = self.ledger.lock();
        ledger.seen.at("eof");
        let plan = ledger.conn_plan(conn).at_eof;
        ledger.say(|| format!("#{conn} will {plan:?} at its end"));
        let Some(entry) = ledger.called(conn, io.id(), "on_eof") else { return Flow::Continue };
        let (told, awaits, streams) = (entry.eof_told, entry.awaits, entry.stream > 0);
        entry.eof_told = true;
        ledger.check(!told, || format!("#{conn}: on_eof twice"));
        ledger.check(awaits.is_none(), || format!("#{conn}: on_eof while it is suspended"));
        let at_eof = ledger.conn_plan(conn).at_eof;
        drop(ledger);
        match at_eof {
            AtEof::Later => {
                self.set_timer(io, conn, GOODBYE, Duration::from_millis(7));
                Flow::Continue
            }
            // It goes on from `on_drained`.
            _ if streams => Flow::Continue,
            AtEof::SayGoodbye => {
                self.answer(io, conn, 3);
                self.goodbye(conn)
            }
            AtEof::Close => {
                self.ledger.lock().end(conn, Reason::PEER_CLOSED, true);
                Flow::CloseAfterFlush(Reason::PEER_CLOSED)
            }
        }
    }

    fn on_retire(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        let conn = session.conn;
        let mut ledger = self.ledger.lock();
        ledger.seen.at("retire");
        let Some(entry) = ledger.called(conn, io.id(), "on_retire") else { return Flow::Continue };
        entry.retire_told += 1;
        let told = entry.retire_told;
        ledger.check(told <= 2, || format!("#{conn}: on_retire {told} times"));
        if !ledger.conn_plan(conn).leaves {
            return Flow::Continue;
        }
        ledger.end(conn, Reason::SHUTDOWN, true);
        Flow::CloseAfterFlush(Reason::SHUTDOWN)
    }

    fn on_close(&self, session: Session, closed: &Closed) {
        self.ledger.lock().closed(session.conn, closed);
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn overload_answer(&self) -> Option<&'static [u8]> {
        self.overload_answer
    }
}

impl Obedient {
    fn obey(&self, io: &mut Io<'_>, conn: u32, op: Op, head: Head) -> Flow {
        match op {
            Op::File { .. } => self.ledger.lock().seen.at("file"),
            Op::Suspend(_) => self.ledger.lock().seen.at("suspended"),
            Op::Pause(_) => self.ledger.lock().seen.at("paused"),
            _ => {}
        }
        match op {
            Op::Echo => self.answer(io, conn, head.len),
            Op::Answer(len) => self.answer(io, conn, len),
            Op::File { unit, len } => self.send(io, conn, Kind::File, unit, len),
            Op::Stream(frames) => {
                if let Some(entry) = self.ledger.lock().conns.get_mut(&conn) {
                    entry.stream += frames;
                }
                self.stream(io, conn);
            }
            Op::Suspend(after) => {
                let mut ledger = self.ledger.lock();
                let at = ledger.now + after;
                let Some(entry) = ledger.conns.get_mut(&conn) else { return Flow::Continue };
                entry.notes += 1;
                let number = entry.notes;
                entry.awaits = Some(number);
                ledger.notes.push((at, conn, number));
                return Flow::Suspend;
            }
            Op::SetTimer(timer, after) => self.set_timer(io, conn, timer, after),
            Op::CancelTimer(timer) => {
                io.cancel_timer(TimerToken(timer));
                self.ledger.lock().set_timer(conn, timer, None);
            }
            Op::Pause(after) => {
                io.pause();
                self.set_timer(io, conn, RESUME, after);
                if let Some(entry) = self.ledger.lock().conns.get_mut(&conn) {
                    entry.paused = true;
                }
            }
            Op::Close => {
                self.answer(io, conn, 100);
                return self.goodbye(conn);
            }
            Op::AbortWithFin => return self.abort(conn, Reason::DONE),
            Op::AbortWithReset => return self.abort(conn, Reason::FLOOD),
            Op::Panic => {
                self.ledger.lock().end(conn, Reason::PANIC, false);
                // As a panic, but for its message on standard error.
                std::panic::resume_unwind(Box::new("as it was asked to"));
            }
        }
        Flow::Continue
    }

    fn goodbye(&self, conn: u32) -> Flow {
        self.ledger.lock().end(conn, Reason::DONE, true);
        Flow::CloseAfterFlush(Reason::DONE)
    }

    fn abort(&self, conn: u32, reason: Reason) -> Flow {
        self.ledger.lock().end(conn, reason, false);
        Flow::Abort(reason)
    }

    fn set_timer(&self, io: &mut Io<'_>, conn: u32, timer: u32, after: Duration) {
        io.set_timer(TimerToken(timer), after);
        let at: Instant = io.now() + after;
        self.ledger.lock().set_timer(conn, timer, Some(at));
    }

    fn answer(&self, io: &mut Io<'_>, conn: u32, len: u16) {
        self.send(io, conn, Kind::Answer, 0, len);
    }

    /// Sends frames until the connection is over its mark or there are no more.
    fn stream(&self, io: &mut Io<'_>, conn: u32) {
        while io.queued_bytes() <= LIMITS.high_water_bytes {
            {
                let mut ledger = self.ledger.lock();
                let Some(entry) = ledger.conns.get_mut(&conn) else { return };
                let Some(left) = entry.stream.checked_sub(1) else { return };
                entry.stream = left;
            }
            self.answer(io, conn, STREAMED_BYTES);
        }
    }

    fn send(&self, io: &mut Io<'_>, conn: u32, kind: Kind, arg: u8, len: u16) {
        let number = {
            let mut ledger = self.ledger.lock();
            let Some(entry) = ledger.conns.get_mut(&conn) else { return };
            entry.sent += 1;
            entry.sent - 1
        };
        let head = Head { kind, arg, len, number };
        if kind == Kind::File {
            io.send(&head.encode());
            io.send_file(Arc::clone(&self.file), u64::from(arg) * FILE_UNIT as u64, u64::from(len));
        } else {
            io.send(&head.frame(conn));
        }
    }
}

/// Looks for a request: as its peer would say it, or it is a violation.
pub(super) fn decode(ledger: &SharedLedger, conn: u32, input: &[u8]) -> Decoded<Head> {
    if input.len() < HEAD_BYTES {
        return Decoded::Need { phase: Phase::Head, at_least: HEAD_BYTES };
    }
    let Some(head) = Head::decode(input).filter(|head| head.kind == Kind::Request) else {
        let head = &input[..HEAD_BYTES];
        ledger.lock().violated(|| format!("#{conn}: input that no peer has said: {head:?}"));
        return Decoded::Close(Reason::PROTOCOL_ERROR);
    };
    let len = head.frame_bytes();
    if input.len() < len {
        return Decoded::Need { phase: Phase::Body, at_least: len };
    }
    Decoded::Message { len, head }
}
