//! `Forwarder`: the wire between two namespaces, which takes its time, and drops, doubles and reorders packets by a plan.
//!
//! Invariant: a packet is on its way for at least [`Plan::way`], and every packet goes on, each in its turn, but for those that
//! the plan names. These are counted from the first data on and not thrown for: every run troubles as many of as many.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// What happens to packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// One way takes at least so long.
    pub(crate) way: Duration,
    /// And up to so much longer, by turns.
    pub(crate) jitter: Duration,
    /// Of the packets with data of one direction, each so-and-so-many-th does not arrive.
    pub(crate) drop_each: u64,
    /// Arrives twice.
    pub(crate) double_each: u64,
    /// Is so much later that others overtake it.
    pub(crate) late_each: u64,
    pub(crate) late: Duration,
}

/// What was done to packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deeds {
    /// TCP packets with data.
    pub(crate) packets: u64,
    pub(crate) dropped: u64,
    /// Of IPv4, whose packets have a number by which they are known again.
    pub(crate) doubled: u64,
    /// Of IPv6.
    pub(crate) doubled_unnumbered: u64,
    /// Those that were held back, overtaken or not.
    pub(crate) held_back: u64,
}

/// A thread that brings packets from one device to the other.
pub(crate) struct Forwarder {
    is_done: Arc<AtomicBool>,
    thread: Option<JoinHandle<[Deeds; 2]>>,
}

/// A packet on its way: when it arrives, in which turn it came, and where it goes.
type Way = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Wire {
    plan: Plan,
    /// The packet sockets of both ends.
    ends: [OwnedFd; 2],
    on_the_way: BinaryHeap<Way>,
    /// When the last packet arrives that goes to an end.
    last: [Instant; 2],
    turn: u64,
    deeds: [Deeds; 2],
}

impl Forwarder {
    /// Begins to bring packets between two devices of a namespace; when this returns, no packet is missed.
    pub(crate) fn start(namespace: &str, devices: [&'static str; 2], plan: Plan) -> Self {
        let namespace = File::open(Path::new("/run/netns").join(namespace)).unwrap();
        let is_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_done);
        let (ready, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let now = Instant::now();
            let mut wire = Wire {
                plan,
                ends: devices.map(|device| listen(device).unwrap()),
                on_the_way: BinaryHeap::new(),
                last: [now; 2],
                turn: 0,
                deeds: [Deeds::default(); 2],
            };
            ready.send(()).unwrap();
            while !done.load(Ordering::Relaxed) {
                wire.turn();
            }
            wire.deeds
        });
        begun.recv().unwrap();
        Self { is_done, thread: Some(thread) }
    }

    /// What was done to packets that came from the first device, and from the second.
    pub(crate) fn stop(mut self) -> [Deeds; 2] {
        self.is_done.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}

/// A socket that has whole packets of one device (packet(7)).
fn listen(device: &str) -> io::Result<OwnedFd> {
    let end = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
    let link = |address: nix::ifaddrs::InterfaceAddress| address.address?.as_link_addr().copied();
    let link: LinkAddr = getifaddrs()?
        .filter(|address| address.interface_name == device)
        .find_map(link)
        .ok_or_else(|| io::Error::other(format!("there is no device {device}")))?;
    bind(end.as_raw_fd(), &link)?;
    sockopt::set_socket_recv_buffer_size_force(&end, BUFFER)?;
    Ok(end)
}

impl Wire {
    fn turn(&mut self) {
        let now = Instant::now();
        while self.on_the_way.peek().is_some_and(|way| way.0.0 <= now) {
            let Some(Reverse((_, _, to, bytes))) = self.on_the_way.pop() else { return };
            // A full device loses packets as any network does; TCP sends them again.
            let _ = send(&self.ends[to], &bytes, SendFlags::DONTWAIT);
        }
        let wait =
            self.on_the_way.peek().map_or(LOOK, |way| LOOK.min(way.0.0.saturating_duration_since(now)));
        let mut ready = [0, 1].map(|end| PollFd::new(&self.ends[end], PollFlags::IN));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
        poll(&mut ready, Some(&timeout)).unwrap();
        let ready = ready.map(|end| end.revents().contains(PollFlags::IN));
        for from in (0..2).filter(|end| ready[*end]) {
            let mut buf = vec![0; 65_536];
            while let Ok((len, _)) = recv(&self.ends[from], &mut buf[..], RecvFlags::DONTWAIT) {
                self.take(from, &mut buf[..len]);
            }
        }
    }

