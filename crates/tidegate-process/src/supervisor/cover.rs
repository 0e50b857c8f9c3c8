//! Who accepts for whom: no slot of the current generation is without an accepter while another worker of it serves.
//!
//! The one invariant: a slot whose own worker does not serve is covered by exactly one worker that does, if there is one; a
//! slot whose own worker serves is covered by none. It holds from the commit of a generation until it is retired.
//!
//! Overlap is allowed, a gap is not: a neighbour is told to accept before the worker is told to pause, and told that it
//! need not any more after the worker serves again.

use std::collections::BTreeMap;

use super::operation::Stage;
use super::slot::{Slot, State};
use super::words::{ChildId, Order};
use super::{Phase, Supervisor};

impl Supervisor {
    pub(super) fn on_pause(&mut self, id: ChildId) {
        let Some(child) = self.pausable(id) else { return };
        if std::mem::replace(&mut child.is_paused, true) || child.state != State::Ready {
            return;
        }
        self.settle_covers();
        self.orders.push_back(Order::PauseAccept { child: id });
    }

    pub(super) fn on_resume(&mut self, id: ChildId) {
        let Some(child) = self.pausable(id) else { return };
        if std::mem::take(&mut child.is_paused) && child.state == State::Ready {
            self.orders.push_back(Order::ResumeAccept { child: id });
        }
    }

    /// Who accepts in the place of the worker in this slot of the current generation.
    pub(crate) fn covered_by(&self, slot: u32) -> Option<ChildId> {
        self.covers.get(&slot).copied()
    }

    /// Orders whatever the invariant asks for.
    pub(super) fn settle_covers(&mut self) {
        if self.phase.is_stopping() {
            return;
        }
        let owners = self.owners();
        for (slot, owner) in &owners {
            let is_needed = self.needs_cover(*owner);
            let before = self.covers.get(slot).copied();
            if before.is_some_and(|by| is_needed && self.accepts(by)) {
                continue;
            }
            self.covers.remove(slot);
            if is_needed && let Some(by) = self.neighbour(*slot, &owners) {
                self.covers.insert(*slot, by);
                self.orders.push_back(Order::Cover { absent: *owner, slot: *slot, by });
            }
            // One that was told to end lets go of everything by itself.
            if let Some(by) = before.filter(|by| self.child(*by).is_some_and(Slot::is_told_by_slot)) {
                self.orders.push_back(Order::Uncover { slot: *slot, by });
            }
        }
    }

    /// The worker of each slot in the current generation. While one is being replaced it is still the old one.
    fn owners(&self) -> BTreeMap<u32, ChildId> {
        let successor = match self.work.map(|work| work.stage) {
            Some(Stage::Successor { child }) => Some(child),
            _ => None,
        };
        let current = self.children.iter().filter(|(_, child)| child.generation == self.current);
        let meant = current.filter(|(id, _)| Some(**id) != successor);
        meant.filter_map(|(id, child)| Some((child.active_slot()?, *id))).collect()
    }

    fn needs_cover(&self, owner: ChildId) -> bool {
        let Some(child) = self.child(owner) else { return false };
        // In the first start nobody is late yet, but for one that has died.
        let had_its_turn = self.phase == Phase::Running || child.restarts > 0 || child.ready_at.is_some();
        !child.serves() && had_its_turn
    }

    fn accepts(&self, id: ChildId) -> bool {
        self.child(id).is_some_and(|child| child.serves() && child.generation == self.current)
    }

    /// The next worker, upwards and around, that serves.
    fn neighbour(&self, slot: u32, owners: &BTreeMap<u32, ChildId>) -> Option<ChildId> {
        let above = owners.range(slot..).skip(1);
        let around = above.chain(owners.range(..slot));
        around.map(|(_, id)| *id).find(|id| self.accepts(*id))
    }

    fn pausable(&mut self, id: ChildId) -> Option<&mut Slot> {
        if self.phase.is_stopping() {
            return None;
        }
        self.children.get_mut(&id).filter(|child| child.active_slot().is_some())
    }
}

impl Slot {
    /// Whether it is still told which slots to accept for.
    fn is_told_by_slot(&self) -> bool {
        self.state == State::Ready && !self.is_retired
    }
}
