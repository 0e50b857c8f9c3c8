//! Sending: bytes are gathered, offered before the wait, and what is left over waits for room.

use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use tidegate_sys::uring::{Readiness, Ring, Tell};

use super::conn::{Conn, Ending};
use super::events::end;
use super::{ALL_BYTES, CONN_BYTES, Uring, word};
use crate::last_words::leaves_words;
use crate::{Completion, Token};

/// Read of a file at once, when nothing can be gathered.
pub(super) const FILE_BYTES: usize = 16 << 10;

/// From this size on, a system call costs less than a copy that leaves the caches.
const DIRECT_BYTES: usize = 8 << 10;

impl Uring {
    /// Takes bytes of a connection; answers how many.
    #[inline]
    pub(super) fn gather(&mut self, token: Token, bytes: &[u8]) -> Result<usize, Errno> {
        let conn = self.conns.find(token).ok_or(Errno::BADF)?;
        if conn.failed || conn.shuts || conn.broken.is_some() {
            return Err(Errno::PIPE);
        }
        if conn.unsent() == 0 && (bytes.len() >= DIRECT_BYTES || self.taken >= ALL_BYTES) {
            return send_directly(conn, bytes);
        }
        let n = bytes.len().min(room(conn, self.taken));
        if n > 0 {
            if conn.gathered.capacity() == 0 {
                conn.gathered = self.ring.spare();
            }
            conn.gathered.extend_from_slice(&bytes[..n]);
            self.taken += n;
            Self::review(&mut self.unsynced, token, conn);
        }
        Ok(n)
    }

    /// As [`gather`](Self::gather), of what was received last.
    #[inline]
    pub(super) fn gather_received(&mut self, token: Token, range: Range<usize>) -> Result<usize, Errno> {
        let conn = self.conns.find(token).ok_or(Errno::BADF)?;
        if conn.failed || conn.shuts || conn.broken.is_some() {
            return Err(Errno::PIPE);
        }
        if conn.gathered.capacity() == 0 && range.len() < DIRECT_BYTES {
            conn.gathered = self.ring.spare();
        }
        let bytes = &self.piece.as_deref().unwrap_or_else(|| self.ring.received())[range];
        if conn.unsent() == 0 && (bytes.len() >= DIRECT_BYTES || self.taken >= ALL_BYTES) {
            return send_directly(conn, bytes);
        }
        let n = bytes.len().min(room(conn, self.taken));
        if n > 0 {
            conn.gathered.extend_from_slice(&bytes[..n]);
            self.taken += n;
            Self::review(&mut self.unsynced, token, conn);
        }
        Ok(n)
    }

