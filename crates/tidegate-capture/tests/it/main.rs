//! Captures that are made by hand, byte for byte, and what is told of them.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod capture;
mod dialogues;
mod files;
mod links;
mod losses;
mod round_trips;
