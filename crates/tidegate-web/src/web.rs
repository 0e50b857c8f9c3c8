//! `Web`: the service itself. Heads come in, and a route, a file, an error or a deadline answers.
//!
//! Invariant: every request gets exactly one final answer, in the order of the requests; an answer after which the framing
//! is lost is the last one of its connection.

use std::sync::Arc;

use tidegate_engine::{
    Closed, CounterDef, Decoded, Flow, Io, Peer, Phase, Reason, Refusal, Service, TimerToken,
};
use tidegate_http::{BodyFraming, Head, Method, Status};

use crate::access_log::{AccessLog, Entry, Outcome, monotonic_ns};
use crate::admission::{Admission, LOGIN_DUE};
use crate::answer::{self, Answer, Finished, finish, finish_encoded};
use crate::builder::WebBuilder;
use crate::counters;
use crate::delivery::Delivery;
use crate::dispatch::{ANSWER, Handlers, receive_body};
use crate::encoded::Encoded;
use crate::extra::Ongoing;
use crate::gate::Networks;
use crate::incoming::{Fate, Incoming};
use crate::note::Note;
use crate::pace::{NEXT_PIECE, Pace};
use crate::request_id::RequestIds;
use crate::session::{Kind, Limits, Message, Session};
use crate::site::{Decision, Site};
use crate::sites::Sites;

/// A web server as a [`Service`]: fixed answers, handlers and static files over HTTP/1.1.
#[derive(Debug)]
pub struct Web {
    pub(crate) sites: Sites,
    pub(crate) handlers: Handlers,
    /// No request has to be examined before it is decided.
    pub(crate) is_plain: bool,
    /// Answers are recorded, or sent at a rate.
    pub(crate) follows_answers: bool,
    pub(crate) trusted_proxies: Networks,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) request_ids: RequestIds,
    /// Requests of a connection, the last of which ends it; 0: no limit.
    pub(crate) max_requests: u32,
    pub(crate) limits: Limits,
    pub(crate) engine_limits: tidegate_engine::Limits,
}

impl Web {
    /// Begins to say what is served.
    pub const fn builder() -> WebBuilder {
        WebBuilder::new()
    }

    /// Answers a request whose body, if it had one, has been dropped.
    #[inline]
    pub(crate) fn answer(&self, io: &mut Io<'_>, session: &mut Session, head: &Head, bytes: &[u8]) -> Flow {
        self.deliver(io, session, (head, bytes), Delivery::of(head, io))
    }

    #[inline]
    fn deliver(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        (head, bytes): (&Head, &[u8]),
        delivery: Delivery,
    ) -> Flow {
        let exchange = self.exchange(io, head, bytes);
        match exchange.site.decide(io, &exchange) {
            Decision::Fixed(encoded) => self.finish_encoded(io, session, exchange.site, delivery, encoded),
            Decision::Answer(Answer::Encoded(encoded)) => {
                self.finish_encoded(io, session, exchange.site, delivery, &encoded)
            }
            Decision::Answer(answer) => self.finish(io, session, exchange.site, delivery, answer),
            Decision::Run(found) => self.run(io, session, &exchange, None, found),
        }
    }

    /// As [`finish`](Self::finish), for what most requests are answered with.
    #[inline]
    fn finish_encoded(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        site: &Site,
        delivery: Delivery,
        encoded: &Arc<Encoded>,
    ) -> Flow {
        if session.has_extra().is_some() || self.follows_answers {
            return self.finish_with_extra(io, session, site, delivery, Answer::Encoded(Arc::clone(encoded)));
        }
        finish_encoded(io, self.counted(session, delivery), encoded)
    }

    /// Sends an answer, with what was noted for it when its request came.
    pub(crate) fn finish(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        site: &Site,
        delivery: Delivery,
        answer: Answer,
    ) -> Flow {
        if session.has_extra().is_some() || self.follows_answers {
            return self.finish_with_extra(io, session, site, delivery, answer);
        }
        let delivery = self.counted(session, delivery);
        finish(io, site, delivery, delivery.connection.field(), answer).flow
    }

