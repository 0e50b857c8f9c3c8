//! `Identity`: what tells one state of a file from another, and the entity tag that is made of it.
//!
//! Invariant: two looks at a file that give the same identity have seen the same content, as far as the file system tells
//! changes apart.

use rustix::fs::Stat;

/// One state of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    /// Bytes.
    pub(crate) size: u64,
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

    /// Whether it is the same file, in whatever state.
    pub(crate) fn is_file_of(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// When it was last modified, in seconds since 1970; none before then. A time in the future is not to be told (RFC
    /// 9110, section 8.8.2.1), so it is at most `now`.
    pub(crate) fn modified(&self, now: u64) -> Option<u64> {
        u64::try_from(self.modified.seconds).ok().map(|seconds| seconds.min(now))
    }

    /// Whether it was last modified before `other`.
    ///
    /// What compresses a file gives the result the file's time, and some do so without the fraction of the second: a time
    /// that has none is compared without.
    pub(crate) const fn is_older_than(&self, other: &Self) -> bool {
        let (own, other) = (self.modified, other.modified);
        own.seconds < other.seconds
            || (own.seconds == other.seconds && own.nanoseconds != 0 && own.nanoseconds < other.nanoseconds)
    }

    /// A strong tag: inode, size and time of modification.
    pub(crate) fn etag(&self) -> String {
        let Time { seconds, nanoseconds } = self.modified;
        let modified = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        format!("\"{:x}-{:x}-{:x}\"", self.inode, self.size, modified)
    }

    /// An identity that differs from others in its size alone.
    #[cfg(test)]
    pub(crate) const fn for_test(size: u64) -> Self {
        let time = Time { seconds: 0, nanoseconds: 0 };
        Self { device: 0, inode: 0, size, modified: time, changed: time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_http::EntityTag;

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
    fn times_are_compared_with_what_they_have_and_are_never_in_the_future() {
        let at = |seconds, nanoseconds| Identity {
            modified: Time { seconds, nanoseconds },
            ..Identity::for_test(0)
        };
        assert!(at(4, 9).is_older_than(&at(5, 0)) && at(-1, 0).is_older_than(&at(0, 0)));
        assert!(at(5, 1).is_older_than(&at(5, 9)) && !at(5, 9).is_older_than(&at(5, 9)));
        assert!(!at(5, 0).is_older_than(&at(5, 9)) && !at(6, 1).is_older_than(&at(5, 9)));
        assert_eq!(
            (at(7, 0).modified(9), at(7, 0).modified(5), at(-7, 0).modified(5)),
            (Some(7), Some(5), None)
        );
    }
}
