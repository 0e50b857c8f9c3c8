//! Trials: the real server under load, while what must not harm anybody is done to it.
//!
//! Each trial runs short in `cargo test`, where nothing depends on how fast the machine is, and in full with
//! `TIDEGATE_TRIAL=full cargo test -p tidegate-cli --release --test trials -- --nocapture --test-threads=1`, where it prints
//! a line of figures and checks the bounds that the server promises.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a trial fails by a panic, and shows its figures and what its server said"
)]

#[path = "../it/http.rs"]
#[expect(dead_code, reason = "the trials need a part of it")]
mod http;
#[path = "../it/processes.rs"]
#[expect(dead_code, reason = "the trials need a part of it")]
mod processes;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "the trials need a part of it")]
mod support;

mod kernel;
mod load;
mod site;

mod attacked;
mod descriptors;
mod handed_over;
mod injected;
mod killed_master;
mod killed_worker;
mod refused;
mod reloaded;
mod retired;
mod stopped_worker;
mod upgraded;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Whether the trials last as long as the figures ask for.
fn is_full() -> bool {
    std::env::var_os("TIDEGATE_TRIAL").is_some_and(|trial| trial == "full")
}

/// One of two, by whether the trial is a full one.
fn full_or<T>(full: T, short: T) -> T {
    if is_full() { full } else { short }
}

/// Trials run one at a time, or each would measure the others.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line of figures.
fn say(trial: &str, figures: &str) {
    println!("trial {trial}: {figures}");
}

/// What the server promises. Only a full trial, in an optimised server and alone on the machine, can tell.
#[track_caller]
fn check_bound(what: &str, time: Duration, bound: Duration) {
    if is_full() {
        assert!(time <= bound, "{what}: {time:.1?}, promised are {bound:?}");
    }
}
