//! What the program adds to the master.
//!
//! The one invariant: a hook runs between two turns of the master's loop, in its thread, so it must not wait for anybody.
//! It cannot change what the supervisor decides, but by what it answers.

use std::time::Duration;

use tidegate_sys::signal::Signal;

use super::bundle::Bundle;
use super::plan::{Amendment, ChildSpec, Plan};
use crate::role::Role;
use crate::snapshot::Snapshot;
use crate::supervisor::Operation;

/// Called by the master as things happen; most have a default that does nothing.
pub trait MasterHooks {
    /// All workers serve for the first time.
    fn on_ready(&mut self, snapshot: &Snapshot) {
        let _ = snapshot;
    }

    /// A child was started, is READY, was told to end, has ended, or says what it is at.
    fn on_change(&mut self, snapshot: &Snapshot) {
        let _ = snapshot;
    }

    /// A request came in over the control socket: one line, without its end.
    fn on_control(&mut self, request: &[u8], snapshot: &Snapshot) -> ControlAnswer;

    /// The children have answered a [`ControlAnswer::Ask`], or have not in time; makes the answer to the request.
    fn on_answers(&mut self, request: &[u8], answers: &[ChildAnswer]) -> Vec<u8> {
        let _ = (request, answers);
        Vec::new()
    }

    /// The questions that a child is asked first, whose answers do not matter: what operators have said before it started.
    fn first_words(&self) -> Vec<String> {
        Vec::new()
    }

    /// A reload begins: reads and checks the configuration, opens what is new, and makes the plan of the generation.
    ///
    /// # Errors
    ///
    /// What is wrong, for people; perhaps in several lines. Everything is then as before.
    fn prepare(&mut self, generation: u32) -> Result<Plan, String>;

    /// Descriptors that children of the generation that serves are to accept from in addition: what was opened for the next
    /// one, and gets connections already. Asked after each [`prepare`](Self::prepare), also when that failed.
    fn amendments(&mut self) -> Vec<Amendment> {
        Vec::new()
    }

    /// All of the generation serves; it is the current one from now on.
    fn on_committed(&mut self, generation: u32) {
        let _ = generation;
    }

    /// No process of the generation is left, and none will be: what only it needed can go.
    fn on_forgotten(&mut self, generation: u32) {
        let _ = generation;
    }

    /// An operation begins.
    fn on_begun(&mut self, operation: Operation) {
        let _ = operation;
    }

    /// An operation has ended: in a generation that serves, or because of an error. The answer to whoever asked for it.
    fn on_done(&mut self, operation: Operation, outcome: Result<u32, &str>) -> Vec<u8> {
        let _ = (operation, outcome);
        Vec::new()
    }

    /// The child that tries out what stands at the program's path now, before an upgrade. It must find its
    /// configuration by itself, say READY when it could serve, and end.
    ///
    /// # Errors
    ///
    /// Why there can be no upgrade.
    fn probe(&mut self) -> Result<ChildSpec, String> {
        Ok(ChildSpec::new(Role::Probe))
    }

    /// Everything that the hooks of the next image need, as JSON; descriptors are put into the bundle.
    ///
    /// # Errors
    ///
    /// Why there can be no upgrade.
    fn freeze<'a>(&'a self, bundle: &mut Bundle<'a>) -> Result<serde_json::Value, String> {
        let _ = bundle;
        Ok(serde_json::Value::Null)
    }

    /// Another image is about to take the place of this one, or to fail to: what is only in memory has to be brought away now.
    fn on_leaving(&mut self) {}

    /// This image goes on where another one was, and nothing can fail any more but the upgrade itself.
    fn on_resumed(&mut self) {}

    /// The last records of a process that has died again and again.
    fn last_words(&mut self, pid: u32) -> Vec<String> {
        let _ = pid;
        Vec::new()
    }

    /// How often [`on_tick`](Self::on_tick) is to be called; none: never.
    fn tick(&self) -> Option<Duration> {
        None
    }

    /// Time has passed.
    fn on_tick(&mut self) {}

    /// The log files are to be opened again; the children are told by the master.
    fn on_reopen(&mut self) {}

    /// How long a graceful stop waits after it was asked for, so that balancers notice.
    fn shutdown_delay(&self) -> Duration {
        Duration::ZERO
    }

    /// That wait has begun.
    fn on_delayed_stop(&mut self) {}

    /// A stop has begun.
    fn on_stopping(&mut self) {}

    /// The last worker has ended in a stop, and the log server is told to end next: the last moment to send records.
    fn on_workers_gone(&mut self) {}
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlAnswer {
    /// This is the answer.
    Now(Vec<u8>),
    /// This is the answer, and the master goes on as if it had been sent the signal.
    Signal {
        /// The answer, as it is sent.
        body: Vec<u8>,
        /// `TERM` and `QUIT` stop, `USR1` reopens the logs, `WINCH` retires the workers.
        signal: Signal,
    },
    /// A reload, an upgrade, or the replacement of a worker; answered by [`MasterHooks::on_done`].
    Begin(Begin),
    /// Accepting of a worker is paused or goes on; then this is the answer.
    Accept {
        /// The answer, as it is sent.
        body: Vec<u8>,
        /// The number of the worker.
        worker: u32,
        /// Whether it accepts.
        accepts: bool,
    },
    /// The children are asked, and [`MasterHooks::on_answers`] makes the answer of theirs.
    Ask {
        /// The question.
        text: String,
        /// Whom.
        whom: Whom,
    },
}

/// What a request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// As by `HUP`.
    Reload,
    /// As by `USR2`.
    Upgrade,
    /// The worker of this number in the current generation is replaced.
    Replace(u32),
}

/// Which children are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Every child that runs, the log server included.
    All,
    /// The workers and acceptors of all generations.
    Accepting,
    /// The workers of all generations.
    Workers,
    /// One worker.
    Worker {
        /// Its generation.
        generation: u32,
        /// Its number.
        index: u32,
    },
}

/// What a child answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildAnswer {
    /// What it is for.
    pub role: Role,
    /// Its generation.
    pub generation: u32,
    /// Its process.
    pub pid: u32,
    /// `None`: nothing within the time.
    pub answer: Option<Vec<u8>>,
}
