//! `Outbound`: datagrams that are to be sent, in order, many by one sendmmsg(2).
//!
//! ```text
//!   bytes    | gone | to A, 64 | to A, 64 | to A, 10 | to B, 700 | ...
//!                    └──── one message of three segments ──┘ └── one message
//! ```
//!
//! Invariant: `bytes` are those of the entries, one after the other, the first `gone` entries excepted, which have left.

use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use super::control::{self, Control};
use super::{Address, Arrival, BATCH, Traits, narrow};

/// Datagrams on their way out. What an owner bounds is [`queued_bytes`](Self::queued_bytes).
///
/// ```
/// use std::net::UdpSocket;
/// use tidegate_sys::datagram::{Outbound, Traits};
///
/// # fn main() -> std::io::Result<()> {
/// let (here, there) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// let mut batch = Outbound::default();
/// batch.push(&there.local_addr()?.into(), None, b"one");
/// batch.push(&there.local_addr()?.into(), None, b"two");
/// assert_eq!(batch.send(&here, Traits::default())?, 2);
/// let mut buffer = [0; 16];
/// assert_eq!((there.recv(&mut buffer)?, there.recv(&mut buffer)?), (3, 3));
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Outbound {
    bytes: Vec<u8>,
    /// Whom the entries are for: neighbours with the same peer share a place.
    routes: Vec<Route>,
    entries: Vec<Entry>,
    gone: usize,
    /// The bytes of those that have left.
    gone_bytes: usize,
}

#[derive(Clone, Copy)]
struct Route {
    to: Address,
    leave_from: Option<Arrival>,
}

#[derive(Clone, Copy)]
struct Entry {
    route: usize,
    len: usize,
}

/// One message of a call: so many entries, of so many bytes together.
#[derive(Clone, Copy, Default)]
struct Run {
    entries: usize,
    bytes: usize,
    /// The size of each but the last, when there are several.
    segment: Option<u16>,
}

/// What an entry is counted with besides its bytes.
const ENTRY_BYTES: usize = 64;
/// The most segments of a message (`UDP_MAX_SEGMENTS` of the kernels before 6.9), and the most bytes: a datagram of IPv4
/// without its headers, rounded down.
const MAX_SEGMENTS: usize = 64;
const MAX_RUN_BYTES: usize = 65_000;
/// What has left is forgotten when it is so much, however much is queued behind it.
const MAX_GONE: usize = 4096;

impl Outbound {
    /// Queues a datagram. `leave_from` is where the one came in that it answers, if that is known.
    #[inline]
    pub fn push(&mut self, to: &Address, leave_from: Option<&Arrival>, bytes: &[u8]) {
        let is_last = |last: &Route| last.leave_from.as_ref() == leave_from && last.to == *to;
        if !self.routes.last().is_some_and(is_last) {
            self.routes.push(Route { to: *to, leave_from: leave_from.copied() });
        }
        self.bytes.extend_from_slice(bytes);
        self.entries.push(Entry { route: self.routes.len() - 1, len: bytes.len() });
    }

