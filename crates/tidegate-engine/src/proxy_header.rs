//! `ProxyHeader`: who is behind a balancer, as the first bytes of a connection say it (the PROXY protocol, versions 1 and 2,
//! <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).
//!
//! ```text
//! 1:  PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n                       at most 107 bytes
//! 2:  0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A │ 2 command │ family transport │ length u16 │ addresses, extensions
//! ```
//!
//! Pure: bytes in, a verdict out. Invariant: what cannot become a header any more is refused at its first wrong byte of the
//! signature, or as soon as its line or its fixed part is there; and no more than [`MAX_BYTES`] are ever asked for. It does
//! not guess whether there is a header, and extensions (TLVs) are skipped, not read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyHeader {
    /// The beginning of a header; so many bytes are needed at the least.
    Partial(usize),
    /// A header of `len` bytes.
    Complete {
        len: usize,
        /// Whom it names; `None`: the balancer speaks for itself, or the address is of no kind that is known here, and the
        /// connection's own holds (section 2.2, `LOCAL` and `UNSPEC`).
        source: Option<SocketAddr>,
    },
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyHeaderError {
    #[error("the connection does not begin with a PROXY header")]
    Signature,
    #[error("the line of a PROXY header has no end within {MAX_LINE_BYTES} bytes")]
    LongLine,
    #[error("the line of a PROXY header is not: PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT")]
    Line,
    #[error("PROXY header of version {0}, where 1 and 2 are known")]
    Version(u8),
    #[error("PROXY header with the command {0}, where 0 and 1 are known")]
    Command(u8),
    #[error("PROXY header with {got} bytes of addresses, where the family has {wanted}")]
    Short { got: usize, wanted: usize },
    #[error("PROXY header of {0} bytes, where {MAX_BYTES} are the most")]
    Long(usize),
}

/// The longest line with its end (section 2.1).
const MAX_LINE_BYTES: usize = 107;
/// The longest header that is taken. The length field of version 2 allows 64 KiB more than any balancer sends.
pub(crate) const MAX_BYTES: usize = 4096;

const LINE_START: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length.
const FIXED_BYTES: usize = 16;
/// Family and transport in one byte (section 2.2).
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

impl ProxyHeader {
    /// Looks at the first bytes of a connection, `input`, which may hold more than the header.
    ///
    /// # Errors
    ///
    /// That they are no header, whatever follows.
    pub(crate) fn parse(input: &[u8]) -> Result<Self, ProxyHeaderError> {
        match input.first() {
            None => Ok(Self::Partial(1)),
            Some(b'P') => parse_line(input),
            Some(_) => parse_binary(input),
        }
    }
}

fn parse_line(input: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    begins_with(input, LINE_START)?;
    let searched = &input[..input.len().min(MAX_LINE_BYTES)];
    let Some(feed) = searched.iter().position(|byte| *byte == b'\n') else {
        if input.len() >= MAX_LINE_BYTES {
            return Err(ProxyHeaderError::LongLine);
        }
        return Ok(ProxyHeader::Partial(input.len() + 1));
    };
    let words = searched[LINE_START.len()..feed].strip_suffix(b"\r");
    let source = words.and_then(read_line).ok_or(ProxyHeaderError::Line)?;
    Ok(ProxyHeader::Complete { len: feed + 1, source })
}

/// What stands between `PROXY ` and the end of the line; `None`: nothing that can be.
fn read_line(words: &[u8]) -> Option<Option<SocketAddr>> {
    let words = std::str::from_utf8(words).ok()?;
    let (family, rest) = words.split_once(' ').unwrap_or((words, ""));
    let mut rest = rest.split(' ');
    let source = match family {
        // Whatever follows is to be ignored (section 2.1).
        "UNKNOWN" => return Some(None),
        "TCP4" => addresses::<Ipv4Addr>(&mut rest)?,
        "TCP6" => addresses::<Ipv6Addr>(&mut rest)?,
        _ => return None,
    };
    let (port, _) = (self::port(rest.next()?)?, self::port(rest.next()?)?);
    rest.next().is_none().then_some(Some(SocketAddr::new(source, port)))
}

/// Source and destination, of which the first is kept.
fn addresses<'a, A: FromStr + Into<IpAddr>>(words: &mut impl Iterator<Item = &'a str>) -> Option<IpAddr> {
    let source: A = words.next()?.parse().ok()?;
    let _: A = words.next()?.parse().ok()?;
    Some(source.into())
}

