//! `Delivery`: how an answer goes to the peer who asked.
//!
//! Invariant: every answer says whether the connection stays, and [`Delivery::flow`] does what it says.

use tidegate_engine::{Flow, Io, Reason};
use tidegate_http::{Head, Method, Version};

/// What the request says about its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) method: Method,
    pub(crate) connection: Connection,
    /// Whether the client understands the chunked coding (RFC 9112, section 6.1).
    pub(crate) chunked: bool,
    /// Why the connection ends after this answer, if it ends for more than the client's wish.
    reason: Option<Reason>,
}

/// What an answer says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    /// It stays, which HTTP/1.1 takes for granted.
    Persistent,
    /// It stays, which HTTP/1.0 has to be told.
    KeepAlive,
    /// It ends after this answer.
    Close,
}

impl Connection {
    /// The field line, if one is needed.
    pub(crate) const fn field(self) -> &'static [u8] {
        match self {
            Self::Persistent => b"",
            Self::KeepAlive => b"Connection: keep-alive\r\n",
            Self::Close => b"Connection: close\r\n",
        }
    }
}

impl Delivery {
    /// As the client asked. A worker that retires keeps no connection, but for what has been received behind this request:
    /// nothing may be answered after an answer that closes (RFC 9112, section 9.6), so the last one does.
    #[inline]
    pub(crate) fn of(head: &Head, io: &Io<'_>) -> Self {
        let keep = head.keep_alive() && (!io.retiring() || io.has_more_input());
        let connection = match (keep, head.version()) {
            (false, _) => Connection::Close,
            (true, Version::Http11) => Connection::Persistent,
            (true, Version::Http10) => Connection::KeepAlive,
        };
        Self { method: head.method(), connection, chunked: head.version() == Version::Http11, reason: None }
    }

    /// For an answer after which the framing is lost, or nobody knows what was asked.
    pub(crate) const fn last(method: Method, reason: Reason) -> Self {
        Self { method, connection: Connection::Close, chunked: false, reason: Some(reason) }
    }

    /// The same, closing.
    pub(crate) const fn closing(self) -> Self {
        Self { connection: Connection::Close, ..self }
    }

    /// The same, for the head of the answer alone.
    pub(crate) const fn of_head(self) -> Self {
        Self { method: Method::Head, ..self }
    }

    /// What happens to the connection once the answer has been sent.
    #[inline]
    pub(crate) fn flow(self, io: &Io<'_>) -> Flow {
        match self.connection {
            Connection::Persistent | Connection::KeepAlive => Flow::Continue,
            Connection::Close => {
                let usual = if io.retiring() { Reason::SHUTDOWN } else { Reason::DONE };
                Flow::CloseAfterFlush(self.reason.unwrap_or(usual))
            }
        }
    }
}
