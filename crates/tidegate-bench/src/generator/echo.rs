//! `Echo`: messages that come back as they are.
//!
//! Invariant: a message begins with the number of its connection and its own, as far as it has room for them, so that an
//! answer to somebody else, or to an earlier question, is seen to be wrong.

use super::dialogue::{Answers, Dialogue, Heard};

/// The dialogue with an echo server.
#[derive(Debug)]
pub(crate) struct Echo {
    size: usize,
    /// What stands behind the stamp.
    filling: Vec<u8>,
}

/// How far a connection is.
#[derive(Debug)]
pub(crate) struct Place {
    number: u32,
    /// Messages that were sent.
    sent: u32,
    stamp: [u8; STAMP_BYTES],
    /// Messages that have come back whole, and how many bytes of the next one have.
    heard: u32,
    at: usize,
}

/// The numbers of connection and message, 32 bits each.
const STAMP_BYTES: usize = 8;

impl Echo {
    /// Messages of `size` bytes, at least 1.
    pub(crate) fn new(size: usize) -> Self {
        // 251 is prime to the sizes of buffers: what is moved by one of those is seen.
        let filling = (0..=250_u8).cycle().take(size.saturating_sub(STAMP_BYTES)).collect();
        Self { size, filling }
    }

    fn stamp_len(&self) -> usize {
        self.size.min(STAMP_BYTES)
    }

    /// The bytes of a message that are due from `at` on, as far as they stand together.
    fn due<'a>(&'a self, stamp: &'a [u8; STAMP_BYTES], at: usize) -> &'a [u8] {
        let len = self.stamp_len();
        if at < len { &stamp[at..len] } else { &self.filling[at - len..] }
    }
}

impl Dialogue for Echo {
    type State = Place;

    fn begin(&self, number: u32) -> Place {
        Place { number, sent: 0, stamp: [0; STAMP_BYTES], heard: 0, at: 0 }
    }

    #[inline]
    fn ask<'a>(&'a self, place: &'a mut Place) -> [&'a [u8]; 2] {
        place.stamp = stamp(place.number, place.sent);
        place.sent = place.sent.wrapping_add(1);
        [&place.stamp[..self.stamp_len()], &self.filling]
    }

    #[inline]
    fn hear(&self, place: &mut Place, input: &[u8]) -> Heard {
        let mut answers = Answers::default();
        let mut rest = input;
        let mut expected = stamp(place.number, place.heard);
        while !rest.is_empty() {
            let due = self.due(&expected, place.at);
            let n = due.len().min(rest.len());
            if rest[..n] != due[..n] {
                let (message, number) = (place.heard, place.number);
                let at = place.at + rest.iter().zip(due).take_while(|(got, due)| got == due).count();
                return Heard::Wrong(format!(
                    "message {message} of connection {number} came back changed at byte {at}"
                ));
            }
            rest = &rest[n..];
            place.at += n;
            if place.at == self.size {
                place.at = 0;
                place.heard = place.heard.wrapping_add(1);
                expected = stamp(place.number, place.heard);
                answers.count += 1;
            }
        }
        Heard::Answers { len: input.len(), answers }
    }
}

#[inline]
fn stamp(connection: u32, message: u32) -> [u8; STAMP_BYTES] {
    (u64::from(connection) << 32 | u64::from(message)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three messages of this size, as they are sent.
    fn sent(size: usize) -> (Echo, Vec<u8>) {
        let echo = Echo::new(size);
        let mut place = echo.begin(0x0102_0304);
        let wire = (0..3).flat_map(|_| echo.ask(&mut place).concat()).collect();
        (echo, wire)
    }

    #[test]
    fn each_message_bears_its_stamp() {
        let (_, wire) = sent(10);
        assert_eq!(wire[10..20], [1, 2, 3, 4, 0, 0, 0, 1, 0, 1]);
    }

    #[test]
    fn messages_are_counted_at_every_split() {
        for size in [1, 7, 8, 9, 300] {
            let (echo, wire) = sent(size);
            for at in 1..wire.len() {
                let mut place = echo.begin(0x0102_0304);
                let mut count = 0;
                for part in [&wire[..at], &wire[at..]] {
                    let Heard::Answers { len, answers } = echo.hear(&mut place, part) else {
                        panic!("{size} {at}")
                    };
                    assert_eq!(len, part.len());
                    count += answers.count;
                }
                assert_eq!((count, place.at), (3, 0), "{size} {at}");
            }
        }
    }

    #[test]
    fn each_changed_byte_is_seen_and_named() {
        let (echo, wire) = sent(20);
        for at in 0..wire.len() {
            let mut changed = wire.clone();
            changed[at] ^= 0x40;
            let Heard::Wrong(text) = echo.hear(&mut echo.begin(0x0102_0304), &changed) else {
                panic!("{at}")
            };
            assert!(text.starts_with(&format!("message {} ", at / 20)), "{text}");
            assert!(text.ends_with(&format!("at byte {}", at % 20)), "{text}");
        }
    }

    #[test]
    fn an_answer_to_somebody_else_is_wrong() {
        let (echo, wire) = sent(64);
        assert!(matches!(echo.hear(&mut echo.begin(1), &wire), Heard::Wrong(_)));
        let mut place = echo.begin(0x0102_0304);
        assert!(matches!(echo.hear(&mut place, &wire[64..]), Heard::Wrong(_)));
    }
}
