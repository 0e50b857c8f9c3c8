//! `Failure`: why a command did not do what it was asked, its exit code, and its text.
//!
//! The one invariant: every failure has a text but those that have told everything themselves.

use std::error::Error as StdError;
use std::io;

use tidegate::config::ConfigErrors;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration is wrong.
    Refused(ConfigErrors),
    /// The configuration is wrong, and how was printed as the result of the command.
    RefusedAndTold,
    /// The server did not run.
    Server(tidegate::Error),
    /// Something else went wrong.
    Failed(anyhow::Error),
    /// What was asked for was refused, and that was printed as the result of the command.
    FailedAndTold,
    /// The server did not run, and another process has said why and with which code.
    Told(u8),
    /// Whoever read the output has read enough; no failure at all.
    OutputClosed,
}

impl Failure {
    /// 0: nothing is wrong, 1: failed, 2: the configuration is refused.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::RefusedAndTold => EXIT_USAGE,
            Self::Server(error) => error.exit_code(),
            Self::Failed(_) | Self::FailedAndTold => EXIT_FAILED,
            Self::Told(code) => *code,
            Self::OutputClosed => 0,
        }
    }

    /// What to tell the caller on standard error.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Refused(errors) | Self::Server(tidegate::Error::Config(errors)) => {
                Some(format!("the configuration is refused\n{errors}"))
            }
            Self::Server(error) => Some(chain(error)),
            Self::Failed(error) => Some(chain(error.as_ref())),
            Self::RefusedAndTold | Self::FailedAndTold | Self::Told(_) | Self::OutputClosed => None,
        }
    }

    /// An error of writing to standard output.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(anyhow::Error::new(error).context("standard output")),
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Refused(errors)
    }
}

impl From<tidegate::Error> for Failure {
    fn from(error: tidegate::Error) -> Self {
        Self::Server(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// An error with all its causes on one line. A cause that the text before ends with already is not repeated.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in std::iter::successors(Some(error), |error| (*error).source()) {
        let next = cause.to_string();
        if text.is_empty() {
            text = next;
        } else if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
    }
    text
}

/// The exit code of what failed.
const EXIT_FAILED: u8 = 1;
/// The exit code of wrong usage and of a configuration that is refused.
pub(crate) const EXIT_USAGE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_says_everything_once() {
        let error = io::Error::other("disk full");
        let error = anyhow::Error::new(error).context("write: disk full").context("saving");
        assert_eq!(chain(error.as_ref()), "saving: write: disk full");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((failure.exit_code(), failure.text()), (0, None));
        let failure = Failure::output(io::ErrorKind::StorageFull.into());
        assert_eq!(failure.exit_code(), 1);
        assert!(failure.text().unwrap().starts_with("standard output: "));
    }
}
