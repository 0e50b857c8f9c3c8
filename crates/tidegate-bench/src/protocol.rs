//! `Protocol`: what a measured server says, apart from how it is run, so that every model does the same work.
//!
//! Invariant: an answer depends on its message alone. Nothing here is a useful server; the answers are what a client can
//! check byte for byte.

use std::thread;
use std::time::Duration;

use tidegate_engine::{Decoded, Flow, Io, Peer, Phase, Reason, Refusal, Service};
use tidegate_http::{BodyFraming, HeadLimits, HeadParser, Parsed};

/// Messages in, answers out.
pub trait Protocol: Send + Sync + 'static {
    /// What is kept for a connection while a message is incomplete.
    type State: Default + Send + 'static;

    /// Looks for a message at the start of `input`, as [`Service::decode`] does.
    fn decode(&self, state: &mut Self::State, input: &[u8]) -> Decoded<()>;

    /// What a complete message is answered with.
    fn answer<'a>(&'a self, message: &'a [u8]) -> &'a [u8];
}

/// Sends back what it receives.
#[derive(Clone, Copy, Debug)]
pub struct Echo;

impl Protocol for Echo {
    type State = ();

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn answer<'a>(&'a self, message: &'a [u8]) -> &'a [u8] {
        message
    }
}

/// Answers any HTTP/1.1 request without a body with 13 bytes, and keeps the connection.
#[derive(Clone, Copy, Debug)]
pub struct Hello;

impl Hello {
    /// What a client sends.
    pub const REQUEST: &'static [u8] = b"GET / HTTP/1.1\r\nHost: tidegate.example\r\n\r\n";
    /// What it is answered with, to the byte.
    pub const ANSWER: &'static [u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
}

impl Protocol for Hello {
    type State = HeadParser;

    fn decode(&self, parser: &mut HeadParser, input: &[u8]) -> Decoded<()> {
        match parser.parse(input, &HeadLimits::default()) {
            Ok(Parsed::Need) => Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 },
            Ok(Parsed::Head(head)) if head.body() == BodyFraming::None => {
                *parser = HeadParser::new();
                Decoded::Message { len: head.end(), head: () }
            }
            Ok(Parsed::Head(_)) | Err(_) => Decoded::Close(Reason::PROTOCOL_ERROR),
        }
    }

    fn answer<'a>(&'a self, _: &'a [u8]) -> &'a [u8] {
        Self::ANSWER
    }
}

/// Sends back each message of 64 bytes after its handler has slept for 1 ms, as one does that waits for a disk.
#[derive(Clone, Copy, Debug)]
pub struct Sleep;

impl Sleep {
    /// The size of a message and of its answer.
    pub const MESSAGE_BYTES: usize = 64;
    /// How long a handler sleeps.
    pub const PAUSE: Duration = Duration::from_millis(1);
}

impl Protocol for Sleep {
    type State = ();

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        if input.len() < Self::MESSAGE_BYTES {
            return Decoded::Need { phase: Phase::Head, at_least: Self::MESSAGE_BYTES };
        }
        Decoded::Message { len: Self::MESSAGE_BYTES, head: () }
    }

    fn answer<'a>(&'a self, message: &'a [u8]) -> &'a [u8] {
        thread::sleep(Self::PAUSE);
        message
    }
}

/// A protocol as a service of the engine.
#[derive(Clone, Copy, Debug)]
pub struct Measured<P>(pub P);

impl<P: Protocol> Service for Measured<P> {
    type Session = P::State;
    type Head = ();
    type Note = ();

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<P::State, Refusal> {
        Ok(P::State::default())
    }

    fn decode(&self, state: &mut P::State, input: &[u8]) -> Decoded<()> {
        self.0.decode(state, input)
    }

    fn on_message(&self, io: &mut Io<'_>, _: &mut P::State, (): (), bytes: &[u8]) -> Flow {
        io.send(self.0.answer(bytes));
        Flow::Continue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_of_requests_is_taken_apart() {
        let input = Hello::REQUEST.repeat(3);
        let (mut parser, mut at, mut found) = (HeadParser::new(), 0, 0);
        while at < input.len() {
            let Decoded::Message { len, .. } = Hello.decode(&mut parser, &input[at..]) else {
                panic!("no message at {at}")
            };
            at += len;
            found += 1;
        }
        assert_eq!(found, 3);
    }

    #[test]
    fn a_request_in_two_pieces_is_found_at_each_split() {
        for split in 1..Hello::REQUEST.len() {
            let mut parser = HeadParser::new();
            let first = Hello.decode(&mut parser, &Hello::REQUEST[..split]);
            assert_eq!(first, Decoded::Need { phase: Phase::Head, at_least: split + 1 });
            let whole = Hello.decode(&mut parser, Hello::REQUEST);
            assert_eq!(whole, Decoded::Message { len: Hello::REQUEST.len(), head: () });
        }
    }

    #[test]
    fn a_body_is_refused() {
        let input = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
        assert_eq!(Hello.decode(&mut HeadParser::new(), input), Decoded::Close(Reason::PROTOCOL_ERROR));
    }

    #[test]
    fn a_message_to_sleep_over_has_its_size() {
        assert_eq!(Sleep.decode(&mut (), &[0; 63]), Decoded::Need { phase: Phase::Head, at_least: 64 });
        assert_eq!(Sleep.decode(&mut (), &[0; 130]), Decoded::Message { len: 64, head: () });
    }

    #[test]
    fn the_answer_says_its_length() {
        assert!(Hello::ANSWER.ends_with(b"\r\n\r\nHello, World!"));
        assert!(Hello::ANSWER.windows(18).any(|w| w == b"Content-Length: 13"));
    }
}
