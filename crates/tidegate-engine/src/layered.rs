//! `Layered`: the state of a connection that has a layer, and what all of a thread's layered connections work with.
//!
//! Invariant: `partial` begins with the first byte that the session has not taken, so that nothing is given to it twice or
//! not at all.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tidegate_timer::Instant;

use crate::host::message_of;
use crate::layer::{LayerError, LayerProgress, LayerSession, LayerState, Security};

/// What a connection with a layer has besides.
pub(crate) struct Layered {
    /// `None` before the first byte, and while it waits for its turn.
    session: Option<Box<dyn LayerSession>>,
    /// What was received and not been taken: less than what the layer needs for one step.
    partial: Vec<u8>,
    /// How much it has made for the service.
    plain_bytes: u64,
    /// What was agreed upon, once it is.
    security: Option<Arc<Security>>,
    /// When its handshake is to be done.
    pub(crate) until: Instant,
    /// It is one of the handshakes that are limited.
    pub(crate) counted: bool,
    /// Bytes that were sealed to be sent.
    sealed_bytes: u64,
    /// The peer was told that nothing more follows, or cannot be told any more.
    pub(crate) closed: bool,
}

/// Buffers that every step of a layer needs, and none needs for longer.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// What was received, or is to be sent, to be worked on in place.
    pub(crate) raw: Vec<u8>,
    /// What is to be sent.
    pub(crate) sealed: Vec<u8>,
}

/// How much is given to a layer at a time to be sent.
pub(crate) const PIECE_BYTES: usize = 64 << 10;
/// No step of a layer needs more: the longest handshake message that rustls takes is shorter.
const MAX_PARTIAL_BYTES: usize = 128 << 10;
/// What a workspace keeps: enough for a piece with what a layer adds to it.
const KEPT_BYTES: usize = PIECE_BYTES + (8 << 10);

impl Workspace {
    /// Empties it for the next connection.
    pub(crate) fn clear(&mut self) {
        for buffer in [&mut self.raw, &mut self.sealed] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES);
        }
    }
}

impl Layered {
    pub(crate) fn new(until: Instant) -> Self {
        Self {
            session: None,
            partial: Vec::new(),
            plain_bytes: 0,
            security: None,
            until,
            counted: false,
            sealed_bytes: 0,
            closed: false,
        }
    }

    /// The handshake begins.
    pub(crate) fn begin(&mut self, session: Box<dyn LayerSession>) {
        self.session = Some(session);
    }

    /// Whether the layer has seen anything of the connection.
    pub(crate) fn has_begun(&self) -> bool {
        self.session.is_some()
    }

    /// Takes what was received: what it means for the service is appended to `plain`, and what the peer is to be sent
    /// stands in `work.sealed`.
    pub(crate) fn receive(
        &mut self,
        data: &[u8],
        plain: &mut Vec<u8>,
        work: &mut Workspace,
    ) -> Result<LayerState, LayerError> {
        let Workspace { raw, sealed } = work;
        let Some(session) = &mut self.session else {
            return Err(LayerError("there is no session".into()));
        };
        raw.clear();
        raw.extend_from_slice(&self.partial);
        raw.extend_from_slice(data);
        let before = plain.len();
        let outcome = guarded(|| session.receive(raw, plain, sealed));
        self.plain_bytes += plain.len().saturating_sub(before) as u64;
        let LayerProgress { consumed, state } = outcome??;
        self.keep(raw.get(consumed..).unwrap_or_default());
        if self.partial.len() > MAX_PARTIAL_BYTES {
            let len = self.partial.len();
            return Err(LayerError(format!("{len} bytes have come, and the layer takes none of them")));
        }
        Ok(state)
    }

    /// Keeps bytes for the next call; without any it keeps no memory either.
    pub(crate) fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
    }

    /// Appends bytes for the next call.
    pub(crate) fn keep_more(&mut self, data: &[u8]) {
        self.partial.extend_from_slice(data);
    }

    /// Appends to `sealed` what `plain` is on its way to the peer.
    #[inline]
    pub(crate) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<(), LayerError> {
        self.sealed_bytes += plain.len() as u64;
        match &mut self.session {
            Some(session) => guarded(|| session.send(plain, sealed))?,
            None => Err(LayerError("there is no session".into())),
        }
    }

    /// Appends to `sealed` by what the peer knows that nothing more follows.
    pub(crate) fn close(&mut self, sealed: &mut Vec<u8>) {
        if let Some(session) = &mut self.session
            && !std::mem::replace(&mut self.closed, true)
        {
            // Without a word the peer learns of the end all the same.
            let _ = guarded(|| session.close(sealed));
        }
    }

    /// The handshake is done: remembers what was agreed upon.
    pub(crate) fn secure(&mut self) -> Option<&Security> {
        let security = self.session.as_ref()?.security();
        Some(self.security.insert(Arc::new(security)))
    }

    pub(crate) fn security(&self) -> Option<&Arc<Security>> {
        self.security.as_ref()
    }

    /// How much has come for the service: what is understood, and what of the next step is there. It may be less than before,
    /// when a step has meant nothing.
    pub(crate) fn progress(&self) -> u64 {
        self.plain_bytes + self.partial.len() as u64
    }

    /// Whether a step of the layer was begun and lacks its end.
    pub(crate) fn is_amid_step(&self) -> bool {
        !self.partial.is_empty()
    }

    /// So many bytes were sealed and cannot be sent.
    pub(crate) const fn forget_sealed(&mut self, bytes: usize) {
        self.sealed_bytes = self.sealed_bytes.saturating_sub(bytes as u64);
    }

    /// How many bytes were sealed for the peer, before they were.
    pub(crate) const fn sealed_bytes(&self) -> u64 {
        self.sealed_bytes
    }

    /// Memory of what it has not taken.
    pub(crate) fn buffer_bytes(&self) -> usize {
        self.partial.capacity()
    }
}

/// A layer works on what anybody sends. Should it panic over that, it is this connection that ends, and not the loop.
pub(crate) fn guarded<T>(step: impl FnOnce() -> T) -> Result<T, LayerError> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|panic| {
        tracing::error!(panic = message_of(&*panic), "a layer panicked; its connection is closed");
        LayerError("the layer panicked".into())
    })
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered")
            .field("security", &self.security)
            .field("partial", &self.partial.len())
            .finish_non_exhaustive()
    }
}
