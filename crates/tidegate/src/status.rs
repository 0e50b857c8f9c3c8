//! `Status`: what the processes of a server are and have done, read from the shared counters.
//!
//! It is read from shared memory and /proc alone, so that it can be told when a worker is stopped or stuck.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tidegate_engine::{
    AddressCounts, CounterDef, LatencyHistogram, ListenerMetrics, ListenerWord, Metrics, ProcessMetrics,
    ProcessWord, TurnHistogram,
};

use crate::board::Board;
use crate::layout::Layout;
#[cfg(feature = "full")]
use crate::layout::Seat;
use crate::tables::Tables;

/// A snapshot of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program that answers.
    pub version: String,
    /// When the snapshot was taken, in seconds since 1970.
    pub unix_time: u64,
    /// The listeners, in the order of the configuration.
    pub listeners: Vec<ListenerStatus>,
    /// The processes: the master, the log server, the workers.
    pub processes: Vec<ProcessStatus>,
    /// The generations that have processes, the oldest first.
    #[serde(default)]
    pub generations: Vec<GenerationStatus>,
}

/// A generation: the processes of one configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Counted from 1 over reloads and upgrades.
    pub number: u64,
    /// `starting`: not all of its workers are ready yet; `current`: it serves what comes; `retiring`: it finishes what it
    /// holds.
    pub state: String,
    /// When its first process was started, in seconds since 1970.
    #[serde(default)]
    pub since_unix: Option<u64>,
    /// Its workers, its acceptor included.
    pub processes: u64,
    /// Connections that they hold.
    pub connections: u64,
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
    /// What is to be known of it besides, as `paused`; empty when there is nothing.
    #[serde(default)]
    pub note: String,
    /// How long its answers took, over all processes and restarts.
    #[serde(default)]
    pub latency: LatencyStatus,
}

/// How long answers took: from the moment in which an event loop had a batch of requests to the one in which its answers
/// were given to the kernel. Estimated from a sample, in nanoseconds; 0 when there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyStatus {
    /// Half took no longer.
    pub p50_ns: u64,
    /// Nine of ten took no longer.
    pub p90_ns: u64,
    /// 99 of a hundred took no longer.
    pub p99_ns: u64,
    /// 999 of a thousand took no longer.
    pub p999_ns: u64,
}

impl LatencyStatus {
    fn of(took: &LatencyHistogram) -> Self {
        let within = |of_1000| took.quantile_ns(of_1000).unwrap_or(0);
        Self { p50_ns: within(500), p90_ns: within(900), p99_ns: within(990), p999_ns: within(999) }
    }
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// `master`, `log server`, `worker`, `acceptor`, or the name of a process of the program's own.
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
    /// How the process before it in this place ended, as `signal 9 (KILL)`; empty when there was none.
    #[serde(default)]
    pub last_exit: String,
    /// What is to be known of it besides, as `paused`; empty when there is nothing.
    #[serde(default)]
    pub note: String,
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

/// The counters of some processes, and what is known of their listeners: of a generation, or of the processes that live
/// over generations.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// 0 for what belongs to no generation.
    pub(crate) generation: u64,
    pub(crate) metrics: Metrics,
    pub(crate) listeners: Arc<[ListenerMeta]>,
    pub(crate) layout: Layout,
    pub(crate) tables: Tables,
}

/// Where snapshots come from.
#[derive(Clone, Debug)]
pub(crate) struct StatusSource {
    /// The master, the log server, and what a program adds.
    pub(crate) permanent: View,
    /// The oldest first. The last one is that of the configuration whose listeners are shown first.
    pub(crate) generations: Vec<View>,
    /// What happened in the last minutes, where there are admin pages to show it.
    pub(crate) board: Option<Board>,
}

/// The counters of a process, over all of its places.
#[derive(Clone, Debug)]
pub(crate) struct ProcessCounters {
    /// At least one. Those of a worker are in the order of its seats.
    places: Vec<ProcessMetrics>,
    listeners: Arc<[ListenerMeta]>,
    layout: Layout,
    /// They are what processes of this generation have left, and older generations.
    #[cfg_attr(not(feature = "full"), expect(dead_code, reason = "only the admin pages show them"))]
    pub(crate) left_to: Option<u64>,
}

