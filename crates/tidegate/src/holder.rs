//! `Holder`: who listens at an address that is taken, for the text of the error.
//!
//! It is a hint. The one invariant: finding it is bounded, and never fails: what another user's processes have open cannot be
//! seen, and then less is told. A process that has gone meanwhile, or a namespace of its own, hides the holder too.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// This process, in another listener.
    Itself,
    /// Another process, by its short name.
    Process { pid: u32, name: String },
    /// A process that cannot be seen, of this user.
    User(u32),
}

/// What follows "the address is in use".
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself => f.write_str("by this server itself, in another listener"),
            Self::Process { pid, name } if name.is_empty() => write!(f, "by process {pid}"),
            Self::Process { pid, name } => write!(f, "by process {pid} ({name})"),
            Self::User(uid) => write!(f, "by a process of user {uid} that cannot be seen from here"),
        }
    }
}

impl Holder {
    /// Who listens at a TCP address, or at one that is in its way.
    pub(crate) fn of_tcp(address: SocketAddr) -> Option<Self> {
        Self::of_inet(address, ["/proc/net/tcp", "/proc/net/tcp6"], LISTEN)
    }

    /// Who has a UDP address, or one that is in its way.
    pub(crate) fn of_udp(address: SocketAddr) -> Option<Self> {
        Self::of_inet(address, ["/proc/net/udp", "/proc/net/udp6"], UNCONNECTED)
    }

    fn of_inet(address: SocketAddr, tables: [&str; 2], state: &str) -> Option<Self> {
        let tables = tables.map(|path| fs::read_to_string(path).unwrap_or_default());
        let listening: Vec<Listening> =
            tables.iter().flat_map(|table| table.lines().filter_map(|line| listening(line, state))).collect();
        let in_the_way: Vec<_> = listening.iter().filter(|other| excludes(other.address, address)).collect();
        let inodes: Vec<u64> = in_the_way.iter().map(|other| other.inode).collect();
        match process_with(&inodes) {
            Some(pid) => Some(Self::of_process(pid)),
            None => in_the_way.first().map(|other| Self::User(other.uid)),
        }
    }

    /// Who listens at the path of a Unix socket: whoever called listen(2), as unix(7) has it for `SO_PEERCRED`.
    pub(crate) fn of_unix(path: &Path) -> Option<Self> {
        // Without waiting: its queue may be full.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
        connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
        let pid = socket_peercred(&socket).ok()?.pid.as_raw_nonzero().get();
        Some(Self::of_process(u32::try_from(pid).ok()?))
    }

    fn of_process(pid: u32) -> Self {
        if pid == std::process::id() {
            return Self::Itself;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        // A program may call itself what it likes.
        let name = name.trim_end().chars().filter(|char| !char.is_control()).collect();
        Self::Process { pid, name }
    }
}

/// A listening socket of /proc/net/tcp and tcp6 (proc_pid_net(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listening {
    address: SocketAddr,
    uid: u32,
    inode: u64,
}

/// ```text
///  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
///   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1060 1 …
/// ```
fn listening(line: &str, wanted: &str) -> Option<Listening> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, state, _, _, _, uid, _, inode, ..] = fields[..] else { return None };
    if state != wanted {
        return None;
    }
    Some(Listening { address: address(local)?, uid: uid.parse().ok()?, inode: inode.parse().ok()? })
}

/// The address in hexadecimal words of four bytes, each as this machine has it in memory, and the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let mut bytes = [0; 16];
            bytes.chunks_exact_mut(4).zip(words).for_each(|(part, word)| part.copy_from_slice(&word));
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some((ip, port).into())
}

/// Whether a socket that listens at `other` may be what keeps `wanted` from being bound. A socket at `[::]` may have the
/// addresses of IPv4 too, unless it asked not to (ipv6(7)); ours always asks.
fn excludes(other: SocketAddr, wanted: SocketAddr) -> bool {
    let is_any = |ip: IpAddr| ip.is_unspecified();
    let (there, here) = (other.ip().to_canonical(), wanted.ip());
    let meet = match (there, here) {
        (IpAddr::V6(there), IpAddr::V4(_)) => there.is_unspecified(),
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
        _ => there == here || is_any(there) || is_any(here),
    };
    other.port() == wanted.port() && meet
}

