//! How the processes of an operated server log.
//!
//! A program that uses the library without a data folder keeps the `tracing` subscriber it has.

use std::time::Duration;

use tidegate_log::{
    ClientOptions, Levels, LevelsError, LogClient, LogTo, Resource, SharedStore, StderrMode, Store,
    StoreOptions,
};

use tidegate_process::Child;

use super::control;
use super::worker::{chain, tell};
use crate::board::Board;
use crate::config::{AccessLog, Config};
use crate::{Error, ServerBuilder};

/// How long a process that ends waits for its last records to be stored.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Starts to log to the log server.
pub(crate) fn to_server(
    config: &Config,
    role: &str,
    generation: u32,
    board: Option<&Board>,
) -> Result<LogClient, Error> {
    install(config, role, generation, LogTo::Socket(config.log_socket()), board)
}

/// Starts to log, in a child of a server that logs at all.
pub(crate) fn of_child(
    server: &ServerBuilder,
    role: &str,
    generation: u32,
    board: Option<&Board>,
) -> Result<Option<LogClient>, Error> {
    match server.operated {
        true => to_server(&server.config, role, generation, board).map(Some),
        false => Ok(None),
    }
}

/// Tells the master that a child serves. Standard error of a daemon's child is the pipe to its starter, who reads it until
/// all serve: nothing is to have it any more then.
pub(crate) fn ready(server: &ServerBuilder, child: &Child) -> Result<(), Error> {
    if server.config.process.daemon {
        tidegate_sys::daemon::discard_stderr().map_err(Error::system("opening /dev/null"))?;
    }
    child.ready().map_err(Error::system("telling the master"))
}

/// Says why a child ends, if it failed, to the log and to the master; and has its last records stored.
pub(crate) fn end_of_child(child: &Child, what: &str, outcome: &Result<(), Error>, log: Option<LogClient>) {
    if let Err(error) = outcome {
        let error = chain(error);
        tracing::error!(error, "{what}");
        tell(child.failed(&error));
    }
    if let Some(log) = log {
        let _ = log.close(FLUSH_TIMEOUT);
    }
}

/// Has the level of the configuration, changed by what an operator has said.
pub(crate) fn set_levels(log: &LogClient, config: &Config, said: &[String]) {
    let configured = levels_of(config);
    let levels =
        configured.and_then(|levels| said.iter().try_fold(levels, |levels, spec| levels.with_target(spec)));
    match levels {
        Ok(levels) => log.set_levels(&levels),
        // Each was checked when it was said.
        Err(error) => tracing::error!(%error, "the level of the log is not changed"),
    }
}

/// Changes the level of a process, and answers whoever asked for it.
pub(crate) fn answer_level(log: Option<&LogClient>, spec: &str) -> Vec<u8> {
    let Some(log) = log else { return control::error("this program logs by itself") };
    match log.levels().with_target(spec) {
        Ok(levels) => {
            log.set_levels(&levels);
            control::done()
        }
        Err(error) => control::error(&error.to_string()),
    }
}

/// Starts to log into a store of this process, which is returned too.
pub(crate) fn to_store(
    config: &Config,
    role: &str,
    board: Option<&Board>,
) -> Result<(LogClient, SharedStore), Error> {
    // What is stored belongs to no generation.
    let generation: u32 = 0;
    let options = StoreOptions {
        max_file_bytes: config.log.max_file_bytes.get(),
        max_total_bytes: config.log.max_total_bytes.get(),
        ..StoreOptions::new(config.log_dir(), Resource::this_process(role, generation.into()))
    };
    let store = Store::open(options).map_err(|error| Error::Service(error.into()))?;
    let store = SharedStore::new(store);
    let client = install(config, role, generation, LogTo::Store(store.clone()), board)?;
    Ok((client, store))
}

fn install(
    config: &Config,
    role: &str,
    generation: u32,
    to: LogTo,
    board: Option<&Board>,
) -> Result<LogClient, Error> {
    // The configuration has checked it, so the two readers disagree, which is a bug.
    let levels = levels_of(config).map_err(|error| Error::Service(error.into()))?;
    let options = ClientOptions {
        levels,
        stderr: if config.process.daemon { StderrMode::WhenAway } else { StderrMode::Always },
        ring_bytes: config.log.client_buffer.as_usize(),
        recent: board.map(|board| board.recent().clone()),
        ..ClientOptions::new(to, Resource::this_process(role, generation.into()))
    };
    let client = tidegate_log::install(options)?;
    tidegate_log::log_panics();
    Ok(client)
}

/// The levels of the configuration. Who wants an access log has it whatever the level of everything else is.
fn levels_of(config: &Config) -> Result<Levels, LevelsError> {
    let levels = config.log.level.to_string().parse::<Levels>()?;
    let said = config.log.level.targets().any(|(target, _)| target == ACCESS_LOG);
    match config.web.access_log {
        AccessLog::Combined | AccessLog::Json if !said => levels.with_target(&format!("{ACCESS_LOG}=info")),
        _ => Ok(levels),
    }
}

/// The target of the records of requests.
const ACCESS_LOG: &str = "tidegate_web::access";
