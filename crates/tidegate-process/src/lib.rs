//! Master and children: a pure supervisor and the driver that carries out its orders.
//!
//! Read [`Master`] and [`Child`] first. One program is all the processes: it asks [`Part::from_env`] which part it
//! plays, and is the master when it plays none.
//!
//! ```text
//!            signals   exits (pidfd)   READY (control channel)   control.sock
//!                 ╲         │               ╱                       │
//!                  ▼        ▼              ▼                        ▼
//!   Supervisor  ◄── events ── Master (one poll loop) ── requests ── MasterHooks
//!   (no I/O, no clock)
//!        └── orders ──► Master ── spawn, STOP, QUIT, KILL ──► children (Child)
//! ```
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
