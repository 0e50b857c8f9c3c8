//! `DatagramHost`: a datagram service, called by a loop that does not know its type.
//!
//! Every callback is called here and nowhere else, within `catch_unwind`. Invariant: a batch that a panic has cut short
//! goes on behind the datagram that panicked.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tidegate_reactor::{Inbound, Token};

use super::{DatagramIo, DatagramLimits, DatagramPeer, DatagramService, Outlet};
use crate::host::message_of;
use crate::metrics::{Callback, ListenerWord, ProcessMetrics, ProcessWord};
use crate::{Decoded, Flow, Io, Peer, Reason, Refusal, Service, TimerToken};

/// A datagram service of whatever type.
pub(crate) trait DatagramHosted: Send {
    /// `on_datagram` for what is left of a batch, until so much has gathered that it is to be sent first.
    fn batch(&self, outlet: &mut Outlet<'_>, process: &ProcessMetrics, batch: &Inbound, at: &mut Place);
    /// Any other callback.
    fn call(&self, outlet: &mut Outlet<'_>, process: &ProcessMetrics, event: DatagramEvent);
    fn limits(&self) -> DatagramLimits;
}

/// How far a batch has been handled: its next datagram, and where in that, when it is several that were joined.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    pub(crate) datagram: usize,
    byte: usize,
    /// How many have been handled, each of those that were joined by itself.
    pub(crate) handled: usize,
}

/// The callbacks that take no datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DatagramEvent {
    Start,
    Timer(TimerToken),
    Retire,
}

pub(crate) struct DatagramHost<S>(S);

impl<S: DatagramService> DatagramHost<S> {
    pub(crate) fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S: DatagramService> DatagramHosted for DatagramHost<S> {
    fn batch(&self, outlet: &mut Outlet<'_>, process: &ProcessMetrics, batch: &Inbound, at: &mut Place) {
        process.enter(outlet.site.index, Callback::Datagram, NO_CONNECTION);
        while at.datagram < batch.len() {
            let handled = catch_unwind(AssertUnwindSafe(|| handle(&self.0, outlet, batch, at)));
            match handled {
                Ok(()) => break,
                Err(panic) => panicked(outlet, process, "on_datagram", &*panic),
            }
        }
        process.leave();
    }

    fn call(&self, outlet: &mut Outlet<'_>, process: &ProcessMetrics, event: DatagramEvent) {
        let (callback, name) = match event {
            DatagramEvent::Start => (Callback::Open, "on_start"),
            DatagramEvent::Timer(_) => (Callback::Timer, "on_timer"),
            DatagramEvent::Retire => (Callback::Retire, "on_retire"),
        };
        process.enter(outlet.site.index, callback, NO_CONNECTION);
        let called = catch_unwind(AssertUnwindSafe(|| {
            let mut io = outlet.io(None);
            match event {
                DatagramEvent::Start => self.0.on_start(&mut io),
                DatagramEvent::Timer(token) => self.0.on_timer(&mut io, token),
                DatagramEvent::Retire => self.0.on_retire(&mut io),
            }
        }));
        process.leave();
        if let Err(panic) = called {
            panicked(outlet, process, name, &*panic);
        }
    }

    fn limits(&self) -> DatagramLimits {
        self.0.limits()
    }
}

/// Hands out what is left of a batch. `at` is moved before each call, so that one that panics is not repeated.
#[inline]
fn handle<S: DatagramService>(service: &S, outlet: &mut Outlet<'_>, batch: &Inbound, at: &mut Place) {
    while let Some(datagram) = batch.get(at.datagram) {
        if outlet.is_full() {
            return;
        }
        let peer = DatagramPeer::of(&datagram);
        if datagram.truncated {
            at.datagram += 1;
            outlet.site.metrics.add(ListenerWord::DatagramsTruncated, 1);
            continue;
        }
        if datagram.segment == 0 || datagram.bytes.is_empty() {
            at.datagram += 1;
            at.handled += 1;
            let mut io: DatagramIo<'_> = outlet.io(Some(&peer));
            service.on_datagram(&mut io, &peer, datagram.bytes);
            continue;
        }
        while at.byte < datagram.bytes.len() && !outlet.is_full() {
            let rest = &datagram.bytes[at.byte..];
            let bytes = &rest[..datagram.segment.min(rest.len())];
            at.byte += bytes.len();
            at.handled += 1;
            let is_last = at.byte == datagram.bytes.len();
            if is_last {
                (at.datagram, at.byte) = (at.datagram + 1, 0);
            }
            service.on_datagram(&mut outlet.io(Some(&peer)), &peer, bytes);
            if is_last {
                break;
            }
        }
    }
}

#[cold]
fn panicked(outlet: &Outlet<'_>, process: &ProcessMetrics, callback: &str, panic: &(dyn Any + Send)) {
    process.add(ProcessWord::Panics, 1);
    let listener = &*outlet.site.name;
    tracing::error!(
        listener,
        callback,
        panic = message_of(panic),
        "callback panicked; the listener serves on"
    );
}

/// What is entered in place of a connection.
const NO_CONNECTION: Token = Token { slot: 0, generation: 0 };

/// Has the place of a service of connections, in the list of a loop, for a listener of datagrams, which has none.
pub(crate) struct Vacant;

impl Service for Vacant {
    type Session = ();
    type Head = ();
    type Note = std::convert::Infallible;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Err(Reason::PROTOCOL_ERROR.into())
    }

    fn decode(&self, (): &mut (), _: &[u8]) -> Decoded<()> {
        Decoded::Close(Reason::PROTOCOL_ERROR)
    }

    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        Flow::Abort(Reason::PROTOCOL_ERROR)
    }
}
