//! `Threads`: what the threads of a worker are given before they do anything, as `[engine]` says.
//!
//! Invariant: a thread that runs has what it was to have. The kernel is asked afterwards, and what it did not do is the error
//! of the start. Threads that a thread starts later get its processors and its niceness from it (sched(7)).

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rustix::process::{Resource, getrlimit};
use rustix::thread::gettid;
use tidegate_engine::{HandlerPool, PoolConfig};
use tidegate_sys::thread;

use crate::Error;
use crate::config::{Config, CpuSet};
use crate::layout::Seat;

/// What to start threads with.
#[derive(Clone, Debug)]
pub(crate) struct Threads {
    stack: usize,
    cpus: Vec<CpuSet>,
    nice: i32,
    /// Loops of this worker.
    loops: usize,
    /// How many loops the workers before this one have: they are counted over all workers.
    before: usize,
}

/// A thread that has what it was to have.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) thread: JoinHandle<io::Result<()>>,
    pub(crate) about: About,
}

/// What the kernel and the C library say of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    /// Its number in /proc/PID/task.
    pub(crate) tid: u64,
    /// Bytes of its stack.
    pub(crate) stack: u64,
}

/// A thread could not be given what the configuration says.
#[derive(Debug, thiserror::Error)]
enum Unmet {
    #[error("engine.cpu_affinity: a thread cannot be bound to the processors {wanted}; {}", match .got {
        Some(got) => format!("of these, this process may use {got} only (cpuset(7))"),
        None => "this process may use none of them (cpuset(7))".to_owned(),
    })]
    Affinity { wanted: CpuSet, got: Option<CpuSet> },
    #[error(
        "engine.nice = {nice}: permission denied; it needs the capability CAP_SYS_NICE, or {needed} as the limit \
         RLIMIT_NICE (ulimit -e), which is {limit}"
    )]
    Nice { nice: i32, needed: i32, limit: u64 },
    #[error("{what}")]
    System { what: &'static str, source: io::Error },
}

impl Threads {
    /// Of worker `worker`, which has `loops` loops.
    pub(crate) fn of_worker(config: &Config, worker: usize, loops: usize) -> Self {
        let engine = &config.engine;
        Self {
            stack: engine.thread_stack.as_usize(),
            cpus: engine.cpu_affinity.clone(),
            nice: engine.nice,
            loops,
            before: worker.saturating_mul(loops),
        }
    }

    /// Of the log server, which goes where there is room and is as nice as the server.
    pub(crate) fn of_log_server(config: &Config) -> Self {
        let stack = config.engine.thread_stack.as_usize();
        Self { stack, cpus: Vec::new(), nice: 0, loops: 1, before: 0 }
    }

    /// Starts a thread, and waits until it has what it is to have. An acceptor may run wherever one of its loops may.
    ///
    /// # Errors
    ///
    /// When no thread can be started, or it cannot be bound or made as nice as it is to be; then `run` was not called.
    pub(crate) fn spawn(
        &self,
        seat: Seat,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Started, Error> {
        let builder = std::thread::Builder::new().name(seat.to_string()).stack_size(self.stack);
        let (sender, prepared) = mpsc::sync_channel(1);
        let cpus = match seat {
            Seat::Loop(index) => self.cpus_of(index).cloned(),
            Seat::Acceptor => self.cpus_of_all(),
        };
        let nice = self.nice;
        let body = move || {
            let outcome = enter(cpus.as_ref(), nice);
            let goes_on = outcome.is_ok();
            // Whoever starts a thread waits for this.
            let _ = sender.send(outcome);
            if goes_on { run() } else { Ok(()) }
        };
        let thread = builder.spawn(body).map_err(Error::system("starting a thread"))?;
        match prepared.recv() {
            Ok(Ok(about)) => Ok(Started { thread, about }),
            Ok(Err(unmet)) => Err(Error::Service(unmet.into())),
            Err(_) => Err(Error::Service("a thread ended before it began".into())),
        }
    }

    /// Starts the pool of handlers that the worker's loops share, and waits until its threads have what they are to have.
    /// They may run wherever one of the loops may.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub(crate) fn start_pool(&self, threads: usize) -> Result<HandlerPool, Error> {
        let (sender, prepared) = mpsc::sync_channel(threads);
        let (cpus, nice) = (self.cpus_of_all(), self.nice);
        let on_start = move |_| {
            // There is room for every thread, and whoever starts the pool waits for them all.
            let _ = sender.send(enter(cpus.as_ref(), nice));
        };
        let (stack_bytes, on_start) = (self.stack, Arc::new(on_start));
        let config = PoolConfig { threads, stack_bytes, on_start, ..PoolConfig::default() };
        let pool = HandlerPool::start(&config).map_err(Error::system("starting the threads of a pool"))?;
        for _ in 0..pool.threads() {
            match prepared.recv() {
                Ok(outcome) => outcome.map_err(|unmet| Error::Service(unmet.into()))?,
                Err(_) => return Err(Error::Service("a thread ended before it began".into())),
            };
        }
        Ok(pool)
    }

