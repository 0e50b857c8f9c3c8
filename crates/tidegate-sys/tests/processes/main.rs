//! Real processes that are this program again: replaced in place, run as another user, detached.
//!
//! A test starts the program with a role, reads what it writes to a pipe until the end, and compares the text.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod activated;
mod credentials;
mod daemon;
mod replace;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use tidegate_sys::process::{Exe, ExitStatus, Inherited, Spawn};

type Case = (&'static str, fn());

fn main() -> ExitCode {
    if let Some(inherited) = Inherited::take().unwrap() {
        return Part { role: inherited.role, fds: inherited.fds }.play();
    }
    if std::env::var_os(activated::PART).is_some() {
        return activated::play();
    }
    run_tests(&[replace::ALL, credentials::ALL, daemon::ALL, activated::ALL].concat())
}

/// Runs the cases whose names contain the first argument that is no option.
fn run_tests(cases: &[Case]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases {
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

/// What this program is in a process that a test started.
struct Part {
    role: String,
    fds: Vec<(String, OwnedFd)>,
}

impl Part {
    fn play(mut self) -> ExitCode {
        let mut out = File::from(self.take_fd("out").unwrap());
        match self.role.as_str() {
            "replace:first" => replace::play_first(self, &out),
            "replace:second" => replace::play_second(self, &mut out),
            "credentials" => credentials::play(&mut out),
            role if role.starts_with("daemon:") => daemon::play(self, &out),
            "path" => write!(out, "{}", Exe::path_of_self().unwrap().display()).unwrap(),
            "end:7" => return ExitCode::from(7),
            role => panic!("role {role:?}"),
        }
        ExitCode::SUCCESS
    }

    fn take_fd(&mut self, name: &str) -> Option<OwnedFd> {
        let index = self.fds.iter().position(|(known, _)| known == name)?;
        Some(self.fds.remove(index).1)
    }
}

/// Starts it, and returns what it wrote to "out" until nobody had that any more.
fn output_of(spawn: Spawn<'_>) -> String {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let process = spawn.fd("out", writer.as_fd()).start().unwrap();
    drop(writer);
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert_eq!(process.wait().unwrap(), ExitStatus::Code(0), "{output}");
    output
}

/// One line in one call, so that lines of several processes do not mix.
fn say(line: &str) {
    std::io::stdout().write_all(format!("{line}\n").as_bytes()).unwrap();
}
