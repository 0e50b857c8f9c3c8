//! The bounded queue of a client: records wait in it until they are delivered.
//!
//! Two readers follow the stream of records: the *server* (or the store), and the *screen*, standard error, when records are
//! to go there too. Offsets count the bytes of the stream since its start and always lie between two lines:
//!
//! ```text
//!   start ≤ done ≤ taken ≤ end          for each reader that is wanted
//!
//!   start         server.done      server.taken          end
//!     |  screen lags  |  sent, not yet  |  waits           |   free
//!     |               |  acknowledged   |                  |
//!     +---------------+-----------------+------------------+--------
//! ```
//!
//! A record leaves the queue when every wanted reader is done with it. When a record does not fit, what one reader has had
//! and the other is slow to take is given up first, and counted; if that does not help, the new record is dropped, and
//! counted. No I/O and no clock here.

use memchr::{memchr, memchr_iter, memrchr};
use tidegate_buf::Ring;

use crate::StderrMode;
use crate::encode::finish_line;

#[derive(Debug)]
pub(crate) struct Queue {
    ring: Ring,
    /// The offset of the first byte in the ring.
    start: u64,
    /// The offset that an acknowledgement of 0 bytes stands for.
    base: u64,
    server: Reader,
    screen: Reader,
    mode: StderrMode,
    /// The server cannot be relied on now: it is not connected, or does not acknowledge.
    away: bool,
    /// Nothing more goes to the server, ever.
    closed: bool,
    /// The sequence number of the last record.
    seq: u64,
    lost: Lost,
    scratch: Vec<u8>,
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, Default)]
struct Reader {
    /// What it has been given.
    taken: u64,
    /// What it has dealt with.
    done: u64,
}

/// What was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Records that the server never got, and no record tells it yet.
    pub(crate) unreported: u64,
    /// Records that the server never got.
    pub(crate) total: u64,
    /// Records that the server got and standard error did not, and no line there tells it yet.
    pub(crate) unshown: u64,
}

/// Who takes from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Server,
    Screen,
}

impl Queue {
    pub(crate) fn new(capacity_bytes: usize, mode: StderrMode) -> Self {
        let ring = Ring::with_capacity(capacity_bytes);
        let (server, screen) = (Reader::default(), Reader::default());
        let lost = Lost::default();
        let scratch = Vec::new();
        Self {
            ring,
            start: 0,
            base: 0,
            server,
            screen,
            mode,
            away: true,
            closed: false,
            seq: 0,
            lost,
            scratch,
        }
    }

    /// Gives the record its number and appends it; false when it was dropped. `line` lacks its end (see
    /// [`finish_line`]).
    pub(crate) fn offer(&mut self, line: &[u8]) -> bool {
        // A dropped record has a number as well, so that a gap shows where it was.
        self.seq += 1;
        if !(self.wants(To::Server) || self.wants(To::Screen)) {
            return true;
        }
        let mut whole = std::mem::take(&mut self.scratch);
        whole.clear();
        whole.extend_from_slice(line);
        finish_line(&mut whole, self.seq);
        if whole.len() > self.ring.free() {
            self.make_room(whole.len());
        }
        let fits = self.ring.push(&whole);
        if !fits {
            self.lose(1);
        }
        self.scratch = whole;
        self.check();
        fits
    }

    /// Appends whole lines that the reader has not taken yet to `out`, as many as fit into `max_bytes` (which is no less
    /// than a line), and returns their bytes.
    pub(crate) fn take(&mut self, to: To, max_bytes: usize, out: &mut Vec<u8>) -> usize {
        if !self.wants(to) {
            return 0;
        }
        let from = self.reader(to).taken;
        let before = out.len();
        for part in self.slices(from, from.saturating_add(max_bytes as u64)) {
            out.extend_from_slice(part);
        }
        let whole = memrchr(b'\n', &out[before..]).map_or(0, |last| last + 1);
        out.truncate(before + whole);
        self.reader(to).taken += whole as u64;
        self.check();
        whole
    }

    /// The reader has dealt with everything before the offset, which it has taken.
    pub(crate) fn done(&mut self, to: To, offset: u64) {
        let reader = self.reader(to);
        reader.done = offset.clamp(reader.done, reader.taken);
        self.trim();
    }

    /// A new connection: what the server took but did not acknowledge is sent again, and acknowledgements count from there.
    pub(crate) fn rewind(&mut self) {
        self.server.taken = self.server.done;
        self.base = self.server.done;
        self.check();
    }

    /// The server has acknowledged so many bytes of this connection; false when that is more than it was sent.
    #[must_use]
    pub(crate) fn acknowledge(&mut self, bytes: u64) -> bool {
        let Some(offset) = self.base.checked_add(bytes).filter(|&offset| offset <= self.server.taken) else {
            return false;
        };
        self.done(To::Server, offset);
        true
    }

    /// Whether the server can be relied on. While it cannot, records go to standard error too, unless that is never wanted.
    pub(crate) fn set_away(&mut self, away: bool) {
        self.away = away || self.closed;
        self.trim();
    }

