//! The stop of all: everybody but the log server, then the log server, then the end.
//!
//! The one invariant: it takes a bounded time, whatever the children do; each that does not end gets the next measure.

use tidegate_timer::Instant;

use super::slot::State;
use super::words::{ChildId, Measure, Order, StopKind};
use super::{Phase, Report, Supervisor};
use crate::role::Role;

impl Supervisor {
    /// Begins a stop, or makes a graceful one fast.
    pub(super) fn stop(&mut self, kind: StopKind, code: u8, now: Instant) {
        let code = match self.phase {
            Phase::StoppingLogServer { .. } | Phase::Finished => return,
            Phase::StoppingCrew { kind: before, .. } if before >= kind => return,
            Phase::StoppingCrew { code, .. } => code,
            _ => {
                self.orders.push_back(Order::AnnounceStop);
                code
            }
        };
        let until = now + self.limits.shutdown_timeout;
        self.phase = Phase::StoppingCrew { kind, code, until };
        self.report(Report::Stopping(kind));
        self.overtake(now);
        self.covers.clear();
        for child in self.children.values_mut() {
            child.stop_asked_until = None;
            if child.is_waiting() {
                child.state = State::Gone;
            }
        }
    }

    pub(super) fn fail_start(&mut self, child: ChildId, code: u8, now: Instant) {
        self.report(Report::StartFailed { child, code });
        self.stop(StopKind::Fast, code, now);
    }

    /// Tells everybody whose turn it is to end, and goes on to the next phase when they have.
    pub(super) fn settle_stop(&mut self, now: Instant) {
        if let Phase::StoppingCrew { kind, code, until } = self.phase {
            for id in self.ids() {
                match kind {
                    StopKind::Fast => self.stop_child(id, now),
                    StopKind::Graceful => self.quit_child(id, until, now),
                }
            }
            let mut others = self.children.values().filter(|child| child.role != Role::LogServer);
            if others.all(|child| child.state == State::Gone) {
                self.orders.push_back(Order::WorkersGone);
                self.phase = Phase::StoppingLogServer { code };
            }
        }
        if let Phase::StoppingLogServer { code } = self.phase {
            for id in self.ids() {
                // It has nothing to wait for but what is queued in its socket.
                self.quit(id, Some(self.limits.stop_timeout), now);
            }
            if self.children.values().all(|child| child.state == State::Gone) {
                self.orders.push_back(Order::Finish { code });
                self.phase = Phase::Finished;
            }
        }
    }

    fn stop_child(&mut self, id: ChildId, now: Instant) {
        if self.child(id).is_some_and(|child| child.role != Role::LogServer) {
            self.end(id, Measure::Stop, now);
        }
    }

    fn quit_child(&mut self, id: ChildId, until: Instant, now: Instant) {
        let Some(child) = self.children.get(&id) else { return };
        match child.role {
            Role::LogServer => {}
            // It serves nobody.
            Role::Probe => self.end(id, Measure::Stop, now),
            // What it has accepted it has handed on; its workers are told when it has ended.
            Role::Acceptor => self.quit(id, Some(self.limits.stop_timeout), now),
            Role::Worker(_) if self.is_fed(child) => {}
            Role::Worker(_) | Role::Process(_) => self.quit_until(id, until, now),
        }
    }

    /// Tells a child to end within what is left of the time for all; also one that was retired and had more.
    pub(super) fn quit_until(&mut self, id: ChildId, until: Instant, now: Instant) {
        let deadline = until.max(now) + self.limits.shutdown_grace;
        let Some(child) = self.children.get_mut(&id) else { return };
        let has_more = matches!(child.state, State::Ending { measure: Measure::Quit, deadline: before } if before > deadline);
        if child.is_up() || has_more {
            child.state = State::Ending { measure: Measure::Quit, deadline };
            let timeout = Some(until.saturating_duration_since(now));
            self.orders.push_back(Order::Quit { child: id, timeout });
        }
    }
}
