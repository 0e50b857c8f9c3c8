//! `BodySink`: takes a request's body as it comes, however large it is.
//!
//! Invariant: parts come in order, one at a time; the next is not received before this one has been taken. So a sink that is
//! slow makes its client slow, and nothing gathers.

use std::fmt;

use tidegate_engine::ConnHandle;
use tidegate_http::Status;

use crate::Response;
use crate::note::{Note, Word};

/// Takes a body. Dropped without [`finish`](Self::finish) when the client breaks off, is too slow or sends too much: what
/// has been begun is to be undone by its `Drop`.
///
/// ```
/// use tidegate_web::{BodySink, Request, Response, Status, Web, put, sink};
///
/// struct Sum(u64);
///
/// impl BodySink for Sum {
///     fn write(&mut self, part: &[u8]) -> Result<(), Response> {
///         self.0 += part.iter().map(|&byte| u64::from(byte)).sum::<u64>();
///         Ok(())
///     }
///     fn finish(self: Box<Self>) -> Response {
///         Response::new(Status::OK).body(self.0.to_string())
///     }
/// }
///
/// let endpoint = sink(|_request: &Request<'_>| Ok(Sum(0)));
/// let web = Web::builder().route("/sum", put(endpoint).max_body_bytes(1 << 40));
/// # drop(web.build());
/// ```
pub trait BodySink: Send {
    /// Takes the next part, which is not empty.
    ///
    /// # Errors
    ///
    /// The answer when no more is wanted; the connection ends with it, since the rest of the body is under way.
    fn write(&mut self, part: &[u8]) -> Result<(), Response>;

    /// All of the body has come; answers the request.
    fn finish(self: Box<Self>) -> Response;
}

/// What a sink has done.
#[derive(Debug)]
pub(crate) enum SinkStep {
    /// It was opened; the response has the fields that middleware has added.
    Opened(Box<dyn BodySink>, Response),
    /// It has taken a part; here it is for the next one.
    Taken(Box<dyn BodySink>),
    /// The body has ended, and this is the answer.
    Finished(Response),
    /// It wants no more, and this is the answer.
    Refused(Response),
}

/// Gives a part, and the end if it is the last.
pub(crate) fn write(mut sink: Box<dyn BodySink>, part: &[u8], is_last: bool) -> SinkStep {
    if !part.is_empty()
        && let Err(response) = sink.write(part)
    {
        return SinkStep::Refused(response);
    }
    if is_last { SinkStep::Finished(sink.finish()) } else { SinkStep::Taken(sink) }
}

/// Tells a connection what its sink has done on the pool. Dropped before, it tells that something went wrong.
#[derive(Debug)]
pub(crate) struct SinkReport {
    connection: Option<ConnHandle<Note>>,
}

impl SinkReport {
    pub(crate) const fn new(connection: ConnHandle<Note>) -> Self {
        Self { connection: Some(connection) }
    }

    pub(crate) fn send(mut self, step: SinkStep) {
        self.post(step);
    }

    fn post(&mut self, step: SinkStep) {
        // A connection that is gone needs no answer; one whose loop is stuck is told 503 when its time is over.
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.post(Note(Word::Sink(step)))
        {
            tracing::debug!(%error, "nobody waits for this part of a body any more");
        }
    }
}

impl Drop for SinkReport {
    fn drop(&mut self) {
        if self.connection.is_some() {
            self.post(SinkStep::Refused(Response::page(Status::INTERNAL_SERVER_ERROR)));
        }
    }
}

impl fmt::Debug for dyn BodySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodySink")
    }
}
