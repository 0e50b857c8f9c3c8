//! Latency of TCP connections from capture files: round trips, losses, and what servers take to answer.
//!
//! Read [`analyse`] first, which does everything, and [`Report`], which is what it tells. Bytes of a file go in and figures
//! come out: nothing here captures, and nothing knows a clock. What a packet was found to be has one name for each case, a
//! [`Finding`], and every count is a count of these.
//!
//! What is measured where: a capture sees packets at one place. The time from data to its acknowledgement is the way from
//! there to the receiver and back; the two directions of a connection tell the two halves of the whole way.
//!
//! Invariant: no input panics, and memory does not grow with the length of the file.
#![forbid(unsafe_code)]

mod analyzer;
mod assembly;
mod connection;
mod dialogue;
mod file;
mod finding;
mod flow;
mod message;
mod packet;
mod report;
mod rtt;
mod sample;
mod sequence;

pub use analyzer::{Analyzer, Options, analyse, analyse_from};
pub use dialogue::{Protocol, ProtocolChoice};
pub use file::{CaptureError, CaptureFile, MAX_RECORD, Packet};
pub use finding::{Counts, Finding, Side, Trigger};
pub use report::{ConnectionReport, End, FileReport, MessageReport, Report, TotalReport};
pub use rtt::RttReport;
pub use sample::{Percentiles, Point};
