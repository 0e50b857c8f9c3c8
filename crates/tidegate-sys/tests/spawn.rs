//! Children started for real: what a shell finds when it is started by a `Spawn`.
#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::io::{PipeReader, Read};
use std::os::fd::AsFd;
use std::path::Path;

use tidegate_sys::process::{Exe, ExitStatus, Process, Spawn};
use tidegate_sys::signal::{Signal, SignalSet};

/// Starts `sh -c script` with a pipe as descriptor 3, by the name "out".
fn shell(script: &str, arrange: impl for<'a> FnOnce(Spawn<'a>) -> Spawn<'a>) -> (Process, PipeReader) {
    let exe = Exe::open(Path::new("/bin/sh")).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let spawn = Spawn::new(&exe, "tidegate: test", "worker:7").args(["-c", script]).fd("out", writer.as_fd());
    (arrange(spawn).start().unwrap(), reader)
}

fn output_of(script: &str, arrange: impl for<'a> FnOnce(Spawn<'a>) -> Spawn<'a>) -> String {
    let (process, mut reader) = shell(script, arrange);
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert_eq!(process.wait().unwrap(), ExitStatus::Code(0));
    output
}

#[test]
fn role_descriptors_and_pid_stand_in_the_environment() {
    let script = "echo $TIDEGATE_ROLE $TIDEGATE_FDS $TIDEGATE_PID $$ $EXTRA >&3";
    let output = output_of(script, |spawn| spawn.env("EXTRA", "more").fd("input", rustix::stdio::stdin()));
    let words: Vec<_> = output.split_whitespace().collect();
    assert_eq!([words[0], words[1], words[4]], ["worker:7", "out=3,input=4", "more"]);
    assert_eq!(words[2].parse::<u32>().unwrap(), words[3].parse().unwrap());
}

#[test]
fn the_title_is_the_name_in_the_list_of_processes() {
    assert_eq!(
        output_of("tr '\\0' ' ' </proc/$$/cmdline >&3", |spawn| spawn).split(" -c").next(),
        Some("tidegate: test")
    );
}

#[test]
fn a_child_has_the_named_descriptors_and_no_others() {
    // Open and without the flag that closes it at exec, as careless code leaves it.
    let leaked = tempfile::NamedTempFile::new().unwrap();
    rustix::io::fcntl_setfd(leaked.as_file(), rustix::io::FdFlags::empty()).unwrap();
    let output = output_of("for fd in /proc/$$/fd/*; do readlink $fd; done >&3; true", |spawn| spawn);
    assert!(output.contains("pipe:"), "{output}");
    assert!(!output.contains(leaked.path().to_str().unwrap()), "{output}");
}

#[test]
fn places_may_be_taken_by_what_is_handed_over() {
    // Sources whose own numbers are among the places, in the reverse order: each must arrive under its name.
    let (mut readers, mut writers) = (Vec::new(), Vec::new());
    for _ in 0..8 {
        let (reader, writer) = std::io::pipe().unwrap();
        readers.push(reader);
        writers.push(writer);
    }
    let exe = Exe::open(Path::new("/bin/sh")).unwrap();
    // A shell reads more than one digit in a redirection differently from another, so there are six places: 3 to 8.
    let script = "for n in 3 4 5 6 7 8; do eval \"echo $n >&$n\"; done";
    let mut spawn = Spawn::new(&exe, "sh", "test").args(["-c", script]);
    for (number, writer) in writers.iter().take(6).rev().enumerate() {
        spawn = spawn.fd(format!("pipe{number}"), writer.as_fd());
    }
    let process = spawn.start().unwrap();
    assert_eq!(process.wait().unwrap(), ExitStatus::Code(0));
    drop(writers);
    let read = |mut reader: PipeReader| {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    };
    let texts: Vec<_> = readers.into_iter().map(read).collect();
    assert_eq!(texts, ["8\n", "7\n", "6\n", "5\n", "4\n", "3\n", "", ""]);
}

#[test]
fn the_mask_of_the_child_is_the_one_given() {
    let mask = SignalSet::of(&[Signal::TERM]);
    let blocked = |output: String| u64::from_str_radix(output.trim(), 16).unwrap();
    // A shell may block signals of its own for a while, so a builtin reads it, and only these two bits are looked at.
    let script =
        "while read -r key value; do case $key in SigBlk:) echo $value >&3;; esac; done </proc/$$/status";
    let term = 1 << (Signal::TERM.as_raw() - 1);
    assert_eq!(blocked(output_of(script, |spawn| spawn.mask(mask))) & term, term);
    assert_eq!(blocked(output_of(script, |spawn| spawn)) & term, 0);
}

#[test]
fn the_end_of_a_child_tells_how_it_ended() {
    let (process, _reader) = shell("exit 3", |spawn| spawn);
    let status = process.wait().unwrap();
    assert_eq!((status, status.to_string()), (ExitStatus::Code(3), "exit code 3".to_owned()));
    assert!(process.try_wait().is_err(), "reaped once only");

    let (process, reader) = shell("kill -STOP $$", |spawn| spawn);
    assert_eq!(process.try_wait().unwrap(), None);
    process.signal(Signal::KILL).unwrap();
    let status = process.wait().unwrap();
    assert_eq!((status, status.to_string()), (ExitStatus::Signal(9), "signal 9 (KILL)".to_owned()));
    drop(reader);
}
