//! `Simulated`: the simulated kernel as a [`Reactor`].
//!
//! Invariant: it does what the trait promises, no more and nothing sooner: sends may be short, completions come in any
//! order, several turns late, and one by one.

use std::cell::RefCell;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_engine::{End, Instant};
use tidegate_reactor::{
    AcceptError, Completion, Errno, ListenerId, More, PeerAddress, Reactor, Target, Token, Waker,
};

use super::kernel::{Item, Kernel, Port};
use super::plan::Lack;
use super::socket::Side;

/// Shares the kernel with the world, which looks at it between two turns.
#[derive(Debug)]
pub(crate) struct Simulated {
    pub(crate) kernel: Rc<RefCell<Kernel>>,
    /// What was received last: it stands still while others look at the kernel.
    received: Vec<u8>,
}

/// What one receive brings at the most.
pub(crate) const RECEIVED_BYTES: usize = 64 << 10;

impl Simulated {
    pub(crate) fn new(kernel: Rc<RefCell<Kernel>>) -> Self {
        Self { kernel, received: Vec::new() }
    }

    fn peer_address(port: usize, conn: u32) -> PeerAddress {
        if port == 1 {
            return PeerAddress::Unix;
        }
        let number = u16::try_from(conn).unwrap_or(u16::MAX);
        PeerAddress::Inet(SocketAddr::from((Ipv4Addr::LOCALHOST, number)))
    }
}

impl Kernel {
    fn complete(&mut self, item: Item) -> Option<Completion> {
        match item {
            Item::Woken => self.woken.swap(false, Ordering::Relaxed).then_some(Completion::Woken),
            Item::Accept(port) => self.complete_accept(port),
            Item::Connect(conn) => self.complete_connect(conn),
            Item::Read(conn) => self.complete_read(conn),
            Item::Write(conn) => {
                let socket = self.sockets.get_mut(&conn).filter(|socket| socket.is_writable())?;
                let Side::Open(token) = socket.side else { return None };
                socket.awaits_writable = false;
                socket.stalled_at = None;
                Some(Completion::Writable(token))
            }
            Item::Stalled(conn) => {
                let socket = self.sockets.get_mut(&conn).filter(|socket| socket.is_stalled())?;
                let Side::Open(token) = socket.side else { return None };
                socket.stalled_at = Some(socket.owned.len());
                self.ledger.lock().seen.at("stalled");
                Some(Completion::Stalled(token))
            }
        }
    }

    fn complete_accept(&mut self, port: usize) -> Option<Completion> {
        let state = self.ports.get_mut(port)?;
        let listener = ListenerId(u32::try_from(port).ok()?);
        let ahead = state.ahead.pop_front();
        if ahead.is_none() && (state.paused || state.socket.is_none()) {
            return None;
        }
        match ahead.map_or_else(|| self.accept(port), Ok) {
            Ok((socket, conn)) => {
                if self.random.chance(50) {
                    self.turn.push(Item::Accept(port));
                }
                self.say(|| format!("kernel: #{conn} accepted"));
                let peer = Simulated::peer_address(port, conn);
                Some(Completion::Accepted { listener, socket, peer })
            }
            Err(AcceptError::Empty) => None,
            Err(error) => {
                let is_lost = matches!(error, AcceptError::Lost(_));
                self.ledger.lock().seen.at(if is_lost { "lost in the queue" } else { "no descriptor" });
                self.say(|| format!("kernel: accept failed: {error}"));
                Some(Completion::AcceptFailed { listener, error })
            }
        }
    }

    fn complete_read(&mut self, conn: u32) -> Option<Completion> {
        let (short, now) = (self.knobs.short, self.now);
        let socket = self.sockets.get_mut(&conn).filter(|socket| socket.is_readable())?;
        let Side::Open(token) = socket.side else { return None };
        if !socket.paused && !socket.to_server.is_empty() {
            let most = socket.to_server.len().min(RECEIVED_BYTES);
            let n = if self.random.chance(short) { 1 + self.random.index(most) } else { most };
            self.received.clear();
            self.received.extend(socket.to_server.drain(..n));
            socket.bytes_in += n as u64;
            let mut ledger = self.ledger.lock();
            ledger.say(|| format!("kernel: {n} bytes from #{conn}"));
            if let Some(entry) = ledger.conns.get_mut(&conn) {
                entry.last_in = now;
                entry.moved = now;
                entry.passed = now;
            }
            return Some(Completion::Received(token));
        }
        socket.told_end = true;
        let broken = socket.broken;
        if self.random.chance(self.knobs.odd / 2) {
            // Somebody who has its handle does not know yet; by the time that the note is read, another may have its slot.
            self.post(conn, None);
        }
        if let Some(errno) = broken {
            self.say(|| format!("kernel: #{conn} is broken: {errno}"));
            return Some(Completion::Failed(token, errno));
        }
        self.say(|| format!("kernel: #{conn} has ended"));
        Some(Completion::Ended(token))
    }

