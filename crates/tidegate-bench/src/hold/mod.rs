//! `hold`: more connections than one process may have, each asking now and then.
//!
//! ```text
//!  hold ──┬── member 0: 16,667 connections from 127.0.0.2 ──┐
//!         ├── member 1: 16,667 connections from 127.0.0.3 ──┼──▶ the server, at one or more addresses
//!         └── …                                           ──┘
//!  a member says how many connections it made, waits for "go", holds, says what came of it, and waits for the end
//! ```
//!
//! Invariant: the time counts only when all members are connected, so that all connections are held at once. Every member
//! ends with this process: it reads the end of its standard input.

mod member;
mod members;
mod report;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use member::{MemberError, MemberPlan, run_member};
pub use report::{HoldReport, MemberReport};

use crate::procfs::local_ports;
use crate::{KernelMemory, cpu_time, family, resident_bytes};
use members::Members;

/// What is held, and for how long.
#[derive(Clone, Debug)]
pub struct HoldPlan {
    /// The program whose command `bench hold-member` is a member; usually this one.
    pub program: PathBuf,
    /// Where to connect to, in turn.
    pub targets: Vec<SocketAddr>,
    /// How many connections in all.
    pub connections: usize,
    /// Over how many processes.
    pub processes: usize,
    /// Each connection asks once in this time.
    pub every: Duration,
    /// How long all are held.
    pub time: Duration,
    /// The server's first process, whose family's processor time and memory are measured.
    pub server: Option<u32>,
}

/// Why nothing was held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The numbers do not fit together.
    #[error("{0}")]
    Plan(String),
    /// A member cannot be run, or did not say what it should.
    #[error("member {number}: {reason}")]
    Member {
        /// Which of them.
        number: usize,
        /// What it said in place.
        reason: String,
    },
    /// `/proc` cannot be read.
    #[error("/proc cannot be read")]
    Proc(#[from] io::Error),
}

/// What happens just now.
#[derive(Clone, Copy, Debug)]
pub enum HoldProgress {
    /// So many connections stand.
    Connected(usize),
    /// All stand, since this time.
    Holding(Duration),
}

/// Connections of one member; more would leave no descriptors for anything else.
const MAX_CONNECTIONS_PER_MEMBER: usize = 19_900;
const MAX_PROCESSES: usize = 200;
/// Of the ports of a source address, the share that is used: others may be taken by other programs.
const USED_PORTS_PERCENT: usize = 90;
/// How long a connection may take to be made, and an answer to come: a queue of the listener that is full costs 1 s, then 3 s
/// and 7 s (the kernel's own repetitions).
const PATIENCE: Duration = Duration::from_secs(15);

/// Holds the connections and tells what came of it. `watch` is told now and then.
///
/// # Errors
///
/// The plan cannot be carried out, or not all connections can be made. Connections that are lost later are no error; they
/// are counted.
pub fn hold(plan: &HoldPlan, watch: &mut dyn FnMut(HoldProgress)) -> Result<HoldReport, HoldError> {
    let plans = member_plans(plan, local_ports()?.len())?;
    let before = KernelMemory::now()?;
    let connecting = Instant::now();
    let mut members = Members::start(&plan.program, &plans)?;
    let mut connected = 0;
    for number in 0..plans.len() {
        connected += members.connected(number)?;
        watch(HoldProgress::Connected(connected));
    }
    let connect_time = connecting.elapsed();
    let cpu_before = server_cpu(plan.server)?;
    members.go()?;
    let began = Instant::now();
    let mut reports = vec![None; plans.len()];
    while began.elapsed() < plan.time && reports.contains(&None) {
        watch(HoldProgress::Holding(began.elapsed()));
        let left = plan.time.saturating_sub(began.elapsed());
        // A member that says something before its time has lost all of its connections, or itself.
        if let Some(number) = members.ready(left.min(Duration::from_secs(1)))? {
            reports[number] = Some(members.report(number)?);
        }
    }
    let (cpu, wall) = (server_cpu(plan.server)?, began.elapsed());
    for (number, report) in reports.iter_mut().enumerate().filter(|(_, report)| report.is_none()) {
        *report = Some(members.report(number)?);
    }
    let reports: Vec<MemberReport> = reports.into_iter().flatten().collect();
    // All connections are still open: members close them when they are dropped.
    let (during, server_memory) = (KernelMemory::now()?, server_memory(plan.server)?);
    drop(members);
    let server = cpu.zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    Ok(HoldReport {
        connections: connected,
        processes: plans.len(),
        connect_seconds: connect_time.as_secs_f64(),
        held_seconds: wall.as_secs_f64(),
        total: MemberReport::sum(&reports),
        server_cores: server.map(|used| used.as_secs_f64() / wall.as_secs_f64()),
        server_resident_bytes: server_memory,
        memory_used: before.available.saturating_sub(during.available),
        slab_grown: during.slab.saturating_sub(before.slab),
        tcp_sockets: during.tcp_sockets,
    })
}

