//! The address of a connection's peer, as accept(2) would have told it.

use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::net::SocketAddrAny;

/// `SO_PEERNAME` of asm-generic/socket.h: getpeername(2), but for the connections that have been reset meanwhile too.
const SO_PEERNAME: libc::c_int = 28;

/// The address of the peer of an accepted connection, whose operation could not tell it; `None` for what has no internet
/// address.
///
/// # Errors
///
/// What getsockopt(2) answered.
pub fn accepted_peer(socket: impl AsFd) -> Result<Option<SocketAddr>, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    // The kernel refuses to tell more bytes than the address has, so the shorter kind is asked for first.
    for len in [size_of::<libc::sockaddr_in>(), size_of::<libc::sockaddr_in6>()] {
        let mut len = libc::socklen_t::try_from(len).unwrap_or(0);
        // SAFETY: the kernel writes at most `len` bytes to `storage`, which has more, and how many to `len`.
        let answer = unsafe {
            libc::getsockopt(fd, libc::SOL_SOCKET, SO_PEERNAME, storage.as_mut_ptr().cast(), &raw mut len)
        };
        if answer != 0 {
            return match Errno::from_io_error(&std::io::Error::last_os_error()) {
                // The address of a Unix socket is shorter still.
                Some(Errno::INVAL) => Ok(None),
                errno => Err(errno.unwrap_or(Errno::IO)),
            };
        }
        // SAFETY: zeroes and what the kernel wrote are a valid storage.
        let family = i32::from(unsafe { storage.assume_init_ref() }.ss_family);
        let whole = match family {
            libc::AF_INET => true,
            libc::AF_INET6 => len as usize == size_of::<libc::sockaddr_in6>(),
            _ => return Ok(None),
        };
        if whole {
            // SAFETY: all of the storage is initialised, and `len` of its bytes are an address that the kernel wrote.
            let address = unsafe { SocketAddrAny::read(storage.as_ptr().cast(), len) };
            return Ok(SocketAddr::try_from(address).ok());
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    #[test]
    fn a_peer_is_known_even_after_its_reset() {
        known_after_reset(&TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        // A machine need not have the other protocol.
        if let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
            known_after_reset(&listener);
        }
    }

    fn known_after_reset(listener: &TcpListener) {
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let address = peer.local_addr().unwrap();
        let (socket, _) = listener.accept().unwrap();
        assert_eq!(accepted_peer(&socket), Ok(Some(address)));
        rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        poll(&mut [PollFd::new(&socket, PollFlags::empty())], None).unwrap();
        assert!(socket.peer_addr().is_err());
        assert_eq!(accepted_peer(&socket), Ok(Some(address)));
    }

    #[test]
    fn a_unix_peer_has_no_internet_address() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        assert_eq!(accepted_peer(&socket), Ok(None));
    }
}
