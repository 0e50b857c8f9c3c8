//! `WorkerLoops`: the event loops of a process and their acceptor, each on a thread of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use std::os::fd::OwnedFd;

use tidegate_engine::{
    Acceptor, AcceptorHandle, Epoll, HandlerPool, LoopHandle, ProcessMetrics, ProcessWord, Socket,
};
use tidegate_sys::fd_channel::FdChannel;

use super::build::{Built, Handles, IntakeHandle};
use super::threads::{Started, Threads};
use crate::Error;
use crate::layout::Seat;

/// Running event loops, their acceptor when they have one, and the pool that handles their messages.
#[derive(Debug)]
pub(crate) struct WorkerLoops {
    /// In the order of the seats: the loops, then the acceptor.
    runners: Vec<Runner>,
    handles: Handles,
    /// Stopped when the loops have ended, since each waits for its messages.
    pool: Option<HandlerPool>,
}

/// What a socket of a neighbour is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covered {
    pub(crate) listener: usize,
    /// Of the neighbour; the loop with its number takes it.
    pub(crate) slot: usize,
    pub(crate) shared: bool,
    pub(crate) nodelay: bool,
}

/// A loop or an acceptor on its thread.
#[derive(Debug)]
struct Runner {
    seat: Seat,
    thread: Started,
    ended: Arc<AtomicBool>,
}

impl WorkerLoops {
    /// Starts a thread for each loop, and then one for the acceptor; `at_end` is called on each when it has ended.
    pub(crate) fn start(built: Built, at_end: impl Fn() + Clone + Send + 'static) -> Result<Self, Error> {
        let Built { loops, intake, handles, pool, threads } = built;
        let mut runners = Vec::with_capacity(loops.len() + 1);
        let started = || -> Result<(), Error> {
            for (index, mut event_loop) in loops.into_iter().enumerate() {
                let run = move || event_loop.run();
                runners.push(Runner::start(Seat::Loop(index), &threads, run, at_end.clone())?);
            }
            if let Some(mut intake) = intake {
                runners.push(Runner::start(Seat::Acceptor, &threads, move || intake.run(), at_end)?);
            }
            Ok(())
        };
        let outcome = started();
        let this = Self { runners, handles, pool };
        if outcome.is_err() {
            this.stop();
        }
        outcome.map(|()| this)
    }

    /// Enters each thread into its place.
    pub(crate) fn publish(&self, places: &[ProcessMetrics]) {
        for (runner, place) in self.runners.iter().zip(places) {
            place.set(ProcessWord::Tid, runner.thread.about.tid);
            place.set(ProcessWord::ThreadStack, runner.thread.about.stack);
        }
    }

    /// Starts the thread of an acceptor that hands over to other processes.
    pub(crate) fn start_acceptor(
        built: (Acceptor<Epoll>, AcceptorHandle),
        threads: Threads,
        at_end: impl Fn() + Clone + Send + 'static,
    ) -> Result<Self, Error> {
        Self::start(Built::of_acceptor(built, threads), at_end)
    }

    /// Each loop.
    pub(crate) fn loop_handles(&self) -> &[LoopHandle] {
        &self.handles.loops
    }

    /// Stops accepting, and ends when the connections have; [`Duration::MAX`]: however long that takes.
    pub(crate) fn quit(&self, grace: Duration) {
        match &self.handles.intake {
            None => self.handles.loops.iter().for_each(|handle| handle.quit(grace)),
            Some(IntakeHandle::Acceptor(handle)) => handle.quit(grace),
            Some(IntakeHandle::Receiver(handle)) => handle.quit(grace),
        }
    }

    /// As [`quit`](Self::quit), for a worker whose acceptor ends at the same time and may still hand over.
    pub(crate) fn quit_behind_acceptor(&self, grace: Duration) {
        match &self.handles.intake {
            Some(IntakeHandle::Receiver(handle)) => handle.quit_behind_acceptor(grace),
            _ => self.quit(grace),
        }
    }

    pub(crate) fn stop(&self) {
        match &self.handles.intake {
            None => self.handles.loops.iter().for_each(LoopHandle::stop),
            Some(IntakeHandle::Acceptor(handle)) => handle.stop(),
            Some(IntakeHandle::Receiver(handle)) => handle.stop(),
        }
    }

