//! The two file formats, whole and damaged.

use proptest::prelude::*;
use tidegate_capture::{CaptureError, CaptureFile, Options, analyse_from};

use crate::capture::{handshake, pcap};

/// Number, nanoseconds since 1970, link, bytes and length of each packet.
type Told = (u64, u64, i32, Vec<u8>, u32);

fn packets(file: &[u8]) -> (Vec<Told>, Option<CaptureError>) {
    let mut file = CaptureFile::open(file).unwrap();
    let mut told = Vec::new();
    loop {
        match file.next_packet() {
            Ok(Some(it)) => told.push((it.number, it.time_ns, it.link, it.bytes.to_vec(), it.original_len)),
            Ok(None) => return (told, None),
            Err(error) => return (told, Some(error)),
        }
    }
}

/// Words in one of the two byte orders.
#[derive(Clone, Copy)]
struct Order(bool);

impl Order {
    fn u16(self, value: u16) -> [u8; 2] {
        if self.0 { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn words(self, words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| if self.0 { word.to_be_bytes() } else { word.to_le_bytes() }).collect()
    }

    fn pcap(self, magic: u32) -> Vec<u8> {
        let mut file = self.words(&[magic]);
        file.extend_from_slice(&self.u16(2));
        file.extend_from_slice(&self.u16(4));
        file.extend(self.words(&[0, 0, 65_535, 0x1000_0001, 17, 999_999, 3, 60]));
        file.extend_from_slice(b"abc");
        file
    }

    fn block(self, kind: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 12).unwrap();
        [self.words(&[kind, len]), body.to_vec(), self.words(&[len])].concat()
    }

