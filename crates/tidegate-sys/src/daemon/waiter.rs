//! The side of the starter: what the daemon says, until it is ready or has ended.
//!
//! The one invariant: it waits for the daemon alone. Children of the daemon that keep its standard error open hold nobody up.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use super::{DetachError, STEP_NAMES};

/// How a start in the background went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The daemon serves.
    Ready {
        /// Its process number.
        pid: u32,
    },
    /// The daemon has failed, and says with which exit code; it has ended.
    Failed(u8),
    /// The daemon has ended without a word.
    Died,
}

/// Waits in the process that was started by the user. See [`detach`](super::detach).
#[derive(Debug)]
pub struct Waiter {
    stderr: OwnedFd,
    status: OwnedFd,
}

impl Waiter {
    /// `stderr` does not block.
    pub(super) fn new(stderr: OwnedFd, status: OwnedFd) -> Self {
        Self { stderr, status }
    }

    /// Waits until the daemon is ready or has ended, and copies meanwhile what it writes to its standard error to `copy`,
    /// which is this process's own, as a rule. When that cannot be written the rest is dropped.
    ///
    /// It has no time-out: a start may take as long as it does. Who gives up waiting ends this process, and the daemon goes
    /// on by itself.
    ///
    /// # Errors
    ///
    /// [`DetachError::Io`] when the daemon could not be detached, or poll(2) or reading failed.
    pub fn wait(self, mut copy: impl Write) -> Result<Outcome, DetachError> {
        let step = |source: io::Error| DetachError::Io { step: "waiting for the daemon", source };
        let mut stream = Stream { fd: self.stderr, is_open: true, is_copied: true };
        let mut outcome = Outcome::Died;
        loop {
            wait_readable(&stream, &self.status).map_err(step)?;
            stream.copy(&mut copy).map_err(step)?;
            let mut message = [0; MESSAGE_BYTES];
            match recv(&self.status, &mut message, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => continue,
                // The other side is closed, perhaps with something that was sent to it unread.
                Ok((_, 0)) | Err(Errno::CONNRESET) => {}
                Ok(_) => match decode(message)? {
                    Outcome::Ready { pid } => outcome = Outcome::Ready { pid },
                    other => {
                        outcome = other;
                        continue;
                    }
                },
                Err(error) => return Err(step(error.into())),
            }
            // What was written before stands in the pipe by now.
            stream.copy(&mut copy).map_err(step)?;
            return Ok(outcome);
        }
    }
}

fn wait_readable(stream: &Stream, status: &OwnedFd) -> io::Result<()> {
    let mut fds = vec![PollFd::new(status, PollFlags::IN)];
    if stream.is_open {
        fds.push(PollFd::new(&stream.fd, PollFlags::IN));
    }
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The standard error of the daemon.
struct Stream {
    fd: OwnedFd,
    /// Whether anybody has its other end.
    is_open: bool,
    /// Whether it is still copied.
    is_copied: bool,
}

impl Stream {
    /// Copies what stands in the pipe, but no more than it can hold at once, so that a writer without end holds nobody up.
    fn copy(&mut self, copy: &mut impl Write) -> io::Result<()> {
        let mut buf = [0; 4096];
        for _ in 0..PIPE_BYTES / buf.len() {
            if !self.is_open {
                break;
            }
            match rustix::io::read(&self.fd, &mut buf) {
                Ok(0) => self.is_open = false,
                Ok(read) => {
                    let mut is_written = || copy.write_all(&buf[..read]).and_then(|()| copy.flush()).is_ok();
                    self.is_copied = self.is_copied && is_written();
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// One message: its kind and a number.
pub(super) fn encode(kind: u8, number: u32) -> [u8; MESSAGE_BYTES] {
    let [a, b, c, d] = number.to_ne_bytes();
    [kind, a, b, c, d]
}

fn decode([kind, a, b, c, d]: [u8; MESSAGE_BYTES]) -> Result<Outcome, DetachError> {
    let number = u32::from_ne_bytes([a, b, c, d]);
    match kind {
        READY => Ok(Outcome::Ready { pid: number }),
        FAILED => Ok(Outcome::Failed(u8::try_from(number).unwrap_or(u8::MAX))),
        step => {
            let step = STEP_NAMES.get(usize::from(step.wrapping_sub(FIRST_STEP))).copied();
            let source = io::Error::from_raw_os_error(number.cast_signed());
            Err(DetachError::Io { step: step.unwrap_or("an unknown step"), source })
        }
    }
}

pub(super) const READY: u8 = 1;
pub(super) const FAILED: u8 = 2;
/// From here on the kinds are the steps that failed, and the number is the error.
pub(super) const FIRST_STEP: u8 = 3;
const MESSAGE_BYTES: usize = 5;
/// What a pipe holds unless somebody asked for more (pipe(7)).
const PIPE_BYTES: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        assert_eq!(decode(encode(READY, 4_000_000)).unwrap(), Outcome::Ready { pid: 4_000_000 });
        assert_eq!(decode(encode(FAILED, 2)).unwrap(), Outcome::Failed(2));
        let error = decode(encode(FIRST_STEP + 1, 11)).unwrap_err();
        assert_eq!(error.to_string(), "detaching from the terminal: second fork");
        for kind in [0, 200, 255] {
            assert!(decode(encode(kind, 0)).is_err());
        }
    }

    #[test]
    fn a_copy_that_cannot_be_written_is_dropped() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (reader, mut writer) = io::pipe().unwrap();
        let mut stream = Stream { fd: reader.into(), is_open: true, is_copied: true };
        writer.write_all(b"text").unwrap();
        drop(writer);
        stream.copy(&mut Broken).unwrap();
        assert!(!stream.is_open && !stream.is_copied);
    }
}
