//! The times and numbers that the supervisor grants.
//!
//! The one invariant: each is finite in the default, so that no child is waited for without a bound, but for one: a
//! retired generation may take as long as its clients do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds of the life of a child. The defaults are those of the configuration.
///
/// ```
/// use std::time::Duration;
/// use tidegate_process::Limits;
///
/// let limits = Limits { shutdown_timeout: Duration::from_secs(5), ..Limits::default() };
/// assert_eq!(limits.restart_delay(1), Duration::ZERO);
/// assert_eq!(limits.restart_delay(4), Duration::from_millis(400));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// How long the workers wait for the log server to be READY; then they start without it.
    pub log_server_ready_timeout: Duration,
    /// How long a child may take to be READY before it is killed and started again, or an operation fails.
    pub ready_timeout: Duration,
    /// How long workers may take to finish what is in flight in a graceful stop.
    pub shutdown_timeout: Duration,
    /// What a worker gets beyond `shutdown_timeout` to close what is left with a reason before it is told to stop.
    pub shutdown_grace: Duration,
    /// How long a child that was told to stop may take before it is killed.
    pub stop_timeout: Duration,
    /// How long a retired worker may take to finish what is in flight; none: as long as that lasts.
    pub drain_timeout: Option<Duration>,
    /// How many generations may have processes at a time, the current one included; a reload beyond it waits for the
    /// oldest to end. Less than 2 means 2: a generation is retired only when the next one serves.
    pub max_generations: u32,
    /// How often workers and acceptors are asked whether they answer.
    pub ping_interval: Duration,
    /// A worker that has not answered for so long is covered by a neighbour.
    pub ping_timeout: Duration,
    /// A worker or acceptor that has not answered for so long is killed and started again; none: never.
    pub hang_timeout: Option<Duration>,
    /// A child that dies within this time of its READY has died early, as one that never was READY.
    pub healthy_after: Duration,
    /// The first waiting time before a start after early deaths; it doubles with each further one.
    pub min_restart_delay: Duration,
    /// The longest of these waiting times.
    pub max_restart_delay: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            log_server_ready_timeout: Duration::from_secs(10),
            ready_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(2),
            drain_timeout: None,
            max_generations: 8,
            ping_interval: Duration::from_millis(250),
            ping_timeout: Duration::from_millis(500),
            hang_timeout: Some(Duration::from_secs(30)),
            healthy_after: Duration::from_millis(500),
            min_restart_delay: Duration::from_millis(100),
            max_restart_delay: Duration::from_secs(10),
        }
    }
}

impl Limits {
    /// The waiting time before a child is started that died early so many times in a row. The first time is free: one
    /// bad moment is no crash loop.
    #[must_use]
    pub fn restart_delay(&self, early_deaths: u32) -> Duration {
        match early_deaths.checked_sub(2) {
            None => Duration::ZERO,
            Some(doublings) => {
                let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
                self.min_restart_delay.saturating_mul(factor).min(self.max_restart_delay)
            }
        }
    }

    /// Whether one more generation may be started beside this many.
    pub(super) fn has_room_beside(&self, generations: usize) -> bool {
        let most = usize::try_from(self.max_generations.max(MIN_GENERATIONS)).unwrap_or(usize::MAX);
        generations < most
    }
}

/// The current one, and the one that is to follow it.
const MIN_GENERATIONS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_times_double_up_to_the_longest() {
        let limits = Limits::default();
        let millis: Vec<_> = (0..12).map(|deaths| limits.restart_delay(deaths).as_millis()).collect();
        assert_eq!(millis, [0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
        assert_eq!(limits.restart_delay(u32::MAX), limits.max_restart_delay);
    }

    #[test]
    fn there_is_always_room_for_a_successor() {
        for (max_generations, generations, expected) in
            [(0, 1, true), (1, 1, true), (1, 2, false), (8, 7, true), (8, 8, false)]
        {
            let limits = Limits { max_generations, ..Limits::default() };
            assert_eq!(limits.has_room_beside(generations), expected, "{max_generations} {generations}");
        }
    }

    #[test]
    fn what_another_version_does_not_know_gets_its_default() {
        let limits: Limits = serde_json::from_str(r#"{"max_generations":3,"a_later_one":1}"#).unwrap();
        assert_eq!(limits, Limits { max_generations: 3, ..Limits::default() });
        let written = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<Limits>(&written).unwrap(), limits);
    }
}
