//! Reload, upgrade and replace: begun one at a time, each either done as a whole or without a trace.
//!
//! The one invariant: until its new children are READY an operation touches no child that was there before it; each that
//! is asked for, alone or with others of its kind, is answered by exactly one `Done`.

use serde::{Deserialize, Serialize};
use tidegate_sys::process::ExitStatus;
use tidegate_timer::Instant;

use super::slot::{Slot, State};
use super::words::{ChildId, Crew, Operation, Order, Outcome, Why};
use super::{NO_GENERATION, Phase, Report, Supervisor};
use crate::role::Role;

/// The operation under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) operation: Operation,
    pub(super) stage: Stage,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// The new binary is tried out.
    Probe { child: ChildId },
    /// It has passed; it is executed when nothing else is to be done.
    Leaving,
    /// It is executed.
    Left,
    /// The plan of the new generation is made. In an upgrade this and what follows is done by the new image.
    Prepare { generation: u32 },
    /// The new generation is to be READY.
    Crew { generation: u32 },
    /// The new image has failed; the one before is executed when nothing else is to be done.
    GoingBack { why: Why },
    /// It is executed.
    GoneBack { why: Why },
    /// The successor of a worker is to be READY.
    Successor { child: ChildId },
}

/// What was asked for and has not begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    pub(super) reload: Request,
    pub(super) upgrade: Request,
    /// The workers of the current generation are to be retired.
    pub(super) retired: bool,
}

/// Whether an operation of a kind was asked for; how often does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    #[default]
    None,
    /// In this turn.
    New,
    /// Before; it was said that it waits.
    Waits,
}

impl Supervisor {
    pub(super) fn want(&mut self, operation: Operation) {
        if self.phase.is_stopping() {
            return self.done(operation, Outcome::Failed(Why::Stopping));
        }
        // The workers that it brings are meant to stay.
        self.wanted.retired = false;
        if let Some(request) = self.wanted.request(operation)
            && *request == Request::None
        {
            *request = Request::New;
        }
    }

    /// `WINCH`: done when what was asked for before it is done.
    pub(super) fn want_retired(&mut self) {
        self.wanted.retired = !self.phase.is_stopping();
    }

    pub(super) fn on_replace(&mut self, child: ChildId, now: Instant) {
        let operation = Operation::Replace(child);
        if self.operation() == Some(operation) {
            return;
        }
        let is_meant = |it: &&Slot| it.generation == self.current && it.active_slot().is_some();
        let old = self.children.get(&child).filter(is_meant).map(|it| (it.role, it.is_paused));
        match old {
            _ if self.phase.is_stopping() => self.done(operation, Outcome::Failed(Why::Stopping)),
            _ if self.phase != Phase::Running || self.work.is_some() => {
                self.done(operation, Outcome::Failed(Why::Busy));
            }
            None => self.done(operation, Outcome::Failed(Why::Child { child, status: None })),
            Some((role, is_paused)) => {
                let successor = self.add_child(role, self.current, now);
                if let Some(slot) = self.children.get_mut(&successor) {
                    slot.is_paused = is_paused;
                }
                self.work = Some(Work { operation, stage: Stage::Successor { child: successor } });
            }
        }
    }

    pub(super) fn on_prepared(&mut self, generation: u32, crew: Crew, now: Instant) {
        if let Some(Work { operation, stage }) = self.work
            && stage == (Stage::Prepare { generation })
        {
            self.work = Some(Work { operation, stage: Stage::Crew { generation } });
            self.set_crew(generation, crew);
            self.add_crew(generation, crew, now);
        }
    }

    pub(super) fn on_prepare_failed(&mut self, generation: u32, now: Instant) {
        if self.work.is_some_and(|work| work.stage == Stage::Prepare { generation }) {
            self.fail(Why::Prepare, now);
        }
    }

    pub(super) fn on_take_over_failed(&mut self, now: Instant) {
        match self.work.map(|work| work.stage) {
            Some(Stage::Left) => self.fail(Why::TakeOver, now),
            Some(Stage::GoneBack { why }) => self.fail(why, now),
            _ => {}
        }
    }

    /// The new binary is good.
    pub(super) fn pass_probe(&mut self) {
        if let Some(work) = &mut self.work {
            work.stage = Stage::Leaving;
        }
    }

    /// Goes on with the operation, when its children are that far.
    pub(super) fn advance_work(&mut self, now: Instant) -> bool {
        let Some(Work { operation, stage }) = self.work else { return false };
        match (operation, stage) {
            (_, Stage::Crew { generation }) => self.advance_crew(operation, generation, now),
            (Operation::Replace(old), Stage::Successor { child }) => {
                if self.child(child).is_none_or(|child| child.state != State::Ready) {
                    return false;
                }
                self.retire(old);
                self.succeed(operation);
                true
            }
            _ => false,
        }
    }