    /// A section with one interface, whose clock has these options.
    fn section(self, link: u16, options: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = self.words(&[0x1a2b_3c4d]);
        body.extend_from_slice(&[self.u16(1), self.u16(0)].concat());
        body.extend_from_slice(&[0xff; 8]);
        let mut file = self.block(0x0a0d_0d0a, &body);
        let mut body = [self.u16(link), self.u16(0)].concat();
        body.extend(self.words(&[0]));
        for (code, value) in options {
            body.extend([self.u16(*code), self.u16(u16::try_from(value.len()).unwrap())].concat());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body.extend_from_slice(&[0; 4]);
        file.extend(self.block(1, &body));
        file
    }

    fn packet(self, ticks: u64, bytes: &[u8], len: u32) -> Vec<u8> {
        let (high, low) = (u32::try_from(ticks >> 32).unwrap(), u32::try_from(ticks & 0xffff_ffff).unwrap());
        let mut body = self.words(&[0, high, low, u32::try_from(bytes.len()).unwrap(), len]);
        body.extend_from_slice(bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        self.block(6, &body)
    }
}

#[test]
fn pcap_in_both_orders_and_resolutions() {
    for order in [Order(false), Order(true)] {
        for (magic, time_ns) in [(0xa1b2_c3d4, 17_999_999_000), (0xa1b2_3c4d, 17_000_999_999)] {
            let (told, error) = packets(&order.pcap(magic));
            assert_eq!(told, [(1, time_ns, 1, b"abc".to_vec(), 60)]);
            assert!(error.is_none());
        }
    }
}

#[test]
fn pcapng_in_both_orders() {
    for order in [Order(false), Order(true)] {
        let mut file = order.section(113, &[]);
        file.extend(order.block(5, &[0; 12]));
        file.extend(order.packet(17_000_001, b"abcde", 60));
        file.extend(order.block(0x0bad_cafe, b"what nobody knows..."));
        // Another section in the other order, whose clock ticks otherwise.
        let other = Order(!order.0);
        let offset = if other.0 { 100_i64.to_be_bytes() } else { 100_i64.to_le_bytes() };
        file.extend(other.section(1, &[(9, &[9]), (14, &offset)]));
        file.extend(other.packet(5_000_000_007, b"x", 1));
        file.extend(other.section(1, &[(9, &[0x80 | 10])]));
        file.extend(other.packet(1024 + 512, b"y", 1));
        let body = [other.words(&[2]), b"zz\0\0".to_vec()].concat();
        file.extend(other.block(3, &body));
        let (told, error) = packets(&file);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(told[0], (1, 17_000_001_000, 113, b"abcde".to_vec(), 60));
        assert_eq!(told[1], (2, 105_000_000_007, 1, b"x".to_vec(), 1));
        assert_eq!(told[2], (3, 1_500_000_000, 1, b"y".to_vec(), 1));
        assert_eq!(told[3], (4, 0, 1, b"zz".to_vec(), 2));
    }
}

#[test]
fn what_is_no_capture_is_refused() {
    for bytes in [&b""[..], b"\xa1", b"GET / HTTP/1.1\r\n\r\n and so on, for longer than any head", &[0; 100]]
    {
        assert!(matches!(CaptureFile::open(bytes), Err(CaptureError::Unknown)));
    }
}

#[test]
fn a_cut_file_tells_where_and_what_was_before() {
    let file = pcap(&handshake());
    for len in 24..file.len() {
        let (told, error) = packets(&file[..len]);
        let whole = (len - 24) / 56;
        assert_eq!(told.len(), whole, "{len} of {}", file.len());
        match error {
            None => assert_eq!((len - 24) % 56, 0),
            Some(CaptureError::Truncated { offset, packets }) => {
                assert_eq!((offset, packets), (24 + 56 * whole as u64, whole as u64));
            }
            Some(other) => panic!("{other:?}"),
        }
    }
    let report = analyse_from(&file[..file.len() - 1], &Options::default(), &mut |_, _| {}).unwrap();
    assert_eq!(report.file.packets, 2);
    let damage = report.file.damage.unwrap();
    assert!(damage.contains("begins at byte 136") && damage.contains("2 packets"), "{damage}");
}

#[test]
fn a_damaged_record_is_named_and_not_believed() {
    let mut file = pcap(&handshake());
    // The second record's length.
    file[24 + 56 + 8..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let endless = [&file[..], &vec![0; 20 << 20]].concat();
    let (told, error) = packets(&endless);
    assert_eq!(told.len(), 1);
    let text = error.unwrap().to_string();
    assert_eq!(text, "the record at byte 80, after 1 packets, is damaged: it is longer than 16 MiB");
    let order = Order(false);
    let mut file = order.section(1, &[]);
    let at = file.len();
    file.extend(order.packet(0, b"abcd", 4));
    // More bytes than its block has.
    file[at + 20] = 5;
    let (told, error) = packets(&file);
    assert!(told.is_empty() && matches!(error, Some(CaptureError::Damaged { packets: 0, .. })), "{error:?}");
    let unknown = [order.section(1, &[])[..28].to_vec(), order.packet(0, b"abcd", 4)].concat();
    assert!(packets(&unknown).1.unwrap().to_string().contains("interface was not described"));
    assert!(packets(&order.section(1, &[(9, &[99])])).1.unwrap().to_string().contains("resolution"));
}

/// Hands out a few bytes at a time, as a pipe may.
struct Slow<'a>(&'a [u8]);

impl std::io::Read for Slow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = self.0.len().min(buf.len()).min(7);
        buf[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

#[test]
fn a_slow_source_makes_no_difference() {
    let file = pcap(&handshake());
    let whole = analyse_from(&file[..], &Options::default(), &mut |_, _| {}).unwrap();
    assert_eq!(analyse_from(Slow(&file), &Options::default(), &mut |_, _| {}).unwrap(), whole);
    assert_eq!(whole.file.segments, 3);
}

#[test]
fn what_cannot_be_read_is_an_error_with_its_cause() {
    #[derive(Debug)]
    struct Broken(bool);
    impl std::io::Read for Broken {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(std::io::Error::other("the disk is on fire"));
            }
            let file = pcap(&handshake());
            buf[..file.len()].copy_from_slice(&file);
            Ok(file.len())
        }
    }
    let error = CaptureFile::open(Broken(false)).unwrap_err();
    assert!(matches!(error, CaptureError::Read { offset: 192, .. }), "{error:?}");
}

proptest! {
    #[test]
    fn no_damage_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        is_new in any::<bool>(),
        protocol in prop::sample::select(vec!["GET /a HTTP/1.1\r\n\r\n", "\0\x08\0\0\0\0\0\0", "hello"]),
    ) {
        let mut all = handshake();
        all.push((600, crate::capture::client(1, 1).data(protocol).id(7).clock(3).sack(4, 9)));
        all.push((700, crate::capture::server(1, 9).data(protocol)));
        all.push((800, crate::capture::client(5, 1).data(protocol)));
        let mut file = if is_new {
            let order = Order(false);
            let section = order.section(101, &[]);
            let packets = all.iter().flat_map(|(us, tcp)| order.packet(*us, &tcp.ip(), 60));
            section.into_iter().chain(packets).collect()
        } else {
            pcap(&all)
        };
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(report) = analyse_from(&file[..], &Options::default(), &mut |_, _| {}) {
            prop_assert!(report.total.connections <= report.file.segments);
        }
    }
}
