//! `Recent`: the last warnings and errors of all processes, in memory that they share.
//!
//! ```text
//!  warnings                                        errors
//! +-------+---------------------------+-----+-----+-------+--- …
//! | count | ticket | mark | 1 KiB line | … 64 of them      |
//! +-------+---------------------------+-----+-----+-------+--- …
//! ```
//!
//! What a process said last outlives it here, whatever became of the log server, its socket and its disk; and reading it
//! takes no system call. Warnings have a ring of their own, so that a flood of them does not hide the one error.
//!
//! Invariant: nobody waits for anybody. Who writes takes the next number and with it a place, and marks what it wrote with
//! both; a reader believes only what its mark is right for, so a line that two wrote at once, or one that was killed over
//! it, is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use serde_json::Value;
use tidegate_engine::Words;

use crate::encode::{char_boundary, finish_line, record_line};
use crate::{Record, Severity};

/// The last warnings and errors of the processes that share it. Clones are the same.
///
/// ```
/// use tidegate_log::{Recent, Severity};
/// let recent = Recent::on_heap();
/// let line = br#"{"time":"2026-01-31T23:59:59Z","severity":"WARN","body":"late"#;
/// recent.put(Severity::Warn, &[&line[..], b"\""].concat());
/// assert_eq!(recent.read()[0].body, "late");
/// ```
#[derive(Clone, Debug)]
pub struct Recent {
    words: Arc<dyn Words>,
    /// Where it begins among them.
    at: usize,
}

impl Recent {
    /// How many words it takes.
    pub const WORDS: usize = 2 * RING_WORDS;

    /// The records that stand from `at` on in words that were zero when they were new; `None` when there is no room.
    #[must_use]
    pub fn new(words: Arc<dyn Words>, at: usize) -> Option<Self> {
        let end = at.checked_add(Self::WORDS)?;
        (end <= words.words().len()).then_some(Self { words, at })
    }

    /// Of this process alone.
    #[must_use]
    pub fn on_heap() -> Self {
        let block: Box<[AtomicU64]> = (0..Self::WORDS).map(|_| AtomicU64::new(0)).collect();
        Self { words: Arc::new(block), at: 0 }
    }

    /// Keeps a record, given as its line without the end, if it is a warning or worse. One that is longer than a place
    /// loses its attributes, and the end of its body.
    pub fn put(&self, severity: Severity, line: &[u8]) {
        let Some(ring) = self.ring(severity) else { return };
        let mut whole = line.to_vec();
        finish_line(&mut whole, 0);
        if whole.len() > LINE_BYTES {
            let Some(shorter) = shortened(&whole) else { return };
            whole = shorter;
        }
        ring.put(&whole);
    }

    /// The records, the newest first.
    #[must_use]
    pub fn read(&self) -> Vec<Record> {
        let lines = [Severity::Warn, Severity::Error].into_iter().filter_map(|severity| self.ring(severity));
        let lines = lines.flat_map(Ring::lines);
        let mut records: Vec<Record> = lines.filter_map(|line| Record::parse(&line).ok()).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.time));
        records
    }

    fn ring(&self, severity: Severity) -> Option<Ring<'_>> {
        let number = match severity {
            Severity::Trace | Severity::Debug | Severity::Info => return None,
            Severity::Warn => 0,
            Severity::Error | Severity::Fatal => 1,
        };
        let at = self.at + number * RING_WORDS;
        Some(Ring { words: &self.words.words()[at..at + RING_WORDS] })
    }
}

/// The record of a line that is too long for a place.
fn shortened(line: &[u8]) -> Option<Vec<u8>> {
    let mut record = Record::parse(line).ok()?;
    let cut = record.attributes.len();
    record.attributes.clear();
    if cut > 0 {
        record.attributes.insert("attributes_cut".to_owned(), Value::from(cut));
    }
    BODY_BYTES.into_iter().find_map(|most| {
        if record.body.len() > most {
            record.body.truncate(char_boundary(&record.body, most));
            record.body.push('…');
        }
        let line = record_line(&record);
        (line.len() <= LINE_BYTES).then_some(line)
    })
}

/// The places of one kind of record.
#[derive(Clone, Copy)]
struct Ring<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Ring<'a> {
    fn put(self, line: &[u8]) {
        let ticket = self.words[0].fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let place = self.place(usize::try_from(ticket % PLACES as u64).unwrap_or(0));
        place[0].store(0, Ordering::Relaxed);
        // Whoever sees a word of the line sees that the place is being written, or the mark that does not fit.
        fence(Ordering::Release);
        place[1].store(mark(ticket, line), Ordering::Relaxed);
        let mut bytes = line.chunks(8);
        for word in &place[2..] {
            let mut eight = [0; 8];
            let chunk = bytes.next().unwrap_or_default();
            eight[..chunk.len()].copy_from_slice(chunk);
            word.store(u64::from_le_bytes(eight), Ordering::Relaxed);
        }
        place[0].store(ticket, Ordering::Release);
    }

    fn lines(self) -> impl Iterator<Item = Vec<u8>> + use<'a> {
        (0..PLACES).filter_map(move |number| {
            let place = self.place(number);
            let ticket = place[0].load(Ordering::Acquire);
            if ticket == 0 {
                return None;
            }
            let expected = place[1].load(Ordering::Relaxed);
            let mut line: Vec<u8> =
                place[2..].iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
            // A line has no zero in it, and ends before the first.
            line.truncate(memchr::memchr(0, &line).unwrap_or(line.len()));
            (mark(ticket, &line) == expected).then_some(line)
        })
    }

    fn place(self, number: usize) -> &'a [AtomicU64] {
        let at = 1 + number * PLACE_WORDS;
        &self.words[at..at + PLACE_WORDS]
    }
}

