//! What limits the server, said once at its start: a record for each limit, with what to do about one that is too low.
//!
//! The one invariant: it only tells. A limit that is too low, or that cannot be read, is no error of the start: the server
//! serves what it can.

mod facts;

use crate::config::{ByteSize, Config, Count, Dispatch};
use facts::{Facts, Known, Share};

/// Logs what limits a server of so many workers. Call it when the limit of open files has been raised.
pub(crate) fn report(config: &Config, workers: u32) {
    for finding in findings(&Facts::read(), &Needs::of(config, workers)) {
        let Finding { limit, has, needs, verdict } = finding;
        match verdict {
            Verdict::Enough => tracing::info!(limit, has, needs, "limit"),
            Verdict::Low(advice) => {
                tracing::warn!(limit, has, needs, advice, "limit is too low for the configuration")
            }
            Verdict::Unknown(why) => tracing::info!(limit, needs, why, "limit is not known"),
        }
    }
}

/// What the server may come to need.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Needs {
    workers: u64,
    /// Open files of a worker.
    files: u64,
    /// Processes and threads of all, and once more for the generation that follows at a reload.
    threads: u64,
    /// The longest backlog of a listener, and the listener.
    backlog: (u64, String),
    /// Bytes that the connections of all workers may hold.
    memory: u64,
}

impl Needs {
    fn of(config: &Config, workers: u32) -> Self {
        let engine = &config.engine;
        // Without workers everything is in one process, which needs what a worker does.
        let workers = u64::from(workers.max(1));
        let loops = u64::from(engine.loops);
        let listeners = config.listen.len() as u64;
        let pool = match engine.dispatch {
            Dispatch::Inline => 0,
            Dispatch::Pool | Dispatch::Reactor | Dispatch::LeaderFollower => {
                pool_threads(engine.pool_threads)
            }
        };
        let threads_of_worker = THREADS_OF_PROCESS + loops + 1 + pool + config.accounts.threads as u64;
        let backlog = config.listen.iter().max_by_key(|listener| listener.backlog);
        Self {
            workers,
            files: engine.max_connections as u64
                + listeners * loops
                + FILES_OF_LOOP * loops
                + FILES_OF_PROCESS,
            threads: 2 * workers * threads_of_worker + 3 * THREADS_OF_PROCESS,
            backlog: backlog.map_or_else(Default::default, |listener| {
                (listener.backlog.into(), listener.name.to_string())
            }),
            memory: workers.saturating_mul(engine.max_buffer_bytes.get()),
        }
    }
}

fn pool_threads(count: Count) -> u64 {
    count.resolve(u32::MAX).into()
}

/// A limit, what it is held against, and how that turns out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    limit: &'static str,
    has: String,
    needs: String,
    verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Enough,
    /// With what to do about it.
    Low(String),
    /// With the reason.
    Unknown(String),
}

impl Finding {
    /// Holds what is left of a limit, `None` for no limit, against what is needed.
    fn new(
        limit: &'static str,
        has: Known<Option<(u64, String)>>,
        needs: (u64, String),
        advice: String,
    ) -> Self {
        let (has, verdict) = match has {
            Err(why) => (String::new(), Verdict::Unknown(why)),
            Ok(None) => ("unlimited".to_owned(), Verdict::Enough),
            Ok(Some((left, has))) if left >= needs.0 => (has, Verdict::Enough),
            Ok(Some((_, has))) => (has, Verdict::Low(advice)),
        };
        Self { limit, has, needs: needs.1, verdict }
    }
}

fn findings(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    [files(facts, needs), processes(facts, needs), vec![backlog(facts, needs)], memory(facts, needs)].concat()
}

