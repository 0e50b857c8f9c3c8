//! The channel between the master and one child: small messages over a pair of `SOCK_SEQPACKET` sockets.
//!
//! ```text
//!  0         1         2
//!  +---------+---------+-- … --+
//!  | version | kind    | fields|     one message is one packet of at most 512 bytes
//!  +---------+---------+-- … --+
//!
//!  to the master:  0x01 READY      -                 to a child:  0x81 STOP    -
//!                  0x02 STOPPING   -                              0x82 QUIT    timeout_ms u64, big-endian
//!                  0x03 STATUS     text, UTF-8                    0x83 REOPEN  -
//!                  0x04 SIGNALLED  number i32, big-endian
//! ```
//!
//! The one invariant: neither side ever waits for the other; a message goes at once or is an error. The end of the
//! channel is the end of the other process. What a message leads to is decided elsewhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

/// What a child tells the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToMaster {
    /// It serves.
    Ready,
    /// It has begun to end.
    Stopping,
    /// What it is at, for people; cut at [`MAX_STATUS_BYTES`] when it is sent.
    Status(String),
    /// It was sent this signal, and leaves the decision to the master. The log server does that, so that a signal to the
    /// whole group does not end it before those that still log.
    Signalled(i32),
}

/// What the master tells a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToChild {
    /// End at once.
    Stop,
    /// Accept nothing more, finish what is in flight, and end within this time (whole milliseconds on the wire).
    Quit {
        /// The time that is left.
        timeout: Duration,
    },
    /// Open the log files again.
    Reopen,
}

/// A packet that is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Written by another version of the protocol.
    #[error("version {0}, expected {VERSION}")]
    Version(u8),
    /// A kind that this side does not take.
    #[error("unknown kind {0:#04x}")]
    Kind(u8),
    /// Fields of a size that the kind does not have.
    #[error("kind {kind:#04x} with {len} bytes of fields")]
    Length {
        /// The kind.
        kind: u8,
        /// How many bytes there were.
        len: usize,
    },
    /// A text that is not UTF-8.
    #[error("text is not UTF-8")]
    Text,
    /// Fewer than two bytes, or more than a message can have.
    #[error("packet of {0} bytes")]
    Size(usize),
}

/// A message as bytes and back. Implemented by [`ToMaster`] and [`ToChild`] only.
pub trait Message: Sized {
    /// The bytes of the packet.
    fn encode(&self) -> Vec<u8>;

    /// The message of a packet.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`].
    fn decode(packet: &[u8]) -> Result<Self, DecodeError>;
}

impl Message for ToMaster {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ready => packet(0x01, &[]),
            Self::Stopping => packet(0x02, &[]),
            Self::Status(text) => packet(0x03, cut(text).as_bytes()),
            Self::Signalled(number) => packet(0x04, &number.to_be_bytes()),
        }
    }

    fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (kind, fields) = split(packet)?;
        let length = DecodeError::Length { kind, len: fields.len() };
        match kind {
            0x01 => fields.is_empty().then_some(Self::Ready).ok_or(length),
            0x02 => fields.is_empty().then_some(Self::Stopping).ok_or(length),
            0x03 => {
                let text = str::from_utf8(fields).map_err(|_| DecodeError::Text)?;
                Ok(Self::Status(text.to_owned()))
            }
            0x04 => {
                fields.try_into().map(|bytes| Self::Signalled(i32::from_be_bytes(bytes))).map_err(|_| length)
            }
            _ => Err(DecodeError::Kind(kind)),
        }
    }
}

impl Message for ToChild {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Stop => packet(0x81, &[]),
            Self::Quit { timeout } => {
                let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                packet(0x82, &millis.to_be_bytes())
            }
            Self::Reopen => packet(0x83, &[]),
        }
    }

    fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (kind, fields) = split(packet)?;
        let length = DecodeError::Length { kind, len: fields.len() };
        match kind {
            0x81 => fields.is_empty().then_some(Self::Stop).ok_or(length),
            0x82 => {
                let millis = fields.try_into().map(u64::from_be_bytes).map_err(|_| length)?;
                Ok(Self::Quit { timeout: Duration::from_millis(millis) })
            }
            0x83 => fields.is_empty().then_some(Self::Reopen).ok_or(length),
            _ => Err(DecodeError::Kind(kind)),
        }
    }
}

/// The longest beginning of `text` that fits a message.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_STATUS_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn packet(kind: u8, fields: &[u8]) -> Vec<u8> {
    [&[VERSION, kind], fields].concat()
}

fn split(packet: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    match packet {
        _ if packet.len() > MAX_PACKET_BYTES => Err(DecodeError::Size(packet.len())),
        [VERSION, kind, fields @ ..] => Ok((*kind, fields)),
        [version, _, ..] => Err(DecodeError::Version(*version)),
        _ => Err(DecodeError::Size(packet.len())),
    }
}

/// What [`Channel::recv`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received<M> {
    /// A message.
    Message(M),
    /// A packet that is not one; the channel goes on.
    Invalid(DecodeError),
    /// Nothing waits.
    Empty,
    /// The other side has gone; nothing will come any more.
    Closed,
}

