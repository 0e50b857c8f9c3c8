//! Upgrade in place: the master executes what stands at its path now, and goes on there, or goes back.
//!
//! ```text
//!  old image                    new image
//!  probe ─► READY, exit 0
//!  freeze ──── exec ──────────► thaw, prepare the next generation
//!                                 │ all READY: commit; the old generation retires
//!  thaw  ◄──── exec ──────────────┘ anything else
//!  (upgrade failed)
//! ```
//!
//! The one invariant: descriptors and children belong to the process, not to the image, so nothing is lost on either way.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tidegate_sys::shared::sealed_bytes;
use tidegate_timer::Instant;

use super::bundle::Bundle;
use super::clients::Clients;
use super::frozen::{
    FrozenChild, FrozenClient, FrozenPlan, FrozenProgram, FrozenSpec, FrozenTalk, FrozenUser, State,
    TakeOverError, TakenOver, exec,
};
use super::hooks::MasterHooks;
use super::operations::Waiting;
use super::plan::{ChildSpec, Program};
use super::questions::Questions;
use super::{ControlSocket, Master, MasterError};
use crate::clock;
use crate::signals::Signals;
use crate::supervisor::{Event, Supervisor, Thawed};

impl<H: MasterHooks> Master<H> {
    /// A master that goes on where the image before it was; `hooks` were made from [`TakenOver::hooks`].
    ///
    /// # Errors
    ///
    /// See [`TakeOverError`]; the caller then gives everything back by [`TakenOver::revert`].
    pub fn resume(signals: Signals, taken: &mut TakenOver, hooks: H) -> Result<Self, TakeOverError> {
        let fds = taken.fds.clone();
        let bytes = serde_json::to_vec(&taken.state)?;
        let state: State = serde_json::from_slice(&bytes)?;
        let is_old = state.reverted.is_some();
        let before = state.program.thaw(&fds)?;
        let program = if is_old {
            before.clone()
        } else {
            let own =
                Program::of_self().map_err(|source| TakeOverError::System { what: "own binary", source })?;
            // Where it was looked for; the binary itself may have been renamed since.
            Program { path: before.path.clone(), child_args: before.child_args.clone(), ..own }
        };
        let mut plans = std::collections::BTreeMap::new();
        for (generation, plan) in state.plans {
            plans.insert(generation, plan.thaw(&fds)?);
        }
        let permanent = state.permanent.into_iter().map(|spec| spec.thaw(&fds)).collect::<Result<_, _>>()?;
        let mut running = std::collections::BTreeMap::new();
        for child in state.running {
            running.insert(crate::supervisor::ChildId(child.id), child.thaw(&fds)?);
        }
        // The last that can fail: one that is dropped removes its file.
        let mut clients = match state.control {
            Some((path, place)) => {
                let fd = fds.take(place).ok_or(TakeOverError::Descriptor(place))?;
                let socket = ControlSocket::resume(&path, fd);
                Some(Clients::new(socket.map_err(|error| TakeOverError::Program(error.to_string()))?))
            }
            None => None,
        };
        let mut waiting = Vec::new();
        for client in state.waiting {
            // Who waits for an answer is not worth an upgrade.
            if let (Some(clients), Some(fd)) = (&mut clients, fds.take(client.stream)) {
                let FrozenClient { operation, skip, .. } = client;
                waiting.push(Waiting { client: clients.resume(fd), operation, skip });
            }
        }
        let mut unanswered = Vec::new();
        for FrozenTalk { stream, talk } in state.talks {
            if let (Some(clients), Some(fd)) = (&mut clients, fds.take(stream)) {
                unanswered.extend(clients.resume_talk(fd, talk, clock::now()));
            }
        }
        let how = if is_old { Thawed::Old } else { Thawed::New };
        Ok(Self {
            supervisor: Supervisor::thaw(state.supervisor, state.limits, how, clock::now()),
            limits: state.limits,
            program,
            before: (!is_old).then_some(before),
            next: None,
            signals,
            plans,
            permanent,
            user: state.user.as_ref().map(FrozenUser::thaw),
            running,
            last_pids: std::collections::BTreeMap::new(),
            clients,
            waiting,
            unanswered,
            questions: Questions::from_ticket(state.next_ticket),
            hooks,
            started: Instant::from_nanos(state.started_ns),
            next_tick: None,
            quit_at: state.quit_at_ns.map(Instant::from_nanos),
            changed: true,
            why: state.reverted,
        })
    }

