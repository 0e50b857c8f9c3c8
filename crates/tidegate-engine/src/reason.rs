//! Why a connection ended: one number, one name and one way of closing for each cause.
//!
//! Numbers are stable: they stand in the log, in the metrics and in `docs/operations.md`, and a number is never given a
//! second meaning. Programs may use the numbers from [`Reason::FIRST_CUSTOM`] on for causes of their own.

use std::fmt;

use tidegate_reactor::End;

/// The numbered cause of a close (or of work that was dropped).
///
/// ```
/// use tidegate_engine::{End, Reason};
/// assert_eq!(Reason::BAD_CHECKSUM.number(), 12);
/// assert_eq!(Reason::BAD_CHECKSUM.name(), "bad-checksum");
/// assert_eq!(Reason::BAD_CHECKSUM.end(), End::Reset);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(u8);

macro_rules! reasons {
    ($($(#[$doc:meta])* $constant:ident = $number:literal, $name:literal, $end:ident;)*) => {
        impl Reason {
            $($(#[$doc])* pub const $constant: Self = Self($number);)*

            /// Every reason the engine and its services know, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$constant),*];

            /// The name that stands in logs and metrics; `custom` for a program's own numbers.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 { $($number => $name,)* _ => "custom" }
            }

            /// How a connection that is aborted for this reason ends.
            #[must_use]
            pub const fn end(self) -> End {
                match self.0 { $($number => End::$end,)* _ => End::Reset }
            }
        }
    };
}

reasons! {
    /// The peer ended its side, and everything it had asked for was answered.
    PEER_CLOSED = 1, "peer-closed", Fin;
    /// The peer reset the connection, or its host vanished; `SO_ERROR` says which.
    PEER_RESET = 2, "peer-reset", Reset;
    /// The service ended the connection in order.
    DONE = 3, "done", Fin;
    /// The server stops, and nothing was in flight on the connection.
    SHUTDOWN = 4, "shutdown", Fin;
    /// The server stops, and the connection was not done within `process.shutdown_timeout`.
    SHUTDOWN_TIMEOUT = 5, "shutdown-timeout", Reset;
    /// Nothing was received for the idle time-out of the service.
    IDLE_TIMEOUT = 6, "idle-timeout", Reset;
    /// A message head (or frame) was begun and not finished in time.
    HEAD_TIMEOUT = 7, "head-timeout", Reset;
    /// A message body did not make progress in time.
    BODY_TIMEOUT = 8, "body-timeout", Reset;
    /// The peer did not take the output that waits for it in time.
    WRITE_TIMEOUT = 9, "write-timeout", Reset;
    /// No complete valid frame came within twice the heartbeat interval and ten seconds.
    HEARTBEAT_TIMEOUT = 10, "heartbeat-timeout", Reset;
    /// A frame names a length outside the protocol's limits.
    BAD_LENGTH = 11, "bad-length", Reset;
    /// The checksum of a frame's body does not match.
    BAD_CHECKSUM = 12, "bad-checksum", Reset;
    /// The body of a frame has not the size its code asks for.
    BAD_BODY_SIZE = 13, "bad-body-size", Reset;
    /// A frame's code has no handler.
    UNKNOWN_CODE = 14, "unknown-code", Reset;
    /// More output waits for the peer than the service allows.
    OUTPUT_OVERFLOW = 15, "output-overflow", Reset;
    /// A message is larger than the service's limit on unread input.
    INPUT_OVERFLOW = 16, "input-overflow", Reset;
    /// The peer broke the protocol, was told so where the protocol has words for it, and is not served further.
    PROTOCOL_ERROR = 17, "protocol-error", Fin;
    /// A callback of the service panicked.
    PANIC = 18, "panic", Reset;
    /// The service refused the connection when it was opened.
    REFUSED = 19, "refused", Reset;
    /// The server had no descriptor or no slot left for the connection.
    OVERLOADED = 20, "overloaded", Fin;
    /// The kernel reported an error of its own on the connection.
    IO_ERROR = 21, "io-error", Reset;
    /// The program closed the connection through its handle.
    CLOSED_BY_PROGRAM = 22, "closed-by-program", Fin;
    /// The peer sends more than it may.
    FLOOD = 23, "flood", Reset;
    /// An idle connection between two requests was ended in order (RFC 9112, section 9.8).
    KEEP_ALIVE_TIMEOUT = 24, "keep-alive-timeout", Fin;
    /// Not a close: work for a connection that is gone was dropped by its generation.
    GONE = 25, "gone", Fin;
    /// The server was told to stop at once.
    STOPPED = 26, "stopped", Fin;
    /// A file ended before the part of it that had been promised to the peer.
    FILE_SHRANK = 27, "file-shrank", Reset;
    /// The buffers of the loop or of the process were full, and of all peers this one was the slowest to take its output.
    MEMORY_PRESSURE = 28, "memory-pressure", Reset;
    /// An operator closed the connection.
    OPERATOR = 29, "operator", Fin;
    /// The connection that it was tied to ended, and not in order.
    OTHER_SIDE = 30, "other-side", Reset;
    /// The TLS handshake came to nothing, or what followed it could not be read; the peer was told by an alert.
    TLS_FAILED = 31, "tls-failed", Fin;
    /// The TLS handshake was not done in time.
    TLS_TIMEOUT = 32, "tls-timeout", Reset;
    /// The connection did not begin with the PROXY header that is due on its listener.
    PROXY_HEADER = 33, "proxy-header", Reset;
    /// A message body came more slowly than the service's lowest rate.
    SLOW_BODY = 34, "slow-body", Reset;
    /// The peer took the output that waits for it more slowly than the service's lowest rate.
    SLOW_READER = 35, "slow-reader", Reset;
    /// The peer's address has as many connections as the service lets it have.
    ADDRESS_LIMIT = 36, "address-limit", Reset;
    /// A handler of a request did not answer in time.
    HANDLER_TIMEOUT = 37, "handler-timeout", Fin;
    /// The program could not make the rest of what it was sending.
    STREAM_BROKEN = 38, "stream-broken", Reset;
}

impl Reason {
    /// The first number that a program may use for a cause of its own.
    pub const FIRST_CUSTOM: u8 = 40;
    /// How many numbers there are; every table that is indexed by a reason has this length.
    pub const COUNT: usize = 64;

    /// A cause of the program's own. Aborting with it sends a reset.
    ///
    /// # Panics
    ///
    /// When `number` is not in `FIRST_CUSTOM..COUNT`.
    #[must_use]
    pub const fn custom(number: u8) -> Self {
        assert!(
            number >= Self::FIRST_CUSTOM && (number as usize) < Self::COUNT,
            "custom reasons have the numbers 40 to 63"
        );
        Self(number)
    }

    /// Every number that a program may use.
    pub fn all_custom() -> impl Iterator<Item = Self> {
        (Self::FIRST_CUSTOM..).map(Self).take(Self::COUNT - Self::FIRST_CUSTOM as usize)
    }

    /// Whether it says that the peer, and not the server or its program, did something that ends connections: what is
    /// recorded at once, at most once a second, and not only where every end is.
    pub(crate) const fn is_bad_peer(self) -> bool {
        matches!(
            self,
            Self::HEAD_TIMEOUT
                | Self::BODY_TIMEOUT
                | Self::WRITE_TIMEOUT
                | Self::BAD_LENGTH
                | Self::BAD_CHECKSUM
                | Self::BAD_BODY_SIZE
                | Self::OUTPUT_OVERFLOW
                | Self::INPUT_OVERFLOW
                | Self::PROTOCOL_ERROR
                | Self::FLOOD
                | Self::PROXY_HEADER
                | Self::SLOW_BODY
                | Self::SLOW_READER
                | Self::ADDRESS_LIMIT
        )
    }

    /// The stable number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique_ordered_and_below_the_custom_range() {
        let numbers: Vec<u8> = Reason::ALL.iter().map(|r| r.number()).collect();
        assert!(numbers.windows(2).all(|w| w[0] < w[1]));
        assert!(numbers.iter().all(|&n| n > 0 && n < Reason::FIRST_CUSTOM));
    }

    #[test]
    fn a_custom_reason_keeps_its_number() {
        assert_eq!(Reason::custom(41).number(), 41);
        assert_eq!(Reason::custom(41).to_string(), "custom");
    }
}
