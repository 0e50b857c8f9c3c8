//! What the kernel knows of a process: its processor time, the connections it holds, and whatever else it keeps.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::support::pid;

/// The processor time of all threads of a process that live, to the nanosecond (schedstat, unlike the ticks of
/// proc_pid_stat(5)).
pub(crate) fn cpu_time(number: u64) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{number}/task")).unwrap();
    let of_task = |path: std::path::PathBuf| -> u64 {
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(path.join("schedstat")) else { return 0 };
        text.split(' ').next().unwrap().parse().unwrap()
    };
    Duration::from_nanos(tasks.map(|task| of_task(task.unwrap().path())).sum())
}

/// The ports of the peers of all TCP connections that a process has accepted, exact when it is stopped.
pub(crate) fn peer_ports(number: u64) -> HashSet<u16> {
    let pidfd = pidfd_open(pid(i32::try_from(number).unwrap()), PidfdFlags::empty()).unwrap();
    let mut ports = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{number}/fd")).unwrap() {
        let entry = entry.unwrap();
        let is_socket =
            fs::read_link(entry.path()).is_ok_and(|link| link.to_string_lossy().starts_with("socket:"));
        if !is_socket {
            continue;
        }
        let fd = entry.file_name().to_str().unwrap().parse().unwrap();
        // A copy for a moment, long gone when the process is killed; a connection ends with its last descriptor.
        let Ok(copy) = pidfd_getfd(&pidfd, fd, PidfdGetfdFlags::empty()) else { continue };
        let peer = rustix::net::getpeername(&copy).ok().flatten();
        ports.extend(peer.and_then(|peer| SocketAddr::try_from(peer).ok()).map(|peer| peer.port()));
    }
    ports
}

/// What a process keeps, to be compared with what it keeps later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// How many descriptors there are of each kind: a path, or `socket`, `memfd:tidegate-metrics`, `pidfd`...
    pub(crate) descriptors: BTreeMap<String, usize>,
    /// Memory that is shared by a descriptor.
    pub(crate) mappings: usize,
}

impl Kept {
    pub(crate) fn of(number: u64) -> Self {
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{number}/fd")).unwrap() {
            // It may be closed meanwhile.
            let Ok(link) = fs::read_link(entry.unwrap().path()) else { continue };
            let link = link.to_string_lossy().into_owned();
            let kind = link.split(":[").next().unwrap_or(&link);
            *descriptors.entry(kind.to_owned()).or_insert(0) += 1;
        }
        let maps = fs::read_to_string(format!("/proc/{number}/maps")).unwrap();
        Self { descriptors, mappings: maps.lines().filter(|line| line.contains("memfd:")).count() }
    }

    /// How many descriptors there are.
    pub(crate) fn count(&self) -> usize {
        self.descriptors.values().sum()
    }
}

/// The memory of a process that is its own, in KiB (`RssAnon` of proc_pid_status(5)).
pub(crate) fn memory_kib(number: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
