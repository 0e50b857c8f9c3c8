//! `listening`: which processes of this machine serve an address.
//!
//! ```text
//!  address ─▶ /proc/net/tcp, tcp6: inodes of listening sockets ─▶ /proc/PID/fd: who holds them ─▶ the first of their family
//! ```
//!
//! Invariant: an address of another machine has no processes here, even if somebody listens on the same port.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use tidegate_engine::Target;

use crate::procfs::parent;

/// The first process of those that listen at an address: the one from which all others that hold its sockets descend.
///
/// Processes of one program belong together: the walk goes up from a holder as long as its parent runs the same file, which
/// finds the master of workers that have sockets of their own.
///
/// # Errors
///
/// In words, why it cannot be told.
pub fn server_at(target: &Target) -> Result<u32, String> {
    match target {
        Target::Inet(address) => at_inet(*address),
        Target::Unix(path) => {
            let inodes =
                unix_inodes(path).map_err(|error| format!("/proc/net/unix cannot be read: {error}"))?;
            first_of(&inodes, target)
        }
    }
}

fn at_inet(address: SocketAddr) -> Result<u32, String> {
    if !is_local(address.ip()) {
        return Err(format!("{} is no address of this machine", address.ip()));
    }
    let inodes = inodes(address).map_err(|error| format!("/proc/net cannot be read: {error}"))?;
    first_of(&inodes, &address.into())
}

/// The first process of those that hold one of these sockets.
fn first_of(inodes: &BTreeSet<u64>, address: &Target) -> Result<u32, String> {
    if inodes.is_empty() {
        return Err(format!("nobody listens on {address} in this network namespace"));
    }
    let holders = holders(inodes).map_err(|error| format!("/proc cannot be read: {error}"))?;
    let roots: BTreeSet<u32> =
        holders.iter().map(|&pid| root(pid)).filter(|&pid| pid != std::process::id()).collect();
    match roots.first() {
        Some(&first) => Ok(first),
        None if holders.is_empty() => Err(format!(
            "whoever listens on {address} belongs to somebody else, or runs in another PID namespace"
        )),
        None => Err(format!("this very process listens on {address}")),
    }
}

/// Whether a socket could be bound to it, which the kernel allows for addresses of this machine alone.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn inodes(address: SocketAddr) -> io::Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => found.extend(text.lines().filter_map(|line| listener_of(line, address))),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// `sl local remote state queues timer retransmissions uid timeout inode …`, numbers in hexadecimal.
fn listener_of(line: &str, address: SocketAddr) -> Option<u64> {
    let mut fields = line.split_whitespace();
    let (local, state) = (fields.nth(1)?, fields.nth(1)?);
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let serves = state == LISTEN
        && u16::from_str_radix(port, 16).ok()? == address.port()
        && answers_for(parse_ip(ip)?, address.ip());
    // A socket on its way out has no inode.
    (serves && inode != 0).then_some(inode)
}

/// `Num: RefCount Protocol Flags Type St Inode Path`
fn unix_inodes(path: &Path) -> io::Result<BTreeSet<u64>> {
    let text = fs::read_to_string("/proc/net/unix")?;
    let listener = |line: &str| {
        let mut fields = line.splitn(8, ' ').filter(|field| !field.is_empty());
        let (flags, inode) = (fields.nth(3)?, fields.nth(2)?);
        let inode = inode.parse().ok()?;
        let serves = flags == ACCEPTS && Path::new(fields.next()?) == path;
        serves.then_some(inode)
    };
    Ok(text.lines().filter_map(listener).collect())
}

/// `__SO_ACCEPTCON` (include/linux/net.h).
const ACCEPTS: &str = "00010000";

/// `TCP_LISTEN` (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// The words of an address in the order of the machine, each printed as a number.
fn parse_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into()),
        32 => {
            let mut bytes = [0; 16];
            for nth in 0..4 {
                bytes[nth * 4..nth * 4 + 4].copy_from_slice(&word(nth * 8)?.to_ne_bytes());
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

/// A socket bound to all addresses answers for each; one for IPv6 usually for those of IPv4 too (ipv6(7)).
fn answers_for(bound: IpAddr, asked: IpAddr) -> bool {
    match bound.to_canonical() {
        IpAddr::V4(any) if any.is_unspecified() => asked.to_canonical().is_ipv4(),
        IpAddr::V6(any) if any.is_unspecified() => true,
        one => one == asked.to_canonical(),
    }
}

fn holders(inodes: &BTreeSet<u64>) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Of somebody else's processes nothing is told.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        let inode = |path: PathBuf| {
            let link = fs::read_link(path).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
        };
        let mut held = descriptors.filter_map(|entry| inode(entry.ok()?.path()));
        if held.any(|inode| inodes.contains(&inode)) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// Goes up as long as the parent runs the same program.
fn root(pid: u32) -> u32 {
    let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = program(pid);
    let mut at = pid;
    while let Some(up) = parent(at).filter(|&up| up > 1 && own.is_some() && program(up) == own) {
        // This program may have started the server itself, and is no part of it.
        if up == std::process::id() {
            break;
        }
        at = up;
    }
    at
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn lines_of_the_table_are_understood() {
        let line = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0";
        let at = |text: &str| listener_of(line, text.parse().unwrap());
        // The table is written in the order of the machine, and this line on one that begins with the low byte.
        if cfg!(target_endian = "little") {
            assert_eq!(at("127.0.0.1:8080"), Some(4711));
            assert_eq!(at("[::ffff:127.0.0.1]:8080"), Some(4711));
        }
        assert_eq!(at("127.0.0.1:8081"), None);
        assert_eq!(at("127.0.0.2:8080"), None);
        assert_eq!(listener_of(&line.replace(" 0A ", " 01 "), "127.0.0.1:8080".parse().unwrap()), None);
        assert_eq!(
            listener_of("  sl  local_address rem_address   st", "127.0.0.1:8080".parse().unwrap()),
            None
        );
    }

    #[test]
    fn all_addresses_are_for_each() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(answers_for(ip("0.0.0.0"), ip("10.0.0.1")) && !answers_for(ip("0.0.0.0"), ip("::1")));
        assert!(answers_for(ip("::"), ip("10.0.0.1")) && answers_for(ip("::"), ip("::1")));
        assert!(!answers_for(ip("::1"), ip("127.0.0.1")));
    }

    #[test]
    fn a_listener_of_this_process_is_found_and_is_no_server() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = inodes(address).unwrap();
        assert_eq!(found.len(), 1);
        assert!(holders(&found).unwrap().contains(&std::process::id()));
        let told = at_inet(address);
        // A test started by a copy of itself would find that.
        assert!(
            told.is_ok_and(|pid| pid != std::process::id())
                || at_inet(address).unwrap_err().contains("this very process")
        );
        drop(listener);
        // A process that another test has just forked keeps a copy of the descriptor until it executes its program.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !at_inet(address).is_err_and(|why| why.contains("nobody listens")) {
            assert!(std::time::Instant::now() < deadline, "the closed socket is still there");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_unix_socket_is_found_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        assert!(unix_inodes(&path).unwrap().is_empty());
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(holders(&unix_inodes(&path).unwrap()).unwrap().contains(&std::process::id()));
    }

    #[test]
    fn an_address_of_another_machine_has_no_processes_here() {
        // RFC 5737: never an address of anybody.
        assert_eq!(
            at_inet("192.0.2.1:80".parse().unwrap()).unwrap_err(),
            "192.0.2.1 is no address of this machine"
        );
    }
}
