//! Dispatch: from a request that an endpoint answers to its answer, at once or later.
//!
//! Invariant: whatever waits for another thread is suspended, and has a timer; whatever comes from one is taken only by the
//! stage that waits for it. How a body gets to its endpoint is in [`bodies`].

mod bodies;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{Flow, Io, Reason, TimerToken};
use tidegate_http::{Head, Method, Status};

use crate::answer::Finished;
use crate::blocking_pool::{BlockingPool, Permit};
use crate::budget::{Budget, Collected};
use crate::counters;
use crate::delivery::Delivery;
use crate::endpoint::{AnswerLater, Endpoint, OpenSink, Work};
use crate::exchange::{Client, Exchange};
use crate::middleware::{Middleware, Next};
use crate::note::{Note, Word};
use crate::outgoing::{Manner, Outgoing, Progress};
use crate::routes::Found;
use crate::session::{Held, Session, Waiting};
use crate::site::Site;
use crate::state::States;
use crate::stream::Source;
use crate::{BodySink, Reply, Request, Response, Web};

pub(crate) use bodies::receive_body;

/// What all handlers of a service share.
#[derive(Debug)]
pub(crate) struct Handlers {
    /// There when anything blocks.
    pub(crate) pool: Option<BlockingPool>,
    pub(crate) around: Arc<Around>,
    pub(crate) budget: Arc<Budget>,
    /// How long a client waits for a handler on another thread.
    pub(crate) timeout: Duration,
}

/// What is around every handler, on whatever thread it runs.
pub(crate) struct Around {
    pub(crate) middleware: Vec<Middleware>,
    pub(crate) states: States,
}

/// A request for an endpoint, and who asks: what of an [`Exchange`] can go to another thread.
struct Call<'a> {
    head: &'a Head,
    bytes: &'a [u8],
    body: &'a [u8],
    found: &'a Found<'a>,
    client: Client,
    unix_time: u64,
}

/// The timer of whatever waits for another thread.
pub(crate) const ANSWER: TimerToken = TimerToken(1);

impl<'a> Call<'a> {
    fn new(exchange: &Exchange<'a>, client: Client, body: &'a [u8], found: &'a Found<'a>) -> Self {
        let &Exchange { head, bytes, unix_time, .. } = exchange;
        Self { head, bytes, body, found, client, unix_time }
    }
}

impl Around {
    /// Calls a handler within its middleware.
    fn call(&self, call: &Call<'_>, handler: &dyn Fn(&Request<'_>) -> Response) -> Response {
        let request = Request {
            head: call.head,
            bytes: call.bytes,
            body: call.body,
            path: &call.found.path,
            params: &call.found.params,
            client: call.client,
            unix_time: call.unix_time,
            states: &self.states,
            extensions: Vec::new(),
        };
        if self.middleware.is_empty() {
            return handler(&request);
        }
        Next::new(&self.middleware, handler).run(request)
    }

    /// Opens a sink; the response beside it has the fields that middleware adds to the answer.
    fn open(&self, call: &Call<'_>, open: &OpenSink) -> Result<(Box<dyn BodySink>, Response), Response> {
        let opened = Cell::new(None);
        let response = self.call(call, &|request| match open(request) {
            Ok(sink) => {
                opened.set(Some(sink));
                Response::new(Status::ACCEPTED)
            }
            Err(refusal) => refusal,
        });
        match opened.take() {
            Some(sink) => Ok((sink, response)),
            None => Err(response),
        }
    }

    /// Answers at once what does not wait for a body.
    fn answer(&self, call: &Call<'_>, endpoint: &Endpoint) -> Response {
        match &endpoint.work {
            Work::Call(handler) => self.call(call, handler),
            // Without a body there is only the end of it.
            Work::Sink(open) => match self.open(call, open) {
                Ok((sink, added)) => sink.finish().with_fields_of(added),
                Err(refusal) => refusal,
            },
            Work::Defer(_) => Response::page(Status::INTERNAL_SERVER_ERROR),
        }
    }
}

