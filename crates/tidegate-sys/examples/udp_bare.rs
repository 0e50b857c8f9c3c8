//! The least that an echo of datagrams can do, to compare others with, and a load for both.
//!
//! ```text
//! udp_bare serve ADDRESS                       a bare loop over recvmmsg(2) and sendmmsg(2)
//! udp_bare load ADDRESS PEERS WINDOW SIZE COUNT
//! ```
//!
//! Each of PEERS sockets sends WINDOW datagrams of SIZE bytes and takes what comes back, until there are COUNT. The load
//! checks what comes back, and says how many were lost. See `crates/tidegate-bench/compare/udp.sh`.
#![expect(unsafe_code, reason = "the bare system calls are what others are compared with")]
#![expect(clippy::print_stdout, reason = "a program says what it has measured")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use tidegate_sys::datagram::{Inbound, Outbound, Traits};

const BATCH: usize = 32;
const ROOM: usize = 2048;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<usize>().ok());
    match (args.first().map(String::as_str), args.get(1)) {
        (Some("serve"), Some(address)) => Ok(serve(&UdpSocket::bind(address)?)?),
        (Some("load"), Some(address)) => {
            let number = |at| number(at).filter(|number| *number > 0);
            let (peers, window) = (number(2).unwrap_or(1), number(3).unwrap_or(64));
            let (size, count) = (number(4).unwrap_or(64), number(5).unwrap_or(1_000_000));
            Ok(load(address.parse()?, &Load { peers, window, size, count })?)
        }
        _ => Err("udp_bare serve ADDRESS | udp_bare load ADDRESS PEERS WINDOW SIZE COUNT".into()),
    }
}

fn serve(socket: &UdpSocket) -> io::Result<()> {
    println!("ready, bare=udp:{}", socket.local_addr()?);
    let mut bytes = vec![[0u8; ROOM]; BATCH];
    // SAFETY: an address is numbers, which may be zero.
    let mut names: [libc::sockaddr_in6; BATCH] = unsafe { std::mem::zeroed() };
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
    // SAFETY: numbers and pointers, which may be zero.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for at in 0..BATCH {
        parts[at].iov_base = bytes[at].as_mut_ptr().cast();
        messages[at].msg_hdr.msg_iov = &raw mut parts[at];
        messages[at].msg_hdr.msg_iovlen = 1;
        messages[at].msg_hdr.msg_name = (&raw mut names[at]).cast();
    }
    let (fd, all) = (socket.as_raw_fd(), u32::try_from(BATCH).map_err(io::Error::other)?);
    let room = libc::socklen_t::try_from(size_of::<libc::sockaddr_in6>()).map_err(io::Error::other)?;
    loop {
        for at in 0..BATCH {
            parts[at].iov_len = ROOM;
            messages[at].msg_hdr.msg_namelen = room;
        }
        let flags = libc::MSG_WAITFORONE;
        // SAFETY: the headers name buffers of this function, which nothing else uses meanwhile.
        let count = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), all, flags, std::ptr::null_mut()) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for at in 0..count {
            parts[at].iov_len = messages[at].msg_len as usize;
        }
        let mut sent = 0;
        while sent < count {
            let left = u32::try_from(count - sent).map_err(io::Error::other)?;
            // SAFETY: as above; the headers from `sent` to `count` have been filled by the receive.
            let done = unsafe { libc::sendmmsg(fd, messages[sent..].as_mut_ptr(), left, 0) };
            sent += usize::try_from(done).map_err(|_| io::Error::last_os_error())?;
        }
    }
}

/// How much of what.
struct Load {
    /// Sockets, each a peer of its own to the server.
    peers: usize,
    /// Of each peer, on their way at once.
    window: usize,
    size: usize,
    count: usize,
}

fn load(to: SocketAddr, load: &Load) -> io::Result<()> {
    let from = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let sockets: io::Result<Vec<UdpSocket>> = (0..load.peers).map(|_| UdpSocket::bind(from)).collect();
    let sockets = sockets?;
    for socket in &sockets {
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    }
    let (mut out, mut batch) = (Outbound::default(), Inbound::new(ROOM));
    let (to, payload) = (to.into(), vec![0x5a; load.size]);
    let (mut came, mut lost) = (0, 0);
    let began = Instant::now();
    while came < load.count {
        for socket in &sockets {
            (0..load.window).for_each(|_| out.push(&to, None, &payload));
            while !out.is_empty() {
                out.send(socket, Traits::default())?;
            }
        }
        for socket in &sockets {
            let back = receive(socket, load.window, &mut batch, &payload)?;
            came += back;
            lost += load.window - back;
        }
    }
    println!("{came} datagrams in {:.3} s, {lost} lost", began.elapsed().as_secs_f64());
    Ok(())
}

/// Receives so many, unless they are lost. How many have come.
fn receive(socket: &UdpSocket, window: usize, batch: &mut Inbound, payload: &[u8]) -> io::Result<usize> {
    let mut came = 0;
    while came < window {
        // Waits for one; then takes what else is there.
        match socket.peek(&mut [0]) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                break;
            }
            other => _ = other?,
        }
        let count = batch.receive(socket, Traits::default())?;
        came += count;
        if !(0..count).all(|at| batch.get(at).is_some_and(|it| it.bytes == payload)) {
            return Err(io::Error::other("what came back is not what was sent"));
        }
    }
    Ok(came)
}
