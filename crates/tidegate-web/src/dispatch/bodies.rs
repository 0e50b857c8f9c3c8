//! How the body of a request gets to its endpoint: collected, or part by part to a sink, here or on the pool.
//!
//! Invariant: while a sink is with a thread of the pool, nothing is received; a sink that has refused gets nothing more, and the
//! connection ends with its answer unless all of the body has come.

use std::sync::Arc;

use tidegate_engine::{Flow, Io, Phase};
use tidegate_http::{BodyFraming, Head, Status};

use super::{ANSWER, Call};
use crate::answer;
use crate::budget::Collected;
use crate::delivery::Delivery;
use crate::endpoint::Work;
use crate::exchange::Exchange;
use crate::incoming::{Fate, Incoming, SinkSeat};
use crate::routes::Found;
use crate::session::{Held, Limits, Session};
use crate::sink::{self, SinkReport, SinkStep};
use crate::{BodySink, Response, Web};

impl Web {
    /// A head with a body behind it that is for this endpoint.
    pub(crate) fn begin_wanted(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        exchange: &Exchange<'_>,
        found: Found<'_>,
    ) -> Flow {
        let (head, bytes) = (*exchange.head, exchange.bytes);
        let max_body_bytes = found.endpoint.max_body_bytes.unwrap_or(self.limits.max_body_bytes);
        let limits = Limits { max_body_bytes, ..self.limits };
        if matches!(head.body(), BodyFraming::Length(length) if length > max_body_bytes) {
            return self.refuse_body(io, session, (exchange.site, head.method()));
        }
        if let Work::Sink(open) = &found.endpoint.work {
            let seat = SinkSeat::new(None, found.endpoint.blocking, Response::new(Status::ACCEPTED));
            session.begin_body(Incoming::new(head, bytes, &limits, Fate::Sink(seat)));
            if found.endpoint.blocking {
                return self.open_on_pool(io, session, exchange, found);
            }
            let client = self.client(io, &head, bytes);
            let call = Call::new(exchange, client, &[], &found);
            return match self.handlers.around.open(&call, open) {
                Ok((sink, added)) => self.on_sink(io, session, SinkStep::Opened(sink, added)),
                Err(refusal) => self.on_sink(io, session, SinkStep::Refused(refusal)),
            };
        }
        let collected = Collected::new(Arc::clone(&self.handlers.budget));
        let fate = Fate::Collect(found.into_owned(), collected, io.now());
        session.begin_body(Incoming::new(head, bytes, &limits, fate));
        receive_body(io, session, &head)
    }

    fn open_on_pool(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        exchange: &Exchange<'_>,
        found: Found<'_>,
    ) -> Flow {
        let Some((pool, permit)) = self.permit() else {
            let refusal = Self::no_room(io, exchange.site);
            return self.on_sink(io, session, SinkStep::Refused(refusal));
        };
        let &Exchange { head, bytes, unix_time, .. } = exchange;
        let client = self.client(io, head, bytes);
        let held = Held { head: *head, bytes: bytes.into() };
        let (around, found) = (Arc::clone(&self.handlers.around), found.into_owned());
        let report = SinkReport::new(io.handle());
        pool.submit(
            permit,
            Box::new(move || {
                let Work::Sink(open) = &found.endpoint.work else { return };
                let Held { head, bytes } = &held;
                let call = Call { head, bytes, body: &[], found: &found, client, unix_time };
                report.send(match around.open(&call, open) {
                    Ok((sink, added)) => SinkStep::Opened(sink, added),
                    Err(refusal) => SinkStep::Refused(refusal),
                });
            }),
        );
        self.suspend(io)
    }

    /// A part of a body has come, or its end.
    pub(crate) fn on_body(&self, io: &mut Io<'_>, session: &mut Session, is_last: bool) -> Flow {
        let Some(incoming) = session.incoming() else { return Flow::Continue };
        if let Fate::Sink(seat) = &mut incoming.fate {
            seat.ended = is_last;
            let part = std::mem::take(&mut seat.part);
            let blocking = seat.blocking;
            return match seat.sink.take() {
                Some(sink) if part.is_empty() && !is_last => {
                    seat.sink = Some(sink);
                    Flow::Continue
                }
                Some(sink) if blocking => self.write_on_pool(io, session, sink, part),
                Some(sink) => {
                    let step = sink::write(sink, &part, is_last);
                    self.on_sink(io, session, step)
                }
                None => Flow::Suspend,
            };
        }
        if !is_last {
            return match &incoming.fate {
                Fate::Collect(_, body, began)
                    if body.overstays(io.now().saturating_duration_since(*began)) =>
                {
                    self.refuse_memory(io, session)
                }
                _ => Flow::Continue,
            };
        }
        let Some(incoming) = session.end_body() else { return Flow::Continue };
        io.expect(Phase::Idle);
        let Incoming { request: Held { head, bytes }, fate, .. } = *incoming;
        match fate {
            Fate::Collect(found, collected, _) => {
                let exchange = self.exchange(io, &head, &bytes);
                self.run(io, session, &exchange, Some(collected), found)
            }
            Fate::Drop | Fate::Sink(_) => self.answer(io, session, &head, &bytes),
        }
    }

    fn write_on_pool(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        sink: Box<dyn BodySink>,
        part: Vec<u8>,
    ) -> Flow {
        let is_last = matches!(session.incoming().map(|it| &it.fate), Some(Fate::Sink(seat)) if seat.ended);
        let Some((pool, permit)) = self.permit() else {
            // Undoing it may block, too, but there is no thread to do it.
            drop(sink);
            let refusal = Self::no_room(io, self.site_of_body(session));
            return self.on_sink(io, session, SinkStep::Refused(refusal));
        };
        let report = SinkReport::new(io.handle());
        pool.submit(permit, Box::new(move || report.send(sink::write(sink, &part, is_last))));
        self.suspend(io)
    }

    /// A sink has done something, here or on the pool.
    pub(super) fn on_sink(&self, io: &mut Io<'_>, session: &mut Session, step: SinkStep) -> Flow {
        let Some(incoming) = session.incoming() else { return self.stay(io, session) };
        let head = incoming.request.head;
        let Fate::Sink(seat) = &mut incoming.fate else { return self.stay(io, session) };
        io.cancel_timer(ANSWER);
        let (response, delivery) = match step {
            SinkStep::Opened(sink, added) => {
                seat.sink = Some(sink);
                seat.added = added;
                return receive_body(io, session, &head);
            }
            SinkStep::Taken(sink) => {
                seat.sink = Some(sink);
                return Flow::Continue;
            }
            SinkStep::Finished(response) => (response, Delivery::of(&head, io)),
            SinkStep::Refused(response) if seat.ended => (response, Delivery::of(&head, io)),
            // The rest of the body is under way, and nobody can tell it from a request.
            SinkStep::Refused(response) => (response, Delivery::of(&head, io).closing()),
        };
        let added = std::mem::replace(&mut seat.added, Response::new(Status::ACCEPTED));
        let site = self.site_of_body(session);
        session.end_body();
        io.expect(Phase::Idle);
        self.conclude(io, session, site, delivery, response.with_fields_of(added))
    }
}

/// A body is wanted: who waits to hear it is told (RFC 9110, section 10.1.1).
pub(crate) fn receive_body(io: &mut Io<'_>, session: &mut Session, head: &Head) -> Flow {
    if head.expects_continue() {
        io.send(answer::CONTINUE);
        session.given_bytes += answer::CONTINUE.len() as u64;
    }
    io.expect(Phase::Body);
    Flow::Continue
}
