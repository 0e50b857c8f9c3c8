//! Standard error, written without ever waiting for who reads it.
//!
//! A pipe or a terminal that nobody reads would stop the thread that writes to it. Pipes and terminals are therefore opened
//! a second time, with a file description of our own that does not block (setting `O_NONBLOCK` on the inherited one would
//! change it for every process that shares it); a socket is written with `MSG_DONTWAIT`; a file never blocks for long. A
//! standard error that is closed or broken swallows everything; one on a full disk swallows what it has no room for. The null
//! device, which a daemon has, is known as such, so that nothing is rendered for it.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, major, minor};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::{Colour, render};

/// Renders records and writes them to a descriptor.
#[derive(Debug)]
pub(crate) struct Screen {
    /// `None` when there is nothing to write to.
    fd: Option<OwnedFd>,
    socket: bool,
    colour: Colour,
    /// Rendered text, of which the first `written` bytes are out.
    text: String,
    written: usize,
}

impl Screen {
    /// Writes to `fd`; to standard error when there is none.
    pub(crate) fn new(fd: Option<OwnedFd>) -> Self {
        let fd = fd.or_else(|| rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), FIRST_FREE_FD).ok());
        let colour = match &fd {
            Some(fd) if fd.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) => {
                Colour::On
            }
            _ => Colour::Off,
        };
        let kind = fd.as_ref().and_then(|fd| rustix::fs::fstat(fd).ok());
        let kind = kind.map(|stat| FileType::from_raw_mode(stat.st_mode));
        let socket = kind == Some(FileType::Socket);
        let fd = match (fd, kind) {
            (Some(fd), Some(FileType::Fifo | FileType::CharacterDevice)) => Some(reopened(fd)),
            (fd, _) => fd,
        };
        Self { fd, socket, colour, text: String::new(), written: 0 }
    }

    /// Whether there is nothing to write to any more: it is closed, or broken.
    pub(crate) const fn is_gone(&self) -> bool {
        self.fd.is_none()
    }

    /// Whether nobody can ever read what is written: it is closed, or the null device.
    pub(crate) fn is_blind(&self) -> bool {
        let is_null = |fd: &OwnedFd| {
            rustix::fs::fstat(fd).is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                    && (major(stat.st_rdev), minor(stat.st_rdev)) == NULL_DEVICE
            })
        };
        self.fd.as_ref().is_none_or(is_null)
    }

    /// Whether everything is out.
    pub(crate) const fn is_idle(&self) -> bool {
        self.text.is_empty()
    }

    /// What to poll for `POLLOUT`, when something waits.
    pub(crate) fn awaited(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().filter(|_| !self.is_idle()).map(|fd| fd.as_fd())
    }

    /// Adds stored lines.
    pub(crate) fn show(&mut self, lines: &[u8]) {
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            render(line, self.colour, &mut self.text);
        }
    }

    /// Adds a line of our own.
    pub(crate) fn say(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    /// Writes what the descriptor takes now.
    pub(crate) fn write(&mut self) {
        while let (Some(fd), false) = (&self.fd, self.text.is_empty()) {
            let rest = &self.text.as_bytes()[self.written..];
            let result = if self.socket {
                rustix::net::send(fd, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            } else {
                rustix::io::write(fd, rest)
            };
            match result {
                Ok(bytes) => self.written += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // A file on a full disk, which may have room again for what comes later.
                Err(Errno::NOSPC | Errno::DQUOT) => return self.clear(),
                // There is nobody left to tell, and nothing to tell it with.
                Err(_) => self.fd = None,
            }
            if self.written == self.text.len() {
                self.clear();
            }
        }
        if self.fd.is_none() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(KEPT_TEXT_BYTES);
        self.written = 0;
    }
}

/// Whether a short message on standard error would not have to wait now: a pipe with room has a page of it (pipe(7)).
pub(crate) fn stderr_has_room() -> bool {
    let stderr = std::io::stderr();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // An error as the answer says that a write fails at once.
    poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&now)) != Ok(0)
}

/// The same pipe or terminal with a file description of our own. Where that is not allowed (after a change of user, on a
/// system without /proc) the old one has to do.
fn reopened(fd: OwnedFd) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).unwrap_or(fd)
}

/// Major and minor number of /dev/null, wherever it stands and whatever it is called (null(4)).
const NULL_DEVICE: (u32, u32) = (1, 3);
/// The descriptors below are the standard ones.
const FIRST_FREE_FD: i32 = 3;
/// A larger buffer is given back after a burst.
const KEPT_TEXT_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_pipe_that_nobody_reads_does_not_stop_the_writer() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut screen = Screen::new(Some(writer.into()));
        let line = "x".repeat(999);
        for _ in 0..1000 {
            screen.say(&line);
        }
        screen.write();
        assert!(!screen.is_idle() && screen.awaited().is_some(), "a pipe holds less than a megabyte");
        let mut all = Vec::new();
        let mut block = vec![0; 64 << 10];
        while all.len() < 1_000_000 {
            let bytes = reader.read(&mut block).unwrap();
            all.extend_from_slice(&block[..bytes]);
            screen.write();
        }
        assert!(screen.is_idle());
        assert_eq!(all, format!("{line}\n").repeat(1000).as_bytes());
    }

    #[test]
    fn a_full_disk_costs_what_it_has_no_room_for_and_no_more() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut screen = Screen::new(Some(full.into()));
        screen.say("there is no room for this");
        screen.write();
        assert!(screen.is_idle() && screen.awaited().is_none());
        screen.say("but perhaps for this");
        assert!(screen.awaited().is_some(), "it is tried again");
        screen.write();
        assert!(screen.is_idle());
    }

    #[test]
    fn a_broken_pipe_swallows_everything() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut screen = Screen::new(Some(writer.into()));
        drop(reader);
        screen.say("nobody hears this");
        screen.write();
        assert!(screen.is_idle() && screen.awaited().is_none() && screen.is_gone());
        screen.say("nor this");
        screen.write();
        assert!(screen.is_idle());
    }

    #[test]
    fn the_null_device_and_nothing_else_is_blind() {
        let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
        assert!(Screen::new(Some(null.into())).is_blind());
        let (_reader, writer) = std::io::pipe().unwrap();
        assert!(!Screen::new(Some(writer.into())).is_blind());
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        assert!(!Screen::new(Some(full.into())).is_blind());
    }
}
