//! `Web`: the service itself. Heads come in, and a route, a file, an error or a deadline answers.
//!
//! Invariant: every request gets exactly one final answer, in the order of the requests; an answer after which the framing
//! is lost is the last one of its connection.

use tidegate_engine::{CounterDef, Decoded, Flow, Io, Peer, Phase, Reason, Refusal, Service};
use tidegate_http::{BodyFraming, Head, Method, Status};

use crate::answer::{self, Answer, finish};
use crate::builder::WebBuilder;
use crate::counters;
use crate::delivery::Delivery;
use crate::exchange::{Client, Exchange};
use crate::session::{Held, Kind, Limits, Message, Session};
use crate::site::Site;

/// A web server as a [`Service`]: fixed answers, handlers and static files over HTTP/1.1.
#[derive(Debug)]
pub struct Web {
    pub(crate) site: Site,
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
    fn answer(&self, io: &mut Io<'_>, head: &Head, bytes: &[u8]) -> Flow {
        let delivery = Delivery::of(head, io);
        self.deliver(io, head, bytes, delivery)
    }

    #[inline]
    fn deliver(&self, io: &mut Io<'_>, head: &Head, bytes: &[u8], delivery: Delivery) -> Flow {
        let site = &self.site;
        let client = Client { address: io.peer().address, secure: false };
        let exchange = Exchange { head, bytes, site, client, unix_time: io.unix_time() };
        let answer = site.decide(io, &exchange);
        finish(io, site, delivery, answer)
    }

    /// Answers what is no request that could be decided, for the last time.
    fn refuse(&self, io: &mut Io<'_>, method: Method, status: Status, reason: Reason) -> Flow {
        let answer: Answer = self.site.error(status).into();
        finish(io, &self.site, Delivery::last(method, reason), answer)
    }

    fn refuse_body(&self, io: &mut Io<'_>, method: Method) -> Flow {
        io.count(counters::BODIES_TOO_LARGE, 1);
        self.refuse(io, method, Status::CONTENT_TOO_LARGE, Reason::PROTOCOL_ERROR)
    }

    /// A head with a body behind it: the request is refused now, or answered when the body has ended.
    fn begin_body(&self, io: &mut Io<'_>, session: &mut Session, head: Head, bytes: &[u8]) -> Flow {
        if matches!(head.body(), BodyFraming::Length(length) if length > self.limits.max_body_bytes) {
            return self.refuse_body(io, head.method());
        }
        let reads = matches!(head.method(), Method::Get | Method::Head);
        if head.expects_unknown() || (head.expects_continue() && !reads) {
            // The client waits to hear whether the body is wanted. It is not; and whether it comes none the less cannot
            // be known, so nothing can follow on this connection (RFC 9110, section 10.1.1).
            let delivery = Delivery::of(&head, io).closing();
            return self.deliver(io, &head, bytes, delivery);
        }
        if head.expects_continue() {
            io.send(answer::CONTINUE);
        }
        session.begin_body(head, bytes, &self.limits.head);
        io.expect(Phase::Body);
        Flow::Continue
    }
}

impl Service for Web {
    type Session = Session;
    type Head = Message;
    type Note = ();

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
                if head.body() == BodyFraming::None {
                    self.answer(io, &head, bytes)
                } else {
                    self.begin_body(io, session, head, bytes)
                }
            }
            Kind::BodyPart => Flow::Continue,
            Kind::BodyEnd => match session.end_body() {
                Some(Held { head, bytes }) => {
                    io.expect(Phase::Idle);
                    self.answer(io, &head, &bytes)
                }
                None => Flow::Continue,
            },
            Kind::BodyTooLarge => {
                let method = session.end_body().map_or(Method::Other, |held| held.head.method());
                self.refuse_body(io, method)
            }
            Kind::Bad(error) => {
                io.count(counters::BAD_REQUESTS, 1);
                tracing::debug!(%error, "bad request");
                self.refuse(io, Method::Other, error.status(), Reason::PROTOCOL_ERROR)
            }
        }
    }

    fn on_deadline(&self, io: &mut Io<'_>, session: &mut Session, phase: Phase) -> Flow {
        match phase {
            Phase::Write => Flow::Abort(phase.timeout_reason()),
            // An idle peer is not told anything: it could take the 408 for the answer to a request that is under way.
            Phase::Idle if session.is_idle() => Flow::CloseAfterFlush(Reason::KEEP_ALIVE_TIMEOUT),
            Phase::Idle | Phase::Head | Phase::Body => {
                io.count(counters::REQUEST_TIMEOUTS, 1);
                let reason = if session.is_in_body() { Reason::BODY_TIMEOUT } else { Reason::HEAD_TIMEOUT };
                self.refuse(io, Method::Other, Status::REQUEST_TIMEOUT, reason)
            }
        }
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