impl Web {
    /// Has an endpoint answer a request that is complete.
    #[inline]
    pub(crate) fn run(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        exchange: &Exchange<'_>,
        body: Option<Collected>,
        found: Found<'_>,
    ) -> Flow {
        let endpoint = &**found.endpoint;
        if endpoint.blocking && !matches!(endpoint.work, Work::Defer(_)) {
            return self.run_blocking(io, session, exchange, body, found);
        }
        let body_bytes = body.as_ref().map_or(&[][..], Collected::bytes);
        let client = self.client(io, exchange.head, exchange.bytes);
        let call = Call::new(exchange, client, body_bytes, &found);
        if let Work::Defer(defer) = &endpoint.work {
            return self.run_deferred(io, session, exchange.site, &call, defer);
        }
        let response = self.handlers.around.answer(&call, endpoint);
        self.conclude(io, session, exchange.site, Delivery::of(exchange.head, io), response)
    }

    fn run_blocking(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        exchange: &Exchange<'_>,
        body: Option<Collected>,
        found: Found<'_>,
    ) -> Flow {
        let Some((pool, permit)) = self.permit() else {
            let response = Self::no_room(io, exchange.site);
            return self.conclude(io, session, exchange.site, Delivery::of(exchange.head, io), response);
        };
        let &Exchange { head, bytes, unix_time, .. } = exchange;
        let client = self.client(io, head, bytes);
        let held = Held { head: *head, bytes: bytes.into() };
        let reply = Reply::new(io.handle());
        let (around, found) = (Arc::clone(&self.handlers.around), found.into_owned());
        pool.submit(
            permit,
            Box::new(move || {
                let Held { head, bytes } = &held;
                let body = body.as_ref().map_or(&[][..], Collected::bytes);
                let call = Call { head, bytes, body, found: &found, client, unix_time };
                let response = around.answer(&call, &found.endpoint);
                reply.send(response);
            }),
        );
        let site = self.sites.find(head, bytes);
        session.wait(Waiting { head: *head, site, added: Response::new(Status::ACCEPTED) });
        self.suspend(io)
    }

    fn run_deferred(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        site: &Site,
        call: &Call<'_>,
        defer: &AnswerLater,
    ) -> Flow {
        let reply = Cell::new(Some(Reply::new(io.handle())));
        let added = self.handlers.around.call(call, &|request| {
            if let Some(reply) = reply.take() {
                defer(request, reply);
            }
            Response::new(Status::ACCEPTED)
        });
        if let Some(reply) = reply.take() {
            // Middleware has answered instead.
            reply.forgive();
            return self.conclude(io, session, site, Delivery::of(call.head, io), added);
        }
        session.wait(Waiting { head: *call.head, site: self.sites.find(call.head, call.bytes), added });
        self.suspend(io)
    }

    /// Another thread has something to tell.
    pub(crate) fn on_word(&self, io: &mut Io<'_>, session: &mut Session, word: Word) -> Flow {
        match word {
            Word::Answer(response) => {
                let Some(waiting) = session.end_wait() else { return self.stay(io, session) };
                io.cancel_timer(ANSWER);
                let Waiting { head, site, added } = *waiting;
                let (site, delivery) = (self.sites.numbered(site), Delivery::of(&head, io));
                self.conclude(io, session, site, delivery, response.with_fields_of(added))
            }
            Word::Sink(step) => self.on_sink(io, session, step),
            Word::Login(is_right) => self.on_login(io, session, is_right),
            Word::Stream | Word::Resume => self.stay(io, session),
        }
    }

    /// What a connection does that was told nothing of use.
    pub(crate) fn stay(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        if session.is_waiting() || session.is_at_gate() {
            return Flow::Suspend;
        }
        self.go_on_streaming(io, session)
    }

    /// Sends an answer, or its head and then its body as it is made.
    pub(crate) fn conclude(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        site: &Site,
        delivery: Delivery,
        response: Response,
    ) -> Flow {
        let Some(stream) = response.stream(delivery) else {
            return self.finish(io, session, site, delivery, response.into());
        };
        // Without the chunked coding only the end of the connection tells where the body ends.
        let delivery = if delivery.chunked { delivery } else { delivery.closing() };
        let (Finished { flow, .. }, entry) = self.begin_answer(io, session, site, delivery, response.into());
        let source = stream.take().unwrap_or_else(|| {
            tracing::error!("a stream was sent twice");
            Source::broken()
        });
        source.attach(io.handle());
        let manner = Manner { chunked: delivery.chunked, rate: site.limit_rate };
        session.begin_stream(Outgoing::new(source, manner, flow, entry));
        self.go_on_streaming(io, session)
    }