    fn finish_with_extra(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        site: &Site,
        delivery: Delivery,
        answer: Answer,
    ) -> Flow {
        let (Finished { flow, rest, .. }, entry) = self.begin_answer(io, session, site, delivery, answer);
        if let (Some(entry), Some(log)) = (entry, &self.access_log) {
            session.extra().answered(io, log, entry);
        }
        let flow = match rest {
            None => flow,
            Some(body) => {
                io.pause();
                session.extra().pace = Some(Pace::new(body, site.limit_rate, io.now(), flow));
                Self::send_piece(io, session)
            }
        };
        session.tidy();
        flow
    }

    /// Sends an answer but for what follows by and by, and says what is to be recorded of it.
    pub(crate) fn begin_answer(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        site: &Site,
        delivery: Delivery,
        answer: Answer,
    ) -> (Finished, Option<Box<Entry>>) {
        let delivery = self.counted(session, delivery);
        let ongoing = session.has_extra().and_then(|extra| extra.ongoing.take());
        let Ongoing { mut lines, mut entry } = ongoing.unwrap_or_default();
        lines.extend_from_slice(delivery.connection.field());
        let finished = finish(io, site, delivery, &lines, answer);
        let body_begins = session.given_bytes + finished.head_bytes;
        session.given_bytes = body_begins + finished.body_bytes;
        if let Some(entry) = &mut entry {
            entry.status = finished.status.code();
            entry.body_begins = body_begins;
            entry.body_bytes = finished.body_bytes;
            entry.answered = monotonic_ns();
        }
        (finished, entry)
    }

    /// Only where requests are counted is there a last one, whose answer says so.
    #[inline]
    const fn counted(&self, session: &Session, delivery: Delivery) -> Delivery {
        let is_last = self.max_requests > 0 && session.requests >= self.max_requests;
        if is_last { delivery.closing() } else { delivery }
    }

    /// Sends the next piece of a body; what becomes of the connection when it was the last.
    fn send_piece(io: &mut Io<'_>, session: &mut Session) -> Flow {
        let extra = session.extra();
        let Some(then) = extra.pace.as_mut().and_then(|pace| pace.send(io)) else { return Flow::Continue };
        extra.pace = None;
        io.resume();
        then
    }

    /// Answers what cannot be gone on with, for the last time.
    pub(crate) fn refuse(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        (site, method): (&Site, Method),
        (status, reason): (Status, Reason),
    ) -> Flow {
        self.finish(io, session, site, Delivery::last(method, reason), site.error(status).into())
    }

    pub(crate) fn refuse_body(&self, io: &mut Io<'_>, session: &mut Session, asked: (&Site, Method)) -> Flow {
        io.count(counters::BODIES_TOO_LARGE, 1);
        self.refuse(io, session, asked, (Status::CONTENT_TOO_LARGE, Reason::PROTOCOL_ERROR))
    }

    /// There is no memory for a body, or not for that long.
    pub(crate) fn refuse_memory(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        let (site, method) = (self.site_of_body(session), session.method());
        session.end_body();
        let answer = Self::no_room(io, site).into();
        self.finish(io, session, site, Delivery::last(method, Reason::OVERLOADED), answer)
    }

    /// A request that was let in.
    #[inline]
    pub(crate) fn on_head(&self, io: &mut Io<'_>, session: &mut Session, head: &Head, bytes: &[u8]) -> Flow {
        if head.body() == BodyFraming::None {
            self.answer(io, session, head, bytes)
        } else {
            self.begin_body(io, session, *head, bytes)
        }
    }

    /// A head with a body behind it: the request is refused now, or answered when the body has ended.
    fn begin_body(&self, io: &mut Io<'_>, session: &mut Session, head: Head, bytes: &[u8]) -> Flow {
        let exchange = self.exchange(io, &head, bytes);
        if let Some(found) = exchange.site.find(&exchange) {
            return self.begin_wanted(io, session, &exchange, found);
        }
        if matches!(head.body(), BodyFraming::Length(length) if length > self.limits.max_body_bytes) {
            return self.refuse_body(io, session, (exchange.site, head.method()));
        }
        let reads = matches!(head.method(), Method::Get | Method::Head);
        if head.expects_unknown() || (head.expects_continue() && !reads) {
            // The client waits to hear whether the body is wanted. It is not; and whether it comes none the less cannot
            // be known, so nothing can follow on this connection (RFC 9110, section 10.1.1).
            let delivery = Delivery::of(&head, io).closing();
            return self.deliver(io, session, (&head, bytes), delivery);
        }
        session.begin_body(Incoming::new(head, bytes, &self.limits, Fate::Drop));
        receive_body(io, session, &head)
    }
}

