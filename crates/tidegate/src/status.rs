//! `Status`: what the processes of a server are and have done, read from the shared counters.
//!
//! It is read from shared memory and /proc alone, so that it can be told when a worker is stopped or stuck.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidegate_engine::{CounterDef, ListenerMetrics, ListenerWord, Metrics, ProcessMetrics, ProcessWord};

/// A snapshot of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program that answers.
    pub version: String,
    /// When the snapshot was taken, in seconds since 1970.
    pub unix_time: u64,
    /// The listeners, in the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
    /// The processes: the master, the log server, the workers.
    pub processes: Vec<ProcessStatus>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Its real address.
    pub address: String,
    /// What it serves.
    pub service: String,
    /// Connections open now, over all processes.
    pub connections: u64,
    /// Connections accepted, over all processes and restarts.
    pub accepted: u64,
    /// Messages (requests, frames, reads of a stream) handled.
    pub requests: u64,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// `master`, `log server` or `worker`.
    pub role: String,
    /// The number of a worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// Its process id.
    pub pid: u64,
    /// The generation of the configuration it runs with.
    pub generation: u64,
    /// `starting`, `ready`, `retiring` or `ended`, as the process itself said last.
    pub state: String,
    /// What the kernel says of it: `running`, `sleeping`, `stopped`, `zombie`, `gone` (proc_pid_stat(5)).
    pub os_state: String,
    /// Seconds since its start.
    pub uptime: u64,
    /// How often the process in this place was started again.
    pub restarts: u64,
    /// Connections open now.
    pub connections: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Messages handled.
    pub requests: u64,
}

/// A listener, as those who read its counters know it.
#[derive(Clone, Debug)]
pub(crate) struct ListenerMeta {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) service: String,
    #[cfg_attr(not(feature = "web"), expect(dead_code, reason = "only the admin pages show them"))]
    pub(crate) counters: &'static [CounterDef],
}

/// Where snapshots come from.
#[derive(Clone, Debug)]
pub(crate) struct StatusSource {
    pub(crate) metrics: Metrics,
    pub(crate) listeners: Arc<[ListenerMeta]>,
    /// Loops, and so places among the counters, of each worker.
    pub(crate) loops: usize,
}

/// The counters of a process, over all of its loops.
#[derive(Clone, Debug)]
pub(crate) struct ProcessCounters(Vec<ProcessMetrics>);

impl ProcessCounters {
    /// A word of the process: what belongs to a loop is summed, what belongs to the process stands in the first place.
    pub(crate) fn get(&self, word: ProcessWord) -> u64 {
        let of_a_loop = matches!(
            word,
            ProcessWord::LoopTurns
                | ProcessWord::StaleHandles
                | ProcessWord::AcceptExhausted
                | ProcessWord::Panics
                | ProcessWord::Stalls
        );
        if of_a_loop { self.0.iter().map(|place| place.get(word)).sum() } else { self.0[0].get(word) }
    }

    /// A count of a listener, over all loops.
    pub(crate) fn sum(&self, listener: usize, count: impl Fn(&ListenerMetrics) -> u64) -> u64 {
        self.0.iter().map(|place| count(&place.listener(listener))).sum()
    }

    /// A word of all listeners.
    fn total(&self, listeners: usize, word: ListenerWord) -> u64 {
        (0..listeners).map(|listener| self.sum(listener, |counts| counts.get(word))).sum()
    }
}

/// What a process says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum ProcessState {
    Starting = 0,
    Ready = 1,
    Retiring = 2,
    Ended = 3,
}

impl ProcessState {
    fn name(word: u64) -> &'static str {
        match word {
            0 => "starting",
            1 => "ready",
            2 => "retiring",
            _ => "ended",
        }
    }
}

/// The places of the processes among the counters.
pub(crate) mod place {
    pub(crate) const MASTER: usize = 0;
    pub(crate) const LOG_SERVER: usize = 1;
    pub(crate) const FIRST_WORKER: usize = 2;

    /// The place of a loop of a worker.
    pub(crate) const fn of_loop(worker: usize, loops: usize, index: usize) -> usize {
        FIRST_WORKER + worker * loops + index
    }
}

const ROLES: [&str; 3] = ["master", "log server", "worker"];

impl StatusSource {
    /// A snapshot of all processes that have started.
    pub(crate) fn collect(&self) -> Status {
        let now = unix_time();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unix_time: now,
            listeners: (0..self.listeners.len()).map(|index| self.listener_status(index)).collect(),
            processes: self.started().map(|process| self.process_status(&process, now)).collect(),
        }
    }

    pub(crate) fn started(&self) -> impl Iterator<Item = ProcessCounters> {
        let places: Vec<_> = (0..self.metrics.processes()).map(|index| self.metrics.process(index)).collect();
        let (single, workers) = places.split_at(place::FIRST_WORKER.min(places.len()));
        let groups = single.chunks(1).chain(workers.chunks(self.loops));
        let groups: Vec<_> = groups.map(|group| ProcessCounters(group.to_vec())).collect();
        groups.into_iter().filter(|process| process.get(ProcessWord::Pid) != 0)
    }

    fn listener_status(&self, index: usize) -> ListenerStatus {
        let meta = &self.listeners[index];
        let sum = |word| {
            (0..self.metrics.processes()).map(|p| self.metrics.process(p).listener(index).get(word)).sum()
        };
        ListenerStatus {
            name: meta.name.clone(),
            address: meta.address.clone(),
            service: meta.service.clone(),
            connections: sum(ListenerWord::Open),
            accepted: sum(ListenerWord::Accepted),
            requests: sum(ListenerWord::Messages),
        }
    }

    fn process_status(&self, process: &ProcessCounters, now: u64) -> ProcessStatus {
        let sum = |word| process.total(self.listeners.len(), word);
        let role = process.get(ProcessWord::Role);
        let pid = process.get(ProcessWord::Pid);
        ProcessStatus {
            role: role_name(role).to_owned(),
            index: (role == 2).then(|| process.get(ProcessWord::Index)),
            pid,
            generation: process.get(ProcessWord::Generation),
            state: ProcessState::name(process.get(ProcessWord::State)).to_owned(),
            os_state: os_state(pid).to_owned(),
            uptime: now.saturating_sub(process.get(ProcessWord::StartedUnix)),
            restarts: process.get(ProcessWord::Restarts),
            connections: sum(ListenerWord::Open),
            bytes_in: sum(ListenerWord::BytesIn),
            bytes_out: sum(ListenerWord::BytesOut),
            requests: sum(ListenerWord::Messages),
        }
    }
}

pub(crate) fn role_name(role: u64) -> &'static str {
    usize::try_from(role).ok().and_then(|role| ROLES.get(role)).copied().unwrap_or("other")
}

pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// The state letter of proc_pid_stat(5), in words.
pub(crate) fn os_state(pid: u64) -> &'static str {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return "gone" };
    // The command's name, in parentheses, may hold anything; the state follows the last one.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    match state {
        Some('R') => "running",
        Some('S' | 'D' | 'I') => "sleeping",
        Some('T' | 't') => "stopped",
        Some('Z' | 'X') => "zombie",
        _ => "unknown",
    }
}