    /// Goes on after [`resume`](Self::resume), as [`run`](Self::run) does after a start.
    ///
    /// # Errors
    ///
    /// See [`MasterError`].
    pub fn go_on(mut self) -> Result<u8, MasterError> {
        self.hooks.on_resumed();
        for (client, request) in std::mem::take(&mut self.unanswered) {
            if let Some(code) = self.on_request(client, request) {
                return Ok(code);
            }
        }
        self.turns(Event::Timeout)
    }

    /// What the probe inherits besides what the hooks give it: the state, to find out whether it can be read.
    pub(super) fn probe(&mut self) -> Result<ChildSpec, String> {
        let spec = self.hooks.probe()?;
        let state = self.frozen_state(&self.program)?;
        Ok(spec.fd(PROBE_STATE, Arc::new(state.0)))
    }

    /// Becomes the program that the probe has tried out.
    pub(super) fn take_over(&mut self) {
        let Some(next) = self.next.take() else {
            self.why = Some("there is no program that was tried out".to_owned());
            return self.supervisor.handle(Event::TakeOverFailed, clock::now());
        };
        tracing::info!(path = %next.path.display(), "taking over by the new program");
        self.hooks.on_leaving();
        // What is frozen is the way back: the program that runs now.
        let error = self.become_program(&next, &self.program, None);
        self.why = Some(error);
        self.supervisor.handle(Event::TakeOverFailed, clock::now());
    }

    /// Becomes the program before again.
    pub(super) fn revert(&mut self) {
        let why = self.why.take().unwrap_or_else(|| "it was not ready".to_owned());
        tracing::error!(why, "the upgrade failed; going back to the program before");
        self.hooks.on_leaving();
        let error = match &self.before {
            Some(before) => self.become_program(before, before, Some(why)),
            None => "there is no program before".to_owned(),
        };
        // The workers of the generation before are untouched, and this program serves on with them.
        tracing::error!(error, "the program before cannot be executed; going on with the new one");
        self.before = None;
        self.why = Some(error);
        self.supervisor.handle(Event::TakeOverFailed, clock::now());
    }

    fn become_program(&self, program: &Program, back: &Program, reverted: Option<String>) -> String {
        let mut bundle = Bundle::default();
        let frozen = FrozenProgram::of(program, &mut bundle);
        match self.state(back, reverted, &mut bundle) {
            Ok(state) => super::chain(&exec(&program.exe, &frozen, &state, bundle.fds())),
            Err(why) => why,
        }
    }

    fn frozen_state(&self, back: &Program) -> Result<(OwnedFd,), String> {
        let state = self.state(back, None, &mut Bundle::default())?;
        sealed_bytes("tidegate-state", &state).map(|file| (file,)).map_err(|error| error.to_string())
    }

    /// Everything that the next image has to know.
    fn state<'a>(
        &'a self,
        back: &'a Program,
        reverted: Option<String>,
        bundle: &mut Bundle<'a>,
    ) -> Result<Vec<u8>, String> {
        let plans = self
            .plans
            .iter()
            .map(|(generation, (plan, program))| (*generation, FrozenPlan::of(plan, program, bundle)));
        let plans = plans.collect();
        let permanent = self.permanent.iter().map(|spec| FrozenSpec::of(spec, bundle)).collect();
        let running = self.running.iter().map(|(id, child)| FrozenChild::of(id.0, child, bundle)).collect();
        let control = self.clients.as_ref().map(|clients| {
            let (path, fd) = clients.socket().parts();
            (path.to_owned(), bundle.put_borrowed(fd))
        });
        let mut waiting = Vec::new();
        for (client, stream) in self.waiting_clients() {
            let Waiting { operation, skip, .. } = *client;
            waiting.push(FrozenClient { stream: bundle.put_borrowed(stream.as_fd()), operation, skip });
        }
        let talks = self.clients.iter().flat_map(|clients| clients.talks(|id| self.questions.request_of(id)));
        let mut frozen_talks = Vec::new();
        for (stream, talk) in talks {
            frozen_talks.push(FrozenTalk { stream: bundle.put_borrowed(stream.as_fd()), talk });
        }
        let state = State {
            version: super::frozen::STATE_VERSION,
            supervisor: self.supervisor.freeze(),
            limits: self.limits,
            plans,
            permanent,
            user: self.user.as_ref().map(FrozenUser::of),
            running,
            control,
            waiting,
            talks: frozen_talks,
            next_ticket: self.questions.next_ticket(),
            quit_at_ns: self.quit_at.map(Instant::as_nanos),
            started_ns: self.started.as_nanos(),
            program: FrozenProgram::of(back, bundle),
            reverted,
            hooks: self.hooks.freeze(bundle)?,
        };
        serde_json::to_vec(&state).map_err(|error| error.to_string())
    }
}

/// The name under which the probe is handed the state.
pub const PROBE_STATE: &str = "state";
