//! `AccessLog`: one record for each request that was answered, as event of the target [`TARGET`].
//!
//! Invariant: it never waits: an event goes into the bounded queue of the log client, which drops and counts what finds no
//! room. What a client wrote is bounded, and stands in a line of the combined form so that it cannot end the line.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::time::{ClockId, clock_gettime};
use tidegate_http::format_http_date;

/// What the records are found by.
pub(crate) const TARGET: &str = "tidegate_web::access";

/// How a request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// The body of the record is a line as Apache and nginx write it.
    Combined,
    /// The body says what was asked; everything else stands in attributes.
    Json,
}

/// Which requests are recorded, and how.
#[derive(Debug)]
pub(crate) struct AccessLog {
    format: AccessFormat,
    /// One in so many.
    sample: u32,
    seen: AtomicU32,
}

/// A request, until its answer has been sent.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) client: Option<IpAddr>,
    pub(crate) unix_time: u64,
    /// Nanoseconds of the monotonic clock, when the head was complete.
    pub(crate) began: u64,
    /// When the answer began.
    pub(crate) answered: u64,
    pub(crate) status: u16,
    /// What is behind the head: of all of the answer, until it is known how much of it was sent.
    pub(crate) body_bytes: u64,
    /// How many bytes of the connection are before that.
    pub(crate) body_begins: u64,
    /// There is no answer, or its end was never made.
    pub(crate) broken_off: bool,
    pub(crate) method: Box<[u8]>,
    pub(crate) url: Box<[u8]>,
    pub(crate) protocol: &'static str,
    pub(crate) host: Box<[u8]>,
    pub(crate) referer: Option<Box<[u8]>>,
    pub(crate) user_agent: Option<Box<[u8]>>,
    pub(crate) user: Option<Box<str>>,
    pub(crate) request_id: Option<Box<str>>,
    pub(crate) secure: bool,
}

/// What has become of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The kernel has taken it.
    Sent,
    /// The connection has ended, and the kernel had taken so many bytes of that.
    Ended(u64),
}

/// The status of a request whose client went away before there was an answer, as nginx tells it.
pub(crate) const CLIENT_CLOSED: u16 = 499;
/// Bytes of a text of the client that are recorded.
const MAX_TEXT: usize = 2048;

impl Entry {
    /// How many bytes behind the head were sent, and whether that is all of the answer.
    fn sent(&self, outcome: Outcome) -> (u64, bool) {
        match outcome {
            Outcome::Sent => (self.body_bytes, !self.broken_off),
            Outcome::Ended(taken) => {
                let bytes = self.body_bytes.min(taken.saturating_sub(self.body_begins));
                let is_all = taken >= self.body_begins && bytes == self.body_bytes;
                (bytes, is_all && !self.broken_off)
            }
        }
    }
}

impl AccessLog {
    pub(crate) fn new(format: AccessFormat, sample: u32) -> Self {
        Self { format, sample: sample.max(1), seen: AtomicU32::new(0) }
    }

    /// Whether the next request is one that is recorded.
    pub(crate) fn takes(&self) -> bool {
        self.sample == 1 || self.seen.fetch_add(1, Ordering::Relaxed).is_multiple_of(self.sample)
    }

    /// Records a request.
    pub(crate) fn record(&self, entry: &Entry, outcome: Outcome) {
        let (bytes, complete) = entry.sent(outcome);
        match self.format {
            AccessFormat::Combined => tracing::info!(target: TARGET, "{}", combined(entry, bytes)),
            AccessFormat::Json => record_fields(entry, bytes, complete),
        }
    }
}

/// A text of the client, cut to what is recorded.
pub(crate) fn bounded(text: &[u8]) -> Box<[u8]> {
    text[..text.len().min(MAX_TEXT)].into()
}

/// `CLOCK_MONOTONIC`: the engine's clock stands still during a turn, which is what is to be measured here.
pub(crate) fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

fn record_fields(entry: &Entry, bytes: u64, complete: bool) {
    let now = monotonic_ns();
    let text = String::from_utf8_lossy;
    let (method, url) = (text(&entry.method), text(&entry.url));
    tracing::info!(
        target: TARGET,
        client = entry.client.map(tracing::field::display),
        user = entry.user.as_deref(),
        method = &*method,
        url = &*url,
        protocol = entry.protocol,
        host = &*text(&entry.host),
        secure = entry.secure,
        status = entry.status,
        bytes,
        referer = entry.referer.as_deref().map(text).as_deref(),
        user_agent = entry.user_agent.as_deref().map(text).as_deref(),
        request_id = entry.request_id.as_deref(),
        first_byte_us = entry.answered.saturating_sub(entry.began) / 1000,
        total_us = now.saturating_sub(entry.began) / 1000,
        complete,
        "{method} {url} {}",
        entry.status
    );
}