    /// How many of so many bytes a send takes.
    fn taken(&mut self, token: Token, offered: usize) -> Result<(u32, usize), Errno> {
        let (owns, short) = (self.knobs.owns_output, self.knobs.short);
        let cut = self.random.chance(short);
        let Some((conn, socket)) = self.find(token) else { return Err(Errno::BADF) };
        if let Some(errno) = socket.broken {
            return Err(errno);
        }
        let most = socket.room(owns).min(offered);
        let n = if cut && most > 0 { 1 + self.random.index(most) } else { most };
        Ok((conn, n))
    }

    fn send(&mut self, token: Token, bytes: &[u8]) -> Result<usize, Errno> {
        let (conn, n) = self.taken(token, bytes.len())?;
        let (owns, now) = (self.knobs.owns_output, self.now);
        if let Some((_, socket)) = self.find(token) {
            socket.take(&bytes[..n], owns);
        }
        let mut ledger = self.ledger.lock();
        ledger.say(|| format!("kernel: {n} of {} bytes taken for #{conn}", bytes.len()));
        if n > 0
            && let Some(entry) = ledger.conns.get_mut(&conn)
        {
            entry.last_out = now;
            entry.moved = now;
            entry.passed = now;
        }
        Ok(n)
    }
}

impl Reactor for Simulated {
    fn forwards(&self) -> bool {
        self.kernel.borrow().knobs.forwards
    }

    fn listen(&mut self, socket: OwnedFd, _shared: bool) -> Result<ListenerId, Errno> {
        let mut kernel = self.kernel.borrow_mut();
        let id = u32::try_from(kernel.ports.len()).map_err(|_| Errno::NOMEM)?;
        kernel.ports.push(Port {
            queue: Default::default(),
            paused: false,
            socket: Some(socket),
            loses_next: false,
            ahead: Default::default(),
        });
        Ok(ListenerId(id))
    }

    fn pause_accept(&mut self, listener: ListenerId) {
        if let Some(port) = self.kernel.borrow_mut().ports.get_mut(listener.0 as usize) {
            port.paused = true;
        }
    }

    fn resume_accept(&mut self, listener: ListenerId) -> Result<(), Errno> {
        let mut kernel = self.kernel.borrow_mut();
        if let Some(errno) = kernel.has_lack(|lack| lack == Lack::Watches) {
            return Err(errno);
        }
        if let Some(port) = kernel.ports.get_mut(listener.0 as usize) {
            port.paused = false;
        }
        Ok(())
    }

    fn unlisten(&mut self, listener: ListenerId) {
        if let Some(port) = self.kernel.borrow_mut().ports.get_mut(listener.0 as usize) {
            port.socket = None;
        }
    }

    fn accept_now(&mut self, listener: ListenerId) -> Result<(OwnedFd, PeerAddress), AcceptError> {
        let port = listener.0 as usize;
        let (socket, conn) = self.kernel.borrow_mut().accept(port)?;
        Ok((socket, Self::peer_address(port, conn)))
    }

    fn take_accepted(&mut self, listener: ListenerId) -> Result<(OwnedFd, PeerAddress), AcceptError> {
        let port = listener.0 as usize;
        let ahead = self.kernel.borrow_mut().ports.get_mut(port).and_then(|port| port.ahead.pop_front());
        let (socket, conn) = ahead.ok_or(AcceptError::Empty)?;
        Ok((socket, Self::peer_address(port, conn)))
    }

    fn refuse_one(&mut self, listener: ListenerId, _answer: &[u8]) -> Result<(), AcceptError> {
        let mut kernel = self.kernel.borrow_mut();
        if kernel.random.chance(40) {
            return Err(AcceptError::from(Errno::MFILE));
        }
        let Some(port) = kernel.ports.get_mut(listener.0 as usize) else {
            return Err(AcceptError::from(Errno::BADF));
        };
        let Some(conn) = port.queue.pop_front() else { return Err(AcceptError::Empty) };
        kernel.lose(conn);
        kernel.ledger.lock().seen.at("told that there is none");
        kernel.say(|| format!("kernel: #{conn} is told that there is no descriptor for it"));
        Ok(())
    }

    fn connect(&mut self, token: Token, socket: OwnedFd, target: &Target) -> Result<(), Errno> {
        let mut kernel = self.kernel.borrow_mut();
        let begun = kernel.dial(token, socket, target);
        kernel.count_places();
        begun
    }

