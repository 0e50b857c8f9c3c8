//! The character generator (RFC 864): characters without end to whoever connects, and a few to who sends a datagram.

use tidegate_engine::{
    DatagramIo, DatagramPeer, DatagramService, Decoded, Flow, Io, Limits, Peer, Reason, Refusal, Service,
};

use super::datagrams::may_answer;

/// Sends lines of 72 printable characters, each beginning with the next character, for as long as the peer takes them. A
/// datagram is answered with as many characters as it has bytes, 512 at the most: the RFC leaves the number open, and an
/// answer that is longer than the question would be a weapon against whoever a source address is forged of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chargen;

/// Characters of a line, without its end.
const LINE: usize = 72;
/// The printable characters, the blank first.
const FIRST: u8 = b' ';
const CHARS: usize = 95;
/// After so many bytes the text begins anew.
const PERIOD: usize = (LINE + 2) * CHARS;
/// RFC 864: at most so many characters in a datagram.
const DATAGRAM: usize = 512;

/// What waits for a peer before it has taken some.
const HIGH_WATER_BYTES: usize = 32 << 10;

/// The text, once.
static TEXT: [u8; PERIOD] = text();

const fn text() -> [u8; PERIOD] {
    let mut text = [0; PERIOD];
    let mut at = 0;
    while at < PERIOD {
        let (line, column) = (at / (LINE + 2), at % (LINE + 2));
        text[at] = match column {
            LINE => b'\r',
            column if column > LINE => b'\n',
            #[expect(clippy::cast_possible_truncation, reason = "less than 95")]
            column => FIRST + ((line + column) % CHARS) as u8,
        };
        at += 1;
    }
    text
}

impl Chargen {
    /// Sends until more waits than is to.
    fn fill(io: &mut Io<'_>) {
        while io.queued_bytes() <= HIGH_WATER_BYTES {
            io.send(&TEXT);
        }
    }
}

impl Service for Chargen {
    type Session = ();
    type Head = ();
    type Note = std::convert::Infallible;

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Self::fill(io);
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    /// What a peer sends is thrown away (RFC 864).
    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn on_drained(&self, io: &mut Io<'_>, (): &mut ()) -> Flow {
        Self::fill(io);
        Flow::Continue
    }

    /// It would never end by itself.
    fn on_retire(&self, _: &mut Io<'_>, (): &mut ()) -> Flow {
        Flow::Abort(Reason::SHUTDOWN)
    }

    fn limits(&self) -> Limits {
        Limits { high_water_bytes: HIGH_WATER_BYTES, low_water_bytes: 16 << 10, ..Limits::default() }
    }
}

impl DatagramService for Chargen {
    fn on_datagram(&self, io: &mut DatagramIo<'_>, from: &DatagramPeer, bytes: &[u8]) {
        if may_answer(from) {
            io.reply(&TEXT[..bytes.len().min(DATAGRAM)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_begins_with_the_next_character_and_all_are_there() {
        let lines: Vec<&[u8]> = TEXT.chunks(LINE + 2).collect();
        assert_eq!(lines.len(), CHARS);
        let first = br##" !"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\]^_`abcdefg"##;
        assert_eq!(&lines[0][..LINE], first);
        for (number, line) in lines.iter().enumerate() {
            assert_eq!(&line[LINE..], b"\r\n");
            assert_eq!(usize::from(line[0] - FIRST), number);
            assert!(line[..LINE].iter().all(|byte| (b' '..=b'~').contains(byte)));
        }
    }
}
