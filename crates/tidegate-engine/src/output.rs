//! `Output`: what a connection's peer has not taken yet: bytes and parts of files, in order.
//!
//! Exists only while something waits. The bytes of all segments stand in one chain of pooled blocks; the segments say how
//! many of them come before the next file.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tidegate_buf::{Chain, Pool, PoolExhausted};
use tidegate_reactor::{Errno, More, Reactor, Token};

use crate::layer::LayerError;
use crate::layered::{Layered, PIECE_BYTES};
use crate::record::Record;

/// A part of a file that is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct FilePart {
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

#[derive(Debug)]
enum Segment {
    Bytes(usize),
    File(FilePart),
}

/// The queue. Invariant: the `Bytes` segments add up to the chain's length, and no segment is empty.
#[derive(Debug, Default)]
pub(crate) struct Output {
    chain: Chain,
    segments: VecDeque<Segment>,
    /// How many of the segments are files.
    files: usize,
    /// What a layer has made of segments that were before these, and how much of that is sent.
    sealed: Vec<u8>,
    sealed_sent: usize,
}

/// Why output could not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The connection is broken.
    Connection(Errno),
    /// A file ended before the part of it that was promised.
    FileShrank,
    /// The layer of the connection can send no more.
    Layer,
}

impl From<LayerError> for SendError {
    fn from(error: LayerError) -> Self {
        // Its peer may have caused it, and can do so as often as it likes.
        tracing::debug!(%error, "nothing more can be sent");
        Self::Layer
    }
}

impl From<Errno> for SendError {
    fn from(errno: Errno) -> Self {
        Self::Connection(errno)
    }
}

/// How far sending got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All is sent.
    Done,
    /// The kernel takes no more; it will say when it does.
    Refused,
    /// The connection has had its share of this turn. The kernel may take more, so it will not say anything.
    Share,
}

/// How much of a batch is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// Bytes of the batch's output.
    pub(crate) at: usize,
    /// Whole files.
    pub(crate) files: usize,
    /// Bytes in all, those of files included.
    pub(crate) sent: u64,
}

/// How many buffers one writev(2) gets.
const PARTS: usize = 16;
/// What a connection sends of its queue or of files in one go, so that a fast peer does not hold the others up.
const SHARE_BYTES: u64 = 256 << 10;
/// What a queued file weighs against the high-water mark, so that a peer cannot ask for files without end.
pub(crate) const FILE_WEIGHT: usize = 1 << 10;

impl Output {
    pub(crate) fn push_bytes(&mut self, pool: &mut Pool, bytes: &[u8]) -> Result<(), PoolExhausted> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.chain.push(pool, bytes)?;
        match self.segments.back_mut() {
            Some(Segment::Bytes(n)) => *n += bytes.len(),
            _ => self.segments.push_back(Segment::Bytes(bytes.len())),
        }
        Ok(())
    }

    pub(crate) fn push_file(&mut self, part: FilePart) {
        if part.len > 0 {
            self.segments.push_back(Segment::File(part));
            self.files += 1;
        }
    }

    /// Bytes that wait in memory; files do not count.
    pub(crate) fn len(&self) -> usize {
        self.chain.len() + self.sealed_len()
    }

    /// What waits, as the water marks measure it.
    pub(crate) fn weight(&self) -> usize {
        self.len() + self.files * FILE_WEIGHT
    }

    /// Appends what a layer has made; what is queued otherwise comes behind it.
    pub(crate) fn push_sealed(&mut self, bytes: &[u8]) {
        self.sealed.extend_from_slice(bytes);
    }

    /// Bytes that a layer has made and that wait.
    pub(crate) fn sealed_len(&self) -> usize {
        self.sealed.len() - self.sealed_sent
    }

    /// Memory of what a layer has made.
    pub(crate) fn sealed_capacity(&self) -> usize {
        self.sealed.capacity()
    }

    /// Gives all blocks back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.chain.clear(pool);
        self.segments.clear();
        self.files = 0;
        self.sealed = Vec::new();
        self.sealed_sent = 0;
    }

    /// Sends until everything is sent, the kernel takes no more or the share is used up; adds to `sent` what was taken.
    pub(crate) fn drain(
        &mut self,
        reactor: &mut impl Reactor,
        token: Token,
        pool: &mut Pool,
        sent: &mut u64,
    ) -> Result<Progress, SendError> {
        let mut share = SHARE_BYTES;
        while let Some(segment) = self.segments.front_mut() {
            match segment {
                Segment::Bytes(len) => {
                    let (offered, taken) = send_chain(&self.chain, *len, reactor, token)?;
                    self.chain.consume(pool, taken);
                    *len -= taken;
                    *sent += taken as u64;
                    share = share.saturating_sub(taken as u64);
                    if taken < offered {
                        return Ok(Progress::Refused);
                    }
                    if *len > 0 {
                        if share == 0 {
                            return Ok(Progress::Share);
                        }
                        continue;
                    }
                }
                Segment::File(part) => {
                    let before = part.len;
                    let outcome = send_part(part, reactor, token, &mut share);
                    *sent += before - part.len;
                    if outcome? != Progress::Done {
                        return outcome;
                    }
                    self.files -= 1;
                }
            }
            self.segments.pop_front();
        }
        Ok(Progress::Done)
    }
}

