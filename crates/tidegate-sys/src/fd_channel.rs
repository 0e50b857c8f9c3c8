//! `FdChannel`: messages with descriptors from one process to another, over a Unix socket of sequenced packets.
//!
//! A message is bytes and any number of descriptors up to [`FdChannel::MAX_FDS`], and arrives whole or not at all
//! (unix(7), `SCM_RIGHTS`). Both ends never wait: a full channel refuses, an empty one says so.
//!
//! Invariant: a descriptor that the kernel has put into this process is in the caller's hands or closed, whatever went
//! wrong with its message. What the descriptors are is for the caller to check: see [`check_connection`].

use std::io::{self, IoSlice};
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    getpeername, sendmsg, socketpair, sockopt,
};
use rustix::time::Timespec;

/// One end of a channel for messages with descriptors.
///
/// Any number of processes and threads may share an end: each message reaches one of those who receive. A process that is
/// started later gets an end as any descriptor, and makes it one again by [`from_fd`](Self::from_fd). Whoever takes connections
/// over checks each with [`check_connection`].
///
/// ```
/// use std::io::{Read, Seek, Write};
/// use std::os::fd::AsFd;
/// use tidegate_sys::fd_channel::{FdChannel, Received};
///
/// # fn main() -> std::io::Result<()> {
/// let (here, there) = FdChannel::pair()?;
/// let mut file = tempfile::tempfile()?;
/// file.write_all(b"hello")?;
/// here.send(b"a file for you", &[file.as_fd()])?;
///
/// let (mut bytes, mut fds) = ([0; 64], Vec::new());
/// assert_eq!(there.recv(&mut bytes, &mut fds)?, Received::Message { len: 14 });
/// let mut copy = std::fs::File::from(fds.remove(0));
/// let mut text = String::new();
/// copy.rewind()?;
/// copy.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// assert_eq!(there.recv(&mut bytes, &mut fds)?, Received::Empty);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct FdChannel(OwnedFd);

/// What [`FdChannel::recv`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A whole message, of so many bytes.
    Message {
        /// At least 1.
        len: usize,
    },
    /// Nothing is there at the moment.
    Empty,
    /// All was received, and nobody has the other end any more.
    Closed,
}

/// Why a message was refused. Its descriptors are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("a message was longer than the buffer of {0} bytes")]
    Truncated(usize),
    #[error("not all descriptors of a message could be received: too many, or this process may open no more")]
    FdsLost,
    #[error("a message carries control data other than descriptors")]
    Foreign,
    #[error("a message has no bytes")]
    NoBytes,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::InvalidData, refused)
    }
}

impl FdChannel {
    /// How many descriptors a message may carry (`SCM_MAX_FD`, unix(7)).
    pub const MAX_FDS: usize = 253;