fn files(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    let Needs { files, workers, .. } = *needs;
    let in_each = || (files, format!("{files} in each worker, for engine.max_connections"));
    let total = files.saturating_mul(workers);
    let advice = match (facts.open_files, facts.open_files_hard) {
        (Some(soft), hard) if hard.is_none_or(|hard| soft < hard) => "raise process.max_open_files",
        _ => "raise the hard limit: `ulimit -Hn` in the shell that starts it, LimitNOFILE= in its unit",
    };
    let hard = facts.open_files_hard.map_or_else(|| "unlimited".to_owned(), |hard| hard.to_string());
    vec![
        Finding::new(
            "open files of a process",
            Ok(facts.open_files.map(|soft| (soft, format!("{soft}, hard limit {hard}")))),
            in_each(),
            format!("{advice}; or lower engine.max_connections"),
        ),
        Finding::new(
            "fs.nr_open",
            facts.most_open_files.clone().map(|most| Some((most, most.to_string()))),
            in_each(),
            format!(
                "raise it: `sysctl fs.nr_open={}`; or lower engine.max_connections",
                files.next_power_of_two()
            ),
        ),
        Finding::new(
            "fs.file-max",
            facts.system_files.clone().map(|share| Some(in_use(share))),
            (total, format!("{total} in {workers} workers")),
            format!("raise it: `sysctl fs.file-max={}`", total.saturating_mul(2)),
        ),
    ]
}

fn processes(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    let threads = || (needs.threads, format!("{} threads, during a reload", needs.threads));
    vec![
        Finding::new(
            "processes of the user",
            Ok(facts.user_processes.map(|limit| (limit, format!("{limit}, for all programs of the user")))),
            threads(),
            "raise it: `ulimit -u` in the shell that starts it, LimitNPROC= in its unit".to_owned(),
        ),
        Finding::new(
            "processes of the control group",
            facts.group_processes.clone().map(|share| share.map(in_use)),
            threads(),
            "raise pids.max: TasksMax= in its unit, --pids-limit of its container".to_owned(),
        ),
    ]
}

fn backlog(facts: &Facts, needs: &Needs) -> Finding {
    let (backlog, listener) = &needs.backlog;
    Finding::new(
        "net.core.somaxconn",
        facts.backlog.clone().map(|most| Some((most, most.to_string()))),
        (*backlog, format!("{backlog} as the backlog of listener \"{listener}\"")),
        format!(
            "the kernel cuts the backlog to it: raise it (`sysctl net.core.somaxconn={backlog}`), or lower listen.{listener}.backlog"
        ),
    )
}

fn memory(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    let buffers = || {
        let bytes = mib(needs.memory);
        (needs.memory, format!("{bytes} in {} workers, for engine.max_buffer_bytes", needs.workers))
    };
    let lower = "lower engine.max_buffer_bytes or process.workers";
    let of_group = |share: Share| (share.left(), format!("{}, {} in use", mib(share.limit), mib(share.used)));
    vec![
        Finding::new(
            "memory of the control group",
            facts.group_memory.clone().map(|share| share.map(of_group)),
            buffers(),
            format!("{lower}; or raise memory.max: MemoryMax= in its unit, --memory of its container"),
        ),
        Finding::new(
            "memory",
            facts.memory.clone().map(|bytes| Some((bytes, format!("{} available", mib(bytes))))),
            buffers(),
            lower.to_owned(),
        ),
    ]
}

fn in_use(share: Share) -> (u64, String) {
    (share.left(), format!("{}, {} in use", share.limit, share.used))
}

/// Rounded down to whole mebibytes.
fn mib(bytes: u64) -> String {
    ByteSize::new(bytes >> 20 << 20).to_string()
}