fn server_cpu(server: Option<u32>) -> io::Result<Option<Duration>> {
    let Some(pid) = server else { return Ok(None) };
    // One of the family may have ended since it was listed, and then counts for nothing.
    Ok(Some(family(pid)?.into_iter().filter_map(|pid| cpu_time(pid).ok()).sum()))
}

fn server_memory(server: Option<u32>) -> io::Result<Option<u64>> {
    let Some(pid) = server else { return Ok(None) };
    Ok(Some(family(pid)?.into_iter().filter_map(|pid| resident_bytes(pid).ok()).sum()))
}

/// Shares the connections out, and gives each member source addresses of its own with ports enough.
fn member_plans(plan: &HoldPlan, ports: usize) -> Result<Vec<MemberPlan>, HoldError> {
    let refuse = |text: String| Err(HoldError::Plan(text));
    if !(1..=MAX_PROCESSES).contains(&plan.processes) {
        return refuse(format!("there are 1 to {MAX_PROCESSES} processes, not {}", plan.processes));
    }
    let most = plan.connections.div_ceil(plan.processes);
    if plan.connections < plan.processes || most > MAX_CONNECTIONS_PER_MEMBER {
        let (all, processes) = (plan.connections, plan.processes);
        return refuse(format!(
            "{all} connections over {processes} processes: each can have 1 to {MAX_CONNECTIONS_PER_MEMBER}"
        ));
    }
    if plan.every.is_zero() {
        return refuse("each connection asks every so often, which cannot be 0 s".to_owned());
    }
    if plan.targets.is_empty() {
        return refuse("there is no address to connect to".to_owned());
    }
    // Only on the loopback net is every address one's own.
    let loopback = plan.targets.iter().all(|target| target.is_ipv4() && target.ip().is_loopback());
    let usable = (ports * USED_PORTS_PERCENT / 100).max(1);
    let sources_each = if loopback { most.div_ceil(usable) } else { 0 };
    let mut next_source = 2_u32;
    let members = (0..plan.processes).map(|number| {
        let sources = (next_source..).take(sources_each).map(loopback_address).collect();
        next_source += u32::try_from(sources_each).unwrap_or(u32::MAX);
        let spare = usize::from(number < plan.connections % plan.processes);
        MemberPlan {
            targets: plan.targets.clone(),
            sources,
            connections: plan.connections / plan.processes + spare,
            every: plan.every,
            time: plan.time,
            patience: PATIENCE,
        }
    });
    Ok(members.collect())
}

/// The `number`-th address of 127.0.0.0/8.
fn loopback_address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() | (number & 0x00FF_FFFF)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(connections: usize, processes: usize) -> HoldPlan {
        HoldPlan {
            program: PathBuf::new(),
            targets: vec!["127.0.0.1:9".parse().unwrap()],
            connections,
            processes,
            every: Duration::from_secs(30),
            time: Duration::from_secs(60),
            server: None,
        }
    }

    #[test]
    fn connections_are_shared_out_with_addresses_of_their_own() {
        let plans = member_plans(&plan(100_000, 6), 28_232).unwrap();
        let counts: Vec<_> = plans.iter().map(|plan| plan.connections).collect();
        assert_eq!(counts, [16_667, 16_667, 16_667, 16_667, 16_666, 16_666]);
        let sources: Vec<_> = plans.iter().flat_map(|plan| plan.sources.clone()).collect();
        assert_eq!(sources.first(), Some(&IpAddr::from([127, 0, 0, 2])));
        assert_eq!(sources.last(), Some(&IpAddr::from([127, 0, 0, 7])));
        assert_eq!(sources.len(), 6);
    }

    #[test]
    fn few_ports_need_more_addresses() {
        let plans = member_plans(&plan(30_000, 2), 10_000).unwrap();
        assert_eq!(plans[0].sources, [IpAddr::from([127, 0, 0, 2]), IpAddr::from([127, 0, 0, 3])]);
        assert_eq!(plans[1].sources, [IpAddr::from([127, 0, 0, 4]), IpAddr::from([127, 0, 0, 5])]);
    }

    #[test]
    fn what_cannot_be_held_is_refused() {
        let refused = |plan: &HoldPlan| member_plans(plan, 28_232).unwrap_err().to_string();
        assert_eq!(
            refused(&plan(100_000, 5)),
            "100000 connections over 5 processes: each can have 1 to 19900"
        );
        assert_eq!(refused(&plan(5, 0)), "there are 1 to 200 processes, not 0");
        assert!(refused(&plan(1, 2)).starts_with("1 connections over 2"));
        assert!(refused(&HoldPlan { every: Duration::ZERO, ..plan(10, 1) }).starts_with("each connection"));
        assert!(refused(&HoldPlan { targets: vec![], ..plan(10, 1) }).starts_with("there is no address"));
    }

    #[test]
    fn elsewhere_the_kernel_chooses_the_source() {
        let targets = vec!["192.0.2.1:9".parse().unwrap()];
        let plans = member_plans(&HoldPlan { targets, ..plan(10, 1) }, 28_232).unwrap();
        assert!(plans[0].sources.is_empty());
    }
}
