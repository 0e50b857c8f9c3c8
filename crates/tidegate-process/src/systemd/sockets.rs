//! Listening sockets that the service manager opened for us (socket activation, `sd_listen_fds(3)`).
//!
//! The one invariant: what stands here listens for streams or takes datagrams, does not block, and is closed at exec. Which listener of the
//! configuration a name means is decided elsewhere.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::ioctl_fionbio;
use rustix::net::{AddressFamily, SocketType, sockopt};
use tidegate_sys::process::{ActivationError, take_activated};

/// The sockets by their names (`FileDescriptorName=`), in the order of the manager. Several can have one name.
#[derive(Debug, Default)]
pub struct ActivatedSockets(Vec<(String, OwnedFd)>);

/// Why the sockets of the manager cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ActivatedError {
    /// They cannot be taken.
    #[error("sockets of the service manager")]
    Take(#[from] ActivationError),
    /// One is something else.
    #[error("{name:?} of the service manager is no socket to serve: {what}")]
    Kind {
        /// Its name.
        name: String,
        /// What it is, or is not.
        what: &'static str,
    },
    /// A call of the system failed.
    #[error("socket {name:?} of the service manager")]
    Io {
        /// Its name.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
}

impl ActivatedSockets {
    /// Takes what the manager opened for this very process; nothing when there is no manager. It can be done once.
    ///
    /// # Errors
    ///
    /// See [`ActivatedError`]; all of the sockets are closed then.
    pub fn take() -> Result<Self, ActivatedError> {
        let fds = take_activated()?;
        fds.into_iter().map(checked).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is none (left).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of those that are left, each as often as there are sockets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Takes out all sockets of that name, in their order.
    pub fn remove(&mut self, name: &str) -> Vec<OwnedFd> {
        self.0.extract_if(.., |(known, _)| known == name).map(|(_, socket)| socket).collect()
    }
}

fn checked((name, socket): (String, OwnedFd)) -> Result<(String, OwnedFd), ActivatedError> {
    match flaw_of(&socket) {
        Ok(None) => {}
        Ok(Some(what)) => return Err(ActivatedError::Kind { name, what }),
        Err(source) => return Err(ActivatedError::Io { name, source }),
    }
    match ioctl_fionbio(&socket, true) {
        Ok(()) => Ok((name, socket)),
        Err(error) => Err(ActivatedError::Io { name, source: error.into() }),
    }
}

/// What is wrong with it.
fn flaw_of(socket: &OwnedFd) -> io::Result<Option<&'static str>> {
    let kind = match sockopt::socket_type(socket) {
        Err(rustix::io::Errno::NOTSOCK) => return Ok(Some("not a socket")),
        other => other?,
    };
    if ![SocketType::STREAM, SocketType::DGRAM].contains(&kind) {
        return Ok(Some("neither of the type stream nor datagram"));
    }
    match sockopt::socket_domain(socket)? {
        AddressFamily::INET | AddressFamily::INET6 | AddressFamily::UNIX => {}
        _ => return Ok(Some("neither of the Internet nor Unix")),
    }
    if kind == SocketType::DGRAM {
        return Ok(None);
    }
    Ok((!sockopt::socket_acceptconn(socket)?).then_some("it does not listen; is Accept=no set?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn error_of(fd: impl Into<OwnedFd>) -> String {
        checked(("web".to_owned(), fd.into())).unwrap_err().to_string()
    }

    #[test]
    fn listening_and_datagram_sockets_are_taken_and_do_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(dir.path().join("socket")).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (_, udp) = checked(("udp".to_owned(), udp.into())).unwrap();
        assert_eq!(UdpSocket::from(udp).recv(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (_, tcp) = checked(("web".to_owned(), tcp.into())).unwrap();
        assert!(checked(("unix".to_owned(), unix.into())).is_ok());
        // It would wait for ever otherwise.
        assert_eq!(TcpListener::from(tcp).accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn everything_else_is_refused_with_its_name_and_kind() {
        let start = "\"web\" of the service manager is no socket to serve: ";
        assert_eq!(error_of(File::open("/dev/null").unwrap()), format!("{start}not a socket"));
        let packets = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        assert_eq!(error_of(packets), format!("{start}neither of the type stream nor datagram"));
        let connection = UnixStream::pair().unwrap().0;
        assert_eq!(error_of(connection), format!("{start}it does not listen; is Accept=no set?"));
    }

    #[test]
    fn names_may_stand_for_several() {
        let socket = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let named = |name: &str| (name.to_owned(), socket());
        let mut sockets = ActivatedSockets(vec![named("web"), named("gateway"), named("web")]);
        assert_eq!(sockets.remove("web").len(), 2);
        assert_eq!(sockets.names().collect::<Vec<_>>(), ["gateway"]);
        assert!(sockets.remove("web").is_empty() && !sockets.is_empty());
        assert_eq!(sockets.remove("gateway").len(), 1);
        assert!(sockets.is_empty());
    }
}
