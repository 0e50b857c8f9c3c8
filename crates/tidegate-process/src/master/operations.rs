//! Reloads, upgrades and replacements as the driver sees them: who asked, what is made ready, and what is answered.
//!
//! The one invariant: whoever asked for an operation is answered once, by the end of the operation that began after the
//! request.

use super::children::Running;
use super::clients::{ClientId, Ready};
use super::hooks::{Begin, ChildAnswer, ControlAnswer, MasterHooks, Whom};
use super::plan::Amendment;
use super::{Clients, Master, Plan};
use crate::clock;
use crate::control::ToChild;
use crate::role::Role;
use crate::supervisor::{ChildId, Event, Operation, Outcome, Why};
use std::sync::Arc;
use tidegate_sys::signal::{self, Signal};

/// A client that waits for the end of an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) client: ClientId,
    pub(super) operation: Operation,
    /// So many of that kind end before its own does.
    pub(super) skip: u32,
}

impl<H: MasterHooks> Master<H> {
    pub(super) fn on_client(&mut self, ready: Ready) -> Option<u8> {
        let now = clock::now();
        let (client, request) = self.clients.as_mut()?.on_ready(ready, now)?;
        self.on_request(client, request)
    }

    pub(super) fn on_request(&mut self, client: ClientId, request: Vec<u8>) -> Option<u8> {
        tracing::debug!(request = %request.escape_ascii(), "control request");
        let snapshot = self.snapshot();
        match self.hooks.on_control(&request, &snapshot) {
            ControlAnswer::Now(body) => {
                self.answer(client, body);
                None
            }
            ControlAnswer::Signal { body, signal } => {
                self.answer(client, body);
                tracing::info!(signal = signal::name(signal), "asked by a control request");
                self.signal(signal)
            }
            ControlAnswer::Accept { body, worker, accepts } => {
                self.answer(client, body);
                let child = self.worker(worker)?;
                self.handle(if accepts { Event::Resume { child } } else { Event::Pause { child } })
            }
            ControlAnswer::Begin(begin) => self.begin(client, begin),
            ControlAnswer::Ask { text, whom } => {
                self.ask(client, request, &text, whom);
                None
            }
        }
    }

    /// The worker of this number in the current generation, unless it retires.
    fn worker(&self, index: u32) -> Option<ChildId> {
        let generation = self.supervisor.generation();
        let is_meant = |(_, slot): &(ChildId, &crate::supervisor::Slot)| {
            slot.role == Role::Worker(index) && slot.generation == generation && !slot.is_retired
        };
        self.supervisor.children().find(is_meant).map(|(id, _)| id)
    }

    fn begin(&mut self, client: ClientId, begin: Begin) -> Option<u8> {
        let (operation, event) = match begin {
            Begin::Reload => (Operation::Reload, Event::Signal(Signal::HUP)),
            Begin::Upgrade => (Operation::Upgrade, Event::Signal(Signal::USR2)),
            Begin::Replace(worker) => {
                let Some(child) = self.worker(worker) else {
                    let why = format!("there is no worker {worker} that serves");
                    let body = self.hooks.on_done(Operation::Replace(ChildId(u32::MAX)), Err(&why));
                    self.answer(client, body);
                    return None;
                };
                // What an earlier child said is not why this one fails.
                self.why = None;
                (Operation::Replace(child), Event::Replace { child })
            }
        };
        // A reload that is under way has read the configuration already; a worker is replaced once for all who ask.
        let is_next = !matches!(begin, Begin::Replace(_)) && self.supervisor.operation() == Some(operation);
        let skip = u32::from(is_next);
        tracing::info!(?begin, "asked by a control request");
        self.waiting.push(Waiting { client, operation, skip });
        self.handle(event)
    }

