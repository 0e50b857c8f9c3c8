//! Reading the log directory back: the last lines, and those that come.
//!
//! Only whole lines are returned, each once, in the order of the files. Reading starts at the end, so that the last hundred
//! lines of a gigabyte cost as little as those of a small file. Nothing here writes, locks, or needs the log server.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memchr::memrchr;

use crate::files::{self, FileName};
use crate::{MAX_LINE_BYTES, Record, Severity};

/// What a [`Tail`] returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailOptions {
    /// How many of the lines that are there at the start. Default 100.
    pub lines: usize,
    /// The least severity of a record. Lines that are no records count as the highest. Default: all.
    pub least: Severity,
    /// Only records of this target, or of one below it: `tidegate_web` is also `tidegate_web::access`. Default: all.
    pub target: Option<String>,
    /// Whether to wait for more. Default: no.
    pub follow: bool,
}

impl Default for TailOptions {
    fn default() -> Self {
        Self { lines: 100, least: Severity::Trace, target: None, follow: false }
    }
}

/// The lines of a log directory, newline included. In follow mode the iterator waits and never ends by itself.
///
/// ```no_run
/// use tidegate_log::{Colour, Tail, TailOptions, render};
/// for line in Tail::open("tidegate-data/log", TailOptions { follow: true, ..TailOptions::default() })? {
///     let mut text = String::new();
///     render(&line?, Colour::Off, &mut text);
///     std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Tail {
    dir: PathBuf,
    options: TailOptions,
    /// Lines that were read and not returned yet.
    ready: VecDeque<Vec<u8>>,
    /// Of each file the offset up to which it was read, always after a newline.
    read: BTreeMap<FileName, u64>,
}

impl Tail {
    /// Reads the last lines of a directory.
    ///
    /// # Errors
    ///
    /// The directory or a file in it cannot be read.
    pub fn open(dir: impl Into<PathBuf>, options: TailOptions) -> io::Result<Self> {
        let dir = dir.into();
        let mut tail = Self { dir, options, ready: VecDeque::new(), read: BTreeMap::new() };
        for file in files::list(&tail.dir)?.into_iter().rev() {
            let wanted = tail.options.lines - tail.ready.len();
            let end = tail.read_backwards(&file.path, file.bytes, wanted)?;
            tail.read.insert(file.name, end);
        }
        Ok(tail)
    }

    /// Reads what has been written since the last time, without waiting. True when there is a line to return.
    ///
    /// # Errors
    ///
    /// The directory or a file in it cannot be read.
    pub fn poll(&mut self) -> io::Result<bool> {
        let files = files::list(&self.dir)?;
        self.read.retain(|name, _| files.iter().any(|file| file.name == *name));
        for file in files {
            let from = self.read.get(&file.name).copied().unwrap_or(0);
            // A torn line may have been cut off since.
            let from = from.min(file.bytes);
            if from == file.bytes && self.read.contains_key(&file.name) {
                // Most files of a directory are finished, and are not opened for every look at it.
                self.read.insert(file.name, from);
                continue;
            }
            let end = match self.read_forwards(&file.path, from) {
                // Removed since it was listed, since it was the oldest.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                result => result?,
            };
            self.read.insert(file.name, end);
        }
        Ok(!self.ready.is_empty())
    }

    /// Puts the last `wanted` lines before `end` in front of what is ready. Returns the end of the last whole line.
    fn read_backwards(&mut self, path: &Path, end: u64, wanted: usize) -> io::Result<u64> {
        let file = File::open(path)?;
        let (mut start, mut found, mut whole) = (end, 0, None);
        // The bytes from `start` on that were not returned yet; they end with a newline once `whole` is known.
        let mut block = Vec::new();
        while start > 0 && (whole.is_none() || found < wanted) && block.len() <= LONGEST_LINE_BYTES {
            let bytes = start.min(BLOCK_BYTES);
            let mut longer = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
            file.read_exact_at(&mut longer, start - bytes)?;
            longer.append(&mut block);
            block = longer;
            start -= bytes;
            if whole.is_none() {
                let Some(last) = memrchr(b'\n', &block) else { continue };
                block.truncate(last + 1);
                whole = Some(start + block.len() as u64);
            }
            while found < wanted
                && let Some(before) = line_before(&block, start)
            {
                found += usize::from(self.put_first(&block[before..]));
                block.truncate(before);
            }
        }
        Ok(whole.unwrap_or(start))
    }

