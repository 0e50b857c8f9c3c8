//! `Answer`: what has been decided for a request, and the one place from which it is sent.
//!
//! Invariant: every answer leaves through [`finish`] or, when it was written before and nothing is to be added to it, through
//! [`finish_encoded`]; whatever has to be added to answers, counted or noted about them is done there and nowhere else.

use std::sync::Arc;

use tidegate_engine::{Flow, Io};
use tidegate_http::Status;

use crate::counters;
use crate::delivery::Delivery;
use crate::encoded::Encoded;
use crate::site::Site;
use crate::{Body, Response};

/// What a request is answered with.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Something that was written before, with the fields of its site.
    Encoded(Arc<Encoded>),
    /// Something for this request alone.
    Response(Response),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

/// What has been sent.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: Status,
    /// Bytes of the head.
    pub(crate) head_bytes: u64,
    /// Bytes behind the head.
    pub(crate) body_bytes: u64,
    /// What becomes of the connection.
    pub(crate) flow: Flow,
    /// The body, when it has not been sent: its site has a rate.
    pub(crate) rest: Option<Body>,
}

/// Sends what was written before to a client without a rate, and counts it. Does what [`finish`] does; but that has to hold an
/// answer that may be anything, and this is the path of nearly every request.
#[inline]
pub(crate) fn finish_encoded(io: &mut Io<'_>, delivery: Delivery, encoded: &Encoded) -> Flow {
    encoded.send(io, delivery, delivery.connection.field());
    count(io, encoded.status());
    delivery.flow(io)
}

#[inline]
fn count(io: &mut Io<'_>, status: Status) {
    if let Some(counter) = counters::of_status(status) {
        io.count(counter, 1);
    }
}

/// Sends an answer with `more` fields, whole lines, counts it, and says what becomes of the connection.
pub(crate) fn finish(
    io: &mut Io<'_>,
    site: &Site,
    delivery: Delivery,
    more: &[u8],
    answer: Answer,
) -> Finished {
    let is_paced = |len| site.limit_rate > 0 && len > 0;
    let (status, head_bytes, body_bytes, rest) = match answer {
        Answer::Encoded(encoded) => {
            let len = encoded.content_len(delivery.method);
            let rest = is_paced(len).then(|| encoded.body());
            encoded.send(io, if rest.is_some() { delivery.of_head() } else { delivery }, more);
            (encoded.status(), encoded.head_len() + more.len(), len, rest)
        }
        Answer::Response(response) => {
            let response = sound(site, response);
            let (status, len) = (response.status(), response.content(delivery.method).len());
            let rest = is_paced(len).then(|| response.content(delivery.method).clone());
            let delivery = if rest.is_some() { delivery.of_head() } else { delivery };
            let head_bytes = response.send(io, delivery, &site.fields, more);
            (status, head_bytes, len, rest)
        }
    };
    count(io, status);
    Finished { status, head_bytes: head_bytes as u64, body_bytes, flow: delivery.flow(io), rest }
}

/// The response, or a 500 in its place when it would break the framing.
fn sound(site: &Site, response: Response) -> Response {
    let Some(fault) = response.fault() else { return response };
    tracing::error!(status = response.status().code(), fault, "answer is not allowed");
    site.error(Status::INTERNAL_SERVER_ERROR)
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
