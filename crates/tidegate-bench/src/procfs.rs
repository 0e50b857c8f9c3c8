//! What /proc tells of other processes and of the kernel (proc(5)).
//!
//! Invariant: a process that ends while it is looked at counts for nothing and is no error.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The processor time, user and system, of all threads that a process has now.
///
/// It is taken from `/proc/PID/task/TID/schedstat`, in nanoseconds, since the ticks of `/proc/PID/stat` are too coarse for a
/// server that sleeps most of a second. What threads used that have ended is not in it.
///
/// # Errors
///
/// There is no such process.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        total += parse_schedstat(&text).unwrap_or_default();
    }
    Ok(total)
}

/// What a thread has had of the processors, and what it would have liked to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadTime {
    /// It ran.
    pub(crate) on_cpu: Duration,
    /// It could have run, and others did.
    pub(crate) waiting: Duration,
}

/// What a thread of this process has had (`schedstat`, in nanoseconds).
///
/// # Errors
///
/// There is no such thread.
pub(crate) fn thread_time(tid: i32) -> io::Result<ThreadTime> {
    let text = fs::read_to_string(format!("/proc/self/task/{tid}/schedstat"))?;
    let mut numbers = text.split_whitespace().map(|number| number.parse().map(Duration::from_nanos));
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or_default();
    Ok(ThreadTime { on_cpu: next(), waiting: next() })
}

/// A process and all that descend from it, itself first.
///
/// # Errors
///
/// `/proc` cannot be read.
pub fn family(root: u32) -> io::Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if let Some(parent) = parse_parent(&stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while let Some(pid) = found.get(at) {
        // Taken out, so that a pid that was used anew in between cannot make a ring.
        found.extend(children.remove(pid).unwrap_or_default());
        at += 1;
    }
    Ok(found)
}

/// The memory of a process that is resident (`VmRSS`).
///
/// # Errors
///
/// There is no such process.
pub fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(parse_kib(&text, "VmRSS").unwrap_or(0))
}

/// The memory of a process: its share of what it has in common with others (`Pss`) where the kernel tells, or else all that is
/// resident.
///
/// # Errors
///
/// There is no such process.
pub(crate) fn memory_bytes(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    rollup.and_then(|text| parse_kib(&text, "Pss")).map_or_else(|| resident_bytes(pid), Ok)
}

/// How many descriptors a process has open.
///
/// # Errors
///
/// There is no such process, or it is somebody else's.
pub(crate) fn descriptors(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/fd");
    // Since Linux 6.2 the size of the folder is their number; before it was 0.
    match fs::metadata(&path)?.len() {
        0 => Ok(fs::read_dir(path)?.count() as u64),
        count => Ok(count),
    }
}

/// How many threads a process has.
///
/// # Errors
///
/// There is no such process.
pub(crate) fn threads(pid: u32) -> io::Result<u64> {
    Ok(fs::read_dir(format!("/proc/{pid}/task"))?.count() as u64)
}

/// How often the threads of a process have gone to sleep of their own accord, and so were woken.
///
/// # Errors
///
/// There is no such process.
pub(crate) fn sleeps(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(task?.path().join("status")) else { continue };
        sum += parse_number(&text, "voluntary_ctxt_switches").unwrap_or(0);
    }
    Ok(sum)
}

/// The parent of a process, if there is such a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    parse_parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The kinds of poller that a process has open, as `[eventpoll]` and `[io_uring]`.
///
/// # Errors
///
/// There is no such process, or it is somebody else's.
pub fn pollers(pid: u32) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let Ok(link) = fs::read_link(entry?.path()) else { continue };
        if let Some(kind) = link.to_str().and_then(|link| link.strip_prefix("anon_inode:")) {
            found.push(kind.to_owned());
        }
    }
    Ok(found)
}

/// The kernel's memory at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelMemory {
    /// What is left for programs, in bytes (`MemAvailable`).
    pub available: u64,
    /// The kernel's own objects, sockets among them, in bytes (`Slab`).
    pub slab: u64,
    /// TCP sockets in use, both ends counted when both are here (`/proc/net/sockstat`).
    pub tcp_sockets: u64,
}

impl KernelMemory {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// `/proc` cannot be read.
    pub fn now() -> io::Result<Self> {
        let memory = fs::read_to_string("/proc/meminfo")?;
        let sockets = fs::read_to_string("/proc/net/sockstat")?;
        Ok(Self {
            available: parse_kib(&memory, "MemAvailable").unwrap_or(0),
            slab: parse_kib(&memory, "Slab").unwrap_or(0),
            tcp_sockets: parse_tcp_in_use(&sockets).unwrap_or(0),
        })
    }
}

/// The ports that a source address has for connections (`net.ipv4.ip_local_port_range`, ip(7)).
pub(crate) fn local_ports() -> io::Result<RangeInclusive<u16>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    parse_port_range(&text).ok_or_else(|| io::Error::other(format!("the range of local ports is {text:?}")))
}

/// The kernel's release, as `6.18.0`.
pub(crate) fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".into(), |s| s.trim().into())
}

/// `ON_CPU_NS WAITED_NS SLICES`
fn parse_schedstat(text: &str) -> Option<Duration> {
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// `PID (NAME) STATE PARENT …`; the name may hold anything, also blanks and parentheses.
fn parse_parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// `KEY:   NUMBER`
fn parse_number(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `KEY:   NUMBER kB`, in bytes.
fn parse_kib(text: &str, key: &str) -> Option<u64> {
    parse_number(text, key)?.checked_mul(1024)
}

/// `TCP: inuse NUMBER …`
fn parse_tcp_in_use(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP: inuse "))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `FIRST LAST`
fn parse_port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    let (first, last) = (first.parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_confuse_the_parser() {
        assert_eq!(parse_parent("17 (a) b) (c) S 4 17 17 0"), Some(4));
        assert_eq!(parse_parent("17 (a) S"), None);
        assert_eq!(parse_parent(""), None);
    }

    #[test]
    fn figures_are_found() {
        assert_eq!(parse_schedstat("383642 0 3\n"), Some(Duration::from_nanos(383_642)));
        assert_eq!(parse_kib("VmSize: 1 kB\nVmRSS:\t    12 kB\n", "VmRSS"), Some(12 << 10));
        assert_eq!(parse_kib("VmRSSx: 1 kB\n", "VmRSS"), None);
        assert_eq!(parse_tcp_in_use("UDP: inuse 1\nTCP: inuse 23 orphan 0\n"), Some(23));
        assert_eq!(parse_port_range("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse_port_range("9 8"), None);
    }

    #[test]
    fn this_process_is_there() {
        let pid = std::process::id();
        assert!(cpu_time(pid).unwrap() > Duration::ZERO);
        assert!(resident_bytes(pid).unwrap() > 1 << 16);
        assert!(memory_bytes(pid).unwrap() > 1 << 16);
        assert!(descriptors(pid).unwrap() >= 3 && threads(pid).unwrap() >= 1 && sleeps(pid).is_ok());
        assert_eq!(parent(pid), Some(std::os::unix::process::parent_id()));
        assert_eq!(family(pid).unwrap()[0], pid);
        assert!(KernelMemory::now().unwrap().available > 0);
        assert!(!local_ports().unwrap().is_empty());
    }
}
