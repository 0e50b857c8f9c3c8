//! `Scenario`: what is asked of a server, and by how many.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::{Ask, Sleep};

/// Which [`Protocol`](crate::Protocol) a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// [`Hello`](crate::Hello).
    Hello,
    /// [`Echo`](crate::Echo).
    Echo,
    /// [`Sleep`].
    Sleep,
}

/// A name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of hello, echo, sleep")]
pub struct UnknownService(String);

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "hello",
            Self::Echo => "echo",
            Self::Sleep => "sleep",
        })
    }
}

impl FromStr for ServiceKind {
    type Err = UnknownService;

    fn from_str(name: &str) -> Result<Self, UnknownService> {
        [Self::Hello, Self::Echo, Self::Sleep]
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| UnknownService(name.to_owned()))
    }
}

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What the server speaks.
    pub service: ServiceKind,
    /// Open connections.
    pub connections: usize,
    /// The share of them that asks.
    pub active: f64,
    /// Requests in flight on each of these.
    pub pipeline: usize,
}

impl Scenario {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::few("hello", ServiceKind::Hello, 1),
        Self::few("pipelined", ServiceKind::Hello, 16),
        Self::few("echo", ServiceKind::Echo, 1),
        Self::few("sleep-1ms", ServiceKind::Sleep, 1),
        Self::many("10k-1%", 0.01),
        Self::many("10k-50%", 0.5),
        Self::many("10k-100%", 1.0),
    ];

    const fn few(name: &'static str, service: ServiceKind, pipeline: usize) -> Self {
        Self { name, service, connections: 64, active: 1.0, pipeline }
    }

    const fn many(name: &'static str, active: f64) -> Self {
        Self { name, service: ServiceKind::Echo, connections: 10_000, active, pipeline: 1 }
    }

    /// What is asked. Messages that are echoed have 64 bytes.
    #[must_use]
    pub fn ask(&self) -> Ask {
        match self.service {
            ServiceKind::Hello => {
                let (path, host) = ("/".to_owned(), "tidegate.example".to_owned());
                Ask::Http { path, host, headers: Vec::new() }
            }
            ServiceKind::Echo | ServiceKind::Sleep => Ask::Echo { size: Sleep::MESSAGE_BYTES },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unlike() {
        for (nth, scenario) in Scenario::ALL.iter().enumerate() {
            assert!(Scenario::ALL[..nth].iter().all(|other| other.name != scenario.name));
        }
    }

    #[test]
    fn services_are_found_by_name() {
        assert_eq!("sleep".parse(), Ok(ServiceKind::Sleep));
        assert_eq!("Echo".parse::<ServiceKind>(), Err(UnknownService("Echo".to_owned())));
    }
}
