//! `Target`: where a connection is to go.
//!
//! Addresses are numbers: a name is resolved by whoever has one, since that waits.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use crate::PeerAddress;

/// What an outgoing connection connects to.
///
/// ```
/// use tidegate_reactor::Target;
/// let target: Target = "[::1]:80".parse().unwrap();
/// assert_eq!(target.to_string(), "[::1]:80");
/// let target: Target = "unix:/run/app.sock".parse().unwrap();
/// assert!(matches!(target, Target::Unix(_)));
/// assert!("example.org:80".parse::<Target>().is_err(), "a name is not an address");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A TCP address.
    Inet(SocketAddr),
    /// The path of a Unix stream socket.
    Unix(Arc<Path>),
}

/// Text that names no [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no address: expected NUMBER:PORT as in 127.0.0.1:80, [NUMBER]:PORT as in [::1]:80, or unix:PATH"
)]
pub struct BadTarget(String);

impl Target {
    /// The peer, as a connection to this target has it.
    #[must_use]
    pub fn peer(&self) -> PeerAddress {
        match self {
            Self::Inet(address) => PeerAddress::Inet(*address),
            Self::Unix(_) => PeerAddress::Unix,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl From<&Path> for Target {
    fn from(path: &Path) -> Self {
        Self::Unix(path.into())
    }
}

impl From<PathBuf> for Target {
    fn from(path: PathBuf) -> Self {
        Self::Unix(path.into())
    }
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        match text.strip_prefix("unix:") {
            Some("") => Err(BadTarget(text.to_owned())),
            Some(path) => Ok(Path::new(path).into()),
            None => text.parse().map(Self::Inet).map_err(|_| BadTarget(text.to_owned())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Has a non-blocking socket connect. It is under way, or done already: either way the socket is writable when it is over.
pub(crate) fn begin_connect(socket: &impl std::os::fd::AsFd, target: &Target) -> Result<(), Errno> {
    loop {
        let begun = match target {
            Target::Inet(address) => rustix::net::connect(socket, address),
            Target::Unix(path) => {
                SocketAddrUnix::new(&**path).and_then(|at| rustix::net::connect(socket, &at))
            }
        };
        match begun {
            Ok(()) | Err(Errno::INPROGRESS) => return Ok(()),
            // connect(2): interrupted, it goes on by itself, and asking again says so.
            Err(Errno::INTR) => {}
            Err(Errno::ALREADY | Errno::ISCONN) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_shown_alike() {
        for text in ["127.0.0.1:80", "[::1]:65535", "unix:/run/a b.sock", "unix:relative"] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        for text in ["", "unix:", "localhost:80", "127.0.0.1", "127.0.0.1:65536", "::1:80", "udp:127.0.0.1:1"]
        {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_the_kernels_error() {
        let target = Target::from(PathBuf::from("x".repeat(200)));
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(begin_connect(&socket, &target), Err(Errno::NAMETOOLONG));
    }
}