    /// Accepts from a socket of an absent neighbour, too.
    pub(crate) fn adopt(&self, key: u32, covered: Covered, fd: OwnedFd) {
        let Covered { listener, slot, shared, nodelay } = covered;
        let socket = if shared { Socket::shared(fd) } else { Socket::own(fd) }.nodelay(nodelay);
        match &self.handles.intake {
            Some(_) if self.handles.datagrams.contains(&listener) => {
                // One loop is enough: what it covers is for a while.
                self.handles.loops[0].adopt(key.into(), listener, socket);
            }
            None => match self.handles.loops.get(slot % self.handles.loops.len().max(1)) {
                Some(handle) => handle.adopt(key.into(), listener, socket),
                None => tracing::warn!("there is no loop to accept for a neighbour"),
            },
            Some(IntakeHandle::Acceptor(handle)) => handle.adopt(key.into(), listener, socket),
            // Connections come through channels, and the master hands no sockets over.
            Some(IntakeHandle::Receiver(_)) => {
                tracing::warn!("a socket was handed over where channels are used")
            }
        }
    }

    /// Receives from the channel of an absent neighbour, too.
    pub(crate) fn adopt_channel(&self, key: u32, fd: OwnedFd) -> Result<(), Error> {
        match &self.handles.intake {
            Some(IntakeHandle::Receiver(handle)) => {
                let channel =
                    FdChannel::from_fd(fd).map_err(Error::system("taking a neighbour's channel"))?;
                handle.adopt(key.into(), channel);
            }
            _ => tracing::warn!("a channel was handed over where sockets are used"),
        }
        Ok(())
    }

    /// Takes what waits at what was adopted under the key, and lets go of it.
    pub(crate) fn release(&self, key: u32) {
        if !self.handles.datagrams.is_empty() {
            self.handles.loops[0].release(key.into());
        }
        match &self.handles.intake {
            None => self.handles.loops.iter().for_each(|handle| handle.release(key.into())),
            Some(IntakeHandle::Acceptor(handle)) => handle.release(key.into()),
            Some(IntakeHandle::Receiver(handle)) => handle.release(key.into()),
        }
    }

    /// Stops accepting for a listener, or for all.
    pub(crate) fn pause(&self, listener: Option<usize>) {
        for (handle, number) in self.datagrams(listener) {
            handle.pause(Some(number));
        }
        match &self.handles.intake {
            None => self.handles.loops.iter().for_each(|handle| handle.pause(listener)),
            Some(IntakeHandle::Acceptor(handle)) => handle.pause(listener),
            Some(IntakeHandle::Receiver(handle)) => handle.pause(listener),
        }
    }

    /// Accepts again.
    pub(crate) fn resume(&self, listener: Option<usize>) {
        for (handle, number) in self.datagrams(listener) {
            handle.resume(Some(number));
        }
        match &self.handles.intake {
            None => self.handles.loops.iter().for_each(|handle| handle.resume(listener)),
            Some(IntakeHandle::Acceptor(handle)) => handle.resume(listener),
            Some(IntakeHandle::Receiver(handle)) => handle.resume(listener),
        }
    }

    /// Each loop with each listener of datagrams that is meant, where others accept connections.
    fn datagrams(&self, listener: Option<usize>) -> impl Iterator<Item = (&LoopHandle, usize)> {
        let meant = move |number: &usize| listener.is_none_or(|listener| listener == *number);
        let numbers = self.handles.datagrams.iter().copied().filter(meant);
        numbers.flat_map(|number| self.handles.loops.iter().map(move |handle| (handle, number)))
    }

    /// Whether a loop or the acceptor has ended; its thread may still be about to.
    pub(crate) fn has_ended(&self) -> bool {
        self.runners.iter().any(Runner::has_ended)
    }

