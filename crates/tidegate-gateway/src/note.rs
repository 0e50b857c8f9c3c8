//! What other threads post to a gateway's connection.
//!
//! A note is encoded where it is made, so the loop only copies it.

use tidegate_frame::{BodyTooLong, Status, encode};

/// A frame for a connection, posted with [`ConnHandle::post`](tidegate_engine::ConnHandle::post).
///
/// A handler that answered [`Flow::Suspend`](crate::Flow::Suspend) owes its connection one [`Note::reply`] or
/// [`Note::resume`]: until then no further frame of it is handled.
#[derive(Clone, Debug)]
pub struct Note {
    /// Sent to the peer; may be empty.
    pub(crate) frame: Vec<u8>,
    /// Whether it answers the request that is in flight.
    pub(crate) resumes: bool,
    /// What came of a request about an account, for the counters.
    pub(crate) status: Option<Status>,
    /// Who has logged in by it.
    pub(crate) user: Option<Box<str>>,
}

impl Note {
    /// The answer to the request that is in flight.
    ///
    /// # Errors
    ///
    /// [`BodyTooLong`].
    pub fn reply(code: u16, body: &[u8]) -> Result<Self, BodyTooLong> {
        Ok(Self { frame: frame(code, body)?, ..Self::resume() })
    }

    /// A frame that nobody asked for; a request that is in flight stays so.
    ///
    /// # Errors
    ///
    /// [`BodyTooLong`].
    pub fn push(code: u16, body: &[u8]) -> Result<Self, BodyTooLong> {
        Ok(Self { frame: frame(code, body)?, resumes: false, ..Self::resume() })
    }

    /// Ends the request that is in flight without an answer.
    #[must_use]
    pub fn resume() -> Self {
        Self { frame: Vec::new(), resumes: true, status: None, user: None }
    }
}

fn frame(code: u16, body: &[u8]) -> Result<Vec<u8>, BodyTooLong> {
    let mut frame = Vec::new();
    encode(code, body, &mut frame)?;
    Ok(frame)
}
