//! The files of a log directory: their names, their order, and one that is open for writing.
//!
//! A file is named `tidegate-YYYY-MM-DD.N.jsonl` after its UTC day; `N` counts up from 0 within the day. Names of any other
//! form are not ours and are never opened, counted or removed. An open file holds whole lines only: what a crash or a full
//! disk left of a line is cut off before anything is written behind it.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use memchr::memrchr;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::MAX_LINE_BYTES;

/// The name of a file; the order is that of their lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileName {
    pub(crate) date: Date,
    pub(crate) number: u32,
}

impl FileName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (date, number) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('.')?;
        let parsed = Self { date: date.parse().ok()?, number: number.parse().ok()? };
        // Other spellings of the same date or number would be a second name for one file.
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}.{}{SUFFIX}", self.date, self.number)
    }
}

/// A file of the directory as it was when it was listed.
#[derive(Clone, Debug)]
pub(crate) struct LogFile {
    pub(crate) name: FileName,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
}

/// The regular files of ours in a directory, oldest first.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().and_then(FileName::parse) else { continue };
        // A file that was removed meanwhile is none of ours any more.
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => {
                files.push(LogFile { name, path: entry.path(), bytes: metadata.len() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.sort_unstable_by_key(|file| file.name);
    Ok(files)
}

/// A file open for appending, which this process alone writes.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    pub(crate) name: FileName,
    /// How long it is, up to the end of its last whole line.
    pub(crate) bytes: u64,
}

impl OpenFile {
    /// Continues the newest file of the day when `needed` more bytes fit into it under `max_bytes`, else begins the next.
    pub(crate) fn open(dir: &Path, date: Date, needed: u64, max_bytes: u64) -> io::Result<Self> {
        let newest = list(dir)?.into_iter().rev().find(|file| file.name.date == date);
        let first = newest.map_or(0, |file| file.name.number);
        for number in first..first.saturating_add(MAX_TRIES) {
            let Some(file) = Self::open_alone(dir, FileName { date, number })? else { continue };
            if file.bytes == 0 || file.bytes + needed <= max_bytes {
                return Ok(file);
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "other log servers write all files of the day"))
    }

    /// Opens a file, unless another process has it open for writing. That happens when the log server of a killed master
    /// still waits for its clients while the next one starts.
    fn open_alone(dir: &Path, name: FileName) -> io::Result<Option<Self>> {
        let flags = OFlags::CREATE | OFlags::APPEND | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file =
            File::from(rustix::fs::open(dir.join(name.to_string()), flags, Mode::from_raw_mode(FILE_MODE))?);
        // A file system without locks gives another error; then nobody else is assumed.
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Ok(None);
        }
        let bytes = file.metadata()?.len();
        let mut open = Self { file, name, bytes };
        open.cut_torn_tail()?;
        Ok(Some(open))
    }

    /// Whether the file still has its name, or any.
    pub(crate) fn is_linked(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() > 0)
    }

    /// Appends whole lines. Returns the bytes of those that are in the file now, and why it is not all.
    pub(crate) fn append(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        let result = loop {
            match self.file.write(&lines[written..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if written == lines.len() {
                break Ok(());
            }
        };
        let whole = memrchr(b'\n', &lines[..written]).map_or(0, |last| last + 1);
        self.bytes += whole as u64;
        if whole < written {
            // When this fails too, the half line is cut when the file is opened again: an error ends its use.
            drop(self.file.set_len(self.bytes));
        }
        (whole, result)
    }

    fn cut_torn_tail(&mut self) -> io::Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        let mut tail = vec![0; usize::try_from(self.bytes).unwrap_or(usize::MAX).min(2 * MAX_LINE_BYTES)];
        let from = self.bytes - tail.len() as u64;
        self.file.read_exact_at(&mut tail, from)?;
        match memrchr(b'\n', &tail) {
            Some(last) if last + 1 == tail.len() => return Ok(()),
            Some(last) => self.bytes = from + last as u64 + 1,
            None if from == 0 => self.bytes = 0,
            // Longer than any line of ours: somebody else wrote it. It is ended, not thrown away.
            None => {
                self.file.write_all(b"\n")?;
                self.bytes += 1;
                return Ok(());
            }
        }
        self.file.set_len(self.bytes)
    }
}

const PREFIX: &str = "tidegate-";
const SUFFIX: &str = ".jsonl";
/// Operators read the log through their group.
const FILE_MODE: u32 = 0o640;
/// How many files in a row may be full, or in the hands of other log servers.
const MAX_TRIES: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn names_order_by_day_and_number() {
        let name = |text| FileName::parse(text).expect("the name is one of ours");
        assert!(name("tidegate-2026-01-31.10.jsonl") > name("tidegate-2026-01-31.9.jsonl"));
        assert!(name("tidegate-2026-02-01.0.jsonl") > name("tidegate-2026-01-31.10.jsonl"));
        assert_eq!(name("tidegate-2026-02-01.0.jsonl").date, date(2026, 2, 1));
        for other in [
            "tidegate-2026-02-01.jsonl",
            "tidegate-2026-02-01.00.jsonl",
            "tidegate-2026-02-01.+1.jsonl",
            "tidegate-2026-02-30.0.jsonl",
            "tidegate-2026-02-01.0.jsonl.gz",
            "other-2026-02-01.0.jsonl",
            "tidegate-20260201.0.jsonl",
        ] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }

    #[track_caller]
    fn check_tail(before: &[u8], after: &[u8]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate-2026-02-01.3.jsonl");
        std::fs::write(&path, before).unwrap();
        let mut file = OpenFile::open(dir.path(), date(2026, 2, 1), 0, 1 << 20).unwrap();
        assert_eq!(file.bytes, after.len() as u64);
        let (whole, result) = file.append(b"next\n");
        result.unwrap();
        assert_eq!(whole, 5);
        assert_eq!(std::fs::read(&path).unwrap(), [after, b"next\n"].concat());
    }

    #[test]
    fn a_torn_tail_is_cut_before_writing_goes_on() {
        check_tail(b"", b"");
        check_tail(b"{}\n", b"{}\n");
        check_tail(b"{}\n{\"half", b"{}\n");
        check_tail(b"{\"half", b"");
        let long = vec![b'x'; 3 * MAX_LINE_BYTES];
        check_tail(&long, &[&long[..], b"\n"].concat());
    }

    #[test]
    fn a_file_that_another_writes_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let first = OpenFile::open(dir.path(), date(2026, 2, 1), 5, 100).unwrap();
        let second = OpenFile::open(dir.path(), date(2026, 2, 1), 5, 100).unwrap();
        assert_eq!((first.name.number, second.name.number), (0, 1));
        drop(first);
        drop(second);
        let third = OpenFile::open(dir.path(), date(2026, 2, 1), 5, 100).unwrap();
        assert_eq!(third.name.number, 1, "the newest goes on");
    }
}