/// What tells a line that stands whole in the place of its ticket from what two wrote at once: FNV-1a.
fn mark(ticket: u64, line: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    ticket.to_le_bytes().iter().chain(line).fold(0xcbf2_9ce4_8422_2325, step)
}

/// How many records of each kind are kept.
const PLACES: usize = 64;
/// The longest line that is kept whole.
const LINE_BYTES: usize = 1024;
/// What is kept of the body of a longer one. Escaped, a byte may take six, and the target and the name of the process may be
/// long, too: with the last of these the line fits in any case.
const BODY_BYTES: [usize; 3] = [512, 96, 24];
const PLACE_WORDS: usize = 2 + LINE_BYTES / 8;
const RING_WORDS: usize = 1 + PLACES * PLACE_WORDS;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(severity: Severity, second: u32, body: &str, attributes: &str) -> Vec<u8> {
        format!(
            "{{\"time\":\"2026-01-31T00:{:02}:{:02}Z\",\"severity\":\"{severity}\",\"body\":{},\"attributes\":{{{attributes}}},\
             \"resource\":{{\"process\":\"worker 0\",\"pid\":7,\"generation\":1}}",
            second / 60,
            second % 60,
            Value::from(body),
        )
        .into_bytes()
    }

    fn put(recent: &Recent, severity: Severity, second: u32, body: &str) {
        recent.put(severity, &line(severity, second, body, ""));
    }

    fn bodies(recent: &Recent) -> Vec<String> {
        recent.read().into_iter().map(|record| record.body).collect()
    }

    #[test]
    fn the_newest_come_first_and_what_matters_less_is_not_kept() {
        let recent = Recent::on_heap();
        assert!(recent.read().is_empty());
        put(&recent, Severity::Warn, 1, "one");
        put(&recent, Severity::Error, 2, "two");
        put(&recent, Severity::Info, 3, "never");
        put(&recent, Severity::Fatal, 4, "four");
        assert_eq!(bodies(&recent), ["four", "two", "one"]);
        assert_eq!(recent.read()[0].resource.process, "worker 0");
    }

    #[test]
    fn a_flood_of_warnings_displaces_warnings_alone() {
        let recent = Recent::on_heap();
        put(&recent, Severity::Error, 0, "the one error");
        for second in 1..=200 {
            put(&recent, Severity::Warn, second, &second.to_string());
        }
        let bodies = bodies(&recent);
        assert_eq!(bodies.len(), PLACES + 1);
        assert_eq!((bodies[0].as_str(), bodies[PLACES - 1].as_str()), ("200", "137"));
        assert_eq!(bodies[PLACES], "the one error");
    }

    #[test]
    fn a_long_record_is_cut_and_says_so() {
        let recent = Recent::on_heap();
        let body = "\u{1}ä".repeat(2000);
        let long = "x".repeat(2000);
        recent.put(Severity::Warn, &line(Severity::Warn, 0, &body, &format!("\"a\":\"{long}\",\"b\":1")));
        recent.put(Severity::Warn, &line(Severity::Warn, 1, "short", &format!("\"a\":\"{long}\"")));
        let records = recent.read();
        assert_eq!(
            (records[0].body.as_str(), &records[0].attributes["attributes_cut"]),
            ("short", &1.into())
        );
        assert!(records[1].body.ends_with('…') && body.starts_with(records[1].body.trim_end_matches('…')));
        assert_eq!(records[1].attributes["attributes_cut"], 2);
    }

    #[test]
    fn what_is_not_whole_is_left_out() {
        let recent = Recent::on_heap();
        put(&recent, Severity::Warn, 0, "whole");
        put(&recent, Severity::Warn, 1, "torn");
        let ring = recent.ring(Severity::Warn).unwrap();
        ring.place(2)[3].fetch_xor(1, Ordering::Relaxed);
        assert_eq!(bodies(&recent), ["whole"]);
        // A place whose writer was killed over it.
        ring.place(1)[0].store(0, Ordering::Relaxed);
        assert!(recent.read().is_empty());
        recent.put(Severity::Warn, b"no record at all");
        assert!(recent.read().is_empty());
    }

    #[test]
    fn many_write_at_once_and_all_that_is_read_is_whole() {
        let recent = Recent::on_heap();
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let recent = &recent;
                scope.spawn(move || {
                    let body = char::from(b'a' + u8::try_from(thread).unwrap()).to_string().repeat(300);
                    (0..500).for_each(|second| put(recent, Severity::Warn, second, &body));
                });
            }
            for _ in 0..200 {
                for body in bodies(&recent) {
                    assert!(
                        body.len() == 300 && body.bytes().all(|byte| byte == body.as_bytes()[0]),
                        "{body}"
                    );
                }
            }
        });
        assert!(!recent.read().is_empty());
    }

    #[test]
    fn there_must_be_room() {
        let words = |count: usize| -> Arc<dyn Words> {
            let block: Box<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
            Arc::new(block)
        };
        assert!(Recent::new(words(Recent::WORDS + 4), 4).is_some());
        assert!(Recent::new(words(Recent::WORDS + 3), 4).is_none());
        assert!(Recent::new(words(9), usize::MAX).is_none());
    }
}
