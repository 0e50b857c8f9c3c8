//! An echo server with a process of its own beside the workers, which says now and then that it is there.
//!
//! `cargo run --release -p tidegate --example process`, then `nc 127.0.0.1 7004`. In `ps` it is `tidegate: sweeper`. Kill it: it
//! is started again, with the same arguments. `kill -HUP` of the master replaces the workers and leaves it alone; a stop ends it
//! with them.

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate::{ProcessContext, ProcessEvent, Server, echo};

/// What the process is told; any type that serde knows.
#[derive(Serialize, Deserialize)]
struct Sweep {
    every: Duration,
    what: String,
}

fn main() -> Result<(), tidegate::Error> {
    let sweep = Sweep { every: Duration::from_secs(10), what: "the sessions of yesterday".to_owned() };
    Server::builder().listen("127.0.0.1:7004", echo).process("sweeper", sweep, sweeper).run()
}

fn sweeper(process: &mut ProcessContext<'_>, sweep: Sweep) -> Result<(), Box<dyn Error + Send + Sync>> {
    let Sweep { every, what } = sweep;
    process.ready()?;
    let mut sweeps = 0;
    loop {
        match process.wait(every)? {
            None => {
                sweeps += 1;
                process.status(&format!("has swept {what} {sweeps} times"))?;
            }
            Some(ProcessEvent::Reopen) => {}
            Some(ProcessEvent::Quit | ProcessEvent::Stop) => return Ok(()),
        }
    }
}