    fn open(&mut self, token: Token, socket: OwnedFd) -> Result<(), Errno> {
        let mut kernel = self.kernel.borrow_mut();
        let Some(conn) = kernel.accepted.remove(&socket.as_raw_fd()) else {
            kernel.ledger.lock().violated(|| "a socket is opened that was not accepted".to_owned());
            return Err(Errno::BADF);
        };
        if let Some(errno) = kernel.has_lack(|lack| lack == Lack::Watches) {
            kernel.say(|| format!("kernel: #{conn} cannot be watched: {errno}"));
            kernel.lose(conn);
            return Err(errno);
        }
        kernel.claim(conn, token);
        if let Some(own) = kernel.sockets.get_mut(&conn) {
            own.side = Side::Open(token);
            own.descriptor = Some(socket);
        }
        kernel.count_places();
        Ok(())
    }

    fn close(&mut self, token: Token, end: End) {
        let mut kernel = self.kernel.borrow_mut();
        let now = kernel.now;
        let Some((conn, socket)) = kernel.find_taken(token) else {
            // One that could not be begun is closed with its slot.
            if kernel.conn_of(token).is_none() {
                return;
            }
            return kernel.ledger.lock().violated(|| format!("{token:?} is closed and not open"));
        };
        socket.close(end, now);
        kernel.say(|| format!("kernel: #{conn} closed, {end:?}"));
        kernel.count_places();
    }

    fn shutdown_send(&mut self, token: Token) {
        let mut kernel = self.kernel.borrow_mut();
        let now = kernel.now;
        let Some((conn, socket)) = kernel.find(token) else { return };
        socket.shut_at.get_or_insert(now);
        let left = socket.owned.len();
        let mut ledger = kernel.ledger.lock();
        // A tie leaves it to the reactor that FIN follows what it has taken.
        let is_tied = ledger.conns.get(&conn).is_some_and(|entry| entry.partner.is_some());
        ledger.check(left == 0 || is_tied, || format!("#{conn}: FIN before {left} bytes have left"));
        drop(ledger);
        kernel.say(|| format!("kernel: FIN to #{conn}"));
    }

    fn pause(&mut self, token: Token) {
        if let Some((_, socket)) = self.kernel.borrow_mut().find(token) {
            socket.paused = true;
        }
    }

    fn resume(&mut self, token: Token) {
        if let Some((_, socket)) = self.kernel.borrow_mut().find(token) {
            socket.paused = false;
        }
    }

    fn send(&mut self, token: Token, bytes: &[u8], _more: More) -> Result<usize, Errno> {
        self.kernel.borrow_mut().send(token, bytes)
    }

    fn send_received(&mut self, token: Token, range: Range<usize>, _more: More) -> Result<usize, Errno> {
        self.kernel.borrow_mut().send(token, &self.received[range])
    }

    fn send_vectored(&mut self, token: Token, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        // What is behind it would not be taken in any case.
        let mut bytes = Vec::new();
        let mut kernel = self.kernel.borrow_mut();
        for part in parts {
            bytes.extend_from_slice(part);
            if bytes.len() > RECEIVED_BYTES {
                break;
            }
        }
        kernel.send(token, &bytes)
    }

    fn send_file(
        &mut self,
        token: Token,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<Option<usize>, Errno> {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(RECEIVED_BYTES);
        let mut bytes = vec![0; len];
        let read = rustix::io::pread(file, &mut bytes, offset)?;
        if read == 0 {
            return Ok(None);
        }
        self.kernel.borrow_mut().send(token, &bytes[..read]).map(Some)
    }

    fn unsent(&self, token: Token) -> bool {
        self.unsent_bytes(token) > 0
    }

    fn unsent_bytes(&self, token: Token) -> usize {
        self.kernel.borrow_mut().find(token).map_or(0, |(_, socket)| socket.owned.len())
    }

    fn await_writable(&mut self, token: Token) {
        if let Some((_, socket)) = self.kernel.borrow_mut().find(token) {
            socket.awaits_writable = true;
        }
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Errno> {
        self.kernel.borrow_mut().wait(deadline);
        Ok(())
    }

    fn next(&mut self) -> Option<Completion> {
        let mut kernel = self.kernel.borrow_mut();
        kernel.happen_meanwhile();
        while let Some(item) = kernel.turn.pop() {
            let Some(completion) = kernel.complete(item) else { continue };
            if let Completion::Received(_) = completion {
                std::mem::swap(&mut self.received, &mut kernel.received);
            }
            return Some(completion);
        }
        None
    }

    fn received(&self) -> &[u8] {
        &self.received
    }

    fn now(&self) -> Instant {
        self.kernel.borrow().now
    }

    fn clock(&self) -> Instant {
        self.now()
    }

    fn unix_time(&self) -> u64 {
        self.kernel.borrow().unix_time
    }

    fn busy(&self) -> Duration {
        Duration::ZERO
    }

    fn waker(&self) -> Waker {
        let woken = Arc::clone(&self.kernel.borrow().woken);
        Waker::from_fn(move || woken.store(true, Ordering::Relaxed))
    }
}
