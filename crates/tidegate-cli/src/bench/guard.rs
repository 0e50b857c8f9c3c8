//! `tidegate bench guard`: a command that ends when the process that started it does, however that ended.
//!
//! The one invariant: the pid stays the same; the guard becomes the command.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::args::GuardArgs;
use crate::failure::Failure;

/// Asks the kernel for a signal when the parent dies, and becomes the command.
pub(super) fn become_command(args: &GuardArgs) -> Result<(), Failure> {
    // It is kept over exec (prctl(2), PR_SET_PDEATHSIG).
    set_parent_process_death_signal(Some(Signal::TERM)).context("PR_SET_PDEATHSIG")?;
    // A parent that died before is not told any more.
    let parent = getppid().map_or(0, |pid| Pid::as_raw(Some(pid)));
    if u32::try_from(parent).ok() != Some(args.parent) {
        return Err(anyhow::anyhow!("the process {} that asked for it has gone", args.parent).into());
    }
    let program = std::env::current_exe().context("find this program")?;
    Err(Command::new(program).args(&args.command).exec()).context("become the command")?;
    Ok(())
}
