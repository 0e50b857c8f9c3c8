//! The life of one child: started, READY, told to end, ended, started again.
//!
//! The one invariant: a child has at most one process; the next is ordered only after the one before has been reaped. What
//! its end means to the operation that started it is decided in `operation`.

use std::time::Duration;

use tidegate_sys::process::ExitStatus;
use tidegate_timer::Instant;

use super::slot::State;
use super::words::{ChildId, Measure, Order};
use super::{Report, Supervisor};
use crate::role::Role;

impl Supervisor {
    pub(super) fn on_spawned(&mut self, id: ChildId, pid: u32, now: Instant) {
        let deadline = now + self.limits.ready_timeout;
        let Some(child) = self.children.get_mut(&id).filter(|child| child.state == State::Spawning) else {
            return;
        };
        // Whether it was retired or a stop has begun meanwhile is seen by what settles those.
        child.state = State::Starting { deadline };
        child.pid = Some(pid);
        child.started_at = now;
        child.ready_at = None;
    }

    pub(super) fn on_spawn_failed(&mut self, id: ChildId, now: Instant) {
        let Some(child) = self.children.get_mut(&id).filter(|child| child.state == State::Spawning) else {
            return;
        };
        child.early_deaths = child.early_deaths.saturating_add(1);
        let is_retired = child.is_retired;
        if is_retired || self.phase.is_stopping() {
            self.set_gone(id);
        } else if self.is_on_trial(id) {
            self.set_gone(id);
            self.fail_by(id, None, now);
        } else if self.phase.is_first_start() {
            self.set_gone(id);
            self.fail_start(id, EXIT_FAILED, now);
        } else {
            self.schedule_restart(id, now);
        }
    }

    pub(super) fn on_ready(&mut self, id: ChildId, now: Instant) {
        let Some(child) = self.children.get_mut(&id) else { return };
        let State::Starting { deadline } = child.state else { return };
        child.ready_at = Some(now);
        child.state = State::Ready;
        let took = now.saturating_duration_since(child.started_at);
        let is_paused = child.is_paused;
        self.report(Report::Ready { child: id, took });
        if self.is_probe(id) {
            // It ends by itself now, within the time that it has.
            self.set_state(id, State::Ending { measure: Measure::Quit, deadline });
        } else if is_paused {
            self.orders.push_back(Order::PauseAccept { child: id });
        }
    }

    pub(super) fn on_exited(&mut self, id: ChildId, status: ExitStatus, now: Instant) {
        let is_stopping = self.phase.is_stopping();
        let healthy_after = self.limits.healthy_after;
        let Some(child) = self.children.get_mut(&id) else { return };
        let Some(pid) = child.pid.take() else { return };
        let was_told = matches!(child.state, State::Ending { measure: Measure::Quit | Measure::Stop, .. });
        // A signal to the whole group may have told it before its turn came.
        let expected = was_told || (is_stopping && status.is_success());
        let has_passed = child.ready_at.is_some()
            && matches!(child.state, State::Ending { measure: Measure::Quit, .. })
            && status.is_success();
        let was_ready = child.ready_at.is_some();
        child.last_exit = Some(status);
        child.stop_asked_until = None;
        child.pinged_at = None;
        child.is_stuck = false;
        let served = child.ready_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let is_early = !was_ready || served < healthy_after;
        child.early_deaths = if is_early { child.early_deaths.saturating_add(1) } else { 0 };
        let (is_retired, is_told) = (child.is_retired, !child.is_up());
        self.report(Report::Exited { child: id, pid, status, expected });
        if is_stopping || is_retired {
            self.set_gone(id);
            if !is_stopping {
                self.hand_on(id, is_told, now);
            }
            return;
        }
        if self.is_on_trial(id) {
            self.set_gone(id);
            if self.is_probe(id) && has_passed {
                return self.pass_probe();
            }
            return self.fail_by(id, Some(status), now);
        }
        if let ExitStatus::Code(code @ (EXIT_FAILED | EXIT_CONFIGURATION)) = status
            && !was_ready
            && self.phase.is_first_start()
        {
            self.set_gone(id);
            return self.fail_start(id, code, now);
        }
        self.schedule_restart(id, now);
    }

    pub(super) fn on_signalled(&mut self, id: ChildId, now: Instant) {
        if self.phase.is_stopping() {
            return;
        }
        if let Some(child) = self.children.get_mut(&id).filter(|child| child.pid.is_some()) {
            child.stop_asked_until.get_or_insert(now + GROUP_SIGNAL_SPREAD);
        }
    }

    /// It was not the whole group that was signalled.
    fn end_signalled(&mut self, id: ChildId, now: Instant) {
        let Some(child) = self.child(id) else { return };
        match child.role {
            Role::Worker(_) if self.is_fed(child) => {
                // What its acceptor still hands over is served first.
                if let Some(child) = self.children.get_mut(&id) {
                    child.stop_asked_until = Some(now + GROUP_SIGNAL_SPREAD);
                }
            }
            Role::Worker(_) => self.quit_until(id, now + self.limits.shutdown_timeout, now),
            _ => self.end(id, Measure::Stop, now),
        }
    }

