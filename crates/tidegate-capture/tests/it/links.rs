//! The headers that may stand before a TCP segment.

use etherparse::{IpFragOffset, Ipv4HeaderSlice};
use tidegate_capture::{FileReport, Options, analyse_from};

use crate::capture::{Tcp, client, pcap_of, server, told_of};

/// What is told of a handshake whose packets are wrapped so.
fn wrapped(link: u32, wrap: impl Fn(&Tcp) -> Vec<u8>) -> (Option<u64>, FileReport) {
    let packets = crate::capture::handshake();
    let packets: Vec<_> = packets.iter().map(|(us, tcp)| (*us, wrap(tcp))).collect();
    let report = told_of(&pcap_of(link, &packets)).0;
    (report.connections.first().and_then(|connection| connection.handshake_ns), report.file)
}

#[track_caller]
fn check(link: u32, wrap: impl Fn(&Tcp) -> Vec<u8>) {
    let (handshake, file) = wrapped(link, wrap);
    assert_eq!((handshake, file.segments), (Some(500_000), 3), "{file:?}");
}

fn with(head: &[u8], packet: impl AsRef<[u8]>) -> Vec<u8> {
    [head, packet.as_ref()].concat()
}

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

#[test]
fn ethernet_with_and_without_tags() {
    check(1, |tcp| with(&[&MACS[..], &[0x08, 0x00]].concat(), tcp.ip()));
    check(1, |tcp| with(&[&MACS[..], &[0x86, 0xdd]].concat(), tcp.ipv6()));
    check(1, |tcp| with(&[&MACS[..], &[0x81, 0, 0, 42, 0x08, 0]].concat(), tcp.ip()));
    let twice = [&MACS[..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 42, 0x86, 0xdd]].concat();
    check(1, |tcp| with(&twice, tcp.ipv6()));
}

#[test]
fn padding_behind_a_short_packet_is_no_data() {
    check(1, |tcp| [&MACS[..], &[0x08, 0x00], &tcp.ip(), &[0; 6]].concat());
}

#[test]
fn cooked_packets_of_linux() {
    check(113, |tcp| with(&[0, 0, 3, 4, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00], tcp.ip()));
    let head = [0x86, 0xdd, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0];
    check(276, |tcp| with(&head, tcp.ipv6()));
    let tagged = [0x81, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 42, 0x08, 0];
    check(276, |tcp| with(&tagged, tcp.ip()));
}

#[test]
fn raw_packets_and_those_of_a_loopback() {
    for link in [12, 14, 101, 228] {
        check(link, Tcp::ip);
    }
    check(229, Tcp::ipv6);
    check(0, |tcp| with(&[2, 0, 0, 0], tcp.ip()));
    check(108, |tcp| with(&[0, 0, 0, 28], tcp.ipv6()));
}

#[test]
fn extension_headers_of_ipv6_are_gone_through() {
    check(229, |tcp| {
        let plain = tcp.ipv6();
        let mut packet = plain[..40].to_vec();
        // Hop-by-hop options that are only padding, and then TCP.
        packet[4..6].copy_from_slice(&u16::try_from(plain.len() - 40 + 8).unwrap().to_be_bytes());
        packet[6] = 0;
        packet.extend_from_slice(&[6, 0, 1, 4, 0, 0, 0, 0]);
        packet.extend_from_slice(&plain[40..]);
        packet
    });
}

#[test]
fn what_is_left_out_is_counted() {
    let fragment = |tcp: &Tcp| {
        let mut packet = tcp.ip();
        // More fragments.
        packet[6] = 0x20;
        packet
    };
    let file = wrapped(101, fragment).1;
    assert_eq!((file.fragments, file.segments), (3, 0));
    let first = fragment(&client(0, 0));
    assert_eq!(Ipv4HeaderSlice::from_slice(&first).unwrap().fragments_offset(), IpFragOffset::ZERO);
    let udp = |tcp: &Tcp| {
        let mut packet = tcp.ip();
        packet[9] = 17;
        packet
    };
    assert_eq!(wrapped(101, udp).1.other_protocols, 3);
    assert_eq!(wrapped(1, |_| with(&[&MACS[..], &[0x08, 0x06]].concat(), vec![0; 28])).1.other_protocols, 3);
    let file = wrapped(147, Tcp::ip).1;
    assert_eq!((file.unknown_links, file.unknown_link), (3, Some(147)));
    assert_eq!(wrapped(101, |tcp| tcp.ip()[..30].to_vec()).1.broken, 3);
    assert_eq!(wrapped(101, |_| vec![0x45]).1.broken, 3);
    assert_eq!(wrapped(113, |_| vec![0; 10]).1.broken, 3);
}

#[test]
fn a_segment_is_as_long_as_it_says_even_when_less_was_captured() {
    let all = [
        (0, client(1, 1).data([b'x'; 100]).ip()),
        (100, client(101, 1).data([b'x'; 100]).ipv6()),
        (200, server(1, 101).ip()),
    ];
    let cut: Vec<_> =
        all.into_iter().map(|(us, packet)| (us, packet[..packet.len().min(70)].to_vec())).collect();
    let (report, found) = told_of(&pcap_of(101, &cut));
    assert_eq!(found[2], [crate::capture::round_trip(200)]);
    assert_eq!(report.total.from_clients.bytes, 200);
}

#[test]
fn only_the_port_that_is_asked_for() {
    let mut packets = crate::capture::handshake();
    packets.push((600, client(1, 1).data("x")));
    let file = crate::capture::pcap(&packets);
    let of = |port| {
        let options = Options { port: Some(port), ..Options::default() };
        analyse_from(&file[..], &options, &mut |_, _| {}).unwrap()
    };
    assert_eq!((of(80).total.connections, of(80).file.other_connections), (1, 0));
    assert_eq!((of(81).total.connections, of(81).file.other_connections), (0, 4));
    // Without a begin the port tells which of them the server is.
    let file = crate::capture::pcap(&[(0, client(1, 1).data("x"))]);
    let options = Options { port: Some(40_000), ..Options::default() };
    let report = analyse_from(&file[..], &options, &mut |_, _| {}).unwrap();
    assert_eq!(report.connections[0].server, "10.0.0.1:40000");
}
