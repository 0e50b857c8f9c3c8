//! `Error`: why a server did not run, and the exit code that says so.

use std::path::PathBuf;

use tidegate_engine::BoxError;
use tidegate_process::control_socket::ControlSocketError;
use tidegate_process::{ChildError, MasterError, PidFileError, SignalsError};

use crate::config::ConfigErrors;
use crate::sockets::BindError;

/// Why a server did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration is wrong; every error of it is in here.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// An address given to the builder cannot be read.
    #[error("address {address:?}: {reason}")]
    Address {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A service of the configuration is not part of this build of the library.
    #[error("listener \"{listener}\": service \"{service}\" is not known to this program")]
    UnknownService {
        /// The listener's name.
        listener: String,
        /// The service it asks for.
        service: String,
    },
    /// An address could not be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An address could not be listened on; with the place of the configuration that says it.
    #[error("{origin}: {source}")]
    BindAt {
        /// The file with line and column, the variable, or the argument.
        origin: String,
        /// What happened.
        source: BindError,
    },
    /// Another instance runs, or the pid file cannot be written.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// The control socket could not be made.
    #[error(transparent)]
    Control(#[from] ControlSocketError),
    /// A service could not be built.
    #[error(transparent)]
    Service(BoxError),
    /// A file or folder could not be used.
    #[error("{what} {}", path.display())]
    File {
        /// What for.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A call of the system failed.
    #[error("{what}")]
    System {
        /// What for.
        what: &'static str,
        /// The error of the system.
        source: std::io::Error,
    },
    /// What the master handed to this child is not usable.
    #[error("this process cannot be a child of its master")]
    Child(#[from] ChildError),
    /// The signals could not be taken over.
    #[error("signals")]
    Signals(#[from] SignalsError),
    /// The log could not be started.
    #[error("log")]
    Log(#[from] tidegate_log::ClientError),
    /// The master cannot go on.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The children did not start; they have said why.
    #[error("the server did not start: a child process ended with code {0} before it was ready")]
    ChildFailed(u8),
}

impl Error {
    /// The exit code: 2 for a configuration that cannot be served, 1 for everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Address { .. } | Self::UnknownService { .. } => 2,
            Self::ChildFailed(code) => *code,
            _ => 1,
        }
    }

    pub(crate) fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
