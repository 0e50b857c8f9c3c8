//! The command line itself: exit codes, commands of later versions, and readers that go.

use std::process::{Command, Output, Stdio};

use tempfile::tempdir;

use crate::http::get;
use crate::support::{Setup, TIDEGATE, clean, output_of, stderr, stdout, tidegate_in};

fn run(args: &[&str]) -> Output {
    let dir = tempdir().unwrap();
    tidegate_in(dir.path(), args)
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &["rnu"][..],
        &["run", "--nothing"],
        &["msg", "ping"],
        &["log", "tail", "--level", "loud"],
        &["pause"],
        &["close", "first"],
        &["loglevel", "a=loud"],
        &["connections", "--limit", "0"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).starts_with("error: ") && output.stdout.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn help_and_version_are_no_failures() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    for part in [
        "run",
        "stop",
        "reload",
        "upgrade",
        "drain",
        "pause",
        "resume",
        "connections",
        "close",
        "loglevel",
        "status",
        "check",
        "config",
        "msg",
        "password",
        "log",
        "bench",
        "Exit codes: 0 ",
    ] {
        assert!(stdout(&help).contains(part), "{part}");
    }
    let version = run(&["-V"]);
    assert_eq!(stdout(&version), format!("tidegate {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_long_version_names_the_allocator() {
    let allocator = match (cfg!(feature = "jemalloc"), cfg!(feature = "mimalloc")) {
        (true, _) => "jemalloc",
        (false, true) => "mimalloc",
        (false, false) => "system",
    };
    let version = run(&["--version"]);
    let expect = format!("tidegate {}\nallocator: {allocator}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&version), expect);
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    let to = server.address("gateway").to_string();
    for args in [
        &["log", "tail"][..],
        &["log", "tail", "--json"],
        &["log", "tail", "-f"],
        &["status"],
        &["config"],
        &["check"],
        &["msg", "ping", "--to", &to, "--count", "100000"],
        &["--help"],
        &["--version"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        // Not through `output_of`, which would read.
        let mut command = Command::new(TIDEGATE);
        clean(&mut command, dir.path()).args(server.with_settings(args));
        let mut child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let status = crate::processes::Watched::open(crate::support::id(&child)).wait_exit();
        assert_eq!(status, crate::processes::Exit::Code(0), "{args:?}");
        let mut said = String::new();
        std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut said).unwrap();
        child.wait().unwrap();
        assert_eq!(said, "", "{args:?}");
    }
}

#[test]
fn without_a_command_it_runs() {
    let dir = tempdir().unwrap();
    let file =
        "data_dir = \"data\"\n[[listen]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nservice = \"web\"\n";
    std::fs::write(dir.path().join("tidegate.toml"), file).unwrap();
    let server = Setup::file(&dir).without_command().start();
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    let mut stop = Command::new(TIDEGATE);
    clean(&mut stop, dir.path()).arg("stop");
    assert_eq!(output_of(&mut stop).status.code(), Some(0));
    assert_eq!(server.wait_exit(), crate::processes::Exit::Code(0));
}
