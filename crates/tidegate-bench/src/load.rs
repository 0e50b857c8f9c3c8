//! `Load`: connections of which a fixed share asks all the time, each its next question as soon as it has its answer.
//!
//! Invariant: while it runs, an active connection has one batch in flight, and each byte that comes is compared with what must
//! come. A connection that gets a wrong byte is closed, since nothing tells where the next answer begins. One thread, one
//! epoll; it does not reconnect, and it does not pace: a closed loop measures capacity, not the delay at a given rate.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tidegate_sys::event::Events;

use crate::connect::{raise_descriptor_limit, timespec};
use crate::{ConnectError, Exchange, Latency, connect_each};

/// Whom to load, and how.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Where to connect to, in turn.
    pub targets: Vec<SocketAddr>,
    /// Where to connect from, in turn; empty: the kernel chooses. An address has some 28,000 ports.
    pub sources: Vec<IpAddr>,
    /// How many connections are open.
    pub connections: usize,
    /// Which share of them asks; the others are open and silent. At least one does.
    pub active: f64,
    /// What is asked.
    pub exchange: Exchange,
}

/// What came of a while.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long it was.
    pub time: Duration,
    /// Right answers, each with its time from the moment its batch was sent.
    pub latency: Latency,
    /// Connections closed for a wrong answer, or for bytes that nobody had asked for.
    pub wrong: u64,
    /// Connections that the server closed or that failed.
    pub lost: u64,
}

impl Outcome {
    /// Right answers.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.latency.count()
    }

    /// Right answers per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        per(self.answers(), self.time.as_secs_f64())
    }
}

/// A count per something; 0 when there is nothing.
#[expect(clippy::cast_precision_loss, reason = "counts of answers are far below 2^52")]
pub(crate) fn per(count: u64, of: f64) -> f64 {
    if of > 0.0 { count as f64 / of } else { 0.0 }
}

/// The connections and what is in flight on them.
#[derive(Debug)]
pub struct Load {
    epoll: OwnedFd,
    events: Events,
    conns: Vec<Conn>,
    active: usize,
    /// Active connections that are open, and those of them with a batch in flight.
    asking: usize,
    in_flight: usize,
    /// An answered batch is not followed by another.
    draining: bool,
    exchange: Exchange,
    scratch: Vec<u8>,
    outcome: Outcome,
}

#[derive(Debug)]
struct Conn {
    /// `None` once it has been lost.
    socket: Option<OwnedFd>,
    active: bool,
    /// A batch is in flight. Then what follows tells how far it is.
    waiting: bool,
    /// How much of the batch has been sent, and how much of its answers has come.
    sent: usize,
    got: usize,
    /// The kernel refused a part of the batch, and `EPOLLOUT` is armed.
    blocked: bool,
    batch: u32,
    asked_at: Instant,
}

impl Conn {
    fn new(socket: OwnedFd, now: Instant) -> Self {
        let socket = Some(socket);
        Self {
            socket,
            active: false,
            waiting: false,
            sent: 0,
            got: 0,
            blocked: false,
            batch: 0,
            asked_at: now,
        }
    }
}

const EVENTS_PER_WAIT: usize = 512;
const SCRATCH_BYTES: usize = 256 << 10;

/// What happened to a connection when it was looked at.
enum Fate {
    Open,
    Lost,
    Wrong,
}

