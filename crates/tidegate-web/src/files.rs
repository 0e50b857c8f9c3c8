//! `Files`: the files of a site.
//!
//! Invariant: what is sent of a file is one state of it; and nothing outside the root is ever opened (see [`root`]).
//!
//! ```text
//!  path ─▶ candidates (try_files) ─▶ cache, by path: fresh for a second
//!                                      │ else: root ─▶ file, index, listing, redirect
//!                                      ▼
//!                                  StaticFile ─▶ form (Accept-Encoding) ─▶ 304, 412 ─▶ whole or ranges
//! ```

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_engine::Io;
use tidegate_http::Status;

use crate::Response;
use crate::answer::Answer;
use crate::counters;
use crate::exchange::Exchange;

mod at_once;
mod cache;
mod cache_control;
mod candidates;
mod compress;
mod compressor;
mod content;
mod content_type;
mod error_pages;
mod form;
mod identity;
mod listing;
mod listing_page;
mod listings;
mod options;
mod root;
mod static_file;
pub(crate) mod uri;

pub use options::{FilesError, FilesOptions};

use at_once::AtOnce;
use cache::FileCache;
use cache_control::CacheControl;
use candidates::{Candidate, Candidates};
use compressor::Job;
use content_type::content_type;
use error_pages::ErrorPages;
use identity::Identity;
use listings::Listings;
use root::{DotFiles, OpenError, Opened, Root};
use static_file::{BESIDE, Found, Manner, Outcome, State, StaticFile};

/// The files that are served. The caches' locks are held for a look-up, and a loop has the service to itself.
#[derive(Debug)]
pub(crate) struct Files {
    root: Root,
    index: Vec<Vec<u8>>,
    candidates: Candidates,
    cache_control: CacheControl,
    error_pages: ErrorPages,
    /// `None` when directories are not listed.
    listings: Option<Mutex<Listings>>,
    compress: bool,
    precompressed: bool,
    max_ranges: usize,
    cache: Arc<Mutex<Cache>>,
    at_once: AtOnce,
}

type Cache = FileCache<Arc<StaticFile>>;

impl cache::Cached for Arc<StaticFile> {
    type State = State;

    fn state(&self) -> &State {
        (**self).state()
    }

    fn weight(&self) -> usize {
        (**self).weight()
    }
}

/// What a path names, once directories have been looked into.
enum Named<'a> {
    /// A file, and its path.
    File { fd: OwnedFd, identity: Identity, path: Cow<'a, [u8]> },
    /// A directory without an index.
    Directory(OwnedFd),
    /// A directory whose path lacks its slash.
    NoSlash,
}

/// What a candidate may turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Anything,
    File,
    Folder,
}

/// How often a file is opened again that changed while it was read.
const READS: usize = 3;

impl Files {
    /// Opens what the options name.
    pub(crate) fn open(options: &FilesOptions) -> Result<Self, FilesError> {
        let dot_files = if options.dot_files { DotFiles::Served } else { DotFiles::Hidden };
        let root = Root::open(&options.root, dot_files)
            .map_err(|source| FilesError::Root { path: options.root.clone(), source })?;
        for name in &options.index {
            if name.is_empty() || name.contains(['/', '\0']) || matches!(name.as_str(), "." | "..") {
                return Err(FilesError::Index { name: name.clone() });
            }
        }
        let error_pages = ErrorPages::read(&root, &options.error_pages)?;
        Ok(Self {
            root,
            index: options.index.iter().map(|name| name.clone().into_bytes()).collect(),
            candidates: Candidates::new(&options.try_files)?,
            cache_control: CacheControl::new(&options.cache_control)?,
            error_pages,
            listings: options.autoindex.then(Mutex::default),
            compress: options.compress,
            precompressed: options.precompressed,
            max_ranges: options.max_ranges,
            cache: Arc::new(Mutex::new(FileCache::new(options.max_cached_files, options.max_cached_bytes))),
            at_once: AtOnce::default(),
        })
    }

    /// The site's own page for an error.
    pub(crate) fn error_page(&self, status: Status) -> Option<Response> {
        self.error_pages.response(status)
    }

