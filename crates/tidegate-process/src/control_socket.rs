//! The control socket: where `tidegate status` and its like ask the master.
//!
//! A request is one line of at most [`MAX_REQUEST_BYTES`] bytes; the answer is everything up to the end of the stream.
//! What the lines and the answers say is decided elsewhere.
//!
//! The one invariant: only the user of the master and root get through, by the mode of the file (0600) and by the
//! credentials of the peer.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, chmod};
use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{self, socket_peercred};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, getsockname,
    listen, socket_with,
};
use rustix::process::geteuid;

use crate::owned_path::OwnedPath;

/// A listening control socket; its file is removed when the process that listens drops it.
#[derive(Debug)]
pub struct ControlSocket {
    owned: OwnedPath,
    listener: OwnedFd,
}

/// Why the control socket cannot be had, or a request was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlSocketError {
    /// A process answers there.
    #[error("control socket {} is in use by process {pid}", .path.display())]
    InUse {
        /// Where.
        path: PathBuf,
        /// Who.
        pid: i32,
    },
    /// Something stands there that is not a socket, and is left alone.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket does not listen there (any more).
    #[error("control socket {} was removed or replaced", .0.display())]
    Replaced(PathBuf),
    /// The answer is longer than any that a master gives.
    #[error("the answer has more than {MAX_ANSWER_BYTES} bytes")]
    LongAnswer,
    /// A process has the socket, and does not answer: it is stopped, or very busy.
    #[error("nothing answers at {} within {timeout:?}: the server is stopped, or very busy", .path.display())]
    Timeout {
        /// Where.
        path: PathBuf,
        /// How long each step was waited for.
        timeout: Duration,
    },
    /// A request of more than one line, or too long a one.
    #[error("a request is one line of at most {MAX_REQUEST_BYTES} bytes")]
    BadRequest,
    /// A call of the system failed.
    #[error("control socket {}", .path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl ControlSocket {
    /// Listens at `path`. A file that a killed master left behind is replaced.
    ///
    /// # Errors
    ///
    /// See [`ControlSocketError`].
    pub fn bind(path: &Path) -> Result<Self, ControlSocketError> {
        remove_stale(path)?;
        let failed = |source| ControlSocketError::Io { path: path.to_owned(), source };
        Self::listen(path).map_err(failed)
    }

    fn listen(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        bind(&listener, &SocketAddrUnix::new(path)?)?;
        // Nobody can connect before the next call but one, so the mode is right from the beginning.
        chmod(path, Mode::RUSR | Mode::WUSR)?;
        listen(&listener, BACKLOG)?;
        Ok(Self { owned: OwnedPath::new(path, &fs::symlink_metadata(path)?), listener })
    }

    /// Goes on with a socket that an earlier program in this process has bound to `path`. Clients that wait are not lost.
    /// An error leaves the file as it is, and closes the descriptor.
    ///
    /// # Errors
    ///
    /// [`ControlSocketError::Replaced`] when it does not listen, or not there, or there is no socket any more; a new one
    /// can be bound then. [`ControlSocketError::Io`] otherwise.
    pub fn resume(path: &Path, listener: OwnedFd) -> Result<Self, ControlSocketError> {
        let failed = |source: io::Error| ControlSocketError::Io { path: path.to_owned(), source };
        let replaced = || ControlSocketError::Replaced(path.to_owned());
        let is_ours = sockopt::socket_acceptconn(&listener).is_ok_and(|listens| listens)
            && getsockname(&listener).is_ok_and(|address| is_bound_to(&address, path));
        if !is_ours {
            return Err(replaced());
        }
        let file = fs::symlink_metadata(path).map_err(|_| replaced())?;
        if !file.file_type().is_socket() {
            return Err(replaced());
        }
        ioctl_fionbio(&listener, true).map_err(|error| failed(error.into()))?;
        Ok(Self { owned: OwnedPath::new(path, &file), listener })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.owned.path()
    }

    /// What [`ControlSocket::resume`] needs after an exec. The file stays, since an exec runs no destructor.
    #[must_use]
    pub fn parts(&self) -> (&Path, BorrowedFd<'_>) {
        (self.owned.path(), self.listener.as_fd())
    }

    /// Gives it away, listening and not removed: for a program that cannot go on, and lets another one in this process do.
    #[must_use]
    pub fn into_parts(self) -> (PathBuf, OwnedFd) {
        (self.owned.leave(), self.listener)
    }

    /// The next client that may ask, with its pid; `None` when none waits. Others are turned away.
    pub(crate) fn accept(&self) -> io::Result<Option<(UnixStream, i32)>> {
        loop {
            let stream = match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => continue,
                other => other?,
            };
            let peer = socket_peercred(&stream)?;
            let pid = peer.pid.as_raw_nonzero().get();
            if peer.uid.is_root() || peer.uid == geteuid() {
                return Ok(Some((stream.into(), pid)));
            }
            tracing::warn!(peer_pid = pid, peer_uid = peer.uid.as_raw(), "control client turned away");
        }
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Asks the master at `path`, and returns its answer. Each step takes at most `timeout`, which is not zero.
///
/// ```no_run
/// use std::path::Path;
/// use std::time::Duration;
/// use tidegate_process::control_socket::request;
///
/// let answer = request(Path::new("/run/tidegate/control.sock"), b"reload", Duration::from_secs(120))?;
/// println!("{}", String::from_utf8_lossy(&answer));
/// # Ok::<(), tidegate_process::control_socket::ControlSocketError>(())
/// ```
///
/// # Errors
///
/// See [`ControlSocketError`]; `NotFound` and `ConnectionRefused` as the source mean that no master runs.
pub fn request(path: &Path, request: &[u8], timeout: Duration) -> Result<Vec<u8>, ControlSocketError> {
    if request.contains(&b'\n') || request.len() > MAX_REQUEST_BYTES {
        return Err(ControlSocketError::BadRequest);
    }
    let ask = || {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(&[request, b"\n"].concat())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER_BYTES + 1).read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|source: io::Error| match source.kind() {
        // What a time-out of a socket reads as (socket(7), `SO_RCVTIMEO`).
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            ControlSocketError::Timeout { path: path.to_owned(), timeout }
        }
        _ => ControlSocketError::Io { path: path.to_owned(), source },
    })?;
    if answer.len() as u64 > MAX_ANSWER_BYTES { Err(ControlSocketError::LongAnswer) } else { Ok(answer) }
}