impl Load {
    /// Makes the connections; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// A connection cannot be made, or there are not descriptors enough.
    pub fn connect(plan: LoadPlan) -> Result<Self, ConnectError> {
        let target = plan.targets.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let broken = |source: Errno| ConnectError { number: 0, target, from: None, source: source.into() };
        // When the limit cannot be raised, the connection that is too many says so.
        let _ = raise_descriptor_limit();
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(broken)?;
        let sockets = connect_each(plan.connections, &plan.targets, &plan.sources)?;
        let now = Instant::now();
        let mut conns = Vec::with_capacity(sockets.len());
        for (index, socket) in sockets.into_iter().enumerate() {
            epoll::add(&epoll, &socket, EventData::new_u64(index as u64), EventFlags::IN).map_err(broken)?;
            conns.push(Conn::new(socket, now));
        }
        let active = share(plan.active, conns.len());
        for nth in 0..active {
            // Evenly over all, so that active and silent ones stand side by side in the server's tables.
            let index = nth * conns.len() / active;
            conns[index].active = true;
        }
        Ok(Self {
            epoll,
            events: Events::with_capacity(EVENTS_PER_WAIT),
            conns,
            active,
            asking: active,
            in_flight: 0,
            draining: false,
            exchange: plan.exchange,
            scratch: vec![0; SCRATCH_BYTES],
            outcome: Outcome::default(),
        })
    }