/// One end of a channel; non-blocking, closed at exec.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// A new channel: our end, and the end to be handed to a child.
    ///
    /// # Errors
    ///
    /// The error of `socketpair(2)`, for example when descriptors are short.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(ours), theirs))
    }

    /// The channel behind an inherited end.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a message without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the other side has left too many unread, `BrokenPipe` when it has gone.
    pub fn send(&self, message: &impl Message) -> io::Result<()> {
        let packet = message.encode();
        loop {
            match send(&self.0, &packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Err(Errno::INTR) => {}
                // A packet goes whole or not at all.
                other => return other.map(|_| ()).map_err(io::Error::from),
            }
        }
    }

    /// The next message that waits.
    ///
    /// # Errors
    ///
    /// The error of `recv(2)`.
    pub fn recv<M: Message>(&self) -> io::Result<Received<M>> {
        // One byte more than a message has, so that a longer packet is seen as such and not cut.
        let mut packet = [0; MAX_PACKET_BYTES + 1];
        loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            let (len, real_len) = match recv(&self.0, &mut packet, flags) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Received::Empty),
                Err(Errno::CONNRESET) => return Ok(Received::Closed),
                other => other?,
            };
            return Ok(match real_len {
                0 => Received::Closed,
                _ if real_len > len => Received::Invalid(DecodeError::Size(real_len)),
                _ => M::decode(&packet[..len]).map_or_else(Received::Invalid, Received::Message),
            });
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The version of these messages; it differs between a master and a child only across an upgrade.
pub const VERSION: u8 = 1;
/// The longest text of a status, in bytes.
pub const MAX_STATUS_BYTES: usize = MAX_PACKET_BYTES - 2;
const MAX_PACKET_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn check_master(message: &ToMaster) {
        assert_eq!(ToMaster::decode(&message.encode()).as_ref(), Ok(message));
    }

    #[test]
    fn messages_survive_the_wire() {
        check_master(&ToMaster::Ready);
        check_master(&ToMaster::Stopping);
        check_master(&ToMaster::Status("draining 12 connections".to_owned()));
        check_master(&ToMaster::Signalled(15));
        for message in
            [ToChild::Stop, ToChild::Quit { timeout: Duration::from_millis(30_000) }, ToChild::Reopen]
        {
            assert_eq!(ToChild::decode(&message.encode()), Ok(message));
        }
        assert_eq!(
            ToChild::Quit { timeout: Duration::from_secs(30) }.encode(),
            [1, 0x82, 0, 0, 0, 0, 0, 0, 0x75, 0x30]
        );
    }

    #[test]
    fn a_long_status_is_cut_between_characters() {
        let Ok(ToMaster::Status(text)) = ToMaster::decode(&ToMaster::Status("ä".repeat(400)).encode())
        else {
            panic!()
        };
        assert_eq!(text, "ä".repeat(255));
        let Ok(ToMaster::Status(text)) = ToMaster::decode(&ToMaster::Status("xä".repeat(400)).encode())
        else {
            panic!()
        };
        assert_eq!(text.len(), 510);
    }

    #[test]
    fn bad_packets_say_what_is_wrong() {
        assert_eq!(ToMaster::decode(&[]), Err(DecodeError::Size(0)));
        assert_eq!(ToMaster::decode(&[1]), Err(DecodeError::Size(1)));
        assert_eq!(ToMaster::decode(&[2, 1]), Err(DecodeError::Version(2)));
        assert_eq!(ToMaster::decode(&[1, 0x81]), Err(DecodeError::Kind(0x81)));
        assert_eq!(ToChild::decode(&[1, 0x01]), Err(DecodeError::Kind(0x01)));
        assert_eq!(ToMaster::decode(&[1, 1, 0]), Err(DecodeError::Length { kind: 1, len: 1 }));
        assert_eq!(ToMaster::decode(&[1, 4, 0]), Err(DecodeError::Length { kind: 4, len: 1 }));
        assert_eq!(ToChild::decode(&[1, 0x82, 0]), Err(DecodeError::Length { kind: 0x82, len: 1 }));
        assert_eq!(ToMaster::decode(&[1, 3, 0xff]), Err(DecodeError::Text));
        assert_eq!(ToMaster::decode(&[1; 513]), Err(DecodeError::Size(513)));
    }

    #[test]
    fn a_channel_carries_messages_until_it_is_closed() {
        let (master, fd) = Channel::pair().unwrap();
        let child = Channel::from_fd(fd);
        assert_eq!(child.recv::<ToChild>().unwrap(), Received::Empty);
        master.send(&ToChild::Reopen).unwrap();
        master.send(&ToChild::Stop).unwrap();
        assert_eq!(child.recv().unwrap(), Received::Message(ToChild::Reopen));
        drop(master);
        assert_eq!(child.recv().unwrap(), Received::Message(ToChild::Stop), "what was sent still arrives");
        assert_eq!(child.recv::<ToChild>().unwrap(), Received::Closed);
        assert_eq!(child.send(&ToMaster::Ready).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn an_oversized_packet_is_an_error_and_the_channel_goes_on() {
        let (master, child) = Channel::pair().unwrap();
        for size in [512, 513, 5000] {
            send(&child, &vec![1; size], SendFlags::NOSIGNAL).unwrap();
        }
        assert_eq!(
            master.recv::<ToMaster>().unwrap(),
            Received::Invalid(DecodeError::Length { kind: 1, len: 510 })
        );
        assert_eq!(master.recv::<ToMaster>().unwrap(), Received::Invalid(DecodeError::Size(513)));
        assert_eq!(master.recv::<ToMaster>().unwrap(), Received::Invalid(DecodeError::Size(5000)));
        assert_eq!(master.recv::<ToMaster>().unwrap(), Received::Empty);
    }

    #[test]
    fn a_full_channel_refuses_instead_of_waiting() {
        let (master, _child) = Channel::pair().unwrap();
        let refused = (0..100_000).find_map(|_| master.send(&ToChild::Reopen).err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