    fn put_first(&mut self, line: &[u8]) -> bool {
        let wanted = self.wants(line);
        if wanted {
            self.ready.push_front(line.to_vec());
        }
        wanted
    }

    /// Appends the whole lines behind `from` to what is ready. Returns the end of the last.
    fn read_forwards(&mut self, path: &Path, mut from: u64) -> io::Result<u64> {
        let file = File::open(path)?;
        let mut block = vec![0; LONGEST_LINE_BYTES];
        loop {
            let bytes = read_at(&file, &mut block, from)?;
            let Some(last) = memrchr(b'\n', &block[..bytes]) else {
                // More than any line of ours, and no end: somebody else's, and skipped.
                if bytes < block.len() {
                    return Ok(from);
                }
                from += bytes as u64;
                continue;
            };
            for line in block[..=last].split_inclusive(|&byte| byte == b'\n') {
                if self.wants(line) {
                    self.ready.push_back(line.to_vec());
                }
            }
            from += last as u64 + 1;
        }
    }

    fn wants(&self, line: &[u8]) -> bool {
        let TailOptions { least, target, .. } = &self.options;
        match (least, target) {
            (Severity::Trace, None) => true,
            (least, None) => Record::parse(line).map_or(true, |record| record.severity >= *least),
            // A line that is no record has no target.
            (least, Some(target)) => Record::parse(line)
                .is_ok_and(|record| record.severity >= *least && is_below(&record.target, target)),
        }
    }
}

impl Iterator for Tail {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            if !self.options.follow {
                return None;
            }
            match self.poll() {
                Ok(true) => {}
                Ok(false) => std::thread::sleep(POLL_EVERY),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Whether a target is this one, or one below it.
fn is_below(target: &str, above: &str) -> bool {
    target.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Where the last line of a block begins, which ends with a newline and begins at `start` in its file; `None` when it may
/// begin before the block, or there is none.
fn line_before(block: &[u8], start: u64) -> Option<usize> {
    let inner = block.len().checked_sub(1)?;
    match memrchr(b'\n', &block[..inner]) {
        Some(newline) => Some(newline + 1),
        None => (start == 0).then_some(0),
    }
}

/// Reads until the block is full or the file ends.
fn read_at(file: &File, block: &mut [u8], from: u64) -> io::Result<usize> {
    let mut bytes = 0;
    while bytes < block.len() {
        match file.read_at(&mut block[bytes..], from + bytes as u64) {
            Ok(0) => break,
            Ok(read) => bytes += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// How much is read at once from the end of a file.
const BLOCK_BYTES: u64 = 64 << 10;
/// Longer lines are not ours and are skipped.
const LONGEST_LINE_BYTES: usize = 2 * MAX_LINE_BYTES;
/// How often a followed directory is looked at.
const POLL_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(format!("tidegate-{name}.jsonl")), text).unwrap();
    }

    fn append(dir: &Path, name: &str, text: &str) {
        let path = dir.join(format!("tidegate-{name}.jsonl"));
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rest(tail: &mut Tail) -> String {
        tail.poll().unwrap();
        let lines: Vec<u8> = tail.ready.drain(..).flatten().collect();
        String::from_utf8(lines).unwrap()
    }

    fn last(dir: &Path, lines: usize) -> String {
        let tail = Tail::open(dir, TailOptions { lines, ..TailOptions::default() }).unwrap();
        tail.map(|line| String::from_utf8(line.unwrap()).unwrap()).collect()
    }

    #[test]
    fn the_last_lines_come_from_as_many_files_as_needed() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "2026-01-31.9", "a\nb\n");
        write(dir.path(), "2026-01-31.10", "c\nd\n");
        write(dir.path(), "2026-02-01.0", "e\nf\nhalf");
        write(dir.path(), "other", "x\n");
        assert_eq!(last(dir.path(), 3), "d\ne\nf\n");
        assert_eq!(last(dir.path(), 100), "a\nb\nc\nd\ne\nf\n");
        assert_eq!(last(dir.path(), 0), "");
        assert!(Tail::open(dir.path().join("missing"), TailOptions::default()).is_err());
    }

    #[test]
    fn what_is_written_later_comes_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "2026-01-31.0", "a\nb\nha");
        let mut tail = Tail::open(dir.path(), TailOptions { lines: 1, ..TailOptions::default() }).unwrap();
        assert_eq!(rest(&mut tail), "b\n");
        assert_eq!(rest(&mut tail), "");
        append(dir.path(), "2026-01-31.0", "lf\nc");
        assert_eq!(rest(&mut tail), "half\n");
        append(dir.path(), "2026-01-31.0", "\n");
        append(dir.path(), "2026-01-31.1", "d\n");
        append(dir.path(), "2026-02-01.0", "e\n");
        assert_eq!(rest(&mut tail), "c\nd\ne\n");
        std::fs::remove_file(dir.path().join("tidegate-2026-01-31.0.jsonl")).unwrap();
        assert_eq!(rest(&mut tail), "");
    }

