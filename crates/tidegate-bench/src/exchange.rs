//! `Exchange`: the bytes of one batch of requests and of the answers they must get.
//!
//! Invariant: `requests` holds as many requests as `answers` holds answers. An echoed message begins with the number of its
//! connection and of its batch, so that an answer to somebody else, or to an earlier question, is seen to be wrong.

use std::ops::Range;

use crate::Hello;

/// What is asked, and what must come back.
#[derive(Clone, Debug)]
pub struct Exchange {
    requests: Vec<u8>,
    /// `None`: the same bytes come back.
    answers: Option<Vec<u8>>,
    answer_len: usize,
    /// Bytes of each answer that may be others, as those of a date.
    ignored: Range<usize>,
}

/// Why there is no such exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The message has no room for its stamp, or is too long.
    #[error("a message has {STAMP_BYTES} to {MAX_MESSAGE_BYTES} bytes, not {0}")]
    Size(usize),
    /// No request at a time, or too many.
    #[error("1 to {MAX_PIPELINE} requests are in flight at a time, not {0}")]
    Pipeline(usize),
}

/// The numbers of connection and batch, 32 bits each.
const STAMP_BYTES: usize = 8;
const MAX_MESSAGE_BYTES: usize = 1 << 20;
const MAX_PIPELINE: usize = 1024;

impl Exchange {
    /// Messages of `size` bytes that come back as they are, `pipeline` of them at a time.
    ///
    /// # Errors
    ///
    /// The size or the number is out of bounds.
    pub fn echo(size: usize, pipeline: usize) -> Result<Self, ExchangeError> {
        if !(STAMP_BYTES..=MAX_MESSAGE_BYTES).contains(&size) {
            return Err(ExchangeError::Size(size));
        }
        let message: Vec<u8> = (0..=250_u8).cycle().take(size).collect();
        Ok(Self { requests: repeat(&message, pipeline)?, answers: None, answer_len: size, ignored: 0..0 })
    }

    /// Requests for [`Hello`], `pipeline` of them at a time.
    ///
    /// # Errors
    ///
    /// The number is out of bounds.
    pub fn hello(pipeline: usize) -> Result<Self, ExchangeError> {
        Ok(Self {
            requests: repeat(Hello::REQUEST, pipeline)?,
            answers: Some(repeat(Hello::ANSWER, pipeline)?),
            answer_len: Hello::ANSWER.len(),
            ignored: 0..0,
        })
    }

    /// A request and the answer that it gets each time, but for the bytes `ignored` of it; `pipeline` of them at a time.
    ///
    /// # Errors
    ///
    /// The number is out of bounds.
    pub fn fixed(
        request: &[u8],
        answer: &[u8],
        ignored: Range<usize>,
        pipeline: usize,
    ) -> Result<Self, ExchangeError> {
        let (requests, answers) = (repeat(request, pipeline)?, Some(repeat(answer, pipeline)?));
        Ok(Self { requests, answers, answer_len: answer.len().max(1), ignored })
    }

    /// Whether these bytes are those of the answers from `at` on.
    #[must_use]
    pub fn matches(&self, at: usize, bytes: &[u8]) -> bool {
        let Some(expected) = self.answers().get(at..at.saturating_add(bytes.len())) else { return false };
        let may_differ = |nth: usize| self.ignored.contains(&((at + nth) % self.answer_len));
        expected == bytes
            || (!self.ignored.is_empty()
                && expected.iter().zip(bytes).enumerate().all(|(nth, (a, b))| a == b || may_differ(nth)))
    }

    /// Makes this the batch number `batch` of the connection number `connection`.
    #[inline]
    pub fn stamp(&mut self, connection: u32, batch: u32) {
        if self.answers.is_some() {
            return;
        }
        for message in self.requests.chunks_exact_mut(self.answer_len) {
            message[..4].copy_from_slice(&connection.to_be_bytes());
            message[4..STAMP_BYTES].copy_from_slice(&batch.to_be_bytes());
        }
    }

    /// The requests of the batch.
    #[must_use]
    pub fn requests(&self) -> &[u8] {
        &self.requests
    }

    /// The answers to the batch.
    #[must_use]
    pub fn answers(&self) -> &[u8] {
        self.answers.as_ref().unwrap_or(&self.requests)
    }

    /// How many bytes one answer has.
    #[must_use]
    pub fn answer_len(&self) -> usize {
        self.answer_len
    }
}

fn repeat(message: &[u8], pipeline: usize) -> Result<Vec<u8>, ExchangeError> {
    if !(1..=MAX_PIPELINE).contains(&pipeline) {
        return Err(ExchangeError::Pipeline(pipeline));
    }
    Ok(message.repeat(pipeline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_of_an_echo_bears_its_stamp() {
        let mut exchange = Exchange::echo(16, 3).unwrap();
        exchange.stamp(0x0102_0304, 7);
        assert_eq!(exchange.requests().len(), 48);
        assert_eq!(exchange.requests(), exchange.answers());
        for message in exchange.requests().chunks(16) {
            assert_eq!(message[..8], [1, 2, 3, 4, 0, 0, 0, 7]);
            assert_eq!(message[8..], [8, 9, 10, 11, 12, 13, 14, 15]);
        }
    }

    #[test]
    fn a_fixed_answer_does_not_change() {
        let mut exchange = Exchange::hello(2).unwrap();
        exchange.stamp(1, 1);
        assert_eq!(exchange.requests(), Hello::REQUEST.repeat(2));
        assert_eq!(exchange.answers(), Hello::ANSWER.repeat(2));
        assert_eq!(exchange.answer_len() * 2, exchange.answers().len());
    }

    #[test]
    fn only_what_is_ignored_may_differ() {
        let exchange = Exchange::fixed(b"q", b"date 12 end.", 5..7, 2).unwrap();
        assert!(exchange.matches(0, b"date 12 end.date 34 end."));
        assert!(exchange.matches(6, b"9 end.date 3"));
        assert!(!exchange.matches(0, b"date 1212end."), "a byte behind the date");
        assert!(!exchange.matches(0, b"Date"));
        assert!(!exchange.matches(20, b"nd.."), "more than there is to come");
        assert!(!Exchange::hello(1).unwrap().matches(0, b"HTTP/1.0"));
    }

    #[test]
    fn bounds_hold() {
        assert_eq!(Exchange::echo(7, 1).unwrap_err(), ExchangeError::Size(7));
        assert!(Exchange::echo(8, 1).is_ok());
        assert_eq!(Exchange::echo((1 << 20) + 1, 1).unwrap_err(), ExchangeError::Size((1 << 20) + 1));
        assert_eq!(Exchange::hello(0).unwrap_err(), ExchangeError::Pipeline(0));
        assert_eq!(Exchange::hello(1025).unwrap_err(), ExchangeError::Pipeline(1025));
    }
}
