//! `Reply`: answers a request later, from any thread.
//!
//! Invariant: a request is answered exactly once. A reply that is dropped answers 500, so no client waits for one that was
//! forgotten or whose thread panicked.

use tidegate_engine::ConnHandle;
use tidegate_http::Status;

use crate::note::{Note, Word};
use crate::{IntoResponse, Response};

/// The duty to answer one request.
#[derive(Debug)]
#[must_use = "a reply that is dropped answers 500"]
pub struct Reply {
    connection: ConnHandle<Note>,
    owed: bool,
}

impl Reply {
    pub(crate) const fn new(connection: ConnHandle<Note>) -> Self {
        Self { connection, owed: true }
    }

    /// Answers. When the client has gone meanwhile, nobody hears it.
    pub fn send(mut self, answer: impl IntoResponse) {
        self.owed = false;
        self.post(answer.into_response());
    }

    /// Whether the client is still there; it may go right after the answer.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.connection.is_open()
    }

    /// The request is answered otherwise.
    pub(crate) fn forgive(mut self) {
        self.owed = false;
    }

    fn post(&mut self, response: Response) {
        // A mailbox that is full belongs to a loop that is stuck. The client is told 503 when its time is over.
        if let Err(error) = self.connection.post(Note(Word::Answer(response))) {
            tracing::debug!(%error, "an answer comes too late");
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.owed {
            tracing::error!("a request was not answered by its handler");
            self.post(Response::page(Status::INTERNAL_SERVER_ERROR));
        }
    }
}
