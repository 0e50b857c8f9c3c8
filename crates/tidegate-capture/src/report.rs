//! `Report`: everything that is told of a capture.
//!
//! Invariant: times are whole nanoseconds, and what is not known is absent and not 0. Nothing here computes.

use serde::Serialize;

use crate::dialogue::Protocol;
use crate::finding::Counts;
use crate::rtt::RttReport;
use crate::sample::{Percentiles, Point};

/// What a capture tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The file itself.
    pub file: FileReport,
    /// All connections together.
    pub total: TotalReport,
    /// Each of them, in the order in which they ended or, where they did not, began.
    pub connections: Vec<ConnectionReport>,
    /// So many more are in the total only.
    pub connections_not_listed: u64,
    /// Requests and their answers by what was asked for, the most frequent first.
    pub messages: Vec<MessageReport>,
    /// Round trips between the place of the capture and the servers over time: no more than a few thousand points, each of
    /// which is the greatest of those that it stands for.
    pub course_to_server: Vec<Point>,
    /// The same of the clients.
    pub course_to_client: Vec<Point>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileReport {
    /// `pcap` or `pcapng`.
    pub format: &'static str,
    /// All packets.
    pub packets: u64,
    /// When the first one was captured, in nanoseconds since 1970.
    pub first_ns: u64,
    /// Up to the last one, in nanoseconds.
    pub duration_ns: u64,
    /// Packets of connections that are told of.
    pub segments: u64,
    /// Packets of other connections than were asked for.
    pub other_connections: u64,
    /// Packets that are not TCP over IP.
    pub other_protocols: u64,
    /// Fragments of IP packets, which are not put together.
    pub fragments: u64,
    /// Packets of which not even the headers are there, or whose headers are wrong.
    pub broken: u64,
    /// Packets of a link that is not known here.
    pub unknown_links: u64,
    /// One of these links, as a LINKTYPE number of tcpdump.org.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_link: Option<i32>,
    /// Why the file was not read to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

/// All connections.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TotalReport {
    /// How many there were.
    pub connections: u64,
    /// From the SYN to the client's acknowledgement of the answer, where nothing of that was sent twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Percentiles>,
    /// From data (or a FIN) of clients to the acknowledgement, as seen at the place of the capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_to_server: Option<RttReport>,
    /// From data (or a FIN) of servers to the acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_to_client: Option<RttReport>,
    /// What clients sent.
    pub from_clients: Counts,
    /// What servers sent.
    pub from_servers: Counts,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionReport {
    /// The address of who opened it; of the higher port when the capture does not have its begin.
    pub client: String,
    /// The address of the other end.
    pub server: String,
    /// When its first packet was captured, in nanoseconds since 1970.
    pub first_ns: u64,
    /// Up to its last packet, in nanoseconds.
    pub duration_ns: u64,
    /// How it ended.
    pub end: End,
    /// The capture has its begin.
    pub has_begin: bool,
    /// From the SYN to the client's acknowledgement of the answer, in nanoseconds; absent when something of it was sent
    /// twice, since nobody knows then which of them was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_ns: Option<u64>,
    /// From data (or the FIN) of the client to the acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_to_server: Option<RttReport>,
    /// From data (or the FIN) of the server to the acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_to_client: Option<RttReport>,
    /// What the client sent.
    pub from_client: Counts,
    /// What the server sent.
    pub from_server: Counts,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Not within the capture.
    Open,
    /// By a FIN from both sides.
    Closed,
    /// By a RST.
    Reset,
}

/// Requests of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageReport {
    /// The protocol.
    pub protocol: Protocol,
    /// Method and path, or the code of the message; empty where requests have no names.
    pub what: String,
    /// From the request's last byte to the answer's first, at the place of the capture; its `count` is how many were
    /// answered.
    pub to_first_byte: Percentiles,
    /// From the request's last byte to the answer's last.
    pub to_last_byte: Percentiles,
    /// What of the time to the first byte the server took: without the shortest way from the place of the capture to the
    /// server and back, and only where nothing was sent again or came late meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Percentiles>,
}
