//! The channel between the master and one child: small messages over a pair of `SOCK_SEQPACKET` sockets.
//!
//! ```text
//!  0         1         2
//!  +---------+---------+-- … --+
//!  | version | kind    | fields|     one message is one packet of at most 8 KiB; numbers are big-endian
//!  +---------+---------+-- … --+
//!
//!  to the master:  0x01 READY      -                 to a child:  0x81 STOP    -
//!                  0x02 STOPPING   -                              0x82 QUIT    timeout_ms u64, all ones: no limit; drain u8
//!                  0x03 STATUS     text, UTF-8                    0x83 REOPEN  -
//!                  0x04 SIGNALLED  number i32                     0x84 PING    -
//!                  0x05 PONG       -                              0x85 COVER   slot u32, names by line feeds, + descriptors
//!                  0x06 FAILED     text, UTF-8                    0x86 UNCOVER slot u32
//!                  0x07 ANSWER     ticket u64, + memory file      0x87 PAUSE   -
//!                                                                 0x88 RESUME  -
//!                                                                 0x89 ASK     ticket u64, text, UTF-8
//! ```
//!
//! The one invariant: neither side ever waits for the other; a message goes at once or is an error. The end of the
//! channel is the end of the other process. What a message leads to is decided elsewhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tidegate_sys::fd_channel::{self, FdChannel};

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
    /// It answers: all that it runs makes progress.
    Pong,
    /// Why it is about to end, for people; cut at [`MAX_STATUS_BYTES`] when it is sent.
    Failed(String),
    /// The answer to a question, in the memory file that comes with it.
    Answer {
        /// Of the question.
        ticket: u64,
    },
}

/// What the master tells a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToChild {
    /// End at once.
    Stop,
    /// Accept nothing more, finish what is in flight, and end within this time (whole milliseconds on the wire).
    Quit {
        /// The time that is left; none: there is no limit.
        timeout: Option<Duration>,
        /// Others have taken over: who has nothing in flight may stay until then.
        drain: bool,
    },
    /// Open the log files again.
    Reopen,
    /// Say whether you make progress.
    Ping,
    /// Accept for an absent neighbour, too, from the descriptors that come with it.
    Cover {
        /// The neighbour.
        slot: u32,
        /// What the descriptors are, in their order; as they are called when they are inherited.
        names: Vec<String>,
    },
    /// The neighbour is back: take what waits there, and let go.
    Uncover {
        /// The neighbour.
        slot: u32,
    },
    /// Accept nothing until [`ToChild::Resume`].
    Pause,
    /// Accept again.
    Resume,
    /// A question of an operator.
    Ask {
        /// To be given back with the answer.
        ticket: u64,
        /// The question.
        text: String,
    },
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
    /// It could not be received whole.
    #[error("{0}")]
    Packet(String),
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
            Self::Pong => packet(0x05, &[]),
            Self::Failed(text) => packet(0x06, cut(text).as_bytes()),
            Self::Answer { ticket } => packet(0x07, &ticket.to_be_bytes()),
        }
    }

    fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (kind, fields) = split(packet)?;
        let length = DecodeError::Length { kind, len: fields.len() };
        match kind {
            0x01 => fields.is_empty().then_some(Self::Ready).ok_or(length),
            0x02 => fields.is_empty().then_some(Self::Stopping).ok_or(length),
            0x03 => text(fields).map(Self::Status),
            0x04 => {
                fields.try_into().map(|bytes| Self::Signalled(i32::from_be_bytes(bytes))).map_err(|_| length)
            }
            0x05 => fields.is_empty().then_some(Self::Pong).ok_or(length),
            0x06 => text(fields).map(Self::Failed),
            0x07 => {
                let ticket = fields.try_into().map(u64::from_be_bytes).map_err(|_| length)?;
                Ok(Self::Answer { ticket })
            }
            _ => Err(DecodeError::Kind(kind)),
        }
    }
}

