//! The probe: the program that is to take over is tried out as a child before it does.
//!
//! It reads the state that a successor would be handed, reads and checks its configuration, and builds everything that a
//! worker has but its sockets. Invariant: it accepts nothing and writes no record, so that nothing is different after it.

use std::os::fd::AsFd;

use serde::Deserialize;
use tidegate_process::{Child, PROBE_STATE, check_state};
use tidegate_sys::shared::read_all;

use super::build::Built;
use super::master::FrozenHooks;
use super::single;
use super::worker::{chain, tell};
use crate::{Error, ServerBuilder};

/// Says READY when this program could serve in the place of the one that started it, and why not otherwise.
pub(crate) fn run(
    server: impl FnOnce(&serde_json::Value) -> Result<ServerBuilder, Error>,
    mut child: Child,
) -> Result<(), Error> {
    let outcome = try_out(server, &mut child);
    match &outcome {
        Ok(()) => child.ready().map_err(Error::system("telling the master"))?,
        Err(error) => tell(child.failed(&chain(error))),
    }
    outcome
}

fn try_out(
    server: impl FnOnce(&serde_json::Value) -> Result<ServerBuilder, Error>,
    child: &mut Child,
) -> Result<(), Error> {
    let state =
        child.take_fd(PROBE_STATE).ok_or_else(|| Error::Service("no state was handed over".into()))?;
    check_state(&state).map_err(|error| Error::Service(error.into()))?;
    let bytes = read_all(state.as_fd(), MAX_STATE_BYTES).map_err(Error::system("reading the state"))?;
    let state: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| Error::Service(error.into()))?;
    FrozenHooks::deserialize(&state["hooks"]).map_err(|error| Error::Service(error.into()))?;
    let server = server(&state["hooks"]["source"])?.checked()?;
    let status = single::counters(&server);
    let built = Built::without_sockets(&server, &status, single::places(&server, &status))?;
    drop(built);
    Ok(())
}

const MAX_STATE_BYTES: usize = 64 << 20;
