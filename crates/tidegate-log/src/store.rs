//! The store: lines in, files of JSON lines in one directory out.
//!
//! Lines wait in a buffer until [`Store::flush`] writes them with one `write(2)` per file. A disk that does not take them does
//! not stop anybody: they stay in the buffer, the oldest are dropped and counted when it is full, writing is tried again
//! from time to time, and when it works again a record says what was dropped. A line is in a file whole or not at all.
//! The store knows nothing of connections, and it never logs.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use memchr::{memchr, memchr_iter, memrchr};
use serde_json::Value;

use crate::encode::{Head, finish_line, notice, resource_json};
use crate::files::{self, OpenFile};
use crate::{Resource, Severity};

/// Where a [`Store`] writes, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreOptions {
    /// The directory; made when it is not there. It should hold nothing else.
    pub dir: PathBuf,
    /// A file that has no room for the next line under this many bytes is followed by a new one. Default 64 MiB.
    pub max_file_bytes: u64,
    /// The oldest files are removed when all together have more bytes than this. Default 1 GiB.
    pub max_total_bytes: u64,
    /// The most bytes of lines that wait for a disk which does not take them. Default 1 MiB.
    pub buffer_bytes: usize,
    /// How long after a failure writing is tried again. Default 1 s.
    pub retry_after: Duration,
    /// In whose name the store speaks in its own records.
    pub resource: Resource,
}

impl StoreOptions {
    /// The defaults, for a directory.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, resource: Resource) -> Self {
        Self {
            dir: dir.into(),
            max_file_bytes: 64 << 20,
            max_total_bytes: 1 << 30,
            buffer_bytes: 1 << 20,
            retry_after: Duration::from_secs(1),
            resource,
        }
    }
}

/// What a store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Lines written to a file.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Lines dropped since the disk did not take them.
    pub dropped: u64,
    /// How many times writing failed.
    pub failures: u64,
}

/// The log directory could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("log directory {}", dir.display())]
pub struct StoreError {
    dir: PathBuf,
    source: io::Error,
}

/// A log directory that is open for writing.
#[derive(Debug)]
pub struct Store {
    options: StoreOptions,
    file: Option<OpenFile>,
    /// Whole lines that are in no file yet.
    pending: Vec<u8>,
    /// The bytes of the directory's other files when it was last listed.
    other_bytes: u64,
    /// The directory is cleaned up when it has more bytes than this.
    clean_above: u64,
    trouble: Option<Trouble>,
    counts: StoreCounts,
}

/// Why and since when the disk does not take lines.
#[derive(Debug)]
struct Trouble {
    since: Timestamp,
    error: io::Error,
    retry_at: Instant,
    dropped: u64,
    announced: bool,
}

impl Store {
    /// Makes the directory when it is not there. No file is opened before there is something to write.
    ///
    /// # Errors
    ///
    /// The directory can neither be made nor read.
    pub fn open(options: StoreOptions) -> Result<Self, StoreError> {
        if let Err(source) = std::fs::create_dir_all(&options.dir).and_then(|()| files::list(&options.dir)) {
            return Err(StoreError { dir: options.dir, source });
        }
        Ok(Self {
            clean_above: options.max_total_bytes,
            options,
            file: None,
            pending: Vec::new(),
            other_bytes: 0,
            trouble: None,
            counts: StoreCounts::default(),
        })
    }

    /// Adds a line, with or without its newline, to what is to be written. True when a flush is worth its while.
    ///
    /// The line must have no further newline in it; nothing else about it is checked here.
    pub fn append(&mut self, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        debug_assert!(memchr(b'\n', line).is_none());
        self.pending.reserve(line.len() + 1);
        self.pending.extend_from_slice(line);
        self.pending.push(b'\n');
        self.pending.len() >= BATCH_BYTES
    }

    /// Writes what waits. When the disk does not take it, it goes on waiting, as far as the buffer's limit allows, and is
    /// tried again by the first flush after `retry_after`.
    pub fn flush(&mut self) {
        self.flush_at(Timestamp::now(), Instant::now());
    }

