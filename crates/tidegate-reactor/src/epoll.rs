//! `Epoll`: completions simulated over readiness.
//!
//! How connections are registered is a [`Trigger`]; listeners are level-triggered. By edge, a connection is read until a
//! short read (epoll(7), "Q9"), and once more per turn while there is more: what is left goes to the list of connections
//! with more to read, so that one busy peer cannot hold a turn. Otherwise it is read once per event, and the next wait
//! reports what is left.
//!
//! Invariant: a connection whose kernel buffer may hold bytes has an event to come, or stands in a list, or is paused.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use tidegate_sys::event::Events;
use tidegate_timer::Instant;

pub use self::lending::{Got, Loan, Patience, Poller};
use self::listeners::Listeners;
use self::registrations::Registrations;
pub(crate) use self::source::Source;
use self::source::{Hangup, Sources};
use self::word::{pack, unpack};
use crate::clock::{self, Clocks};
use crate::datagrams::DatagramSockets;
use crate::last_words::leaves_words;
use crate::target::begin_connect;
use crate::trigger::Interest;
use crate::{
    AcceptError, Completion, DatagramId, End, Inbound, ListenerId, More, Outbound, PeerAddress, Reactor,
    Target, Token, Trigger, Waker,
};

mod control;
mod datagrams;
mod lending;
mod listeners;
mod registrations;
mod source;
mod word;

/// The reactor over epoll(7). One thread owns it.
pub struct Epoll {
    epoll: Arc<OwnedFd>,
    /// Connections are lent, not received from: see `lending`.
    lends: bool,
    waker: Waker,
    listeners: Listeners,
    datagrams: DatagramSockets<datagrams::Watch>,
    sources: Sources,
    registrations: Registrations,
    /// The events of this turn; `next_event` of them have been looked at.
    events: Events,
    next_event: usize,
    /// How many connections the event under `next_event` has brought, when it is a listener's.
    accepted: u32,
    /// A connection that became writable and readable at once: the second half is still to be reported.
    half_done: Option<(Token, EventFlags)>,
    /// Connections with more to read that the kernel does not report again: those of this turn, and those for the next.
    again_now: Vec<Token>,
    again: Vec<Token>,
    scratch: Box<[u8]>,
    received: usize,
    clocks: Clocks,
}

impl std::fmt::Debug for Epoll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Epoll")
            .field("listeners", &self.listeners)
            .field("clocks", &self.clocks)
            .finish_non_exhaustive()
    }
}

/// Connections accepted from one listener in one turn.
const ACCEPT_BATCH: u32 = 64;
const EVENTS: usize = 512;
const SCRATCH_BYTES: usize = 64 << 10;

impl Epoll {
    /// What a connection costs here, in bytes.
    pub const BYTES_PER_CONNECTION: usize = Sources::SLOT_BYTES;

