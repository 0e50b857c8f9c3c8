//! The parts that processes play: the master, the log server, a worker, or everything in one.

pub(crate) mod build;
pub(crate) mod log_server;
mod logging;
pub(crate) mod loops;
pub(crate) mod master;
mod operated;
pub(crate) mod single;
mod threads;
mod watch;
pub(crate) mod worker;
