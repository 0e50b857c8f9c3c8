//! Connections as operators see them: named over all processes, and told in pages.
//!
//! Invariant: a name is never somebody else's: it says which generation, worker and loop, which place there, and which of
//! its users, one after the other.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tidegate_engine::{ConnId, ConnInfo};
use tidegate_process::ChildAnswer;

use crate::{ConnectionPage, ConnectionStatus, NextClose};

/// The name of a connection: `GENERATION.WORKER.LOOP.SLOT.USER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId {
    pub(crate) generation: u32,
    pub(crate) worker: u32,
    pub(crate) seat: u32,
    pub(crate) loop_number: u32,
    pub(crate) slot: u32,
    pub(crate) user: u32,
}

impl ConnectionId {
    /// Its name within its loop.
    pub(crate) fn in_loop(self) -> ConnId {
        ConnId::from_parts(self.slot, self.user)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, worker, seat, loop_number, slot, user } = self;
        // A worker that replaces another has its number, too.
        let next = if *seat == 0 { "" } else { "n" };
        write!(f, "{generation}.{worker}{next}.{loop_number}.{slot}.{user}")
    }
}

impl FromStr for ConnectionId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not the name of a connection, such as 1.0.0.12.3");
        let parts: Vec<&str> = text.split('.').collect();
        let [generation, worker, loop_number, slot, user] = parts[..] else { return Err(wrong()) };
        let (worker, seat) = worker.strip_suffix('n').map_or((worker, 0), |worker| (worker, 1));
        let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
        Ok(Self {
            generation: number(generation)?,
            worker: number(worker)?,
            seat,
            loop_number: number(loop_number)?,
            slot: number(slot)?,
            user: number(user)?,
        })
    }
}

/// Which connections are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) after: Option<ConnectionId>,
    pub(crate) limit: usize,
}

impl Page {
    /// Reads `after=ID` and `limit=N`.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let mut page = Self { after: None, limit: DEFAULT_PAGE };
        for word in words {
            match word.split_once('=') {
                Some(("after", id)) => page.after = Some(id.parse()?),
                Some(("limit", limit)) => {
                    let limit = limit.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
                    page.limit = limit.ok_or_else(|| format!("limit is a number from 1 to {MAX_PAGE}"))?;
                }
                _ => return Err(format!("{word:?} is neither after=ID nor limit=N")),
            }
        }
        Ok(page)
    }
}

/// What a loop says of a connection of its own.
pub(crate) fn status_of(
    id: ConnectionId,
    info: &ConnInfo,
    listeners: &[(String, String)],
) -> ConnectionStatus {
    let (listener, service) = listeners.get(info.site).cloned().unwrap_or_default();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    ConnectionStatus {
        id: id.to_string(),
        generation: id.generation.into(),
        worker: id.worker.into(),
        listener,
        service,
        peer: info.peer.to_string(),
        age_ms: millis(info.age),
        state: info.state.to_string(),
        bytes_in: info.bytes_in,
        bytes_out: info.bytes_out,
        queued: u64::try_from(info.queued).unwrap_or(u64::MAX),
        next_close: info
            .next_close
            .map(|(reason, left)| NextClose { reason: reason.name().to_owned(), in_ms: millis(left) }),
    }
}

/// Puts the answers of the workers together.
pub(crate) fn merge(page: &Page, answers: &[ChildAnswer], missing: Vec<String>) -> ConnectionPage {
    let mut merged = ConnectionPage { missing, ..ConnectionPage::default() };
    for answer in answers.iter().filter_map(|it| it.answer.as_ref()) {
        match serde_json::from_slice::<ConnectionPage>(answer) {
            Ok(part) => {
                merged.connections.extend(part.connections);
                merged.missing.extend(part.missing);
            }
            Err(error) => merged.missing.push(format!("an answer is not understood: {error}")),
        }
    }
    let id = |it: &ConnectionStatus| it.id.parse::<ConnectionId>().ok();
    merged.connections.sort_by_key(id);
    if merged.connections.len() >= page.limit {
        merged.connections.truncate(page.limit);
        merged.next = merged.connections.last().map(|it| it.id.clone());
    }
    merged
}

/// How many connections a page has unless something else is said.
pub(crate) const DEFAULT_PAGE: usize = 200;
/// How many it has at the most.
pub(crate) const MAX_PAGE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_trip_to_an_operator() {
        let id = ConnectionId { generation: 3, worker: 1, seat: 0, loop_number: 0, slot: 12, user: 7 };
        assert_eq!(id.to_string(), "3.1.0.12.7");
        for id in [id, ConnectionId { seat: 1, ..id }] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["", "1", "1.2.3.4", "1.2.3.4.5.6", "a.0.0.0.0", "1.-1.0.0.0", "1.0.0.0.4294967296"] {
            assert!(wrong.parse::<ConnectionId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_have_their_limits() {
        assert_eq!(Page::parse(&[]), Ok(Page { after: None, limit: DEFAULT_PAGE }));
        assert_eq!(Page::parse(&["limit=1000", "after=1.0.0.2.3"]).unwrap().limit, 1000);
        for wrong in [["limit=0"], ["limit=1001"], ["limit=x"], ["after=1"], ["all"]] {
            assert!(Page::parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