impl Service for Web {
    type Session = Session;
    type Head = Message;
    type Note = Note;

    const COUNTERS: &'static [CounterDef] = counters::DEFS;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<Session, Refusal> {
        Ok(Session::default())
    }

    #[inline]
    fn decode(&self, session: &mut Session, input: &[u8]) -> Decoded<Message> {
        session.decode(input, &self.limits)
    }

    #[inline]
    fn on_message(&self, io: &mut Io<'_>, session: &mut Session, message: Message, bytes: &[u8]) -> Flow {
        match message.0 {
            Kind::Head(head) => {
                io.count(counters::REQUESTS, 1);
                match self.admit(io, session, &head, bytes) {
                    Admission::Go => self.on_head(io, session, &head, bytes),
                    Admission::Refused(answer) => self.turn_away(io, session, &head, bytes, *answer),
                    Admission::Wait => Flow::Suspend,
                }
            }
            Kind::BodyPart => self.on_body(io, session, false),
            Kind::BodyEnd => self.on_body(io, session, true),
            Kind::BodyTooLarge => {
                let (site, method) = (self.site_of_body(session), session.method());
                session.end_body();
                self.refuse_body(io, session, (site, method))
            }
            Kind::NoMemory => self.refuse_memory(io, session),
            Kind::Bad(error, method) => {
                io.count(counters::BAD_REQUESTS, 1);
                tracing::debug!(%error, "bad request");
                let site = self.site_of_unread(io, session);
                // What has been begun with the body is undone now, and not when the connection has ended.
                session.end_body();
                self.refuse(io, session, (site, method), (error.status(), Reason::PROTOCOL_ERROR))
            }
        }
    }

    fn on_note(&self, io: &mut Io<'_>, session: &mut Session, note: Note) -> Flow {
        let flow = self.on_word(io, session, note.0);
        session.tidy();
        flow
    }

    fn on_timer(&self, io: &mut Io<'_>, session: &mut Session, timer: TimerToken) -> Flow {
        let flow = match timer {
            ANSWER => self.on_handler_timeout(io, session),
            NEXT_PIECE if session.outgoing().is_some() => self.on_room(io, session),
            NEXT_PIECE => Self::send_piece(io, session),
            LOGIN_DUE => self.on_login_overdue(io, session),
            _ => Flow::Continue,
        };
        session.tidy();
        flow
    }

    fn on_sent(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        if let Some(extra) = session.has_extra() {
            let mut is_whole = true;
            if let Some(pace) = &extra.pace {
                pace.sent(io);
                is_whole = pace.is_sent();
            }
            if let Some(log) = self.access_log.as_ref().filter(|_| is_whole) {
                extra.record(log, Outcome::Sent);
            }
        }
        session.tidy();
        Flow::Continue
    }

    fn on_close(&self, session: Session, closed: &Closed) {
        self.end(session, closed.bytes_taken);
    }

    fn on_deadline(&self, io: &mut Io<'_>, session: &mut Session, phase: Phase) -> Flow {
        match phase {
            Phase::Write => Flow::Abort(phase.timeout_reason()),
            // An idle peer is not told anything: it could take the 408 for the answer to a request that is under way.
            Phase::Idle if session.is_idle() => Flow::CloseAfterFlush(Reason::KEEP_ALIVE_TIMEOUT),
            Phase::Idle | Phase::Head | Phase::Body => {
                io.count(counters::REQUEST_TIMEOUTS, 1);
                let reason = if session.is_in_body() { Reason::BODY_TIMEOUT } else { Reason::HEAD_TIMEOUT };
                let (site, method) = (self.site_of_unread(io, session), session.method());
                self.refuse(io, session, (site, method), (Status::REQUEST_TIMEOUT, reason))
            }
        }
    }

    fn on_drained(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        self.on_room(io, session)
    }

    fn on_retire(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        // The next request of an idle client may be under way and would be lost, so while there is time it is answered and
        // told to be the last; an idle client that sends none has its keep-alive time.
        if session.is_idle() && !io.draining() {
            Flow::CloseAfterFlush(Reason::SHUTDOWN)
        } else {
            Flow::Continue
        }
    }

    fn limits(&self) -> tidegate_engine::Limits {
        self.engine_limits
    }

    fn overload_answer(&self) -> Option<&'static [u8]> {
        Some(answer::OVERLOADED)
    }
}
