//! `Ledger`: what the service has seen and done, and what must hold of it; shared by callbacks, kernel and world.
//!
//! Invariant: it writes down and compares, and changes nothing: whatever the engine does, it does by itself. The first
//! thing that does not hold is kept as the run's violation; what follows from it is not looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_engine::{Closed, ConnHandle, ConnId, Instant, Reason, TimerToken};

use super::dial_ledger::{Dial, Role};
use super::plan::{ConnPlan, Plan};
use super::wire::Head;
use crate::Seen;

/// What was due before all peers began to do their part may come true so long.
const PATIENCE: Duration = Duration::from_millis(100);

/// The ledger, as it is shared. Everything runs on one thread; the lock is there because services have to be `Sync`.
#[derive(Clone, Debug)]
pub(crate) struct SharedLedger(Arc<Mutex<Ledger>>);

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) plan: Arc<Plan>,
    pub(crate) now: Instant,
    pub(crate) conns: BTreeMap<u32, Entry>,
    /// Outgoing connections that were asked for.
    pub(crate) dials: BTreeMap<u32, Dial>,
    /// Places in the loop that are taken, as the kernel counts them.
    pub(crate) taken_places: usize,
    pub(crate) is_told_to_end: bool,
    /// Which connection has, or had, an id.
    pub(crate) by_id: BTreeMap<(u32, u32), u32>,
    /// Timers of services that have not expired.
    pub(crate) timers: BTreeMap<(u32, u32), Instant>,
    /// Notes that are to be posted for connections that wait for one.
    pub(crate) notes: Vec<(Instant, u32, u32)>,
    pub(crate) violation: Option<String>,
    /// From when on every peer does its part.
    pub(crate) settling_since: Option<Instant>,
    pub(crate) seen: Seen,
    /// Lines of the trace, when one is written.
    pub(crate) trace: Option<Vec<String>>,
}

/// What another thread posts: for whom it is meant, and whether it is the one that is waited for.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) conn: u32,
    pub(crate) awaited: Option<u32>,
}

/// A connection, as its service sees it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) handle: Option<ConnHandle<Note>>,
    pub(crate) life: Life,
    pub(crate) opened: Instant,
    /// When a callback was last called for it, or bytes moved.
    pub(crate) moved: Instant,
    /// When the loop last received or sent something for it.
    pub(crate) passed: Instant,
    pub(crate) last_in: Instant,
    pub(crate) last_out: Instant,
    /// Requests that were handled, and their bytes.
    pub(crate) handled: u32,
    pub(crate) handled_bytes: usize,
    /// Frames that were sent from callbacks.
    pub(crate) sent: u32,
    /// Letters that were posted to it while it was open.
    pub(crate) letters: u32,
    /// It waits for the note of this number.
    pub(crate) awaits: Option<u32>,
    pub(crate) notes: u32,
    pub(crate) paused: bool,
    /// Frames of a stream that are still to be sent.
    pub(crate) stream: u32,
    pub(crate) eof_told: bool,
    pub(crate) retire_told: u32,
    /// What the service has answered that ends it.
    pub(crate) ending: Option<Ending>,
    /// Somebody asked for its end by a handle.
    pub(crate) asked: Option<Reason>,
    /// What `on_close` was told: bytes received and sent.
    pub(crate) counts: (u64, u64),
    /// The world has looked at its end.
    pub(crate) is_judged: bool,
    pub(crate) id: ConnId,
    /// The outgoing connection that it has asked for.
    pub(crate) dial: Option<u32>,
    /// Of an outgoing one: the note that came with the wish for it.
    pub(crate) wish_came: bool,
    /// What it is to be tied to.
    pub(crate) partner: Option<u32>,
    /// The engine has had a turn for that since.
    pub(crate) is_bound: bool,
    /// Bytes that its service has said before.
    pub(crate) greeted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Open,
    /// `on_open` wanted it not; it sees no `on_close`.
    Refused,
    Closed(Reason),
}

/// An end that somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) reason: Reason,
    /// What is queued is delivered first.
    pub(crate) flushes: bool,
}

