//! Makes a failing case small: leaves out what it fails without.
//!
//! Steps are left out in runs, first long ones and then shorter ones; then what is left becomes simpler, and what happens by
//! chance is switched off. Invariant: what is answered fails, with whatever violation.

use std::sync::Arc;

use crate::Case;
use crate::network::plan::{AtEof, Op, Plan};
use crate::supervisor::{self, Schedule};

/// Trials in all.
const MOST_TRIALS: u32 = 3_000;

/// The smallest case that was found.
pub(crate) fn shrink(whole: &Case) -> Case {
    let mut shrinker = Shrinker { best: whole.clone(), trials: 0 };
    while shrinker.trials < MOST_TRIALS {
        let before = shrinker.best.size();
        match whole {
            Case::Network(_) => shrinker.shrink_plan(),
            Case::Supervisor(_) => shrinker.shrink_schedule(),
        }
        if shrinker.best.size() == before {
            break;
        }
    }
    shrinker.best
}

struct Shrinker {
    best: Case,
    trials: u32,
}

impl Shrinker {
    /// Keeps a case that still fails.
    fn keeps(&mut self, case: Case) -> bool {
        if self.trials >= MOST_TRIALS {
            return false;
        }
        self.trials += 1;
        let fails = case.run(false).violation.is_some();
        if fails {
            self.best = case;
        }
        fails
    }

    fn keeps_plan(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = Plan::clone(self.plan());
        change(&mut plan);
        self.keeps(Case::Network(Arc::new(plan)))
    }

    fn plan(&self) -> &Plan {
        match &self.best {
            Case::Network(plan) => plan,
            Case::Supervisor(_) => unreachable!("a case stays what it is"),
        }
    }

    fn shrink_plan(&mut self) {
        let mut run = self.plan().steps.len().next_power_of_two() / 2;
        while run > 0 {
            let mut from = 0;
            while from < self.plan().steps.len() {
                let to = self.plan().steps.len().min(from + run);
                let is_left_out = self.keeps_plan(|plan| {
                    plan.steps.drain(from..to);
                });
                if !is_left_out {
                    from += run;
                }
            }
            run /= 2;
        }
        for conn in 0..self.plan().conns.len() {
            self.shorten_script(conn);
            self.simplify(conn);
        }
        self.calm();
    }

    fn shorten_script(&mut self, conn: usize) {
        let mut drop = self.plan().conns[conn].script.len();
        while drop > 0 {
            let left = self.plan().conns[conn].script.len().saturating_sub(drop);
            let is_shorter = self.plan().conns[conn].script.len() > left
                && self.keeps_plan(|plan| plan.conns[conn].script.truncate(left));
            if !is_shorter {
                drop /= 2;
            }
        }
    }

    /// What is asked for becomes the simplest that there is.
    fn simplify(&mut self, conn: usize) {
        for at in 0..self.plan().conns[conn].script.len() {
            self.keeps_plan(|plan| plan.conns[conn].script[at].op = Op::Echo);
            self.keeps_plan(|plan| plan.conns[conn].script[at].body = 0);
        }
        self.keeps_plan(|plan| plan.conns[conn].at_eof = AtEof::Close);
        self.keeps_plan(|plan| plan.conns[conn].send_buffer = 200_000);
    }

    /// Whatever the kernel does by chance, it does not do.
    fn calm(&mut self) {
        self.keeps_plan(|plan| plan.knobs.short = 0);
        self.keeps_plan(|plan| plan.knobs.odd = 0);
        self.keeps_plan(|plan| plan.knobs.prompt = 100);
        self.keeps_plan(|plan| plan.knobs.owns_output = false);
        self.keeps_plan(|plan| plan.knobs.accepts_ahead = false);
        self.keeps_plan(|plan| plan.knobs.forwards = false);
        self.keeps_plan(|plan| plan.knobs.max_connections = 100);
        self.keeps_plan(|plan| plan.knobs.max_buffer_bytes = 8 << 20);
    }

    fn schedule(&self) -> &Schedule {
        match &self.best {
            Case::Supervisor(schedule) => schedule,
            Case::Network(_) => unreachable!("a case stays what it is"),
        }
    }

    fn shrink_schedule(&mut self) {
        let planned = supervisor::planned(self.schedule());
        let mut run = planned.next_power_of_two();
        while run > 0 {
            for from in (0..planned).step_by(run) {
                let mut schedule = self.schedule().clone();
                schedule.left_out.extend(from..planned.min(from + run));
                if schedule.left_out.len() > self.schedule().left_out.len() {
                    self.keeps(Case::Supervisor(schedule));
                }
            }
            run /= 2;
        }
        for most_trouble in [0, 5, 30] {
            let schedule = Schedule { most_trouble, ..self.schedule().clone() };
            if self.schedule().most_trouble > most_trouble && self.keeps(Case::Supervisor(schedule)) {
                break;
            }
        }
    }
}
