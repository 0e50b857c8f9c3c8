//! `Files`: the files of a site.
//!
//! Invariant: what is sent of a file is one state of it; and nothing outside the root is ever opened (see [`root`]).

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use tidegate_engine::Io;
use tidegate_http::Status;

use crate::answer::Answer;
use crate::counters;
use crate::exchange::Exchange;

mod cache;
pub(crate) mod root;
mod static_file;

pub(crate) use cache::FileCache;
pub(crate) use root::{DotFiles, Root};

use root::{OpenError, Opened};
use static_file::{Identity, StaticFile};

/// The files that are served. The cache's lock is held for a look-up, and a loop has the service to itself.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) root: Root,
    pub(crate) cache: Mutex<FileCache>,
}

impl Files {
    /// Decides what answers a `GET` or `HEAD` for a normalised relative path.
    pub(crate) fn answer(&self, io: &mut Io<'_>, exchange: &Exchange<'_>, path: &[u8]) -> Answer {
        let now = exchange.unix_time;
        if let Some(file) = self.cache().fresh(path, now) {
            return file.answer(exchange);
        }
        io.count(counters::FILES_OPENED, 1);
        let mut opened = self.root.open_file(path);
        if let Err(OpenError::Exhausted) = opened {
            // The files that are kept open are the ones to give back first.
            self.cache().clear();
            opened = self.root.open_file(path);
        }
        match opened {
            Ok(Opened::File(fd, stat)) => {
                let identity = Identity::of(&stat);
                if let Some(file) = self.cache().confirm(path, identity, now) {
                    return file.answer(exchange);
                }
                // Read without the lock: this is the disk.
                match StaticFile::new(fd, identity, type_path(path), now, &exchange.site.fields) {
                    Ok(file) => self.cache().insert(path, file, now).answer(exchange),
                    Err(error) => {
                        tracing::warn!(path = %path.escape_ascii(), %error, "file cannot be read");
                        exchange.site.error(Status::INTERNAL_SERVER_ERROR).into()
                    }
                }
            }
            Ok(Opened::Directory) => {
                let location = directory_location(path, exchange.query());
                exchange.site.error(Status::MOVED_PERMANENTLY).header("Location", location).into()
            }
            Err(error) => {
                self.cache().remove(path);
                answer_open_error(io, exchange, path, error)
            }
        }
    }

    fn cache(&self) -> MutexGuard<'_, FileCache> {
        // Nothing in the cache can be half done when a thread panics: its methods do not.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer_open_error(io: &mut Io<'_>, exchange: &Exchange<'_>, path: &[u8], error: OpenError) -> Answer {
    let site = exchange.site;
    let response = match error {
        OpenError::NotFound => site.error(Status::NOT_FOUND),
        OpenError::Forbidden => site.error(Status::FORBIDDEN),
        OpenError::Exhausted => {
            io.count(counters::DESCRIPTORS_EXHAUSTED, 1);
            site.error(Status::SERVICE_UNAVAILABLE).header("Retry-After", "1")
        }
        OpenError::Failed(errno) => {
            tracing::warn!(path = %path.escape_ascii(), error = %errno, "file cannot be opened");
            site.error(Status::INTERNAL_SERVER_ERROR)
        }
    };
    response.into()
}

/// The name whose extension gives the type.
fn type_path(path: &[u8]) -> &Path {
    if path.is_empty() || path.ends_with(b"/") {
        return Path::new("index.html");
    }
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// Where a directory is that was asked for without its slash. Built from the normalised path: what was sent could begin
/// with two slashes, which a client would take for another host.
fn directory_location(path: &[u8], query: Option<&[u8]>) -> String {
    let mut location = format!("/{}/", percent_encode(path, PATH));
    if let Some(query) = query {
        location.push('?');
        // Encodes nothing that a target may hold, so the query stays as it was sent.
        location.extend(percent_encode(query, CONTROLS));
    }
    location
}

/// What is encoded in a path (RFC 3986, section 3.3).
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_on_this_host_and_keeps_the_query() {
        assert_eq!(directory_location(b"evil.example", None), "/evil.example/");
        assert_eq!(directory_location(b"a b/c%\xff", Some(b"x=%20&y")), "/a%20b/c%25%FF/?x=%20&y");
    }
}
