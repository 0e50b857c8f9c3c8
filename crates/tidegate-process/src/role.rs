//! The parts that a child can play.
//!
//! The one invariant: a role survives the trip through the environment, `Role::parse(&role.to_string()) == Some(role)`.

use std::fmt;

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Receives and stores the records of all the others. Started first, stopped last.
    LogServer,
    /// Serves clients; numbered from 0.
    Worker(u32),
}

impl Role {
    /// The role that was written by `Display`.
    ///
    /// ```
    /// use tidegate_process::Role;
    ///
    /// assert_eq!(Role::parse("worker:3"), Some(Role::Worker(3)));
    /// assert_eq!(Role::parse("worker"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "log-server" => Some(Self::LogServer),
            Some(("worker", index)) => index.parse().ok().map(Self::Worker),
            _ => None,
        }
    }

    /// What `ps` shows: `tidegate: log server`, `tidegate: worker 0`.
    #[must_use]
    pub fn title(self) -> String {
        match self {
            Self::LogServer => "tidegate: log server".to_owned(),
            Self::Worker(index) => format!("tidegate: worker {index}"),
        }
    }

    pub(crate) fn is_log_server(self) -> bool {
        self == Self::LogServer
    }

    pub(crate) fn is_worker(self) -> bool {
        !self.is_log_server()
    }

    /// The number of a worker.
    #[must_use]
    pub fn index(self) -> Option<u32> {
        match self {
            Self::LogServer => None,
            Self::Worker(index) => Some(index),
        }
    }
}

/// As it stands in the environment, in records and in the status.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogServer => f.write_str("log-server"),
            Self::Worker(index) => write!(f, "worker:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_survives_the_environment() {
        for role in [Role::LogServer, Role::Worker(0), Role::Worker(u32::MAX)] {
            assert_eq!(Role::parse(&role.to_string()), Some(role));
        }
    }

    #[test]
    fn anything_else_is_no_role() {
        for text in ["", "worker", "worker:", "worker:-1", "worker:4294967296", "log-server:1", "master"] {
            assert_eq!(Role::parse(text), None, "{text}");
        }
    }
}
