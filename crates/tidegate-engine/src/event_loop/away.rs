//! Sessions that leave the loop with a message for a handler thread, and come back.
//!
//! The connection itself stays: its output is sent, its deadlines run, what it receives is kept up to
//! `max_input_bytes`. Whatever would call its service meanwhile waits for the session, in order.
//!
//! Invariant: a connection that is `away` is not taken out of the table, so a job always finds it on its return.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_reactor::{Reactor, Token};

use super::Loop;
use super::relief::Buffers;
use crate::conn::{Aside, Conn, Ending, Missed};
use crate::errand::Errand;
use crate::host::{Event, Next, Then};
use crate::io::security_of;
use crate::job::{Home, Job, Jobs};
use crate::metrics::ListenerWord;
use crate::pool::{HandlerPool, PoolHandle, Refused};
use crate::wish::Wish;

/// Emptied jobs that are kept for the next messages.
const SPARE_JOBS: usize = 256;

impl Crew {
    /// Frees the buffers of the jobs that are kept.
    pub(super) fn free_idle(&mut self) {
        self.spares.iter_mut().for_each(|job| job.free_buffers());
    }
}

/// What a loop has to do with a pool.
#[derive(Debug)]
pub(crate) struct Crew {
    pool: PoolHandle,
    home: Arc<Home>,
    /// Jobs that have left and not come back, those that wait for room included.
    out: usize,
    /// Jobs that the queue had no room for, in order.
    waiting: VecDeque<Box<Job>>,
    spares: Jobs,
    returned: Jobs,
    /// The pool, when it is this loop's alone.
    _own: Option<HandlerPool>,
}

impl Crew {
    pub(crate) fn new(pool: PoolHandle, home: Home, own: Option<HandlerPool>) -> Self {
        Self {
            pool,
            home: Arc::new(home),
            out: 0,
            waiting: VecDeque::new(),
            spares: Vec::new(),
            returned: Vec::new(),
            _own: own,
        }
    }
}

impl<R: Reactor> Loop<R> {
    /// Looks for a complete message in the input, and sends it off.
    pub(super) fn send_off(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let site = &self.sites[usize::from(conn.site)];
        let host = &mut self.hosts[usize::from(conn.site)];
        let mut io = self.turn.io(&conn.who, conn.queued(), site);
        io.security = security_of(&conn.aside);
        let (len, away) = match host.next(conn.session, &mut io, &mut conn.reading, &conn.input) {
            Next::Message(len, away) => (len, away),
            Next::Then(then) => {
                if conn.input.is_empty() {
                    self.spares.keep(std::mem::take(&mut conn.input));
                }
                return self.follow(token, then);
            }
        };
        let Some(crew) = &mut self.crew else { return };
        let moment = self.turn.moment();
        let mut job = self.memory.take_idle(crew.spares.pop()).unwrap_or_else(|| {
            let errand = Errand::new(conn, moment, site, &self.turn.shared);
            Box::new(Job::new(errand, Arc::clone(&crew.home)))
        });
        job.errand.renew(conn, moment, site);
        job.handled = false;
        if len == conn.input.len() {
            self.spares.keep(std::mem::replace(&mut job.message, std::mem::take(&mut conn.input)));
        } else {
            job.message.clear();
            job.message.extend(conn.input.drain(..len));
        }
        job.errand.more_input = !conn.input.is_empty();
        self.memory.lend(&mut job.errand, job.message.capacity());
        job.errand.away = Some(away);
        conn.away = true;
        crew.out += 1;
        self.submit(job);
        self.settle(token);
    }

    fn submit(&mut self, job: Box<Job>) {
        let Some(crew) = &mut self.crew else { return };
        match crew.pool.submit(job) {
            Ok(()) => {}
            Err(Refused::Full(job)) => {
                if let Some(conn) = self.conns.get_mut(job.errand.who.id) {
                    conn.unqueued = true;
                }
                crew.waiting.push_back(job);
            }
            // It goes home as it is dropped, and its connection is closed there.
            Err(Refused::Stopped(job)) => drop(job),
        }
    }

    /// Takes what came back, and lets go what waits for room.
    pub(super) fn welcome(&mut self) {
        let Some(crew) = &mut self.crew else { return };
        let mut returned = std::mem::take(&mut crew.returned);
        crew.home.collect(&mut returned);
        for job in returned.drain(..) {
            self.on_return(job);
        }
        if let Some(crew) = &mut self.crew {
            crew.returned = returned;
        }
        self.try_waiting();
    }

    fn try_waiting(&mut self) {
        while let Some(job) = self.crew.as_mut().and_then(|crew| crew.waiting.pop_front()) {
            let token = job.errand.who.id;
            let Some(crew) = &mut self.crew else { return };
            match crew.pool.submit(job) {
                Err(Refused::Full(job)) => return crew.waiting.push_front(job),
                Err(Refused::Stopped(job)) => drop(job),
                Ok(()) => {}
            }
            if let Some(conn) = self.conns.get_mut(token) {
                conn.unqueued = false;
            }
            self.settle(token);
        }
    }

