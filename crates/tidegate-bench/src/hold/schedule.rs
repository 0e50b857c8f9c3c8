//! `Schedule`: when which connection asks.
//!
//! Invariant: questions are spread evenly, connection after connection, so that the n-th question is asked by connection
//! n modulo their number, and each connection asks once in each period. No timer per connection is needed.

use std::time::Duration;

/// The questions of some connections.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    connections: u64,
    every: Duration,
    asked: u64,
}

impl Schedule {
    /// Each of these connections asks once in `every`.
    #[must_use]
    pub fn new(connections: usize, every: Duration) -> Self {
        Self { connections: connections as u64, every, asked: 0 }
    }

    /// The connection that asks next.
    #[must_use]
    pub fn connection(&self) -> usize {
        usize::try_from(self.asked % self.connections.max(1)).unwrap_or(usize::MAX)
    }

    /// When it does, from the start.
    #[must_use]
    pub fn at(&self) -> Duration {
        let each = self.every.as_nanos() * u128::from(self.asked) / u128::from(self.connections.max(1));
        Duration::from_nanos(u64::try_from(each).unwrap_or(u64::MAX))
    }

    /// It has asked.
    pub fn asked(&mut self) {
        self.asked += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_asks_once_in_a_period_at_even_distances() {
        let mut schedule = Schedule::new(3, Duration::from_secs(30));
        let mut seen = Vec::new();
        while schedule.at() < Duration::from_secs(60) {
            seen.push((schedule.at().as_secs(), schedule.connection()));
            schedule.asked();
        }
        assert_eq!(seen, [(0, 0), (10, 1), (20, 2), (30, 0), (40, 1), (50, 2)]);
    }

    #[test]
    fn no_connection_is_no_division_by_nothing() {
        let mut schedule = Schedule::new(0, Duration::from_secs(1));
        schedule.asked();
        assert_eq!((schedule.connection(), schedule.at()), (0, Duration::from_secs(1)));
    }
}
