//! What passes from one image of the master to the next.
//!
//! The one invariant: it is written and read by different versions of this program. So a field that is new has a default,
//! one that is unknown is passed over, and none changes its meaning. Times are nanoseconds of `CLOCK_MONOTONIC`, which
//! goes on over an exec. The limits are not part of it: they are the configuration's.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tidegate_timer::Instant;

use super::generation::Generation;
use super::operation::{Stage, Wanted, Work};
use super::slot::{Slot, State};
use super::watch::Watch;
use super::words::{ChildId, Operation, Why};
use super::{Limits, Phase, Supervisor};

/// A supervisor at rest: all its orders have been taken, and each start has been answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    version: u32,
    phase: Phase,
    children: BTreeMap<ChildId, Slot>,
    next_child: u32,
    generations: Vec<Generation>,
    current: u32,
    last_generation: u32,
    #[serde(default)]
    work: Option<Work>,
    #[serde(default)]
    wanted: Wanted,
    #[serde(default)]
    covers: BTreeMap<u32, ChildId>,
    #[serde(default)]
    watch: Watch,
}

/// In which image a supervisor goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thawed {
    /// In the new one: the upgrade goes on with the generation of the new binary.
    New,
    /// In the old one again: the upgrade has failed.
    Old,
}

impl Frozen {
    /// The version that is written by this program.
    pub const VERSION: u32 = 1;

    /// The version that wrote it. A later one can be read as long as what it added may be passed over.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }
}

impl Supervisor {
    /// What the next image has to know. To be taken when [`Order::TakeOver`](super::Order::TakeOver) or
    /// [`Order::Revert`](super::Order::Revert) was; at other times orders that were not taken are lost.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        Frozen {
            version: Frozen::VERSION,
            phase: self.phase,
            children: self.children.clone(),
            next_child: self.next_child,
            generations: self.generations.clone(),
            current: self.current,
            last_generation: self.last_generation,
            work: self.work,
            wanted: self.wanted,
            covers: self.covers.clone(),
            watch: self.watch,
        }
    }

    /// Goes on in another image: orders are there to be taken, and `poll_timeout` holds.
    #[must_use]
    pub fn thaw(frozen: Frozen, limits: Limits, as_: Thawed, now: Instant) -> Self {
        let mut supervisor = Self {
            limits,
            phase: frozen.phase,
            children: frozen.children,
            next_child: frozen.next_child,
            generations: frozen.generations,
            current: frozen.current,
            last_generation: frozen.last_generation,
            work: frozen.work,
            wanted: frozen.wanted,
            covers: frozen.covers,
            watch: frozen.watch,
            looked_at: None,
            judged_until: None,
            orders: VecDeque::new(),
        };
        supervisor.note_late(now);
        supervisor.go_on_as(as_, now);
        supervisor.settle(now);
        supervisor
    }

    fn go_on_as(&mut self, as_: Thawed, now: Instant) {
        for child in self.children.values_mut() {
            // The answer cannot come any more.
            if child.state == State::Spawning {
                child.state = State::Waiting { until: now };
            }
        }
        let Some(Work { operation: Operation::Upgrade, stage }) = self.work else { return };
        match as_ {
            Thawed::Old => self.fail(Why::Reverted, now),
            Thawed::New if stage == Stage::Left => self.prepare(Operation::Upgrade),
            Thawed::New => {}
        }
    }
}

/// An [`Instant`] as nanoseconds.
pub(super) mod instant {
    use serde::{Deserialize, Deserializer, Serializer};
    use tidegate_timer::Instant;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    pub(crate) fn serialize<S: Serializer>(at: &Instant, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(at.as_nanos())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instant, D::Error> {
        u64::deserialize(deserializer).map(Instant::from_nanos)
    }
}

/// An [`Instant`] as nanoseconds, or null.
pub(super) mod some_instant {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tidegate_timer::Instant;

    pub(crate) fn serialize<S: Serializer>(at: &Option<Instant>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(Instant::as_nanos).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Instant>, D::Error> {
        Ok(Option::<u64>::deserialize(deserializer)?.map(Instant::from_nanos))
    }
}

/// An exit status as its code, or its signal negated, or null.
pub(super) mod exit_status {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use tidegate_sys::process::ExitStatus;

    pub(crate) fn serialize<S: Serializer>(
        status: &Option<ExitStatus>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let number = status.map(|status| match status {
            ExitStatus::Code(code) => i32::from(code),
            ExitStatus::Signal(signal) => -signal,
        });
        number.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ExitStatus>, D::Error> {
        let number = Option::<i32>::deserialize(deserializer)?;
        Ok(number.map(|number| match u8::try_from(number) {
            Ok(code) => ExitStatus::Code(code),
            Err(_) => ExitStatus::Signal(number.saturating_neg()),
        }))
    }
}
