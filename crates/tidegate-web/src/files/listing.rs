//! `Listing`: what a directory holds, as far as it is served.
//!
//! Invariant: everything listed can be asked for: regular files and directories beneath the root, also through links, and
//! no hidden names. At most [`MAX_ENTRIES`] of them, so that a huge directory does not hold up a loop; which ones that are
//! is up to the file system.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};

use super::root::{OpenError, Root, open_names};

/// The names of a directory, directories first.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) entries: Vec<Entry>,
    /// There are more.
    pub(crate) truncated: bool,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) name: Vec<u8>,
    /// Bytes of a file.
    pub(crate) size: u64,
    /// Seconds since 1970; 0 for what is older.
    pub(crate) modified: u64,
}

/// What a name stands for, in the order in which it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Directory,
    File,
}

/// How many names are listed.
pub(crate) const MAX_ENTRIES: usize = 2048;

impl Listing {
    /// Reads a directory. `path` is its path relative to the root: empty, or with a slash at its end.
    pub(crate) fn read(root: &Root, directory: &OwnedFd, path: &[u8]) -> Result<Self, OpenError> {
        let mut listing = Self::default();
        for entry in Dir::new(open_names(directory)?)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") || root.hides(name) {
                continue;
            }
            if listing.entries.len() == MAX_ENTRIES {
                listing.truncated = true;
                break;
            }
            let found = match entry.file_type() {
                // Where it leads is looked at as if it were asked for.
                FileType::Symlink => root.probe(&[path, name].concat()).ok().map(|(_, stat)| stat),
                // It may have gone meanwhile.
                _ => statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).ok(),
            };
            listing.entries.extend(found.and_then(|stat| Entry::of(name, &stat)));
        }
        listing.entries.sort_unstable();
        Ok(listing)
    }
}

impl Entry {
    #[expect(clippy::useless_conversion, reason = "the type of the time differs between architectures")]
    fn of(name: &[u8], stat: &Stat) -> Option<Self> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => Kind::File,
            _ => return None,
        };
        let seconds: i64 = stat.st_mtime.into();
        Some(Self {
            kind,
            name: name.to_vec(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: u64::try_from(seconds).unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::{DotFiles, Opened};
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn list(path: &std::path::Path) -> Listing {
        let root = Root::open(path, DotFiles::Hidden).unwrap();
        let Ok(Opened::Directory(fd)) = root.open_path(b"") else { panic!("a directory") };
        Listing::read(&root, &fd, b"").unwrap()
    }

    #[test]
    fn what_can_be_asked_for_is_listed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        fs::create_dir_all(path.join("sub")).unwrap();
        fs::create_dir(path.join(".git")).unwrap();
        fs::write(path.join("b"), "12345").unwrap();
        fs::write(path.join("A"), "").unwrap();
        fs::write(path.join(".env"), "secret").unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        symlink("b", path.join("link")).unwrap();
        symlink("sub", path.join("linked")).unwrap();
        symlink("../outside", path.join("out")).unwrap();
        symlink("nowhere", path.join("dangling")).unwrap();
        let _socket = UnixListener::bind(path.join("socket")).unwrap();
        let listing = list(&path);
        let names: Vec<_> = listing
            .entries
            .iter()
            .map(|e| {
                (e.kind, std::str::from_utf8(&e.name).unwrap(), if e.kind == Kind::File { e.size } else { 0 })
            })
            .collect();
        use Kind::{Directory, File};
        assert_eq!(
            names,
            [
                (Directory, "linked", 0),
                (Directory, "sub", 0),
                (File, "A", 0),
                (File, "b", 5),
                (File, "link", 5)
            ]
        );
        assert!(!listing.truncated && listing.entries.iter().all(|e| e.modified > 1_600_000_000));
    }

    #[test]
    fn a_huge_directory_is_listed_in_part() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..MAX_ENTRIES {
            fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        assert!(!list(dir.path()).truncated);
        fs::write(dir.path().join("one more"), "").unwrap();
        let listing = list(dir.path());
        assert!(listing.truncated && listing.entries.len() == MAX_ENTRIES);
    }
}
