//! A capture file, packet by packet.
//!
//! Times are microseconds from the begin; client and server are `10.0.0.1:40000` and `10.0.0.2:80`.

use etherparse::{PacketBuilder, TcpOptionElement};
use tidegate_capture::{Finding, Options, Report, analyse_from};

/// Flags and fields of a TCP packet.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    is_from_client: bool,
    seq: u32,
    ack: Option<u32>,
    flags: &'static str,
    window: u16,
    data: Vec<u8>,
    options: Vec<TcpOptionElement>,
    ip_id: u16,
}

/// From the client; the numbers begin at 1000.
pub(crate) fn client(seq: u32, ack: u32) -> Tcp {
    Tcp {
        is_from_client: true,
        seq: 1000_u32.wrapping_add(seq),
        ack: Some(5000_u32.wrapping_add(ack)),
        flags: "",
        window: 500,
        data: Vec::new(),
        options: Vec::new(),
        ip_id: 0,
    }
}

/// From the server; its numbers begin at 5000.
pub(crate) fn server(seq: u32, ack: u32) -> Tcp {
    let seq = 5000_u32.wrapping_add(seq);
    Tcp { is_from_client: false, seq, ack: Some(1000_u32.wrapping_add(ack)), ..client(0, 0) }
}

impl Tcp {
    pub(crate) fn data(self, data: impl AsRef<[u8]>) -> Self {
        Self { data: data.as_ref().to_vec(), ..self }
    }

    /// Some of `S`, `F` and `R`.
    pub(crate) fn flags(self, flags: &'static str) -> Self {
        Self { flags, ..self }
    }

    pub(crate) fn without_ack(self) -> Self {
        Self { ack: None, ..self }
    }

    pub(crate) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    pub(crate) fn id(self, ip_id: u16) -> Self {
        Self { ip_id, ..self }
    }

    pub(crate) fn clock(mut self, sent: u32) -> Self {
        self.options.push(TcpOptionElement::Timestamp(sent, 0));
        self
    }

    pub(crate) fn sack(mut self, start: u32, end: u32) -> Self {
        let base = if self.is_from_client { 5000 } else { 1000 };
        let range = (base + start, base + end);
        self.options.push(TcpOptionElement::SelectiveAcknowledgement(range, [None; 3]));
        self
    }

    /// From the IP header on.
    pub(crate) fn ip(&self) -> Vec<u8> {
        let (from, to) = if self.is_from_client { (1, 2) } else { (2, 1) };
        let mut packet = self.over(PacketBuilder::ipv4([10, 0, 0, from], [10, 0, 0, to], 64));
        packet[4..6].copy_from_slice(&self.ip_id.to_be_bytes());
        packet
    }

    pub(crate) fn ipv6(&self) -> Vec<u8> {
        let address = |last| [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        let (from, to) = if self.is_from_client { (1, 2) } else { (2, 1) };
        self.over(PacketBuilder::ipv6(address(from), address(to), 64))
    }

    fn over(&self, ip: etherparse::PacketBuilderStep<etherparse::IpHeaders>) -> Vec<u8> {
        let (from, to) = if self.is_from_client { (40_000, 80) } else { (80, 40_000) };
        let mut step = ip.tcp(from, to, self.seq, self.window).options(&self.options).unwrap();
        if let Some(ack) = self.ack {
            step = step.ack(ack);
        }
        for flag in self.flags.chars() {
            step = match flag {
                'S' => step.syn(),
                'F' => step.fin(),
                'R' => step.rst(),
                other => panic!("{other} is no flag"),
            };
        }
        let mut bytes = Vec::new();
        step.write(&mut bytes, &self.data).unwrap();
        bytes
    }
}

/// A pcap file with microseconds, little-endian, of raw IP packets.
pub(crate) fn pcap(packets: &[(u64, Tcp)]) -> Vec<u8> {
    let packets: Vec<_> = packets.iter().map(|(us, tcp)| (*us, tcp.ip())).collect();
    pcap_of(101, &packets)
}

/// The same of packets of any link.
pub(crate) fn pcap_of(link: u32, packets: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, link] {
        file.extend_from_slice(&u32::to_le_bytes(word));
    }
    for (us, bytes) in packets {
        let len = u32::try_from(bytes.len()).unwrap();
        let time = 1_700_000_000_000_000 + us;
        let (s, us) = (u32::try_from(time / 1_000_000).unwrap(), u32::try_from(time % 1_000_000).unwrap());
        for word in [s, us, len, len] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(bytes);
    }
    file
}

/// SYN, its answer and the acknowledgement, at 0, 400 and 500 us.
pub(crate) fn handshake() -> Vec<(u64, Tcp)> {
    vec![(0, client(0, 0).flags("S").without_ack()), (400, server(0, 1).flags("S")), (500, client(1, 1))]
}

/// What is told of packets behind a handshake, and what each of them was found to be.
pub(crate) fn told(packets: Vec<(u64, Tcp)>) -> (Report, Vec<Vec<Finding>>) {
    let all: Vec<_> = handshake().into_iter().chain(packets).collect();
    let (report, mut found) = told_of(&pcap(&all));
    found.resize(all.len(), Vec::new());
    (report, found.split_off(3))
}

/// The same of a whole file.
pub(crate) fn told_of(file: &[u8]) -> (Report, Vec<Vec<Finding>>) {
    let mut found: Vec<Vec<Finding>> = Vec::new();
    let mut watch = |number: u64, finding| {
        let number = usize::try_from(number).unwrap();
        found.resize(found.len().max(number), Vec::new());
        found[number - 1].push(finding);
    };
    let report = analyse_from(file, &Options::default(), &mut watch).unwrap();
    (report, found)
}

/// What the last of these packets was found to be.
pub(crate) fn last(packets: Vec<(u64, Tcp)>) -> Vec<Finding> {
    told(packets).1.pop().unwrap()
}

/// In microseconds.
pub(crate) fn round_trip(us: u64) -> Finding {
    Finding::RoundTrip { rtt_ns: us * 1_000 }
}