    /// Makes a reactor without sources, which registers its connections as `trigger` says.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no descriptor or memory for it.
    pub fn new(trigger: Trigger) -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        epoll::add(&epoll, waker.fd(), pack(word::WAKER), EventFlags::IN | EventFlags::ET)?;
        Ok(Self {
            epoll: Arc::new(epoll),
            lends: false,
            waker,
            listeners: Listeners::new(),
            datagrams: DatagramSockets::default(),
            sources: Sources::default(),
            registrations: Registrations::new(trigger),
            events: Events::with_capacity(EVENTS),
            next_event: 0,
            accepted: 0,
            half_done: None,
            again_now: Vec::new(),
            again: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            received: 0,
            clocks: Clocks::read(),
        })
    }

    fn accept_event(&mut self, id: ListenerId) -> Option<Completion> {
        if self.accepted == ACCEPT_BATCH || !self.listeners.is_accepting(id) {
            return None;
        }
        self.accepted += 1;
        match self.listeners.accept(id) {
            Ok((socket, peer)) => Some(Completion::Accepted { listener: id, socket, peer }),
            Err(AcceptError::Empty) => None,
            Err(error) => {
                // Another try in the same turn would find descriptors as exhausted as this one did.
                if !matches!(error, AcceptError::Lost(_)) {
                    self.accepted = ACCEPT_BATCH;
                }
                Some(Completion::AcceptFailed { listener: id, error })
            }
        }
    }

    /// What an event means for a connection: at most two completions, of which the second is left in `half_done`.
    #[inline]
    fn connection_event(&mut self, token: Token, flags: EventFlags) -> Option<Completion> {
        let source = self.sources.find(token)?;
        self.registrations.fired(token, source);
        if flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            let broken = flags.contains(EventFlags::ERR);
            source.hangup = if broken { Hangup::Broken } else { Hangup::Closed };
        }
        if flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) && source.awaits_writable {
            source.awaits_writable = false;
            if source.registered == Some(Interest::Connect) {
                return Some(self.connect_event(token));
            }
            self.registrations.review(token, source);
            self.half_done = Some((token, flags));
            return Some(Completion::Writable(token));
        }
        self.read_event(token, flags)
    }

    /// A connection that was asked for is there, or is not to be had.
    #[cold]
    fn connect_event(&mut self, token: Token) -> Completion {
        let Some(source) = self.sources.find(token) else { return Completion::Failed(token, Errno::BADF) };
        match tidegate_sys::socket::take_error(&source.fd) {
            None => {
                // What the kernel has said of it was about connecting; the rest it says again.
                source.hangup = Hangup::None;
                self.registrations.connected(token, source);
                Completion::Connected(token)
            }
            Some(errno) => {
                source.ended = true;
                Completion::Failed(token, errno)
            }
        }
    }

    /// The reading half of an event.
    #[inline]
    fn read_event(&mut self, token: Token, flags: EventFlags) -> Option<Completion> {
        if !flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            return None;
        }
        let source = self.sources.find(token)?;
        source.readable = true;
        if self.lends && !source.paused && !source.ended {
            return Some(Completion::Ready(token));
        }
        self.receive(token, flags.contains(EventFlags::ERR))
    }

    /// One receive of at most the scratch buffer.
    #[inline]
    fn receive(&mut self, token: Token, broken: bool) -> Option<Completion> {
        let source = self.sources.find(token)?;
        let fd = &source.fd;
        if source.paused || source.ended {
            // Reading waits or is over, so a reset is not heard by it; its error is asked for instead.
            let errno = if broken { tidegate_sys::socket::take_error(fd) } else { None }?;
            if !source.ended && leaves_words(fd, errno) {
                return None;
            }
            self.registrations.end_reading(token, source);
            return Some(Completion::Failed(token, errno));
        }
        let got = loop {
            match receive_now(fd, &mut self.scratch) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        match got {
            Ok(0) => {
                self.registrations.end_reading(token, source);
                // A reset behind the end came with the same event, and an edge is not told twice.
                if source.hangup == Hangup::Broken && !self.registrations.repeats() && !source.listed {
                    source.listed = true;
                    self.again.push(token);
                }
                Some(Completion::Ended(token))
            }
            Ok(n) => {
                self.received = n;
                if n == self.scratch.len() || source.hangup != Hangup::None {
                    if !self.registrations.repeats() && !source.listed {
                        source.listed = true;
                        self.again.push(token);
                    }
                } else {
                    source.readable = false;
                }
                Some(Completion::Received(token))
            }
            Err(Errno::AGAIN) => {
                source.readable = false;
                None
            }
            Err(errno) => {
                self.registrations.end_reading(token, source);
                Some(Completion::Failed(token, errno))
            }
        }
    }

    fn next_listed(&mut self) -> Option<Completion> {
        while let Some(token) = self.again_now.pop() {
            let Some(source) = self.sources.find(token) else { continue };
            source.listed = false;
            let broken = source.hangup == Hangup::Broken;
            let done = self.receive(token, broken);
            if done.is_some() {
                return done;
            }
        }
        None
    }

    /// A connection that the kernel does not watch any more: it would never be heard of again.
    fn next_refused(&mut self) -> Option<Completion> {
        while let Some((token, errno)) = self.registrations.take_refused() {
            let Some(source) = self.sources.find(token) else { continue };
            source.ended = true;
            return Some(Completion::Failed(token, errno));
        }
        None
    }

    fn fd(&mut self, token: Token) -> Result<&mut Source, Errno> {
        self.sources.find(token).ok_or(Errno::BADF)
    }
}

impl Reactor for Epoll {
    #[inline]
    fn forwards(&self) -> bool {
        true
    }

    fn listen(&mut self, socket: OwnedFd, shared: bool) -> Result<ListenerId, Errno> {
        self.listeners.add(&self.epoll, socket, shared, word::of_listener)
    }

