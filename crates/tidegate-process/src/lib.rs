//! Master and children: a pure supervisor and the driver that carries out its orders.
//!
//! Read [`Master`], [`MasterHooks`] and [`Child`] first. One program is all the processes: it asks [`Part::from_env`] which
//! part it plays, and is a master that starts from nothing when it plays none.
//!
//! ```text
//!            signals   exits (pidfd)   READY, PONG (control channel)   control.sock
//!                 ╲         │               ╱                             │
//!                  ▼        ▼              ▼                              ▼
//!   Supervisor  ◄── events ── Master (one poll loop) ── requests ──► MasterHooks ── plans ──► Master
//!   (no I/O, no clock)
//!        └── orders ──► Master ── spawn, STOP, QUIT, PING, COVER … ──► children (Child)
//! ```
//!
//! # Generations
//!
//! A generation is a [`Plan`]: its workers, perhaps an acceptor, and every descriptor that they inherit. The plan holds these
//! descriptors, so a worker can be started again, and what waits in a socket outlives whoever reads it. A reload has the hooks
//! make the next plan; when all of its children are READY it is the current one, and the one before is told to quit. The
//! [log server](Role::LogServer) and the [processes of the program's own](Role::Process) belong to no generation.
//!
//! While a worker of the current generation does not answer, is dead or is paused, a neighbour is handed the descriptors that
//! the plan calls [`covered`](ChildSpec::covered), and accepts from them, too.
//!
//! # Upgrade
//!
//! ```text
//!  master ── a probe from the program at its path: READY, exit 0 ──► exec ──► Part::Successor ──► Master::resume ──► go_on
//!     ▲                                                                             │ cannot go on
//!     └──────────────────────────── exec of the program before ─────────────────────┘
//! ```
//!
//! Pid, descriptors and children belong to the process and pass over an exec. What the master knows of them passes over as
//! JSON in a memory file: that of the supervisor, that of the driver, and what the [hooks](MasterHooks::freeze) add. Until the
//! first generation of the new program is READY the old program can be executed again.
//!
//! The one invariant: a decision about the life of a process is made in [`supervisor`] and nowhere else; everything else
//! here carries out or reports. Listening sockets are bound by others and only handed on; no client byte passes here.
#![forbid(unsafe_code)]

mod child;
mod clock;
pub mod control;
pub mod control_socket;
mod master;
mod owned_path;
pub mod pid_file;
mod role;
mod signals;
mod snapshot;
pub mod supervisor;
pub mod systemd;

pub use child::{Child, ChildError, ChildEvent, ChildWaker, Part, Within};
pub use control_socket::ControlSocket;
pub use master::{
    Amendment, Begin, Bundle, ChildAnswer, ChildSpec, ControlAnswer, ENV_PROGRAM, Master, MasterError,
    MasterHooks, MasterOptions, PROBE_STATE, Plan, Program, TakeOverError, TakenOver, Unbundled, Whom,
    check_state,
};
pub use pid_file::{PidFile, PidFileError};
pub use role::Role;
pub use signals::{Signals, SignalsError};
pub use snapshot::{ChildSnapshot, ChildState, Snapshot};
pub use supervisor::{ChildId, Limits, Operation};
pub use tidegate_sys::process::{Exe, ExitStatus, RESERVED_ENV};
