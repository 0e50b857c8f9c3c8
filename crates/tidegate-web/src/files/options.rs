//! `FilesOptions`: which files a site serves, and how; and why that cannot be.
//!
//! Invariant: options are only words. They are checked, and everything they name is opened, when the site is built.

use std::io;
use std::path::PathBuf;

/// Says how the files under a directory are served.
///
/// ```
/// use tidegate_web::FilesOptions;
///
/// let files = FilesOptions::new("/srv/www")
///     .try_files(["$uri", "$uri/", "/index.html"])
///     .cache_control("assets/**", "public, max-age=31536000, immutable")
///     .error_page("404", "/404.html")
///     .precompressed(true);
/// # drop(files);
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until a site is built of them"]
pub struct FilesOptions {
    pub(crate) root: PathBuf,
    pub(crate) index: Vec<String>,
    pub(crate) try_files: Vec<String>,
    pub(crate) autoindex: bool,
    pub(crate) cache_control: Vec<(String, String)>,
    pub(crate) error_pages: Vec<(String, String)>,
    pub(crate) compress: bool,
    pub(crate) precompressed: bool,
    pub(crate) dot_files: bool,
    pub(crate) max_cached_files: usize,
    pub(crate) max_cached_bytes: usize,
    pub(crate) max_ranges: usize,
}

/// Why files cannot be served as the options say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The root is not a directory that can be served.
    #[error("web root {}", path.display())]
    Root {
        /// The root as it was given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The name of an index is no name of a file in the directory itself.
    #[error("index {name:?}: expected the name of a file, without '/'")]
    Index {
        /// The name as it was given.
        name: String,
    },
    /// Something to try is none.
    #[error("try_files {pattern:?}: {why}")]
    TryFiles {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// A glob is malformed.
    #[error("cache_control {glob:?}: {why}")]
    Glob {
        /// The glob as it was given.
        glob: String,
        /// What is wrong with it.
        why: String,
    },
    /// A value cannot stand in a field.
    #[error("cache_control {glob:?}: {value:?} is no value of a field")]
    CacheControl {
        /// The glob.
        glob: String,
        /// The value as it was given.
        value: String,
    },
    /// A page is for no status that an error has.
    #[error("error page for {status:?}: expected a status from 400 to 599, \"4xx\" or \"5xx\"")]
    ErrorStatus {
        /// The status as it was given.
        status: String,
    },
    /// A page for errors cannot be read.
    #[error("error page {path:?} for {status}")]
    ErrorPage {
        /// The status as it was given.
        status: String,
        /// The path as it was given.
        path: String,
        /// What is wrong with it.
        source: io::Error,
    },
}

impl FilesOptions {
    /// The files under this directory, with everything else as its default. The directory is opened when the site is built,
    /// and once only: one that is put in its place later is not seen.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            index: vec!["index.html".to_owned()],
            try_files: Vec::new(),
            autoindex: false,
            cache_control: Vec::new(),
            error_pages: Vec::new(),
            compress: true,
            precompressed: false,
            dot_files: false,
            max_cached_files: 1024,
            max_cached_bytes: 32 << 20,
            max_ranges: 16,
        }
    }

    /// The files that stand for their directory, in the order in which they are looked for. Default: `index.html`.
    pub fn index(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.index = names.into_iter().map(Into::into).collect();
        self
    }

    /// What is tried in turn for a path: `$uri` and `$uri.html` are files, `$uri/` is the directory, `/index.html` is always
    /// that file, and `=404` at the end is a status. Default: the file, or else the directory, of the path.
    pub fn try_files(mut self, patterns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.try_files = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// Whether a directory without an index answers with a list of what is in it, as HTML, or as JSON to who prefers that.
    /// At most 2048 names are shown. Default: no, it is a 404.
    pub const fn autoindex(mut self, on: bool) -> Self {
        self.autoindex = on;
        self
    }

    /// Adds a rule for the `Cache-Control` of files; the first whose glob matches counts. A glob without a slash is compared
    /// with the name of the file in whatever directory, one with a slash with the whole path. Default: no such field.
    pub fn cache_control(mut self, glob: impl Into<String>, value: impl Into<String>) -> Self {
        self.cache_control.push((glob.into(), value.into()));
        self
    }

    /// Answers errors of this status, or of a class (`"4xx"`, `"5xx"`), with this file under the root. It is read when the
    /// site is built, at most 256 KiB, so that it is there when descriptors or the disk are not.
    pub fn error_page(mut self, status: impl Into<String>, path: impl Into<String>) -> Self {
        self.error_pages.push((status.into(), path.into()));
        self
    }

    /// Whether text is compressed for clients that take it (Brotli, gzip): files of 256 bytes to 4 MiB, once for each state
    /// of a file. Small ones are compressed when they are first asked for; of a larger one the first clients get the plain
    /// file, while another thread compresses it. Default: yes.
    pub const fn compress(mut self, on: bool) -> Self {
        self.compress = on;
        self
    }

    /// Whether `FILE.br`, `FILE.zst` and `FILE.gz` are sent in place of `FILE` to clients that take them, unless they are
    /// older than it. Default: no.
    pub const fn precompressed(mut self, on: bool) -> Self {
        self.precompressed = on;
        self
    }

    /// Whether names that begin with a dot are served. Default: no, they are a 404, but for `.well-known` (RFC 8615).
    pub const fn dot_files(mut self, on: bool) -> Self {
        self.dot_files = on;
        self
    }

    /// How many files are kept open or in memory by each event loop, at least 1. Default 1024.
    pub const fn max_cached_files(mut self, files: usize) -> Self {
        self.max_cached_files = files;
        self
    }

    /// How many bytes of files are kept in memory by each event loop: files of up to 16 KiB, and what has been compressed.
    /// Default 32 MiB.
    pub const fn max_cached_bytes(mut self, bytes: usize) -> Self {
        self.max_cached_bytes = bytes;
        self
    }

    /// How many ranges a request may ask for; who asks for more gets the whole. Default 16, and 0 ignores ranges.
    pub const fn max_ranges(mut self, ranges: usize) -> Self {
        self.max_ranges = ranges;
        self
    }
}
