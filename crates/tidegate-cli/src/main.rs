//! `tidegate`: the server and its tools.
//!
//! A command goes through two stages: `args` is what was typed, `command` is what it means. What a command prints goes
//! through `output`, and an error is printed once, here. The one invariant: a process that a master started never gets to
//! the command line.
#![forbid(unsafe_code)]

mod allocator;
mod args;
mod ask;
mod bench;
mod cert;
mod command;
mod configuration;
mod connections;
mod control;
mod failure;
mod human;
mod latency;
mod latency_table;
mod log_tail;
mod msg;
mod orders;
mod output;
mod password;
mod process;
mod run;
mod status_table;
mod table;
mod users;

use std::process::ExitCode;

use clap::Parser;

use args::Args;
use command::Request;
use failure::Failure;
use output::say;

fn main() -> ExitCode {
    if let Some(outcome) = tidegate::run_if_child() {
        // Its title, as `tidegate: worker 0`, tells whose error it is.
        let title = std::env::args_os().next().unwrap_or_default();
        return finish(&title.to_string_lossy(), outcome.map_err(Failure::from));
    }
    match Args::try_parse() {
        Ok(args) => finish("tidegate", Request::of(args).carry_out()),
        Err(usage) => refuse_usage(&usage),
    }
}

fn finish(who: &str, outcome: Result<(), Failure>) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    if let Some(text) = failure.text() {
        say(&format!("{who}: {text}"));
    }
    ExitCode::from(failure.exit_code())
}

/// Help and version, which clap hands out as errors too, go to standard output and are no failure.
fn refuse_usage(usage: &clap::Error) -> ExitCode {
    // Not `exit`: it would panic when the reader of the help has gone.
    let _ = usage.print();
    if usage.use_stderr() { ExitCode::from(failure::EXIT_USAGE) } else { ExitCode::SUCCESS }
}
