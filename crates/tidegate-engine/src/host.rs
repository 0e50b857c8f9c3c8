//! `Host`: a service with the sessions of its connections, called through [`Hosted`] by a loop that knows neither type.
//!
//! Every callback is called here and nowhere else, within `catch_unwind`: a panic becomes [`Reason::PANIC`] for the one
//! connection.

use std::any::{Any, TypeId};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::conn::Conn;
use crate::io::Io;
use crate::metrics::{Callback, ListenerWord, ProcessMetrics};
use crate::table::Table;
use crate::{Closed, Decoded, Flow, Limits, Peer, Phase, Reason, Refusal, Service, TimerToken};

/// A service of whatever type.
pub(crate) trait Hosted: Send {
    /// `on_open`; the session is kept.
    fn open(&mut self, io: &mut Io<'_>) -> Result<(), Refusal>;
    /// `decode` and `on_message` for as many complete messages as `data` holds.
    fn input(&mut self, io: &mut Io<'_>, data: &[u8]) -> Input;
    /// Any other callback.
    fn call(&mut self, io: &mut Io<'_>, event: Event) -> Flow;
    /// `on_close`; the session is gone.
    fn close(&mut self, conn: &Conn, closed: &Closed, metrics: &ProcessMetrics) -> Result<(), Panicked>;
    fn limits(&self) -> Limits;
    fn overload_answer(&self) -> Option<&'static [u8]>;
}

/// A callback panicked whose connection was ending already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

/// The callbacks that take no input.
pub(crate) enum Event {
    Note(Box<dyn Any + Send>),
    Timer(TimerToken),
    Drained,
    Deadline(Phase),
    Eof,
    Retire,
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
    service: S,
    sessions: Table<S::Session>,
    overload_answer: Option<&'static [u8]>,
}

impl<S: Service> Host<S> {
    pub(crate) fn new(service: S) -> Self {
        let overload_answer = service.overload_answer();
        Self { service, sessions: Table::new(usize::MAX), overload_answer }
    }

    pub(crate) fn note_type() -> TypeId {
        TypeId::of::<S::Note>()
    }
}

impl<S: Service> Hosted for Host<S> {
    fn open(&mut self, io: &mut Io<'_>) -> Result<(), Refusal> {
        let site = io.site;
        let peer = Peer { address: io.conn.peer, listener: &site.name };
        io.enter(Callback::Open);
        let opened = catch_unwind(AssertUnwindSafe(|| self.service.on_open(io, &peer)));
        io.leave();
        let session = match opened {
            Ok(Ok(session)) => session,
            Ok(Err(refusal)) => return Err(refusal),
            Err(panic) => return Err(panicked(io, Callback::Open, &*panic).into()),
        };
        match self.sessions.insert(|_| session) {
            Some(key) => io.conn.session = key,
            None => return Err(Reason::OVERLOADED.into()),
        }
        Ok(())
    }

    #[inline]
    fn input(&mut self, io: &mut Io<'_>, data: &[u8]) -> Input {
        let Some(session) = self.sessions.get_mut(io.conn.session) else {
            return Input { consumed: data.len(), then: Then::Flow(Flow::Abort(Reason::IO_ERROR)) };
        };
        let service = &self.service;
        io.enter(Callback::Message);
        let batch = catch_unwind(AssertUnwindSafe(|| run_batch(service, session, io, data)));
        io.leave();
        match batch {
            Ok((input, messages)) => {
                io.site.metrics.add(ListenerWord::Messages, messages);
                input
            }
            Err(panic) => {
                let reason = panicked(io, Callback::Message, &*panic);
                Input { consumed: data.len(), then: Then::Flow(Flow::Abort(reason)) }
            }
        }
    }

    fn call(&mut self, io: &mut Io<'_>, event: Event) -> Flow {
        let Some(session) = self.sessions.get_mut(io.conn.session) else {
            return Flow::Abort(Reason::IO_ERROR);
        };
        let service = &self.service;
        let callback = event.callback();
        io.enter(callback);
        let called = catch_unwind(AssertUnwindSafe(|| match event {
            Event::Note(note) => match note.downcast::<S::Note>() {
                Ok(note) => service.on_note(io, session, *note),
                Err(_) => unreachable!("Io::handle checks the type of the note"),
            },
            Event::Timer(token) => service.on_timer(io, session, token),
            Event::Drained => service.on_drained(io, session),
            Event::Deadline(phase) => service.on_deadline(io, session, phase),
            Event::Eof => service.on_eof(io, session),
            Event::Retire => service.on_retire(io, session),
        }));
        io.leave();
        called.unwrap_or_else(|panic| Flow::Abort(panicked(io, callback, &*panic)))
    }

    fn close(&mut self, conn: &Conn, closed: &Closed, metrics: &ProcessMetrics) -> Result<(), Panicked> {
        // A connection that was refused has no session.
        let Some(session) = self.sessions.remove(conn.session) else { return Ok(()) };
        let service = &self.service;
        metrics.enter(conn.site, Callback::Close, conn.id);
        let called = catch_unwind(AssertUnwindSafe(|| service.on_close(session, closed)));
        metrics.leave();
        called.map_err(|panic| {
            let callback = Callback::Close.name();
            tracing::error!(conn = %closed.id, callback, panic = message_of(&*panic), "callback panicked");
            Panicked
        })
    }

    fn limits(&self) -> Limits {
        self.service.limits()
    }

    fn overload_answer(&self) -> Option<&'static [u8]> {
        self.overload_answer
    }
}

/// Decodes and handles messages until there is none, or one of them asks for something else.
#[inline]
fn run_batch<S: Service>(
    service: &S,
    session: &mut S::Session,
    io: &mut Io<'_>,
    data: &[u8],
) -> (Input, u64) {
    let high_water = io.site.limits.high_water_bytes;
    let mut consumed = 0;
    let mut messages = 0;
    let then = loop {
        let rest = &data[consumed..];
        if rest.is_empty() {
            io.conn.need = 0;
            io.conn.enter(io.conn.between, io.turn.now);
            break Then::NeedMore;
        }
        let (len, head) = match service.decode(session, rest) {
            Decoded::Message { len, head } => (len, head),
            Decoded::Need { phase, at_least } => {
                io.conn.need = u32::try_from(at_least).unwrap_or(u32::MAX);
                io.conn.enter(phase, io.turn.now);
                break Then::NeedMore;
            }
            Decoded::Close(reason) => break Then::Flow(Flow::Abort(reason)),
        };
        assert!(len >= 1 && len <= rest.len(), "decode named {len} of {} bytes", rest.len());
        // A message came whole, so whatever is awaited next begins now.
        io.conn.need = 0;
        io.conn.phase = io.conn.between;
        io.conn.phase_since = io.turn.now;
        let flow = service.on_message(io, session, head, &rest[..len]);
        consumed += len;
        messages += 1;
        if flow != Flow::Continue {
            break Then::Flow(flow);
        }
        if io.conn.queued_weight() + io.turn.batch_weight() > high_water || io.conn.paused_by_service {
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
            Self::Deadline(_) => Callback::Deadline,
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

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
