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
}

/// Why output could not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// The connection is broken.
    Connection(Errno),
    /// A file ended before the part of it that was promised.
    FileShrank,
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
        self.chain.len()
    }

    /// What waits, as the water marks measure it.
    pub(crate) fn weight(&self) -> usize {
        self.chain.len() + self.files * FILE_WEIGHT
    }

    /// Gives all blocks back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.chain.clear(pool);
        self.segments.clear();
        self.files = 0;
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
