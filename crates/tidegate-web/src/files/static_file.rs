//! `StaticFile`: one file, ready to be answered.
//!
//! Invariant: head and body belong together. A small file is read whole when it is opened and sent from memory with its
//! head in one piece; a large one is kept open, and the kernel copies it to the socket (sendfile(2)). Either way it is the
//! file that was opened, until a look at its path finds another.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Stat;
use tidegate_http::{EntityTag, Precondition, Status, Validators, evaluate_preconditions, format_http_date};

use crate::Response;
use crate::answer::Answer;
use crate::encoded::{Content, Encoded};
use crate::exchange::Exchange;
use crate::response::FileSlice;

/// Files up to this size are sent from memory. Below it a copy is cheaper than a second system call.
pub(crate) const MAX_INLINE_BYTES: u64 = 16 << 10;

/// A file with everything that its answers need.
#[derive(Debug)]
pub(crate) struct StaticFile {
    identity: Identity,
    etag: String,
    /// Seconds since 1970; none for a file from before then.
    last_modified: Option<u64>,
    last_modified_text: Option<String>,
    /// The whole file.
    answer: Arc<Encoded>,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: Time,
    changed: Time,
}

/// A time of a file; before 1970 it is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time {
    seconds: i64,
    nanoseconds: u64,
}

impl Identity {
    #[expect(clippy::useless_conversion, reason = "the types of these fields differ between architectures")]
    pub(crate) fn of(stat: &Stat) -> Self {
        let time = |seconds, nanoseconds| Time { seconds, nanoseconds };
        Self {
            device: stat.st_dev.into(),
            inode: stat.st_ino.into(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: time(stat.st_mtime.into(), u64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            changed: time(stat.st_ctime.into(), u64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        }
    }

    /// An identity that differs from others in its size alone.
    #[cfg(test)]
    pub(crate) const fn for_test(size: u64) -> Self {
        let time = Time { seconds: 0, nanoseconds: 0 };
        Self { device: 0, inode: 0, size, modified: time, changed: time }
    }

    /// A strong tag: inode, size and time of modification.
    fn etag(&self) -> String {
        let Time { seconds, nanoseconds } = self.modified;
        let modified = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        format!("\"{:x}-{:x}-{:x}\"", self.inode, self.size, modified)
    }
}

impl StaticFile {
    /// Prepares the answers for an open file. `path` gives the type; `now` is the wall clock.
    pub(crate) fn new(
        fd: OwnedFd,
        identity: Identity,
        path: &Path,
        now: u64,
        site: &[(Box<str>, Box<str>)],
    ) -> io::Result<Self> {
        let etag = identity.etag();
        // A time in the future is not to be told (RFC 9110, section 8.8.2.1).
        let last_modified = u64::try_from(identity.modified.seconds).ok().map(|seconds| seconds.min(now));
        let last_modified_text = last_modified.map(date_text);
        let content_type = content_type(path);

        let mut fields = vec![("Content-Type", content_type.as_str()), ("ETag", etag.as_str())];
        if let Some(text) = &last_modified_text {
            fields.push(("Last-Modified", text.as_str()));
        }
        fields.extend(site.iter().map(|(name, value)| (&**name, &**value)));
        let answer = if identity.size <= MAX_INLINE_BYTES {
            let bytes = read_up_to(&fd, identity.size)?;
            Encoded::new(Status::OK, &fields, Content::Inline(&bytes))
        } else {
            let slice = FileSlice { file: Arc::new(fd), offset: 0, len: identity.size };
            Encoded::new(Status::OK, &fields, Content::File(slice))
        };
        Ok(Self { identity, etag, last_modified, last_modified_text, answer: Arc::new(answer) })
    }

    pub(crate) const fn identity(&self) -> Identity {
        self.identity
    }

    /// Decides what answers a `GET` or `HEAD`.
    #[inline]
    pub(crate) fn answer(&self, exchange: &Exchange<'_>) -> Answer {
        if exchange.head.is_conditional() {
            match self.precondition(exchange) {
                Precondition::Proceed => {}
                Precondition::NotModified => return self.not_modified().into(),
                Precondition::Failed => return exchange.site.error(Status::PRECONDITION_FAILED).into(),
            }
        }
        Answer::Encoded(Arc::clone(&self.answer))
    }

    fn precondition(&self, exchange: &Exchange<'_>) -> Precondition {
        let state =
            Validators { etag: EntityTag::parse(self.etag.as_bytes()), last_modified: self.last_modified };
        evaluate_preconditions(exchange.method(), &exchange.head.fields(exchange.bytes), &state)
    }

    fn not_modified(&self) -> Response {
        let response = Response::new(Status::NOT_MODIFIED).header("ETag", self.etag.clone());
        match &self.last_modified_text {
            Some(text) => response.header("Last-Modified", text.clone()),
            None => response,
        }
    }
}

fn date_text(seconds: u64) -> String {
    format_http_date(seconds).iter().map(|&b| char::from(b)).collect()
}

/// By the name's extension. Text is taken to be UTF-8, which a browser would not guess.
fn content_type(path: &Path) -> String {
    match mime_guess::from_path(path).first_raw() {
        Some(text) if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        Some(other) => other.to_owned(),
        None => "application/octet-stream".to_owned(),
    }
}

/// Reads `len` bytes, or fewer when the file has become shorter since it was looked at.
fn read_up_to(fd: &OwnedFd, len: u64) -> io::Result<Vec<u8>> {
    // At most MAX_INLINE_BYTES.
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(fd, &mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_extension_and_text_is_utf_8() {
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.CSS", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.png", "image/png"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("a", "application/octet-stream"),
            ("a.unheard-of", "application/octet-stream"),
        ] {
            assert_eq!(content_type(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn the_tag_changes_with_inode_size_and_time() {
        let base = Identity {
            device: 1,
            inode: 2,
            size: 3,
            modified: Time { seconds: 4, nanoseconds: 5 },
            changed: Time { seconds: 6, nanoseconds: 7 },
        };
        let others = [
            Identity { inode: 3, ..base },
            Identity { size: 4, ..base },
            Identity { modified: Time { seconds: 4, nanoseconds: 6 }, ..base },
            Identity { modified: Time { seconds: -4, nanoseconds: 5 }, ..base },
        ];
        for other in others {
            assert_ne!(other.etag(), base.etag());
        }
        assert!(EntityTag::parse(base.etag().as_bytes()).is_some_and(|tag| !tag.is_weak()));
    }

    #[test]
    fn a_file_that_shrank_is_read_as_far_as_it_goes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        let fd = OwnedFd::from(std::fs::File::open(file.path()).unwrap());
        assert_eq!(read_up_to(&fd, 10).unwrap(), b"abc");
        assert_eq!(read_up_to(&fd, 2).unwrap(), b"ab");
    }
}
