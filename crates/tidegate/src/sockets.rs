//! `Sockets`: the listening sockets of a server, bound once and owned by the master for good.
//!
//! With `reuseport` there is one socket for each slot: each loop of each worker, or its acceptor. Otherwise, and always for
//! Unix sockets and the admin pages, there is one that all of them poll. A socket outlives the workers that accept from it,
//! so that what waits in its queue is not lost with one of them; and a listener never has fewer sockets than before, since
//! closing one of a group resets what it has queued. So a slot may have several, and when there are more slots than
//! sockets the group grows.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use serde::{Deserialize, Serialize};
use tidegate_sys::datagram::{
    bind_udp_group, bind_unix_datagrams, join_udp_group, set_buffers, start_receiving,
};
use tidegate_sys::socket::{
    TcpOptions, buffer_sizes, change_options, join_tcp_group, listen_tcp_group, listen_unix, local_address,
    start_listening,
};

use crate::ListenOptions;
use crate::config::Address;
use crate::holder::Holder;

/// The sockets of one listener.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) name: String,
    /// As the configuration says it; by it a listener is known over a reload.
    pub(crate) configured: Address,
    /// The real address, with the port that was taken for 0.
    pub(crate) address: String,
    pub(crate) sockets: Vec<Arc<OwnedFd>>,
    pub(crate) sharing: Share,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Share {
    /// So many loops or acceptors, each its own.
    Each(usize),
    /// Everybody the same ones, and a connection wakes one of them.
    One,
    /// Everybody the same ones, and a connection wakes them all: for little traffic that a worker which was stopped right
    /// after it was woken must not hold up.
    All,
}

/// A listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener \"{name}\": cannot listen on {address}: {}", describe(.error, .holder.as_ref()))]
pub struct BindError {
    name: String,
    address: String,
    /// Told as a part of the text, often in other words, and so not once more as its source.
    error: io::Error,
    /// Who has the address, when it is taken and that can be told.
    holder: Option<Holder>,
}

impl BindError {
    fn new(name: &str, address: &Address, error: io::Error) -> Self {
        let is_taken = error.kind() == io::ErrorKind::AddrInUse;
        let holder = match address {
            Address::Tcp(address) if is_taken => Holder::of_tcp(*address),
            Address::Unix(path) if is_taken => Holder::of_unix(path),
            Address::Udp(address) if is_taken => Holder::of_udp(*address),
            _ => None,
        };
        Self { name: name.to_owned(), address: address.to_string(), error, holder }
    }
}

