//! `FrameContext`: a frame's connection, in the hands of its handler.

use std::fmt;

use tidegate_engine::{ConnHandle, ConnId, Flow, Instant, Io, Peer};
use tidegate_frame::{BodyTooLong, HEADER, encode_header};

use crate::{Note, Session};

/// What a handler may do with the connection that its frame came from. Replies leave when the present batch of input is
/// done, in the order in which they were made.
pub struct FrameContext<'a, 'io> {
    pub(crate) io: &'a mut Io<'io>,
    pub(crate) session: &'a mut Session,
    pub(crate) code: u16,
}

impl FrameContext<'_, '_> {
    /// Sends a frame, and answers [`Flow::Continue`], so that it can end a handler.
    ///
    /// # Errors
    ///
    /// [`BodyTooLong`]; nothing is sent then.
    pub fn reply(&mut self, code: u16, body: &[u8]) -> Result<Flow, BodyTooLong> {
        let header: [u8; HEADER] = encode_header(code, body)?;
        self.io.send_vectored(&[&header, body]);
        self.session.backlog.sent(self.io.queued_bytes());
        Ok(Flow::Continue)
    }

    /// The code of the frame that is handled.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// A handle by which another thread reaches this connection. For work that takes longer, give it to a thread, answer
    /// [`Flow::Suspend`], and let the thread post a [`Note::reply`].
    #[must_use]
    pub fn handle(&self) -> ConnHandle<Note> {
        self.io.handle()
    }

    /// The name of the user who has logged in on this connection.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.session.user.as_deref()
    }

    /// Which connection it is.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.io.id()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer<'_> {
        self.io.peer()
    }

    /// The monotonic clock, as of this turn of the loop.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.io.now()
    }
}

impl fmt::Debug for FrameContext<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameContext").field("code", &self.code).field("io", &self.io).finish_non_exhaustive()
    }
}