/// `client - user [time] "request line" status bytes "referer" "user agent"`
fn combined(entry: &Entry, bytes: u64) -> String {
    let mut line = String::with_capacity(256);
    match entry.client {
        // Writing to a string does not fail.
        Some(client) => drop(write!(line, "{client}")),
        None => line.push_str("unix:"),
    }
    line.push_str(" - ");
    match &entry.user {
        Some(user) => push_bare(&mut line, user.as_bytes()),
        None => line.push('-'),
    }
    line.push_str(" [");
    push_time(&mut line, entry.unix_time);
    line.push_str("] \"");
    if entry.method.is_empty() {
        line.push('-');
    } else {
        push_quoted(&mut line, &entry.method);
        line.push(' ');
        push_quoted(&mut line, &entry.url);
        line.push(' ');
        line.push_str(entry.protocol);
    }
    let _ = write!(line, "\" {} {bytes}", entry.status);
    for text in [&entry.referer, &entry.user_agent] {
        line.push_str(" \"");
        push_quoted(&mut line, text.as_deref().unwrap_or(b"-"));
        line.push('"');
    }
    line
}

/// `21/Nov/2026:10:17:06 +0000`, from the parts of `Sat, 21 Nov 2026 10:17:06 GMT`.
fn push_time(line: &mut String, unix_time: u64) {
    let date = format_http_date(unix_time);
    let part = |range: std::ops::Range<usize>| str::from_utf8(&date[range]).unwrap_or_default();
    let _ = write!(line, "{}/{}/{}:{} +0000", part(5..7), part(8..11), part(12..16), part(17..25));
}

/// What could end a quoted text, or a line, or is no visible ASCII, is written as nginx does: `\x22`.
fn push_quoted(line: &mut String, text: &[u8]) {
    for &byte in text {
        match byte {
            b'"' | b'\\' | ..=0x1f | 0x7f.. => drop(write!(line, "\\x{byte:02X}")),
            _ => line.push(char::from(byte)),
        }
    }
}

/// The same where a blank ends the text.
fn push_bare(line: &mut String, text: &[u8]) {
    for part in text.split_inclusive(|&byte| byte == b' ') {
        push_quoted(line, part.strip_suffix(b" ").unwrap_or(part));
        if part.ends_with(b" ") {
            line.push_str("\\x20");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            client: Some("192.0.2.7".parse().unwrap()),
            unix_time: 1_795_256_226,
            status: 200,
            method: Box::from(&b"GET"[..]),
            url: Box::from(&b"/a?b=c"[..]),
            protocol: "HTTP/1.1",
            referer: Some(Box::from(&b"https://example.com/"[..])),
            user_agent: Some(Box::from(&b"curl/8"[..])),
            ..Entry::default()
        }
    }

    #[test]
    fn the_combined_form_is_the_one_of_apache_and_nginx() {
        let line = r#"192.0.2.7 - - [21/Nov/2026:10:17:06 +0000] "GET /a?b=c HTTP/1.1" 200 1234 "https://example.com/" "curl/8""#;
        assert_eq!(combined(&entry(), 1234), line);
        let bare =
            Entry { client: None, user: Some("a b".into()), referer: None, user_agent: None, ..entry() };
        let line = r#"unix: - a\x20b [21/Nov/2026:10:17:06 +0000] "GET /a?b=c HTTP/1.1" 200 1234 "-" "-""#;
        assert_eq!(combined(&bare, 1234), line);
        let unread = Entry { status: 400, unix_time: 0, ..Entry::default() };
        assert_eq!(combined(&unread, 0), r#"unix: - - [01/Jan/1970:00:00:00 +0000] "-" 400 0 "-" "-""#);
    }

    #[test]
    fn a_client_cannot_write_a_line_of_its_own() {
        let evil = b"x\" 200 0\n1.2.3.4 - admin \\ \xff\x1b[31m";
        let entry = Entry {
            url: Box::from(&evil[..]),
            referer: Some(Box::from(&evil[..])),
            user_agent: Some(Box::from(&evil[..])),
            user: Some("a\" \n".into()),
            ..entry()
        };
        let line = combined(&entry, 0);
        assert!(!line.contains('\n') && line.is_ascii() && !line.contains('\x1b'), "{line}");
        assert_eq!(line.matches('"').count(), 6, "{line}");
        assert!(line.contains(r"x\x22 200 0\x0A1.2.3.4 - admin \x5C \xFF\x1B[31m"), "{line}");
    }

    #[test]
    fn what_is_told_is_what_was_sent() {
        let entry = Entry { body_begins: 1000, body_bytes: 50, ..entry() };
        assert_eq!(entry.sent(Outcome::Sent), (50, true));
        for (taken, expect) in
            [(0, (0, false)), (999, (0, false)), (1000, (0, false)), (1049, (49, false)), (1050, (50, true))]
        {
            assert_eq!(entry.sent(Outcome::Ended(taken)), expect, "{taken}");
        }
        assert_eq!(entry.sent(Outcome::Ended(9999)), (50, true));
        let head_alone = Entry { body_bytes: 0, ..entry };
        assert_eq!(head_alone.sent(Outcome::Ended(999)), (0, false));
        assert_eq!(head_alone.sent(Outcome::Ended(1000)), (0, true));
        let broken = Entry { broken_off: true, body_begins: 0, ..head_alone };
        assert_eq!(broken.sent(Outcome::Ended(1000)), (0, false));
    }

    #[test]
    fn one_in_so_many_is_taken() {
        let log = AccessLog::new(AccessFormat::Json, 4);
        assert_eq!((0..100).filter(|_| log.takes()).count(), 25);
        let all = AccessLog::new(AccessFormat::Json, 0);
        assert_eq!((0..100).filter(|_| all.takes()).count(), 100);
    }
}
