//! `CaptureFile`: the packets of a pcap or pcapng file, one after the other.
//!
//! Invariant: no more of the file is held than one record and a read, and a record larger than [`MAX_RECORD`] is an error and
//! no reason to hold more. An error names the offset at which the bad record begins; the packets before it were handed out.
//! What is in a packet is not looked at here.

use std::io::{self, Read};
use std::ops::Range;

use pcap_parser::nom::Err as NomError;
use pcap_parser::{Block, LegacyPcapBlock, PcapError};
use pcap_parser::{
    parse_block_be, parse_block_le, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified,
    parse_pcap_header, parse_sectionheaderblock,
};

/// Bytes of the largest record that is read. libpcap takes at most 256 KiB from a network interface.
pub const MAX_RECORD: usize = 16 << 20;
/// How much is read at once.
const READ: usize = 256 << 10;
/// Interfaces of one section of a pcapng file.
const MAX_INTERFACES: usize = 4_096;

/// Why a file cannot be read, or not any further.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The file cannot be opened.
    #[error("the file cannot be opened")]
    Open(#[source] io::Error),
    /// The file cannot be read.
    #[error("the file cannot be read at byte {offset}")]
    Read {
        /// From the start of the file.
        offset: u64,
        /// What came of it.
        source: io::Error,
    },
    /// The start of the file is that of neither format.
    #[error("this is neither a pcap nor a pcapng file")]
    Unknown,
    /// The file ends within a record, as it does while it is still written, or when the disk was full.
    #[error(
        "the file ends in the middle of a record, which begins at byte {offset}, after {packets} packets"
    )]
    Truncated {
        /// Where the record begins.
        offset: u64,
        /// Whole packets before it.
        packets: u64,
    },
    /// A record contradicts itself.
    #[error("the record at byte {offset}, after {packets} packets, is damaged: {what}")]
    Damaged {
        /// Where the record begins.
        offset: u64,
        /// Whole packets before it.
        packets: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A packet as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its number in the file, from 1 on, as other programs count too.
    pub number: u64,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Which header it begins with: a LINKTYPE of tcpdump.org.
    pub link: i32,
    /// What was captured of it.
    pub bytes: &'a [u8],
    /// How long it was.
    pub original_len: u32,
}

/// The packets of a file.
#[derive(Debug)]
pub struct CaptureFile<R> {
    source: R,
    /// What was read and is not done with begins at `at`.
    buf: Vec<u8>,
    at: usize,
    /// Where `buf[at]` stands in the file.
    offset: u64,
    is_at_end: bool,
    format: Format,
    /// Of the current section; a pcap file has exactly one.
    interfaces: Vec<Interface>,
    packets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Pcap { big_endian: bool, is_modified: bool },
    PcapNg { big_endian: bool },
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: i32,
    units_per_s: u64,
    /// Seconds to add to each time.
    offset_s: i64,
    snap_len: u32,
}

/// What a record was.
enum Record {
    Packet { number: u64, time_ns: u64, link: i32, bytes: Range<usize>, original_len: u32 },
    Other,
}

/// Why a record could not be taken from what there is.
enum Stop {
    NeedMore,
    Damaged(&'static str),
}

impl<R: Read> CaptureFile<R> {
    /// Reads the head of the file.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Unknown`] when it is of another kind or too short to tell, [`CaptureError::Read`].
    pub fn open(source: R) -> Result<Self, CaptureError> {
        let mut file = Self {
            source,
            buf: Vec::new(),
            at: 0,
            offset: 0,
            is_at_end: false,
            format: Format::PcapNg { big_endian: false },
            interfaces: Vec::new(),
            packets: 0,
        };
        // A pipe may hand out less than a head at once.
        while !file.is_at_end && file.buf.len() < READ {
            file.read_more()?;
        }
        if let Ok((_, section)) = parse_sectionheaderblock(&file.buf) {
            file.format = Format::PcapNg { big_endian: section.big_endian() };
            return Ok(file);
        }
        let (_, head) = parse_pcap_header(&file.buf).map_err(|_| CaptureError::Unknown)?;
        file.format =
            Format::Pcap { big_endian: head.is_bigendian(), is_modified: head.is_modified_format() };
        let units_per_s = if head.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
        // The upper half has flags for the checksum at the end of a frame, which the lengths inside leave out anyway.
        let link = head.network.0 & 0xffff;
        file.interfaces.push(Interface { link, units_per_s, offset_s: 0, snap_len: head.snaplen });
        file.consume(head.size());
        Ok(file)
    }

