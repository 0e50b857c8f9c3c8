//! `ConnectionPage`: what `tidegate connections` is answered.
//!
//! Both ends of the control socket use these types, so that they cannot disagree. Nothing here knows where the values come
//! from.

use serde::{Deserialize, Serialize};

/// Some of the connections of a server, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionPage {
    /// The connections.
    pub connections: Vec<ConnectionStatus>,
    /// The id behind which the next page begins; `None` when there is no further one.
    pub next: Option<String>,
    /// Whose connections are not here, and why: `worker 1 (pid 77) does not answer`.
    #[serde(default)]
    pub missing: Vec<String>,
}

/// A connection at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus {
    /// `GENERATION.WORKER.LOOP.SLOT.USER`, as `close` takes it.
    pub id: String,
    /// The generation of the worker that holds it.
    pub generation: u64,
    /// The number of that worker.
    pub worker: u64,
    /// The listener that it came through.
    pub listener: String,
    /// What serves it.
    pub service: String,
    /// Who is at the other end; empty where that has no address.
    #[serde(default)]
    pub peer: String,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// What it waits for, in a word or two.
    pub state: String,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Bytes of output that the peer has not taken.
    pub queued: u64,
    /// Why it would be closed next if nothing happened; `None` when it would stay.
    #[serde(default)]
    pub next_close: Option<NextClose>,
}

/// The deadline of a connection that is the next to end it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextClose {
    /// The name of the reason, as `idle-timeout`.
    pub reason: String,
    /// Milliseconds until then.
    pub in_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_the_protocol_writes_it() {
        let text = r#"{"connections":[{"id":"1.0.0.12.3","generation":1,"worker":0,"listener":"web","service":"web",
            "peer":"127.0.0.1:4711","age_ms":1500,"state":"idle","bytes_in":80,"bytes_out":120,"queued":0,
            "next_close":{"reason":"keep-alive-timeout","in_ms":73500}}],"next":"1.0.0.12.3",
            "missing":["worker 1 (pid 77) does not answer"]}"#;
        let page: ConnectionPage = serde_json::from_str(text).unwrap();
        assert_eq!(page.connections[0].next_close.as_ref().unwrap().in_ms, 73500);
        let again: ConnectionPage = serde_json::from_str(&serde_json::to_string(&page).unwrap()).unwrap();
        assert_eq!(again, page);
        let last: ConnectionPage = serde_json::from_str(r#"{"connections":[],"next":null}"#).unwrap();
        assert_eq!(last, ConnectionPage::default());
    }
}
