//! The parts that a child can play.
//!
//! The one invariant: a role survives the trip through the environment, `Role::parse(&role.to_string()) == Some(role)`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// Receives and stores the records of all the others. Started first, stopped last.
    LogServer,
    /// A child that the program added for a purpose of its own; numbered from 0.
    Process(u32),
    /// Accepts connections and hands each to a worker. There is none where the workers accept for themselves.
    Acceptor,
    /// Serves clients; numbered from 0.
    Worker(u32),
    /// Tries out a new binary before the master becomes it: says READY when that would work, and ends.
    Probe,
}

impl Role {
    /// The role that was written by `Display`.
    ///
    /// ```
    /// use tidegate_process::Role;
    ///
    /// assert_eq!(Role::parse("worker:3"), Some(Role::Worker(3)));
    /// assert_eq!(Role::parse("acceptor"), Some(Role::Acceptor));
    /// assert_eq!(Role::parse("worker"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match (text, text.split_once(':')) {
            ("log-server", None) => Some(Self::LogServer),
            ("acceptor", None) => Some(Self::Acceptor),
            ("probe", None) => Some(Self::Probe),
            (_, Some(("process", index))) => index.parse().ok().map(Self::Process),
            (_, Some(("worker", index))) => index.parse().ok().map(Self::Worker),
            _ => None,
        }
    }

    /// What `ps` shows: `tidegate: log server`, `tidegate: worker 0`.
    #[must_use]
    pub fn title(self) -> String {
        match self {
            Self::LogServer => "tidegate: log server".to_owned(),
            Self::Process(index) => format!("tidegate: process {index}"),
            Self::Acceptor => "tidegate: acceptor".to_owned(),
            Self::Worker(index) => format!("tidegate: worker {index}"),
            Self::Probe => "tidegate: probe".to_owned(),
        }
    }

    /// The number of a worker, or of a process that the program added.
    #[must_use]
    pub fn index(self) -> Option<u32> {
        match self {
            Self::LogServer | Self::Acceptor | Self::Probe => None,
            Self::Process(index) | Self::Worker(index) => Some(index),
        }
    }

    /// The number of a worker: the slot that it accepts for.
    pub(crate) fn slot(self) -> Option<u32> {
        match self {
            Self::Worker(index) => Some(index),
            _ => None,
        }
    }

    /// Whether it belongs to a generation, and is retired with it.
    pub(crate) fn is_crew(self) -> bool {
        matches!(self, Self::Worker(_) | Self::Acceptor)
    }
}

/// As it stands in the environment, in records and in the status.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogServer => f.write_str("log-server"),
            Self::Process(index) => write!(f, "process:{index}"),
            Self::Acceptor => f.write_str("acceptor"),
            Self::Worker(index) => write!(f, "worker:{index}"),
            Self::Probe => f.write_str("probe"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_survives_the_environment() {
        let numbered =
            [0, 7, u32::MAX].into_iter().flat_map(|index| [Role::Worker(index), Role::Process(index)]);
        for role in numbered.chain([Role::LogServer, Role::Acceptor, Role::Probe]) {
            assert_eq!(Role::parse(&role.to_string()), Some(role));
        }
    }

    #[test]
    fn anything_else_is_no_role() {
        let texts = [
            "",
            "worker",
            "worker:",
            "worker:-1",
            "worker:4294967296",
            "process",
            "process:x",
            "log-server:1",
            "acceptor:0",
            "probe:",
            "master",
        ];
        for text in texts {
            assert_eq!(Role::parse(text), None, "{text}");
        }
    }
}