    /// How many datagrams are queued.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.entries.len() - self.gone
    }

    /// Whether none is.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.gone == self.entries.len()
    }

    /// The bytes of the queued datagrams.
    #[must_use]
    #[inline]
    pub fn payload_bytes(&self) -> usize {
        self.bytes.len() - self.gone_bytes
    }

    /// What the queued datagrams take of memory, about.
    #[must_use]
    #[inline]
    pub fn queued_bytes(&self) -> usize {
        self.payload_bytes() + self.len() * ENTRY_BYTES
    }

    /// Sends from the front of the queue, as many as one call takes. How many have left, at least 1 unless none was queued.
    ///
    /// # Errors
    ///
    /// The kernel's for the first of them, which stays queued: `EAGAIN` when its buffer is full. Whatever else is wrong
    /// with it, the others may do: see [`skip`](Self::skip).
    pub fn send(&mut self, socket: impl AsFd, traits: Traits) -> Result<usize, Errno> {
        if self.is_empty() {
            return Ok(0);
        }
        // What is not used is not prepared: most calls send few.
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
        let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; BATCH];
        let mut runs = [Run::default(); BATCH];
        let (mut entry, mut at, mut count) = (self.gone, self.gone_bytes, 0);
        while count < BATCH && entry < self.entries.len() {
            let run = self.run_at(entry, traits.segments);
            let route = &self.routes[self.entries[entry].route];
            let bytes = &self.bytes[at..at + run.bytes];
            let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            // SAFETY: numbers and pointers, which may be zero.
            let message = messages[count].write(unsafe { std::mem::zeroed() });
            let header = &mut message.msg_hdr;
            header.msg_iov = parts[count].write(part);
            header.msg_iovlen = 1;
            let name = route.to.bytes();
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = narrow(name.len());
            if run.segment.is_some() || route.leave_from.is_some() {
                let control = controls[count].write(Control::EMPTY);
                let len = control::write(control, route.leave_from.as_ref(), run.segment);
                header.msg_control = control.0.as_mut_ptr().cast();
                header.msg_controllen = len as _;
            }
            runs[count] = run;
            (entry, at, count) = (entry + run.entries, at + run.bytes, count + 1);
        }
        let fd = socket.as_fd().as_raw_fd();
        let first = messages.as_mut_ptr().cast::<libc::mmsghdr>();
        let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _;
        // SAFETY: the first `count` headers are written, and name memory of this batch or of this function, with its length,
        // which outlives the call; a send does not write to it.
        let sent = unsafe { libc::sendmmsg(fd, first, narrow(count), flags) };
        let Ok(sent) = usize::try_from(sent) else {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
        };
        let (mut left, mut left_bytes) = (0, 0);
        for run in &runs[..sent] {
            left += run.entries;
            left_bytes += run.bytes;
        }
        self.forget(left, left_bytes);
        Ok(left)
    }

    /// Gives up the first datagram of the queue. Its length.
    pub fn skip(&mut self) -> Option<usize> {
        let len = self.entries.get(self.gone)?.len;
        self.forget(1, len);
        Some(len)
    }

    /// The message that begins with an entry: all of the same peer and size behind it, and one that is smaller.
    #[inline]
    fn run_at(&self, first: usize, joins: bool) -> Run {
        let Entry { route, len } = self.entries[first];
        let mut run = Run { entries: 1, bytes: len, segment: None };
        let Ok(segment) = u16::try_from(len) else { return run };
        if !joins || segment == 0 {
            return run;
        }
        for entry in &self.entries[first + 1..] {
            let fits = run.entries < MAX_SEGMENTS && run.bytes + entry.len <= MAX_RUN_BYTES;
            // An empty datagram would vanish among the segments.
            if entry.route != route || entry.len > len || entry.len == 0 || !fits {
                break;
            }
            run = Run { entries: run.entries + 1, bytes: run.bytes + entry.len, segment: Some(segment) };
            if entry.len < len {
                break;
            }
        }
        run
    }

    fn forget(&mut self, entries: usize, bytes: usize) {
        self.gone += entries;
        self.gone_bytes += bytes;
        if self.is_empty() {
            self.bytes.clear();
            self.routes.clear();
            self.entries.clear();
            (self.gone, self.gone_bytes) = (0, 0);
        } else if self.gone >= MAX_GONE {
            let routes = self.entries[self.gone].route;
            self.bytes.drain(..self.gone_bytes);
            self.routes.drain(..routes);
            self.entries.drain(..self.gone);
            self.entries.iter_mut().for_each(|entry| entry.route -= routes);
            (self.gone, self.gone_bytes) = (0, 0);
        }
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("len", &self.len())
            .field("bytes", &self.queued_bytes())
            .finish_non_exhaustive()
    }
}
