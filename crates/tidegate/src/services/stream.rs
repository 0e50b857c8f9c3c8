//! `Stream`: a service of one closure, for protocols without messages. Echo and discard are two of them.

use std::fmt;
use std::time::Duration;

use tidegate_engine::{Decoded, Flow, Io, Limits, Peer, Reason, Refusal, Service};

/// Calls a closure with whatever bytes have come; it consumes them all. When the server stops, a connection is ended as
/// soon as its output is sent: without messages, nothing is known to be unfinished.
///
/// ```
/// use tidegate::{Flow, Stream};
/// let upper = Stream::new(|io, bytes| {
///     io.send(&bytes.to_ascii_uppercase());
///     Flow::Continue
/// });
/// # let _ = upper;
/// ```
#[derive(Clone)]
pub struct Stream<F> {
    on_bytes: F,
    idle_timeout: Option<Duration>,
}

impl<F> Stream<F>
where
    F: Fn(&mut Io<'_>, &[u8]) -> Flow + Send + Sync + 'static,
{
    /// Makes a service of `on_bytes`. A connection that is silent for 10 min is closed.
    pub fn new(on_bytes: F) -> Self {
        Self { on_bytes, idle_timeout: Limits::default().idle_timeout }
    }

    /// Closes a connection that is silent for longer; `None`: never.
    #[must_use]
    pub fn idle_timeout(self, idle_timeout: Option<Duration>) -> Self {
        Self { idle_timeout, ..self }
    }
}

/// Sends back what it receives (RFC 862).
pub fn echo() -> Stream<impl Fn(&mut Io<'_>, &[u8]) -> Flow + Send + Sync + 'static> {
    Stream::new(|io, bytes| {
        io.send(bytes);
        Flow::Continue
    })
}

/// Reads and answers nothing (RFC 863).
pub fn discard() -> Stream<impl Fn(&mut Io<'_>, &[u8]) -> Flow + Send + Sync + 'static> {
    Stream::new(|_, _| Flow::Continue)
}

impl<F> fmt::Debug for Stream<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("idle_timeout", &self.idle_timeout).finish_non_exhaustive()
    }
}

impl<F> Service for Stream<F>
where
    F: Fn(&mut Io<'_>, &[u8]) -> Flow + Send + Sync + 'static,
{
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), bytes: &[u8]) -> Flow {
        (self.on_bytes)(io, bytes)
    }

    fn on_retire(&self, io: &mut Io<'_>, (): &mut ()) -> Flow {
        // Whether something is in flight cannot be known here, so while there is time the peer says when it is done.
        if io.draining() { Flow::Continue } else { Flow::CloseAfterFlush(Reason::SHUTDOWN) }
    }

    fn limits(&self) -> Limits {
        Limits { idle_timeout: self.idle_timeout, ..Limits::default() }
    }
}