/// A decimal number without sign and leading zeros.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|digit| digit.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain)
}

fn parse_binary(input: &[u8]) -> Result<ProxyHeader, ProxyHeaderError> {
    begins_with(input, SIGNATURE)?;
    let Some((fixed, rest)) = input.split_first_chunk::<FIXED_BYTES>() else {
        return Ok(ProxyHeader::Partial(FIXED_BYTES));
    };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 0x0F, fixed[13]);
    if version != 2 {
        return Err(ProxyHeaderError::Version(version));
    }
    let got = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    // Of `LOCAL` the family is to be ignored, and what follows it skipped.
    let wanted = match (command, family) {
        (0, _) => 0,
        (1, TCP_OVER_IPV4) => 12,
        (1, TCP_OVER_IPV6) => 36,
        (1, _) => 0,
        _ => return Err(ProxyHeaderError::Command(command)),
    };
    if got < wanted {
        return Err(ProxyHeaderError::Short { got, wanted });
    }
    let len = FIXED_BYTES + got;
    if len > MAX_BYTES {
        return Err(ProxyHeaderError::Long(len));
    }
    if input.len() < len {
        return Ok(ProxyHeader::Partial(len));
    }
    let source = match wanted {
        12 => source::<4>(rest, 8),
        36 => source::<16>(rest, 32),
        _ => None,
    };
    Ok(ProxyHeader::Complete { len, source })
}

/// The address at the start of a block of addresses, and the port at `port_at`.
fn source<const N: usize>(block: &[u8], port_at: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let address = *block.first_chunk::<N>()?;
    let port = *block.get(port_at..)?.first_chunk::<2>()?;
    Some(SocketAddr::new(address.into(), u16::from_be_bytes(port)))
}