    /// Decides what answers a `GET` or `HEAD` for a normalised relative path.
    #[inline]
    pub(crate) fn answer(&self, io: &mut Io<'_>, exchange: &Exchange<'_>, path: &[u8]) -> Answer {
        let found = if self.candidates.is_empty() {
            self.try_path(io, exchange, path, Wanted::Anything)
        } else {
            self.try_candidates(io, exchange, path)
        };
        found.unwrap_or_else(|error| answer_open_error(io, exchange, path, error))
    }

    fn try_candidates(
        &self,
        io: &mut Io<'_>,
        exchange: &Exchange<'_>,
        path: &[u8],
    ) -> Result<Answer, OpenError> {
        for candidate in self.candidates.iter() {
            let found = match candidate {
                Candidate::Status(status) => return Ok(exchange.site.error(*status).into()),
                Candidate::Folder => self.try_path(io, exchange, path, Wanted::Folder),
                Candidate::File { .. } | Candidate::Fixed(_) => match candidate.path(path) {
                    Some(path) => self.try_path(io, exchange, &path, Wanted::File),
                    None => continue,
                },
            };
            match found {
                Err(OpenError::NotFound) => {}
                found => return found,
            }
        }
        Err(OpenError::NotFound)
    }

    #[inline]
    fn try_path(
        &self,
        io: &mut Io<'_>,
        exchange: &Exchange<'_>,
        path: &[u8],
        wanted: Wanted,
    ) -> Result<Answer, OpenError> {
        let names_folder = path.is_empty() || path.ends_with(b"/");
        if wanted != Wanted::Folder || names_folder {
            let mut cache = self.cache();
            if let Some(file) = cache.fresh(path, exchange.unix_time) {
                if let Some(answer) = file.simple(exchange) {
                    return Ok(answer);
                }
                let file = Arc::clone(file);
                drop(cache);
                return Ok(self.answer_file(exchange, path, &file));
            }
        }
        self.try_opening(io, exchange, path, wanted)
    }

    fn try_opening(
        &self,
        io: &mut Io<'_>,
        exchange: &Exchange<'_>,
        path: &[u8],
        wanted: Wanted,
    ) -> Result<Answer, OpenError> {
        for _ in 0..READS {
            io.count(counters::FILES_OPENED, 1);
            let mut named = self.name(path, wanted);
            if let Err(OpenError::Exhausted) = named {
                // The files that are kept open are the ones to give back first.
                self.cache().clear();
                named = self.name(path, wanted);
            }
            if !matches!(named, Ok(Named::File { .. })) {
                self.cache().remove(path);
            }
            match named? {
                Named::NoSlash => {
                    let location = uri::directory_location(path, exchange.query());
                    let moved = exchange.site.error(Status::MOVED_PERMANENTLY);
                    return Ok(moved.header("Location", location).into());
                }
                Named::Directory(fd) => return self.list(exchange, path, &fd),
                Named::File { fd, identity, path: name } => {
                    if let Some(answer) = self.answer_opened(exchange, path, &name, (fd, identity)) {
                        return Ok(answer);
                    }
                }
            }
        }
        tracing::debug!(path = %path.escape_ascii(), "file changes whenever it is read");
        Ok(exchange.site.error(Status::SERVICE_UNAVAILABLE).header("Retry-After", "1").into())
    }

