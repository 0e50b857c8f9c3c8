//! What a master hands to the next image of its process, and how that takes it over.
//!
//! The state is JSON in a memory file; descriptors are named by their places in a [`Bundle`]. Unknown fields are skipped
//! and missing ones have their default, so that neighbouring versions understand each other in both directions.
//!
//! The one invariant: an image that cannot use the state gives it back as it was, by executing the image before it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_sys::process::{Credentials, Exe, Inherited, Process, Replace, ReplaceError};
use tidegate_sys::shared::{read_all, sealed_bytes};

use super::bundle::{Bundle, Unbundled};
use super::children::Running;
use super::plan::{ChildSpec, Plan, Program};
use crate::control::Channel;
use crate::role::Role;
use crate::supervisor::{Frozen, Limits, Operation};

/// Everything that a master is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Of this layout.
    pub(crate) version: u32,
    pub(crate) supervisor: Frozen,
    pub(crate) limits: Limits,
    pub(crate) plans: BTreeMap<u32, FrozenPlan>,
    pub(crate) permanent: Vec<FrozenSpec>,
    pub(crate) user: Option<FrozenUser>,
    pub(crate) running: Vec<FrozenChild>,
    /// Where the control socket is.
    pub(crate) control: Option<(PathBuf, usize)>,
    pub(crate) waiting: Vec<FrozenClient>,
    /// Those who wait for no operation.
    #[serde(default)]
    pub(crate) talks: Vec<FrozenTalk>,
    #[serde(default)]
    pub(crate) next_ticket: u64,
    /// When a graceful stop that was asked for begins.
    #[serde(default)]
    pub(crate) quit_at_ns: Option<u64>,
    pub(crate) started_ns: u64,
    /// The image to go back to while the upgrade can still fail.
    pub(crate) program: FrozenProgram,
    /// Why the next image gave the state back.
    #[serde(default)]
    pub(crate) reverted: Option<String>,
    #[serde(default)]
    pub(crate) hooks: serde_json::Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FrozenProgram {
    pub(crate) exe: usize,
    pub(crate) path: PathBuf,
    pub(crate) title: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) child_args: Vec<OsString>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FrozenPlan {
    pub(crate) program: FrozenProgram,
    pub(crate) children: Vec<FrozenSpec>,
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) user: Option<FrozenUser>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FrozenSpec {
    role: Role,
    title: String,
    fds: Vec<(String, usize)>,
    #[serde(default)]
    covered: Vec<String>,
    #[serde(default)]
    env: Vec<(OsString, OsString)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FrozenChild {
    pub(crate) id: u32,
    role: Role,
    generation: u32,
    title: String,
    #[serde(default)]
    seat: u32,
    pid: u32,
    channel: Option<usize>,
    #[serde(default)]
    status: String,
}

/// Numbers of a user, its group, and further groups.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FrozenUser {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl FrozenUser {
    pub(crate) fn of(user: &Credentials) -> Self {
        Self { uid: user.uid(), gid: user.gid(), groups: user.groups().collect() }
    }

    pub(crate) fn thaw(&self) -> Credentials {
        Credentials::from_parts(self.uid, self.gid, &self.groups)
    }
}

/// A client that waits for the end of an operation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct FrozenClient {
    pub(crate) stream: usize,
    pub(crate) operation: Operation,
    #[serde(default)]
    pub(crate) skip: u32,
}

/// A client that has not said all, or was not told all.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FrozenTalk {
    pub(crate) stream: usize,
    pub(crate) talk: Talk,
}

/// What there is to be done for a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Talk {
    /// To read on; this it has said.
    Read(Vec<u8>),
    /// To answer this request.
    Answer(Vec<u8>),
    /// To tell it this.
    Write(Vec<u8>),
}

