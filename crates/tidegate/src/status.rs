//! `Status`: what the processes of a server are and have done, read from the shared counters.
//!
//! It is read from shared memory and /proc alone, so that it can be told when a worker is stopped or stuck.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidegate_engine::{CounterDef, ListenerMetrics, ListenerWord, Metrics, ProcessMetrics, ProcessWord};

use crate::layout::Layout;
#[cfg(feature = "full")]
use crate::layout::Seat;

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
    /// The threads that run its loops, its acceptor, and those of their pools.
    #[serde(default)]
    pub threads: Vec<ThreadStatus>,
}

/// A thread, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadStatus {
    /// `loop-0`, `acceptor`, `pool-3`.
    pub name: String,
    /// Its number in `/proc/PID/task`.
    pub tid: u64,
    /// The processors that it may run on, as `"1-3,5"` (`Cpus_allowed_list` of proc_pid_status(5)).
    pub cpus: String,
    /// -20 to 19 (proc_pid_stat(5)).
    pub nice: i64,
    /// Bytes of its stack.
    pub stack: u64,
}

/// A listener, as those who read its counters know it.
#[derive(Clone, Debug)]
pub(crate) struct ListenerMeta {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) service: String,
    #[cfg_attr(not(feature = "full"), expect(dead_code, reason = "only the admin pages show them"))]
    pub(crate) counters: &'static [CounterDef],
}

/// Where snapshots come from.
#[derive(Clone, Debug)]
pub(crate) struct StatusSource {
    pub(crate) metrics: Metrics,
    pub(crate) listeners: Arc<[ListenerMeta]>,
    pub(crate) layout: Layout,
}

/// The counters of a process, over all of its places.
#[derive(Clone, Debug)]
pub(crate) struct ProcessCounters {
    /// At least one. Those of a worker are in the order of its seats.
    places: Vec<ProcessMetrics>,
    #[cfg_attr(not(feature = "full"), expect(dead_code, reason = "only the admin pages show single loops"))]
    layout: Layout,
}

impl ProcessCounters {
    /// A word of the process. What belongs to a thread is in the place of its [`seat`](Self::seats).
    pub(crate) fn get(&self, word: ProcessWord) -> u64 {
        self.places[0].get(word)
    }

    /// The counters of each loop, and of the acceptor. The log server has one loop, and the master none.
    #[cfg(feature = "full")]
    pub(crate) fn seats(&self) -> impl Iterator<Item = (Seat, &ProcessMetrics)> {
        let places = if self.get(ProcessWord::Role) == MASTER { &[] } else { &self.places[..] };
        self.layout.seats().zip(places)
    }

    /// A count of a listener, over all places: what the acceptor counts is what no loop does.
    pub(crate) fn sum(&self, listener: usize, count: impl Fn(&ListenerMetrics) -> u64) -> u64 {
        self.places.iter().map(|place| count(&place.listener(listener))).sum()
    }

    /// The threads of its loops, its acceptor and its pools that the kernel knows.
    fn threads(&self) -> Vec<ThreadStatus> {
        let pid = self.get(ProcessWord::Pid);
        let loops = self.places.iter().filter_map(|place| {
            let (tid, stack) = (place.get(ProcessWord::Tid), place.get(ProcessWord::ThreadStack));
            if tid == 0 { None } else { thread_status(pid, tid, stack) }
        });
        let is_worker = self.get(ProcessWord::Role) == WORKER;
        let stack = self.get(ProcessWord::ThreadStack);
        let tids = if is_worker { pool_threads(pid) } else { Vec::new() };
        let mut pool: Vec<_> = tids.into_iter().filter_map(|tid| thread_status(pid, tid, stack)).collect();
        // A shorter number is a smaller one.
        pool.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        loops.chain(pool).collect()
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

#[cfg(feature = "full")]
const MASTER: u64 = 0;
const WORKER: u64 = 2;
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
        let (single, workers) = places.split_at(Layout::FIRST_WORKER.min(places.len()));
        let groups = single.chunks(1).chain(workers.chunks(self.layout.worker_places()));
        let counters =
            |group: &[ProcessMetrics]| ProcessCounters { places: group.to_vec(), layout: self.layout };
        let groups: Vec<_> = groups.map(counters).collect();
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
            index: (role == WORKER).then(|| process.get(ProcessWord::Index)),
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
            threads: process.threads(),
        }
    }
}

pub(crate) fn role_name(role: u64) -> &'static str {
    usize::try_from(role).ok().and_then(|role| ROLES.get(role)).copied().unwrap_or("other")
}

pub(crate) fn unix_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// The numbers of the threads of a process that belong to the pool of a loop, by their name: a pool may grow, so they have
/// no places among the counters.
fn pool_threads(pid: u64) -> Vec<u64> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let is_pool = |tid: &u64| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
        name.is_ok_and(|name| name.starts_with(POOL_PREFIX))
    };
    let tids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    tids.filter(is_pool).collect()
}

/// What the names of the threads of a pool begin with.
pub(crate) const POOL_PREFIX: &str = "pool-";

/// `None` when the thread has gone.
fn thread_status(pid: u64, tid: u64, stack: u64) -> Option<ThreadStatus> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/{file}")).ok();
    let (status, stat) = (read("status")?, read("stat")?);
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let (head, fields) = stat.rsplit_once(") ")?;
    Some(ThreadStatus {
        name: head.split_once('(')?.1.to_owned(),
        tid,
        cpus: cpus.trim().to_owned(),
        // The 19th field; the state, which is the third, is the first behind the name.
        nice: fields.split(' ').nth(16)?.parse().ok()?,
        stack,
    })
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
