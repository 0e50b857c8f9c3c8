//! Sockets for datagrams: bound, made non-blocking, and asked for what this crate reads of their datagrams.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, socket_with, sockopt,
};

use super::Traits;
use crate::socket::local_address;

/// Sizes of the kernel's buffers of a socket for datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramOptions {
    /// Bytes of datagrams that wait to be received (`SO_RCVBUF`, socket(7)); `None`: `net.core.rmem_default`.
    pub receive_buffer: Option<usize>,
    /// Bytes of datagrams that wait to be sent (`SO_SNDBUF`); `None`: `net.core.wmem_default`.
    pub send_buffer: Option<usize>,
}

/// Opens `count` non-blocking UDP sockets that share `address` (`SO_REUSEPORT`, socket(7)), or one that does not when
/// `count` is 1. The kernel picks one of a group by the addresses of the datagram, so that a peer is with the same one
/// until the group changes. Port 0 takes a free port.
///
/// # Errors
///
/// What socket(2), bind(2) or setsockopt(2) answered: `AddrInUse` when somebody has the address.
pub fn bind_udp_group(
    address: SocketAddr,
    options: &DatagramOptions,
    count: usize,
) -> io::Result<Vec<OwnedFd>> {
    // The first binds without the option, or it would join the group of any other program of the user, silently.
    let first = open_udp(address, options)?;
    bind(&first, &address)?;
    let real = local_address(&first)?;
    let more = if count > 1 { join_udp_group(&first, options, count - 1)? } else { Vec::new() };
    more.iter().try_for_each(|socket| start_receiving(socket, real))?;
    Ok(std::iter::once(first).chain(more).collect())
}

/// Opens `count` more sockets for the group of one that is bound already. Nothing comes to them, and they can be closed
/// without a trace, until they [start receiving](start_receiving) at its address.
///
/// # Errors
///
/// What socket(2) or setsockopt(2) answered.
pub fn join_udp_group(first: &OwnedFd, options: &DatagramOptions, count: usize) -> io::Result<Vec<OwnedFd>> {
    let address = local_address(first)?;
    sockopt::set_socket_reuseport(first, true)?;
    let join = |_| {
        let socket = open_udp(address, options)?;
        sockopt::set_socket_reuseport(&socket, true)?;
        Ok(socket)
    };
    (0..count).map(join).collect()
}

/// Has a socket of a group receive its share of what comes to `address`, from now on. One that does so already stays as it
/// is.
///
/// # Errors
///
/// What bind(2) answered; `AddrInUse` when the group belongs to another user.
pub fn start_receiving(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    if local_address(socket)?.port() == 0 {
        bind(socket, &address)?;
    }
    Ok(())
}

fn open_udp(address: SocketAddr, options: &DatagramOptions) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    set_buffers(&socket, options)?;
    Ok(socket)
}

/// Gives a socket the sizes that `options` names; the others stay.
///
/// # Errors
///
/// What setsockopt(2) answered.
pub fn set_buffers(socket: &OwnedFd, options: &DatagramOptions) -> io::Result<()> {
    if let Some(bytes) = options.receive_buffer {
        sockopt::set_socket_recv_buffer_size(socket, bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        sockopt::set_socket_send_buffer_size(socket, bytes)?;
    }
    Ok(())
}

/// Opens a non-blocking Unix socket for datagrams, bound to `path`, with the permission bits `mode`. A socket file that a
/// dead process left behind is replaced; one that somebody has is not.
///
/// # Errors
///
/// `AddrInUse` when somebody has the path, `AlreadyExists` when something stands there that is not a socket, and what
/// bind(2) or chmod(2) answered.
pub fn bind_unix_datagrams(path: &Path, options: &DatagramOptions, mode: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let open = || socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None);
    let name = SocketAddrUnix::new(path)?;
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            let what = "a file that is not a socket stands there";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        match connect(open()?, &name) {
            // unix(7): the file of a socket that is closed refuses.
            Err(Errno::CONNREFUSED) => std::fs::remove_file(path)?,
            // PROTOTYPE: somebody has it, for connections.
            Ok(()) | Err(Errno::PROTOTYPE) => return Err(Errno::ADDRINUSE.into()),
            Err(errno) => return Err(errno.into()),
        }
    }
    let socket = open()?;
    set_buffers(&socket, options)?;
    bind(&socket, &name)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(socket)
}

/// Makes a socket fit for [`Inbound`](super::Inbound) and [`Outbound`](super::Outbound), whoever opened it: non-blocking;
/// one that is bound to every address of the machine says which of them a datagram came to; and datagrams of equal size
/// may come and go joined, where the kernel can do that.
///
/// # Errors
///
/// The kernel's, and `EPROTOTYPE` for a socket of another type.
pub fn prepare(socket: impl AsFd) -> Result<Traits, Errno> {
    if sockopt::socket_type(&socket)? != SocketType::DGRAM {
        return Err(Errno::PROTOTYPE);
    }
    rustix::io::ioctl_fionbio(&socket, true)?;
    let Ok(address) = SocketAddr::try_from(getsockname(&socket)?) else { return Ok(Traits::default()) };
    let is_any = address.ip().is_unspecified();
    if is_any {
        match address {
            SocketAddr::V4(_) => set_flag(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO)?,
            SocketAddr::V6(_) => set_flag(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?,
        }
    }
    // Kernels before 5.0, and protocols like it that have no segments, do without.
    let joined = set_flag(&socket, libc::SOL_UDP, libc::UDP_GRO).is_ok();
    Ok(Traits { control: is_any || joined, segments: joined })
}

/// Sets an option that is a number to 1.
fn set_flag(socket: &impl AsFd, level: i32, option: i32) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `len` bytes of a number that lives here.
    match unsafe { libc::setsockopt(fd, level, option, (&raw const on).cast(), len) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