    /// A session is back: does what its handler asked for, then what waited for it.
    fn on_return(&mut self, mut job: Box<Job>) {
        let token = job.errand.who.id;
        let (handled, flow) = (job.handled, job.flow);
        let (site, since) = (job.errand.site.index, job.errand.moment.now);
        let absence = self.come_home(&mut job.errand, u64::from(handled));
        self.keep_promise(token, job.errand.queued.weight);
        self.put_aside(job);
        match absence {
            Some(absence) => self.catch_up(token, *absence, |this| this.apply(token, flow)),
            None => self.apply(token, flow),
        }
        if handled && Then::Flow(flow).is_answered() {
            self.answered(site, since);
        }
        self.pump(token);
        self.tell_eof(token);
    }

    /// A handler that went over the high-water mark with what waited when its message left counts on `on_drained`, even
    /// when the peer has taken that in the meantime.
    fn keep_promise(&mut self, token: Token, waited: usize) {
        let weight = waited + self.turn.record.weight();
        let Some(conn) = self.conns.get_mut(token) else { return };
        let high_water = self.sites[usize::from(conn.site)].limits.high_water_bytes;
        conn.over_water |= weight > high_water && !self.turn.record.sends_nothing();
    }

    /// Puts a session back in its place, and does what its callbacks asked for but sending. Answers what happened while
    /// it was away.
    pub(super) fn come_home(&mut self, errand: &mut Errand, messages: u64) -> Option<Box<Aside>> {
        let (Some(away), Some(conn)) = (errand.away.take(), self.conns.get_mut(errand.who.id)) else {
            unreachable!("a connection stays while its session is away");
        };
        let site = usize::from(conn.site);
        conn.session = self.hosts[site].take_back(away);
        conn.away = false;
        self.memory.take_back(errand);
        conn.unqueued = false;
        std::mem::swap(&mut self.turn.record, &mut errand.record);
        let metrics = &self.sites[site].metrics;
        for (counter, n) in self.turn.record.counts.drain(..) {
            metrics.add_service(counter, n);
        }
        metrics.add(ListenerWord::Messages, messages);
        let mut absence = conn.take_absence();
        if let Some(absence) = &mut absence {
            // A timer that expired meanwhile and was taken back or set anew has not expired for its service.
            let wishes = &self.turn.record.timers;
            absence.events.retain(|missed| match missed {
                Missed::Event(Event::Timer(timer)) => !wishes.iter().any(|wish| wish.token == *timer),
                _ => true,
            });
        }
        self.turn.carry_out(conn);
        absence
    }

    /// Does what the handler answered, then what happened meanwhile; or ends the connection, if that is what happened.
    pub(super) fn catch_up(&mut self, token: Token, absence: Aside, answer: impl FnOnce(&mut Self)) {
        match absence.ending {
            Some(Ending { reason, end, errno }) => self.close_with(token, reason, end, errno),
            None => answer(self),
        }
        // Of a connection that has ended, letters are counted as stale and dropped.
        for missed in absence.events {
            match missed {
                Missed::Event(event) => self.event(token, event),
                Missed::Letter(letter) => self.on_letter(token, letter),
                Missed::Tie(tie) => self.turn.wishes.push_back(Wish::Tie(tie)),
            }
        }
    }

    fn put_aside(&mut self, mut job: Box<Job>) {
        let Some(crew) = &mut self.crew else { return };
        crew.out -= 1;
        if crew.spares.len() < SPARE_JOBS {
            job.errand.record.clear();
            job.message.clear();
            self.memory.keep_idle(&mut *job);
            crew.spares.push(job);
        }
    }

    /// After the end: waits for the sessions that are still away, so that each sees its `on_close`.
    pub(super) fn await_returns(&mut self) {
        if let Some(crew) = &mut self.crew {
            // They go home as they are dropped.
            crew.waiting.clear();
        }
        while let Some(crew) = &mut self.crew
            && crew.out > 0
        {
            let mut returned = std::mem::take(&mut crew.returned);
            crew.home.wait(&mut returned);
            for job in returned.drain(..) {
                self.on_return(job);
            }
        }
    }
}

impl Conn {
    /// Keeps something for the return of the session.
    pub(super) fn miss(&mut self, missed: Missed) {
        self.aside.get_or_insert_default().events.push(missed);
    }

    /// Puts the end off until the session is back. The first cause counts. False when it is not away.
    pub(super) fn end_later(&mut self, ending: Ending) -> bool {
        if self.away {
            self.aside.get_or_insert_default().ending.get_or_insert(ending);
        }
        self.away
    }

    /// Whether it only waits for its session to be closed.
    pub(super) fn is_over(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.ending.is_some())
    }
}
