//! Starting other programs beside simulations in the same process.
//!
//! Until it runs its program, a process that was just started has a copy of every descriptor, and a simulation that ends at
//! that moment takes it for one that was not closed. Invariant: no seed is run while a process is being started.

use std::process::{Command, Output, Stdio};
use std::sync::{PoisonError, RwLock};

static STARTING: RwLock<()> = RwLock::new(());

/// Runs a program to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let alone = STARTING.write().unwrap_or_else(PoisonError::into_inner);
    // It answers when the program runs.
    let child = command.spawn().unwrap();
    drop(alone);
    child.wait_with_output().unwrap()
}

/// Does something while no program is being started.
pub(crate) fn apart<T>(run: impl FnOnce() -> T) -> T {
    let _shared = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    run()
}
