//! Whether workers and acceptors answer: pings, and what follows when there is no answer.
//!
//! The one invariant: time counts against a child only while the master looks. A master that was itself held up, stopped
//! or executing another image, may find in the channels what it has not read yet.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_timer::Instant;

use super::freeze::some_instant;
use super::slot::State;
use super::words::{ChildId, Event, Measure, Order};
use super::{Report, Supervisor};

/// When it is asked next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Watch {
    /// None while there is nobody to be asked.
    #[serde(with = "some_instant")]
    next_ping: Option<Instant>,
}

impl Supervisor {
    /// Notes that a turn begins, and whether silence is judged in it.
    ///
    /// Silence is judged when all channels were read once more after the time was over. That is at the second
    /// [`Event::Timeout`] from then on: the driver reads what there is before each.
    pub(super) fn note_turn(&mut self, event: Event, now: Instant) {
        self.judged_until = match event {
            Event::Timeout => self.looked_at.replace(now),
            _ => None,
        };
        self.note_late(now);
    }

    /// Takes the time in which the master was held up from that of everybody whom it waits for.
    pub(super) fn note_late(&mut self, now: Instant) {
        let Some(due) = self.poll_timeout() else { return };
        let late = now.saturating_duration_since(due);
        if late < LATE_TURN {
            return;
        }
        // The children may have been held up with the master, all of a container for example.
        for child in self.children.values_mut() {
            if let Some(pinged_at) = &mut child.pinged_at {
                *pinged_at += late;
            }
            if let State::Starting { deadline } = &mut child.state {
                *deadline += late;
            }
        }
    }

    /// Whether a child that was to say something by then has not.
    pub(super) fn is_silent(&self, deadline: Instant) -> bool {
        self.judged_until.is_some_and(|until| deadline <= until)
    }

    pub(super) fn on_pong(&mut self, id: ChildId, now: Instant) {
        let Some(child) = self.children.get_mut(&id) else { return };
        child.pinged_at = None;
        child.answers_owed = child.answers_owed.saturating_sub(1);
        let owes_another = child.answers_owed > 0;
        if std::mem::take(&mut child.is_stuck) {
            self.report(Report::Answers { child: id });
        }
        if owes_another {
            self.ping(id, now);
        }
    }

    /// Asks those who are due, and acts on those who have not answered.
    pub(super) fn watch(&mut self, now: Instant) {
        let watched: Vec<ChildId> = match self.phase.is_stopping() {
            true => Vec::new(),
            false => self.ids().into_iter().filter(|id| self.children[id].is_watched()).collect(),
        };
        for id in &watched {
            self.judge(*id, now);
        }
        let interval = self.limits.ping_interval.max(MIN_PING_INTERVAL);
        self.watch.next_ping = match self.watch.next_ping {
            _ if watched.is_empty() => None,
            None => Some(now + interval),
            Some(at) if at > now => Some(at),
            Some(_) => {
                for id in watched {
                    self.ping(id, now);
                }
                Some(now + interval)
            }
        };
    }

    pub(super) fn watch_timeout(&self) -> Option<Instant> {
        if self.phase.is_stopping() {
            return None;
        }
        let watched = self.children.values().filter(|child| child.is_watched());
        let due = watched.filter_map(|child| {
            let pinged_at = child.pinged_at?;
            let stuck = (!child.is_stuck).then(|| pinged_at + self.limits.ping_timeout);
            let hung = self.limits.hang_timeout.map(|timeout| pinged_at + timeout);
            stuck.into_iter().chain(hung).min()
        });
        due.chain(self.watch.next_ping).min()
    }

    fn judge(&mut self, id: ChildId, now: Instant) {
        let (ping_timeout, hang_timeout) = (self.limits.ping_timeout, self.limits.hang_timeout);
        let Some(pinged_at) = self.child(id).and_then(|child| child.pinged_at) else { return };
        if let Some(limit) = hang_timeout
            && self.is_silent(pinged_at + limit)
        {
            self.report(Report::Hung { child: id, limit });
            // It does not read what it is told.
            self.end(id, Measure::Kill, now);
        } else if self.is_silent(pinged_at + ping_timeout)
            && let Some(child) = self.children.get_mut(&id)
            && !std::mem::replace(&mut child.is_stuck, true)
        {
            let is_awaited = std::mem::take(&mut child.answers_owed) > 0;
            self.report(Report::Stuck { child: id, limit: ping_timeout });
            if is_awaited {
                self.leave_to_neighbour(id);
            }
        }
    }

    /// Asks a child, unless it has not answered the last time.
    pub(super) fn ping(&mut self, id: ChildId, now: Instant) {
        let Some(child) = self.children.get_mut(&id) else { return };
        if child.is_watched() && child.pinged_at.is_none() {
            child.pinged_at = Some(now);
            self.orders.push_back(Order::Ping { child: id });
        }
    }
}

/// A turn that is so late is a sign that the master was held up.
const LATE_TURN: Duration = Duration::from_millis(100);
/// However the limits are set, there is a moment for something else in between.
const MIN_PING_INTERVAL: Duration = Duration::from_millis(1);