    fn ask(&mut self, client: ClientId, request: Vec<u8>, text: &str, whom: Whom) {
        let is_meant = |role: Role, generation: u32| match whom {
            Whom::All => role != Role::Probe,
            Whom::Accepting => matches!(role, Role::Worker(_) | Role::Acceptor),
            Whom::Workers => matches!(role, Role::Worker(_)),
            Whom::Worker { generation: of, index } => role == Role::Worker(index) && generation == of,
        };
        let meant = self.running.iter().filter(|(_, child)| is_meant(child.role, child.generation));
        let children: Vec<_> = meant
            .map(|(id, child)| {
                let (role, generation, pid) = (child.role, child.generation, child.process.pid());
                (*id, ChildAnswer { role, generation, pid, answer: None })
            })
            .collect();
        let asked: Vec<ChildId> = children.iter().map(|(id, _)| *id).collect();
        let ticket = self.questions.open(client, request, children, clock::now());
        for child in asked {
            self.tell(child, &ToChild::Ask { ticket, text: text.to_owned() });
        }
    }

    /// Answers what can be answered, and lets the clients go that are done.
    pub(super) fn look_after_clients(&mut self) {
        let now = clock::now();
        while let Some(question) = self.questions.next_closed(now) {
            let answers: Vec<ChildAnswer> = question.answers.into_iter().map(|(_, answer)| answer).collect();
            let body = self.hooks.on_answers(&question.request, &answers);
            self.answer(question.client, body);
        }
        if let Some(clients) = &mut self.clients {
            clients.sweep(now);
        }
    }

    fn answer(&mut self, client: ClientId, body: Vec<u8>) {
        if let Some(clients) = &mut self.clients {
            clients.answer(client, body, clock::now());
        }
    }

    /// Has the hooks make the plan of a generation.
    pub(super) fn prepare(&mut self, generation: u32) -> Event {
        self.why = None;
        let operation = self.supervisor.operation().unwrap_or(Operation::Reload);
        self.hooks.on_begun(operation);
        let prepared = self.hooks.prepare(generation);
        // Also when it failed: what was opened for it gets connections.
        let amendments = self.hooks.amendments();
        self.amend(amendments);
        match prepared {
            Ok(plan) => {
                let crew = plan.crew();
                self.plans.insert(generation, (plan, self.program.clone()));
                Event::Prepared { generation, crew }
            }
            Err(why) => {
                self.why = Some(why);
                Event::PrepareFailed { generation }
            }
        }
    }

    /// Has children of the generation that serves accept from sockets that were opened for the next one.
    fn amend(&mut self, amendments: Vec<Amendment>) {
        let generation = self.supervisor.generation();
        let Some((plan, _)) = self.plans.get_mut(&generation) else { return };
        for Amendment { role, name, fd } in amendments {
            if let Some(spec) = plan.children.iter_mut().find(|spec| spec.role == role) {
                spec.covered.push(name.clone());
                spec.fds.push((name.clone(), Arc::clone(&fd)));
            }
            // To itself it is as if it covered for itself, without an end; and so it is to who accepts in its place.
            let cover = role.index().and_then(|slot| self.supervisor.covered_by(slot));
            let is_meant = |id: ChildId, it: &Running| {
                it.role == role && it.generation == generation || Some(id) == cover
            };
            for (_, running) in self.running.iter().filter(|(id, running)| is_meant(**id, running)) {
                running.cover(role.index().unwrap_or(0), &[(name.clone(), Arc::clone(&fd))]);
            }
        }
    }

    pub(super) fn commit(&mut self, generation: u32) {
        if let Some((Plan { limits, user, .. }, _)) = self.plans.get(&generation) {
            self.limits = *limits;
            self.user.clone_from(user);
            self.supervisor.set_limits(self.limits);
        }
        // There is no way back from here. Nobody of an older generation is started again, and what only it listened on is
        // closed when its workers have let go of it.
        self.before = None;
        let supervisor = &self.supervisor;
        self.plans.retain(|number, _| *number >= generation || supervisor.hands_over(*number));
        self.plans.range_mut(..generation).for_each(|(_, (plan, _))| plan.keep_channels());
        tracing::info!(generation, "generation serves");
        self.hooks.on_committed(generation);
    }

