//! What a client and the log server say to each other on the log socket.
//!
//! The socket is a Unix stream socket. A client sends lines, each a JSON object that ends with a newline, at most
//! [`MAX_LINE_BYTES`](crate::MAX_LINE_BYTES) long. When its first line is a *hello*, the server answers with
//! *acknowledgements*; a program that only wants to log sends no hello and gets no answer at all.
//!
//! ```text
//! client: {"tidegate_log":1,"process":"worker 0","pid":4711,"generation":1}
//!         {"time":…}                                   any number of lines
//! server: +--------------------------------+
//!         | bytes: u64, big-endian         |           any number of times, never decreasing
//!         +--------------------------------+
//! ```
//!
//! `bytes` is how many bytes of lines after the hello, newlines included, the server has taken charge of. What is not
//! acknowledged when a connection ends is sent again on the next one, so a record may be stored twice and is then the same
//! line twice (same pid and `seq`).

use serde::{Deserialize, Serialize};

use crate::Resource;

/// The version of the protocol.
pub(crate) const VERSION: u32 = 1;

/// The bytes of an acknowledgement.
pub(crate) const ACK_BYTES: usize = 8;

/// The first line of a client that wants acknowledgements.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    #[serde(rename = "tidegate_log")]
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) resource: Resource,
}

impl Hello {
    pub(crate) fn line(resource: &Resource) -> Vec<u8> {
        let hello = Self { version: VERSION, resource: resource.clone() };
        let mut line = serde_json::to_vec(&hello).expect("a struct of strings and numbers has a JSON form");
        line.push(b'\n');
        line
    }

    /// The hello in a first line; `None` when it is a record already.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        // Records are told apart without being parsed twice.
        line.starts_with(br#"{"tidegate_log":"#).then(|| serde_json::from_slice(line).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_reads_back_and_a_record_is_none() {
        let resource = Resource { process: "worker 0".into(), pid: 4711, generation: 1 };
        let line = Hello::line(&resource);
        assert_eq!(line, b"{\"tidegate_log\":1,\"process\":\"worker 0\",\"pid\":4711,\"generation\":1}\n");
        assert_eq!(Hello::parse(&line), Some(Hello { version: 1, resource }));
        assert_eq!(Hello::parse(br#"{"time":"2026-01-01T00:00:00Z"}"#), None);
        assert_eq!(Hello::parse(br#"{"tidegate_log":"one"}"#), None);
    }
}
