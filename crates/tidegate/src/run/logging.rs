//! How the processes of an operated server log.
//!
//! A program that uses the library without a data folder keeps the `tracing` subscriber it has.

use std::time::Duration;

use tidegate_log::{
    ClientOptions, Levels, LogClient, LogTo, Resource, SharedStore, StderrMode, Store, StoreOptions,
};

use crate::Error;
use crate::config::Config;

/// The only generation so far; a reload will start the next.
pub(crate) const GENERATION: u64 = 1;
/// How long a process that ends waits for its last records to be stored.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts to log to the log server.
pub(crate) fn to_server(config: &Config, role: &str) -> Result<LogClient, Error> {
    install(config, role, LogTo::Socket(config.log_socket()))
}

/// Starts to log into a store of this process, which is returned too.
pub(crate) fn to_store(config: &Config, role: &str) -> Result<(LogClient, SharedStore), Error> {
    let options = StoreOptions {
        max_file_bytes: config.log.max_file_bytes.get(),
        max_total_bytes: config.log.max_total_bytes.get(),
        ..StoreOptions::new(config.log_dir(), Resource::this_process(role, GENERATION))
    };
    let store = Store::open(options).map_err(|error| Error::Service(error.into()))?;
    let store = SharedStore::new(store);
    let client = install(config, role, LogTo::Store(store.clone()))?;
    Ok((client, store))
}

fn install(config: &Config, role: &str, to: LogTo) -> Result<LogClient, Error> {
    let levels: Levels =
        config.log.level.to_string().parse().map_err(|error: tidegate_log::LevelsError| {
            // The configuration has checked it, so the two readers disagree, which is a bug.
            Error::Service(error.into())
        })?;
    let options = ClientOptions {
        levels,
        stderr: StderrMode::Always,
        ring_bytes: config.log.client_buffer.as_usize(),
        ..ClientOptions::new(to, Resource::this_process(role, GENERATION))
    };
    let client = tidegate_log::install(options)?;
    tidegate_log::log_panics();
    Ok(client)
}