/// The process with the smallest number that has one of these sockets open: of a master and its children the master, as a
/// rule.
fn process_with(inodes: &[u64]) -> Option<u32> {
    if inodes.is_empty() {
        return None;
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut pids: Vec<u32> = processes.take(MAX_PROCESSES).collect();
    pids.sort_unstable();
    let mut left = MAX_FILES;
    pids.into_iter().find(|pid| has_one(*pid, &links, &mut left))
}

fn has_one(pid: u32, links: &[String], left: &mut usize) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    for file in files.flatten() {
        let Some(rest) = left.checked_sub(1) else { return false };
        *left = rest;
        let is_one = |link: &Path| links.iter().any(|wanted| link.as_os_str() == wanted.as_str());
        if fs::read_link(file.path()).is_ok_and(|link| is_one(&link)) {
            return true;
        }
    }
    false
}

/// The state of a listening socket.
const LISTEN: &str = "0A";
/// That of a UDP socket which is bound, and not connected.
const UNCONNECTED: &str = "07";
/// How many processes are looked at, and how many of their descriptors in all: some tenths of a second's work.
const MAX_PROCESSES: usize = 1 << 16;
const MAX_FILES: usize = 200_000;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(listening(head, LISTEN), None);
        let listens = |address: &str, state: &str| {
            let zeros = "00000000:00000000 00:00000000 00000000";
            listening(
                &format!(
                    "   0: {address} 00000000:0000 {state} {zeros}  1000        0 1060 1 00000000abb8f7d1"
                ),
                LISTEN,
            )
        };
        let ipv4 = if cfg!(target_endian = "little") { "0100007F:1F90" } else { "7F000001:1F90" };
        let expected = Listening { address: "127.0.0.1:8080".parse().unwrap(), uid: 1000, inode: 1060 };
        assert_eq!(listens(ipv4, "0A"), Some(expected));
        assert_eq!(listens(ipv4, "01"), None, "a connection");
        let ipv6 = "00000000000000000000000000000000:0050";
        assert_eq!(listens(ipv6, "0A").unwrap().address, "[::]:80".parse().unwrap());
        for bad in
            ["", "0100007F", "0100007:1F90", "0100007F:1F9000", "é100007:1F90", "0100007F0100007F:1F90"]
        {
            assert_eq!(listens(bad, "0A"), None, "{bad}");
        }
    }

    #[test]
    fn addresses_that_are_in_the_way() {
        let check = |other: &str, wanted: &str, expected: bool| {
            let found = excludes(other.parse().unwrap(), wanted.parse().unwrap());
            assert_eq!(found, expected, "{other} {wanted}");
        };
        check("127.0.0.1:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "127.0.0.1:81", false);
        check("127.0.0.1:80", "127.0.0.2:80", false);
        check("0.0.0.0:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "0.0.0.0:80", true);
        check("[::]:80", "127.0.0.1:80", true);
        check("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true);
        check("0.0.0.0:80", "[::]:80", false);
        check("[::1]:80", "[::]:80", true);
    }

    #[test]
    fn this_process_is_known_as_itself() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(Holder::of_tcp(address), Some(Holder::Itself));
        drop(socket);
        assert_eq!(Holder::of_tcp(address), None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert_eq!(Holder::of_unix(&path), None);
        let _socket = UnixListener::bind(&path).unwrap();
        assert_eq!(Holder::of_unix(&path), Some(Holder::Itself));
    }

    #[test]
    fn another_process_is_named() {
        // It inherits the socket as its standard input, and then is the only one that has it.
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut sleeper =
            Command::new("sleep").arg("600").stdin(Stdio::from(OwnedFd::from(socket))).spawn().unwrap();
        let holder = Holder::of_tcp(address);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert_eq!(holder, Some(Holder::Process { pid: sleeper.id(), name: "sleep".to_owned() }));
        assert_eq!(holder.unwrap().to_string(), format!("by process {} (sleep)", sleeper.id()));
    }
}