    /// Opens what a path names.
    fn name<'a>(&self, path: &'a [u8], wanted: Wanted) -> Result<Named<'a>, OpenError> {
        if !path.is_empty() && !path.ends_with(b"/") {
            return match self.root.open_path(path)? {
                Opened::File(fd, identity) if wanted != Wanted::Folder => {
                    Ok(Named::File { fd, identity, path: Cow::Borrowed(path) })
                }
                Opened::Directory(_) if wanted != Wanted::File => Ok(Named::NoSlash),
                _ => Err(OpenError::NotFound),
            };
        }
        for index in &self.index {
            let path = [path, index].concat();
            match self.root.open_path(&path) {
                Ok(Opened::File(fd, identity)) => {
                    return Ok(Named::File { fd, identity, path: Cow::Owned(path) });
                }
                Ok(Opened::Directory(_)) | Err(OpenError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        if self.listings.is_none() {
            return Err(OpenError::NotFound);
        }
        match self.root.open_path(path)? {
            Opened::Directory(fd) => Ok(Named::Directory(fd)),
            Opened::File(..) => Err(OpenError::NotFound),
        }
    }

    /// Answers with a file that was opened; `None` when it changed while it was read.
    fn answer_opened(
        &self,
        exchange: &Exchange<'_>,
        path: &[u8],
        name: &[u8],
        (fd, identity): (OwnedFd, Identity),
    ) -> Option<Answer> {
        let now = exchange.unix_time;
        let found = self.look_beside(name, fd, identity);
        let confirmed = self.cache().confirm(path, &found.state, now).map(Arc::clone);
        if let Some(file) = confirmed {
            return Some(self.answer_file(exchange, path, &file));
        }
        let manner = Manner {
            content_type: content_type(name),
            cache_control: self.cache_control.of(name).map(ToOwned::to_owned),
            compress: self.compress,
            site_fields: &exchange.site.fields,
            now,
        };
        // Read without the lock: this is the disk.
        match StaticFile::new(found, manner) {
            Ok(file) => {
                let file = Arc::new(file);
                self.cache().insert(path, Arc::clone(&file), now);
                Some(self.answer_file(exchange, path, &file))
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => None,
            Err(error) => {
                tracing::warn!(path = %path.escape_ascii(), %error, "file cannot be read");
                Some(exchange.site.error(Status::INTERNAL_SERVER_ERROR).into())
            }
        }
    }

    /// Opens the ready forms that stand beside a file. One that is older than the file is a form of another state of it.
    fn look_beside(&self, name: &[u8], plain: OwnedFd, identity: Identity) -> Found {
        let mut found =
            Found { state: State { plain: identity, beside: [None; 3] }, plain, beside: [None, None, None] };
        if !self.precompressed {
            return found;
        }
        for (place, (_, suffix)) in BESIDE.iter().enumerate() {
            if let Ok(Opened::File(fd, beside)) = self.root.open_path(&[name, suffix].concat())
                && !beside.is_older_than(&identity)
            {
                found.state.beside[place] = Some(beside);
                found.beside[place] = Some(fd);
            }
        }
        found
    }

    fn answer_file(&self, exchange: &Exchange<'_>, path: &[u8], file: &Arc<StaticFile>) -> Answer {
        let (meanwhile, place) = match file.answer(exchange, self.max_ranges) {
            Outcome::Answer(answer) => return answer,
            Outcome::Meanwhile(answer, place) => (answer, place),
        };
        if file.is_small() && self.at_once.take(exchange.unix_time) {
            return match file.make(place) {
                Ok(()) => {
                    self.cache().weigh(path);
                    match file.answer(exchange, self.max_ranges) {
                        Outcome::Answer(answer) | Outcome::Meanwhile(answer, _) => answer,
                    }
                }
                Err(error) => {
                    tracing::warn!(path = %path.escape_ascii(), %error, "file cannot be compressed");
                    meanwhile
                }
            };
        }
        if file.ask(place) {
            let (cache, path) = (Arc::downgrade(&self.cache), path.into());
            if !compressor::submit(Job { file: Arc::downgrade(file), place, cache, path }) {
                file.ask_again(place);
            }
        }
        meanwhile
    }

    fn list(&self, exchange: &Exchange<'_>, path: &[u8], directory: &OwnedFd) -> Result<Answer, OpenError> {
        let Some(listings) = &self.listings else { return Err(OpenError::NotFound) };
        let mut listings = listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.answer(&self.root, exchange, path, directory)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        // Nothing in the cache can be half done when a thread panics: its methods do not.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FilesOptions {
    /// Whether files can be served so: opens everything that is named, and closes it again.
    ///
    /// # Errors
    ///
    /// See [`FilesError`].
    pub fn check(&self) -> Result<(), FilesError> {
        Files::open(self).map(drop)
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
