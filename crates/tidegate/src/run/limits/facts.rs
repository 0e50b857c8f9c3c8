//! `Facts`: the limits of the system as they are now, read from the kernel.
//!
//! The one invariant: what cannot be read is a fact too, with its reason; nothing here fails. What is enough is not decided
//! here.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// A value, or why it is not known.
pub(super) type Known<T> = Result<T, String>;

/// What limits a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// `RLIMIT_NOFILE` of this process and of those it starts (getrlimit(2)); `None`: no limit.
    pub(super) open_files: Option<u64>,
    /// What that can be raised to.
    pub(super) open_files_hard: Option<u64>,
    /// Files that may be open in the whole system, and those that are (`fs.file-max`, `fs.file-nr`, proc(5)).
    pub(super) system_files: Known<Share>,
    /// What no limit of open files can be above (`fs.nr_open`).
    pub(super) most_open_files: Known<u64>,
    /// `RLIMIT_NPROC`: processes and threads of the user, all programs together; `None`: no limit.
    pub(super) user_processes: Option<u64>,
    /// Processes and threads of the control group (`pids.max`, `pids.current`); `None`: no limit.
    pub(super) group_processes: Known<Option<Share>>,
    /// What a backlog is cut to (`net.core.somaxconn`, listen(2)).
    pub(super) backlog: Known<u64>,
    /// Bytes of memory of the control group (`memory.max`, `memory.current`); `None`: no limit.
    pub(super) group_memory: Known<Option<Share>>,
    /// Bytes of memory that can be had without swapping (`MemAvailable`, proc_meminfo(5)).
    pub(super) memory: Known<u64>,
}

/// A limit, and what is used of it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) limit: u64,
    pub(super) used: u64,
}

impl Share {
    pub(super) fn left(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

impl Facts {
    pub(super) fn read() -> Self {
        let files = getrlimit(Resource::Nofile);
        let groups = group();
        let of_group = |max, current| match &groups {
            Ok(groups) => share_of(groups, max, current),
            Err(why) => Err(why.clone()),
        };
        Self {
            open_files: files.current,
            open_files_hard: files.maximum,
            system_files: system_files(),
            most_open_files: number_in("/proc/sys/fs/nr_open"),
            user_processes: getrlimit(Resource::Nproc).current,
            group_processes: of_group("pids.max", "pids.current"),
            backlog: number_in("/proc/sys/net/core/somaxconn"),
            group_memory: of_group("memory.max", "memory.current"),
            memory: text_of("/proc/meminfo")
                .and_then(|text| available(&text).ok_or_else(|| unknown_form("/proc/meminfo"))),
        }
    }
}

fn system_files() -> Known<Share> {
    let limit = number_in("/proc/sys/fs/file-max")?;
    // Allocated, free, and the limit again.
    let used = number_in("/proc/sys/fs/file-nr")?;
    Ok(Share { limit, used })
}

/// The folders of the control group of this process and of those around it, the innermost first (cgroups(7), version 2).
fn group() -> Known<Vec<String>> {
    let text = text_of("/proc/self/cgroup")?;
    let Some(path) = group_path(&text) else { return Ok(Vec::new()) };
    let ancestors = Path::new(path).ancestors().take(MAX_DEPTH);
    Ok(ancestors.map(|path| format!("/sys/fs/cgroup{}", path.display())).collect())
}

/// `0::/system.slice/tidegate.service`, which may stand among lines of version 1.
fn group_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The limit of the group, or of the group around it, that has the least left.
fn share_of(groups: &[String], max: &str, current: &str) -> Known<Option<Share>> {
    let mut least: Option<Share> = None;
    for group in groups {
        let limit = match fs::read_to_string(format!("{group}/{max}")) {
            Ok(text) => number_or_max(&text).ok_or_else(|| unknown_form(max))?,
            // The root has no limits, nor has a group whose controller is off.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{group}/{max}: {error}")),
        };
        let Some(limit) = limit else { continue };
        let share = Share { limit, used: number_in(&format!("{group}/{current}"))? };
        if least.is_none_or(|least| share.left() < least.left()) {
            least = Some(share);
        }
    }
    Ok(least)
}

/// `Some(None)` for `max`, which is no limit; `None` for what is neither.
fn number_or_max(text: &str) -> Option<Option<u64>> {
    match text.trim() {
        "max" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// The line `MemAvailable:   24128168 kB`, in bytes.
fn available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// The first number of a file that is nothing but numbers.
fn number_in(path: &str) -> Known<u64> {
    first_number(&text_of(path)?).ok_or_else(|| unknown_form(path))
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn text_of(path: &str) -> Known<String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn unknown_form(path: &str) -> String {
    format!("{path} is not understood")
}

/// Groups are not nested deeper by anybody in their right mind.
const MAX_DEPTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_nothing_else() {
        assert_eq!(first_number("548\t0\t2466170\n"), Some(548));
        assert_eq!(first_number("9223372036854775807\n"), Some(i64::MAX as u64));
        assert_eq!((first_number(""), first_number("-1"), first_number("x 1")), (None, None, None));
        assert_eq!(number_or_max("max\n"), Some(None));
        assert_eq!(number_or_max("1073741824\n"), Some(Some(1 << 30)));
        assert_eq!(number_or_max("maximum"), None);
    }

    #[test]
    fn available_memory_is_found_among_the_others() {
        let text = "MemTotal:       24684084 kB\nMemFree:        22554708 kB\nMemAvailable:   24128168 kB\n";
        assert_eq!(available(text), Some(24_128_168 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: 99999999999999999999 kB\n"), None);
        assert_eq!(available("MemAvailable: 18446744073709551615 kB\n"), None);
        assert_eq!(available("MemAvailable: 5\n"), None);
    }

    #[test]
    fn the_group_of_version_2_is_found_among_those_of_version_1() {
        assert_eq!(
            group_path("4:memory:/a\n0::/system.slice/tidegate.service\n"),
            Some("/system.slice/tidegate.service")
        );
        assert_eq!(group_path("0::/\n"), Some("/"));
        assert_eq!(group_path("4:memory:/a\n"), None);
        assert_eq!(group_path(""), None);
    }

    #[test]
    fn of_nested_groups_the_tightest_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for (group, max, current) in [("inner", "max", "5"), ("outer", "100", "90"), ("outmost", "50", "10")]
        {
            fs::create_dir(path(group)).unwrap();
            fs::write(format!("{}/pids.max", path(group)), max).unwrap();
            fs::write(format!("{}/pids.current", path(group)), current).unwrap();
        }
        let groups = ["inner", "outer", "outmost", "missing"].map(path);
        let share = |groups: &[String]| share_of(groups, "pids.max", "pids.current").unwrap();
        assert_eq!(share(&groups), Some(Share { limit: 100, used: 90 }));
        assert_eq!(share(&groups[..1]), None);
        assert_eq!(share(&[]), None);
        fs::write(format!("{}/pids.max", path("inner")), "many").unwrap();
        assert!(share_of(&groups, "pids.max", "pids.current").unwrap_err().contains("not understood"));
    }

    #[test]
    fn the_facts_of_this_machine_can_be_had() {
        let facts = Facts::read();
        assert!(
            facts.most_open_files.unwrap() > 0 && facts.backlog.unwrap() > 0 && facts.memory.unwrap() > 0
        );
        assert!(facts.open_files.is_none_or(|soft| facts.open_files_hard.is_none_or(|hard| soft <= hard)));
    }
}
