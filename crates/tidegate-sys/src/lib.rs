//! The system calls of Tidegate behind safe types.
//!
//! This is the only crate of the workspace with `unsafe` code. What `rustix` already offers safely is used from there;
//! what stands here is what it lacks, or what several crates need in the same shape. Nothing here keeps a policy: no
//! limits, no retries, no logging.
#![expect(unsafe_code, reason = "this crate is the place for it")]

pub mod daemon;
pub mod datagram;
pub mod event;
pub mod fd_channel;
pub mod process;
pub mod shared;
pub mod signal;
pub mod socket;
pub mod thread;
pub mod uring;
