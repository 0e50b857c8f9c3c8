//! `Buffers`: the ring of provided buffers, into which the kernel receives.
//!
//! ```text
//!   kernel's: waiting in the ring         ours, piece by piece            kernel's again
//!   ┌────────────────────────────┐  take  ┌──────────┬─────┬───────────┐  release, when the
//!   │                            │ ─────▶ │ given    │piece│ kernel's  │  piece was the last
//!   └────────────────────────────┘        │ back     │     │ still     │ ─────────────────▶
//!                                         └──────────┴─────┴───────────┘
//! ```
//!
//! Where the kernel can (`IOU_PBUF_RING_INC`, Linux 6.12), it fills a buffer with the bytes of one receive after the other,
//! so that many short ones take little room; else each receive takes a buffer. A completion says which buffer, and whether
//! it goes on with it (`IORING_CQE_F_BUF_MORE`); pieces of a buffer come in the order in which they lie.
//!
//! Invariant: of all memory of the buffers, at most the one current piece is referred to, and the kernel does not write
//! there, since the buffer goes back only when its last piece is released.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// The only group of a ring.
pub(super) const GROUP: u16 = 0;
const INCREMENTAL: u16 = 2;

pub(super) struct Buffers {
    /// `count` entries, then the buffers themselves.
    memory: Memory,
    count: u16,
    size: u32,
    data: usize,
    /// By buffer: how much of it has been taken.
    taken: Box<[u32]>,
    tail: u16,
    current: Option<Piece>,
}

/// Bytes that were received.
struct Piece {
    buffer: u16,
    at: u32,
    len: u32,
    last: bool,
}

/// Pages of the process, which are not freed once they are leaked.
struct Memory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the pages belong to this value alone, and no thread is special to them.
unsafe impl Send for Memory {}

impl Buffers {
    /// Registers `count` buffers of `size` bytes. The count must be a power of two, at most 32,768.
    pub(super) fn register(ring: &IoUring, count: u16, size: u32) -> Result<Self, Errno> {
        let entries = usize::from(count) * size_of::<BufRingEntry>();
        let data = entries.next_multiple_of(4096);
        let memory = Memory::map(data + usize::from(count) * size as usize)?;
        let mut this = Self {
            memory,
            count,
            size,
            data,
            taken: vec![0; usize::from(count)].into_boxed_slice(),
            tail: 0,
            current: None,
        };
        this.register_with(ring, INCREMENTAL).or_else(|_| this.register_with(ring, 0))?;
        for buffer in 0..count {
            this.provide(buffer);
        }
        Ok(this)
    }

    fn register_with(&self, ring: &IoUring, flags: u16) -> Result<(), Errno> {
        let address = self.memory.start.as_ptr() as u64;
        // SAFETY: the entries lie at the start of the memory, which lives as long as this value and is leaked when the
        // kernel may still use it (`leak`).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, self.count, GROUP, flags) }
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
    }

    /// Takes over what a completion of a receive has brought; `len` is 0 at an end.
    #[inline]
    pub(super) fn take(&mut self, flags: u32, len: usize) {
        debug_assert!(self.current.is_none());
        let Some(buffer) = cqueue::buffer_select(flags) else { return };
        let Some(taken) = self.taken.get_mut(usize::from(buffer)) else { return };
        let at = *taken;
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(self.size - at);
        *taken = at + len;
        self.current = Some(Piece { buffer, at, len, last: !cqueue::buffer_more(flags) });
    }

    /// The current piece.
    #[inline]
    pub(super) fn current(&self) -> &[u8] {
        let Some(piece) = &self.current else { return &[] };
        let start = self.data + usize::from(piece.buffer) * self.size as usize + piece.at as usize;
        // SAFETY: the piece lies within the mapped memory, was written by the kernel, and is not written again before it
        // is released, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr().add(start), piece.len as usize) }
    }

    /// Gives the current piece up, and with its last piece the buffer back to the kernel.
    #[inline]
    pub(super) fn release(&mut self) {
        if let Some(piece) = self.current.take()
            && piece.last
        {
            self.provide(piece.buffer);
        }
    }

    fn provide(&mut self, buffer: u16) {
        self.taken[usize::from(buffer)] = 0;
        let offset = self.data + usize::from(buffer) * self.size as usize;
        let address = self.memory.start.as_ptr() as u64 + offset as u64;
        let index = usize::from(self.tail & (self.count - 1));
        let entries = self.memory.start.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the index is below the count, and the kernel does not look at an entry beyond the tail. Zero pages are
        // valid entries. The last two bytes of the first one are the tail, which no setter touches.
        let entry = unsafe { &mut *entries.add(index) };
        entry.set_addr(address);
        entry.set_len(self.size);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the start of the memory is the first entry.
        let tail = unsafe { BufRingEntry::tail(entries) };
        // SAFETY: the tail lies in mapped memory, is aligned, and is only ever written here; the kernel reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // The kernel acquires the tail before it reads the entries.
        tail.store(self.tail, Ordering::Release);
    }

    /// Leaves the memory to the kernel for good.
    pub(super) fn leak(&mut self) {
        self.memory.len = 0;
    }
}

impl Memory {
    fn map(len: usize) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other.
        let start = unsafe {
            mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }?;
        let start = NonNull::new(start.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, len })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the mapping is this value's own, and nothing refers to it any more.
            let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok());
        }
    }
}
