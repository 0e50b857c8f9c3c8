//! Child processes: the same binary started again, with a role, a title and descriptors of known names.
//!
//! * [`Exe`]: the running binary as an open descriptor, so that a file replaced on disk changes nothing.
//! * [`Spawn`]: one start by fork and exec. The child gets exactly the standard streams and the descriptors named.
//! * [`Replace`]: the same without the fork: this process becomes another program, and keeps its pid.
//! * [`Inherited`]: the other end: what a process finds that was started so.
//! * [`Credentials`]: the user that a child becomes.
//! * [`Process`]: a started child, reached through a pidfd, so that no signal ever hits a recycled pid.
//!
//! The one invariant: between fork and exec only async-signal-safe calls are made (`signal-safety(7)`), since the parent
//! may have other threads that hold locks. When a child is started, and what is done when it ends, is decided elsewhere.

mod activated;
mod arguments;
mod credentials;
pub(crate) mod descriptors;
mod exe;
mod handle;
mod inherited;
mod replace;
mod spawn;

pub use activated::{ActivationError, take_activated};
pub use credentials::{Credentials, CredentialsError};
pub use exe::Exe;
pub use handle::{ExitStatus, Process};
pub use inherited::{InheritError, Inherited};
pub use replace::{Replace, ReplaceError};
pub use spawn::{Spawn, SpawnError};

use std::ffi::OsStr;
use std::fs;
use std::io;

/// The environment variables by which a child is told its part; taken out of the environment when they are read.
///
/// They are never configuration: a reader of `TIDEGATE_…` variables skips them.
pub const RESERVED_ENV: [&str; 3] = [ENV_ROLE, ENV_FDS, ENV_PID];

/// How many threads this process has, from `/proc/self/task`.
///
/// # Errors
///
/// The error of reading the directory, for example when `/proc` is not mounted.
pub fn thread_count() -> io::Result<usize> {
    fs::read_dir("/proc/self/task")?.try_fold(0, |count, entry| entry.map(|_| count + 1))
}

/// The part that the child plays.
const ENV_ROLE: &str = "TIDEGATE_ROLE";
/// `name=number` of each inherited descriptor, separated by commas.
const ENV_FDS: &str = "TIDEGATE_FDS";
/// The pid that the other two are meant for, in ten digits. What the child itself starts inherits the variables, perhaps,
/// but not the pid.
const ENV_PID: &str = "TIDEGATE_PID";
/// The first number at which descriptors are placed: behind the standard streams.
const FIRST_FD: i32 = 3;

/// Whether a variable tells of a socket activation: of descriptors at places that hold for one program only.
fn is_activation_variable(key: &OsStr) -> bool {
    ACTIVATION_ENV.iter().any(|name| key == *name)
}

/// Whether a variable is what a service manager tells the process that it started, and nobody else.
fn is_supervision_variable(key: &OsStr) -> bool {
    is_activation_variable(key) || SUPERVISION_ENV.iter().any(|name| key == *name)
}

/// See sd_listen_fds(3).
const ACTIVATION_ENV: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"];
/// See sd_notify(3) and sd_watchdog_enabled(3).
const SUPERVISION_ENV: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
