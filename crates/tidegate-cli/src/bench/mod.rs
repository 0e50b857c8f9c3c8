//! `tidegate bench`: measures servers.
//!
//! `args` is what was typed; what it means is done by `tidegate-bench`, and shown here. The one invariant: exit code 0 means
//! that every answer was right.

mod args;
mod engine;
mod guard;
mod hold;
mod load;
mod load_args;
mod models;
mod plan;
mod progress;
mod tls_args;

pub(crate) use args::BenchArgs;

use std::path::Path;

use anyhow::Context;

use crate::failure::Failure;

/// Does what is asked.
pub(crate) fn carry_out(args: BenchArgs) -> Result<(), Failure> {
    match args {
        BenchArgs::Echo(args) => load::load(&args.load, args.spec()),
        BenchArgs::Http(args) => load::load(&args.load, args.spec()),
        BenchArgs::Msg(args) => load::load(&args.load, args.spec()),
        BenchArgs::Plan(args) => plan::carry_out(&args),
        BenchArgs::Models(args) => models::measure(&args),
        BenchArgs::Guard(args) => guard::become_command(&args),
        BenchArgs::Hold(args) => hold::hold(&args),
        BenchArgs::HoldMember(args) => hold::member(args),
        BenchArgs::Engine(args) => engine::measure(&args),
        BenchArgs::Serve(args) => engine::serve(&args),
    }
}

/// Writes a picture where it is wanted.
fn write_svg(file: Option<&Path>, svg: impl FnOnce() -> String) -> Result<(), Failure> {
    let Some(file) = file else { return Ok(()) };
    std::fs::write(file, svg()).with_context(|| format!("write {}", file.display()))?;
    Ok(())
}

/// What was printed tells what was wrong.
fn told(right: bool) -> Result<(), Failure> {
    if right { Ok(()) } else { Err(Failure::FailedAndTold) }
}
