//! `tidegate stop`, `reopen` and `status`: orders and questions to the server that runs.
//!
//! They go over the control socket. A server of one process (`process.workers = 0`) has none, and is sent the signal of the
//! same meaning.

use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tidegate::config::{Config, LoadOptions};

use crate::ask::{ask, nobody};
use crate::configuration::of_running;
use crate::failure::Failure;
use crate::output::{Form, colour, print};
use crate::process::ServerProcess;
use crate::status_table;

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopKind {
    /// What is in flight may finish, up to `process.shutdown_timeout`.
    Graceful,
    /// Everything is closed.
    Now,
}

/// Stops the server, and returns when it has ended.
pub(crate) fn stop(options: &LoadOptions, kind: StopKind) -> Result<(), Failure> {
    let config = of_running(options)?;
    let server = ServerProcess::find(&config)?;
    let (order, signal, grace) = match kind {
        StopKind::Graceful => ("quit", Signal::QUIT, config.process.shutdown_timeout),
        StopKind::Now => ("stop", Signal::TERM, Duration::ZERO),
    };
    tell(&config, &server, order, signal)?;
    server.wait_end(grace + STOP_BOUND)?;
    print(format!("stopped, pid {}\n", server.pid))
}

/// Lets the server open its log files again.
pub(crate) fn reopen(options: &LoadOptions) -> Result<(), Failure> {
    let config = of_running(options)?;
    let server = ServerProcess::find(&config)?;
    Ok(tell(&config, &server, "reopen", Signal::USR1)?)
}

/// Shows the processes and listeners of the server.
pub(crate) fn status(options: &LoadOptions, form: Form) -> Result<(), Failure> {
    let config = of_running(options)?;
    let Some(answer) = ask(&config, "status")? else { return Err(nobody(&config).into()) };
    match form {
        Form::Json => print([answer.trim_ascii_end(), b"\n"].concat()),
        Form::Text => {
            let status = serde_json::from_slice(&answer).context("the server's answer is not understood")?;
            print(status_table::tables(&status, colour()))
        }
    }
}

fn tell(config: &Config, server: &ServerProcess, order: &str, signal: Signal) -> anyhow::Result<()> {
    if !server.has_control {
        return server.signal(signal);
    }
    match ask(config, order)? {
        Some(_) => Ok(()),
        None => bail!("the server, process {}, has ended meanwhile", server.pid),
    }
}

/// What a stop may take beyond `process.shutdown_timeout`: workers that do not obey are told, then killed, and the log
/// server ends last.
const STOP_BOUND: Duration = Duration::from_secs(20);
