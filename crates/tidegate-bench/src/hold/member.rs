//! `run_member`: one process of those that hold connections together.
//!
//! Invariant: a message that was sent is answered, or its connection is lost, or it is missing in the report; none is sent
//! twice. It reads its standard input only to learn when to begin, and that nobody wants it any more.

use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tidegate_sys::event::Events;

use super::{MemberReport, Schedule};
use crate::connect::{raise_descriptor_limit, timespec};
use crate::{ConnectError, Exchange, ExchangeError, Latency, connect_each};

/// What one process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPlan {
    /// Where to connect to, in turn.
    pub targets: Vec<SocketAddr>,
    /// Where to connect from, in turn; empty: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// How many connections.
    pub connections: usize,
    /// Each asks once in this time.
    pub every: Duration,
    /// How long they ask.
    pub time: Duration,
    /// How long the last answers may take after that.
    pub last_answers: Duration,
}

/// Why a member could not do its part.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The connections cannot be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The message is impossible.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// Standard input, standard output, the poller or the limit on descriptors.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Who started it has gone.
    #[error("nobody waits for the result any more")]
    Orphaned,
}

const MESSAGE_BYTES: usize = 64;
const EVENTS_PER_WAIT: usize = 512;
const STDIN: u64 = u64::MAX;

/// Connects, says so on `output`, waits for a line on `input`, holds, says what came of it, and closes the connections when
/// `input` ends.
///
/// # Errors
///
/// The connections cannot be made, or `input` ends.
pub fn run_member(
    plan: &MemberPlan,
    input: &mut (impl BufRead + AsFd),
    output: &mut impl Write,
) -> Result<(), MemberError> {
    let mut member = Member::connect(plan)?;
    writeln!(output, "{}", plan.connections)?;
    output.flush()?;
    let mut line = String::new();
    if input.by_ref().take(16).read_line(&mut line)? == 0 {
        return Err(MemberError::Orphaned);
    }
    let stdin = EventData::new_u64(STDIN);
    epoll::add(&member.epoll, &*input, stdin, EventFlags::IN).map_err(io::Error::from)?;
    let report = member.hold(plan)?;
    let text = serde_json::to_string(&report).map_err(io::Error::from)?;
    writeln!(output, "{text}")?;
    output.flush()?;
    // The connections stay until all members are done, so that what they cost together can be looked at.
    io::copy(input, &mut io::sink())?;
    Ok(())
}

struct Member {
    epoll: OwnedFd,
    conns: Vec<Conn>,
    exchange: Exchange,
    latency: Latency,
    report: MemberReport,
    /// Messages on their way.
    open: u64,
    held: usize,
}

struct Conn {
    /// `None` once it has been lost.
    socket: Option<OwnedFd>,
    number: u32,
    batch: u32,
    /// How much of the answer has come, and when its question was sent; `None` while nothing is asked.
    waiting: Option<(usize, Instant)>,
}

impl Member {
    fn connect(plan: &MemberPlan) -> Result<Self, MemberError> {
        raise_descriptor_limit()?;
        let sockets = connect_each(plan.connections, &plan.targets, &plan.sources)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let mut conns = Vec::with_capacity(sockets.len());
        for (number, socket) in (0..).zip(sockets) {
            let data = EventData::new_u64(u64::from(number));
            epoll::add(&epoll, &socket, data, EventFlags::IN).map_err(io::Error::from)?;
            conns.push(Conn { socket: Some(socket), number, batch: 0, waiting: None });
        }
        Ok(Self {
            epoll,
            held: conns.len(),
            conns,
            exchange: Exchange::echo(MESSAGE_BYTES, 1)?,
            latency: Latency::new(),
            report: MemberReport::default(),
            open: 0,
        })
    }

    fn hold(&mut self, plan: &MemberPlan) -> Result<MemberReport, MemberError> {
        let mut schedule = Schedule::new(plan.connections, plan.every);
        let mut events = Events::with_capacity(EVENTS_PER_WAIT);
        let began = Instant::now();
        while self.held > 0 {
            let now = began.elapsed();
            while schedule.at() <= now && schedule.at() < plan.time {
                self.ask(schedule.connection());
                schedule.asked();
            }
            if now >= plan.time && (self.open == 0 || now >= plan.time + plan.last_answers) {
                break;
            }
            let until =
                if now < plan.time { schedule.at().min(plan.time) } else { plan.time + plan.last_answers };
            match events.wait(&self.epoll, Some(&timespec(until.saturating_sub(now)))) {
                Ok(()) | Err(Errno::INTR) => {}
                Err(error) => return Err(MemberError::Io(error.into())),
            }
            let mut nth = 0;
            while let Some((data, _)) = events.get(nth) {
                if data == STDIN {
                    return Err(MemberError::Orphaned);
                }
                self.ready(usize::try_from(data).unwrap_or(usize::MAX));
                nth += 1;
            }
        }
        self.report.latency = self.latency.summary();
        Ok(self.report)
    }

    fn ask(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Some(socket) = &conn.socket else { return };
        if conn.waiting.is_some() {
            self.report.skipped += 1;
            return;
        }
        conn.batch = conn.batch.wrapping_add(1);
        self.exchange.stamp(conn.number, conn.batch);
        let now = Instant::now();
        self.report.asked += 1;
        // The buffer of a connection with nothing on its way takes a short message whole.
        if rustix::net::send(socket, self.exchange.requests(), SendFlags::NOSIGNAL) == Ok(MESSAGE_BYTES) {
            conn.waiting = Some((0, now));
            self.open += 1;
        } else {
            self.lose(index);
            self.report.lost += 1;
        }
    }

    fn ready(&mut self, index: usize) {
        let Some(conn) = self.conns.get_mut(index) else { return };
        let Some(socket) = &conn.socket else { return };
        let mut buf = [0; MESSAGE_BYTES + 1];
        let got = match rustix::net::recv(socket, &mut buf[..], RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok((0, _)) | Err(_) => {
                self.report.lost += 1;
                return self.lose(index);
            }
            Ok((got, _)) => got,
        };
        self.exchange.stamp(conn.number, conn.batch);
        let (before, asked_at) = conn.waiting.unwrap_or((MESSAGE_BYTES, Instant::now()));
        if self.exchange.answers().get(before..before + got) != Some(&buf[..got]) {
            self.report.wrong += 1;
            return self.lose(index);
        }
        if before + got < MESSAGE_BYTES {
            conn.waiting = Some((before + got, asked_at));
            return;
        }
        conn.waiting = None;
        self.open -= 1;
        self.report.answered += 1;
        self.latency.record(asked_at.elapsed(), 1);
    }

    fn lose(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        conn.socket = None;
        self.held -= 1;
        if conn.waiting.take().is_some() {
            self.open -= 1;
        }
    }
}