/// Why a master cannot go on where the image before it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeOverError {
    /// It was written by a program that is too different.
    #[error("the state has version {0}, this program knows {STATE_VERSION}")]
    Version(u32),
    /// It cannot be read.
    #[error("the state cannot be read")]
    State(#[from] serde_json::Error),
    /// A descriptor is missing.
    #[error("the state names descriptor {0}, which was not handed over")]
    Descriptor(usize),
    /// A call of the system failed.
    #[error("{what}")]
    System {
        /// What for.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The program's own part of the state cannot be used.
    #[error("{0}")]
    Program(String),
}

/// What the image before has handed over, and not yet used.
#[derive(Debug)]
pub struct TakenOver {
    pub(crate) state: State,
    /// As it was read.
    bytes: Vec<u8>,
    pub(crate) fds: Unbundled,
}

impl TakenOver {
    /// Reads the state that this image was started with.
    pub(crate) fn of(inherited: Inherited) -> Result<Self, TakeOverError> {
        let mut state = None;
        let mut fds = Vec::new();
        for (name, fd) in inherited.fds {
            if name == STATE_FD { state = Some(fd) } else { fds.push(fd) }
        }
        let system = |what| move |source| TakeOverError::System { what, source };
        let file = state.ok_or_else(|| system("the state")(io::ErrorKind::NotFound.into()))?;
        let bytes = read_all(file.as_fd(), MAX_STATE_BYTES).map_err(system("reading the state"))?;
        let fds = Unbundled::new(fds);
        // Whatever else it says, it says where the image before is.
        match parse(&bytes) {
            Ok(state) => Ok(Self { state, bytes, fds }),
            Err(error) => {
                let failed = give_back(&bytes, &fds, &error.to_string());
                tracing::error!(error = %failed, "the program before cannot be executed again");
                Err(error)
            }
        }
    }

    /// What the program's hooks had frozen.
    #[must_use]
    pub fn hooks(&self) -> &serde_json::Value {
        &self.state.hooks
    }

    /// The descriptors that it names.
    #[must_use]
    pub fn fds(&self) -> &Unbundled {
        &self.fds
    }

    /// Whether the next image has given the state back to this one.
    #[must_use]
    pub fn is_reverted(&self) -> bool {
        self.state.reverted.is_some()
    }

    /// The program before this one.
    #[must_use]
    pub fn program_before(&self) -> (PathBuf, Vec<OsString>) {
        (self.state.program.path.clone(), self.state.program.args.clone())
    }

    /// Gives everything back to the image before, which goes on as if there had been no upgrade. Returns only when that
    /// cannot be executed any more.
    pub fn revert(&self, why: &str) -> TakeOverError {
        give_back(&self.bytes, &self.fds, why)
    }
}

/// Reads a state, to find out whether this program can.
///
/// # Errors
///
/// See [`TakeOverError`].
pub fn check_state(file: &OwnedFd) -> Result<(), TakeOverError> {
    let read = read_all(file.as_fd(), MAX_STATE_BYTES);
    let bytes = read.map_err(|source| TakeOverError::System { what: "reading the state", source })?;
    parse(&bytes).map(|_| ())
}

fn parse(bytes: &[u8]) -> Result<State, TakeOverError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice::<Version>(bytes)?.version {
        STATE_VERSION => Ok(serde_json::from_slice(bytes)?),
        other => Err(TakeOverError::Version(other)),
    }
}

/// Executes the image that wrote the state; comes back when that fails.
fn give_back(bytes: &[u8], fds: &Unbundled, why: &str) -> TakeOverError {
    let parts = || -> Result<(Exe, FrozenProgram, Vec<u8>), TakeOverError> {
        let mut state: serde_json::Value = serde_json::from_slice(bytes)?;
        let program: FrozenProgram = serde_json::from_value(state["program"].clone())?;
        state["reverted"] = why.into();
        let exe = fds.take(program.exe).ok_or(TakeOverError::Descriptor(program.exe))?;
        Ok((Exe::from_fd(exe), program, serde_json::to_vec(&state)?))
    };
    match parts() {
        Ok((exe, program, state)) => {
            let borrowed: Vec<_> = fds.all().iter().map(AsFd::as_fd).collect();
            exec(&exe, &program, &state, &borrowed)
        }
        Err(error) => error,
    }
}

