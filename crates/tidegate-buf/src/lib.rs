//! Buffers without I/O: a ring, a pool of fixed blocks, and a chain for vectored writes.
//!
//! Read [`Pool`] and [`Chain`] first: a pool bounds the memory of one event loop, and a chain is the output of one
//! connection that the kernel refused, kept in blocks of that pool. [`Ring`] is a bounded queue of bytes that needs
//! no pool.
//!
//! Invariant of the crate: nothing here grows beyond the limit it was made with. A refusal is a return value and
//! leaves the buffer as it was.
//!
//! Nothing here knows a socket, a file, a thread or a clock.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod chain;
mod pool;
mod ring;

pub use chain::{Chain, PoolExhausted};
pub use pool::{Block, Pool};
pub use ring::Ring;