/// Refuses what can never begin with `start`.
fn begins_with(input: &[u8], start: &[u8]) -> Result<(), ProxyHeaderError> {
    let known = input.len().min(start.len());
    if input[..known] == start[..known] { Ok(()) } else { Err(ProxyHeaderError::Signature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(len: usize, source: &str) -> Result<ProxyHeader, ProxyHeaderError> {
        let source = (!source.is_empty()).then(|| source.parse().unwrap());
        Ok(ProxyHeader::Complete { len, source })
    }

    /// A header of version 2 with this command byte, family and block.
    fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let len = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &len, block].concat()
    }

    fn ipv4_block() -> Vec<u8> {
        [&[192, 0, 2, 1, 198, 51, 100, 9][..], &56324u16.to_be_bytes(), &443u16.to_be_bytes()].concat()
    }

    fn ipv6_block() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::7".parse().unwrap();
        [&source.octets()[..], &[0; 16], &9u16.to_be_bytes(), &443u16.to_be_bytes()].concat()
    }

    /// Every header, alone and with bytes behind it, is the same; and every beginning of it asks for more, but for no more than
    /// the header has.
    fn check(header: &[u8], source: &str) {
        assert_eq!(ProxyHeader::parse(header), complete(header.len(), source));
        let glued = [header, b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(ProxyHeader::parse(&glued), complete(header.len(), source));
        for at in 0..header.len() {
            match ProxyHeader::parse(&header[..at]) {
                Ok(ProxyHeader::Partial(need)) => assert!(need > at && need <= header.len(), "{at}: {need}"),
                other => panic!("{at} of {}: {other:?}", header.len()),
            }
        }
    }

    #[test]
    fn lines_are_read() {
        for (line, source) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.9 56324 443", "192.0.2.1:56324"),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", "255.255.255.255:65535"),
            ("PROXY TCP4 0.0.0.0 0.0.0.0 0 0", "0.0.0.0:0"),
            ("PROXY TCP6 2001:db8::1 ::1 1 2", "[2001:db8::1]:1"),
            (
                "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
                "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            ),
            ("PROXY UNKNOWN", ""),
            ("PROXY UNKNOWN anything at all", ""),
            (
                "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
                "",
            ),
        ] {
            check(format!("{line}\r\n").as_bytes(), source);
        }
    }

    #[test]
    fn lines_that_are_not_as_the_specification_has_them_are_refused() {
        for line in [
            "PROXY ",
            "PROXY  TCP4 1.2.3.4 1.2.3.4 1 2",
            "PROXY TCP4  1.2.3.4 1.2.3.4 1 2",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 ",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1",
            "PROXY TCP4 1.2.3.4 1.2.3.4",
            "PROXY TCP4 1.2.3.4",
            "PROXY TCP4",
            "PROXY TCP5 1.2.3.4 1.2.3.4 1 2",
            "PROXY tcp4 1.2.3.4 1.2.3.4 1 2",
            "PROXY TCP4 ::1 ::1 1 2",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2",
            "PROXY TCP4 1.2.3.4 1.2.3.256 1 2",
            "PROXY TCP4 01.2.3.4 1.2.3.4 1 2",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 -2",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 ",
            "PROXY TCP4\t1.2.3.4 1.2.3.4 1 2",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n",
            "PROXY UNKNOWNX",
        ] {
            let input = format!("{line}\r\n");
            assert_eq!(ProxyHeader::parse(input.as_bytes()), Err(ProxyHeaderError::Line), "{line}");
        }
        // The end of a line is CR and LF, and it is not searched for without end.
        let bare = ProxyHeader::parse(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n");
        assert_eq!(bare, Err(ProxyHeaderError::Line));
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE_BYTES - 15));
        assert_eq!(long.len(), MAX_LINE_BYTES + 1);
        assert_eq!(ProxyHeader::parse(long.as_bytes()), Err(ProxyHeaderError::LongLine));
        check(format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE_BYTES - 16)).as_bytes(), "");
    }

    #[test]
    fn binary_headers_are_read() {
        check(&binary(0x21, 0x11, &ipv4_block()), "192.0.2.1:56324");
        check(&binary(0x21, 0x21, &ipv6_block()), "[2001:db8::7]:9");
        let extended = |mut block: Vec<u8>| {
            block.extend([0x03, 0x00, 0x04, 1, 2, 3, 4, 0x20, 0x00, 0x00]);
            block
        };
        check(&binary(0x21, 0x11, &extended(ipv4_block())), "192.0.2.1:56324");
        check(&binary(0x21, 0x21, &extended(ipv6_block())), "[2001:db8::7]:9");
        // The balancer's own connection, and addresses of other kinds: Unix, datagrams, unspecified.
        for (command, family) in
            [(0x20, 0x00), (0x20, 0x11), (0x20, 0xFF), (0x21, 0x00), (0x21, 0x31), (0x21, 0x12)]
        {
            check(&binary(command, family, &[]), "");
            check(&binary(command, family, &[7; 216]), "");
        }
        check(&binary(0x20, 0x00, &vec![0; MAX_BYTES - FIXED_BYTES]), "");
    }

    #[test]
    fn binary_headers_that_are_not_as_the_specification_has_them_are_refused() {
        let error = |input: &[u8]| ProxyHeader::parse(input).unwrap_err();
        assert_eq!(error(&binary(0x11, 0x11, &ipv4_block())), ProxyHeaderError::Version(1));
        assert_eq!(error(&binary(0x31, 0x11, &ipv4_block())), ProxyHeaderError::Version(3));
        assert_eq!(error(&binary(0x22, 0x11, &ipv4_block())), ProxyHeaderError::Command(2));
        let short = ProxyHeaderError::Short { got: 11, wanted: 12 };
        assert_eq!(error(&binary(0x21, 0x11, &ipv4_block()[..11])), short);
        let short = ProxyHeaderError::Short { got: 12, wanted: 36 };
        assert_eq!(error(&binary(0x21, 0x21, &ipv4_block())), short);
        let long = vec![0; MAX_BYTES - FIXED_BYTES + 1];
        assert_eq!(error(&binary(0x20, 0, &long)), ProxyHeaderError::Long(MAX_BYTES + 1));
        // Refused at once: nothing of what is announced is waited for.
        assert_eq!(error(&binary(0x20, 0, &long)[..FIXED_BYTES]), ProxyHeaderError::Long(MAX_BYTES + 1));
    }

    #[test]
    fn what_cannot_become_a_header_is_refused_at_its_first_wrong_byte() {
        for start in [LINE_START, SIGNATURE] {
            for at in 0..start.len() {
                let mut wrong = start[..=at].to_vec();
                wrong[at] ^= 0x20;
                assert_eq!(ProxyHeader::parse(&wrong), Err(ProxyHeaderError::Signature), "{at}");
            }
        }
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"\r\n", b"\0", b"POST /"] {
            let refused = ProxyHeader::parse(other);
            // The empty lines before a request might still become the signature.
            let expected = if other == b"\r\n" {
                Ok(ProxyHeader::Partial(16))
            } else {
                Err(ProxyHeaderError::Signature)
            };
            assert_eq!(refused, expected, "{}", other.escape_ascii());
        }
    }
}