    /// How many connections ask.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active
    }

    /// Asks for a while, and tells of that while. What is in flight at its end stays in flight, and belongs to the next.
    /// Ends early when no active connection is left.
    ///
    /// # Errors
    ///
    /// What epoll_wait(2) answered.
    pub fn run(&mut self, time: Duration) -> Result<Outcome, Errno> {
        let begin = Instant::now();
        self.draining = false;
        for index in 0..self.conns.len() {
            if self.conns[index].active && !self.conns[index].waiting {
                self.ask(index, Instant::now());
            }
        }
        while self.asking > 0 && self.turn(begin, time)? {}
        Ok(self.outcome(begin))
    }

    /// Waits for the answers to what is in flight, but not longer than `patience`, and asks nothing more.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn drain(&mut self, patience: Duration) -> Result<Outcome, Errno> {
        let begin = Instant::now();
        self.draining = true;
        while self.in_flight > 0 && self.turn(begin, patience)? {}
        Ok(self.outcome(begin))
    }

    fn outcome(&mut self, begin: Instant) -> Outcome {
        self.outcome.time = begin.elapsed();
        std::mem::take(&mut self.outcome)
    }

    /// Waits once. False when the time that began at `begin` is over.
    fn turn(&mut self, begin: Instant, time: Duration) -> Result<bool, Errno> {
        let left = time.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        match self.events.wait(&self.epoll, Some(&timespec(left))) {
            Ok(()) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let mut nth = 0;
        while let Some((index, flags)) = self.events.get(nth) {
            self.ready(usize::try_from(index).unwrap_or(usize::MAX), flags);
            nth += 1;
        }
        Ok(true)
    }

    fn ask(&mut self, index: usize, now: Instant) {
        let conn = &mut self.conns[index];
        if !conn.waiting {
            conn.waiting = true;
            self.in_flight += 1;
        }
        (conn.sent, conn.got, conn.asked_at) = (0, 0, now);
        conn.batch = conn.batch.wrapping_add(1);
        let fate = self.send(index);
        self.settle(index, &fate);
    }

    fn ready(&mut self, index: usize, flags: EventFlags) {
        if self.conns.get(index).is_none_or(|conn| conn.socket.is_none()) {
            return;
        }
        if flags.contains(EventFlags::OUT) {
            let fate = self.send(index);
            self.settle(index, &fate);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            let fate = self.receive(index);
            self.settle(index, &fate);
        }
    }

    /// Sends what is left of the batch. What the kernel refuses waits for `EPOLLOUT`.
    fn send(&mut self, index: usize) -> Fate {
        let conn = &mut self.conns[index];
        let Some(socket) = &conn.socket else { return Fate::Open };
        self.exchange.stamp(number(index), conn.batch);
        let rest = &self.exchange.requests()[conn.sent..];
        match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
            Ok(sent) => conn.sent += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Fate::Lost,
        }
        let blocked = conn.sent < self.exchange.requests().len();
        if blocked != conn.blocked {
            conn.blocked = blocked;
            let flags = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            if epoll::modify(&self.epoll, socket, EventData::new_u64(index as u64), flags).is_err() {
                return Fate::Lost;
            }
        }
        Fate::Open
    }

    fn receive(&mut self, index: usize) -> Fate {
        let conn = &mut self.conns[index];
        let Some(socket) = &conn.socket else { return Fate::Open };
        let got = match rustix::net::recv(socket, &mut self.scratch[..], RecvFlags::empty()) {
            Ok((0, _)) => return Fate::Lost,
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return Fate::Open,
            Err(_) => return Fate::Lost,
        };
        let now = Instant::now();
        self.exchange.stamp(number(index), conn.batch);
        if !conn.waiting || !self.exchange.matches(conn.got, &self.scratch[..got]) {
            return Fate::Wrong;
        }
        let before = conn.got / self.exchange.answer_len();
        conn.got += got;
        let complete = conn.got / self.exchange.answer_len() - before;
        self.outcome.latency.record(now - conn.asked_at, complete as u64);
        if conn.got == self.exchange.answers().len() {
            if self.draining {
                conn.waiting = false;
                self.in_flight -= 1;
            } else {
                self.ask(index, now);
            }
        }
        Fate::Open
    }

    fn settle(&mut self, index: usize, fate: &Fate) {
        match fate {
            Fate::Open => return,
            Fate::Lost => self.outcome.lost += 1,
            Fate::Wrong => self.outcome.wrong += 1,
        }
        // Dropping the last descriptor of a socket takes it out of the epoll (epoll(7)).
        let conn = &mut self.conns[index];
        conn.socket = None;
        if std::mem::take(&mut conn.active) {
            self.asking -= 1;
        }
        if std::mem::take(&mut conn.waiting) {
            self.in_flight -= 1;
        }
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// How many of `all` a share is: at least one, if there are any, and never more than all.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "connections are far below 2^52, the cast saturates, and what comes out is put between its bounds"
)]
fn share(share: f64, all: usize) -> usize {
    ((all as f64 * share).round() as usize).clamp(all.min(1), all)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_share_has_bounds() {
        assert_eq!(share(0.01, 10_000), 100);
        assert_eq!(share(0.5, 3), 2);
        assert_eq!(share(0.0, 10), 1);
        assert_eq!(share(7.0, 10), 10);
        assert_eq!(share(f64::NAN, 10), 1);
        assert_eq!(share(1.0, 0), 0);
    }

    /// Runs a load of one connection against a server that is this closure.
    fn against(serve: impl FnOnce(std::net::TcpStream) + Send + 'static) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0));
        let exchange = Exchange::echo(64, 1).unwrap();
        let plan = LoadPlan { targets: vec![target], sources: vec![], connections: 1, active: 1.0, exchange };
        let outcome = Load::connect(plan).unwrap().run(Duration::from_secs(10)).unwrap();
        server.join().unwrap();
        outcome
    }

    #[test]
    fn a_wrong_answer_is_counted_and_ends_the_connection() {
        let outcome = against(|mut stream| {
            let mut message = [0; 64];
            stream.read_exact(&mut message).unwrap();
            stream.write_all(&message).unwrap();
            stream.read_exact(&mut message).unwrap();
            message[63] ^= 1;
            stream.write_all(&message).unwrap();
            // Ends with the client's reset.
            let _ = stream.read(&mut message);
        });
        assert_eq!((outcome.answers(), outcome.wrong, outcome.lost), (1, 1, 0));
    }

    #[test]
    fn an_answer_of_another_batch_is_wrong() {
        let outcome = against(|mut stream| {
            let (mut first, mut second) = ([0; 64], [0; 64]);
            stream.read_exact(&mut first).unwrap();
            stream.write_all(&first).unwrap();
            stream.read_exact(&mut second).unwrap();
            stream.write_all(&first).unwrap();
            // Ends with the client's reset.
            let _ = stream.read(&mut second);
        });
        assert_eq!((outcome.answers(), outcome.wrong), (1, 1));
    }

    #[test]
    fn a_server_that_goes_is_a_lost_connection() {
        let outcome = against(drop);
        assert_eq!((outcome.answers(), outcome.wrong, outcome.lost), (0, 0, 1));
    }
}
