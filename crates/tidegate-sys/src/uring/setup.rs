//! Making a ring, and finding out whether the kernel has what it takes.
//!
//! Flags and probes say what a kernel knows, not what it does: a ring is trusted only after a small one of the same kind
//! has carried bytes over a socket pair and accepted a connection.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use io_uring::{IoUring, Probe, opcode};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
    send, socket_with, socketpair,
};
use rustix::time::Timespec;

use super::buffers::Buffers;
use super::lifetime::errno;
use super::sends::Sends;
use super::{Event, Operation, Ring, Tell};

/// Why io_uring cannot be used here: what was tried, and what the kernel answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("io_uring: {step}: {errno}")]
pub struct Unavailable {
    /// The operation, the flag or the call.
    pub step: &'static str,
    /// The kernel's answer; `EOPNOTSUPP` for what it does not know.
    pub errno: Errno,
}

/// Submissions that wait for the next call at most before they go to the backlog.
const SUBMISSIONS: u32 = 1024;
/// What happens before it is looked at, without another list of the kernel's: a turn's worth and more.
const COMPLETIONS: u32 = 8192;
/// What may be received in one turn: 512 KiB, which stays in the processor's cache from turn to turn.
const BUFFERS: u16 = 32;
const BUFFER_BYTES: u32 = 16 << 10;

impl Ring {
    /// Makes a ring, when a small one has shown that it works.
    ///
    /// # Errors
    ///
    /// The first thing that the kernel lacks, forbids or does otherwise.
    pub fn new() -> Result<Self, Unavailable> {
        // On a thread of its own: what a ring leaves to be done interrupts the next wait of the thread that used it, which
        // may be one that does not expect it.
        let trial = std::thread::Builder::new().name("uring-trial".into()).spawn(try_out);
        let tried =
            trial.map_err(|error| Unavailable { step: "thread for a trial", errno: errno(&error) })?;
        tried.join().unwrap_or(Err(Unavailable { step: "trial", errno: Errno::CANCELED }))?;
        Self::with(SUBMISSIONS, COMPLETIONS, BUFFERS, BUFFER_BYTES)
    }

    fn with(submissions: u32, completions: u32, buffers: u16, size: u32) -> Result<Self, Unavailable> {
        let ring = IoUring::builder()
            .dontfork()
            .setup_cqsize(completions)
            .setup_submit_all()
            // The thread that waits does the work, when it waits, and nobody else submits.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            // Until the thread that will enter it does, since that becomes the single issuer.
            .setup_r_disabled()
            .build(submissions)
            .map_err(|error| Unavailable { step: "io_uring_setup", errno: errno(&error) })?;
        check_features(&ring)?;
        check_opcodes(&ring)?;
        let buffers = Buffers::register(&ring, buffers, size)
            .map_err(|errno| Unavailable { step: "ring of provided buffers", errno })?;
        Ok(Self {
            ring,
            buffers,
            events: VecDeque::new(),
            backlog: VecDeque::new(),
            attempts: Vec::new(),
            told: Vec::new(),
            sends: Sends::default(),
            ending: Vec::new(),
            spares: Vec::new(),
            spare_bytes: 0,
            sent: 0,
            in_flight: 0,
            owner: None,
        })
    }
}

fn check_features(ring: &IoUring) -> Result<(), Unavailable> {
    let params = ring.params();
    let needed = [
        (params.is_feature_ext_arg(), "waiting with a time-out (IORING_FEAT_EXT_ARG)"),
        (params.is_feature_nodrop(), "no lost completions (IORING_FEAT_NODROP)"),
        (params.is_feature_submit_stable(), "stable submissions (IORING_FEAT_SUBMIT_STABLE)"),
        (params.is_feature_skip_cqe_on_success(), "silent success (IORING_FEAT_CQE_SKIP)"),
    ];
    match needed.into_iter().find(|(there, _)| !there) {
        Some((_, step)) => Err(Unavailable { step, errno: Errno::OPNOTSUPP }),
        None => Ok(()),
    }
}

fn check_opcodes(ring: &IoUring) -> Result<(), Unavailable> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| Unavailable { step: "probing operations", errno: errno(&error) })?;
    let needed = [
        (opcode::AcceptMulti::CODE, "IORING_OP_ACCEPT"),
        (opcode::RecvMulti::CODE, "IORING_OP_RECV"),
        (opcode::Send::CODE, "IORING_OP_SEND"),
        (opcode::PollAdd::CODE, "IORING_OP_POLL_ADD"),
        (opcode::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
        (opcode::Close::CODE, "IORING_OP_CLOSE"),
    ];
    match needed.into_iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, step)) => Err(Unavailable { step, errno: Errno::OPNOTSUPP }),
        None => Ok(()),
    }
}

/// A small ring does all that a large one will have to.
fn try_out() -> Result<(), Unavailable> {
    let mut trial = Ring::with(8, 64, 2, 4096)?;
    try_receiving(&mut trial)?;
    try_sending(&mut trial)?;
    try_accepting(&mut trial)
}

