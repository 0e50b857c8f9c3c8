//! `tidegate run` and `tidegate start`: the server, in the foreground or detached from the terminal.
//!
//! The one invariant: the command that starts a server in the background ends when that serves, or with its exit code and
//! its errors, whatever becomes of it.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};
use tidegate::config::{Config, LoadOptions};
use tidegate::daemon::{self, Detached, Notifier, Outcome};

use crate::failure::Failure;
use crate::output::say;

/// Serves until a signal ends it; in the background if the configuration says so.
pub(crate) fn run(options: &LoadOptions) -> Result<(), Failure> {
    take_title()?;
    let options = settled(options)?;
    match Config::load(&options)?.process.daemon {
        true => in_background(&options),
        false => serve(&options, None),
    }
}

/// Serves in the background, and returns when it does.
pub(crate) fn start(options: &LoadOptions) -> Result<(), Failure> {
    take_title()?;
    let mut options = settled(options)?;
    options.set.push("process.daemon=true".to_owned());
    // What is wrong with it is said on the terminal, before there is another process.
    Config::load(&options)?.check_certificates()?;
    in_background(&options)
}

/// Options that mean the same in another folder.
fn settled(options: &LoadOptions) -> Result<LoadOptions, Failure> {
    let current_dir = std::env::current_dir().context("the current folder")?;
    Ok(LoadOptions { current_dir: Some(current_dir), ..options.clone() })
}

fn in_background(options: &LoadOptions) -> Result<(), Failure> {
    let notifier = match daemon::detach(&[]).context("leaving the terminal")? {
        Detached::Daemon(notifier) => notifier,
        Detached::Starter(waiter) => {
            return match waiter.wait(std::io::stderr()).context("waiting for the server")? {
                Outcome::Ready { .. } => Ok(()),
                Outcome::Failed(code) => Err(Failure::Told(code)),
                Outcome::Died => Err(Failure::Failed(anyhow!("the server died before it was ready"))),
            };
        }
    };
    let starter = Arc::new(Mutex::new(Some(notifier)));
    let outcome = serve(options, Some(Arc::clone(&starter)));
    let waits = starter.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (outcome, waits) {
        (Err(failure), Some(starter)) => {
            // The starter shows it, and ends when this process has.
            if let Some(text) = failure.text() {
                say(&format!("tidegate: {text}"));
            }
            let code = failure.exit_code();
            if let Err(error) = starter.failed(code) {
                say(&format!("tidegate: the starter cannot be told: {error}"));
            }
            // Held until the end, or the starter would end before the last line was copied.
            std::mem::forget(starter);
            Err(Failure::Told(code))
        }
        (outcome, _) => outcome,
    }
}

fn serve(options: &LoadOptions, starter: Option<Arc<Mutex<Option<Notifier>>>>) -> Result<(), Failure> {
    let server = tidegate::from_options(options)?.on_ready(move |ready| {
        say(&format!("tidegate: {ready}"));
        let starter =
            starter.and_then(|starter| starter.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(error) = starter.and_then(|starter| starter.ready().err()) {
            say(&format!("tidegate: the starter cannot be told: {error}"));
        }
    });
    Ok(server.run()?)
}

/// Becomes `tidegate: master` in the list of processes.
///
/// What `ps` shows is the memory in which the kernel put the arguments at exec, and there is no safe way to write there. So
/// the process executes its own binary once more with another `argv[0]`, before it has done anything else: the pid, the
/// parent and the arguments stay as they are. `/proc/self/exe` is the very file that runs, whatever stands at its path by
/// now; where that path was goes along, for an upgrade. The kernel then calls the process `exe` where only the short name
/// is shown, hence the second call.
fn take_title() -> anyhow::Result<()> {
    let mut args = std::env::args_os();
    let title = args.next().unwrap_or_default();
    if title != OsStr::new(TITLE) {
        // A name without a folder was looked for in PATH; a relative one means nothing in the folder of a daemon.
        let program = match Path::new(&title).components().count() {
            0 | 1 => title,
            _ => std::path::absolute(title).context("the current folder")?.into_os_string(),
        };
        let mut command = Command::new("/proc/self/exe");
        command.arg0(TITLE).args(args).env(tidegate::ENV_PROGRAM, program);
        return Err(command.exec()).context("executing /proc/self/exe to take the title of the master");
    }
    rustix::thread::set_name(c"tidegate").context("setting the name of the process")
}

const TITLE: &str = "tidegate: master";
