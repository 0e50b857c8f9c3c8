//! The gateway service: framed messages by their codes to handlers, with accounts, heartbeats and flood control.
//!
//! Read [`Gateway`] and [`FrameContext`] first; [`Client`] is the other end. `docs/protocol.md` is the normative text of what
//! goes over the wire. The invariant: nothing in a callback waits, so one slow request keeps nobody but its own connection.
//!
//! ```
//! use std::time::Duration;
//! use tidegate_engine::{EngineConfig, LoopBuilder};
//! use tidegate_gateway::{Client, Gateway};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! const SHOUT: u16 = 1000;
//! let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let address = socket.local_addr()?;
//! let running = LoopBuilder::new(EngineConfig::default())
//!     .listen("gateway", socket, || {
//!         Ok(Gateway::builder().on(SHOUT, |ctx, body| ctx.reply(SHOUT, &body.to_ascii_uppercase())).build())
//!     })
//!     .spawn()?;
//!
//! let mut client = Client::connect(address, Duration::from_secs(5))?;
//! client.ping()?;
//! client.send(SHOUT, b"hello")?;
//! assert_eq!(client.recv()?.body, b"HELLO");
//! # running.stop();
//! # running.join()?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "accounts")]
mod account;
mod backlog;
mod builder;
mod client;
mod context;
#[cfg_attr(
    not(feature = "accounts"),
    expect(dead_code, reason = "the table of counters is the same whatever the features")
)]
mod counters;
mod gateway;
mod note;
mod rate;
mod session;

pub use builder::{GatewayBuilder, OnUnknown};
pub use client::{Client, ClientError};
pub use context::FrameContext;
pub use gateway::{Gateway, Head};
pub use note::Note;
pub use session::Session;

#[cfg(feature = "accounts")]
pub use tidegate_accounts as accounts;
pub use tidegate_engine::Flow;
pub use tidegate_frame::{BodyTooLong, Frame, LOGIN, MAX_BODY, PING, REGISTER, Status};
