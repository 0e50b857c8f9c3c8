//! `tidegate run`: the server in the foreground.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use tidegate::config::{Config, LoadOptions};

use crate::failure::Failure;
use crate::output::say;

/// Serves until a signal ends it.
pub(crate) fn run(options: &LoadOptions) -> Result<(), Failure> {
    take_title()?;
    let config = Config::load(options)?;
    let server = tidegate::from_config(config)?.on_ready(|ready| {
        say(&format!("tidegate: {ready}"));
    });
    Ok(server.run()?)
}

/// Becomes `tidegate: master` in the list of processes.
///
/// What `ps` shows is the memory in which the kernel put the arguments at exec, and there is no safe way to write there. So
/// the process executes its own binary once more with another `argv[0]`, before it has done anything else: the pid, the
/// parent and the arguments stay as they are. `/proc/self/exe` is the very file that runs, whatever stands at its path by
/// now. The kernel then calls the process `exe` where only the short name is shown, hence the second call.
fn take_title() -> anyhow::Result<()> {
    let mut args = std::env::args_os();
    if args.next().is_none_or(|title| title != OsStr::new(TITLE)) {
        let error = Command::new("/proc/self/exe").arg0(TITLE).args(args).exec();
        return Err(error).context("executing /proc/self/exe to take the title of the master");
    }
    rustix::thread::set_name(c"tidegate").context("setting the name of the process")
}

const TITLE: &str = "tidegate: master";
