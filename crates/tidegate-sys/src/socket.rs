//! Listening sockets: bound, made non-blocking, and ready to be inherited; and sockets to connect with.
//!
//! Options of connections are set on the listener, because Linux lets accepted sockets inherit them: a few calls at start in
//! place of as many per connection. Nothing here accepts or connects; that is the reactor's work.

mod late_port;
mod unsent;

use std::io;
use std::net::{IpAddr, SocketAddr};
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

/// How a TCP socket listens, and what its connections inherit from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Connections that wait to be accepted, see listen(2).
    pub backlog: u32,
    /// Whether what is written leaves at once (`TCP_NODELAY`, tcp(7)).
    pub nodelay: bool,
    /// How long a connection is silent until the kernel asks whether its peer is there; `None`: it never does.
    pub keepalive: Option<Keepalive>,
    /// How long what was sent, or a probe, may stay unacknowledged, or the peer's window shut, before the connection is given up
    /// (`TCP_USER_TIMEOUT`, tcp(7)), in whole milliseconds; `None`: as long as the kernel tries, which is about a quarter of an hour.
    pub user_timeout: Option<Duration>,
    /// Whether every close is a reset (`SO_LINGER` with a time of 0, socket(7)).
    pub reset_on_close: bool,
    /// Bytes of the kernel's receive buffer (`SO_RCVBUF`, socket(7)); `None`: the kernel sizes it as needed.
    pub receive_buffer: Option<usize>,
    /// Bytes of the kernel's send buffer (`SO_SNDBUF`); `None`: the kernel sizes it as needed.
    pub send_buffer: Option<usize>,
    /// The kernel takes no more while so many bytes wait to be sent for the first time (`TCP_NOTSENT_LOWAT`, tcp(7)), however
    /// large the buffer is: what a peer that does not read costs. `None`: as `net.ipv4.tcp_notsent_lowat` says.
    pub max_unsent: Option<u32>,
}

/// Probes of a silent connection (`SO_KEEPALIVE`, tcp(7)), in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe (`TCP_KEEPIDLE`), 1 to 32,767 s.
    pub idle: Duration,
    /// Time between probes (`TCP_KEEPINTVL`), 1 to 32,767 s.
    pub interval: Duration,
    /// Probes without an answer, after which the connection is given up (`TCP_KEEPCNT`), 1 to 127.
    pub count: u32,
}

impl Default for TcpOptions {
    /// Without delay, and everything else as the kernel has it.
    fn default() -> Self {
        Self {
            backlog: 4096,
            nodelay: true,
            keepalive: None,
            user_timeout: None,
            reset_on_close: false,
            receive_buffer: None,
            send_buffer: None,
            max_unsent: None,
        }
    }
}

/// Opens a non-blocking TCP socket that listens on `address`. Port 0 takes a free port: see [`local_address`].
///
/// # Errors
///
/// What socket(2), bind(2), setsockopt(2) or listen(2) answered: `AddrInUse` when somebody listens there already.
pub fn listen_tcp(address: SocketAddr, options: &TcpOptions, sharing: Sharing) -> io::Result<OwnedFd> {
    let socket = bind_tcp(address, sharing)?;
    set_inherited(&socket, options)?;
    start_listening(&socket, options)?;
    Ok(socket)
}

/// Has a bound socket listen: from now on connections are queued in it.
///
/// # Errors
///
/// What listen(2) answered.
pub fn start_listening(socket: impl AsFd, options: &TcpOptions) -> io::Result<()> {
    Ok(listen(socket, i32::try_from(options.backlog).unwrap_or(i32::MAX))?)
}