impl Output {
    /// As [`drain`](Self::drain), through a layer: a piece at a time is sealed, and what the kernel refuses of it is kept.
    pub(crate) fn drain_layered(
        &mut self,
        layer: &mut Layered,
        raw: &mut Vec<u8>,
        reactor: &mut impl Reactor,
        token: Token,
        pool: &mut Pool,
        sent: &mut u64,
    ) -> Result<Progress, SendError> {
        let mut share = SHARE_BYTES;
        loop {
            while self.sealed_sent < self.sealed.len() {
                let more = if self.segments.is_empty() { More::No } else { More::Follows };
                let taken = reactor.send(token, &self.sealed[self.sealed_sent..], more)?;
                self.sealed_sent += taken;
                *sent += taken as u64;
                share = share.saturating_sub(taken as u64);
                if self.sealed_sent < self.sealed.len() {
                    return Ok(Progress::Refused);
                }
            }
            self.sealed.clear();
            self.sealed_sent = 0;
            match self.segments.front_mut() {
                None => return Ok(Progress::Done),
                Some(_) if share == 0 => return Ok(Progress::Share),
                Some(Segment::Bytes(len)) => {
                    let piece = (*len).min(PIECE_BYTES);
                    seal_chain(&self.chain, piece, layer, &mut self.sealed)?;
                    self.chain.consume(pool, piece);
                    *len -= piece;
                    if *len == 0 {
                        self.segments.pop_front();
                    }
                }
                Some(Segment::File(part)) => {
                    seal_file(part, layer, raw, reactor, &mut self.sealed)?;
                    if part.len == 0 {
                        self.segments.pop_front();
                        self.files -= 1;
                    }
                }
            }
        }
    }
}

/// Seals the first `len` bytes of the chain.
fn seal_chain(
    chain: &Chain,
    len: usize,
    layer: &mut Layered,
    sealed: &mut Vec<u8>,
) -> Result<(), LayerError> {
    let mut left = len;
    for slice in chain.slices() {
        let slice = &slice[..slice.len().min(left)];
        layer.seal(slice, sealed)?;
        left -= slice.len();
        if left == 0 {
            break;
        }
    }
    Ok(())
}

/// Reads the next piece of a file's part, and seals it.
fn seal_file(
    part: &mut FilePart,
    layer: &mut Layered,
    raw: &mut Vec<u8>,
    reactor: &mut impl Reactor,
    sealed: &mut Vec<u8>,
) -> Result<(), SendError> {
    let len = usize::try_from(part.len).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
    raw.resize(len, 0);
    let read = reactor.read_file(part.file.as_fd(), part.offset, raw)?;
    if read == 0 {
        return Err(SendError::FileShrank);
    }
    layer.seal(&raw[..read], sealed)?;
    part.offset += read as u64;
    part.len -= read as u64;
    Ok(())
}

/// Sends the bytes and files of a batch in turn, as long as the kernel takes all of each; `done` says how far it got.
#[inline]
pub(crate) fn send_batch(
    record: &mut Record,
    reactor: &mut impl Reactor,
    token: Token,
    done: &mut Cursor,
) -> Result<Progress, SendError> {
    let Record { out, files, .. } = record;
    let mut share = SHARE_BYTES;
    for (position, part) in files {
        if !send_bytes(&out[..*position], More::Follows, reactor, token, done)? {
            return Ok(Progress::Refused);
        }
        let before = part.len;
        let outcome = send_part(part, reactor, token, &mut share);
        done.sent += before - part.len;
        if outcome? != Progress::Done {
            return outcome;
        }
        done.files += 1;
    }
    let all = send_bytes(out, More::No, reactor, token, done)?;
    Ok(if all { Progress::Done } else { Progress::Refused })
}

/// Sends the bytes of `out` from the cursor on; answers whether all of them were taken.
#[inline]
fn send_bytes(
    out: &[u8],
    more: More,
    reactor: &mut impl Reactor,
    token: Token,
    done: &mut Cursor,
) -> Result<bool, Errno> {
    let bytes = &out[done.at..];
    if bytes.is_empty() {
        return Ok(true);
    }
    let taken = reactor.send(token, bytes, more)?;
    done.at += taken;
    done.sent += taken as u64;
    Ok(taken == bytes.len())
}

/// Offers at most `len` bytes of the chain; answers how many were offered and taken.
fn send_chain(
    chain: &Chain,
    len: usize,
    reactor: &mut impl Reactor,
    token: Token,
) -> Result<(usize, usize), Errno> {
    let mut parts = [IoSlice::new(&[]); PARTS];
    let mut count = 0;
    let mut offered = 0;
    for slice in chain.slices().take(PARTS) {
        let slice = &slice[..slice.len().min(len - offered)];
        parts[count] = IoSlice::new(slice);
        count += 1;
        offered += slice.len();
        if offered == len {
            break;
        }
    }
    let taken = reactor.send_vectored(token, &parts[..count])?;
    Ok((offered, taken))
}

/// Sends the rest of a file's part, as far as the share goes.
fn send_part(
    part: &mut FilePart,
    reactor: &mut impl Reactor,
    token: Token,
    share: &mut u64,
) -> Result<Progress, SendError> {
    while part.len > 0 {
        let offered = part.len.min(*share);
        if offered == 0 {
            return Ok(Progress::Share);
        }
        let taken = reactor.send_file(token, part.file.as_fd(), part.offset, offered)?;
        let taken = taken.ok_or(SendError::FileShrank)? as u64;
        if taken == 0 {
            return Ok(Progress::Refused);
        }
        part.offset += taken;
        part.len -= taken;
        *share -= taken;
    }
    Ok(Progress::Done)
}