    /// Whether all of them have ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.runners.iter().all(Runner::has_ended)
    }

    /// Waits for the end of them all. The error is that of the first one that failed, the acceptor last: it fails when its
    /// loops have.
    pub(crate) fn join(self) -> Result<(), Error> {
        let outcomes: Vec<_> = self.runners.into_iter().map(Runner::join).collect();
        if let Some(pool) = self.pool {
            pool.stop();
        }
        let first: io::Result<()> = outcomes.into_iter().collect();
        first.map_err(Error::system("event loop"))
    }
}

impl Runner {
    fn start(
        seat: Seat,
        threads: &Threads,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
        at_end: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let thread = threads.spawn(seat, move || {
            // Runs also when the loop panics, which would otherwise leave a process that serves nobody.
            let _at_end = AtEnd(Some(move || {
                flag.store(true, Ordering::Release);
                at_end();
            }));
            run()
        })?;
        Ok(Self { seat, thread, ended })
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn join(self) -> io::Result<()> {
        let panicked = |_| Err(io::Error::other(format!("the thread {} panicked", self.seat)));
        self.thread.thread.join().unwrap_or_else(panicked)
    }
}

struct AtEnd<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        if let Some(at_end) = self.0.take() {
            at_end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::{self, Receiver};

    use tidegate_engine::{AcceptorBuilder, Balance, EngineConfig, LoopBuilder, LoopHandle, Socket};

    use super::*;
    use crate::config::Config;
    use crate::echo;

    /// Two loops and their acceptor, with handles to the single loops.
    fn built(cpus: &[&str]) -> (Built, Vec<LoopHandle>) {
        let mut config = Config::default();
        config.engine.cpu_affinity = cpus.iter().map(|set| set.parse().unwrap()).collect();
        let builder = || LoopBuilder::new(EngineConfig::default());
        let pair = |_| builder().listen("main", Socket::handed_over(), || Ok(echo())).build().unwrap();
        let (loops, handles): (Vec<_>, Vec<_>) = (0..2).map(pair).unzip();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let acceptor = AcceptorBuilder::new(Balance::RoundRobin, handles.clone()).listen("main", socket);
        let (acceptor, handle) = acceptor.build().unwrap();
        let intake = Some(super::super::build::Intake::Acceptor(Box::new(acceptor)));
        let intake_handle = Some(IntakeHandle::Acceptor(handle));
        let own = Handles { intake: intake_handle, ..Handles::of_loops(handles.clone()) };
        let threads = Threads::of_worker(&config, 0, 2);
        (Built { loops, intake, handles: own, pool: None, threads }, handles)
    }

    /// Starts them; each end is told to the receiver.
    fn start(built: Built) -> (Result<WorkerLoops, Error>, Receiver<()>) {
        let (sender, ends) = mpsc::channel();
        // Whoever is not interested any more has gone.
        let tell = move || sender.send(()).unwrap_or_default();
        (WorkerLoops::start(built, tell), ends)
    }

    #[test]
    fn an_acceptor_without_loops_has_failed() {
        let (built, handles) = built(&[]);
        let (loops, ends) = start(built);
        let loops = loops.unwrap();
        handles.iter().for_each(LoopHandle::stop);
        (0..3).for_each(|_| ends.recv().unwrap());
        assert!(loops.is_finished());
        let error = loops.join().unwrap_err();
        assert_eq!(
            super::super::worker::chain(&error),
            "event loop: no event loop is left that takes connections"
        );
    }

    #[test]
    fn the_end_of_one_is_seen_and_the_others_can_still_be_stopped() {
        let (built, handles) = built(&[]);
        let (loops, ends) = start(built);
        let loops = loops.unwrap();
        assert!(!loops.has_ended());
        handles[1].stop();
        ends.recv().unwrap();
        assert!(loops.has_ended() && !loops.is_finished());
        loops.stop();
        loops.join().unwrap();
    }

    #[test]
    fn what_was_started_before_a_thread_that_cannot_be_is_stopped() {
        let first = tidegate_sys::thread::affinity().unwrap()[0].to_string();
        let (built, _handles) = built(&[&first, "1023"]);
        let (loops, ends) = start(built);
        assert!(loops.unwrap_err().to_string().contains("cannot be bound to the processors 1023"));
        ends.recv().unwrap();
        assert!(ends.recv().is_err(), "the other loop and the acceptor have never run");
    }
}
