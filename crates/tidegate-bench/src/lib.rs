//! Measures servers: a load generator, many held connections, and every concurrency model side by side.
//!
//! Read [`LoadSpec`] and [`run`] first, which ask and check the answers, then [`measure`], which puts a server's own cost
//! beside it.
//! [`matrix`] does that for each model in each scenario, and [`hold`] keeps more connections open than one process may have.
//! The servers that are measured stand here too: [`Server`] runs one [`Protocol`] under one [`Model`], among them a
//! poll(2) loop that exists only to be compared with.
//!
//! Nothing here prints, and no figure is taken from a server that gave a wrong answer without saying so.
#![forbid(unsafe_code)]

mod generator;
mod latency;
mod limits;
mod listening;
mod model;
mod process;
mod procfs;
mod protocol;
mod scenario;
mod server;
mod syscalls;
mod table;
mod traffic;
mod usage;

pub mod chart;
pub mod hold;
pub mod matrix;
pub mod measure;
pub mod models;
pub mod plan;
pub mod poll_server;

pub use generator::{
    AddressError, Agreed, Ask, Failures, Held, HttpUrl, LoadError, LoadReport, LoadSpec, Login,
    MAX_CONNECTIONS, MAX_ECHO_BYTES, MAX_IN_FLIGHT_BYTES, MAX_PIPELINE, Progress, Second, Secured, SpecError,
    Stop, name_of, resolve, run, run_held,
};
pub use latency::{Latency, LatencySummary, Percentiles};
pub use listening::server_at;
pub use model::{Model, ModelError, Settings};
pub use process::{ServerProcess, StartError, ready_line, refusal_line};
pub use procfs::{KernelMemory, cpu_time, family, pollers, resident_bytes};
pub use protocol::{Echo, Hello, Measured, Protocol, Sleep};
pub use scenario::{Scenario, ServiceKind};
pub use server::Server;
pub use syscalls::{CountError, CountingTool, SyscallCounter, SyscallCounts, UnknownTool};
pub use tidegate_engine::Target;
pub use usage::{Sampler, Snapshot, Usage};

/// A count per something; 0 when there is nothing.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn per(count: u64, of: f64) -> f64 {
    if of > 0.0 { count as f64 / of } else { 0.0 }
}

/// The median; between the two in the middle when there is an even number.
pub(crate) fn middle(figures: &mut [f64]) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let high = *figures.get(figures.len() / 2)?;
    let low = *figures.get((figures.len() - 1) / 2)?;
    Some(f64::midpoint(low, high))
}