/// Standard streams, the log, the control channel, epoll and eventfds of the main thread, what a library opens, and some more.
const FILES_OF_PROCESS: u64 = 64;
/// Its poller, its wakers and the reserve descriptor.
const FILES_OF_LOOP: u64 = 8;
/// The main thread and the one that sends the log.
const THREADS_OF_PROCESS: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            open_files: Some(20_000),
            open_files_hard: Some(20_000),
            system_files: Ok(Share { limit: 1_000_000, used: 1_000 }),
            most_open_files: Ok(1 << 20),
            user_processes: None,
            group_processes: Ok(Some(Share { limit: 500, used: 20 })),
            backlog: Ok(4096),
            group_memory: Ok(None),
            memory: Ok(8 << 30),
        }
    }

    fn needs() -> Needs {
        Needs { workers: 4, files: 10_075, threads: 46, backlog: (4096, "web".to_owned()), memory: 1 << 30 }
    }

    /// The verdict on one limit.
    #[track_caller]
    fn verdict(facts: &Facts, limit: &str) -> (String, Verdict) {
        let found = findings(facts, &needs()).into_iter().find(|finding| finding.limit == limit).unwrap();
        (found.has, found.verdict)
    }

    #[track_caller]
    fn check_low(facts: &Facts, limit: &str, has: &str, advice: &str) {
        match verdict(facts, limit) {
            (found, Verdict::Low(text)) => {
                assert!(found == has && text.contains(advice), "{limit}: {found}; {text}");
            }
            other => panic!("{limit}: {other:?}"),
        }
        let low = findings(facts, &needs()).iter().filter(|it| matches!(it.verdict, Verdict::Low(_))).count();
        assert_eq!(low, 1, "{limit}: nothing else is low");
    }

    #[test]
    fn a_machine_with_room_has_enough_of_everything() {
        let found = findings(&facts(), &needs());
        assert_eq!(found.len(), 8);
        assert!(found.iter().all(|finding| finding.verdict == Verdict::Enough), "{found:?}");
        assert_eq!(found[0].has, "20000, hard limit 20000");
        assert_eq!(found[0].needs, "10075 in each worker, for engine.max_connections");
        assert_eq!(verdict(&facts(), "processes of the user").0, "unlimited");
    }

    #[test]
    fn each_limit_that_is_too_low_says_what_to_do() {
        let soft = Facts { open_files: Some(1024), ..facts() };
        check_low(&soft, "open files of a process", "1024, hard limit 20000", "process.max_open_files");
        let hard = Facts { open_files: Some(1024), open_files_hard: Some(1024), ..facts() };
        check_low(&hard, "open files of a process", "1024, hard limit 1024", "ulimit -Hn");
        let nr_open = Facts { most_open_files: Ok(10_000), ..facts() };
        check_low(&nr_open, "fs.nr_open", "10000", "sysctl fs.nr_open=16384");
        let file_max = Facts { system_files: Ok(Share { limit: 41_000, used: 1_000 }), ..facts() };
        check_low(&file_max, "fs.file-max", "41000, 1000 in use", "sysctl fs.file-max=80600");
        let user = Facts { user_processes: Some(45), ..facts() };
        check_low(&user, "processes of the user", "45, for all programs of the user", "LimitNPROC=");
        let group = Facts { group_processes: Ok(Some(Share { limit: 60, used: 20 })), ..facts() };
        check_low(&group, "processes of the control group", "60, 20 in use", "TasksMax=");
        let backlog = Facts { backlog: Ok(128), ..facts() };
        check_low(&backlog, "net.core.somaxconn", "128", "listen.web.backlog");
        let group = Facts { group_memory: Ok(Some(Share { limit: 1 << 30, used: 1 << 20 })), ..facts() };
        check_low(&group, "memory of the control group", "1GiB, 1MiB in use", "MemoryMax=");
        let memory = Facts { memory: Ok(1 << 29), ..facts() };
        check_low(&memory, "memory", "512MiB available", "engine.max_buffer_bytes");
    }

    #[test]
    fn what_cannot_be_read_is_said_to_be_unknown() {
        let why = "/proc/sys/fs/nr_open: permission denied".to_owned();
        let facts = Facts { most_open_files: Err(why.clone()), ..facts() };
        assert_eq!(verdict(&facts, "fs.nr_open"), (String::new(), Verdict::Unknown(why)));
    }

    #[test]
    fn needs_follow_the_configuration() {
        let mut config = Config::default();
        config.engine.max_connections = 1000;
        config.engine.loops = 2;
        config.engine.max_buffer_bytes = ByteSize::new(1 << 20);
        config.listen[1].backlog = 9999;
        let listeners = config.listen.len() as u64;
        let needs = Needs::of(&config, 3);
        assert_eq!(needs.files, 1000 + 2 * listeners + 16 + 64);
        assert_eq!(needs.backlog, (9999, config.listen[1].name.to_string()));
        assert_eq!((needs.workers, needs.memory), (3, 3 << 20));
        config.engine.dispatch = Dispatch::Pool;
        config.engine.pool_threads = Count::Exactly(5);
        assert_eq!(Needs::of(&config, 3).threads, needs.threads + 2 * 3 * 5);
        assert_eq!(Needs::of(&config, 0).workers, 1, "one process does it all");
    }
}