    /// Sends more of a stream, if one is being sent.
    fn go_on_streaming(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        let Some(outgoing) = session.outgoing() else { return Flow::Continue };
        let progress = outgoing.send(io, self.engine_limits.high_water_bytes);
        if progress != Progress::Waits {
            let (sent, entry) = session.end_stream().map(|outgoing| outgoing.end()).unwrap_or_default();
            session.given_bytes += sent;
            if let (Some(entry), Some(log)) = (entry, &self.access_log) {
                match progress {
                    Progress::Broken => session.extra().broke_off(entry),
                    Progress::Done(_) | Progress::Waits => session.extra().answered(io, log, entry),
                }
            }
        }
        progress.flow()
    }

    /// The client has taken what was sent.
    pub(crate) fn on_room(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        if session.outgoing().is_none() {
            return Flow::Continue;
        }
        match self.go_on_streaming(io, session) {
            // Only a note lets a suspended connection go on.
            Flow::Continue => match io.handle().post(Note(Word::Resume)) {
                Ok(()) => Flow::Continue,
                Err(_) => Flow::CloseAfterFlush(Reason::OVERLOADED),
            },
            flow => flow,
        }
    }

    /// A handler has taken too long.
    pub(crate) fn on_handler_timeout(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        if !session.is_waiting() {
            return Flow::Continue;
        }
        let site = self.site_of_body(session);
        let (site, head) = match session.end_wait() {
            Some(waiting) => (self.sites.numbered(waiting.site), Some(waiting.head)),
            None => (site, session.end_body().map(|incoming| incoming.request.head)),
        };
        io.count(counters::HANDLER_TIMEOUTS, 1);
        tracing::warn!(timeout_ms = self.handlers.timeout.as_millis(), "a handler takes too long");
        let method = head.map_or(Method::Other, |head| head.method());
        self.refuse(io, session, (site, method), (Status::SERVICE_UNAVAILABLE, Reason::HANDLER_TIMEOUT))
    }

    /// Waits for another thread, though not for ever.
    fn suspend(&self, io: &mut Io<'_>) -> Flow {
        io.set_timer(ANSWER, self.handlers.timeout);
        Flow::Suspend
    }

    /// A place on the pool.
    fn permit(&self) -> Option<(&BlockingPool, Permit)> {
        let pool = self.handlers.pool.as_ref()?;
        Some((pool, pool.permit()?))
    }

    /// What is answered when the pool is full.
    pub(crate) fn no_room(io: &mut Io<'_>, site: &Site) -> Response {
        io.count(counters::HANDLERS_REFUSED, 1);
        site.error(Status::SERVICE_UNAVAILABLE).header("Retry-After", "1")
    }

    /// The request as it stands, for the site to decide about.
    #[inline]
    pub(crate) fn exchange<'a>(&'a self, io: &Io<'_>, head: &'a Head, bytes: &'a [u8]) -> Exchange<'a> {
        Exchange { head, bytes, site: self.sites.of(head, bytes), unix_time: io.unix_time() }
    }

    /// The site of a request whose body cannot be read, or of something that is none, which is noted for the access log.
    pub(crate) fn site_of_unread(&self, io: &Io<'_>, session: &mut Session) -> &Site {
        if !session.is_in_body() {
            self.begin_unread(io, session);
        }
        self.site_of_body(session)
    }

    /// The site of the request whose body is being received.
    pub(crate) fn site_of_body(&self, session: &mut Session) -> &Site {
        let request = session.incoming().map(|incoming| &incoming.request);
        request.map_or(self.sites.default(), |request| self.sites.of(&request.head, &request.bytes))
    }
}

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Around")
            .field("middleware", &self.middleware.len())
            .field("states", &self.states)
            .finish()
    }
}
