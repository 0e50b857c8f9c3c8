//! `Load`: clients of every kind on one thread, until they are told to finish, and what they have seen.
//!
//! Invariant: once told to finish, each client completes what is under way, and those that stay for good ask a last time, so
//! that a connection that was lost in silence is found. It does not know what happens to the server meanwhile.

mod answer;
mod client;
mod tally;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event};
use rustix::io::Errno;

use self::answer::Expected;
use self::client::{Client, Script, Turn};
use self::tally::Tally;
pub(crate) use self::tally::{Failure, Kind, Listed};
use crate::support::wait_until;

/// How many clients there are of each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    pub(crate) keep: usize,
    pub(crate) short: usize,
    pub(crate) slow: usize,
    pub(crate) gateway: usize,
    /// Between two requests of a client that keeps its connection; one that does not takes twice as long.
    pub(crate) pause: Duration,
    /// Whoever does not keep its connection has one and no more.
    pub(crate) once: bool,
}

impl Mix {
    pub(crate) const NONE: Self =
        Self { keep: 0, short: 0, slow: 0, gateway: 0, pause: Duration::from_millis(10), once: false };

    /// That of the figures.
    pub(crate) fn all() -> Self {
        // Both have the same clients; an unoptimised server has to share its processors with unoptimised clients.
        let pause = Duration::from_millis(if crate::is_full() { 10 } else { 40 });
        Self { keep: 64, short: 64, slow: 16, gateway: 100, pause, once: false }
    }
}

/// Whom to load.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    pub(crate) web: SocketAddr,
    pub(crate) gateway: SocketAddr,
    /// The body of `/big`.
    pub(crate) big: Arc<[u8]>,
}

/// A load that runs.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    /// Those that are not slow.
    clients: usize,
    thread: JoinHandle<Tally>,
}

#[derive(Debug)]
struct Shared {
    begin: Instant,
    finish: AtomicBool,
    warm: AtomicUsize,
}

const PING: [u8; 8] = [0, 8, 0, 0, 0, 0, 0, 0];
const KEPT: &[u8] = b"GET /hello HTTP/1.1\r\nHost: trial\r\n\r\n";
const SHORT: &[u8] = b"GET /hello HTTP/1.1\r\nHost: trial\r\nConnection: close\r\n\r\n";
const BIG: &[u8] = b"GET /big HTTP/1.1\r\nHost: trial\r\nConnection: close\r\n\r\n";
const HELLO: &[u8] = b"Hello, World!";
const BETWEEN_PINGS: Duration = Duration::from_secs(2);
/// What is under way takes no longer than this to finish.
const FINISH: Duration = Duration::from_secs(20);

impl Load {
    pub(crate) fn start(targets: &Targets, mix: Mix) -> Self {
        let begin = Instant::now();
        let shared = Shared { begin, finish: AtomicBool::new(false), warm: AtomicUsize::new(0) };
        let shared = Arc::new(shared);
        let scripts = scripts(targets, mix);
        let clients = scripts.iter().filter(|script| !script.kind.is_slow()).count();
        let runner = Runner::new(scripts, Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || runner.run()).unwrap();
        Self { shared, clients, thread }
    }