/// Sets what accepted sockets inherit. The buffers have to be known before listen(2), since the window is announced in the
/// handshake (tcp(7)).
fn set_inherited(socket: &OwnedFd, options: &TcpOptions) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, options.nodelay)?;
    if let Some(keepalive) = options.keepalive {
        sockopt::set_tcp_keepidle(socket, keepalive.idle)?;
        sockopt::set_tcp_keepintvl(socket, keepalive.interval)?;
        sockopt::set_tcp_keepcnt(socket, keepalive.count)?;
        sockopt::set_socket_keepalive(socket, true)?;
    }
    let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1);
    // 0 is what the kernel does by itself.
    sockopt::set_tcp_user_timeout(socket, options.user_timeout.map_or(0, ms))?;
    unsent::set(socket, options.max_unsent.unwrap_or(0))?;
    if options.reset_on_close {
        reset_on_close(socket)?;
    }
    if let Some(bytes) = options.receive_buffer {
        sockopt::set_socket_recv_buffer_size(socket, bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        sockopt::set_socket_send_buffer_size(socket, bytes)?;
    }
    Ok(())
}

/// Gives a socket that listens already other options: its connections have them from the next one on. The size of a buffer
/// that was set once stays unless another one is asked for, since the kernel does not take it up again.
///
/// # Errors
///
/// What setsockopt(2) or listen(2) answered.
pub fn change_options(socket: &OwnedFd, options: &TcpOptions) -> io::Result<()> {
    sockopt::set_socket_keepalive(socket, false)?;
    sockopt::set_socket_linger(socket, None)?;
    set_inherited(socket, options)?;
    // Of a socket that listens it changes the backlog.
    start_listening(socket, options)
}

/// What the kernel made of the sizes that were asked for: the bytes of the receive and of the send buffer. It doubles what
/// was set, for its own book-keeping, and caps it at `net.core.rmem_max` and `net.core.wmem_max` (socket(7)).
///
/// # Errors
///
/// What getsockopt(2) answered.
pub fn buffer_sizes(socket: impl AsFd) -> io::Result<(usize, usize)> {
    Ok((sockopt::socket_recv_buffer_size(&socket)?, sockopt::socket_send_buffer_size(&socket)?))
}

/// Opens `count` sockets that share `address` (`SO_REUSEPORT`), or one that does not when `count` is 1.
///
/// With that option a socket would join those of any other program of the same user, silently, and take a part of their
/// connections. So the first one binds and listens without it, which fails where somebody listens, and only then lets the
/// others join.
///
/// # Errors
///
/// As [`listen_tcp`].
pub fn listen_tcp_group(address: SocketAddr, options: &TcpOptions, count: usize) -> io::Result<Vec<OwnedFd>> {
    let first = listen_tcp(address, options, Sharing::Exclusive)?;
    let real = local_address(&first)?;
    if count > 1 {
        sockopt::set_socket_reuseport(&first, true)?;
    }
    let mut group = vec![first];
    for _ in 1..count {
        group.push(listen_tcp(real, options, Sharing::ReusePort)?);
    }
    Ok(group)
}

/// Opens `count` more sockets beside one that listens already. Nothing comes to them, and they can be closed without a trace,
/// until they [listen](start_listening): closing one that listens would reset what it has queued.
///
/// # Errors
///
/// What socket(2), bind(2) or setsockopt(2) answered; `AddrInUse` when the first one belongs to another user.
pub fn join_tcp_group(first: &OwnedFd, options: &TcpOptions, count: usize) -> io::Result<Vec<OwnedFd>> {
    let address = local_address(first)?;
    sockopt::set_socket_reuseport(first, true)?;
    let join = |_| {
        let socket = bind_tcp(address, Sharing::ReusePort)?;
        set_inherited(&socket, options)?;
        Ok(socket)
    };
    (0..count).map(join).collect()
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

/// Opens a non-blocking TCP socket to connect to `to` with, without delay (`TCP_NODELAY`). With `from`, it comes from this
/// address of the machine; its port is chosen when it connects, so that one port serves many targets
/// (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
///
/// # Errors
///
/// What socket(2), setsockopt(2) or bind(2) answered: `AddrNotAvailable` when the machine has no such address,
/// `InvalidInput` when `from` is of another family than `to`.
pub fn outgoing_tcp(to: SocketAddr, from: Option<IpAddr>) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    if let Some(from) = from {
        if from.is_ipv4() != to.is_ipv4() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{to} cannot be reached from {from}, which is of another family"),
            ));
        }
        late_port::set(&socket)?;
        bind(&socket, &SocketAddr::new(from, 0))?;
    }
    Ok(socket)
}

