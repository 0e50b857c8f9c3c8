//! `Segment`: what a packet says about its TCP connection.
//!
//! Invariant: a segment's length is what the IP header says, even where less of it was captured; checksums are not looked at,
//! since a capture on the sender's machine sees packets before the network card has filled them in.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, LaxNetSlice, LaxSlicedPacket, TcpOptionElement, TcpSlice, TransportSlice, ether_type,
    ip_number,
};

use crate::file::Packet;

/// A TCP segment in a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    /// The number of its packet.
    pub(crate) number: u64,
    pub(crate) time_ns: u64,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// The identification of its IPv4 packet, unless it is 0.
    pub(crate) ip_id: Option<u16>,
    pub(crate) seq: u32,
    /// With the flag ACK.
    pub(crate) ack: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    /// As it stands in the header, not scaled.
    pub(crate) window: u16,
    /// What was captured of its data.
    pub(crate) data: &'a [u8],
    /// Bytes of its data, captured or not.
    pub(crate) len: u32,
    /// The sender's timestamp (RFC 7323).
    pub(crate) timestamp: Option<u32>,
    /// The ranges that it says have arrived (RFC 2018), the first of them first.
    pub(crate) sacks: [Option<(u32, u32)>; 4],
}

/// Why a packet is no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skip {
    /// Another protocol than TCP over IP.
    Other,
    /// A fragment of an IP packet.
    Fragment,
    /// Not even the headers were captured, or they are damaged.
    Broken,
    /// A kind of link that is not known here.
    Link(i32),
}

/// Looks into a packet.
pub(crate) fn decode<'a>(packet: &Packet<'a>) -> Result<Segment<'a>, Skip> {
    let sliced = slice(packet)?;
    let Some(net) = &sliced.net else {
        return Err(if sliced.stop_err.is_some() { Skip::Broken } else { Skip::Other });
    };
    let Some(payload) = net.ip_payload_ref() else { return Err(Skip::Other) };
    if payload.ip_number != ip_number::TCP {
        return Err(Skip::Other);
    }
    if payload.fragmented {
        return Err(Skip::Fragment);
    }
    let Some(TransportSlice::Tcp(tcp)) = &sliced.transport else { return Err(Skip::Broken) };
    let (from, to, ip_id, missing) = match net {
        LaxNetSlice::Ipv4(ip) => {
            let auth = ip.extensions().auth.map_or(0, |auth| auth.slice().len());
            let said = usize::from(ip.header().total_len()).saturating_sub(ip.header().slice().len() + auth);
            let id = Some(ip.header().identification()).filter(|id| *id != 0);
            let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
            (IpAddr::from(from), IpAddr::from(to), id, said.saturating_sub(payload.payload.len()))
        }
        LaxNetSlice::Ipv6(ip) => {
            let extensions = ip.extensions().slice().len();
            let said = usize::from(ip.header().payload_length()).saturating_sub(extensions);
            let (from, to) = (ip.header().source_addr(), ip.header().destination_addr());
            (IpAddr::from(from), IpAddr::from(to), None, said.saturating_sub(payload.payload.len()))
        }
        LaxNetSlice::Arp(_) => return Err(Skip::Other),
    };
    let missing = if payload.incomplete { missing } else { 0 };
    let mut segment = segment(packet, tcp, missing);
    (segment.from, segment.to) =
        (SocketAddr::new(from, tcp.source_port()), SocketAddr::new(to, tcp.destination_port()));
    segment.ip_id = ip_id;
    Ok(segment)
}

/// Goes through the headers, from the one that this kind of link begins with.
fn slice<'a>(packet: &Packet<'a>) -> Result<LaxSlicedPacket<'a>, Skip> {
    let bytes = packet.bytes;
    let from = |at: usize| bytes.get(at..).ok_or(Skip::Broken);
    let ether_type = |at: usize| {
        let bytes = bytes.get(at..at + 2).and_then(<[u8]>::first_chunk);
        bytes.map(|bytes| EtherType(u16::from_be_bytes(*bytes))).ok_or(Skip::Broken)
    };
    let of_ip = |bytes: &'a [u8]| LaxSlicedPacket::from_ip(bytes).map_err(|_| Skip::Broken);
    match packet.link {
        link::ETHERNET => LaxSlicedPacket::from_ethernet(bytes).map_err(|_| Skip::Broken),
        link::LINUX_SLL => Ok(LaxSlicedPacket::from_ether_type(ether_type(14)?, from(16)?)),
        link::LINUX_SLL2 => Ok(LaxSlicedPacket::from_ether_type(ether_type(0)?, from(20)?)),
        link::RAW | link::RAW_BSD | link::RAW_OPENBSD | link::IPV4 | link::IPV6 => of_ip(bytes),
        // An address family in the byte order of whoever captured; the IP header tells the version too.
        link::NULL | link::LOOP => {
            let payload = from(4)?;
            if matches!(payload.first(), Some(first) if matches!(first >> 4, 4 | 6)) {
                of_ip(payload)
            } else {
                Ok(LaxSlicedPacket::from_ether_type(ether_type::WAKE_ON_LAN, payload))
            }
        }
        other => Err(Skip::Link(other)),
    }
}

fn segment<'a>(packet: &Packet<'a>, tcp: &TcpSlice<'a>, missing: usize) -> Segment<'a> {
    let mut segment = Segment {
        number: packet.number,
        time_ns: packet.time_ns,
        from: SocketAddr::from(([0; 4], 0)),
        to: SocketAddr::from(([0; 4], 0)),
        ip_id: None,
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        window: tcp.window_size(),
        data: tcp.payload(),
        len: u32::try_from(tcp.payload().len() + missing).unwrap_or(u32::MAX),
        timestamp: None,
        sacks: [None; 4],
    };
    // What stands behind a broken option is not to be found.
    for option in tcp.options_iterator().map_while(Result::ok) {
        match option {
            TcpOptionElement::Timestamp(sent, _) => segment.timestamp = Some(sent),
            TcpOptionElement::SelectiveAcknowledgement(first, [second, third, fourth]) => {
                segment.sacks = [Some(first), second, third, fourth];
            }
            _ => {}
        }
    }
    segment
}

/// The LINKTYPEs of tcpdump.org that are known here.
pub(crate) mod link {
    /// BSD loopback.
    pub(crate) const NULL: i32 = 0;
    pub(crate) const ETHERNET: i32 = 1;
    /// What BSD writes for raw IP.
    pub(crate) const RAW_BSD: i32 = 12;
    /// What OpenBSD writes for raw IP.
    pub(crate) const RAW_OPENBSD: i32 = 14;
    pub(crate) const RAW: i32 = 101;
    /// OpenBSD loopback.
    pub(crate) const LOOP: i32 = 108;
    /// Linux "cooked", as `tcpdump -i any` wrote it.
    pub(crate) const LINUX_SLL: i32 = 113;
    pub(crate) const IPV4: i32 = 228;
    pub(crate) const IPV6: i32 = 229;
    /// Linux "cooked", as `tcpdump -i any` writes it.
    pub(crate) const LINUX_SLL2: i32 = 276;
}
