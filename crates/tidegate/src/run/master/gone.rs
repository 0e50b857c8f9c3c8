//! What is left of children that have ended: their places among the counters, and their seats in the table of addresses.
//!
//! A child that was killed cannot say itself that it has no connections any more, and its successor may sit elsewhere. So whatever
//! no living child has is put in order each time that something changes. Invariant: nothing of a living child is touched.

use tidegate_engine::ProcessWord;
use tidegate_process::{ChildSnapshot, Role, Snapshot};

use super::Hooks;
use crate::layout::Layout;
use crate::status::{ProcessState, StatusSource};

impl Hooks {
    /// Puts in order what nobody is there to do for himself.
    pub(super) fn settle_gone(&self, snapshot: &Snapshot) {
        for child in &snapshot.children {
            match child.role {
                Role::Worker(index) => self.settle_worker(snapshot, child, index),
                _ if child.pid.is_none() => self.end_places(child, child.is_retired),
                _ => {}
            }
        }
    }

    /// Those seats of a worker in which no process is: where the one that has ended was, nobody knows any more.
    fn settle_worker(&self, snapshot: &Snapshot, worker: &ChildSnapshot, index: u32) {
        let same = |it: &&ChildSnapshot| it.role == worker.role && it.generation == worker.generation;
        let others = || snapshot.children.iter().filter(same);
        // One that nobody follows is not shown any more.
        let is_followed = others().any(|it| it.pid.is_none() && !it.is_retired);
        let sits_in = |it: &ChildSnapshot, seat: usize| {
            it.pid.is_some()
                && usize::try_from(it.seat).is_ok_and(|its| its % Layout::PROCESSES_OF_A_WORKER == seat)
        };
        for seat in (0..Layout::PROCESSES_OF_A_WORKER).filter(|&seat| !others().any(|it| sits_in(it, seat))) {
            let gone = ChildSnapshot { seat: u32::try_from(seat).unwrap_or(0), ..worker.clone() };
            self.end_places(&gone, !is_followed);
            self.forget_addresses(&gone, index);
        }
    }

    fn end_places(&self, child: &ChildSnapshot, is_last: bool) {
        let Some((metrics, places)) = self.places(child) else { return };
        for process in places.map(|place| metrics.process(place)) {
            if process.get(ProcessWord::Pid) != 0 {
                process.end(ProcessState::Ended as u64);
                if is_last {
                    StatusSource::moving(&self.permanent, || process.set(ProcessWord::Pid, 0));
                }
            }
        }
    }

    /// A worker that was killed has no connections any more.
    fn forget_addresses(&self, child: &ChildSnapshot, index: u32) {
        let Some(generation) = self.generations.get(&child.generation) else { return };
        let numbers = (usize::try_from(index), usize::try_from(child.seat));
        if let (Some(table), (Ok(index), Ok(seat))) = (generation.view.tables.addresses(), numbers) {
            table.clear(Layout::worker_seat(index, seat));
        }
    }
}
