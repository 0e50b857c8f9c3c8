//! `last_records`: what a process said last, for the report of its death.
//!
//! The one invariant: it reads at most [`MAX_BYTES`] bytes of at most [`MAX_FILES`] files, however large the folder is. It
//! writes nothing, locks nothing, and needs no log server.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use memchr::memmem;

use crate::{Record, files};

/// The last `count` stored records of the process `pid`, the oldest first; fewer where there are not so many among the last
/// of the folder's lines.
///
/// What the process logged and the log server has not stored yet is not among them, nor what it wrote to standard error
/// itself. Pids are used again: records of a former process of the same number are taken for its own.
///
/// # Errors
///
/// The folder or a file in it cannot be read. A file that is removed meanwhile is none.
///
/// ```
/// let dir = std::env::temp_dir().join(format!("tidegate-last-{}", std::process::id()));
/// std::fs::create_dir_all(&dir)?;
/// let line = r#"{"time":"2026-01-31T23:59:59Z","severity":"ERROR","body":"no room","resource":{"process":"worker 0","pid":7}}"#;
/// std::fs::write(dir.join("tidegate-2026-01-31.0.jsonl"), format!("{line}\n"))?;
/// let last = tidegate_log::last_records(&dir, 7, 3)?;
/// assert_eq!((last.len(), last[0].body.as_str()), (1, "no room"));
/// # std::fs::remove_dir_all(&dir)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn last_records(dir: &Path, pid: u32, count: usize) -> io::Result<Vec<Record>> {
    let mut found = Vec::new();
    let mut left = MAX_BYTES;
    for file in files::list(dir)?.into_iter().rev().take(MAX_FILES) {
        if found.len() >= count || left == 0 {
            break;
        }
        let bytes = file.bytes.min(left);
        left -= bytes;
        match read_end(&file.path, file.bytes, bytes) {
            Ok(block) => find(&block, bytes == file.bytes, pid, count, &mut found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    found.reverse();
    Ok(found)
}

/// The last `bytes` of the first `end` bytes of a file; less when it has become shorter.
fn read_end(path: &Path, end: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut block = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    let mut read = 0;
    while read < block.len() {
        match file.read_at(&mut block[read..], end - bytes + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    block.truncate(read);
    Ok(block)
}

/// Adds the records of the process, the last line first. The first line of a block that is not a whole file may be the end of
/// one, and the last may be torn: neither is a record then.
fn find(block: &[u8], is_whole: bool, pid: u32, count: usize, found: &mut Vec<Record>) {
    let block = if is_whole { block } else { &block[memchr::memchr(b'\n', block).unwrap_or(block.len())..] };
    // Parsing is what takes time, and most lines are of others.
    let mark = format!("\"pid\":{pid}");
    let mark = memmem::Finder::new(&mark);
    for line in block.rsplit(|&byte| byte == b'\n').filter(|line| mark.find(line).is_some()) {
        if found.len() >= count {
            return;
        }
        found.extend(Record::parse(line).ok().filter(|record| record.resource.pid == pid));
    }
}

/// A process in a crash loop has spoken within the last few records of a server, even of a very busy one.
const MAX_BYTES: u64 = 4 << 20;
/// A day or a rotation may just have begun.
const MAX_FILES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pid: u32, body: &str) -> String {
        format!(
            "{{\"time\":\"2026-01-31T00:00:00Z\",\"severity\":\"INFO\",\"body\":\"{body}\",\"resource\":{{\"process\":\"w\",\"pid\":{pid},\"generation\":1}}}}\n"
        )
    }

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(format!("tidegate-{name}.jsonl")), text).unwrap();
    }

    #[track_caller]
    fn check(dir: &Path, pid: u32, count: usize, bodies: &[&str]) {
        let records = last_records(dir, pid, count).unwrap();
        assert_eq!(records.iter().map(|record| record.body.as_str()).collect::<Vec<_>>(), bodies);
    }

    #[test]
    fn the_last_of_one_process_come_in_their_order_over_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        write(dir, "2026-01-31.0", &[line(7, "a"), line(8, "x"), line(7, "b")].concat());
        // Another process whose number begins alike, a body that names the pid, and a torn line.
        let told = r#"{"time":"2026-01-31T00:00:00Z","severity":"INFO","attributes":{"pid":7},"resource":{"pid":1}}"#;
        let text = [line(77, "y"), line(7, "c"), format!("{told}\n"), line(7, "torn")].concat();
        write(dir, "2026-02-01.0", text.trim_end_matches("}\n"));
        check(dir, 7, 2, &["b", "c"]);
        check(dir, 7, 9, &["a", "b", "c"]);
        check(dir, 7, 0, &[]);
        check(dir, 9, 3, &[]);
        assert!(last_records(&dir.join("missing"), 7, 1).is_err());
    }

    #[test]
    fn no_more_than_the_end_of_the_newest_files_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let others = line(8, &"x".repeat(60_000)).repeat(100);
        write(dir, "2026-01-31.0", &[line(7, "too far"), others, line(7, "near")].concat());
        check(dir, 7, 9, &["near"]);
        for number in 0..MAX_FILES {
            write(dir, &format!("2026-02-01.{number}"), &line(7, &number.to_string()));
        }
        check(dir, 7, 9, &["0", "1", "2", "3"]);
    }

    #[test]
    fn a_block_that_begins_within_a_line_loses_that_line_alone() {
        let text = [line(7, "cut"), line(7, "whole")].concat();
        for from in 1..line(7, "cut").len() {
            let mut found = Vec::new();
            find(&text.as_bytes()[from..], false, 7, 9, &mut found);
            assert_eq!(found.len(), 1, "{from}");
        }
        let mut found = Vec::new();
        find(text.as_bytes(), true, 7, 9, &mut found);
        assert_eq!(found.len(), 2);
    }
}