fn describe(error: &io::Error, holder: Option<&Holder>) -> String {
    match (error.kind(), holder) {
        (io::ErrorKind::AddrInUse, Some(holder)) => format!("the address is in use {holder}"),
        (io::ErrorKind::AddrInUse, None) => {
            "the address is in use; another program, or another instance of this one, listens there"
                .to_owned()
        }
        (io::ErrorKind::AddrNotAvailable, _) => "this machine has no such address".to_owned(),
        (io::ErrorKind::PermissionDenied, _) => {
            "permission denied; a port below 1024 needs the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    }
}

impl Bound {
    /// Binds a listener.
    pub(crate) fn bind(name: &str, address: &Address, options: BindOptions) -> Result<Self, BindError> {
        let until = Instant::now() + options.patience;
        loop {
            let bound = match address {
                Address::Tcp(address) => bind_tcp(name, *address, options),
                Address::Udp(address) => bind_udp(name, *address, options),
                Address::Unix(path) | Address::Unixgram(path) => bind_unix(name, address, path, options),
            };
            match bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                    std::thread::sleep(TRY_AGAIN_AFTER);
                }
                other => return other.map_err(|error| BindError::new(name, address, error)),
            }
        }
    }

    /// Takes over sockets that somebody else has opened for the listener; at least one.
    ///
    /// # Errors
    ///
    /// That one is for datagrams and the listener for connections, or the other way round.
    pub(crate) fn adopt(
        name: &str,
        configured: &Address,
        sockets: Vec<OwnedFd>,
        sharing: Share,
    ) -> Result<Self, BindError> {
        let fits = |socket: &OwnedFd| {
            socket_type(socket).is_ok_and(|it| (it == SocketType::DGRAM) == configured.is_datagram())
        };
        if !sockets.iter().all(fits) {
            let what = "the socket that was handed over is of another type (stream or datagram)";
            let error = io::Error::new(io::ErrorKind::InvalidInput, what);
            return Err(BindError::new(name, configured, error));
        }
        let address = real_address(configured, &sockets[0]);
        let sharing = match configured {
            Address::Unix(_) | Address::Unixgram(_) => sharing.shared(),
            // Of fewer than there are slots all serve all: whether more can join is not ours to say.
            Address::Tcp(_) | Address::Udp(_) if matches!(sharing, Share::Each(slots) if slots > sockets.len()) => {
                Share::One
            }
            Address::Tcp(_) | Address::Udp(_) => sharing,
        };
        let sockets = sockets.into_iter().map(Arc::new).collect();
        let (name, configured) = (name.to_owned(), configured.clone());
        Ok(Self { name, configured, address, sockets, sharing, path: None })
    }

    /// The same listener for another generation, which may call it otherwise, and need more sockets than there are: those
    /// that were added are the last ones, and do not listen yet.
    pub(crate) fn next(&self, name: &str, options: BindOptions) -> Result<Self, BindError> {
        let mut next = Self { name: name.to_owned(), ..self.clone() };
        next.sharing = match &self.configured {
            Address::Unix(_) | Address::Unixgram(_) => options.sharing.shared(),
            Address::Tcp(_) | Address::Udp(_) => options.sharing,
        };
        if let Share::Each(slots) = next.sharing
            && slots > self.sockets.len()
        {
            let missing = slots - self.sockets.len();
            let added = match self.configured {
                Address::Udp(_) => {
                    let options = ListenOptions::of_datagrams(&options.tcp);
                    join_udp_group(&self.sockets[0], &options, missing)
                }
                _ => join_tcp_group(&self.sockets[0], &options.tcp, missing),
            };
            let added = added.map_err(|source| BindError::new(name, &self.configured, source))?;
            next.sockets.extend(added.into_iter().map(Arc::new));
        }
        Ok(next)
    }

    /// Has a socket that was [added](Self::next) get its share of what comes.
    pub(crate) fn start(&self, socket: &OwnedFd, options: &TcpOptions) -> io::Result<()> {
        match self.configured {
            Address::Udp(_) => start_receiving(socket, local_address(&self.sockets[0])?),
            _ => start_listening(socket, options),
        }
    }

    /// Gives all sockets, which listen already, the options of the generation that serves now.
    pub(crate) fn change_options(&self, options: &TcpOptions) {
        let change = |socket: &Arc<OwnedFd>| match self.configured {
            Address::Tcp(_) => change_options(socket, options),
            Address::Unix(_) => start_listening(socket, options),
            Address::Udp(_) | Address::Unixgram(_) => {
                set_buffers(socket, &ListenOptions::of_datagrams(options))
            }
        };
        if let Some(error) = self.sockets.iter().find_map(|socket| change(socket).err()) {
            tracing::warn!(listener = self.name, %error, "options of the listener are not changed");
        }
    }

    /// Whether this is the listener with that configured address. One whose port the kernel has chosen is known by its
    /// name, too.
    pub(crate) fn is(&self, name: &str, configured: &Address) -> bool {
        let is_chosen =
            matches!(configured, Address::Tcp(address) | Address::Udp(address) if address.port() == 0);
        self.configured == *configured && (!is_chosen || self.name == name)
    }

    /// The sockets that whoever is in slot `slot`, over all workers, accepts from.
    pub(crate) fn for_slot(&self, slot: usize) -> impl Iterator<Item = (usize, &Arc<OwnedFd>)> {
        let sharing = self.sharing;
        let is_its = move |number: usize| match sharing {
            Share::Each(slots) => number % slots.max(1) == slot,
            Share::One | Share::All => true,
        };
        self.sockets.iter().enumerate().filter(move |(number, _)| is_its(*number))
    }

    /// Whether all poll the same sockets, and each connection is to wake one of them.
    pub(crate) fn is_shared(&self) -> bool {
        self.sharing == Share::One
    }

    /// What is to be known of it by another image of this process; the sockets go their own way.
    pub(crate) fn parts(&self) -> BoundParts {
        let Self { name, configured, address, sharing, path, .. } = self.clone();
        BoundParts { name, configured, address, sharing, path }
    }

    pub(crate) fn of_parts(parts: BoundParts, sockets: Vec<Arc<OwnedFd>>) -> Self {
        let BoundParts { name, configured, address, sharing, path } = parts;
        Self { name, configured, address, sockets, sharing, path }
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

impl BindError {
    /// The listener that could not be bound.
    pub(crate) fn listener(&self) -> &str {
        &self.name
    }
}

impl Share {
    /// What a Unix socket, which has no groups, makes of it.
    fn shared(self) -> Self {
        if self == Self::All { self } else { Self::One }
    }
}

/// A listener without its sockets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BoundParts {
    name: String,
    configured: Address,
    address: String,
    sharing: Share,
    path: Option<PathBuf>,
}

fn bind_tcp(name: &str, address: SocketAddr, options: BindOptions) -> io::Result<Bound> {
    let count = match options.sharing {
        Share::Each(slots) => slots.max(1),
        Share::One | Share::All => 1,
    };
    let sockets: Vec<_> = listen_tcp_group(address, &options.tcp, count)?.into_iter().map(Arc::new).collect();
    tell_capped_buffers(name, &sockets[0], &options.tcp)?;
    let real = local_address(&sockets[0])?;
    Ok(Bound {
        name: name.to_owned(),
        configured: Address::Tcp(address),
        address: real.to_string(),
        sockets,
        sharing: options.sharing,
        path: None,
    })
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

fn bind_udp(name: &str, address: SocketAddr, options: BindOptions) -> io::Result<Bound> {
    let count = match options.sharing {
        Share::Each(slots) => slots.max(1),
        Share::One | Share::All => 1,
    };
    let group = bind_udp_group(address, &ListenOptions::of_datagrams(&options.tcp), count)?;
    let sockets: Vec<_> = group.into_iter().map(Arc::new).collect();
    tell_capped_buffers(name, &sockets[0], &options.tcp)?;
    let real = local_address(&sockets[0])?;
    Ok(Bound {
        name: name.to_owned(),
        configured: Address::Udp(address),
        address: Address::Udp(real).to_string(),
        sockets,
        sharing: options.sharing,
        path: None,
    })
}

fn bind_unix(name: &str, address: &Address, path: &Path, options: BindOptions) -> io::Result<Bound> {
    let socket = if address.is_datagram() {
        bind_unix_datagrams(path, &ListenOptions::of_datagrams(&options.tcp), UNIX_SOCKET_MODE)?
    } else {
        listen_unix(path, options.tcp.backlog, UNIX_SOCKET_MODE)?
    };
    Ok(Bound {
        name: name.to_owned(),
        configured: address.clone(),
        address: address.to_string(),
        sockets: vec![Arc::new(socket)],
        sharing: options.sharing.shared(),
        path: Some(path.to_owned()),
    })
}

/// The real address of a socket that was bound to `configured`, perhaps with port 0.
pub(crate) fn real_address(configured: &Address, socket: &OwnedFd) -> String {
    let Ok(address) = local_address(socket) else { return configured.to_string() };
    match configured {
        Address::Udp(_) => Address::Udp(address).to_string(),
        _ => address.to_string(),
    }
}

/// How often a taken address is tried.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// The owner and the group may connect.
const UNIX_SOCKET_MODE: u32 = 0o660;

#[cfg(test)]
mod tests {
    use tidegate_sys::socket::Keepalive;

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
            let own: Vec<_> = bound.for_slot(worker).collect();
            assert_eq!((own.len(), own[0].0), (1, worker));
            assert_eq!(local_address(own[0].1).unwrap().to_string(), bound.address);
        }
    }

    #[test]
    fn over_a_reload_sockets_are_kept_and_become_more_but_never_fewer() {
        let options = |sharing| BindOptions { tcp: TcpOptions::default(), sharing, patience: Duration::ZERO };
        let numbers =
            |bound: &Bound, slot| bound.for_slot(slot).map(|(number, _)| number).collect::<Vec<_>>();
        let one = Bound::bind("web", &tcp(0), options(Share::One)).unwrap();
        let three = one.next("web", options(Share::Each(3))).unwrap();
        assert!(Arc::ptr_eq(&one.sockets[0], &three.sockets[0]));
        assert_eq!([0, 1, 2].map(|slot| numbers(&three, slot)), [[0], [1], [2]]);
        assert!(three.sockets.iter().all(|it| local_address(&**it).unwrap().to_string() == one.address));
        let two = three.next("web", options(Share::Each(2))).unwrap();
        assert_eq!((numbers(&two, 0), numbers(&two, 1)), (vec![0, 2], vec![1]));
        let shared = two.next("web", options(Share::One)).unwrap();
        assert_eq!(numbers(&shared, 5), [0, 1, 2]);
    }

    #[test]
    fn options_are_changed_on_sockets_that_listen() {
        use rustix::net::sockopt::{socket_acceptconn, socket_keepalive, tcp_keepidle};
        let (tcp_address, mut tcp) = (tcp(0), TcpOptions::default());
        let options = BindOptions { tcp, sharing: Share::Each(2), patience: Duration::ZERO };
        let bound = Bound::bind("web", &tcp_address, options).unwrap();
        let idle = Duration::from_secs(77);
        for keepalive in [Some(Keepalive { idle, interval: idle, count: 3 }), None] {
            tcp.keepalive = keepalive;
            bound.change_options(&tcp);
            for socket in &bound.sockets {
                assert_eq!(socket_keepalive(socket).unwrap(), keepalive.is_some());
                assert_eq!(tcp_keepidle(socket).unwrap(), idle, "as it was set last");
                assert!(socket_acceptconn(socket).unwrap());
            }
        }
    }

    #[test]
    fn a_taken_address_is_refused_and_named() {
        let options =
            BindOptions { tcp: TcpOptions::default(), sharing: Share::Each(2), patience: Duration::ZERO };
        let first = Bound::bind("web", &tcp(0), options).unwrap();
        let port = first.address.rsplit(':').next().unwrap().parse().unwrap();
        let error = Bound::bind("web", &tcp(port), options).unwrap_err().to_string();
        assert!(error.contains(&first.address), "{error}");
        assert!(
            error.ends_with("the address is in use by this server itself, in another listener"),
            "{error}"
        );
    }

    #[test]
    fn a_taken_path_is_refused_and_its_holder_named() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Unix(dir.path().join("socket"));
        let options =
            BindOptions { tcp: TcpOptions::default(), sharing: Share::One, patience: Duration::ZERO };
        let _first = Bound::bind("web", &address, options).unwrap();
        let error = Bound::bind("web", &address, options).unwrap_err().to_string();
        assert!(
            error.ends_with("the address is in use by this server itself, in another listener"),
            "{error}"
        );
    }
}
