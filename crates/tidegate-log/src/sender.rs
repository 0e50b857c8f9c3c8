//! The client's thread: takes records from the queue and brings them where they belong.
//!
//! One turn brings the link and standard error as far as they go without waiting, then waits in `poll(2)` for whatever can
//! go on: an acknowledgement, room in the socket, room in the pipe behind standard error, a record, or time. Only this
//! thread does the client's I/O, and it never logs.
//!
//! The thread does not want to be woken for each record: after a turn in which there was something to do it waits a little
//! before it asks to be told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::client::{Shared, State};
use crate::encode::{Head, notice};
use crate::layer::mute_this_thread;
use crate::queue::To;
use crate::screen::Screen;
use crate::socket::{Connected, SocketLink};
use crate::{MAX_LINE_BYTES, Severity, SharedStore};

pub(crate) enum Destination {
    Socket(Box<SocketLink>),
    Store(SharedStore),
    /// The client was closed.
    Nowhere,
}

pub(crate) struct Sender {
    shared: Arc<Shared>,
    destination: Destination,
    screen: Screen,
    /// Lines on their way from the queue.
    lines: Vec<u8>,
    /// When the server last acknowledged something, or had nothing to acknowledge.
    answered: Instant,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>, destination: Destination, screen: Screen) -> Self {
        Self { shared, destination, screen, lines: Vec::new(), answered: Instant::now() }
    }

    pub(crate) fn run(mut self) {
        mute_this_thread();
        while !self.shared.lock().over {
            self.close_on_request();
            self.connect_when_due();
            let mut busy = self.serve_destination();
            busy |= self.serve_screen();
            let timeout = self.settle(busy);
            self.wait(timeout);
        }
        self.shared.announce_progress();
    }

    /// Tries to connect when there is no connection.
    pub(crate) fn connect(&mut self) {
        let now = Instant::now();
        let asked = self.shared.lock().flushes;
        let answer = match &mut self.destination {
            Destination::Socket(link) if !link.is_up() => link.connect(now),
            Destination::Store(_) => Connected::Yes,
            _ => return,
        };
        let mut state = self.shared.lock();
        match answer {
            Connected::Yes => {
                state.queue.rewind();
                state.queue.set_away(false);
                self.answered = now;
            }
            Connected::Nobody => state.nobody = asked,
            Connected::Later => {}
        }
    }

    fn close_on_request(&mut self) {
        let mut state = self.shared.lock();
        if state.queue.is_closed() && !state.disconnected {
            self.destination = Destination::Nowhere;
            state.disconnected = true;
        }
    }

    fn connect_when_due(&mut self) {
        let Destination::Socket(link) = &self.destination else { return };
        let Some(retry_at) = link.retry_at() else { return };
        let state = self.shared.lock();
        // Somebody who waits for a flush wants to know now.
        let wanted = state.nobody < state.flushes;
        drop(state);
        if wanted || Instant::now() >= retry_at {
            self.connect();
        }
    }

    /// True when something was sent or acknowledged.
    fn serve_destination(&mut self) -> bool {
        match &self.destination {
            Destination::Socket(_) => self.serve_socket(),
            Destination::Store(store) => {
                let store = store.clone();
                self.serve_store(&store)
            }
            Destination::Nowhere => false,
        }
    }

    fn serve_socket(&mut self) -> bool {
        let Destination::Socket(link) = &mut self.destination else { return false };
        if !link.is_up() {
            return false;
        }
        let mut busy = false;
        let mut sent = Ok(());
        while let (Ok(()), Some(outbox)) = (sent, link.outbox()) {
            let mut state = self.shared.lock();
            if !state.queue.in_flight(To::Server) {
                self.answered = Instant::now();
            }
            if state.queue.take(To::Server, BATCH_BYTES, outbox) == 0 {
                break;
            }
            drop(state);
            busy = true;
            sent = link.send();
        }
        if sent.is_ok() && !link.is_idle() {
            sent = link.send();
        }
        // Last, since there may be an acknowledgement even when the connection has ended.
        let (acknowledged, received) = link.receive();
        let now = Instant::now();
        let mut state = self.shared.lock();
        let mut sound = true;
        if let Some(bytes) = acknowledged {
            sound = state.queue.acknowledge(bytes);
            self.answered = now;
            busy = true;
        }
        if sent.is_err() || received.is_err() || !sound {
            state.queue.set_away(true);
            drop(state);
            link.disconnect(now);
        } else if !state.queue.in_flight(To::Server) {
            self.answered = now;
            state.queue.set_away(false);
        } else {
            let away = now >= self.answered + STALL_AFTER;
            state.queue.set_away(away);
        }
        busy
    }

    fn serve_store(&mut self, store: &SharedStore) -> bool {
        let mut busy = false;
        loop {
            self.lines.clear();
            if self.shared.lock().queue.take(To::Server, BATCH_BYTES, &mut self.lines) == 0 {
                break;
            }
            busy = true;
            let mut store = store.lock();
            for line in self.lines.split_inclusive(|&byte| byte == b'\n') {
                store.append(line);
            }
            store.flush();
            drop(store);
            self.confirm_stored();
        }
        let mut guard = store.lock();
        guard.flush();
        let failing = guard.failure().is_some();
        drop(guard);
        self.shared.lock().queue.set_away(failing);
        busy
    }

    fn confirm_stored(&self) {
        let mut state = self.shared.lock();
        let taken = state.queue.taken(To::Server);
        state.queue.done(To::Server, taken);
    }

    /// True when something was shown.
    fn serve_screen(&mut self) -> bool {
        let mut busy = false;
        loop {
            self.screen.write();
            let mut state = self.shared.lock();
            if self.screen.is_gone() {
                // Nothing is rendered for nobody from now on.
                state.queue.close_screen();
                return busy;
            }
            if !self.screen.is_idle() {
                return busy;
            }
            let taken = state.queue.taken(To::Screen);
            state.queue.done(To::Screen, taken);
            self.lines.clear();
            let unshown = state.queue.take_unshown();
            let bytes = state.queue.take(To::Screen, BATCH_BYTES, &mut self.lines);
            drop(state);
            if unshown > 0 {
                self.screen.say(&format!("tidegate: {unshown} records are not shown here"));
            }
            if bytes == 0 && unshown == 0 {
                return busy;
            }
            self.screen.show(&self.lines);
            busy = true;
        }
    }

    /// What is left to do under the lock at the end of a turn. Returns how long to wait at most.
    fn settle(&mut self, busy: bool) -> Option<Duration> {
        let now = Instant::now();
        let mut state = self.shared.lock();
        let reported = self.report_drops(&mut state);
        let next = self.next_time(&state);
        // While neither has room, or neither wants anything, a record changes nothing.
        let link_ready = match &self.destination {
            Destination::Socket(link) => link.is_up() && link.is_idle(),
            Destination::Store(_) => true,
            Destination::Nowhere => false,
        };
        let ready = (
            link_ready && state.queue.has_more(To::Server),
            self.screen.is_idle() && state.queue.has_more(To::Screen),
        );
        let more = ready.0 || ready.1 || reported || state.over;
        let idle = link_ready || (self.screen.is_idle() && state.queue.wants(To::Screen));
        state.parked = idle && !busy && !more;
        state.lingering = idle && busy;
        drop(state);
        self.shared.announce_progress();
        if more && !busy {
            return Some(Duration::ZERO);
        }
        let next = next.map(|at| at.saturating_duration_since(now));
        if busy { Some(next.map_or(LINGER, |next| next.min(LINGER))) } else { next }
    }

    /// A record says how many were dropped, as soon as there is room for it.
    fn report_drops(&self, state: &mut State) -> bool {
        let Some(records) = state.queue.report_due() else { return false };
        let head = Head {
            time: jiff::Timestamp::now(),
            severity: Severity::Warn,
            target: TARGET,
            resource: &self.shared.resource,
        };
        let line =
            notice(&head, "records were dropped: the log queue was full", &[("dropped", records.into())]);
        if state.queue.offer(&line) {
            state.queue.reported(records);
        }
        true
    }

    /// When there is something to do even if nothing happens.
    fn next_time(&self, state: &State) -> Option<Instant> {
        match &self.destination {
            Destination::Socket(link) => link.retry_at().or_else(|| {
                let waiting = state.queue.in_flight(To::Server) && !state.queue.is_away();
                waiting.then(|| self.answered + STALL_AFTER)
            }),
            Destination::Store(_) => state.queue.is_away().then(|| Instant::now() + STORE_RETRY),
            Destination::Nowhere => None,
        }
    }

    fn wait(&self, timeout: Option<Duration>) {
        let mut fds = Vec::with_capacity(3);
        fds.push(PollFd::new(self.shared.wake_fd(), PollFlags::IN));
        if let Destination::Socket(link) = &self.destination
            && let Some(fd) = link.fd()
        {
            let output = if link.is_idle() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN | output));
        }
        if let Some(fd) = self.screen.awaited() {
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
        }
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).unwrap_or(LONG));
        // An interrupted wait is a turn that finds nothing to do.
        let _ = rustix::event::poll(&mut fds, timeout.as_ref());
        // Empty or not, the next wait begins anew.
        let _ = rustix::io::read(self.shared.wake_fd(), &mut [0u8; 8]);
    }
}

/// How much is taken from the queue at once; no less than a line.
const BATCH_BYTES: usize = MAX_LINE_BYTES;
/// How long a record waits at most when the thread has just been busy.
const LINGER: Duration = Duration::from_millis(5);
/// After so long without an acknowledgement the server counts as away.
const STALL_AFTER: Duration = Duration::from_secs(3);
/// How often a store whose disk takes nothing is tried again.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// Longer than any wait.
const LONG: Timespec = Timespec { tv_sec: 3600, tv_nsec: 0 };
/// The target of the client's own records.
const TARGET: &str = "tidegate_log::client";