    /// Takes the measures that are due by now.
    pub(super) fn expire(&mut self, now: Instant) {
        for id in self.ids() {
            let Some(child) = self.children.get_mut(&id) else { continue };
            if child.stop_asked_until.take_if(|at| *at <= now).is_some() {
                self.end_signalled(id, now);
            }
            let Some(child) = self.children.get_mut(&id) else { continue };
            if child.deadline().is_none_or(|at| at > now) {
                continue;
            }
            let state = child.state;
            match state {
                State::Starting { deadline } if self.is_silent(deadline) => self.on_not_ready(id, now),
                State::Ending { measure, .. } => {
                    let next = measure.next();
                    self.report(Report::Overdue { child: id, next });
                    self.end(id, next, now);
                }
                _ => {}
            }
        }
    }

    /// Starts those whose time has come.
    pub(super) fn spawn(&mut self, now: Instant) {
        for (id, child) in &mut self.children {
            if matches!(child.state, State::Waiting { until } if until <= now) {
                child.state = State::Spawning;
                self.orders.push_back(Order::Spawn { child: *id });
            }
        }
    }

    /// Tells a child to finish what is in flight and to end, unless it was told to end before.
    pub(super) fn quit(&mut self, id: ChildId, timeout: Option<Duration>, now: Instant) {
        let grace = self.limits.shutdown_grace;
        let deadline = timeout.map_or(Instant::MAX, |timeout| now + timeout.saturating_add(grace));
        let Some(child) = self.children.get_mut(&id).filter(|child| child.is_up()) else { return };
        child.state = State::Ending { measure: Measure::Quit, deadline };
        self.orders.push_back(Order::Quit { child: id, timeout });
    }

    /// Takes a measure against a child that has a process, unless the same or a harder one was taken before; only `KILL` is
    /// repeated.
    pub(super) fn end(&mut self, id: ChildId, measure: Measure, now: Instant) {
        let stop_timeout = self.limits.stop_timeout;
        let Some(child) = self.children.get_mut(&id).filter(|child| child.pid.is_some()) else { return };
        let is_new = !matches!(child.state, State::Ending { measure: taken, .. } if taken >= measure);
        let (order, time) = match measure {
            Measure::Quit => return self.quit(id, Some(stop_timeout), now),
            Measure::Stop if !is_new => return,
            Measure::Stop => (Order::Stop { child: id }, stop_timeout),
            Measure::Kill => (Order::Kill { child: id }, KILL_AGAIN_AFTER),
        };
        child.state = State::Ending { measure, deadline: now + time };
        self.orders.push_back(order);
    }

    /// Takes a child out of what serves: it is not started again. It is told to end by [`settle_retired`](Self::settle_retired).
    pub(super) fn retire(&mut self, id: ChildId) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.is_retired = true;
        if child.is_waiting() {
            child.state = State::Gone;
        }
    }

    /// Ends a child that did not become what it was started for.
    pub(super) fn discard(&mut self, id: ChildId, now: Instant) {
        self.retire(id);
        self.end(id, Measure::Stop, now);
    }

    fn on_not_ready(&mut self, id: ChildId, now: Instant) {
        let limit = self.limits.ready_timeout;
        self.report(Report::NotReady { child: id, limit });
        if self.is_on_trial(id) {
            self.fail_by(id, None, now);
        } else {
            self.end(id, Measure::Kill, now);
        }
    }

    pub(super) fn is_probe(&self, id: ChildId) -> bool {
        self.child(id).is_some_and(|child| child.role == Role::Probe)
    }

    fn schedule_restart(&mut self, id: ChildId, now: Instant) {
        let limits = self.limits;
        let Some(child) = self.children.get_mut(&id) else { return };
        let (early_deaths, last_exit) = (child.early_deaths, child.last_exit);
        let delay = limits.restart_delay(early_deaths);
        child.state = State::Waiting { until: now + delay };
        child.restarts = child.restarts.saturating_add(1);
        self.report(Report::Restart { child: id, delay, early_deaths, last_exit });
    }

    fn set_state(&mut self, id: ChildId, state: State) {
        if let Some(child) = self.children.get_mut(&id) {
            child.state = state;
        }
    }

    fn set_gone(&mut self, id: ChildId) {
        self.set_state(id, State::Gone);
    }
}

/// A child that ends with this code before it is READY has found the configuration wrong; at the first start a further
/// try cannot help.
pub const EXIT_CONFIGURATION: u8 = 2;
/// The exit code of a master whose children cannot be started, and of a child that says in order that it cannot serve: it
/// is what `main` returns with an error. A crash, which has another code or a signal, is worth a further try.
pub const EXIT_FAILED: u8 = 1;
/// A signal to a whole group reaches its members one after the other. So long is waited, when a child tells of one, for
/// the master's own to arrive.
const GROUP_SIGNAL_SPREAD: Duration = Duration::from_millis(100);
/// `KILL` cannot be refused, but a process in an uninterruptible wait ends late; the order is repeated until it has.
const KILL_AGAIN_AFTER: Duration = Duration::from_secs(5);