impl Message for ToChild {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Stop => packet(0x81, &[]),
            Self::Quit { timeout, drain } => {
                let millis = timeout.map_or(u64::MAX, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
                packet(0x82, &[&millis.to_be_bytes()[..], &[u8::from(*drain)]].concat())
            }
            Self::Reopen => packet(0x83, &[]),
            Self::Ping => packet(0x84, &[]),
            Self::Cover { slot, names } => {
                packet(0x85, &[&slot.to_be_bytes(), names.join("\n").as_bytes()].concat())
            }
            Self::Uncover { slot } => packet(0x86, &slot.to_be_bytes()),
            Self::Pause => packet(0x87, &[]),
            Self::Resume => packet(0x88, &[]),
            Self::Ask { ticket, text } => packet(0x89, &[&ticket.to_be_bytes(), text.as_bytes()].concat()),
        }
    }

    fn decode(packet: &[u8]) -> Result<Self, DecodeError> {
        let (kind, fields) = split(packet)?;
        let length = DecodeError::Length { kind, len: fields.len() };
        match kind {
            0x81 => fields.is_empty().then_some(Self::Stop).ok_or(length),
            0x82 => {
                let (millis, drain) = fields.split_first_chunk().ok_or(length.clone())?;
                let &[drain] = drain else { return Err(length) };
                let millis = u64::from_be_bytes(*millis);
                let timeout = (millis != u64::MAX).then(|| Duration::from_millis(millis));
                Ok(Self::Quit { timeout, drain: drain != 0 })
            }
            0x83 => fields.is_empty().then_some(Self::Reopen).ok_or(length),
            0x84 => fields.is_empty().then_some(Self::Ping).ok_or(length),
            0x85 => {
                let (slot, names) = fields.split_first_chunk().ok_or(length)?;
                let names = text(names)?.lines().map(str::to_owned).collect();
                Ok(Self::Cover { slot: u32::from_be_bytes(*slot), names })
            }
            0x86 => {
                let slot = fields.try_into().map(u32::from_be_bytes).map_err(|_| length)?;
                Ok(Self::Uncover { slot })
            }
            0x87 => fields.is_empty().then_some(Self::Pause).ok_or(length),
            0x88 => fields.is_empty().then_some(Self::Resume).ok_or(length),
            0x89 => {
                let (ticket, question) = fields.split_first_chunk().ok_or(length)?;
                Ok(Self::Ask { ticket: u64::from_be_bytes(*ticket), text: text(question)? })
            }
            _ => Err(DecodeError::Kind(kind)),
        }
    }
}