/// Becomes another program, with the state. Returns only when that fails.
pub(crate) fn exec(
    exe: &Exe,
    program: &FrozenProgram,
    state: &[u8],
    fds: &[std::os::fd::BorrowedFd<'_>],
) -> TakeOverError {
    let system = |what, source| TakeOverError::System { what, source };
    let file = match sealed_bytes("tidegate-state", state) {
        Ok(file) => file,
        Err(error) => return system("writing the state", error),
    };
    let mut replace =
        Replace::new(exe, program.title.clone(), SUCCESSOR).args(&program.args).fd(STATE_FD, file.as_fd());
    for (place, fd) in fds.iter().enumerate() {
        replace = replace.fd(place.to_string(), *fd);
    }
    let error: ReplaceError = replace.exec();
    system("executing the program", io::Error::other(error))
}

impl FrozenProgram {
    pub(crate) fn of<'a>(program: &'a Program, bundle: &mut Bundle<'a>) -> Self {
        let Program { exe, path, title, args, child_args } = program;
        Self {
            exe: bundle.put(&**exe),
            path: path.clone(),
            title: title.clone(),
            args: args.clone(),
            child_args: child_args.clone(),
        }
    }

    pub(crate) fn thaw(self, fds: &Unbundled) -> Result<Program, TakeOverError> {
        let exe = fds.take(self.exe).ok_or(TakeOverError::Descriptor(self.exe))?;
        let Self { path, title, args, child_args, .. } = self;
        Ok(Program { exe: Arc::new(Exe::from_fd(exe)), path, title, args, child_args })
    }
}

impl FrozenPlan {
    pub(crate) fn of<'a>(plan: &'a Plan, program: &'a Program, bundle: &mut Bundle<'a>) -> Self {
        Self {
            program: FrozenProgram::of(program, bundle),
            children: plan.children.iter().map(|spec| FrozenSpec::of(spec, bundle)).collect(),
            limits: plan.limits,
            user: plan.user.as_ref().map(FrozenUser::of),
        }
    }

    pub(crate) fn thaw(self, fds: &Unbundled) -> Result<(Plan, Program), TakeOverError> {
        let Self { program, children, limits, user } = self;
        let children = children.into_iter().map(|spec| spec.thaw(fds)).collect::<Result<_, _>>()?;
        let user = user.as_ref().map(FrozenUser::thaw);
        Ok((Plan { children, limits, user }, program.thaw(fds)?))
    }
}

impl FrozenSpec {
    pub(crate) fn of<'a>(spec: &'a ChildSpec, bundle: &mut Bundle<'a>) -> Self {
        Self {
            role: spec.role,
            title: spec.title.clone(),
            fds: spec.fds.iter().map(|(name, fd)| (name.clone(), bundle.put(&**fd))).collect(),
            covered: spec.covered.clone(),
            env: spec.env.clone(),
        }
    }

    pub(crate) fn thaw(self, fds: &Unbundled) -> Result<ChildSpec, TakeOverError> {
        let named = |(name, place)| Ok((name, fds.get(place).ok_or(TakeOverError::Descriptor(place))?));
        let Self { role, title, covered, env, .. } = self;
        let fds = self.fds.into_iter().map(named).collect::<Result<_, TakeOverError>>()?;
        Ok(ChildSpec { role, title, fds, covered, env })
    }
}

impl FrozenChild {
    pub(crate) fn of<'a>(id: u32, child: &'a Running, bundle: &mut Bundle<'a>) -> Self {
        Self {
            id,
            role: child.role,
            generation: child.generation,
            title: child.title.clone(),
            seat: child.seat,
            pid: child.process.pid(),
            channel: child.channel.as_ref().map(|channel| bundle.put(channel)),
            status: child.status.clone(),
        }
    }

    pub(crate) fn thaw(self, fds: &Unbundled) -> Result<Running, TakeOverError> {
        let source = |source| TakeOverError::System { what: "finding a child again", source };
        let channel = match self.channel {
            Some(place) => Some(fds.take(place).ok_or(TakeOverError::Descriptor(place))?),
            None => None,
        };
        Ok(Running {
            role: self.role,
            generation: self.generation,
            title: self.title,
            seat: self.seat,
            process: Process::adopt(self.pid).map_err(source)?,
            channel: channel.map(Channel::from_fd).transpose().map_err(source)?,
            status: self.status,
            failed: None,
        })
    }
}

/// The role of a master that takes over in place.
pub(crate) const SUCCESSOR: &str = "master";
const STATE_FD: &str = "state";
pub(super) const STATE_VERSION: u32 = 1;
const MAX_STATE_BYTES: usize = 64 << 20;
