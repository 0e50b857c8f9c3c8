//! The web service on real sockets: a loop on a thread of its own, port 0, and a client that reads answers by the book.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skips"
)]

// The parser's table of malformed requests: what it refuses, the server answers and closes.
#[path = "../../../tidegate-http/tests/corpus/mod.rs"]
mod corpus;

mod access_log;
mod answers;
#[cfg(feature = "accounts")]
mod api;
mod bodies;
mod changes;
mod client;
mod clients;
mod conditions;
mod counters;
mod curl;
mod encodings;
mod exhaustion;
mod files;
mod folders;
mod forms;
mod gates;
mod handlers;
mod lifecycle;
mod messages;
mod once;
mod pace;
mod ranges;
mod refusals;
mod sites;
mod streams;
mod together;
mod uploads;
