//! `Usage`: what a server's processes use, taken while it is loaded.
//!
//! Invariant: sums are over the processes that are there at the moment; the processor time between two moments counts what
//! each of them used in between, also of those that began there. What a process used that ended in between is lost.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::per;
use crate::procfs;
use crate::traffic::Traffic;
use crate::{cpu_time, family};

/// What the processes have at one moment, and have used until then.
#[derive(Clone, Debug)]
pub struct Snapshot {
    at: Instant,
    cpu: BTreeMap<u32, Duration>,
    memory_bytes: u64,
    descriptors: u64,
    threads: u64,
    traffic: Traffic,
}

/// What they used over a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Processes at the end.
    pub processes: usize,
    /// Their threads, the most of all moments.
    pub threads: u64,
    /// How many processors they kept busy.
    pub cores: f64,
    /// Their memory, the most of all moments: shared pages count in proportion where the kernel tells (`Pss`).
    pub memory_bytes: u64,
    /// Their open descriptors, the most of all moments.
    pub descriptors: u64,
    /// Bytes per second that came in to their network namespace, over all interfaces.
    pub received_per_s: f64,
    /// And that went out.
    pub sent_per_s: f64,
    /// Packets in both directions, per second.
    pub packets_per_s: f64,
    /// TCP segments sent again in that namespace.
    pub retransmissions: u64,
    /// Connections that found the queue of a listener full.
    pub queue_overflows: u64,
}

impl Snapshot {
    /// Looks at a process and all that descend from it.
    ///
    /// # Errors
    ///
    /// There is no such process.
    pub fn of(root: u32) -> io::Result<Self> {
        let pids = family(root)?;
        let at = Instant::now();
        let cpu: BTreeMap<u32, Duration> =
            pids.iter().filter_map(|&pid| Some((pid, cpu_time(pid).ok()?))).collect();
        if !cpu.contains_key(&root) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("the process {root} has gone")));
        }
        // A process that ends just now has nothing any more.
        let sum = |figure: fn(u32) -> io::Result<u64>| pids.iter().filter_map(|&pid| figure(pid).ok()).sum();
        Ok(Self {
            at,
            cpu,
            memory_bytes: sum(procfs::memory_bytes),
            descriptors: sum(procfs::descriptors),
            threads: sum(procfs::threads),
            traffic: Traffic::of(root).unwrap_or_default(),
        })
    }

    /// The processor time that was used since another moment.
    #[must_use]
    pub fn cpu_since(&self, earlier: &Self) -> Duration {
        let before = |pid| earlier.cpu.get(pid).copied().unwrap_or_default();
        self.cpu.iter().map(|(pid, now)| now.saturating_sub(before(pid))).sum()
    }
}

impl Usage {
    /// From the first to the last of some moments; `None` when there are not two.
    #[must_use]
    pub fn over(moments: &[Snapshot]) -> Option<Self> {
        let [first, .., last] = moments else { return None };
        let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
        let most = |figure: fn(&Snapshot) -> u64| moments.iter().map(figure).max().unwrap_or(0);
        let traffic = last.traffic.since(first.traffic);
        Some(Self {
            processes: last.cpu.len(),
            threads: most(|moment| moment.threads),
            cores: if seconds > 0.0 { last.cpu_since(first).as_secs_f64() / seconds } else { 0.0 },
            memory_bytes: most(|moment| moment.memory_bytes),
            descriptors: most(|moment| moment.descriptors),
            received_per_s: per(traffic.received_bytes, seconds),
            sent_per_s: per(traffic.sent_bytes, seconds),
            packets_per_s: per(traffic.packets, seconds),
            retransmissions: traffic.retransmissions,
            queue_overflows: traffic.queue_overflows,
        })
    }
}

/// A thread that looks at a server now and then, so that the one that loads it is not kept from that.
#[derive(Debug)]
pub struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<Vec<Snapshot>>,
}

impl Sampler {
    /// Looks at once, and then again each `every`.
    ///
    /// # Errors
    ///
    /// There is no such process, or no further thread.
    pub fn start(root: u32, every: Duration) -> io::Result<Self> {
        let mut moments = vec![Snapshot::of(root)?];
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name("sampler".to_owned()).spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                // A server that has gone has no further figures; that it has gone is seen by its clients.
                moments.extend(Snapshot::of(root).ok());
                if moments.len() > MAX_MOMENTS {
                    // Peaks are kept as well as the ends: every other moment in between goes.
                    let last = moments.len() - 1;
                    let mut nth = 0..;
                    moments.retain(|_| nth.next().is_some_and(|nth| nth % 2 == 0 || nth == last));
                }
            }
            moments.extend(Snapshot::of(root).ok());
            moments
        })?;
        Ok(Self { stop, thread })
    }

    /// Looks once more, and tells what it saw.
    #[must_use]
    pub fn finish(self) -> Option<Usage> {
        // It waits for this, and for nothing else.
        let _ = self.stop.send(());
        Usage::over(&self.thread.join().ok()?)
    }
}

/// A stage of a day, at four a second, would be some 350,000.
const MAX_MOMENTS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let sampler = Sampler::start(pid, Duration::from_millis(5)).unwrap();
        let begin = cpu_time(pid).unwrap();
        while cpu_time(pid).unwrap() < begin + Duration::from_millis(20) {}
        let usage = sampler.finish().unwrap();
        assert!(usage.cores > 0.0 && usage.processes >= 1 && usage.threads >= 2, "{usage:?}");
        assert!(usage.memory_bytes > 1 << 16 && usage.descriptors >= 3, "{usage:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Beyond the kernel's highest pid (PID_MAX_LIMIT, 2^22).
        assert_eq!(Snapshot::of(5_000_000).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(Usage::over(&[]).is_none());
    }

    #[test]
    fn time_of_a_process_that_began_in_between_counts() {
        let moment = |cpu: &[(u32, u64)]| Snapshot {
            at: Instant::now(),
            cpu: cpu.iter().map(|&(pid, ms)| (pid, Duration::from_millis(ms))).collect(),
            memory_bytes: 0,
            descriptors: 0,
            threads: 0,
            traffic: Traffic::default(),
        };
        let (before, after) = (moment(&[(1, 10), (2, 500)]), moment(&[(1, 15), (3, 7)]));
        assert_eq!(after.cpu_since(&before), Duration::from_millis(12));
    }
}