    #[test]
    fn a_torn_line_that_is_cut_off_does_not_disturb() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "2026-01-31.0", "a\nhalf");
        let mut tail = Tail::open(dir.path(), TailOptions::default()).unwrap();
        assert_eq!(rest(&mut tail), "a\n");
        write(dir.path(), "2026-01-31.0", "a\nb\n");
        assert_eq!(rest(&mut tail), "b\n");
    }

    #[test]
    fn only_records_of_the_severity_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let line = |severity| format!("{{\"time\":\"2026-01-31T00:00:00Z\",\"severity\":\"{severity}\"}}\n");
        let text =
            [line("ERROR"), line("WARN"), line("INFO"), line("DEBUG"), "no record\n".to_owned()].concat();
        write(dir.path(), "2026-01-31.0", &text);
        let options = TailOptions { lines: 2, least: Severity::Warn, ..TailOptions::default() };
        let mut tail = Tail::open(dir.path(), options).unwrap();
        append(dir.path(), "2026-01-31.0", &[line("TRACE"), line("FATAL")].concat());
        assert_eq!(rest(&mut tail), [line("WARN"), "no record\n".to_owned(), line("FATAL")].concat());
    }

    #[test]
    fn only_records_of_the_target_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let line = |target| {
            format!("{{\"time\":\"2026-01-31T00:00:00Z\",\"severity\":\"INFO\",\"target\":\"{target}\"}}\n")
        };
        let all = ["a::b", "a", "ab", "a::b::c", "c"].map(line).concat();
        write(dir.path(), "2026-01-31.0", &(all + "no record\n"));
        let of = |target: &str, lines| {
            let options = TailOptions { lines, target: Some(target.to_owned()), ..TailOptions::default() };
            rest(&mut Tail::open(dir.path(), options).unwrap())
        };
        assert_eq!(of("a", 9), ["a::b", "a", "a::b::c"].map(line).concat());
        assert_eq!(of("a", 2), ["a", "a::b::c"].map(line).concat());
        assert_eq!((of("a::b::c", 1), of("x", 1)), (line("a::b::c"), String::new()));
    }

    #[test]
    fn a_monstrous_line_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let monster = "x".repeat(5 * LONGEST_LINE_BYTES);
        write(dir.path(), "2026-01-31.0", "");
        let mut tail = Tail::open(dir.path(), TailOptions::default()).unwrap();
        append(dir.path(), "2026-01-31.0", &format!("a\n{monster}\nb\n"));
        let text = rest(&mut tail);
        assert!(text.starts_with("a\n") && text.ends_with("b\n"));
        assert!(last(dir.path(), 1) == "b\n");
        assert!(last(dir.path(), 9).ends_with("b\n"));
    }

    proptest! {
        #[test]
        fn reading_backwards_finds_the_same_lines(
            lines in proptest::collection::vec(0usize..50_000, 0..12),
            torn in 0usize..100,
            wanted in 0usize..14,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let lines: Vec<String> = lines.into_iter().map(|bytes| "y".repeat(bytes) + "\n").collect();
            write(dir.path(), "2026-01-31.0", &(lines.concat() + &"z".repeat(torn)));
            let expected = lines[lines.len().saturating_sub(wanted)..].concat();
            prop_assert!(last(dir.path(), wanted) == expected);
            let mut all = Tail::open(dir.path(), TailOptions { lines: wanted, ..TailOptions::default() }).unwrap();
            append(dir.path(), "2026-01-31.0", "end\n");
            prop_assert!(rest(&mut all) == expected + &"z".repeat(torn) + "end\n");
        }
    }
}
