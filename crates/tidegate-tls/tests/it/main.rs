//! TLS under the engine: its own cases, and those of the engine's tests once more, with a layer between.
//!
//! What is in the engine's folder is its tests as they are; only their clients are others here.

#[cfg(test)]
#[macro_use]
#[path = "../../../tidegate-engine/tests/it/models.rs"]
mod models;

#[cfg(test)]
mod client;
#[cfg(test)]
mod handshakes;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/lab.rs"]
#[expect(dead_code, reason = "the engine's tests ask for more")]
mod lab;
#[cfg(test)]
mod outgoing;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/support.rs"]
#[expect(dead_code, reason = "the engine's tests ask for more")]
mod support;
#[cfg(test)]
mod ties;

#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/closing.rs"]
mod closing;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/files.rs"]
mod files;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/handles.rs"]
mod handles;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/input.rs"]
mod input;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/output.rs"]
mod output;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/panics.rs"]
mod panics;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/retiring.rs"]
mod retiring;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/suspend.rs"]
mod suspend;
#[cfg(test)]
#[path = "../../../tidegate-engine/tests/it/time.rs"]
mod time;
