//! `Address`: where a datagram comes from or goes to, as the kernel has it in memory.
//!
//! Invariant: the first `len` bytes are an address of a family that is read here, or there is none at all (`len` is 0 or
//! the family alone), and the rest is never looked at.

use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

/// The address of a datagram's peer: IPv4, IPv6, the path or abstract name of a Unix socket, or none. A Unix socket that
/// is bound to nothing has none, and cannot be answered.
#[derive(Clone, Copy)]
pub struct Address {
    storage: Storage,
    len: u32,
}

/// Room for the largest of them, a `sockaddr_un`, and aligned for all.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Storage([u8; CAPACITY]);

const CAPACITY: usize = 112;
const FAMILY_BYTES: usize = 2;
const INET_BYTES: usize = size_of::<libc::sockaddr_in>();
const INET6_BYTES: usize = size_of::<libc::sockaddr_in6>();
const UNIX_BYTES: usize = size_of::<libc::sockaddr_un>();
const _: () = assert!(UNIX_BYTES <= CAPACITY && size_of::<Storage>() == CAPACITY);

impl Address {
    /// No address.
    #[must_use]
    pub const fn unnamed() -> Self {
        Self { storage: Storage([0; CAPACITY]), len: 0 }
    }

    /// The address of a Unix socket that is bound to a file.
    ///
    /// # Errors
    ///
    /// `ENAMETOOLONG` when the path has more than 107 bytes, and `EINVAL` when it is empty or has a byte 0 (unix(7)).
    pub fn of_path(path: &Path) -> Result<Self, Errno> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() || bytes.contains(&0) {
            return Err(Errno::INVAL);
        }
        if bytes.len() >= UNIX_BYTES - FAMILY_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        let mut address = Self::unnamed();
        address.write(0, &family(libc::AF_UNIX));
        // The byte 0 behind it is there already.
        address.write(FAMILY_BYTES, bytes);
        address.len = u32::try_from(FAMILY_BYTES + bytes.len() + 1).map_err(|_| Errno::NAMETOOLONG)?;
        Ok(address)
    }

    /// The Internet address, if it is one.
    #[must_use]
    pub fn inet(&self) -> Option<SocketAddr> {
        let bytes = self.bytes();
        let port = u16::from_be_bytes(field(bytes, 2)?);
        match self.family() {
            libc::AF_INET => Some((field::<4>(bytes, 4)?, port).into()),
            libc::AF_INET6 => {
                let (flow, ip) =
                    (u32::from_be_bytes(field(bytes, 4)?), Ipv6Addr::from(field::<16>(bytes, 8)?));
                let scope = u32::from_ne_bytes(field(bytes, 24)?);
                Some(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => None,
        }
    }

    /// The path of a Unix socket, if it has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        let name = self.unix_name()?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        (end > 0).then(|| Path::new(OsStr::from_bytes(&name[..end])))
    }

    /// Whether there is nobody to answer to.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.len as usize <= FAMILY_BYTES
    }

    /// The bytes behind the family, of a Unix socket.
    fn unix_name(&self) -> Option<&[u8]> {
        let bytes = self.bytes();
        (self.family() == libc::AF_UNIX).then(|| bytes.get(FAMILY_BYTES..)).flatten()
    }

    fn family(&self) -> i32 {
        field(self.bytes(), 0).map_or(libc::AF_UNSPEC, |family| i32::from(u16::from_ne_bytes(family)))
    }

    /// As the kernel reads it.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.storage.0[..(self.len as usize).min(CAPACITY)]
    }

    /// Where the kernel writes one, and how much room there is. To be followed by [`set_len`](Self::set_len).
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.storage.0
    }

    /// The kernel has written so many bytes.
    #[inline]
    pub(super) fn set_len(&mut self, len: u32) {
        self.len = len;
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.storage.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl From<SocketAddr> for Address {
    fn from(from: SocketAddr) -> Self {
        let mut address = Self::unnamed();
        address.write(2, &from.port().to_be_bytes());
        let len = match from {
            SocketAddr::V4(v4) => {
                address.write(0, &family(libc::AF_INET));
                address.write(4, &v4.ip().octets());
                INET_BYTES
            }
            SocketAddr::V6(v6) => {
                address.write(0, &family(libc::AF_INET6));
                address.write(4, &v6.flowinfo().to_be_bytes());
                address.write(8, &v6.ip().octets());
                address.write(24, &v6.scope_id().to_ne_bytes());
                INET6_BYTES
            }
        };
        address.len = u32::try_from(len).unwrap_or(0);
        address
    }
}

impl PartialEq for Address {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// `127.0.0.1:7`, `[::1]:7`, `unix:/path`, `unix:@abstract`, or `unix` for a socket without a name.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.inet() {
            return address.fmt(f);
        }
        match (self.path(), self.unix_name()) {
            (Some(path), _) => write!(f, "unix:{}", path.display()),
            (None, Some([0, name @ ..])) => write!(f, "unix:@{}", name.escape_ascii()),
            _ => f.write_str("unix"),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

fn family(number: i32) -> [u8; FAMILY_BYTES] {
    u16::try_from(number).unwrap_or(0).to_ne_bytes()
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
