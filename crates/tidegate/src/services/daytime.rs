//! The daytime service (RFC 867): a line with the time, to whoever connects or sends a datagram.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tidegate_engine::{
    DatagramIo, DatagramPeer, DatagramService, Decoded, Flow, Io, Peer, Reason, Refusal, Service, TimerToken,
};

use super::datagrams::may_answer;

/// Tells the time in UTC, as `Saturday, November 21, 2026 07:00:00-UTC`, and ends the connection; a datagram, whatever is in
/// it, is answered with one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Daytime;

/// The line that the RFC suggests.
struct Line(u64);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = i64::try_from(self.0).unwrap_or(0);
        let time = Timestamp::from_second(seconds).unwrap_or_default();
        write!(f, "{}\r\n", time.strftime("%A, %B %-d, %Y %H:%M:%S-UTC"))
    }
}

/// Ends a connection when its line has been sent.
const END: TimerToken = TimerToken(0);

impl Service for Daytime {
    type Session = ();
    type Head = ();
    type Note = std::convert::Infallible;

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        io.send(Line(io.unix_time()).to_string().as_bytes());
        io.set_timer(END, Duration::ZERO);
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    /// What a peer sends is thrown away (RFC 867).
    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn on_timer(&self, _: &mut Io<'_>, (): &mut (), _: TimerToken) -> Flow {
        Flow::CloseAfterFlush(Reason::DONE)
    }
}

impl DatagramService for Daytime {
    fn on_datagram(&self, io: &mut DatagramIo<'_>, from: &DatagramPeer, _: &[u8]) {
        if may_answer(from) {
            io.reply(Line(io.unix_time()).to_string().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_that_of_the_rfc() {
        assert_eq!(Line(0).to_string(), "Thursday, January 1, 1970 00:00:00-UTC\r\n");
        assert_eq!(Line(383_262_463).to_string(), "Monday, February 22, 1982 21:47:43-UTC\r\n");
        assert_eq!(Line(u64::MAX).to_string(), Line(0).to_string());
    }
}
