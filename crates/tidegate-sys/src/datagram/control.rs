//! Control data of a datagram, read from and written to plain bytes as cmsg(3) has them.
//!
//! What is read: the address that a datagram came to (`IP_PKTINFO`, `IPV6_PKTINFO`), and the size of the segments that the
//! kernel has joined (`UDP_GRO`). What is written: the address that an answer is to leave from, and `UDP_SEGMENT`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a datagram came in, of a socket that is bound to every address of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The machine's own address, which an answer leaves from.
    pub local: IpAddr,
    /// It was sent to many at once, by broadcast or multicast: to answer it is to answer whoever forged its source, from
    /// as many machines as heard it.
    pub to_many: bool,
    /// The number of the network interface.
    pub interface: u32,
}

/// Room for the control data of one datagram: what came to which address, and the size of segments.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; CONTROL_BYTES]);

pub(super) const CONTROL_BYTES: usize = 64;
const HEADER_BYTES: usize = size_of::<usize>() + 8;

impl Control {
    pub(super) const EMPTY: Self = Self([0; CONTROL_BYTES]);
}

/// What control data said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) arrival: Option<Arrival>,
    pub(super) segment: usize,
}

pub(super) fn read(mut control: &[u8]) -> Said {
    let mut said = Said::default();
    while let Some((header, _)) = control.split_at_checked(HEADER_BYTES) {
        let len = usize::from_ne_bytes(field(header, 0));
        let Some(data) = control.get(HEADER_BYTES..len) else { break };
        let level = i32::from_ne_bytes(field(header, size_of::<usize>()));
        let kind = i32::from_ne_bytes(field(header, size_of::<usize>() + 4));
        match (level, kind, data.len()) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO, 12..) => said.arrival = Some(ipv4_arrival(data)),
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, 20..) => said.arrival = Some(ipv6_arrival(data)),
            (libc::SOL_UDP, libc::UDP_GRO, 4..) => {
                said.segment = usize::try_from(i32::from_ne_bytes(field(data, 0))).unwrap_or(0);
            }
            _ => {}
        }
        control = control.get(len.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
    said
}

/// `struct in_pktinfo` (ip(7)): the interface, the own address by which it came, and the one in its header.
fn ipv4_arrival(data: &[u8]) -> Arrival {
    let (local, to) = (Ipv4Addr::from(field::<4>(data, 4)), Ipv4Addr::from(field::<4>(data, 8)));
    Arrival { local: local.into(), to_many: local != to, interface: u32::from_ne_bytes(field(data, 0)) }
}

/// `struct in6_pktinfo` (ipv6(7)): the address in its header, and the interface.
fn ipv6_arrival(data: &[u8]) -> Arrival {
    let to = Ipv6Addr::from(field::<16>(data, 0));
    let interface = u32::from_ne_bytes(field(data, 16));
    Arrival { local: to.into(), to_many: to.is_multicast(), interface }
}

/// Writes control data for an answer. How many bytes it takes.
pub(super) fn write(into: &mut Control, leave_from: Option<&Arrival>, segment: Option<u16>) -> usize {
    let mut len = 0;
    match leave_from {
        Some(Arrival { local: IpAddr::V4(local), to_many: false, .. }) => {
            let mut data = [0; 12];
            // The interface is the routes' to choose; the address in the header is left out by send.
            data[4..8].copy_from_slice(&local.octets());
            len = append(into, len, (libc::IPPROTO_IP, libc::IP_PKTINFO), &data);
        }
        Some(Arrival { local: IpAddr::V6(local), to_many: false, interface }) => {
            let mut data = [0; 20];
            data[..16].copy_from_slice(&local.octets());
            if local.is_unicast_link_local() {
                data[16..].copy_from_slice(&interface.to_ne_bytes());
            }
            len = append(into, len, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), &data);
        }
        _ => {}
    }
    if let Some(segment) = segment {
        len = append(into, len, (libc::SOL_UDP, libc::UDP_SEGMENT), &segment.to_ne_bytes());
    }
    len
}

fn append(into: &mut Control, at: usize, (level, kind): (i32, i32), data: &[u8]) -> usize {
    let len = HEADER_BYTES + data.len();
    let entry = &mut into.0[at..at + len.next_multiple_of(size_of::<usize>())];
    entry.fill(0);
    entry[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
    entry[size_of::<usize>()..][..4].copy_from_slice(&level.to_ne_bytes());
    entry[size_of::<usize>() + 4..][..4].copy_from_slice(&kind.to_ne_bytes());
    entry[HEADER_BYTES..len].copy_from_slice(data);
    at + len.next_multiple_of(size_of::<usize>())
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a range of N bytes has N bytes")
}
