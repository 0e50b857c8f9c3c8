//! The client's connection to the log socket: sends lines, reads acknowledgements, and connects again.
//!
//! Nothing here blocks. What is in the outbox is on its way and no longer anybody else's concern; what becomes of it when
//! the connection ends is the queue's to know. See `wire.rs` for what is said.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use crate::Resource;
use crate::wire::{ACK_BYTES, Hello};

/// The connection, or the wait for the next.
#[derive(Debug)]
pub(crate) struct SocketLink {
    address: SocketAddrUnix,
    hello: Vec<u8>,
    fd: Option<OwnedFd>,
    /// Bytes to send, of which the first `sent` are in the kernel's hands.
    outbox: Vec<u8>,
    sent: usize,
    /// The beginning of an acknowledgement.
    ack: [u8; ACK_BYTES],
    ack_len: usize,
    retry_at: Instant,
    backoff: Duration,
}

/// What came of trying to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connected {
    Yes,
    /// There is somebody, or at least a socket, but it cannot be connected now.
    Later,
    /// Nobody listens there.
    Nobody,
}

/// The connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

impl SocketLink {
    /// # Errors
    ///
    /// The path is too long for a socket address.
    pub(crate) fn new(path: &Path, resource: &Resource) -> Result<Self, Errno> {
        Ok(Self {
            address: SocketAddrUnix::new(path)?,
            hello: Hello::line(resource),
            fd: None,
            outbox: Vec::new(),
            sent: 0,
            ack: [0; ACK_BYTES],
            ack_len: 0,
            retry_at: Instant::now(),
            backoff: FIRST_BACKOFF,
        })
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.fd.is_some()
    }

    /// When to try to connect, while there is no connection.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.fd.is_none().then_some(self.retry_at)
    }

    /// Connects, which succeeds or fails at once on a Unix socket, and says hello.
    pub(crate) fn connect(&mut self, now: Instant) -> Connected {
        match self.try_connect() {
            Ok(fd) => {
                self.fd = Some(fd);
                self.outbox.clear();
                self.outbox.extend_from_slice(&self.hello);
                self.sent = 0;
                self.ack_len = 0;
                Connected::Yes
            }
            Err(errno) => {
                self.put_off(now);
                let nobody = matches!(errno, Errno::NOENT | Errno::CONNREFUSED);
                if nobody { Connected::Nobody } else { Connected::Later }
            }
        }
    }

    fn try_connect(&self) -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&fd, &self.address)?;
        Ok(fd)
    }

    /// Ends the connection; what the outbox still holds goes with it.
    pub(crate) fn disconnect(&mut self, now: Instant) {
        if self.fd.take().is_some() {
            self.outbox.clear();
            self.sent = 0;
            self.put_off(now);
        }
    }

    fn put_off(&mut self, now: Instant) {
        self.retry_at = now + self.backoff;
        self.backoff = (self.backoff * 2).min(LAST_BACKOFF);
    }

    /// The outbox, when it may be filled.
    pub(crate) fn outbox(&mut self) -> Option<&mut Vec<u8>> {
        if self.fd.is_some() && self.outbox.is_empty() { Some(&mut self.outbox) } else { None }
    }

    /// Whether everything is in the kernel's hands.
    pub(crate) const fn is_idle(&self) -> bool {
        self.outbox.is_empty()
    }

    /// What to poll: always for input, and for output unless idle.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(|fd| fd.as_fd())
    }

    /// Sends what the kernel takes now.
    pub(crate) fn send(&mut self) -> Result<(), Ended> {
        let Some(fd) = &self.fd else { return Ok(()) };
        while self.sent < self.outbox.len() {
            match rustix::net::send(fd, &self.outbox[self.sent..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
            {
                Ok(bytes) => self.sent += bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Ended),
            }
        }
        self.outbox.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads acknowledgements, and returns the last one; there may be one even when the connection has ended since.
    pub(crate) fn receive(&mut self) -> (Option<u64>, Result<(), Ended>) {
        let mut last = None;
        let Some(fd) = &self.fd else { return (last, Ok(())) };
        loop {
            let mut block = [0; 64 * ACK_BYTES];
            let received = match rustix::net::recv(fd, &mut block[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return (last, Err(Ended)),
                Ok((bytes, _)) => bytes,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return (last, Ok(())),
                Err(_) => return (last, Err(Ended)),
            };
            for &byte in &block[..received] {
                self.ack[self.ack_len] = byte;
                self.ack_len += 1;
                if self.ack_len == ACK_BYTES {
                    last = Some(u64::from_be_bytes(self.ack));
                    self.ack_len = 0;
                    // It does its work, so the next interruption is the first.
                    self.backoff = FIRST_BACKOFF;
                }
            }
        }
    }
}

/// How long after an interruption the first attempt to connect again is made; doubled with each that fails.
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
/// The longest wait between two attempts.
const LAST_BACKOFF: Duration = Duration::from_secs(1);