    fn pause_accept(&mut self, listener: ListenerId) {
        self.listeners.pause(&self.epoll, listener);
    }

    fn resume_accept(&mut self, listener: ListenerId) -> Result<(), Errno> {
        self.listeners.resume(&self.epoll, listener, word::of_listener(listener))
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.listeners.remove(&self.epoll, listener);
    }

    fn accept_now(&mut self, listener: ListenerId) -> Result<(OwnedFd, PeerAddress), AcceptError> {
        self.listeners.accept(listener)
    }

    fn refuse_one(&mut self, listener: ListenerId, answer: &[u8]) -> Result<(), AcceptError> {
        self.listeners.refuse_one(listener, answer, &mut self.scratch)
    }

    fn open(&mut self, token: Token, socket: OwnedFd) -> Result<(), Errno> {
        self.registrations.add(&self.epoll, token, &socket, Interest::Read)?;
        self.sources.insert(token.slot, Source::new(socket, token.generation));
        Ok(())
    }

    fn connect(&mut self, token: Token, socket: OwnedFd, target: &Target) -> Result<(), Errno> {
        // Watched before, it would be reported as hung up at once.
        begin_connect(&socket, target)?;
        self.registrations.add(&self.epoll, token, &socket, Interest::Connect)?;
        self.sources.insert(token.slot, Source::connecting(socket, token.generation));
        Ok(())
    }

    fn close(&mut self, token: Token, end: End) {
        let Some(Source { fd: socket, .. }) = self.sources.remove(token) else { return };
        if end == End::Reset {
            // It fails only for what is no TCP socket, and there a close is all there is.
            let _ = tidegate_sys::socket::reset_on_close(&socket);
        }
    }

    fn shutdown_send(&mut self, token: Token) {
        if let Some(Source { fd, .. }) = self.sources.find(token) {
            // ENOTCONN means that the peer has gone, which the next receive reports.
            let _ = rustix::net::shutdown(fd, Shutdown::Write);
        }
    }

    fn pause(&mut self, token: Token) {
        if let Some(source) = self.sources.find(token) {
            source.paused = true;
            self.registrations.review(token, source);
        }
    }

    fn resume(&mut self, token: Token) {
        let Some(source) = self.sources.find(token) else { return };
        source.paused = false;
        self.registrations.review(token, source);
        if !self.registrations.repeats() && source.readable && !source.listed {
            source.listed = true;
            self.again.push(token);
        }
    }

    #[inline]
    fn send(&mut self, token: Token, bytes: &[u8], more: More) -> Result<usize, Errno> {
        send_now(&self.fd(token)?.fd, bytes, more)
    }

    #[inline]
    fn send_received(&mut self, token: Token, range: Range<usize>, more: More) -> Result<usize, Errno> {
        let source = self.sources.find(token).ok_or(Errno::BADF)?;
        send_now(&source.fd, &self.scratch[..self.received][range], more)
    }

    fn send_vectored(&mut self, token: Token, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let source = self.fd(token)?;
        let fd = &source.fd;
        // SIGPIPE is ignored in every process of ours, so writev(2) needs no flag for it.
        taken(|| rustix::io::writev(fd, parts))
    }

