//! Real processes: this program is the master, the children and the tests, as a user's program is the first two.
//!
//! A test starts the program as a master with a scenario, reads the lines that all its processes write to one pipe, and
//! sends signals. The end of that pipe is the proof that no process is left.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod cases;
mod operations;
mod part;
mod server;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use tidegate_process::Part;

fn main() -> ExitCode {
    match Part::from_env().unwrap() {
        Some(Part::Child(child)) => return part::play_child(child),
        Some(Part::Successor(taken)) => return part::play_successor(taken),
        None => {}
    }
    match std::env::var(part::SCENARIO) {
        Ok(scenario) => part::play_master(&scenario),
        Err(_) => run_tests(),
    }
}

/// Runs the cases whose names contain the first argument that is no option.
fn run_tests() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases::ALL.iter().chain(operations::ALL) {
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        if arguments.iter().any(|argument| argument == "--list") {
            say(&format!("{name}: test"));
            continue;
        }
        let is_ok = catch_unwind(AssertUnwindSafe(case)).is_ok();
        *if is_ok { &mut passed } else { &mut failed } += 1;
        say(&format!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" }));
    }
    say(&format!("test result: {passed} passed; {failed} failed"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line in one call, so that lines of several processes do not mix.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}
