//! `Dialogue`: what is asked and how its answers are told from wrong ones, without a socket or a clock.
//!
//! Invariant: an answer counts only when it is complete and right; what cannot be an answer is [`Wrong`], and after it
//! nothing tells where the next one begins.

/// Questions and answers of one protocol.
pub(crate) trait Dialogue: Send + Sync + 'static {
    /// What is kept for a connection.
    type State: Send + 'static;

    /// The state of connection number `number`.
    fn begin(&self, number: u32) -> Self::State;

    /// What a connection sends first, before it asks anything.
    fn greeting(&self) -> Option<&[u8]> {
        None
    }

    /// Looks for the answer to the greeting at the start of `input`.
    fn hear_greeting(&self, _input: &[u8]) -> Heard {
        Heard::Wrong("an answer came to a greeting that was not sent".to_owned())
    }

    /// The bytes of the next request, in two parts.
    fn ask<'a>(&'a self, state: &'a mut Self::State) -> [&'a [u8]; 2];

    /// Looks for answers at the start of `input`, which is never empty: as many as there are.
    fn hear(&self, state: &mut Self::State, input: &[u8]) -> Heard;

    /// The server has ended the connection: answers that end with it.
    fn hear_end(&self, _state: &mut Self::State) -> Answers {
        Answers::default()
    }
}

/// What stands at the start of some input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing that can be used; there is more to be told when the input has so many bytes.
    Need(usize),
    /// `len` bytes can be forgotten; they were so many answers, or a part of one.
    Answers {
        /// Never 0, never more than there are.
        len: usize,
        /// What ended within them.
        answers: Answers,
    },
    /// What cannot be an answer, and why.
    Wrong(String),
}

/// Answers that are complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// How many.
    pub(crate) count: u32,
    /// How many of them say that the request has failed, and the number that the last of these says it with.
    pub(crate) refused: u32,
    pub(crate) status: i32,
    /// The server will not answer on this connection again.
    pub(crate) last: bool,
}
