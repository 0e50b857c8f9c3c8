//! What a service manager and the master tell each other: `sd_notify(3)` and `sd_listen_fds(3)`, without its library.
//!
//! * [`Notify`]: READY, RELOADING, STOPPING, STATUS and the watchdog.
//! * [`ActivatedSockets`]: the listening sockets that it opened for us.
//!
//! The one invariant: it is between the manager and the master alone. No child gets these variables, since what starts
//! children leaves them out ([`Spawn`](tidegate_sys::process::Spawn)); the master keeps those of [`Notify`] when it becomes
//! another program. Without a manager everything here does nothing.

mod notify;
mod sockets;

pub use notify::Notify;
pub use sockets::{ActivatedError, ActivatedSockets};
