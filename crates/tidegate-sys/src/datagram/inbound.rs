//! `Inbound`: a batch of datagrams as they were received, by one recvmmsg(2).
//!
//! Invariant: the first `count` entries are what the last call has brought; each has a buffer of its own.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::control::{self, Control};
use super::{Address, Arrival, BATCH, Traits, narrow};

/// Memory for up to [`BATCH`] datagrams, and those that were received last. The kernel gives memory only to what is
/// written to, so room for large datagrams costs nothing while small ones come.
///
/// ```
/// use std::net::UdpSocket;
/// use tidegate_sys::datagram::{Inbound, Traits};
///
/// # fn main() -> std::io::Result<()> {
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// socket.send_to(b"to myself", socket.local_addr()?)?;
/// let mut batch = Inbound::new(2048);
/// let count = batch.receive(&socket, Traits::default())?;
/// let datagram = batch.get(0).expect("one has come");
/// assert_eq!((count, datagram.bytes, datagram.truncated), (1, &b"to myself"[..], false));
/// # Ok(())
/// # }
/// ```
pub struct Inbound {
    bytes: Box<[u8]>,
    /// From one buffer to the next.
    stride: usize,
    /// The room in each.
    room: usize,
    heads: Box<[Head; BATCH]>,
    count: usize,
    /// How many the next call asks for: about twice as many as the last one has brought.
    asks: usize,
    was_full: bool,
}

/// What the kernel says of one datagram.
#[derive(Clone, Copy)]
struct Head {
    from: Address,
    control: Control,
    control_len: usize,
    len: usize,
    truncated: bool,
}

/// A datagram that was received, or several of equal size that the kernel has joined.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its sender.
    pub from: &'a Address,
    /// Its bytes; those of several, one after the other, when `segment` is not 0.
    pub bytes: &'a [u8],
    /// The size of each but the last, when several were joined (`UDP_GRO`, udp(7)); 0 otherwise.
    pub segment: usize,
    /// It was longer than the room for it, and the rest is lost.
    pub truncated: bool,
    /// Where it came in, if the socket was [prepared](super::prepare) to say so.
    pub arrival: Option<Arrival>,
}

/// The fewest that are asked for.
const FEW: usize = 4;
/// Buffers as far apart as pages would share the same few lines of the processor's cache.
const STAGGER: usize = 192;

impl Inbound {
    /// Room for datagrams of up to `room` bytes, at least 1.
    #[must_use]
    pub fn new(room: usize) -> Self {
        let room = room.max(1);
        let stride = room.next_multiple_of(64) + STAGGER;
        let none = Head {
            from: Address::unnamed(),
            control: Control::EMPTY,
            control_len: 0,
            len: 0,
            truncated: false,
        };
        let bytes = vec![0; stride * BATCH].into_boxed_slice();
        Self { bytes, stride, room, heads: Box::new([none; BATCH]), count: 0, asks: BATCH, was_full: false }
    }

    /// The room for each datagram.
    #[must_use]
    pub fn room(&self) -> usize {
        self.room
    }

    /// Receives what waits in a socket, at most [`BATCH`] datagrams, in place of what was received before. How many they
    /// are, at least 1.
    ///
    /// # Errors
    ///
    /// The kernel's: `EAGAIN` when nothing waits, and what an earlier send has come to, such as `ECONNREFUSED`, which says
    /// nothing about what can be received next.
    pub fn receive(&mut self, socket: impl AsFd, traits: Traits) -> Result<usize, Errno> {
        self.count = 0;
        // Of what is not asked for nothing is prepared: most calls bring few.
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
        let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        let buffers = self.bytes.chunks_exact_mut(self.stride).take(self.asks);
        for (((message, part), head), buffer) in
            messages.iter_mut().zip(&mut parts).zip(self.heads.iter_mut()).zip(buffers)
        {
            let part = part.write(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: self.room });
            // SAFETY: numbers and pointers, which may be zero.
            let message = message.write(unsafe { std::mem::zeroed() });
            let header = &mut message.msg_hdr;
            header.msg_iov = part;
            header.msg_iovlen = 1;
            let name = head.from.room();
            header.msg_name = name.as_mut_ptr().cast();
            header.msg_namelen = narrow(name.len());
            if traits.control {
                header.msg_control = head.control.0.as_mut_ptr().cast();
                header.msg_controllen = head.control.0.len() as _;
            }
        }
        let fd = socket.as_fd().as_raw_fd();
        let (first, asks) = (messages.as_mut_ptr().cast::<libc::mmsghdr>(), narrow(self.asks));
        let flags = libc::MSG_DONTWAIT as _;
        // SAFETY: the first `asks` headers are written, and name buffers of this batch with their lengths, which are
        // borrowed for the call.
        let count = unsafe { libc::recvmmsg(fd, first, asks, flags, std::ptr::null_mut()) };
        let Ok(count) = usize::try_from(count) else {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        };
        for (head, message) in self.heads.iter_mut().zip(&messages[..count]) {
            // SAFETY: the kernel has filled in the first `count` of those that were written above.
            let message = unsafe { message.assume_init_ref() };
            head.from.set_len(message.msg_hdr.msg_namelen);
            head.control_len = if traits.control { message.msg_hdr.msg_controllen as _ } else { 0 };
            head.len = message.msg_len as usize;
            head.truncated = message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        }
        self.count = count;
        self.was_full = count == self.asks;
        self.asks = if self.was_full { BATCH } else { (count * 2).clamp(FEW, BATCH) };
        Ok(count)
    }

    /// One of those that were received last.
    #[must_use]
    #[inline]
    pub fn get(&self, at: usize) -> Option<Datagram<'_>> {
        let head = self.heads[..self.count].get(at)?;
        let bytes = &self.bytes[at * self.stride..][..head.len.min(self.room)];
        let said = match head.control_len {
            0 => control::Said::default(),
            len => control::read(&head.control.0[..len.min(control::CONTROL_BYTES)]),
        };
        Some(Datagram {
            from: &head.from,
            bytes,
            segment: said.segment,
            truncated: head.truncated,
            arrival: said.arrival,
        })
    }

    /// Whether the last call has brought as many as it asked for, so that there may be more.
    #[must_use]
    pub fn was_full(&self) -> bool {
        self.was_full
    }

    /// The bytes of all that were received last.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        self.heads[..self.count].iter().map(|head| head.len.min(self.room)).sum()
    }

    /// How many were received last.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Debug for Inbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbound").field("room", &self.room).field("len", &self.count).finish_non_exhaustive()
    }
}