fn text(fields: &[u8]) -> Result<String, DecodeError> {
    str::from_utf8(fields).map(str::to_owned).map_err(|_| DecodeError::Text)
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
pub struct Channel(FdChannel);

impl Channel {
    /// A new channel: our end, and the end to be handed to a child.
    ///
    /// # Errors
    ///
    /// The error of `socketpair(2)`, for example when descriptors are short.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = FdChannel::pair()?;
        Ok((Self(ours), theirs.into()))
    }

    /// The channel behind an inherited end.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it is none.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        FdChannel::from_fd(fd).map(Self)
    }

    /// Sends a message without waiting.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the other side has left too many unread, `BrokenPipe` when it has gone, `InvalidInput` when it is
    /// too long.
    pub fn send(&self, message: &impl Message) -> io::Result<()> {
        self.send_with(message, &[])
    }

    /// Sends a message and descriptors, at most [`MAX_FDS`], without waiting: all of it or nothing.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_with(&self, message: &impl Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let packet = message.encode();
        if packet.len() > MAX_PACKET_BYTES || fds.len() > MAX_FDS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.0.send(&packet, fds)
    }

    /// The next message that waits. The descriptors that came with it are put into `fds`, which is emptied before.
    ///
    /// # Errors
    ///
    /// The error of `recvmsg(2)`.
    pub fn recv<M: Message>(&self, fds: &mut Vec<OwnedFd>) -> io::Result<Received<M>> {
        // One byte more than a message has, so that a longer packet is seen as such and not cut.
        let mut packet = [0; MAX_PACKET_BYTES + 1];
        fds.clear();
        let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
        let received = match self.0.recv(&mut packet, fds) {
            // The other side has closed without reading all. The kernel says so once, and before what that side has sent,
            // which is still there (unix(7)).
            Err(error) if is_reset(&error) => self.0.recv(&mut packet, fds),
            other => other,
        };
        let received = match received {
            Err(error) if is_reset(&error) => return Ok(Received::Closed),
            // That packet is gone, and the next one may be good.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Ok(Received::Invalid(DecodeError::Packet(error.to_string())));
            }
            other => other?,
        };
        Ok(match received {
            fd_channel::Received::Empty => Received::Empty,
            fd_channel::Received::Closed => Received::Closed,
            fd_channel::Received::Message { len } => {
                M::decode(&packet[..len]).map_or_else(Received::Invalid, Received::Message)
            }
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The version of these messages; it differs between a master and a child only across an upgrade.
pub const VERSION: u8 = 1;
/// The longest text of a status or a failure, in bytes.
pub const MAX_STATUS_BYTES: usize = 4096;
/// The most descriptors of a message.
pub const MAX_FDS: usize = 64;
/// The ticket of a question whose answer nobody waits for: what a child is to know from the beginning.
pub(crate) const FIRST_WORD: u64 = u64::MAX;
const MAX_PACKET_BYTES: usize = 8192;

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
        check_master(&ToMaster::Pong);
        check_master(&ToMaster::Failed("no such folder".to_owned()));
        check_master(&ToMaster::Answer { ticket: 7 });
        for message in [
            ToChild::Stop,
            ToChild::Quit { timeout: Some(Duration::from_millis(30_000)), drain: false },
            ToChild::Quit { timeout: None, drain: true },
            ToChild::Reopen,
            ToChild::Ping,
            ToChild::Cover { slot: 3, names: vec!["listen:0:0:1".to_owned(), "handoff".to_owned()] },
            ToChild::Cover { slot: 0, names: Vec::new() },
            ToChild::Uncover { slot: 3 },
            ToChild::Pause,
            ToChild::Resume,
            ToChild::Ask { ticket: u64::MAX, text: "connections limit=5".to_owned() },
        ] {
            assert_eq!(ToChild::decode(&message.encode()), Ok(message));
        }
        assert_eq!(
            ToChild::Quit { timeout: Some(Duration::from_secs(30)), drain: true }.encode(),
            [1, 0x82, 0, 0, 0, 0, 0, 0, 0x75, 0x30, 1]
        );
    }

    #[test]
    fn a_long_status_is_cut_between_characters() {
        for text in ["ä".repeat(4000), "x".to_owned() + &"ä".repeat(4000)] {
            let Ok(ToMaster::Status(cut)) = ToMaster::decode(&ToMaster::Status(text.clone()).encode()) else {
                panic!()
            };
            assert!(text.starts_with(&cut) && (MAX_STATUS_BYTES - 1..=MAX_STATUS_BYTES).contains(&cut.len()));
        }
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
        assert_eq!(ToMaster::decode(&[1; 8193]), Err(DecodeError::Size(8193)));
        assert_eq!(ToChild::decode(&[1, 0x85, 0]), Err(DecodeError::Length { kind: 0x85, len: 1 }));
        assert_eq!(ToChild::decode(&[1, 0x89, 0]), Err(DecodeError::Length { kind: 0x89, len: 1 }));
    }

    #[test]
    fn a_channel_carries_messages_until_it_is_closed() {
        let mut fds = Vec::new();
        let (master, fd) = Channel::pair().unwrap();
        let child = Channel::from_fd(fd).unwrap();
        assert_eq!(child.recv::<ToChild>(&mut fds).unwrap(), Received::Empty);
        master.send(&ToChild::Reopen).unwrap();
        master.send(&ToChild::Stop).unwrap();
        assert_eq!(child.recv(&mut fds).unwrap(), Received::Message(ToChild::Reopen));
        drop(master);
        assert_eq!(
            child.recv(&mut fds).unwrap(),
            Received::Message(ToChild::Stop),
            "what was sent still arrives"
        );
        assert_eq!(child.recv::<ToChild>(&mut fds).unwrap(), Received::Closed);
        assert_eq!(child.send(&ToMaster::Ready).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_was_said_arrives_from_a_child_that_did_not_read_all() {
        let mut fds = Vec::new();
        let (master, fd) = Channel::pair().unwrap();
        let child = Channel::from_fd(fd).unwrap();
        master.send(&ToChild::Ping).unwrap();
        child.send(&ToMaster::Ready).unwrap();
        drop(child);
        assert_eq!(master.recv(&mut fds).unwrap(), Received::Message(ToMaster::Ready));
        assert_eq!(master.recv::<ToMaster>(&mut fds).unwrap(), Received::Closed);
    }

    #[test]
    fn descriptors_come_with_their_message() {
        let (master, fd) = Channel::pair().unwrap();
        let child = Channel::from_fd(fd).unwrap();
        let file = tempfile::tempfile().unwrap();
        let message = ToChild::Cover { slot: 1, names: vec!["a".to_owned(), "b".to_owned()] };
        master.send_with(&message, &[file.as_fd(), file.as_fd()]).unwrap();
        master.send(&ToChild::Ping).unwrap();
        let mut fds = Vec::new();
        assert_eq!(child.recv(&mut fds).unwrap(), Received::Message(message));
        assert_eq!(fds.len(), 2);
        assert_eq!(child.recv(&mut fds).unwrap(), Received::Message(ToChild::Ping));
        assert!(fds.is_empty());
    }

    #[test]
    fn an_oversized_packet_is_an_error_and_the_channel_goes_on() {
        let (master, child) = FdChannel::pair().unwrap();
        let (master, mut fds) = (Channel(master), Vec::new());
        for size in [8192, 8193, 20_000] {
            child.send(&vec![1; size], &[]).unwrap();
        }
        assert_eq!(
            master.recv::<ToMaster>(&mut fds).unwrap(),
            Received::Invalid(DecodeError::Length { kind: 1, len: 8190 })
        );
        for _ in 0..2 {
            assert!(matches!(master.recv::<ToMaster>(&mut fds).unwrap(), Received::Invalid(_)));
        }
        assert_eq!(master.recv::<ToMaster>(&mut fds).unwrap(), Received::Empty);
        let long = ToChild::Ask { ticket: 0, text: "x".repeat(9000) };
        assert_eq!(master.send(&long).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_full_channel_refuses_instead_of_waiting() {
        let (master, _child) = Channel::pair().unwrap();
        let refused = (0..100_000).find_map(|_| master.send(&ToChild::Reopen).err());
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }
}
