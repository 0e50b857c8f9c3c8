//! The times that the supervisor grants.
//!
//! The one invariant: each is finite in the default, so that no child is waited for without a bound.

use std::time::Duration;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long the workers wait for the log server to be READY; then they start without it.
    pub log_server_ready_timeout: Duration,
    /// How long a child may take to be READY before it is killed and started again.
    pub ready_timeout: Duration,
    /// How long workers may take to finish what is in flight in a graceful stop.
    pub shutdown_timeout: Duration,
    /// What a worker gets beyond `shutdown_timeout` to close what is left with a reason before it is told to stop.
    pub shutdown_grace: Duration,
    /// How long a child that was told to stop may take before it is killed.
    pub stop_timeout: Duration,
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
}

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
}