    /// Nothing more goes to the server.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.set_away(true);
    }

    /// There is nothing to show records on any more.
    pub(crate) fn close_screen(&mut self) {
        self.mode = StderrMode::Never;
        self.lost.unshown = 0;
        self.trim();
    }

    /// Whether it is time to hurry.
    pub(crate) fn is_half_full(&self) -> bool {
        self.ring.free() < self.ring.capacity() / 2
    }

    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) const fn is_away(&self) -> bool {
        self.away
    }

    /// The offset after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.ring.len() as u64
    }

    /// What the reader has taken.
    pub(crate) const fn taken(&self, to: To) -> u64 {
        match to {
            To::Server => self.server.taken,
            To::Screen => self.screen.taken,
        }
    }

    /// Whether the reader has taken something that it is not done with.
    pub(crate) const fn in_flight(&self, to: To) -> bool {
        match to {
            To::Server => self.server.done < self.server.taken,
            To::Screen => self.screen.done < self.screen.taken,
        }
    }

    /// Whether there is something for the reader to take.
    pub(crate) fn has_more(&self, to: To) -> bool {
        self.wants(to) && self.taken(to) < self.end()
    }

    /// Whether the reader is done with everything before the offset, or is not wanted to be.
    pub(crate) fn is_done(&self, to: To, offset: u64) -> bool {
        let done = match to {
            To::Server => self.server.done,
            To::Screen => self.screen.done,
        };
        !self.wants(to) || done >= offset
    }

    /// How many records before the offset the server has not acknowledged.
    pub(crate) fn undelivered(&self, offset: u64) -> u64 {
        if self.closed { 0 } else { self.count(self.server.done, offset) }
    }

    pub(crate) const fn lost(&self) -> Lost {
        self.lost
    }

    /// How many dropped records are to be reported now: there is room for the report, and the worst is over.
    pub(crate) fn report_due(&self) -> Option<u64> {
        let due = self.lost.unreported > 0 && self.ring.free() >= self.ring.capacity() / 4;
        due.then_some(self.lost.unreported)
    }

    /// A record with this count was made of it.
    pub(crate) fn reported(&mut self, records: u64) {
        self.lost.unreported -= records;
    }

    /// How many records standard error was to show and did not, once.
    pub(crate) fn take_unshown(&mut self) -> u64 {
        std::mem::take(&mut self.lost.unshown)
    }

    /// Whether the reader is to have the records at present.
    pub(crate) const fn wants(&self, to: To) -> bool {
        match to {
            To::Server => !self.closed,
            To::Screen => match self.mode {
                StderrMode::Always => true,
                StderrMode::WhenAway => self.away,
                StderrMode::Never => false,
            },
        }
    }

    const fn reader(&mut self, to: To) -> &mut Reader {
        match to {
            To::Server => &mut self.server,
            To::Screen => &mut self.screen,
        }
    }

    /// Frees what every wanted reader is done with.
    fn trim(&mut self) {
        let mut start = self.end();
        for to in [To::Server, To::Screen] {
            if self.wants(to) {
                start = start.min(self.reader(to).done);
            }
        }
        self.release(start);
    }

    /// Gives up what one reader is done with and the other is not: at least `needed` bytes, and some more, so that this does
    /// not happen again for the next record.
    fn make_room(&mut self, needed: usize) {
        let step = needed.max(self.ring.capacity() / 8) as u64;
        let (server, screen) = (self.wants(To::Server), self.wants(To::Screen));
        if !(server && screen) {
            return;
        }
        if self.away {
            let until = self.line_end(self.start + step).min(self.screen.done);
            let lost = self.count(self.server.done, until);
            self.lose(lost);
            self.release(until);
        } else {
            let until = self.line_end(self.start + step).min(self.server.done);
            self.lost.unshown += self.count(self.screen.taken, until);
            self.release(until);
        }
    }

    fn lose(&mut self, records: u64) {
        self.lost.unreported += records;
        self.lost.total += records;
    }

    /// Forgets everything before the offset.
    fn release(&mut self, offset: u64) {
        let bytes = offset.saturating_sub(self.start);
        self.ring.consume(usize::try_from(bytes).expect("the ring holds no more than fits into memory"));
        self.start += bytes;
        // What is given up without having been sent will not be acknowledged. All that was sent before it is given up as
        // well, so an acknowledgement of that still means nothing that is in the ring.
        self.base += self.start.saturating_sub(self.server.taken);
        for reader in [&mut self.server, &mut self.screen] {
            reader.done = reader.done.max(self.start);
            reader.taken = reader.taken.max(reader.done);
        }
        self.check();
    }

    /// The end of the line that the byte before the offset belongs to.
    fn line_end(&self, offset: u64) -> u64 {
        let mut end = offset.saturating_sub(1).max(self.start);
        for part in self.slices(end, self.end()) {
            if let Some(newline) = memchr(b'\n', part) {
                return end + newline as u64 + 1;
            }
            end += part.len() as u64;
        }
        end
    }

    fn count(&self, from: u64, until: u64) -> u64 {
        self.slices(from, until).iter().map(|part| memchr_iter(b'\n', part).count() as u64).sum()
    }

    /// The bytes between two offsets, as far as they are in the ring.
    fn slices(&self, from: u64, until: u64) -> [&[u8]; 2] {
        let (first, second) = self.ring.as_slices();
        let index = |offset: u64| usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let (from, until) = (index(from), index(until));
        let cut = |part: &'_ [u8], at: usize| {
            let clamp = |index: usize| index.saturating_sub(at).min(part.len());
            clamp(from)..clamp(until).max(clamp(from))
        };
        [&first[cut(first, 0)], &second[cut(second, first.len())]]
    }

    fn check(&self) {
        for reader in [self.server, self.screen] {
            debug_assert!(self.start <= reader.done && reader.done <= reader.taken);
            debug_assert!(reader.taken <= self.end());
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
