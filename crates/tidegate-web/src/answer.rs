//! `Answer`: what has been decided for a request, and the one place from which it is sent.
//!
//! Invariant: every answer leaves through [`finish`], so whatever has to be added to answers, counted or noted about them is
//! done there and nowhere else.

use std::sync::Arc;

use tidegate_engine::{Flow, Io};
use tidegate_http::Status;

use crate::Response;
use crate::counters;
use crate::delivery::Delivery;
use crate::encoded::Encoded;
use crate::site::Site;

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

/// Sends an answer, counts it, and says what becomes of the connection.
#[inline]
pub(crate) fn finish(io: &mut Io<'_>, site: &Site, delivery: Delivery, answer: Answer) -> Flow {
    let more = delivery.connection.field();
    let status = match answer {
        Answer::Encoded(encoded) => {
            encoded.send(io, delivery, more);
            encoded.status()
        }
        Answer::Response(response) => {
            let response = sound(site, response);
            let status = response.status();
            response.send(io, delivery, &site.fields, more);
            status
        }
    };
    if let Some(counter) = counters::of_status(status) {
        io.count(counter, 1);
    }
    delivery.flow(io)
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
