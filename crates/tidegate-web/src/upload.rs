//! `UploadDir`: request bodies that become files.
//!
//! Invariant: under its name there is all of a file or nothing of it. Until its last byte is on the disk it has no name at all
//! where the file system can do that, otherwise one that begins with `.upload-`; whatever ends it before then, also the
//! end of the process in the first case, leaves nothing behind.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, fdatasync, linkat, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::{Errno, write};
use tidegate_http::Status;

use crate::{BodySink, Response};

/// A directory that uploads are stored in.
///
/// ```no_run
/// use tidegate_web::{Request, UploadDir, Web, put, sink};
///
/// let uploads = UploadDir::open("/srv/uploads")?;
/// let store = sink(move |request: &Request<'_>| uploads.begin(request.param("name").unwrap_or_default()));
/// let web = Web::builder().route("/uploads/{name}", put(store).max_body_bytes(1 << 30).blocking());
/// # drop(web);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct UploadDir {
    dir: Arc<OwnedFd>,
    replaces: bool,
    mode: Mode,
}

/// A file that is being uploaded.
#[derive(Debug)]
pub struct Upload {
    to: UploadDir,
    name: String,
    file: OwnedFd,
    /// The name that it has meanwhile, where it needs one.
    temporary: Option<String>,
}

impl UploadDir {
    /// Opens a directory. One that is put in its place later is not seen.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, path.as_ref(), flags, Mode::empty())?;
        Ok(Self { dir: Arc::new(dir), replaces: false, mode: Mode::from_raw_mode(0o644) })
    }

    /// Uploads take the place of files that are there. By default they are refused with 409.
    #[must_use]
    pub const fn replacing(mut self) -> Self {
        self.replaces = true;
        self
    }

    /// The mode of the files, less the process's umask. Default 0644.
    #[must_use]
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = Mode::from_bits_truncate(mode);
        self
    }

    /// Begins a file of this name, which is one name: without a slash, without control characters, and no dot in front. To be
    /// called where it may block, as all that follows.
    ///
    /// # Errors
    ///
    /// The answer: 400 for a name that is none, 409 for one that is taken, 507 when the disk is full, 503 when there are
    /// no descriptors left.
    pub fn begin(&self, name: &str) -> Result<Upload, Response> {
        if !is_name(name) {
            return Err(no_name());
        }
        if !self.replaces && self.exists(name) {
            return Err(taken());
        }
        self.open_file(name)
    }

    /// Begins a file whose name comes later.
    pub(crate) fn begin_unnamed(&self) -> Result<Upload, Response> {
        self.open_file("")
    }

    fn open_file(&self, name: &str) -> Result<Upload, Response> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let (file, temporary) = match openat(&self.dir, ".", flags | OFlags::TMPFILE, self.mode) {
            Ok(file) => (file, None),
            // What open(2) says of file systems and kernels without files without names.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                let create =
                    |name: &str| openat(&self.dir, name, flags | OFlags::CREATE | OFlags::EXCL, self.mode);
                let (name, file) = with_new_name(create).map_err(|errno| refusal(errno, name))?;
                (file, Some(name))
            }
            Err(errno) => return Err(refusal(errno, name)),
        };
        Ok(Upload { to: self.clone(), name: name.to_owned(), file, temporary })
    }

    fn exists(&self, name: &str) -> bool {
        rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

impl Upload {
    /// Gives it this name. True when it has taken the place of another. It may be tried again with another name.
    pub(crate) fn save_as(&mut self, name: &str) -> Result<bool, Response> {
        if !is_name(name) {
            return Err(no_name());
        }
        name.clone_into(&mut self.name);
        self.publish().map_err(|errno| self.refusal(errno))
    }

    /// The answer to what has kept it from getting its name.
    fn refusal(&self, errno: Errno) -> Response {
        if errno == Errno::EXIST { taken() } else { refusal(errno, &self.name) }
    }

    /// Gives it its name. True when it has taken the place of another.
    fn publish(&mut self) -> Result<bool, Errno> {
        fdatasync(&self.file)?;
        let dir = &self.to.dir;
        let replaced = self.to.exists(&self.name);
        match &self.temporary {
            None if !self.to.replaces => self.link(&self.name)?,
            Some(temporary) if !self.to.replaces => {
                renameat_with(dir, temporary.as_str(), dir, self.name.as_str(), RenameFlags::NOREPLACE)?;
                self.temporary = None;
            }
            _ => {
                // A file without a name cannot take the place of another in one step.
                let temporary = match self.temporary.take() {
                    Some(temporary) => temporary,
                    None => with_new_name(|name| self.link(name))?.0,
                };
                let temporary = self.temporary.insert(temporary);
                renameat(dir, temporary.as_str(), dir, self.name.as_str())?;
                self.temporary = None;
            }
        }
        Ok(replaced)
    }

    /// See `AT_EMPTY_PATH` in linkat(2), which without a capability is done by way of /proc.
    fn link(&self, name: &str) -> Result<(), Errno> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(CWD, path, &self.to.dir, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl BodySink for Upload {
    fn write(&mut self, mut part: &[u8]) -> Result<(), Response> {
        while !part.is_empty() {
            match write(&self.file, part) {
                Ok(0) => return Err(refusal(Errno::IO, &self.name)),
                Ok(n) => part = &part[n..],
                Err(Errno::INTR) => {}
                Err(errno) => return Err(refusal(errno, &self.name)),
            }
        }
        Ok(())
    }

    /// 201, or 204 when the file took the place of another.
    fn finish(mut self: Box<Self>) -> Response {
        match self.publish() {
            Ok(false) => Response::new(Status::CREATED),
            Ok(true) => Response::new(Status::NO_CONTENT),
            Err(errno) => self.refusal(errno),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take()
            && let Err(error) = unlinkat(&self.to.dir, temporary.as_str(), AtFlags::empty())
        {
            tracing::warn!(name = temporary, %error, "what was left of an upload cannot be deleted");
        }
    }
}

/// Tries names until one is not taken.
fn with_new_name<T>(mut attempt: impl FnMut(&str) -> Result<T, Errno>) -> Result<(String, T), Errno> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    for _ in 0..ATTEMPTS {
        let name = format!(".upload-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        match attempt(&name) {
            Err(Errno::EXIST) => {}
            outcome => return Ok((name, outcome?)),
        }
    }
    Err(Errno::EXIST)
}

/// Names that an earlier process of this number may have left.
const ATTEMPTS: usize = 1000;

/// The longest name of the usual file systems, in bytes.
const MAX_NAME: usize = 255;

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains('/')
        && !name.chars().any(char::is_control)
}

fn no_name() -> Response {
    Response::new(Status::BAD_REQUEST).body("name: no name of a file\n")
}

fn taken() -> Response {
    Response::new(Status::CONFLICT).body("a file of this name is there\n")
}

/// The answer to what the kernel says.
fn refusal(errno: Errno, name: &str) -> Response {
    match errno {
        Errno::NOSPC | Errno::DQUOT => {
            tracing::warn!(name, error = %errno, "no space for an upload");
            Response::new(Status::INSUFFICIENT_STORAGE).body("no space is left\n")
        }
        Errno::FBIG => Response::new(Status::CONTENT_TOO_LARGE).body("too large for a file here\n"),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            Response::new(Status::SERVICE_UNAVAILABLE).header("Retry-After", "1")
        }
        Errno::NAMETOOLONG | Errno::ILSEQ => no_name(),
        _ => {
            tracing::error!(name, error = %errno, "an upload cannot be stored");
            Response::page(Status::INTERNAL_SERVER_ERROR)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// As on a file system that knows no files without names.
    fn named(uploads: &UploadDir, name: &str) -> Upload {
        let mut upload = uploads.begin(name).unwrap();
        let (temporary, ()) = with_new_name(|name| upload.link(name)).unwrap();
        upload.temporary = Some(temporary);
        upload
    }

    fn store(upload: Upload, text: &str) -> Response {
        let mut upload = Box::new(upload);
        upload.write(text.as_bytes()).unwrap();
        upload.finish()
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = UploadDir::open(dir.path()).unwrap();
        for (begin, visible) in [(UploadDir::begin as fn(&_, &_) -> _, 0), (|u, n| Ok(named(u, n)), 1)] {
            let upload = begin(&uploads, "a").unwrap();
            assert_eq!(names(dir.path()).len(), visible);
            drop(upload);
            assert_eq!(names(dir.path()), [""; 0]);
            assert_eq!(store(begin(&uploads, "a").unwrap(), "text").status(), Status::CREATED);
            assert_eq!(names(dir.path()), ["a"]);
            assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"text");
            std::fs::remove_file(dir.path().join("a")).unwrap();
        }
    }

    #[test]
    fn a_name_that_is_taken_is_refused_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = UploadDir::open(dir.path()).unwrap();
        let (late, late_named) = (uploads.begin("a").unwrap(), named(&uploads, "a"));
        assert_eq!(store(uploads.begin("a").unwrap(), "first").status(), Status::CREATED);
        assert_eq!(uploads.begin("a").unwrap_err().status(), Status::CONFLICT);
        assert_eq!(store(late, "second").status(), Status::CONFLICT);
        assert_eq!(store(late_named, "third").status(), Status::CONFLICT);
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"first");
        let uploads = uploads.replacing();
        for (begin, text) in
            [(UploadDir::begin as fn(&_, &_) -> _, "fourth"), (|u, n| Ok(named(u, n)), "fifth")]
        {
            assert_eq!(store(begin(&uploads, "a").unwrap(), text).status(), Status::NO_CONTENT);
            assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), text.as_bytes());
            assert_eq!(names(dir.path()), ["a"]);
        }
    }

    #[test]
    fn a_name_that_comes_last_is_tried_until_one_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = UploadDir::open(dir.path()).unwrap();
        assert_eq!(store(uploads.begin("a").unwrap(), "first").status(), Status::CREATED);
        for (begin, free) in [(UploadDir::begin_unnamed as fn(&_) -> _, "b"), (|u| Ok(named(u, "x")), "c")] {
            let mut upload = begin(&uploads).unwrap();
            upload.write(b"text").unwrap();
            let mut refused = |name| upload.save_as(name).unwrap_err().status();
            assert_eq!(["a", "../a", ""].map(|name| refused(name).code()), [409, 400, 400]);
            assert!(!upload.save_as(free).unwrap());
            drop(upload);
            assert_eq!(std::fs::read(dir.path().join(free)).unwrap(), b"text");
        }
        let mut upload = uploads.replacing().begin_unnamed().unwrap();
        assert!(upload.save_as("a").unwrap());
        drop(upload);
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"");
        assert_eq!(names(dir.path()), ["a", "b", "c"]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let uploads = UploadDir::open(dir.path()).unwrap();
        for name in ["", ".", "..", ".hidden", "a/b", "/", "a\0b", "a\nb", &"x".repeat(256)] {
            assert_eq!(uploads.begin(name).unwrap_err().status(), Status::BAD_REQUEST, "{name:?}");
        }
        assert_eq!(store(uploads.begin("Grüße.txt").unwrap(), "").status(), Status::CREATED);
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let file = openat(CWD, "/dev/full", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let uploads = UploadDir::open(dir.path()).unwrap();
        let mut upload = uploads.begin("a").unwrap();
        upload.file = file;
        assert_eq!(upload.write(b"x").unwrap_err().status(), Status::INSUFFICIENT_STORAGE);
        assert_eq!(refusal(Errno::DQUOT, "a").status(), Status::INSUFFICIENT_STORAGE);
        assert_eq!(refusal(Errno::FBIG, "a").status(), Status::CONTENT_TOO_LARGE);
        assert_eq!(refusal(Errno::MFILE, "a").status(), Status::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn files_have_the_mode_that_is_wanted() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let uploads = UploadDir::open(dir.path()).unwrap().mode(0o600);
        assert_eq!(store(uploads.begin("a").unwrap(), "").status(), Status::CREATED);
        let mode = std::fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