    /// Two ends of a new channel, each closed at an exec (socketpair(2)). Messages go both ways.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no descriptor or memory for it.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(one), Self(other)))
    }

    /// An end that was made elsewhere, and inherited or received.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it is no Unix socket of type `SOCK_SEQPACKET`, and the kernel's when it is no socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let family = sockopt::socket_domain(&fd)?;
        if family != AddressFamily::UNIX || sockopt::socket_type(&fd)? != SocketType::SEQPACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no Unix socket of sequenced packets"));
        }
        Ok(Self(fd))
    }

    /// Another descriptor of the same end, closed at an exec.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends a message: all of it, or nothing and an error. The caller keeps the descriptors, and may close them at once.
    ///
    /// # Errors
    ///
    /// * `WouldBlock`: the channel is full; it takes messages again when somebody receives.
    /// * `BrokenPipe` or `ConnectionReset`: nobody has the other end.
    /// * `ETOOMANYREFS`: more descriptors are on their way than the user may have open (`RLIMIT_NOFILE`, unix(7)); it
    ///   passes as they are received.
    /// * `InvalidInput`: no bytes, or more than [`MAX_FDS`](Self::MAX_FDS) descriptors.
    /// * `EMSGSIZE`: more bytes than the socket's buffer holds.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.is_empty() || fds.len() > Self::MAX_FDS {
            let what = if bytes.is_empty() { "a message needs a byte" } else { "too many descriptors" };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(Self::MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            unreachable!("there is space for as many as a message may carry");
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // A packet is taken whole (socket(2), SOCK_SEQPACKET): the count that comes back says nothing new.
        retry_on_intr(|| sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, flags))?;
        Ok(())
    }

    /// Receives a message: its bytes into `buffer`, its descriptors behind those in `fds`, in the order in which they were
    /// sent and each closed at an exec. When it fails `fds` is as it was.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a message that is lost, with every descriptor of it closed: it is longer than `buffer`
    /// (`MSG_TRUNC`, recvmsg(2)); not all its descriptors could be received (`MSG_CTRUNC`), which is what becomes of it
    /// when this process has no descriptor left; it carries control data of another kind; or it has no bytes. Otherwise the
    /// kernel's.
    pub fn recv(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<Received> {
        let mut control = Control([0; CONTROL_BYTES]);
        self.recv_within(&mut control.0, buffer, fds)
    }

    /// As [`recv`](Self::recv), with the space for control data.
    fn recv_within(
        &self,
        control: &mut [u8],
        buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
    ) -> io::Result<Received> {
        let message = match retry_on_intr(|| receive(self.0.as_fd(), control, buffer)) {
            Ok(message) => message,
            Err(Errno::AGAIN) => return Ok(Received::Empty),
            Err(errno) => return Err(errno.into()),
        };
        let before = fds.len();
        let only_fds = take_fds(control.get(..message.control_len).unwrap_or_default(), fds);
        let refused = if message.flags & libc::MSG_CTRUNC != 0 {
            Refused::FdsLost
        } else if !only_fds {
            Refused::Foreign
        } else if message.flags & libc::MSG_TRUNC != 0 {
            Refused::Truncated(buffer.len())
        } else if message.len > 0 {
            return Ok(Received::Message { len: message.len });
        } else if fds.len() == before && self.is_abandoned()? {
            return Ok(Received::Closed);
        } else {
            Refused::NoBytes
        };
        fds.truncate(before);
        Err(refused.into())
    }

    /// Whether nobody has the other end: it reads as packets without bytes do.
    fn is_abandoned(&self) -> io::Result<bool> {
        let mut ask = [PollFd::new(&self.0, PollFlags::RDHUP)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        retry_on_intr(|| poll(&mut ask, Some(&at_once)))?;
        Ok(ask[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP))
    }
}

impl AsFd for FdChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<FdChannel> for OwnedFd {
    fn from(channel: FdChannel) -> Self {
        channel.0
    }
}

/// Checks that a descriptor that somebody has handed over is a connected stream socket.
///
/// # Errors
///
/// `NotConnected` for a stream socket without a peer: it may have had one that has reset the connection. `InvalidInput` for
/// a socket of another type, and the kernel's (`ENOTSOCK`) for what is no socket.
pub fn check_connection(socket: impl AsFd) -> io::Result<()> {
    if sockopt::socket_type(&socket)? != SocketType::STREAM {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no stream socket"));
    }
    getpeername(&socket)?;
    Ok(())
}

/// Space for the control data of a message: all the descriptors it may carry, and something else to be refused.
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// The header of a control message: its length with the header, and two numbers that say what it is (cmsg(3)).
const HEADER_BYTES: usize = size_of::<usize>() + 2 * FD_BYTES;
const FD_BYTES: usize = size_of::<i32>();
const CONTROL_BYTES: usize = HEADER_BYTES + FdChannel::MAX_FDS * FD_BYTES + 252;
/// A process as a descriptor (`SO_PASSPIDFD`, since Linux 6.5), which `libc` does not name.
const SCM_PIDFD: i32 = 0x04;

/// What recvmsg(2) said.
struct Message {
    len: usize,
    control_len: usize,
    flags: i32,
}

fn receive(socket: BorrowedFd<'_>, control: &mut [u8], buffer: &mut [u8]) -> Result<Message, Errno> {
    let mut bytes = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the structure is made of numbers and of pointers that may be null.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut bytes;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control.len() as _;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: the header names two buffers with their lengths, both borrowed for the time of the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let Ok(len) = usize::try_from(len) else {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    };
    Ok(Message { len, control_len: header.msg_controllen as _, flags: header.msg_flags })
}

/// Takes every descriptor out of control data, of whatever kind of message. Answers whether there was nothing but
/// `SCM_RIGHTS`.
fn take_fds(mut control: &[u8], fds: &mut Vec<OwnedFd>) -> bool {
    let mut only_rights = true;
    while let Some((header, _)) = control.split_at_checked(HEADER_BYTES) {
        let (len, kind) = header.split_at(size_of::<usize>());
        let len = usize::from_ne_bytes(len.try_into().expect("it was split there"));
        let Some(data) = control.get(HEADER_BYTES..len) else { return false };
        let (level, kind) = kind.split_at(FD_BYTES);
        let (level, kind) = (number(level), number(kind));
        let is_rights = level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS;
        only_rights &= is_rights;
        if is_rights || (level == libc::SOL_SOCKET && kind == SCM_PIDFD) {
            for fd in data.chunks_exact(FD_BYTES).map(number).filter(|fd| *fd >= 0) {
                // SAFETY: the kernel has just opened this descriptor for this message, and nobody else knows of it.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        control = control.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
    only_rights && control.is_empty()
}

fn number(bytes: &[u8]) -> i32 {
    i32::from_ne_bytes(bytes.try_into().expect("it is four bytes long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_for_control_data_refuses_the_message() {
        for space in [HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + FD_BYTES, HEADER_BYTES + 2 * FD_BYTES] {
            let (here, there) = FdChannel::pair().unwrap();
            let (ends, passed) = std::io::pipe().unwrap();
            here.send(b"three", &[passed.as_fd(); 3]).unwrap();
            drop(passed);
            let (mut control, mut fds) = (Control([0; CONTROL_BYTES]), Vec::new());
            let error = there.recv_within(&mut control.0[..space], &mut [0; 16], &mut fds).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().starts_with("not all descriptors"), "{error}");
            assert!(fds.is_empty());
            // Nobody has the writing end any more, neither here nor on the way.
            assert_eq!(io::read_to_string(ends).unwrap(), "");
        }
    }

    #[test]
    fn control_data_that_no_kernel_writes_is_foreign() {
        let mut fds = Vec::new();
        assert!(take_fds(&[], &mut fds));
        for len in [0, 1, HEADER_BYTES - 1, HEADER_BYTES + 1, usize::MAX] {
            let mut control = [0; HEADER_BYTES];
            control[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
            assert!(!take_fds(&control, &mut fds), "{len}");
        }
        assert!(!take_fds(&[0; HEADER_BYTES - 1], &mut fds));
        assert!(fds.is_empty());
    }
}