    /// Tells everybody who asked for it how an operation has ended.
    pub(super) fn done(&mut self, operation: Operation, outcome: Outcome) {
        let result = match outcome {
            Outcome::Done { generation } => Ok(generation),
            Outcome::Failed(why) => Err(self.explain(why)),
        };
        match &result {
            Ok(generation) => tracing::info!(?operation, generation, "operation is done"),
            Err(why) => tracing::error!(?operation, why, "operation failed; everything is as before"),
        }
        self.why = None;
        self.next = None;
        let body = self.hooks.on_done(operation, result.as_ref().copied().map_err(String::as_str));
        if operation == Operation::Upgrade && result.is_ok() {
            self.renew();
        }
        let mut answered = Vec::new();
        self.waiting.retain_mut(|waiting| {
            if waiting.operation != operation {
                return true;
            }
            if waiting.skip > 0 {
                waiting.skip -= 1;
                return true;
            }
            answered.push(waiting.client);
            false
        });
        for client in answered {
            self.answer(client, body.clone());
        }
    }

    /// After an upgrade those that live over generations are told to end, and are started again by the new
    /// program.
    fn renew(&mut self) {
        let now = clock::now();
        let permanent =
            self.running.iter().filter(|(_, child)| child.generation == 0 && child.role != Role::Probe);
        let permanent: Vec<(ChildId, Role)> = permanent.map(|(id, child)| (*id, child.role)).collect();
        for (child, role) in permanent {
            match role {
                // As if it had been asked to end: its clients keep what they have to say until it is back.
                Role::LogServer => self.supervisor.handle(Event::Signalled { child }, now),
                _ => self.tell(
                    child,
                    &ToChild::Quit { timeout: Some(self.limits.shutdown_timeout), drain: false },
                ),
            }
        }
    }

    /// Why an operation has failed, for people.
    fn explain(&mut self, why: Why) -> String {
        let detail = self.why.take();
        let with = |text: String| match &detail {
            Some(detail) => format!("{text}: {detail}"),
            None => text,
        };
        match why {
            Why::Prepare => detail.unwrap_or_else(|| "the configuration cannot be served".to_owned()),
            Why::Child { child, status } => {
                let role = self.supervisor.child(child).map_or(Role::Probe, |slot| slot.role);
                let name = role.title();
                let name = name.strip_prefix("tidegate: ").unwrap_or(&name);
                match (status, &detail) {
                    (Some(status), _) => with(format!("{name} ended with {status} before it was ready")),
                    (None, Some(why)) => format!("{name} cannot be started: {why}"),
                    (None, None) => format!("{name} was not ready in time"),
                }
            }
            Why::Probe { status } => {
                let path = self.program.path.display();
                match (status, &detail) {
                    (Some(status), _) => {
                        with(format!("the program at {path} was tried out, and ended with {status}"))
                    }
                    (None, Some(why)) => format!("the program at {path} cannot be tried out: {why}"),
                    (None, None) => format!("the program at {path} was tried out, and was not ready in time"),
                }
            }
            Why::TakeOver => with("the new program cannot be executed".to_owned()),
            Why::Reverted => with("the new program gave up, and the old one goes on".to_owned()),
            Why::Stopping => "the server is stopping".to_owned(),
            Why::Busy => with("another operation is under way".to_owned()),
        }
    }

    /// Clients that wait for an operation, with what is to be known of them.
    pub(super) fn waiting_clients(
        &self,
    ) -> impl Iterator<Item = (&Waiting, &std::os::unix::net::UnixStream)> {
        let stream = |id: ClientId| self.clients.as_ref().and_then(|clients: &Clients| clients.stream(id));
        self.waiting.iter().filter_map(move |waiting| Some((waiting, stream(waiting.client)?)))
    }
}
