//! Timers without a clock: monotonic instants and a hierarchical wheel.
//!
//! Read [`TimerQueue`] and [`Wheel`] first. The caller owns the clock: it says what time it is with every call that
//! needs to know, so a whole day of timers is tested in a millisecond.
//!
//! Invariant of the crate: a timer never fires before its deadline, and a stale key never reaches another timer.
//!
//! Nothing here sleeps, reads a clock or calls the user back.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(test)]
mod conformance;
mod instant;
mod queue;
mod slab;
mod wheel;

pub use instant::Instant;
pub use queue::{TimerKey, TimerQueue};
pub use wheel::Wheel;