impl SharedLedger {
    pub(crate) fn new(plan: Arc<Plan>, traced: bool) -> Self {
        Self(Arc::new(Mutex::new(Ledger {
            plan,
            now: Instant::default(),
            conns: BTreeMap::new(),
            dials: BTreeMap::new(),
            taken_places: 0,
            is_told_to_end: false,
            by_id: BTreeMap::new(),
            timers: BTreeMap::new(),
            notes: Vec::new(),
            violation: None,
            settling_since: None,
            seen: Seen::default(),
            trace: traced.then(Vec::new),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        // A handler that panics on purpose holds no lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// A line of the trace.
    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let us = self.now.as_nanos() / 1000;
            trace.push(format!("{:>6}.{:03} ms  {}", us / 1000, us % 1000, line()));
        }
    }

    /// Something does not hold.
    pub(crate) fn violated(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let what = what();
            self.say(|| format!("VIOLATION: {what}"));
            self.violation = Some(what);
        }
    }

    pub(crate) fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what);
        }
    }

    pub(crate) fn conn_plan(&self, conn: u32) -> &ConnPlan {
        &self.plan.conns[conn as usize]
    }

    /// The connection for which a callback is called: `id` has to be the one that was opened under it.
    pub(crate) fn called(&mut self, conn: u32, id: ConnId, callback: &str) -> Option<&mut Entry> {
        self.say(|| format!("#{conn} {callback}"));
        let meant = self.by_id.get(&(id.slot(), id.generation())).copied();
        self.check(meant == Some(conn), || format!("#{conn}: {callback} with the Io of {meant:?}, id {id}"));
        let now = self.now;
        match self.conns.get_mut(&conn) {
            Some(entry) if entry.life == Life::Open => {
                entry.moved = now;
                if entry.is_bound {
                    self.violated(|| format!("#{conn}: {callback}, and it is tied"));
                    return None;
                }
                // The end is asked for once; nothing is called behind it.
                if let Some(Ending { reason, .. }) = entry.ending {
                    self.violated(|| format!("#{conn}: {callback} after its end was asked for: {reason}"));
                    return None;
                }
                self.conns.get_mut(&conn)
            }
            other => {
                let life = other.map(|entry| entry.life);
                self.violated(|| format!("#{conn}: {callback} while it is {life:?}"));
                None
            }
        }
    }

    pub(crate) fn opened(&mut self, id: ConnId, handle: Option<ConnHandle<Note>>) -> Option<u32> {
        let Some(conn) = self.by_id.get(&(id.slot(), id.generation())).copied() else {
            self.violated(|| format!("on_open for {id}, which the reactor does not know"));
            return None;
        };
        self.say(|| format!("#{conn} on_open as {id}"));
        if let Role::Dial(dial) = self.role(conn) {
            self.dial_opened(dial);
        }
        let now = self.now;
        let is_refused = self.refusal(conn).is_some();
        if is_refused {
            self.seen.at("refused");
        }
        let entry = Entry {
            handle,
            life: if is_refused { Life::Refused } else { Life::Open },
            opened: now,
            moved: now,
            passed: now,
            last_in: now,
            last_out: now,
            handled: 0,
            handled_bytes: 0,
            sent: 0,
            letters: 0,
            awaits: None,
            notes: 0,
            paused: false,
            stream: 0,
            eof_told: false,
            retire_told: 0,
            ending: None,
            asked: None,
            counts: (0, 0),
            is_judged: false,
            id,
            dial: None,
            wish_came: false,
            partner: None,
            is_bound: false,
            greeted: 0,
        };
        let before = self.conns.insert(conn, entry);
        self.check(before.is_none(), || format!("#{conn}: on_open twice"));
        Some(conn)
    }

    /// A request is to be handled: it has to be the next one, and whole. Answers its connection's page.
    pub(crate) fn message(&mut self, conn: u32, id: ConnId, head: Head, bytes: &[u8]) -> Option<&mut Entry> {
        self.say(|| format!("#{conn} on_message {}", head.number));
        let is_whole = bytes == head.frame(conn);
        self.check(is_whole, || format!("#{conn}: request {} is not what was said", head.number));
        let entry = self.called(conn, id, "on_message")?;
        let (expected, awaits, paused) = (entry.handled, entry.awaits, entry.paused);
        entry.handled += 1;
        entry.handled_bytes += bytes.len();
        self.check(head.number == expected, || {
            format!("#{conn}: request {} instead of {expected}", head.number)
        });
        self.check(awaits.is_none(), || format!("#{conn}: a message while it is suspended"));
        self.check(!paused, || format!("#{conn}: a message while it is paused"));
        self.conns.get_mut(&conn)
    }

    pub(crate) fn closed(&mut self, conn: u32, closed: &Closed) {
        let reason = closed.reason;
        self.say(|| {
            format!("#{conn} on_close: {reason}, {} bytes in, {} out", closed.bytes_in, closed.bytes_out)
        });
        self.timers.retain(|(of, _), _| *of != conn);
        self.seen.at("closed");
        match reason {
            Reason::PEER_RESET => self.seen.at("reset by the peer"),
            Reason::MEMORY_PRESSURE => self.seen.at("memory pressure"),
            Reason::OPERATOR => self.seen.at("ended by a handle"),
            Reason::PANIC => self.seen.at("panic"),
            _ => {}
        }
        let Some(entry) = self.conns.get_mut(&conn) else {
            return self.violated(|| format!("#{conn}: on_close without on_open"));
        };
        entry.counts = (closed.bytes_in, closed.bytes_out);
        let before = std::mem::replace(&mut entry.life, Life::Closed(reason));
        self.check(before == Life::Open, || format!("#{conn}: on_close while it is {before:?}"));
    }

    /// The service answers something that ends the connection.
    pub(crate) fn end(&mut self, conn: u32, reason: Reason, flushes: bool) {
        // Its timers do not matter any more.
        self.timers.retain(|(of, _), _| *of != conn);
        if let Some(entry) = self.conns.get_mut(&conn) {
            entry.ending.get_or_insert(Ending { reason, flushes });
        }
    }

    pub(crate) fn set_timer(&mut self, conn: u32, timer: u32, at: Option<Instant>) {
        match at {
            Some(at) => self.timers.insert((conn, timer), at),
            None => self.timers.remove(&(conn, timer)),
        };
    }

    /// A timer expired: it has to be one that was set, and not before its time.
    pub(crate) fn expired(&mut self, conn: u32, TimerToken(timer): TimerToken, now: Instant) {
        self.seen.at("timer");
        match self.timers.remove(&(conn, timer)) {
            None => self.violated(|| format!("#{conn}: timer {timer} expired, which is not set")),
            Some(at) => self.check(at <= now, || {
                let early = at.saturating_duration_since(now);
                format!("#{conn}: timer {timer} expired {early:?} early")
            }),
        }
    }

    /// A deadline of a connection passed: not while its peer does all that is awaited of it.
    pub(crate) fn timed_out(&mut self, conn: u32, reason: Reason) {
        let since = self.settling_since.map(|since| self.now.saturating_duration_since(since));
        self.check(since.is_none_or(|since| since < PATIENCE), || {
            format!("#{conn}: {reason} though its peer does its part")
        });
    }

    /// After a turn: no timer that was due before it is left. One that was set in a pool is the loop's when it has the
    /// session back, `since` when it has them all, and may have been due by then.
    pub(crate) fn check_timers(&mut self, since: Instant, resolution: Duration) {
        let now = self.now;
        // Of a connection that is being closed by a handle they do not matter any more.
        let matters = |conn: u32| self.conns.get(&conn).is_some_and(|entry| entry.asked.is_none());
        let mut late = self
            .timers
            .iter()
            .filter(|((conn, _), at)| (**at).max(since) + resolution < now && matters(*conn));
        let late = late.next().map(|(timer, at)| (*timer, *at));
        if let Some(((conn, timer), at)) = late {
            let late = now.saturating_duration_since(at);
            self.violated(|| format!("#{conn}: timer {timer} is {late:?} late, and a turn has passed"));
        }
    }
}
