//! The log service: records, a client that never blocks, and the log server.
//!
//! ```text
//!  any thread          thread "log-client"           the log server's process
//!  +-----------+       +-----------------+           +-----------+   +-------+   files of
//!  | tracing   |------>| bounded queue   |---------->| LogServer |-->| Store |-->JSON lines
//!  | layer     | never |                 |<----------|           |   |       |
//!  +-----------+ waits +--------+--------+ acknow-   +-----------+   +-------+
//!                               v          ledged
//!                         standard error
//! ```
//!
//! Every process [`install`]s a client; its `tracing` events become [`Record`]s. One process runs [`LogServer`] over a
//! [`Store`], and [`Tail`] with [`render`] shows people what is stored. Read [`LogClient`] and [`LogServer`] first.
//!
//! # What is promised
//!
//! * Logging never waits for a socket, a disk or a terminal. What finds no room is dropped and counted, and a record says
//!   how many.
//! * A record that the queue took is delivered at least once, as long as its process lives and [`LogClient::flush`]es before
//!   it ends. A record that was on its way when the log server died is stored twice: as the same line, with the same pid
//!   and `seq`.
//! * The server acknowledges what is in a file, or in its buffer while the disk takes nothing. What is in that buffer when
//!   the server is killed is lost; so is what a killed client had not sent.
//! * No line is stored in part, and none costs another.
#![forbid(unsafe_code)]

mod client;
mod encode;
mod files;
mod hex;
mod last;
mod layer;
mod levels;
mod queue;
mod recent;
mod record;
mod render;
mod screen;
mod sender;
mod server;
mod socket;
mod store;
mod tail;
mod wire;

pub use client::{ClientError, ClientOptions, Flushed, LogClient, LogTo, StderrMode, install, log_panics};
pub use hex::{HEX_DEFAULT_BYTES, Hex, hex, hex_up_to};
pub use last::last_records;
pub use layer::TidegateLayer;
pub use levels::{Levels, LevelsError};
pub use recent::Recent;
pub use record::{MAX_LINE_BYTES, Record, RecordError, Resource, Severity, UnknownSeverity};
pub use render::{Colour, render, render_body, render_record};
pub use server::{LogServer, LogSession};
pub use store::{SharedStore, Store, StoreCounts, StoreError, StoreOptions};
pub use tail::{Tail, TailOptions};
