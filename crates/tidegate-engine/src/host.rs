//! `Host`: a service with the sessions of its connections, called through [`Hosted`] by a loop that knows neither type.
//!
//! Every callback is called here and nowhere else, within `catch_unwind`: a panic becomes [`Reason::PANIC`] for the one
//! connection.

use std::any::{Any, TypeId};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tidegate_reactor::Token;

use crate::conn::{Conn, Reading};
use crate::connect::Dial;
use crate::io::Io;
use crate::metrics::{Callback, ListenerWord, ProcessMetrics};
use crate::table::Table;
use crate::{
    Closed, ConnectFailed, ConnectFailure, Decoded, Flow, Instant, Limits, Peer, Phase, Reason, Refusal,
    Service, TimerToken,
};

/// A service of whatever type.
pub(crate) trait Hosted: Send {
    /// `on_open`; answers the key of the session, which is kept.
    fn open(&mut self, io: &mut Io<'_>) -> Result<Token, Refusal>;
    /// `decode` and `on_message` for as many complete messages as `data` holds.
    fn input(&mut self, session: Token, io: &mut Io<'_>, reading: &mut Reading, data: &[u8]) -> Input;
    /// Any other callback.
    fn call(&mut self, session: Token, io: &mut Io<'_>, event: Event) -> Flow;
    /// `on_close`; the session is gone.
    fn close(&mut self, conn: &Conn, closed: &Closed, metrics: &ProcessMetrics) -> Result<(), Panicked>;
    /// `on_connect_failed`, with the note of the wish.
    fn connect_failed(
        &mut self,
        dial: Dial,
        failure: ConnectFailure,
        metrics: &ProcessMetrics,
    ) -> Result<(), Panicked>;
    /// `decode`; with a complete message the session leaves too, for another thread to handle it.
    fn next(&mut self, session: Token, io: &mut Io<'_>, reading: &mut Reading, data: &[u8]) -> Next;
    /// The session leaves, for another thread to decode and handle.
    fn depart(&mut self, session: Token) -> Option<Box<dyn Away>>;
    /// A session that was away is back; answers its new key.
    fn take_back(&mut self, away: Box<dyn Away>) -> Token;
    /// What the service knows of the connection's end.
    fn next_close(&self, session: Token) -> Option<(Reason, Instant)>;
    fn limits(&self) -> Limits;
    fn overload_answer(&self) -> Option<&'static [u8]>;
}

/// A session with another thread.
pub(crate) trait Away: Send {
    /// `on_message`, for the message that was found last.
    fn message(&mut self, io: &mut Io<'_>, bytes: &[u8]) -> Flow;
    /// As [`Hosted::input`]; answers also how many messages there were.
    fn batch(&mut self, io: &mut Io<'_>, reading: &mut Reading, data: &[u8]) -> (Input, u64);
    /// For whoever knows its type.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// What `decode` found.
pub(crate) enum Next {
    /// A message of so many bytes.
    Message(usize, Box<dyn Away>),
    /// Nothing yet, or nothing more.
    Then(Then),
}

/// A callback panicked whose connection was ending already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// The callbacks that take no input.
pub(crate) enum Event {
    Note(Box<dyn Any + Send>),
    Timer(TimerToken),
    Drained,
    Sent,
    Deadline(Phase),
    /// A body is too slow.
    Slow,
    Eof,
    Retire,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.callback().name())
    }
}

/// What came of a batch of input.
#[derive(Debug)]
pub(crate) struct Input {
    /// Bytes that were handled.
    pub(crate) consumed: usize,
    pub(crate) then: Then,
}

/// Why a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// No complete message is left.
    NeedMore,
    /// Messages are left, but so much output has gathered that it is to be sent first, or the service paused.
    Later,
    /// A callback asked for something.
    Flow(Flow),
}

pub(crate) struct Host<S: Service> {
    service: Arc<S>,
    sessions: Table<S::Session>,
    overload_answer: Option<&'static [u8]>,
    /// Emptied boxes, for the next sessions that leave.
    boxes: Vec<Box<Traveller<S>>>,
}

/// A session on its way, with what `decode` found for it.
struct Traveller<S: Service> {
    service: Arc<S>,
    session: Option<S::Session>,
    head: Option<S::Head>,
}

/// Emptied boxes that are kept.
const BOXES: usize = 64;

impl<S: Service> Host<S> {
    pub(crate) fn new(service: S) -> Self {
        let overload_answer = service.overload_answer();
        let sessions = Table::new(usize::MAX);
        Self { service: Arc::new(service), sessions, overload_answer, boxes: Vec::new() }
    }

    pub(crate) fn note_type() -> TypeId {
        TypeId::of::<S::Note>()
    }

    fn keep(&mut self, session: S::Session) -> Token {
        self.sessions
            .insert(|_| session)
            .expect("a table without a limit has room for as many as it can number")
    }

    /// Takes a session out.
    fn let_go(&mut self, session: Token, head: Option<S::Head>) -> Option<Box<Traveller<S>>> {
        let session = Some(self.sessions.remove(session)?);
        Some(match self.boxes.pop() {
            Some(mut traveller) => {
                traveller.session = session;
                traveller.head = head;
                traveller
            }
            None => Box::new(Traveller { service: Arc::clone(&self.service), session, head }),
        })
    }
}

impl<S: Service> Hosted for Host<S> {
    fn open(&mut self, io: &mut Io<'_>) -> Result<Token, Refusal> {
        let site = io.site;
        let peer = Peer { address: io.who.peer, listener: &site.name };
        io.enter(Callback::Open);
        let opened = catch_unwind(AssertUnwindSafe(|| self.service.on_open(io, &peer)));
        io.leave();
        match opened {
            Ok(Ok(session)) => Ok(self.keep(session)),
            Ok(Err(refusal)) => Err(refusal),
            Err(panic) => Err(panicked(io, Callback::Open, &*panic).into()),
        }
    }

    #[inline]
    fn input(&mut self, session: Token, io: &mut Io<'_>, reading: &mut Reading, data: &[u8]) -> Input {
        let Some(session) = self.sessions.get_mut(session) else {
            return Input { consumed: data.len(), then: Then::Flow(Flow::Abort(Reason::IO_ERROR)) };
        };
        let (input, messages) = guarded_batch(&*self.service, session, io, reading, data);
        io.site.metrics.add(ListenerWord::Messages, messages);
        input
    }

    fn call(&mut self, session: Token, io: &mut Io<'_>, event: Event) -> Flow {
        let Some(session) = self.sessions.get_mut(session) else {
            return Flow::Abort(Reason::IO_ERROR);
        };
        let service = &*self.service;
        let callback = event.callback();
        io.enter(callback);
        let called = catch_unwind(AssertUnwindSafe(|| match event {
            Event::Note(note) => match note.downcast::<S::Note>() {
                Ok(note) => service.on_note(io, session, *note),
                Err(_) => unreachable!("Io::handle checks the type of the note"),
            },
            Event::Timer(token) => service.on_timer(io, session, token),
            Event::Drained => service.on_drained(io, session),
            Event::Sent => service.on_sent(io, session),
            Event::Deadline(phase) => service.on_deadline(io, session, phase),
            Event::Slow => {
                let flow = service.on_deadline(io, session, Phase::Body);
                flow.renamed(Reason::BODY_TIMEOUT, Reason::SLOW_BODY)
            }
            Event::Eof => service.on_eof(io, session),
            Event::Retire => service.on_retire(io, session),
        }));
        io.leave();
        called.unwrap_or_else(|panic| Flow::Abort(panicked(io, callback, &*panic)))
    }

    fn close(&mut self, conn: &Conn, closed: &Closed, metrics: &ProcessMetrics) -> Result<(), Panicked> {
        // A connection that was refused has no session.
        let Some(session) = self.sessions.remove(conn.session) else { return Ok(()) };
        let service = &*self.service;
        metrics.enter(conn.site, Callback::Close, conn.who.id);
        let called = catch_unwind(AssertUnwindSafe(|| service.on_close(session, closed)));
        metrics.leave();
        called.map_err(|panic| {
            let callback = Callback::Close.name();
            tracing::error!(conn = %closed.id, callback, panic = message_of(&*panic), "callback panicked");
            Panicked
        })
    }

    fn connect_failed(
        &mut self,
        dial: Dial,
        failure: ConnectFailure,
        metrics: &ProcessMetrics,
    ) -> Result<(), Panicked> {
        let Dial { site, connect, note, .. } = dial;
        let note = note.map(|note| match note.downcast::<S::Note>() {
            Ok(note) => *note,
            Err(_) => unreachable!("who asks for a connection is checked for the type of the note"),
        });
        let failed = ConnectFailed { target: connect.target, error: failure, note };
        let service = &*self.service;
        metrics.enter(site, Callback::ConnectFailed, Token { slot: u32::MAX, generation: 0 });
        let called = catch_unwind(AssertUnwindSafe(|| service.on_connect_failed(failed)));
        metrics.leave();
        called.map_err(|panic| {
            let callback = Callback::ConnectFailed.name();
            tracing::error!(callback, panic = message_of(&*panic), "callback panicked");
            Panicked
        })
    }

    fn next(&mut self, key: Token, io: &mut Io<'_>, reading: &mut Reading, data: &[u8]) -> Next {
        let Some(session) = self.sessions.get_mut(key) else {
            return Next::Then(Then::Flow(Flow::Abort(Reason::IO_ERROR)));
        };
        let service = &*self.service;
        io.enter(Callback::Message);
        let found = catch_unwind(AssertUnwindSafe(|| decode(service, session, io, reading, data)));
        io.leave();
        let (len, head) = match found {
            Ok(Ok(found)) => found,
            Ok(Err(then)) => return Next::Then(then),
            Err(panic) => {
                let reason = panicked(io, Callback::Message, &*panic);
                return Next::Then(Then::Flow(Flow::Abort(reason)));
            }
        };
        match self.let_go(key, Some(head)) {
            Some(away) => Next::Message(len, away),
            None => Next::Then(Then::Flow(Flow::Abort(Reason::IO_ERROR))),
        }
    }

    fn depart(&mut self, session: Token) -> Option<Box<dyn Away>> {
        let away: Box<dyn Away> = self.let_go(session, None)?;
        Some(away)
    }

    fn take_back(&mut self, away: Box<dyn Away>) -> Token {
        let Ok(mut traveller) = away.into_any().downcast::<Traveller<S>>() else {
            unreachable!("a session comes back to the host that let it go");
        };
        let session = traveller.session.take().expect("a traveller has its session until it is back");
        if self.boxes.len() < BOXES {
            // A message that was not handled leaves its head, which is the service's to drop.
            discard(traveller.head.take());
            self.boxes.push(traveller);
        }
        self.keep(session)
    }

    fn next_close(&self, session: Token) -> Option<(Reason, Instant)> {
        let session = self.sessions.get(session)?;
        let asked = catch_unwind(AssertUnwindSafe(|| self.service.next_close(session)));
        asked.unwrap_or_else(|panic| {
            tracing::error!(callback = "next_close", panic = message_of(&*panic), "callback panicked");
            None
        })
    }

    fn limits(&self) -> Limits {
        self.service.limits()
    }

    fn overload_answer(&self) -> Option<&'static [u8]> {
        self.overload_answer
    }
}

impl<S: Service> Away for Traveller<S> {
    fn message(&mut self, io: &mut Io<'_>, bytes: &[u8]) -> Flow {
        let (Some(session), Some(head)) = (self.session.as_mut(), self.head.take()) else {
            return Flow::Abort(Reason::IO_ERROR);
        };
        let service = &*self.service;
        let handled = catch_unwind(AssertUnwindSafe(|| service.on_message(io, session, head, bytes)));
        handled.unwrap_or_else(|panic| Flow::Abort(panicked(io, Callback::Message, &*panic)))
    }

    fn batch(&mut self, io: &mut Io<'_>, reading: &mut Reading, data: &[u8]) -> (Input, u64) {
        match self.session.as_mut() {
            Some(session) => guarded_batch(&*self.service, session, io, reading, data),
            None => (Input { consumed: data.len(), then: Then::Flow(Flow::Abort(Reason::IO_ERROR)) }, 0),
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// [`run_batch`], with a panic as the reason of a close.
#[inline]
fn guarded_batch<S: Service>(
    service: &S,
    session: &mut S::Session,
    io: &mut Io<'_>,
    reading: &mut Reading,
    data: &[u8],
) -> (Input, u64) {
    io.enter(Callback::Message);
    let batch = catch_unwind(AssertUnwindSafe(|| run_batch(service, session, io, reading, data)));
    io.leave();
    batch.unwrap_or_else(|panic| {
        let reason = panicked(io, Callback::Message, &*panic);
        (Input { consumed: data.len(), then: Then::Flow(Flow::Abort(reason)) }, 0)
    })
}

/// Looks for one message at the start of `data`. Inlined wherever it is called, so that what the service has found is not
/// copied once more on its way to `on_message`.
#[inline(always)]
fn decode<S: Service>(
    service: &S,
    session: &mut S::Session,
    io: &Io<'_>,
    reading: &mut Reading,
    data: &[u8],
) -> Result<(usize, S::Head), Then> {
    if data.is_empty() {
        reading.need = 0;
        reading.enter(reading.between, io.moment.now);
        return Err(Then::NeedMore);
    }
    match service.decode(session, data) {
        Decoded::Message { len, head } => {
            check(len, data);
            reading.message_came(io.moment.now);
            Ok((len, head))
        }
        Decoded::Need { phase, at_least } => {
            reading.need = u32::try_from(at_least).unwrap_or(u32::MAX);
            reading.enter(phase, io.moment.now);
            Err(Then::NeedMore)
        }
        Decoded::Close(reason) => Err(Then::Flow(Flow::Abort(reason))),
    }
}

/// A service that breaks its contract is stopped like one that panics.
fn check(len: usize, data: &[u8]) {
    assert!(len >= 1 && len <= data.len(), "decode named {len} of {} bytes", data.len());
}

/// Decodes and handles messages until there is none, or one of them asks for something else.
#[inline]
fn run_batch<S: Service>(
    service: &S,
    session: &mut S::Session,
    io: &mut Io<'_>,
    reading: &mut Reading,
    data: &[u8],
) -> (Input, u64) {
    let high_water = io.site.limits.high_water_bytes;
    let mut consumed = 0;
    let mut messages = 0;
    let then = loop {
        let rest = &data[consumed..];
        let (len, head) = match decode(service, session, io, reading, rest) {
            Ok(found) => found,
            Err(then) => break then,
        };
        io.more_input = len < rest.len();
        let flow = service.on_message(io, session, head, &rest[..len]);
        consumed += len;
        messages += 1;
        if let Some(pause) = io.record.pause.take() {
            reading.paused = pause;
        }
        if let Some(phase) = io.record.expect.take() {
            reading.between = phase;
            reading.enter(phase, io.moment.now);
        }
        if flow != Flow::Continue {
            break Then::Flow(flow);
        }
        if io.queued.weight + io.record.weight() > high_water || reading.paused {
            break Then::Later;
        }
    };
    (Input { consumed, then }, messages)
}

impl Event {
    fn callback(&self) -> Callback {
        match self {
            Self::Note(_) => Callback::Note,
            Self::Timer(_) => Callback::Timer,
            Self::Drained => Callback::Drained,
            Self::Sent => Callback::Sent,
            Self::Deadline(_) | Self::Slow => Callback::Deadline,
            Self::Eof => Callback::Eof,
            Self::Retire => Callback::Retire,
        }
    }
}

fn panicked(io: &Io<'_>, callback: Callback, panic: &(dyn Any + Send)) -> Reason {
    let (conn, listener, callback) = (io.id(), &*io.site.name, callback.name());
    tracing::error!(%conn, listener, callback, panic = message_of(panic), "callback panicked; its connection is closed");
    Reason::PANIC
}

/// Drops what a program posted and nobody takes. Its destructor is the program's, and the loop outlives its panic.
pub(crate) fn discard<T>(posted: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(posted))) {
        tracing::error!(panic = message_of(&*panic), "the destructor of a note panicked");
    }
}

pub(crate) fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