    /// How the threads are made that a loop starts for itself when it runs. Its own thread has been given the same before,
    /// so a refusal here is a rare one, and a record.
    pub(crate) fn pool_config(&self, threads: usize) -> PoolConfig {
        let (cpus, nice) = (self.cpus_of_all(), self.nice);
        let on_start = move |number| {
            if let Err(unmet) = enter(cpus.as_ref(), nice) {
                tracing::error!(number, %unmet, "a thread of the pool does not run as configured");
            }
        };
        PoolConfig { threads, stack_bytes: self.stack, on_start: Arc::new(on_start), ..PoolConfig::default() }
    }

    /// The processors of all the worker's loops; `None` when they are not bound.
    fn cpus_of_all(&self) -> Option<CpuSet> {
        let sets = (0..self.loops).filter_map(|index| self.cpus_of(index));
        CpuSet::new(sets.flat_map(|set| set.cpus().iter().copied()))
    }

    /// The sets are taken in turn, by loops that are counted over all workers.
    fn cpus_of(&self, index: usize) -> Option<&CpuSet> {
        let turn = self.before.wrapping_add(index).checked_rem(self.cpus.len())?;
        self.cpus.get(turn)
    }
}

/// Gives the calling thread its processors and its niceness.
fn enter(cpus: Option<&CpuSet>, nice: i32) -> Result<About, Unmet> {
    if let Some(cpus) = cpus {
        bind(cpus)?;
    }
    if nice != 0 {
        be_nice(nice)?;
    }
    let stack = thread::stack_size()
        .map_err(|source| Unmet::System { what: "asking for the size of a stack", source })?;
    let tid = gettid().as_raw_nonzero().get().unsigned_abs().into();
    Ok(About { tid, stack: u64::try_from(stack).unwrap_or(u64::MAX) })
}

fn bind(wanted: &CpuSet) -> Result<(), Unmet> {
    match thread::set_affinity(wanted.cpus().iter().copied()) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
            return Err(Unmet::Affinity { wanted: wanted.clone(), got: None });
        }
        other => other.map_err(|source| Unmet::System { what: "binding a thread to processors", source })?,
    }
    let got = thread::affinity()
        .map_err(|source| Unmet::System { what: "asking for the processors of a thread", source })?;
    if got == wanted.cpus() {
        return Ok(());
    }
    Err(Unmet::Affinity { wanted: wanted.clone(), got: CpuSet::new(got) })
}

fn be_nice(nice: i32) -> Result<(), Unmet> {
    match thread::set_nice(nice) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // getrlimit(2): the ceiling is 20 - nice; no limit is one above all.
            let limit = getrlimit(Resource::Nice).current.unwrap_or(40);
            Err(Unmet::Nice { nice, needed: 20 - nice, limit })
        }
        other => other.map_err(|source| Unmet::System { what: "setting the niceness of a thread", source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(cpus: &[&str], nice: i32, before: usize) -> Threads {
        let cpus = cpus.iter().map(|set| set.parse().unwrap()).collect();
        Threads { stack: 1 << 20, cpus, nice, loops: 2, before }
    }

    #[test]
    fn loops_take_the_sets_in_turn_over_all_workers() {
        let taken = |worker: usize| -> Vec<String> {
            let threads = threads(&["0", "1", "2"], 0, worker * 2);
            (0..2).map(|index| threads.cpus_of(index).unwrap().to_string()).collect()
        };
        assert_eq!([taken(0), taken(1), taken(2)].concat(), ["0", "1", "2", "0", "1", "2"]);
        assert_eq!(threads(&[], 0, 5).cpus_of(1), None);
        assert_eq!(threads(&["0", "1", "2"], 0, 2).cpus_of_all().unwrap().to_string(), "0,2");
        assert_eq!(threads(&[], 0, 2).cpus_of_all(), None);
    }

    #[test]
    fn a_pool_begins_when_its_threads_have_what_they_were_to_have() {
        let last = thread::affinity().unwrap().last().unwrap().to_string();
        let pool = threads(&[&last], 19, 0).start_pool(3).unwrap();
        assert_eq!(pool.threads(), 3);
        pool.stop();
        let error = threads(&["1023"], 0, 0).start_pool(2).unwrap_err();
        assert!(error.to_string().contains("cannot be bound to the processors 1023"), "{error}");
    }

    #[test]
    fn a_thread_runs_with_what_it_was_to_have() {
        let last = *thread::affinity().unwrap().last().unwrap();
        let (sender, seen) = mpsc::channel();
        let run = move || {
            sender.send((thread::affinity().unwrap(), thread::nice().unwrap())).unwrap();
            Ok(())
        };
        let started = threads(&[&last.to_string()], 19, 0).spawn(Seat::Loop(0), run).unwrap();
        assert_eq!(seen.recv().unwrap(), (vec![last], 19));
        assert!(started.about.stack >= 1 << 20, "{:?}", started.about);
        started.thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_thread_that_cannot_have_it_does_not_run() {
        let error = threads(&["1023"], 0, 0).spawn(Seat::Loop(0), || panic!("it ran")).unwrap_err();
        let text = "engine.cpu_affinity: a thread cannot be bound to the processors 1023; this process may use none of them (cpuset(7))";
        assert_eq!(error.to_string(), text);
        let first = thread::affinity().unwrap()[0];
        let sets = format!("{first},1023");
        let error = threads(&[&sets], 0, 0).spawn(Seat::Loop(0), || panic!("it ran")).unwrap_err();
        assert!(error.to_string().ends_with(&format!("may use {first} only (cpuset(7))")), "{error}");
    }
}
