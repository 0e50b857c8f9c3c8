//! Listening sockets: bound, made non-blocking, and ready to be inherited.
//!
//! `TCP_NODELAY` is set on the listener because Linux lets accepted sockets inherit it: one call at start in place of one
//! per connection. Nothing here accepts; that is the reactor's work.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt,
};

/// Whether several sockets may listen on one address and share what arrives (`SO_REUSEPORT`, socket(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// This socket alone.
    Exclusive,
    /// One of a group, one per worker.
    ReusePort,
}

/// Opens a non-blocking TCP socket that listens on `address`. Port 0 takes a free port: see [`local_address`].
///
/// # Errors
///
/// What socket(2), bind(2) or listen(2) answered: `AddrInUse` when somebody listens there already.
pub fn listen_tcp(address: SocketAddr, backlog: u32, sharing: Sharing) -> io::Result<OwnedFd> {
    let socket = bind_tcp(address, sharing)?;
    // tcp(7): an accepted socket inherits TCP_NODELAY from its listener.
    sockopt::set_tcp_nodelay(&socket, true)?;
    listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// Fails with `AddrInUse` when another program listens on `address`, even one that would let a `SO_REUSEPORT` socket of
/// the same user join it silently.
///
/// # Errors
///
/// What bind(2) answered.
pub fn probe_tcp(address: SocketAddr) -> io::Result<()> {
    bind_tcp(address, Sharing::Exclusive).map(drop)
}

fn bind_tcp(address: SocketAddr, sharing: Sharing) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // Without it, connections of a former instance in TIME_WAIT would keep the address for a minute.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if sharing == Sharing::ReusePort {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

/// Opens a non-blocking Unix stream socket that listens at `path`, with the permission bits `mode`.
///
/// A socket file that a dead process left behind is replaced; one on which somebody listens is not.
///
/// # Errors
///
/// `AddrInUse` when somebody listens at `path`, `AlreadyExists` when something stands there that is not a socket, and
/// what bind(2), chmod(2) or listen(2) answered.
pub fn listen_unix(path: &Path, backlog: u32, mode: u32) -> io::Result<OwnedFd> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is not a socket stands there",
            ));
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(Errno::ADDRINUSE.into()),
            // unix(7): a socket file without a listener refuses.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(e) => return Err(e),
        }
    }
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    listen(&socket, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}

/// The address a TCP socket is bound to.
///
/// # Errors
///
/// What getsockname(2) answered, or `InvalidInput` for a socket of another family.
pub fn local_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    let address = getsockname(socket)?;
    SocketAddr::try_from(address).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

/// Makes the next close of the socket a reset: queued bytes are thrown away and no TIME_WAIT is kept (`SO_LINGER`, socket(7)).
///
/// # Errors
///
/// What setsockopt(2) answered.
pub fn reset_on_close(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_linger(socket, Some(Duration::ZERO))?)
}

/// Takes the socket's pending error (`SO_ERROR`, socket(7)).
#[must_use]
pub fn take_error(socket: impl AsFd) -> Option<Errno> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(e)) | Err(e) => Some(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpStream};

    fn loopback(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[test]
    fn accepted_sockets_inherit_nodelay() {
        let socket = listen_tcp(loopback(0), 16, Sharing::Exclusive).unwrap();
        let _client = TcpStream::connect(local_address(&socket).unwrap()).unwrap();
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.nodelay().unwrap());
    }

    #[test]
    fn a_group_shares_a_port_and_a_probe_notices_it() {
        let first = listen_tcp(loopback(0), 16, Sharing::ReusePort).unwrap();
        let address = local_address(&first).unwrap();
        let _second = listen_tcp(address, 16, Sharing::ReusePort).unwrap();
        let error = probe_tcp(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(listen_unix(&path, 16, 0o600).unwrap());
        let _live = listen_unix(&path, 16, 0o600).unwrap();
        assert_eq!(listen_unix(&path, 16, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_file_in_the_place_of_a_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(listen_unix(&path, 16, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }
}
