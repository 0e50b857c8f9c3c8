//! The parts that processes play: the master, the log server, a worker, or everything in one.

pub(crate) mod acceptor;
pub(crate) mod build;
pub(crate) mod connections;
pub(crate) mod control;
pub(crate) mod generation;
pub(crate) mod handout;
mod limits;
pub(crate) mod log_server;
mod logging;
pub(crate) mod loops;
pub(crate) mod master;
mod operated;
pub(crate) mod probe;
pub(crate) mod process;
mod questions;
pub(crate) mod sampling;
pub(crate) mod single;
mod threads;
mod watch;
pub(crate) mod worker;