/// How long a trial's operation may take, which takes microseconds where it works.
const TRIAL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The next event of a trial.
fn event(ring: &mut Ring, step: &'static str) -> Result<Event, Unavailable> {
    ring.enter(Some(TRIAL)).map_err(|errno| Unavailable { step, errno })?;
    ring.next_attempt().or_else(|| ring.next_event()).ok_or(Unavailable { step, errno: Errno::TIME })
}

/// A descriptor or an address that a trial needs could not be had.
fn setting(errno: Errno) -> Unavailable {
    Unavailable { step: "sockets for a trial", errno }
}

fn pair() -> Result<(OwnedFd, OwnedFd), Unavailable> {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
        .map_err(setting)
}

/// A multishot receive goes on after the first bytes, is cancelled, and says so.
fn try_receiving(ring: &mut Ring) -> Result<(), Unavailable> {
    let step = "multishot receive";
    let (ours, theirs) = pair()?;
    ring.receive(1, &ours);
    ring.enter(Some(Timespec { tv_sec: 0, tv_nsec: 0 })).map_err(|errno| Unavailable { step, errno })?;
    for word in [&b"one"[..], b"two"] {
        send(&theirs, word, SendFlags::NOSIGNAL).map_err(setting)?;
        match event(ring, step)? {
            Event::Receive { word: 1, result: Ok(_), more: true } if ring.received() == word => {}
            Event::Receive { result: Err(errno), .. } => return Err(Unavailable { step, errno }),
            _ => return Err(Unavailable { step, errno: Errno::OPNOTSUPP }),
        }
    }
    let step = "cancelling a receive";
    ring.cancel(Operation::Receive, 1);
    match event(ring, step)? {
        Event::Receive { word: 1, result: Err(Errno::CANCELED), more: false } => Ok(()),
        Event::Receive { result: Err(errno), .. } => Err(Unavailable { step, errno }),
        _ => Err(Unavailable { step, errno: Errno::OPNOTSUPP }),
    }
}

/// A send that does not wait is over when it was submitted, silently or with what was taken; one that waits goes on
/// when there is room.
fn try_sending(ring: &mut Ring) -> Result<(), Unavailable> {
    const PLENTY: usize = 8 << 20;
    let step = "sending without waiting";
    let (ours, theirs) = pair()?;
    ring.attempt(2, &ours, b"small".to_vec(), Tell::Shortfall);
    ring.attempt(3, &ours, vec![0; PLENTY], Tell::Shortfall);
    let Event::Send { word: 3, bytes, from: 0, result } = event(ring, step)? else {
        return Err(Unavailable { step, errno: Errno::OPNOTSUPP });
    };
    let taken = result.map_err(|errno| Unavailable { step, errno })?;
    if ring.take_sent() != 5 || taken >= PLENTY {
        return Err(Unavailable { step, errno: Errno::OPNOTSUPP });
    }
    let step = "sending with waiting";
    ring.send(2, &ours, bytes, taken);
    ring.enter(Some(Timespec { tv_sec: 0, tv_nsec: 0 })).map_err(|errno| Unavailable { step, errno })?;
    let mut sink = vec![0; PLENTY];
    while rustix::io::read(&theirs, &mut sink).is_ok_and(|n| n > 0) {}
    match event(ring, step)? {
        Event::Send { word: 2, result: Ok(n), .. } if n > 0 => Ok(()),
        Event::Send { result: Err(errno), .. } => Err(Unavailable { step, errno }),
        _ => Err(Unavailable { step, errno: Errno::OPNOTSUPP }),
    }
}

/// A multishot accept of a non-blocking listener waits, and goes on after the first connection.
fn try_accepting(ring: &mut Ring) -> Result<(), Unavailable> {
    let step = "multishot accept";
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let open = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(setting);
    let listener = open()?;
    // Without a name, the kernel makes one up (unix(7), "Autobind").
    bind(&listener, &SocketAddrUnix::new_unnamed()).map_err(setting)?;
    listen(&listener, 4).map_err(setting)?;
    let address = getsockname(&listener).map_err(setting)?;
    ring.accept(3, &listener);
    ring.enter(Some(Timespec { tv_sec: 0, tv_nsec: 0 })).map_err(|errno| Unavailable { step, errno })?;
    for _ in 0..2 {
        let peer = open()?;
        connect(&peer, &address).map_err(setting)?;
        match event(ring, step)? {
            Event::Accept { word: 3, result: Ok(_), more: true } => {}
            Event::Accept { result: Err(errno), .. } => return Err(Unavailable { step, errno }),
            _ => return Err(Unavailable { step, errno: Errno::OPNOTSUPP }),
        }
    }
    let step = "cancelling at once (IORING_REGISTER_SYNC_CANCEL)";
    ring.cancel_now(Operation::Accept, 3).map_err(|errno| Unavailable { step, errno })?;
    match event(ring, step)? {
        Event::Accept { word: 3, result: Err(Errno::CANCELED), more: false } => Ok(()),
        _ => Err(Unavailable { step, errno: Errno::OPNOTSUPP }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_or_says_what_is_missing() {
        match Ring::new() {
            Ok(_) => {}
            Err(e) => panic!("{e}"),
        }
    }
}
