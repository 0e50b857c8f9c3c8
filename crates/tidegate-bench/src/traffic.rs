//! `Traffic`: what went through a network namespace.
//!
//! Invariant: counters only; what a while brought is the difference of two. They are of all programs in the namespace.

use std::fs;
use std::io;

/// Counters of a network namespace since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) packets: u64,
    pub(crate) retransmissions: u64,
    pub(crate) queue_overflows: u64,
}

impl Traffic {
    /// Those of the namespace that a process is in.
    ///
    /// # Errors
    ///
    /// There is no such process.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}"));
        let (snmp, netstat) = (read("snmp")?, read("netstat")?);
        let mut this = interfaces(&read("dev")?);
        this.retransmissions = counter(&snmp, "Tcp:", "RetransSegs").unwrap_or(0);
        this.queue_overflows = counter(&netstat, "TcpExt:", "ListenOverflows").unwrap_or(0);
        Ok(this)
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            received_bytes: self.received_bytes.saturating_sub(earlier.received_bytes),
            sent_bytes: self.sent_bytes.saturating_sub(earlier.sent_bytes),
            packets: self.packets.saturating_sub(earlier.packets),
            retransmissions: self.retransmissions.saturating_sub(earlier.retransmissions),
            queue_overflows: self.queue_overflows.saturating_sub(earlier.queue_overflows),
        }
    }
}

/// `NAME: bytes packets errs drop fifo frame compressed multicast bytes packets …`, received first (proc(5)).
fn interfaces(text: &str) -> Traffic {
    let mut sum = Traffic::default();
    for line in text.lines() {
        let Some((_, figures)) = line.split_once(':') else { continue };
        let figures: Vec<u64> = figures.split_whitespace().map_while(|figure| figure.parse().ok()).collect();
        let figure = |nth: usize| figures.get(nth).copied().unwrap_or(0);
        sum.received_bytes += figure(0);
        sum.sent_bytes += figure(8);
        sum.packets += figure(1) + figure(9);
    }
    sum
}

/// A line of names and below it a line of their values, both begun with the same word.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|word| word == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: Alg RetransSegs InErrs\nTcp: 1 77 3\n";
        assert_eq!(counter(text, "Tcp:", "RetransSegs"), Some(77));
        assert_eq!(counter(text, "Tcp:", "OutRsts"), None);
        assert_eq!(counter(text, "Udp:", "A"), None);
        assert_eq!(counter("Tcp: A\n", "Tcp:", "A"), None);
    }

    #[test]
    fn interfaces_are_added_up() {
        let text = "Inter-|   Receive |  Transmit\n face |bytes packets errs\n    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n  eth0: 7 2 0 0 0 0 0 0 9 3 0 0 0 0 0 0\n";
        let sum = interfaces(text);
        assert_eq!((sum.received_bytes, sum.sent_bytes, sum.packets), (107, 109, 7));
    }

    #[test]
    fn this_namespace_has_counters() {
        let now = Traffic::of(std::process::id()).unwrap();
        assert_eq!(now.since(now), Traffic::default());
    }
}
