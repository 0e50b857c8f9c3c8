//! Answers that are written when they are needed: errors, redirects, 304, and those of handlers.
//!
//! Invariant: every answer says whether the connection stays, and the flow that is returned with it does what it says.

use tidegate_engine::{Flow, Io, Reason};
use tidegate_http::{Head, Method, ResponseEncoder, Status, Version, format_http_date};

use crate::counters;
use crate::encoded::SERVER;

/// How an answer goes to the peer who asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) method: Method,
    pub(crate) connection: Connection,
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
    pub(crate) const fn field(self) -> Option<&'static [u8]> {
        match self {
            Self::Persistent => None,
            Self::KeepAlive => Some(b"Connection: keep-alive\r\n"),
            Self::Close => Some(b"Connection: close\r\n"),
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
        Self { method: head.method(), connection }
    }

    /// For an answer after which the framing is lost.
    pub(crate) const fn last() -> Self {
        Self { method: Method::Other, connection: Connection::Close }
    }

    /// The same, closing.
    pub(crate) const fn closing(self) -> Self {
        Self { method: self.method, connection: Connection::Close }
    }

    /// What happens to the connection once the answer has been sent.
    #[inline]
    pub(crate) fn flow(self, io: &Io<'_>) -> Flow {
        match self.connection {
            Connection::Persistent | Connection::KeepAlive => Flow::Continue,
            Connection::Close if io.retiring() => Flow::CloseAfterFlush(Reason::SHUTDOWN),
            Connection::Close => Flow::CloseAfterFlush(Reason::DONE),
        }
    }
}

/// Sends an answer with these fields and this body, and counts it.
pub(crate) fn send(
    io: &mut Io<'_>,
    delivery: Delivery,
    status: Status,
    fields: &[(&str, &str)],
    body: &[u8],
) {
    if let Some(counter) = counters::of_status(status) {
        io.count(counter, 1);
    }
    let mut out = Vec::with_capacity(256 + body.len());
    let mut encoder = ResponseEncoder::new(&mut out, status)
        .field("Server", SERVER)
        .field("Date", format_http_date(io.unix_time()));
    for (name, value) in fields {
        encoder = encoder.field(name, value);
    }
    encoder = match delivery.connection {
        Connection::Persistent => encoder,
        Connection::KeepAlive => encoder.field("Connection", "keep-alive"),
        Connection::Close => encoder.field("Connection", "close"),
    };
    match delivery.method {
        // The length that the same GET would have (RFC 9110, section 8.6), which 304 has no need of.
        Method::Head if status.has_content() => encoder.content_length(body.len() as u64),
        _ => encoder.body(body),
    }
    io.send(&out);
}

/// Sends the page for a status, and counts it.
pub(crate) fn send_status(io: &mut Io<'_>, delivery: Delivery, status: Status, fields: &[(&str, &str)]) {
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{status}</title>\n<h1>{status}</h1>\n"
    );
    let mut all = vec![("Content-Type", "text/html; charset=utf-8")];
    all.extend_from_slice(fields);
    send(io, delivery, status, &all, page.as_bytes());
}

/// What a peer is told for whom there is no descriptor: complete and constant, so that nothing has to be allocated then.
/// It has no date, which RFC 9110, section 6.6.1, leaves open for 5xx.
pub(crate) const OVERLOADED: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nServer: tidegate\r\nRetry-After: 1\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 32\r\nConnection: close\r\n\r\n\
    The server is busy. Come again.\n";

pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overload_answer_is_complete() {
        let end = OVERLOADED.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let head = std::str::from_utf8(&OVERLOADED[..end]).unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", OVERLOADED.len() - end)));
        assert!(head.contains("Connection: close\r\n"));
    }
}
