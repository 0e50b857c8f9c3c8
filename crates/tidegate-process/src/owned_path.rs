//! A file that goes with its process.
//!
//! The one invariant: it is removed by the process that made it and by nobody else, a child of a fork for example, and only
//! as long as it is that very file: what took its place is left alone.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Removes the file when it is dropped.
#[derive(Debug)]
pub(crate) struct OwnedPath {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// The process; 0, which is none, when the file is to stay.
    owner: u32,
}

impl OwnedPath {
    /// The file at `path`, of which this is said, belongs to this process.
    pub(crate) fn new(path: &Path, file: &Metadata) -> Self {
        Self { path: path.to_owned(), identity: identity(file), owner: std::process::id() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it still stands there.
    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|there| identity(&there) == self.identity)
    }

    /// Lets it stay, and says where it is.
    pub(crate) fn leave(mut self) -> PathBuf {
        self.owner = 0;
        std::mem::take(&mut self.path)
    }
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        if self.owner == std::process::id()
            && self.is_there()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "file cannot be removed");
        }
    }
}

/// What tells a file from every other one, as long as somebody has it open.
pub(crate) fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_process_removes_it_and_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let make = || {
            fs::write(&path, "").unwrap();
            OwnedPath::new(&path, &fs::symlink_metadata(&path).unwrap())
        };
        drop(make());
        assert!(!path.exists());
        assert_eq!(make().leave(), path);
        assert!(path.exists());
        // As a child of a fork sees it: the owner has another number.
        let mut copy = make();
        copy.owner += 1;
        drop(copy);
        assert!(path.exists());
        let old = make();
        let other = dir.path().join("other");
        fs::write(&other, "").unwrap();
        fs::rename(&other, &path).unwrap();
        drop(old);
        assert!(path.exists());
    }
}