    /// Begins what was asked for, if it can begin.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        if self.phase != Phase::Running || self.work.is_some() {
            return false;
        }
        let has_room = self.has_room_for_generation();
        if has_room && self.wanted.take(Operation::Reload) {
            self.prepare(Operation::Reload);
        } else if has_room && self.wanted.take(Operation::Upgrade) {
            let child = self.add_child(Role::Probe, NO_GENERATION, now);
            self.work = Some(Work { operation: Operation::Upgrade, stage: Stage::Probe { child } });
        } else if std::mem::take(&mut self.wanted.retired) {
            self.report(Report::Retired { generation: self.current });
            self.retire_crew(self.current);
            self.covers.clear();
        } else {
            return false;
        }
        true
    }

    /// Begins a generation. In an upgrade it is the new image that does.
    pub(super) fn prepare(&mut self, operation: Operation) {
        let generation = self.add_generation();
        self.work = Some(Work { operation, stage: Stage::Prepare { generation } });
        self.orders.push_back(Order::Prepare { generation });
    }

    /// The order to execute another image, when it is time: all else is done, and no start is unanswered.
    pub(super) fn leave(&mut self) -> Option<Order> {
        let Work { operation, stage } = self.work?;
        let (stage, order) = match stage {
            Stage::Leaving => (Stage::Left, Order::TakeOver),
            Stage::GoingBack { why } => (Stage::GoneBack { why }, Order::Revert),
            _ => return None,
        };
        if self.children.values().any(|child| child.state == State::Spawning) {
            return None;
        }
        self.work = Some(Work { operation, stage });
        Some(order)
    }

    /// Whether the operation under way fails when this child ends.
    pub(super) fn is_on_trial(&self, id: ChildId) -> bool {
        match self.work.map(|work| work.stage) {
            Some(Stage::Probe { child } | Stage::Successor { child }) => child == id,
            Some(Stage::Crew { generation }) => self.child(id).is_some_and(|it| it.generation == generation),
            _ => false,
        }
    }

    /// The operation fails because of this child.
    pub(super) fn fail_by(&mut self, id: ChildId, status: Option<ExitStatus>, now: Instant) {
        let why = if self.is_probe(id) { Why::Probe { status } } else { Why::Child { child: id, status } };
        self.fail(why, now);
    }

    /// Gives up the operation under way, if there is one.
    pub(super) fn fail(&mut self, why: Why, now: Instant) {
        let Some(Work { operation, stage }) = self.work.take() else { return };
        match stage {
            Stage::Prepare { generation } | Stage::Crew { generation } => {
                self.give_up(generation);
                // This is the new image, and it is of no use; the one before tells how it went.
                if operation == Operation::Upgrade && !matches!(why, Why::Stopping | Why::Reverted) {
                    self.work = Some(Work { operation, stage: Stage::GoingBack { why } });
                    return;
                }
            }
            Stage::Probe { child } | Stage::Successor { child } => self.discard(child, now),
            Stage::Leaving | Stage::Left | Stage::GoingBack { .. } | Stage::GoneBack { .. } => {}
        }
        self.done(operation, Outcome::Failed(why));
    }

    /// Gives up everything that is under way or waits, because a stop has begun.
    pub(super) fn overtake(&mut self, now: Instant) {
        self.fail(Why::Stopping, now);
        for operation in [Operation::Reload, Operation::Upgrade] {
            if self.wanted.take(operation) {
                self.done(operation, Outcome::Failed(Why::Stopping));
            }
        }
        self.wanted.retired = false;
    }

    /// Tells of requests that could not begin at once.
    pub(super) fn report_waiting(&mut self) {
        for operation in [Operation::Reload, Operation::Upgrade] {
            if let Some(request) = self.wanted.request(operation)
                && *request == Request::New
            {
                *request = Request::Waits;
                self.report(Report::Waits(operation));
            }
        }
    }

    fn advance_crew(&mut self, operation: Operation, generation: u32, now: Instant) -> bool {
        let crew = self.crew_of(generation);
        let is_up = |id: &ChildId| self.child(*id).is_some_and(|child| child.state == State::Ready);
        let late: Vec<ChildId> = crew.into_iter().filter(|id| !is_up(id)).collect();
        match late[..] {
            [] => {
                self.commit(generation);
                self.succeed(operation);
                true
            }
            [last] => self.release_acceptor(last, now),
            _ => false,
        }
    }

    /// Starts the acceptor of a new generation, if that is what is left to be started.
    fn release_acceptor(&mut self, id: ChildId, now: Instant) -> bool {
        let held_back = State::Waiting { until: Instant::MAX };
        match self.children.get_mut(&id) {
            Some(child) if child.role == Role::Acceptor && child.state == held_back => {
                child.state = State::Waiting { until: now };
                true
            }
            _ => false,
        }
    }

    fn succeed(&mut self, operation: Operation) {
        self.work = None;
        self.done(operation, Outcome::Done { generation: self.current });
    }

    fn done(&mut self, operation: Operation, outcome: Outcome) {
        self.orders.push_back(Order::Done { operation, outcome });
    }
}

impl Wanted {
    fn request(&mut self, operation: Operation) -> Option<&mut Request> {
        match operation {
            Operation::Reload => Some(&mut self.reload),
            Operation::Upgrade => Some(&mut self.upgrade),
            Operation::Replace(_) => None,
        }
    }

    /// Whether it was asked for; it is not any more.
    fn take(&mut self, operation: Operation) -> bool {
        self.request(operation).is_some_and(|request| std::mem::take(request) != Request::None)
    }
}
