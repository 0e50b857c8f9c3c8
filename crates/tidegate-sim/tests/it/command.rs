//! The command line: what is told, and the exit code.

use std::process::{Command, Output};

use crate::spawning::output;

fn sim(args: &[&str]) -> Output {
    output(Command::new(env!("CARGO_BIN_EXE_tidegate-sim")).args(args))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn seeds_that_hold_are_counted() {
    let output = sim(&["--scenario", "supervisor", "--seeds", "20", "--from", "7"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).starts_with("supervisor: 20 of 20 seeds in "), "{output:?}");
    assert!(output.stderr.is_empty(), "progress goes to a terminal only");
}

#[test]
fn a_seed_is_told_step_by_step() {
    let told = |seed| {
        let output = sim(&["--scenario", "loop-inline", "--seed", seed]);
        assert_eq!(output.status.code(), Some(0));
        let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        // The last two have the time taken, and where it got.
        lines[..lines.len() - 2].to_vec()
    };
    let lines = told("3");
    assert_eq!(lines[0], "loop-inline, seed 3:");
    assert!(lines.len() > 5 && lines.iter().any(|line| line.ends_with("the loop ends")), "{lines:?}");
    assert_eq!(lines, told("3"));
}

#[test]
fn a_wrong_command_line_is_refused() {
    for args in [&["--seed", "x"][..], &["--scenario", "loop"], &["--seed", "1", "--seeds", "2"]] {
        assert_eq!(sim(args).status.code(), Some(2), "{args:?}");
    }
}