    /// As [`flush`](Self::flush), but a disk in trouble is tried again at once: for the last flush before the end.
    pub fn flush_now(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.retry_at = Instant::now();
        }
        self.flush();
    }

    fn flush_at(&mut self, now: Timestamp, clock: Instant) {
        if self.pending.is_empty() {
            return;
        }
        if self.trouble.as_ref().is_none_or(|trouble| clock >= trouble.retry_at) {
            let result = self.write_out(now).and_then(|()| match self.trouble.take() {
                Some(trouble) => self.report(&trouble, now),
                None => Ok(()),
            });
            if let Err(error) = result {
                self.fail(error, now, clock);
            }
        }
        self.drop_excess();
    }

    /// Closes the file; the next flush opens it again by its name, or makes it when it was moved away.
    pub fn reopen(&mut self) {
        self.file = None;
    }

    /// Why the disk does not take lines at present.
    #[must_use]
    pub fn failure(&self) -> Option<&io::Error> {
        self.trouble.as_ref().map(|trouble| &trouble.error)
    }

    /// The same, but each time the trouble begins it is told only once.
    pub fn new_failure(&mut self) -> Option<String> {
        let trouble = self.trouble.as_mut().filter(|trouble| !trouble.announced)?;
        trouble.announced = true;
        Some(trouble.error.to_string())
    }

    /// What was done so far.
    #[must_use]
    pub const fn counts(&self) -> StoreCounts {
        self.counts
    }

    /// The bytes of lines that are in no file yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// The directory that is written.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        &self.options.dir
    }

    fn write_out(&mut self, now: Timestamp) -> io::Result<()> {
        let date = now.to_zoned(TimeZone::UTC).date();
        let max_bytes = self.options.max_file_bytes.min(self.options.max_total_bytes);
        // A file that was removed by hand would swallow what is written to it.
        if let Some(file) = &self.file
            && !file.is_linked()?
        {
            self.file = None;
        }
        while let Some(first) = memchr(b'\n', &self.pending) {
            let needed = first as u64 + 1;
            let usable = |file: &OpenFile| {
                file.name.date == date && (file.bytes == 0 || file.bytes + needed <= max_bytes)
            };
            if !self.file.as_ref().is_some_and(usable) {
                self.open_file(date, needed, max_bytes)?;
            }
            let file = self.file.as_mut().expect("a file was opened above");
            let room = usize::try_from(max_bytes.saturating_sub(file.bytes)).unwrap_or(usize::MAX);
            let fitting = &self.pending[..room.min(self.pending.len())];
            let end = memrchr(b'\n', fitting).map_or(first + 1, |last| last + 1);
            let (whole, result) = file.append(&self.pending[..end]);
            self.counts.records += count_lines(&self.pending[..whole]);
            self.counts.bytes += whole as u64;
            self.pending.drain(..whole);
            result?;
            self.clean_up();
        }
        Ok(())
    }

    fn open_file(&mut self, date: jiff::civil::Date, needed: u64, max_bytes: u64) -> io::Result<()> {
        self.file = None;
        // The directory may have been removed as a whole.
        std::fs::create_dir_all(&self.options.dir)?;
        self.file = Some(OpenFile::open(&self.options.dir, date, needed, max_bytes)?);
        self.clean_above = 0;
        self.clean_up();
        Ok(())
    }

    /// Removes the oldest files while there are too many bytes. What cannot be removed stays: the log is worth more than
    /// its limit, and the operator sees the files.
    fn clean_up(&mut self) {
        let Some(current) = &self.file else { return };
        if self.other_bytes + current.bytes <= self.clean_above {
            return;
        }
        let Ok(files) = files::list(&self.options.dir) else { return };
        let others: Vec<_> = files.into_iter().filter(|file| file.name != current.name).collect();
        self.other_bytes = others.iter().map(|file| file.bytes).sum();
        for file in others {
            if self.other_bytes + current.bytes <= self.options.max_total_bytes {
                break;
            }
            if std::fs::remove_file(&file.path).is_ok() {
                self.other_bytes -= file.bytes;
            }
        }
        let total = self.other_bytes + current.bytes;
        let limit = self.options.max_total_bytes;
        // Not listed again for every flush while something cannot be removed.
        self.clean_above = if total <= limit { limit } else { total + CLEAN_STEP_BYTES };
    }

    /// Says that writing works again.
    fn report(&mut self, trouble: &Trouble, now: Timestamp) -> io::Result<()> {
        let resource = resource_json(&self.options.resource);
        let head = Head { time: now, severity: Severity::Warn, target: TARGET, resource: &resource };
        let attributes = [
            ("dropped", Value::from(trouble.dropped)),
            ("since", Value::from(trouble.since.to_string())),
            ("error", Value::from(trouble.error.to_string())),
        ];
        let mut line = notice(&head, "the log directory can be written again", &attributes);
        // Not numbered: the numbers of this process are its client's.
        finish_line(&mut line, 0);
        self.append(&line);
        self.write_out(now)
    }

    fn fail(&mut self, error: io::Error, now: Timestamp, clock: Instant) {
        self.counts.failures += 1;
        // Opened again, it is looked at again: what was left of a line is cut off.
        self.file = None;
        let retry_at = clock + self.options.retry_after;
        match &mut self.trouble {
            Some(trouble) => {
                trouble.error = error;
                trouble.retry_at = retry_at;
            }
            None => {
                self.trouble = Some(Trouble { since: now, error, retry_at, dropped: 0, announced: false });
            }
        }
    }

    /// Drops the oldest lines when the buffer is full, and an eighth more, so that this is not done for every line.
    fn drop_excess(&mut self) {
        let limit = self.options.buffer_bytes;
        if self.pending.len() <= limit {
            return;
        }
        let surplus = self.pending.len() - (limit - limit / 8);
        let end = memchr(b'\n', &self.pending[surplus - 1..]).map_or(self.pending.len(), |at| surplus + at);
        let dropped = count_lines(&self.pending[..end]);
        self.pending.drain(..end);
        self.counts.dropped += dropped;
        if let Some(trouble) = &mut self.trouble {
            trouble.dropped += dropped;
        }
    }
}

/// What waits is written; a disk that does not take it now has lost it.
impl Drop for Store {
    fn drop(&mut self) {
        self.flush_now();
    }
}

/// A store that several threads write to; clones share it.
#[derive(Clone, Debug)]
pub struct SharedStore {
    store: Arc<Mutex<Store>>,
}

impl SharedStore {
    /// Shares a store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store: Arc::new(Mutex::new(store)) }
    }

    /// The store, for as long as the guard lives. Writes to the disk happen under it.
    #[must_use = "the store is free again as soon as the guard is dropped"]
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        // A panic leaves at worst a line in the buffer that is written once more.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    memchr_iter(b'\n', lines).count() as u64
}

/// The target of the store's own records.
const TARGET: &str = "tidegate_log::store";
/// From this many bytes on a flush is worth its while.
const BATCH_BYTES: usize = 64 << 10;
/// How much the directory grows beyond a limit that cannot be kept before that is tried again.
const CLEAN_STEP_BYTES: u64 = 1 << 20;

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