    /// The time since it began, as the failures have it.
    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.begin.elapsed()
    }

    /// Waits until every client that is not slow has been served once; the slow ones are on their way then.
    pub(crate) fn wait_warm(&self) {
        wait_until("every client has been served", || {
            assert!(!self.thread.is_finished(), "the load has ended");
            self.shared.warm.load(Ordering::Relaxed) == self.clients
        });
    }

    /// Lets every client finish, and tells what they have seen.
    pub(crate) fn finish(self) -> Tally {
        self.shared.finish.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn scripts(targets: &Targets, mix: Mix) -> Vec<Script> {
    let hello = Expected::Http(Arc::from(HELLO));
    let script = |kind, to, request, expected: &Expected, pause| {
        let expected = expected.clone();
        Script { kind, to, request, expected, pause, once: mix.once }
    };
    let (web, pause) = (targets.web, Some(mix.pause));
    let twice = Some(mix.pause * 2);
    let big = Expected::Http(Arc::clone(&targets.big));
    let mut scripts = vec![script(Kind::Keep, web, KEPT, &hello, pause); mix.keep];
    scripts.extend(vec![script(Kind::Short, web, SHORT, &hello, twice); mix.short]);
    scripts.extend(vec![script(Kind::SlowSend, web, SHORT, &hello, pause); mix.slow / 2]);
    scripts.extend(vec![script(Kind::SlowRead, web, BIG, &big, pause); mix.slow - mix.slow / 2]);
    let frame = Expected::Frame(&PING);
    for nth in 0..mix.gateway {
        let between = nth.is_multiple_of(2).then_some(BETWEEN_PINGS);
        scripts.push(script(Kind::Gateway, targets.gateway, &PING, &frame, between));
    }
    scripts
}

/// The thread of a load.
#[derive(Debug)]
struct Runner {
    epoll: OwnedFd,
    clients: Vec<Client>,
    /// When who acts; an entry that its client no longer has is passed over.
    wakes: BinaryHeap<Reverse<(Instant, usize)>>,
    shared: Arc<Shared>,
    tally: Tally,
    scratch: Vec<u8>,
    warm: usize,
    done: usize,
}

const SCRATCH_BYTES: usize = 128 << 10;
const EVENTS_PER_WAIT: usize = 128;
const LONGEST_WAIT: Duration = Duration::from_millis(10);
const BETWEEN_CHECKS: Duration = Duration::from_millis(250);

/// Why a client is looked at.
#[derive(Clone, Copy, Debug)]
enum Cause {
    Event(epoll::EventFlags),
    Wake,
    Check,
    Drain,
    GiveUp,
}

impl Runner {
    fn new(scripts: Vec<Script>, shared: Arc<Shared>) -> Self {
        let now = Instant::now();
        let clients = scripts.into_iter().enumerate().map(|(index, script)| Client::new(index, script, now));
        let clients: Vec<Client> = clients.collect();
        let wakes = clients.iter().enumerate();
        let wakes = wakes.filter_map(|(index, client)| Some(Reverse((client.wake?, index)))).collect();
        Self {
            epoll: epoll::create(CreateFlags::CLOEXEC).unwrap(),
            clients,
            wakes,
            shared,
            tally: Tally::default(),
            scratch: vec![0; SCRATCH_BYTES],
            warm: 0,
            done: 0,
        }
    }

    fn run(mut self) -> Tally {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_PER_WAIT);
        let mut next_check = Instant::now() + BETWEEN_CHECKS;
        let mut drains_until = None;
        loop {
            self.wait(&mut events);
            for event in events.drain(..) {
                let index = usize::try_from(event.data.u64()).unwrap();
                self.look(index, Cause::Event(event.flags), drains_until.is_some());
            }
            self.wake(drains_until.is_some());
            let now = Instant::now();
            if now >= next_check {
                next_check = now + BETWEEN_CHECKS;
                self.look_at_all(Cause::Check, drains_until.is_some());
            }
            if drains_until.is_none() && self.shared.finish.load(Ordering::Relaxed) {
                drains_until = Some(now + FINISH);
                self.look_at_all(Cause::Drain, true);
            }
            self.shared.warm.store(self.warm, Ordering::Relaxed);
            let Some(until) = drains_until else { continue };
            if now >= until {
                self.look_at_all(Cause::GiveUp, true);
            }
            if self.done == self.clients.len() {
                return self.tally;
            }
        }
    }

    fn wait(&self, events: &mut Vec<Event>) {
        let next = self.wakes.peek().map(|Reverse((next, _))| next.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(next.map_or(LONGEST_WAIT, |next| next.min(LONGEST_WAIT))).unwrap();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => panic!("epoll_wait: {errno}"),
        }
    }

    fn wake(&mut self, draining: bool) {
        let now = Instant::now();
        while let Some(&Reverse((at, index))) = self.wakes.peek()
            && at <= now
        {
            self.wakes.pop();
            if self.clients[index].wake == Some(at) {
                self.tally.late = self.tally.late.max(now - at);
                self.look(index, Cause::Wake, draining);
            }
        }
    }

    fn look_at_all(&mut self, cause: Cause, draining: bool) {
        for index in 0..self.clients.len() {
            self.look(index, cause, draining);
        }
    }

    fn look(&mut self, index: usize, cause: Cause, draining: bool) {
        let client = &mut self.clients[index];
        if client.is_done() {
            return;
        }
        let mut turn = Turn {
            epoll: &self.epoll,
            begin: self.shared.begin,
            now: Instant::now(),
            draining,
            tally: &mut self.tally,
            scratch: &mut self.scratch,
            warm: &mut self.warm,
        };
        let before = client.wake;
        match cause {
            Cause::Event(flags) => client.drive(&mut turn, Some(flags)),
            Cause::Wake => client.drive(&mut turn, None),
            Cause::Check => client.check_patience(&mut turn),
            Cause::Drain => client.drain(&mut turn),
            Cause::GiveUp => client.give_up(&mut turn),
        }
        if let Some(wake) = client.wake
            && client.wake != before
        {
            self.wakes.push(Reverse((wake, index)));
        }
        self.done += usize::from(client.is_done());
    }
}