    /// A packet has come from one end.
    fn take(&mut self, from: usize, packet: &mut [u8]) {
        let (plan, to) = (self.plan, 1 - from);
        let trouble = tcp(packet).map(|tcp| {
            complete(packet, tcp);
            (tcp, self.trouble(from, tcp))
        });
        // Steps of a fifth, in an order that goes up and down.
        let steps = [0, 3, 1, 5, 2, 4][usize::try_from(self.turn % 6).unwrap()];
        let due = (Instant::now() + plan.way + plan.jitter * steps / 5).max(self.last[to]);
        let deeds = &mut self.deeds[from];
        let mut copies = 1;
        match trouble {
            Some((_, Trouble::Drop)) => {
                deeds.dropped += 1;
                return;
            }
            Some((_, Trouble::Late)) => {
                deeds.held_back += 1;
                return self.send(due + plan.late, to, packet);
            }
            Some((tcp, Trouble::Double)) => {
                copies = 2;
                *(if tcp.is_numbered { &mut deeds.doubled } else { &mut deeds.doubled_unnumbered }) += 1;
            }
            _ => {}
        }
        self.last[to] = due;
        (0..copies).for_each(|_| self.send(due, to, packet));
    }

    fn send(&mut self, due: Instant, to: usize, packet: &[u8]) {
        self.turn += 1;
        self.on_the_way.push(Reverse((due, self.turn, to, packet.to_vec())));
    }

    fn trouble(&mut self, from: usize, tcp: TcpPlace) -> Trouble {
        if !tcp.has_data {
            return Trouble::None;
        }
        let (plan, deeds) = (self.plan, &mut self.deeds[from]);
        deeds.packets += 1;
        let is_turn = |each| deeds.packets % each == each / 2;
        match () {
            () if is_turn(plan.drop_each) => Trouble::Drop,
            () if is_turn(plan.double_each) => Trouble::Double,
            () if is_turn(plan.late_each) => Trouble::Late,
            () => Trouble::None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Drop,
    Double,
    Late,
}

/// Where TCP is in a frame.
#[derive(Clone, Copy)]
struct TcpPlace {
    /// Where the IP addresses begin, up to where TCP begins.
    addresses: usize,
    at: usize,
    end: usize,
    has_data: bool,
    is_numbered: bool,
}

fn tcp(frame: &[u8]) -> Option<TcpPlace> {
    let u16_at = |at: usize| frame.get(at..at + 2).map(|it| usize::from(u16::from_be_bytes([it[0], it[1]])));
    let (addresses, at, end, next) = match u16_at(12)? {
        0x0800 => {
            let head = usize::from(*frame.get(14)? & 0x0f) * 4;
            (26, 14 + head, 14 + u16_at(16)?, *frame.get(23)?)
        }
        0x86dd => (22, 54, 54 + u16_at(18)?, *frame.get(20)?),
        _ => return None,
    };
    let head = usize::from(*frame.get(at + 12)? >> 4) * 4;
    let is_numbered = addresses == 26 && u16_at(18)? != 0;
    (next == 6 && end <= frame.len()).then_some(TcpPlace {
        addresses,
        at,
        end,
        has_data: end > at + head,
        is_numbered,
    })
}

/// Puts in the checksum (RFC 9293, section 3.1), which the sender has left to a network card that there is not.
fn complete(frame: &mut [u8], tcp: TcpPlace) {
    frame[tcp.at + 16..tcp.at + 18].fill(0);
    let len = u16::try_from(tcp.end - tcp.at).unwrap();
    let addresses = if tcp.addresses == 26 { 26..34 } else { 22..54 };
    let words = frame[addresses].chunks(2).chain(frame[tcp.at..tcp.end].chunks(2));
    let word = |it: &[u8]| u32::from(u16::from_be_bytes([it[0], it.get(1).copied().unwrap_or(0)]));
    let mut sum = words.map(word).sum::<u32>() + u32::from(len) + 6;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    frame[tcp.at + 16..tcp.at + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Room for what comes while others have the processor, in bytes.
const BUFFER: usize = 32 << 20;
/// How often it looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
