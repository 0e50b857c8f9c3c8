//! `connect`: client sockets, from a chosen source address where one does not have ports enough.
//!
//! Invariant: a socket that is returned is connected, non-blocking, without Nagle's delay, and leaves no TIME_WAIT behind.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use tidegate_sys::socket::reset_on_close;

use crate::procfs::local_ports;

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("connection {number} to {target}{}: {source}", from.map_or_else(String::new, |from| format!(" from {from}")))]
pub struct ConnectError {
    /// How many were made before.
    pub number: usize,
    /// Where to.
    pub target: SocketAddr,
    /// Where from, if that was chosen.
    pub from: Option<IpAddr>,
    /// What the kernel answered.
    pub source: io::Error,
}

/// How long one connection may take. A queue of the listener that is full costs the peer 1 s, then 3 s and 7 s (the
/// kernel's own repetitions).
const PATIENCE: Timespec = Timespec { tv_sec: 15, tv_nsec: 0 };

/// Makes `count` connections, one after the other, to the targets and from the sources in turn. Without sources the kernel
/// chooses.
///
/// # Errors
///
/// The first connection that cannot be made; those before it are closed.
pub fn connect_each(
    count: usize,
    targets: &[SocketAddr],
    sources: &[IpAddr],
) -> Result<Vec<OwnedFd>, ConnectError> {
    let mut sources: Vec<Source> = sources.iter().map(|&address| Source::new(address)).collect();
    let mut held = Vec::with_capacity(count);
    for (number, &target) in targets.iter().cycle().take(count).enumerate() {
        let turn = number % sources.len().max(1);
        let mut source = sources.get_mut(turn);
        let made = connect(target, source.as_deref_mut());
        held.push(made.map_err(|error| {
            let from = source.map(|source| source.address);
            ConnectError { number, target, from, source: error }
        })?);
    }
    Ok(held)
}

/// An address to connect from, and which of its ports comes next.
///
/// The ports are named one by one. Left to choose one at bind(2), the kernel looks for one that nobody has at any address,
/// which takes it a millisecond and more when tens of thousands are taken.
#[derive(Debug)]
pub struct Source {
    address: IpAddr,
    ports: RangeInclusive<u16>,
}

impl Source {
    /// A source with all of its ports.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        // Where the kernel does not tell, these are its usual ones.
        Self { address, ports: local_ports().unwrap_or(32_768..=60_999) }
    }

    /// Binds a socket to the next port that is free.
    fn bind(&mut self, socket: &OwnedFd) -> io::Result<()> {
        for port in &mut self.ports {
            match rustix::net::bind(socket, &SocketAddr::new(self.address, port)) {
                Err(Errno::ADDRINUSE) => {}
                other => return Ok(other?),
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "all ports are taken"))
    }
}

/// Makes one connection.
///
/// # Errors
///
/// What socket(2), bind(2) or connect(2) answered, that the source has no port left, or `TimedOut` after 15 s.
pub fn connect(target: SocketAddr, from: Option<&mut Source>) -> io::Result<OwnedFd> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    // Thousands of connections a round, closed by the client, would fill the kernel's table of TIME_WAIT.
    reset_on_close(&socket)?;
    if let Some(from) = from {
        from.bind(&socket)?;
    }
    match rustix::net::connect(&socket, &target) {
        Ok(()) => return Ok(socket),
        Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = loop {
        match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&PATIENCE)) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    if ready == 0 {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", PATIENCE.tv_sec),
        ));
    }
    sockopt::socket_error(&socket)??;
    Ok(socket)
}

/// Raises the soft limit on descriptors to the hard one, and answers it.
///
/// # Errors
///
/// What setrlimit(2) answered.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// How long a time is for `epoll_wait` and `poll`.
pub(crate) fn timespec(time: Duration) -> Timespec {
    // A time too long for the kernel is as good as none: three centuries.
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 10_000_000_000, tv_nsec: 0 })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn sources_are_taken_in_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let sources = ["127.0.0.2".parse().unwrap(), "127.0.0.3".parse().unwrap()];
        let held = connect_each(3, &[target], &sources).unwrap();
        assert_eq!(held.len(), 3);
        for source in [sources[0], sources[1], sources[0]] {
            assert_eq!(listener.accept().unwrap().1.ip(), source);
        }
    }

    #[test]
    fn a_refusal_says_which_and_where() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        let error = connect_each(2, &[target], &[]).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(error.to_string(), format!("connection 0 to {target}: Connection refused (os error 111)"));
    }

    #[test]
    fn a_port_that_is_taken_is_left_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let address = "127.0.0.77".parse().unwrap();
        let taken = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
        let held = TcpListener::bind((address, taken)).unwrap();
        let mut source = Source { address, ports: taken..=taken };
        let error = connect(target, Some(&mut source)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(held);
        let mut source = Source { address, ports: taken..=taken };
        assert!(connect(target, Some(&mut source)).is_ok());
    }

    #[test]
    fn no_target_is_no_connection() {
        assert!(connect_each(3, &[], &[]).unwrap().is_empty());
    }
}
