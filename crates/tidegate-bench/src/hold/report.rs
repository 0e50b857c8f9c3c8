//! `HoldReport`: what came of holding.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::LatencySummary;

/// What one member says when it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Messages that fell due.
    pub due: u64,
    /// Messages that came back as they were.
    pub answered: u64,
    /// Messages with a wrong answer.
    pub wrong: u64,
    /// Connections that were lost, or could not be made again.
    pub lost: u64,
    /// Times from the moment when a message was due to its answer.
    pub latency: LatencySummary,
}

impl MemberReport {
    /// All members together. Of percentiles, those of the slowest member stand for all.
    pub(super) fn sum(reports: &[Self]) -> Self {
        reports.iter().fold(Self::default(), |sum, report| Self {
            due: sum.due + report.due,
            answered: sum.answered + report.answered,
            wrong: sum.wrong + report.wrong,
            lost: sum.lost + report.lost,
            latency: LatencySummary {
                p50_us: sum.latency.p50_us.max(report.latency.p50_us),
                p99_us: sum.latency.p99_us.max(report.latency.p99_us),
                max_us: sum.latency.max_us.max(report.latency.max_us),
            },
        })
    }
}

/// What came of holding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HoldReport {
    /// Connections that stood at the start of the time.
    pub connections: usize,
    /// Over how many processes.
    pub processes: usize,
    /// How long it took to make them.
    pub connect_seconds: f64,
    /// How long they were held.
    pub held_seconds: f64,
    /// What the members saw.
    pub total: MemberReport,
    /// The server's processor time over the time: 1.0 is one processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cores: Option<f64>,
    /// The resident memory of all of the server's processes, shared pages counted in each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_resident_bytes: Option<u64>,
    /// By how much the machine's available memory fell from before the members started to the end of the time.
    pub memory_used: u64,
    /// By how much the kernel's own objects grew.
    pub slab_grown: u64,
    /// TCP sockets of the machine at the end of the time.
    pub tcp_sockets: u64,
}

impl HoldReport {
    /// Whether every connection was held and every message answered.
    #[must_use]
    pub fn held(&self) -> bool {
        let MemberReport { due, answered, wrong, lost, .. } = self.total;
        due == answered && due > 0 && (wrong, lost) == (0, 0)
    }
}

impl fmt::Display for HoldReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MemberReport { due, answered, wrong, lost, latency } = self.total;
        writeln!(
            f,
            "{} connections over {} processes, made in {:.1} s, held for {:.1} s",
            self.connections, self.processes, self.connect_seconds, self.held_seconds
        )?;
        writeln!(
            f,
            "messages: {due} due, {answered} answered, {wrong} answered wrongly; connections: {lost} lost"
        )?;
        writeln!(
            f,
            "latency of the slowest process: p50 {:.0} us, p99 {:.0} us, longest {:.0} us",
            latency.p50_us, latency.p99_us, latency.max_us
        )?;
        if let Some(cores) = self.server_cores {
            writeln!(f, "server: {cores:.3} cores")?;
        }
        if let Some(bytes) = self.server_resident_bytes {
            writeln!(f, "server: {} MiB resident in all its processes", bytes >> 20)?;
        }
        writeln!(
            f,
            "machine: {} MiB of memory used, {} MiB of it objects of the kernel, {} TCP sockets",
            self.memory_used >> 20,
            self.slab_grown >> 20,
            self.tcp_sockets
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(total: MemberReport) -> HoldReport {
        HoldReport {
            connections: 2,
            processes: 1,
            connect_seconds: 0.5,
            held_seconds: 60.0,
            total,
            server_cores: Some(0.25),
            server_resident_bytes: None,
            memory_used: 3 << 20,
            slab_grown: 2 << 20,
            tcp_sockets: 5,
        }
    }

    #[test]
    fn any_loss_is_not_held() {
        let good = MemberReport { due: 4, answered: 4, ..MemberReport::default() };
        assert!(report(good).held());
        assert!(!report(MemberReport::default()).held());
        assert!(!report(MemberReport { answered: 3, ..good }).held());
        assert!(!report(MemberReport { lost: 1, ..good }).held());
        assert!(!report(MemberReport { wrong: 1, ..good }).held());
    }

    #[test]
    fn members_add_up_and_the_slowest_counts() {
        let slow = LatencySummary { p50_us: 1.0, p99_us: 9.0, max_us: 10.0 };
        let fast = LatencySummary { p50_us: 2.0, p99_us: 3.0, max_us: 4.0 };
        let one = MemberReport { due: 1, answered: 1, lost: 1, latency: slow, ..MemberReport::default() };
        let other = MemberReport { due: 2, answered: 1, wrong: 1, latency: fast, ..MemberReport::default() };
        let sum = MemberReport::sum(&[one, other]);
        assert_eq!((sum.due, sum.answered, sum.lost, sum.wrong), (3, 2, 1, 1));
        assert_eq!((sum.latency.p50_us, sum.latency.p99_us, sum.latency.max_us), (2.0, 9.0, 10.0));
    }

    #[test]
    fn the_text_says_all() {
        let text = report(MemberReport { due: 4, answered: 4, ..MemberReport::default() }).to_string();
        assert!(
            text.starts_with("2 connections over 1 processes, made in 0.5 s, held for 60.0 s\n"),
            "{text}"
        );
        assert!(text.contains("server: 0.250 cores\n"), "{text}");
        assert!(text.ends_with("3 MiB of memory used, 2 MiB of it objects of the kernel, 5 TCP sockets\n"));
    }
}
