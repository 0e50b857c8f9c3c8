//! Processes as the kernel shows them.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use crate::support::{BOUND, pid, wait_until};

/// A process at one moment.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// The letter of proc_pid_stat(5).
    pub(crate) state: char,
    /// `argv[0]`.
    pub(crate) title: String,
    /// The short name.
    pub(crate) name: String,
}

/// The processes of a group, zombies included, but for its leader when that has ended.
pub(crate) fn of_group(group: i32) -> Vec<Process> {
    let numbers =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter_map(|number| of(number, group)).filter(|p| p.pid != group || p.state != 'Z').collect()
}

fn of(number: i32, wanted_group: i32) -> Option<Process> {
    // A process may end at any moment between these reads.
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let cmdline = fs::read_to_string(format!("/proc/{number}/cmdline")).ok()?;
    let (head, tail) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = tail.split(' ').collect();
    let group: i32 = fields.get(2)?.parse().ok()?;
    (group == wanted_group).then(|| Process {
        pid: number,
        parent: fields[1].parse().unwrap(),
        state: fields[0].chars().next().unwrap(),
        title: cmdline.split('\0').next().unwrap_or_default().to_owned(),
        name: head.split_once('(').unwrap().1.to_owned(),
    })
}

/// Stops a process, and waits until none of its threads runs any more: a thread that was woken by the signal and has not
/// been scheduled yet still takes its share of connections.
pub(crate) fn stop(process: &tidegate::ProcessStatus) -> Watched {
    let watched = Watched::of(process);
    watched.signal(Signal::STOP);
    wait_until("all threads are stopped", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", process.pid)).unwrap();
        let mut stats = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
        stats.all(|stat| stat.rsplit_once(") ").unwrap().1.starts_with('T'))
    });
    watched
}

/// A process by its pidfd, which may end and whose number may be used again meanwhile.
#[derive(Debug)]
pub(crate) struct Watched {
    pidfd: OwnedFd,
}

/// How a process ended: its exit code, or the number of its signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl Watched {
    pub(crate) fn open(number: i32) -> Self {
        Self { pidfd: pidfd_open(pid(number), PidfdFlags::empty()).unwrap() }
    }

    pub(crate) fn of(status: &tidegate::ProcessStatus) -> Self {
        Self::open(i32::try_from(status.pid).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).unwrap();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.poll(Timespec { tv_sec: 0, tv_nsec: 0 })
    }

    /// Waits until it has ended.
    pub(crate) fn wait_end(&self) {
        assert!(self.poll(BOUND.try_into().unwrap()), "a process has not ended within {BOUND:?}");
    }

    /// Waits until our own child has ended, and leaves it to be reaped.
    pub(crate) fn wait_exit(&self) -> Exit {
        self.wait_end();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), options).unwrap().unwrap();
        match status.exit_status() {
            Some(code) => Exit::Code(code),
            None => Exit::Signal(status.terminating_signal().unwrap()),
        }
    }

    fn poll(&self, timeout: Timespec) -> bool {
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)).unwrap() > 0
    }
}