impl ProcessCounters {
    /// A word of the process. What belongs to a thread is in the place of its [`seat`](Self::seats).
    pub(crate) fn get(&self, word: ProcessWord) -> u64 {
        self.places[0].get(word)
    }

    /// The counters of each loop, and of the acceptor. The log server has one loop, and the master none.
    #[cfg(feature = "full")]
    pub(crate) fn seats(&self) -> impl Iterator<Item = (Seat, &ProcessMetrics)> {
        let role = self.get(ProcessWord::Role);
        let seats = match role {
            ROLE_LOG_SERVER | ROLE_WORKER => self.layout.seats().collect(),
            ROLE_ACCEPTOR => vec![Seat::Acceptor],
            _ => Vec::new(),
        };
        seats.into_iter().zip(&self.places)
    }

    /// Its listeners, by their numbers.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = (usize, &ListenerMeta)> {
        self.listeners.iter().enumerate()
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
        let is_worker = self.get(ProcessWord::Role) == ROLE_WORKER;
        let stack = self.get(ProcessWord::ThreadStack);
        let tids = if is_worker { pool_threads(pid) } else { Vec::new() };
        let mut pool: Vec<_> = tids.into_iter().filter_map(|tid| thread_status(pid, tid, stack)).collect();
        // A shorter number is a smaller one.
        pool.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        loops.chain(pool).collect()
    }

    /// How long the answers of a listener took.
    #[cfg(feature = "full")]
    pub(crate) fn latency(&self, listener: usize) -> LatencyHistogram {
        let took = self.places.iter().map(|place| place.listener(listener).latency());
        took.fold(LatencyHistogram::EMPTY, |sum, it| sum.plus(&it))
    }

    /// How long the turns of each of its loops took.
    pub(crate) fn loop_turns(&self) -> impl Iterator<Item = TurnHistogram> {
        self.places.iter().take(self.layout.loops).map(ProcessMetrics::turns)
    }

    /// A word of all listeners.
    pub(crate) fn total(&self, word: ListenerWord) -> u64 {
        self.listeners().map(|(listener, _)| self.sum(listener, |counts| counts.get(word))).sum()
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

pub(crate) const ROLE_MASTER: u64 = 0;
pub(crate) const ROLE_LOG_SERVER: u64 = 1;
pub(crate) const ROLE_WORKER: u64 = 2;
pub(crate) const ROLE_ACCEPTOR: u64 = 3;
pub(crate) const ROLE_PROCESS: u64 = 4;
const ROLES: [&str; 5] = ["master", "log server", "worker", "acceptor", "process"];

impl StatusSource {
    /// Reads counters that the master does not move meanwhile, or nothing would be counted twice or not at all.
    pub(crate) fn steadily<T>(&self, read: impl Fn() -> T) -> T {
        let master = self.permanent.metrics.process(Layout::MASTER);
        for _ in 0..MOST_READS {
            let before = master.get(ProcessWord::Moves);
            fence(Ordering::Acquire);
            let value = read();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && master.get(ProcessWord::Moves) == before {
                return value;
            }
        }
        // A master that was killed in the midst of it moves nothing any more.
        read()
    }

    /// The memory that the loops of this process's own generation share.
    #[cfg(feature = "full")]
    pub(crate) fn own_tables(&self) -> Tables {
        self.generations.last().map(|view| view.tables.clone()).unwrap_or_default()
    }

    /// How many connections each address has, for a worker, which counts together with all others of its generation and of
    /// those before.
    pub(crate) fn address_counts(&self, worker: usize, replacing: usize) -> AddressCounts {
        // Where two are left of a worker that was replaced twice, the third would share the seat of one of them.
        if replacing >= Layout::PROCESSES_OF_A_WORKER {
            return AddressCounts::new();
        }
        let Some((own, older)) = self.generations.split_last() else { return AddressCounts::new() };
        let Some(table) = own.tables.addresses() else { return AddressCounts::new() };
        let older = older.iter().filter_map(|view| view.tables.addresses().cloned()).collect();
        AddressCounts::with_table(table.clone(), Layout::worker_seat(worker, replacing), older)
    }

    /// Moves counters, for those who read [`steadily`](Self::steadily). Only the master does.
    pub(crate) fn moving(permanent: &View, step: impl FnOnce()) {
        let master = permanent.metrics.process(Layout::MASTER);
        master.add(ProcessWord::Moves, 1);
        fence(Ordering::Release);
        step();
        fence(Ordering::Release);
        master.add(ProcessWord::Moves, 1);
    }

    /// A snapshot of all processes that have started.
    pub(crate) fn collect(&self) -> Status {
        self.steadily(|| self.collect_with(ProcessCounters::threads))
    }

    /// The same without the threads of the processes, each of which would be read from files of its own.
    #[cfg(feature = "full")]
    pub(crate) fn brief(&self) -> Status {
        self.collect_with(|_| Vec::new())
    }

    fn collect_with(&self, threads: impl Fn(&ProcessCounters) -> Vec<ThreadStatus>) -> Status {
        let now = unix_time();
        let one =
            |process| ProcessStatus { threads: threads(&process), ..self.process_status(&process, now) };
        let processes: Vec<_> = self.started().map(one).collect();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unix_time: now,
            listeners: self.listener_statuses(),
            generations: generations(&processes, self.committed(), now),
            processes,
        }
    }

    /// How long the answers of each of these listeners took, whoever gave them.
    #[cfg(feature = "full")]
    pub(crate) fn listener_latencies(&self, listeners: &[ListenerStatus]) -> Vec<LatencyHistogram> {
        listeners.iter().map(|listener| self.latency_of(&listener.name, &listener.service)).collect()
    }

    fn latency_of(&self, name: &str, service: &str) -> LatencyHistogram {
        let mut took = LatencyHistogram::EMPTY;
        for view in self.views() {
            let same = |(_, meta): &(usize, &ListenerMeta)| meta.name == name && meta.service == service;
            for (index, _) in view.listeners.iter().enumerate().filter(same) {
                for place in 0..view.metrics.processes() {
                    took = took.plus(&view.metrics.process(place).listener(index).latency());
                }
            }
        }
        took
    }

    /// The generation that serves, as the master has entered it; `None` where there is no master.
    fn committed(&self) -> Option<u64> {
        let master = self.permanent.metrics.process(Layout::MASTER);
        let is_master = master.get(ProcessWord::Pid) != 0 && master.get(ProcessWord::Role) == ROLE_MASTER;
        is_master.then(|| master.get(ProcessWord::Generation))
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = &View> {
        std::iter::once(&self.permanent).chain(&self.generations)
    }

    /// The processes that there are: those that live over generations first.
    pub(crate) fn started(&self) -> impl Iterator<Item = ProcessCounters> {
        self.views().flat_map(View::started)
    }

    /// Whoever has counted something: the processes that there are, and those that have ended.
    #[cfg(feature = "full")]
    pub(crate) fn counted(&self) -> impl Iterator<Item = ProcessCounters> {
        self.started().chain(self.generations.iter().filter_map(View::ended))
    }

    /// Every listener once, with the sum of what all its connections did, whoever served them.
    fn listener_statuses(&self) -> Vec<ListenerStatus> {
        let mut statuses: Vec<ListenerStatus> = Vec::new();
        // Those of the newest configuration come first, and say what is known besides.
        for view in self.generations.iter().rev().chain([&self.permanent]) {
            for (index, meta) in view.listeners.iter().enumerate() {
                let sum = |word| {
                    let places = 0..view.metrics.processes();
                    places.map(|place| view.metrics.process(place).listener(index).get(word)).sum::<u64>()
                };
                let (connections, accepted) = (sum(ListenerWord::Open), sum(ListenerWord::Accepted));
                let requests = sum(ListenerWord::Messages) + sum(ListenerWord::DatagramsIn);
                match statuses.iter_mut().find(|it| it.name == meta.name && it.service == meta.service) {
                    Some(status) => {
                        status.connections += connections;
                        status.accepted += accepted;
                        status.requests += requests;
                    }
                    None => statuses.push(ListenerStatus {
                        name: meta.name.clone(),
                        address: meta.address.clone(),
                        service: meta.service.clone(),
                        connections,
                        accepted,
                        requests,
                        note: String::new(),
                        latency: LatencyStatus::of(&self.latency_of(&meta.name, &meta.service)),
                    }),
                }
            }
        }
        statuses
    }

    fn process_status(&self, process: &ProcessCounters, now: u64) -> ProcessStatus {
        let sum = |word| process.total(word);
        let role = process.get(ProcessWord::Role);
        let pid = process.get(ProcessWord::Pid);
        ProcessStatus {
            role: role_name(role).to_owned(),
            index: matches!(role, ROLE_WORKER | ROLE_PROCESS).then(|| process.get(ProcessWord::Index)),
            pid,
            generation: process.get(ProcessWord::Generation),
            state: ProcessState::name(process.get(ProcessWord::State)).to_owned(),
            os_state: os_state(pid).to_owned(),
            uptime: now.saturating_sub(process.get(ProcessWord::StartedUnix)),
            restarts: process.get(ProcessWord::Restarts),
            last_exit: String::new(),
            note: String::new(),
            connections: sum(ListenerWord::Open),
            bytes_in: sum(ListenerWord::BytesIn),
            bytes_out: sum(ListenerWord::BytesOut),
            requests: sum(ListenerWord::Messages) + sum(ListenerWord::DatagramsIn),
            threads: Vec::new(),
        }
    }
}

impl View {
    /// The processes in its places that there are.
    fn started(&self) -> impl Iterator<Item = ProcessCounters> + use<> {
        let places: Vec<_> = (0..self.metrics.processes()).map(|index| self.metrics.process(index)).collect();
        let (single, workers) = places.split_at(self.layout.first_worker().min(places.len()));
        let groups = single.chunks(1).chain(workers.chunks(self.layout.worker_places()));
        let counters = |group: &[ProcessMetrics]| ProcessCounters {
            places: group.to_vec(),
            listeners: Arc::clone(&self.listeners),
            layout: self.layout,
            left_to: None,
        };
        let groups: Vec<_> = groups.map(counters).collect();
        groups.into_iter().filter(|process| process.get(ProcessWord::Pid) != 0)
    }

    /// What is in the places in which there is nobody; `None` when that is nothing.
    #[cfg(feature = "full")]
    fn ended(&self) -> Option<ProcessCounters> {
        let places: Vec<_> = (0..self.metrics.processes()).map(|index| self.metrics.process(index)).collect();
        let (single, workers) = places.split_at(self.layout.first_worker().min(places.len()));
        let groups = single.chunks(1).chain(workers.chunks(self.layout.worker_places()));
        let is_left = |group: &&[ProcessMetrics]| group[0].get(ProcessWord::Pid) == 0;
        let places = groups.filter(is_left).flatten().cloned().collect();
        let (listeners, layout) = (Arc::clone(&self.listeners), self.layout);
        let left = ProcessCounters { places, listeners, layout, left_to: Some(self.generation) };
        let counted = left.total(ListenerWord::Accepted) + left.total(ListenerWord::DatagramsIn);
        (counted > 0).then_some(left)
    }
}

/// The generations that these processes belong to. The current one is the newest with a worker that is ready, but none that
/// is newer than the one that is `committed`: such a one has workers that are not ready, and may yet be given up.
fn generations(processes: &[ProcessStatus], committed: Option<u64>, now: u64) -> Vec<GenerationStatus> {
    let mut numbered: BTreeMap<u64, Vec<&ProcessStatus>> = BTreeMap::new();
    for process in processes.iter().filter(|process| GENERATION_ROLES.contains(&process.role.as_str())) {
        numbered.entry(process.generation).or_default().push(process);
    }
    let serves = |processes: &[&ProcessStatus]| processes.iter().any(|process| process.state == "ready");
    let may_serve = |number: u64| committed.is_none_or(|committed| number <= committed);
    let mut newest_first = numbered.iter().rev();
    let current = newest_first.find(|(number, processes)| may_serve(**number) && serves(processes));
    let current = current.map(|(number, _)| *number);
    let status = |(number, processes): (u64, Vec<&ProcessStatus>)| GenerationStatus {
        number,
        state: match current {
            Some(current) if number < current => "retiring",
            Some(current) if number == current => "current",
            _ if processes.iter().all(|process| matches!(&*process.state, "retiring" | "ended")) => {
                "retiring"
            }
            _ => "starting",
        }
        .to_owned(),
        since_unix: processes.iter().map(|process| now.saturating_sub(process.uptime)).min(),
        processes: processes.len() as u64,
        connections: processes.iter().map(|process| process.connections).sum(),
    };
    numbered.into_iter().map(status).collect()
}

/// What belongs to a generation; all other processes live over reloads.
const GENERATION_ROLES: [&str; 2] = ["worker", "acceptor"];

/// Moving takes microseconds, a few times in a reload.
const MOST_READS: usize = 100;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn process(role: &str, generation: u64, state: &str, uptime: u64) -> ProcessStatus {
        ProcessStatus {
            role: role.to_owned(),
            index: Some(0),
            pid: 1,
            generation,
            state: state.to_owned(),
            os_state: "sleeping".to_owned(),
            uptime,
            restarts: 0,
            last_exit: String::new(),
            note: String::new(),
            connections: 10,
            bytes_in: 0,
            bytes_out: 0,
            requests: 0,
            threads: Vec::new(),
        }
    }

    #[track_caller]
    fn check(processes: &[ProcessStatus], expected: &[(u64, &str, u64, u64, u64)]) {
        check_with(None, processes, expected);
    }

    #[track_caller]
    fn check_with(
        committed: Option<u64>,
        processes: &[ProcessStatus],
        expected: &[(u64, &str, u64, u64, u64)],
    ) {
        let generations = generations(processes, committed, 1000);
        let found = generations.iter().map(|generation| {
            let since = generation.since_unix.unwrap();
            (
                generation.number,
                generation.state.as_str(),
                since,
                generation.processes,
                generation.connections,
            )
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_newest_generation_that_serves_is_the_current_one() {
        let mut all = vec![process("master", 1, "ready", 900), process("log server", 1, "ready", 900)];
        check(&all, &[]);
        all.push(process("worker", 2, "ready", 100));
        all.push(process("worker", 2, "starting", 1));
        all.push(process("acceptor", 2, "ready", 90));
        check(&all, &[(2, "current", 900, 3, 30)]);
        all.push(process("worker", 1, "retiring", 500));
        all.push(process("worker", 3, "starting", 2));
        check(&all, &[(1, "retiring", 500, 1, 10), (2, "current", 900, 3, 30), (3, "starting", 998, 1, 10)]);
    }

    #[test]
    fn a_generation_is_not_the_current_one_before_all_of_it_is_ready() {
        let all = [process("worker", 1, "ready", 9), process("worker", 2, "ready", 8)];
        check_with(Some(1), &all, &[(1, "current", 991, 1, 10), (2, "starting", 992, 1, 10)]);
        check_with(Some(2), &all, &[(1, "retiring", 991, 1, 10), (2, "current", 992, 1, 10)]);
    }

    #[test]
    fn a_server_that_stops_has_retiring_generations_alone() {
        check(&[process("worker", 4, "retiring", 7)], &[(4, "retiring", 993, 1, 10)]);
    }

    #[test]
    fn a_status_of_a_version_without_generations_is_read() {
        let text = r#"{"version":"0.1.0","unix_time":1,"listeners":[],"processes":[{"role":"master","pid":1,
            "generation":1,"state":"ready","os_state":"sleeping","uptime":1,"restarts":0,"connections":0,"bytes_in":0,
            "bytes_out":0,"requests":0}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert!(status.generations.is_empty() && status.processes[0].note.is_empty());
    }
}