    fn send_file(
        &mut self,
        token: Token,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<Option<usize>, Errno> {
        let source = self.fd(token)?;
        let fd = &source.fd;
        let count = usize::try_from(len).unwrap_or(usize::MAX);
        loop {
            let mut position = offset;
            match rustix::fs::sendfile(fd, file, Some(&mut position), count) {
                Ok(0) if len > 0 => return Ok(None),
                Ok(n) => return Ok(Some(n)),
                Err(Errno::AGAIN) => return Ok(Some(0)),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn unsent(&self, _token: Token) -> bool {
        // What was taken is the kernel's.
        false
    }

    fn await_writable(&mut self, token: Token) {
        let Some(source) = self.sources.find(token) else { return };
        source.awaits_writable = true;
        self.registrations.review(token, source);
    }

    fn open_datagrams(&mut self, socket: OwnedFd) -> Result<DatagramId, Errno> {
        self.add_datagrams(socket)
    }

    fn close_datagrams(&mut self, id: DatagramId) {
        self.remove_datagrams(id);
    }

    fn pause_datagrams(&mut self, id: DatagramId) {
        // Less to watch for needs no memory.
        let _ = self.watch_datagrams(id, |watch| watch.paused = true);
    }

    fn resume_datagrams(&mut self, id: DatagramId) -> Result<(), Errno> {
        self.watch_datagrams(id, |watch| watch.paused = false)
    }

    #[inline]
    fn receive_datagrams(&mut self, id: DatagramId, into: &mut Inbound) -> Result<usize, Errno> {
        self.datagrams.receive(id, into)
    }

    #[inline]
    fn send_datagrams(&mut self, id: DatagramId, from: &mut Outbound) -> Result<usize, Errno> {
        self.datagrams.send(id, from)
    }

    fn await_datagram_room(&mut self, id: DatagramId) -> Result<(), Errno> {
        self.watch_datagrams(id, |watch| watch.awaits_room = true)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Errno> {
        self.registrations.sync_all(self.epoll.as_fd(), &mut self.sources);
        std::mem::swap(&mut self.again_now, &mut self.again);
        let at_once = !self.again_now.is_empty() || self.registrations.has_refused();
        let timeout = self.clocks.begin_wait(deadline, at_once);
        self.next_event = 0;
        self.accepted = 0;
        let waited = self.events.wait(&self.epoll, timeout.as_ref());
        self.clocks.end_wait();
        match waited {
            Ok(()) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        if let Some((token, flags)) = self.half_done.take()
            && let Some(completion) = self.read_event(token, flags)
        {
            return Some(completion);
        }
        while let Some((data, flags)) = self.events.get(self.next_event) {
            let token = unpack(data);
            let completion = if token.generation != word::NO_GENERATION {
                self.next_event += 1;
                self.connection_event(token, flags)
            } else if token == word::WAKER {
                self.next_event += 1;
                Some(Completion::Woken)
            } else if let Some(id) = word::datagrams(token) {
                let (told, is_last) = self.datagrams_event(id, flags);
                self.next_event += usize::from(is_last);
                told
            } else {
                let accepted = self.accept_event(ListenerId(token.slot));
                if accepted.is_none() {
                    self.next_event += 1;
                    self.accepted = 0;
                }
                accepted
            };
            if completion.is_some() {
                return completion;
            }
        }
        self.next_listed().or_else(|| self.next_refused())
    }

    #[inline]
    fn received(&self) -> &[u8] {
        &self.scratch[..self.received]
    }

    fn now(&self) -> Instant {
        self.clocks.now()
    }

    fn clock(&self) -> Instant {
        clock::monotonic()
    }

    fn unix_time(&self) -> u64 {
        self.clocks.unix_time()
    }

    fn busy(&self) -> Duration {
        self.clocks.busy()
    }

    fn lend(&mut self, token: Token) -> Option<Loan> {
        self.lend_source(token)
    }

    fn give_back(&mut self, loan: Loan) {
        self.take_back(loan);
    }

    fn receive_now(&mut self, token: Token) -> Option<Completion> {
        self.receive(token, false)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// recv(2): the same as read(2) on a socket, without what that does for files.
#[inline]
fn receive_now(fd: &OwnedFd, buf: &mut [u8]) -> Result<usize, Errno> {
    rustix::net::recv(fd, buf, RecvFlags::empty()).map(|(received, _)| received)
}

#[inline]
fn send_now(fd: &OwnedFd, bytes: &[u8], more: More) -> Result<usize, Errno> {
    let mut flags = SendFlags::NOSIGNAL;
    if more == More::Follows {
        flags |= SendFlags::MORE;
    }
    taken(|| rustix::net::send(fd, bytes, flags))
}

/// What a send took: nothing when the kernel's buffer is full.
#[inline]
fn taken(mut call: impl FnMut() -> Result<usize, Errno>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_connection_that_the_kernel_does_not_watch_on_fails_once() {
        let mut reactor = Epoll::new(Trigger::Level).unwrap();
        let (_peer, socket) = UnixStream::pair().unwrap();
        let token = Token { slot: 0, generation: 1 };
        reactor.open(token, socket.into()).unwrap();
        let source = reactor.sources.find(token).unwrap();
        epoll::delete(&reactor.epoll, &source.fd).unwrap();
        reactor.pause(token);
        reactor.wait(None).unwrap();
        let told = reactor.next();
        assert!(matches!(told, Some(Completion::Failed(t, Errno::NOENT)) if t == token), "{told:?}");
        assert!(reactor.next().is_none());
        reactor.wait(Some(reactor.now())).unwrap();
        assert!(reactor.next().is_none());
    }
}