fn is_bound_to(address: &SocketAddrAny, path: &Path) -> bool {
    let address = SocketAddrUnix::try_from(address.clone());
    address.is_ok_and(|address| address.path_bytes() == Some(path.as_os_str().as_bytes()))
}

/// Removes the socket of a master that is no more, and nothing else.
fn remove_stale(path: &Path) -> Result<(), ControlSocketError> {
    let failed = |source| ControlSocketError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(ControlSocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let pid = socket_peercred(&stream).map_or(0, |peer| peer.pid.as_raw_nonzero().get());
            Err(ControlSocketError::InUse { path: path.to_owned(), pid })
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The longest request, in bytes without the end of its line.
pub const MAX_REQUEST_BYTES: usize = 4096;
/// The longest answer that a client takes, in bytes.
pub const MAX_ANSWER_BYTES: u64 = 64 << 20;
const BACKLOG: i32 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_for_its_user_alone_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(socket.accept().unwrap().is_none());
        let client = UnixStream::connect(&path).unwrap();
        let (_stream, pid) = socket.accept().unwrap().unwrap();
        assert_eq!(u32::try_from(pid).unwrap(), std::process::id());
        drop((socket, client));
        assert!(!path.exists());
    }

    #[test]
    fn one_in_use_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _socket = ControlSocket::bind(&path).unwrap();
        let error = ControlSocket::bind(&path).unwrap_err();
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(error, ControlSocketError::InUse { pid: holder, .. } if holder == pid), "{error:?}");
    }

    #[test]
    fn it_goes_on_in_the_next_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let (same_path, fd) = socket.into_parts();
        assert_eq!(same_path, path);
        let socket = ControlSocket::resume(&path, fd).unwrap();
        assert_eq!(socket.parts().0, path);
        assert!(socket.accept().unwrap().is_some(), "who waited is there");
        assert!(socket.accept().unwrap().is_none(), "and it does not block");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn what_does_not_listen_there_is_not_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("control.sock"), dir.path().join("other.sock"));
        let socket = ControlSocket::bind(&path).unwrap();
        let _other = ControlSocket::bind(&other).unwrap();
        let copy = || socket.parts().1.try_clone_to_owned().unwrap();
        let is_refused = |path: &Path, fd: OwnedFd| {
            matches!(ControlSocket::resume(path, fd), Err(ControlSocketError::Replaced(_)))
        };
        assert!(is_refused(&other, copy()));
        assert!(is_refused(&path, UnixStream::connect(&path).unwrap().into()));
        assert!(is_refused(&path, fs::File::open("/dev/null").unwrap().into()));
        fs::remove_file(&path).unwrap();
        assert!(is_refused(&path, copy()));
        fs::write(&path, "").unwrap();
        assert!(is_refused(&path, copy()));
        assert!(path.exists() && other.exists());
    }

    #[test]
    fn a_stale_one_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(ControlSocket::bind(&path).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(ControlSocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_long_path_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(200));
        assert!(matches!(ControlSocket::bind(&path), Err(ControlSocketError::Io { .. })));
    }

    #[test]
    fn a_master_that_does_not_answer_is_said_to_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _socket = ControlSocket::bind(&path).unwrap();
        let error = request(&path, b"status", Duration::from_millis(10)).unwrap_err();
        assert!(matches!(error, ControlSocketError::Timeout { .. }), "{error:?}");
        assert!(error.to_string().ends_with("within 10ms: the server is stopped, or very busy"), "{error}");
    }

    #[test]
    fn requests_are_one_line() {
        for bad in [&b"two\nlines"[..], &[b'x'; MAX_REQUEST_BYTES + 1]] {
            let result = request(Path::new("/nonexistent"), bad, Duration::from_secs(1));
            assert!(matches!(result, Err(ControlSocketError::BadRequest)));
        }
    }
}
