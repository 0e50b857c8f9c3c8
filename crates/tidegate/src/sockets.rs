//! `Sockets`: the listening sockets of a server, bound once and owned by the master.
//!
//! With `reuseport` there is one socket for each loop of each worker, or for its acceptor; otherwise, and always for Unix sockets and the admin pages, one
//! that all of them poll. Either way a socket outlives the workers that accept from it, so that what waits in its queue is
//! not lost with one of them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_sys::socket::{TcpOptions, buffer_sizes, listen_tcp_group, listen_unix, local_address};

use crate::config::Address;

/// The sockets of one listener.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) name: String,
    /// The real address, with the port that was taken for 0.
    pub(crate) address: String,
    pub(crate) sockets: Vec<Arc<OwnedFd>>,
    /// Whether all workers poll the same socket, and each connection is to wake one of them.
    pub(crate) shared: bool,
    /// The file of a Unix socket, removed in the end.
    path: Option<PathBuf>,
}

/// How a listener is to be bound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BindOptions {
    /// What a Unix socket has of it is the backlog.
    pub(crate) tcp: TcpOptions,
    /// One socket for each of so many slots, or a shared one.
    pub(crate) sharing: Share,
    /// How long an address that is taken is tried again.
    pub(crate) patience: Duration,
}

/// Who polls a listener's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// So many loops or acceptors, each its own.
    Each(usize),
    /// Everybody the same one, and a connection wakes one of them.
    One,
    /// Everybody the same one, and a connection wakes them all: for little traffic that a worker which was stopped right
    /// after it was woken must not hold up.
    All,
}

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener \"{name}\": cannot listen on {address}: {}", describe(.source))]
pub struct BindError {
    name: String,
    address: String,
    source: io::Error,
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the address is in use; another program, or another instance of this one, listens there"
                .to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; a port below 1024 needs the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    }
}

impl Bound {
    /// Binds a listener.
    pub(crate) fn bind(name: &str, address: &Address, options: BindOptions) -> Result<Self, BindError> {
        let fail = |source| BindError { name: name.to_owned(), address: address.to_string(), source };
        let until = Instant::now() + options.patience;
        loop {
            let bound = match address {
                Address::Tcp(address) => bind_tcp(name, *address, options),
                Address::Unix(path) => bind_unix(name, path, options),
            };
            match bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                    std::thread::sleep(TRY_AGAIN_AFTER);
                }
                other => return other.map_err(fail),
            }
        }
    }

    /// The socket that whoever is in slot `slot` accepts from, over all workers.
    pub(crate) fn for_slot(&self, slot: usize) -> &Arc<OwnedFd> {
        &self.sockets[slot % self.sockets.len()]
    }

    /// Removes the file of a Unix socket.
    pub(crate) fn remove_file(&self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "socket file not removed");
        }
    }
}

fn bind_tcp(name: &str, address: SocketAddr, options: BindOptions) -> io::Result<Bound> {
    let count = match options.sharing {
        Share::Each(slots) => slots.max(1),
        Share::One | Share::All => 1,
    };
    let sockets: Vec<_> = listen_tcp_group(address, &options.tcp, count)?.into_iter().map(Arc::new).collect();
    tell_capped_buffers(name, &sockets[0], &options.tcp)?;
    let real = local_address(&sockets[0])?;
    let shared = options.sharing == Share::One;
    Ok(Bound { name: name.to_owned(), address: real.to_string(), sockets, shared, path: None })
}

/// A size that the kernel caps is served, as others are by whoever set the cap, but not silently.
fn tell_capped_buffers(name: &str, socket: &OwnedFd, options: &TcpOptions) -> io::Result<()> {
    let (receive, send) = buffer_sizes(socket)?;
    for (key, asked, got, limit) in [
        ("receive_buffer", options.receive_buffer, receive, "net.core.rmem_max"),
        ("send_buffer", options.send_buffer, send, "net.core.wmem_max"),
    ] {
        // The kernel counts its own book-keeping in, and doubles what it is told (socket(7)).
        if let Some(asked) = asked.filter(|asked| got / 2 < *asked) {
            tracing::warn!(listener = name, key, asked, got = got / 2, limit, "the kernel caps a buffer");
        }
    }
    Ok(())
}

fn bind_unix(name: &str, path: &Path, options: BindOptions) -> io::Result<Bound> {
    let socket = listen_unix(path, options.tcp.backlog, UNIX_SOCKET_MODE)?;
    Ok(Bound {
        name: name.to_owned(),
        address: format!("unix:{}", path.display()),
        sockets: vec![Arc::new(socket)],
        shared: options.sharing != Share::All,
        path: Some(path.to_owned()),
    })
}

/// The real address of a socket that was bound to `configured`, perhaps with port 0.
pub(crate) fn real_address(configured: &Address, socket: &OwnedFd) -> String {
    local_address(socket).map_or_else(|_| configured.to_string(), |address| address.to_string())
}

/// How often a taken address is tried.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// The owner and the group may connect.
const UNIX_SOCKET_MODE: u32 = 0o660;

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(port: u16) -> Address {
        Address::Tcp(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn each_worker_has_a_socket_on_the_same_real_port() {
        let options =
            BindOptions { tcp: TcpOptions::default(), sharing: Share::Each(3), patience: Duration::ZERO };
        let bound = Bound::bind("web", &tcp(0), options).unwrap();
        assert_eq!(bound.sockets.len(), 3);
        for worker in 0..3 {
            assert_eq!(local_address(bound.for_slot(worker)).unwrap().to_string(), bound.address);
        }
    }

    #[test]
    fn a_taken_address_is_refused_and_named() {
        let options =
            BindOptions { tcp: TcpOptions::default(), sharing: Share::Each(2), patience: Duration::ZERO };
        let first = Bound::bind("web", &tcp(0), options).unwrap();
        let port = first.address.rsplit(':').next().unwrap().parse().unwrap();
        let error = Bound::bind("web", &tcp(port), options).unwrap_err().to_string();
        assert!(error.contains(&first.address) && error.contains("in use"), "{error}");
    }
}