    /// `pcap` or `pcapng`.
    #[must_use]
    pub fn format(&self) -> &'static str {
        match self.format {
            Format::Pcap { .. } => "pcap",
            Format::PcapNg { .. } => "pcapng",
        }
    }

    /// The next packet, or nothing at the end of the file.
    ///
    /// # Errors
    ///
    /// [`CaptureError::Read`], [`CaptureError::Truncated`] and [`CaptureError::Damaged`]. Nothing comes after an error.
    pub fn next_packet(&mut self) -> Result<Option<Packet<'_>>, CaptureError> {
        loop {
            if self.rest().is_empty() && self.is_at_end {
                return Ok(None);
            }
            match self.record() {
                Ok((len, Record::Other)) => self.consume(len),
                Ok((len, Record::Packet { number, time_ns, link, bytes, original_len })) => {
                    let at = self.at;
                    self.consume(len);
                    let bytes = &self.buf[at + bytes.start..at + bytes.end];
                    return Ok(Some(Packet { number, time_ns, link, bytes, original_len }));
                }
                Err(Stop::NeedMore) if self.is_at_end => {
                    return Err(CaptureError::Truncated { offset: self.offset, packets: self.packets });
                }
                Err(Stop::NeedMore) if self.rest().len() >= MAX_RECORD => {
                    return Err(self.damaged("it is longer than 16 MiB"));
                }
                Err(Stop::NeedMore) => self.read_more()?,
                Err(Stop::Damaged(what)) => return Err(self.damaged(what)),
            }
        }
    }

    fn damaged(&self, what: &'static str) -> CaptureError {
        CaptureError::Damaged { offset: self.offset, packets: self.packets, what }
    }

    fn rest(&self) -> &[u8] {
        &self.buf[self.at..]
    }

    fn consume(&mut self, len: usize) {
        self.at += len;
        self.offset += len as u64;
    }

    fn read_more(&mut self) -> Result<(), CaptureError> {
        self.buf.drain(..self.at);
        self.at = 0;
        let len = self.buf.len();
        self.buf.resize(len + READ, 0);
        let read = loop {
            match self.source.read(&mut self.buf[len..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.buf.truncate(len + read.as_ref().copied().unwrap_or(0));
        let offset = self.offset + len as u64;
        self.is_at_end = read.map_err(|source| CaptureError::Read { offset, source })? == 0;
        Ok(())
    }

    /// The record at the start of what was read, and its length.
    fn record(&mut self) -> Result<(usize, Record), Stop> {
        match self.format {
            Format::Pcap { big_endian, is_modified } => {
                let parse = match (big_endian, is_modified) {
                    (_, true) => parse_pcap_frame_modified,
                    (true, false) => parse_pcap_frame_be,
                    (false, false) => parse_pcap_frame,
                };
                let input = &self.buf[self.at..];
                let (rest, frame) = parse(input).map_err(|error| stop(&error))?;
                let len = input.len() - rest.len();
                let packet = legacy(&frame, len, self.interfaces[0]);
                Ok((len, self.numbered(packet?)))
            }
            Format::PcapNg { .. } => self.block(),
        }
    }

    fn block(&mut self) -> Result<(usize, Record), Stop> {
        let input = &self.buf[self.at..];
        let Format::PcapNg { big_endian } = self.format else { return Err(Stop::Damaged("it is no block")) };
        let parse = if big_endian { parse_block_be } else { parse_block_le };
        let (rest, block) = parse(input).map_err(|error| match stop(&error) {
            // The parser also asks for more when what is inside a whole block reaches over its end.
            Stop::NeedMore if is_whole(input, big_endian) => Stop::Damaged("its lengths do not fit together"),
            other => other,
        })?;
        let len = input.len() - rest.len();
        let record = match block {
            Block::SectionHeader(section) => {
                self.format = Format::PcapNg { big_endian: section.big_endian() };
                self.interfaces.clear();
                Record::Other
            }
            Block::InterfaceDescription(it) => {
                if self.interfaces.len() == MAX_INTERFACES {
                    return Err(Stop::Damaged("its section has more than 4096 interfaces"));
                }
                let Some(units_per_s) = units_per_s(it.if_tsresol) else {
                    return Err(Stop::Damaged("its clock has a resolution that nobody can count in"));
                };
                // The parser reads this as little-endian in every section.
                let offset_s = if big_endian { it.if_tsoffset.swap_bytes() } else { it.if_tsoffset };
                let (link, snap_len) = (it.linktype.0, it.snaplen);
                self.interfaces.push(Interface { link, units_per_s, offset_s, snap_len });
                Record::Other
            }
            Block::EnhancedPacket(packet) => {
                let Some(interface) =
                    usize::try_from(packet.if_id).ok().and_then(|id| self.interfaces.get(id))
                else {
                    return Err(Stop::Damaged("its interface was not described"));
                };
                let ticks = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let range = captured(EPB_HEAD, packet.caplen, len)?;
                self.numbered(interface.packet(ticks, range, packet.origlen))
            }
            Block::SimplePacket(packet) => {
                let Some(interface) = self.interfaces.first() else {
                    return Err(Stop::Damaged("its interface was not described"));
                };
                // It has no time; what needs one will make nothing of it.
                let snap_len = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
                let room = u32::try_from(len - SPB_HEAD - BLOCK_END).unwrap_or(u32::MAX);
                let range = captured(SPB_HEAD, packet.origlen.min(snap_len).min(room), len)?;
                self.numbered(interface.packet(0, range, packet.origlen))
            }
            _ => Record::Other,
        };
        Ok((len, record))
    }

    fn numbered(&mut self, mut record: Record) -> Record {
        if let Record::Packet { number, .. } = &mut record {
            self.packets += 1;
            *number = self.packets;
        }
        record
    }
}

impl Interface {
    fn packet(self, ticks: u64, bytes: Range<usize>, original_len: u32) -> Record {
        Record::Packet { number: 0, time_ns: self.time_ns(ticks), link: self.link, bytes, original_len }
    }

    fn time_ns(self, ticks: u64) -> u64 {
        let ns = u128::from(ticks) * 1_000_000_000 / u128::from(self.units_per_s);
        let ns =
            i128::try_from(ns).unwrap_or(i128::MAX).saturating_add(i128::from(self.offset_s) * 1_000_000_000);
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

/// A packet of a pcap file.
fn legacy(frame: &LegacyPcapBlock<'_>, len: usize, interface: Interface) -> Result<Record, Stop> {
    if u64::from(frame.ts_usec) >= interface.units_per_s {
        return Err(Stop::Damaged("its time has more than a second behind the point"));
    }
    let ticks = u64::from(frame.ts_sec) * interface.units_per_s + u64::from(frame.ts_usec);
    // The bytes are the last of the record, whatever stands before them.
    Ok(interface.packet(ticks, len - frame.data.len()..len, frame.origlen))
}

/// Where the captured bytes stand in a block.
fn captured(head: usize, caplen: u32, block: usize) -> Result<Range<usize>, Stop> {
    let end = usize::try_from(caplen).ok().and_then(|len| head.checked_add(len));
    match end.filter(|end| *end <= block - BLOCK_END) {
        Some(end) => Ok(head..end),
        None => Err(Stop::Damaged("it has fewer bytes than it says")),
    }
}

fn stop(error: &NomError<PcapError<&[u8]>>) -> Stop {
    match error {
        NomError::Incomplete(_) => Stop::NeedMore,
        _ => Stop::Damaged("its lengths do not fit together"),
    }
}

/// Whether a block is there to its end.
fn is_whole(input: &[u8], big_endian: bool) -> bool {
    let len = input
        .get(4..8)
        .and_then(<[u8]>::first_chunk)
        .map(|len| if big_endian { u32::from_be_bytes(*len) } else { u32::from_le_bytes(*len) });
    len.and_then(|len| usize::try_from(len).ok()).is_some_and(|len| len <= input.len())
}

/// What `if_tsresol` means: a power of ten, or with the highest bit of two.
fn units_per_s(resolution: u8) -> Option<u64> {
    let exponent = u32::from(resolution & 0x7f);
    if resolution & 0x80 == 0 { 10_u64.checked_pow(exponent) } else { 1_u64.checked_shl(exponent) }
}

/// Bytes before the packet in an Enhanced Packet Block.
const EPB_HEAD: usize = 28;
/// Bytes before the packet in a Simple Packet Block.
const SPB_HEAD: usize = 12;
/// The length at the end of a block.
const BLOCK_END: usize = 4;