    /// As [`gather`](Self::gather), from a file; `None` when the file ends before `offset + 1`.
    pub(super) fn gather_file(
        &mut self,
        token: Token,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<Option<usize>, Errno> {
        let conn = self.conns.find(token).ok_or(Errno::BADF)?;
        if conn.failed || conn.shuts || conn.broken.is_some() {
            return Err(Errno::PIPE);
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if self.taken >= ALL_BYTES && conn.unsent() == 0 {
            let mut part = self.ring.spare();
            part.resize(len.min(FILE_BYTES), 0);
            let read = read_at(file, &mut part[..], offset).map(|n| n.min(part.len()));
            let sent =
                read.and_then(|n| if n == 0 { Ok(None) } else { send_directly(conn, &part[..n]).map(Some) });
            self.ring.keep(part);
            return sent;
        }
        let n = len.min(room(conn, self.taken));
        if n == 0 {
            return Ok(Some(0));
        }
        if conn.gathered.capacity() == 0 {
            conn.gathered = self.ring.spare();
        }
        let before = conn.gathered.len();
        conn.gathered.reserve(n);
        read_at(file, spare_capacity(&mut conn.gathered), offset)?;
        conn.gathered.truncate(before + n);
        let read = conn.gathered.len() - before;
        self.taken += read;
        Self::review(&mut self.unsynced, token, conn);
        Ok((read > 0).then_some(read))
    }

    /// What a send or an attempt came to.
    pub(super) fn on_sent(
        &mut self,
        token: Token,
        bytes: Vec<u8>,
        from: usize,
        result: Result<usize, Errno>,
    ) -> Option<Completion> {
        let at = from + result.unwrap_or(0);
        self.taken -= at - from;
        let left = bytes.len() - at;
        let Some(conn) = self.conns.find(token) else {
            self.taken -= left;
            self.ring.keep(bytes);
            return None;
        };
        match result {
            Ok(_) if left == 0 => {
                conn.in_flight = 0;
                self.ring.keep(bytes);
                if !conn.gathered.is_empty() {
                    Self::review(&mut self.unsynced, token, conn);
                    return Some(Completion::Stalled(token));
                }
                if std::mem::take(&mut conn.shuts) {
                    let _ = rustix::net::shutdown(&conn.fd, Shutdown::Write);
                }
                std::mem::take(&mut conn.awaits_writable).then_some(Completion::Writable(token))
            }
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {
                conn.in_flight = u32::try_from(left).unwrap_or(u32::MAX);
                self.ring.send(word::of_token(token), &conn.fd, bytes, at);
                Some(Completion::Stalled(token))
            }
            Err(errno) => {
                conn.in_flight = 0;
                let lost = std::mem::take(&mut conn.gathered);
                self.taken -= left + lost.len();
                self.ring.keep(bytes);
                self.ring.keep(lost);
                conn.shuts = false;
                // What the peer sent before it went may not have been told yet, and comes first.
                if !conn.ended && leaves_words(&conn.fd, errno) {
                    conn.broken = Some(errno);
                    return std::mem::take(&mut conn.awaits_writable).then_some(Completion::Writable(token));
                }
                if !conn.ended && !conn.paused && errno == Errno::CONNRESET {
                    // Behind a reset receiving ends at once.
                    conn.broken = Some(errno);
                    return None;
                }
                (!conn.failed).then(|| end(token, conn, Ending::Failed(errno)))
            }
        }
    }

    /// There is room to write where nothing waited for it.
    pub(super) fn on_room(&mut self, token: Token) -> Option<Completion> {
        let conn = self.conns.find(token)?;
        conn.polls_room = false;
        if conn.connecting {
            return Some(self.on_connected(token));
        }
        let tell = conn.unsent() == 0 && std::mem::take(&mut conn.awaits_writable);
        tell.then_some(Completion::Writable(token))
    }
}

/// Offers what was gathered.
#[inline]
pub(super) fn sync_output(ring: &mut Ring, token: Token, conn: &mut Conn) {
    if conn.in_flight > 0 {
        return;
    }
    let word = word::of_token(token);
    if !conn.gathered.is_empty() {
        // Who waits for the last byte is told of it; otherwise no news is good news.
        let tell = if conn.awaits_writable || conn.shuts { Tell::Always } else { Tell::Shortfall };
        ring.attempt(word, &conn.fd, std::mem::take(&mut conn.gathered), tell);
    } else if conn.awaits_writable && !conn.polls_room {
        // Only a plain send is refused while nothing is unsent.
        conn.polls_room = true;
        ring.poll(word, &conn.fd, Readiness::Output);
    }
}

/// How much more a connection may have taken.
#[inline]
fn room(conn: &Conn, taken: usize) -> usize {
    CONN_BYTES.saturating_sub(conn.unsent()).min(ALL_BYTES.saturating_sub(taken))
}

/// A plain send of what the kernel takes at once.
fn send_directly(conn: &Conn, bytes: &[u8]) -> Result<usize, Errno> {
    loop {
        match rustix::net::send(&conn.fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            other => return other,
        }
    }
}

fn read_at<Buf: rustix::buffer::Buffer<u8>>(
    file: BorrowedFd<'_>,
    buffer: Buf,
    offset: u64,
) -> Result<Buf::Output, Errno> {
    rustix::io::pread(file, buffer, offset)
}