/// Opens a non-blocking Unix stream socket to connect with.
///
/// # Errors
///
/// What socket(2) answered.
pub fn outgoing_unix() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
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

    const PLAIN: TcpOptions = TcpOptions {
        backlog: 16,
        nodelay: true,
        keepalive: None,
        user_timeout: None,
        reset_on_close: false,
        receive_buffer: None,
        send_buffer: None,
        max_unsent: None,
    };

    /// The client's and the server's end of a connection to a listener with these options.
    fn accepted(options: &TcpOptions) -> (TcpStream, TcpStream) {
        let socket = listen_tcp(loopback(0), options, Sharing::Exclusive).unwrap();
        let client = TcpStream::connect(local_address(&socket).unwrap()).unwrap();
        let listener = std::net::TcpListener::from(socket);
        listener.set_nonblocking(false).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn without_options_connections_are_without_delay_and_the_rest_is_the_kernels() {
        let (_client, accepted) = accepted(&PLAIN);
        assert!(accepted.nodelay().unwrap());
        assert!(!sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_user_timeout(&accepted).unwrap(), 0);
        assert_eq!(sockopt::socket_linger(&accepted).unwrap(), None);
    }

    #[test]
    fn accepted_sockets_inherit_every_option() {
        let seconds = Duration::from_secs;
        let keepalive = Keepalive { idle: seconds(90), interval: seconds(7), count: 3 };
        let (_client, accepted) = accepted(&TcpOptions {
            nodelay: false,
            keepalive: Some(keepalive),
            user_timeout: Some(Duration::from_millis(45_678)),
            reset_on_close: true,
            receive_buffer: Some(40_000),
            send_buffer: Some(50_000),
            max_unsent: Some(123_456),
            ..PLAIN
        });
        assert!(!accepted.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), keepalive.idle);
        assert_eq!(sockopt::tcp_keepintvl(&accepted).unwrap(), keepalive.interval);
        assert_eq!(sockopt::tcp_keepcnt(&accepted).unwrap(), keepalive.count);
        assert_eq!(sockopt::tcp_user_timeout(&accepted).unwrap(), 45_678);
        assert_eq!(sockopt::socket_linger(&accepted).unwrap(), Some(Duration::ZERO));
        assert_eq!(buffer_sizes(&accepted).unwrap(), (80_000, 100_000));
        assert_eq!(unsent::get(&accepted).unwrap(), 123_456);
    }

    #[test]
    fn a_close_with_that_option_is_a_reset() {
        use std::io::Read;
        let (mut client, accepted) = accepted(&TcpOptions { reset_on_close: true, ..PLAIN });
        drop(accepted);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_group_shares_a_port_and_nobody_else_joins() {
        let group = listen_tcp_group(loopback(0), &PLAIN, 3).unwrap();
        let address = local_address(&group[0]).unwrap();
        assert!(group.iter().all(|socket| local_address(socket).unwrap() == address));
        for count in [1, 3] {
            let error = listen_tcp_group(address, &PLAIN, count).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn every_socket_of_a_group_gets_connections() {
        let group = listen_tcp_group(loopback(0), &TcpOptions { backlog: 256, ..PLAIN }, 2).unwrap();
        let address = local_address(&group[0]).unwrap();
        let clients: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
        let accepted: Vec<usize> = group
            .into_iter()
            .map(|socket| std::net::TcpListener::from(socket).incoming().take_while(Result::is_ok).count())
            .collect();
        assert_eq!(accepted.iter().sum::<usize>(), clients.len());
        assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
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
