//! Timers without a clock: monotonic instants, and four queues behind one trait.
//!
//! Read [`TimerQueue`] and [`Kind`] first: what a queue promises, and which one to choose. The caller owns the clock: it says what time it is with every call that
//! needs to know, so a whole day of timers is tested in a millisecond.
//!
//! Invariant of the crate: a timer never fires before its deadline, and a stale key never reaches another timer.
//!
//! Nothing here sleeps, reads a clock or calls the user back.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod any;
mod clock;
#[cfg(test)]
mod conformance;
mod heap;
mod instant;
mod list;
mod queue;
mod ring;
mod slab;
mod tree;
mod wheel;

pub use any::{AnyQueue, Kind};
pub use heap::Heap;
pub use instant::Instant;
pub use list::List;
pub use queue::{TimerKey, TimerQueue};
pub use tree::Tree;
pub use wheel::Wheel;
