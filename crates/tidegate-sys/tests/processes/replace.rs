//! A process that becomes this program again, in another role.

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use tidegate_sys::process::{Exe, ExitStatus, Process, Replace, ReplaceError, Spawn, thread_count};
use tidegate_sys::signal::{Signal, SignalFd, SignalSet};

use crate::{Case, Part, output_of};

pub(crate) const ALL: &[Case] = &[
    ("what_a_process_has_passes_over_to_the_new_program", everything_passes_over),
    ("a_binary_that_was_removed_is_executed_and_has_its_former_path", removed_binary),
];

fn everything_passes_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("locked");
    let file = File::create(&path).unwrap();
    let mask = SignalSet::of(&[Signal::TERM, Signal::USR2]);
    let exe = Exe::open_self().unwrap();
    let spawn = Spawn::new(&exe, "test: first", "replace:first").args([&path]).mask(mask);
    // The first is not there any more at an exec, where its descriptors are not either.
    let spawn = spawn.env("LISTEN_FDS", "1").env("NOTIFY_SOCKET", "@x");
    let output = output_of(spawn.fd("locked", file.as_fd()));
    let lines: Vec<_> = output.lines().collect();
    let (pids, rest) = lines.split_at(2);
    assert_eq!(pids[0], pids[1], "the pid stays");
    let expected = [
        "title test: second",
        "descriptors ended,pipe,locked",
        "others none",
        "threads 1",
        "notify true listen false",
        "TERM waited",
        "nothing else waited",
        "ended exit code 7",
        "running exit code 7",
        "lock is held",
        "pipe: written before",
    ];
    assert_eq!(rest, expected);
}

/// Holds a lock, has two children of which one has ended, is sent a signal, and then becomes the second.
pub(crate) fn play_first(mut part: Part, out: &File) {
    let locked = part.take_fd("locked").unwrap();
    flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"written before").unwrap();
    drop(writer);
    let exe = Exe::open_self().unwrap();
    let (gate, _gate_end) = std::io::pipe().unwrap();
    let child = |name| Spawn::new(&exe, name, "end:7").fd("out", gate.as_fd()).start().unwrap();
    let (ended, running) = (child("ended"), child("running"));
    poll(&mut [PollFd::new(&ended, PollFlags::IN)], None).unwrap();
    writeln!(&*out, "{}", std::process::id()).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), Signal::TERM).unwrap();
    // A thread that goes on for ever, and the exec in one that is not the first.
    std::thread::spawn(|| {
        loop {
            std::thread::park()
        }
    });
    std::thread::scope(|scope| {
        scope.spawn(|| become_second(&exe, [&ended, &running], out, &locked, &reader)).join().unwrap();
    });
}

fn become_second(exe: &Exe, children: [&Process; 2], out: &File, locked: &OwnedFd, reader: &PipeReader) {
    // A descriptor that careless code left open at exec is not for the next program.
    let careless = File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&careless, rustix::io::FdFlags::empty()).unwrap();
    let no_program = Exe::open(Path::new("/dev/null")).unwrap();
    let error = Replace::new(&no_program, "test", "replace:second").fd("locked", locked.as_fd()).exec();
    assert!(matches!(error, ReplaceError::Io { step: "exec of the binary", .. }), "{error:?}");
    let pids = children.map(|child| child.pid().to_string());
    let path = std::env::args_os().nth(1).unwrap();
    let replace = Replace::new(exe, "test: second", "replace:second").args(pids).args([path]);
    let replace = replace.fd("out", out.as_fd()).fd("ended", children[0].as_fd());
    let error = replace.fd("pipe", reader.as_fd()).fd("locked", locked.as_fd()).exec();
    panic!("{error:?}");
}

/// Says what it found.
pub(crate) fn play_second(mut part: Part, out: &mut File) {
    let arguments: Vec<String> = std::env::args().collect();
    writeln!(out, "{}", std::process::id()).unwrap();
    writeln!(out, "title {}", arguments[0]).unwrap();
    let names: Vec<_> = part.fds.iter().map(|(name, _)| name.as_str()).collect();
    writeln!(out, "descriptors {}", names.join(",")).unwrap();
    writeln!(out, "others {}", others(&part, out)).unwrap();
    writeln!(out, "threads {}", thread_count().unwrap()).unwrap();
    let has = |key: &str| std::env::var_os(key).is_some();
    writeln!(out, "notify {} listen {}", has("NOTIFY_SOCKET"), has("LISTEN_FDS")).unwrap();
    let signals = SignalFd::new(&SignalSet::of(&[Signal::TERM, Signal::USR2])).unwrap();
    let received = signals.read().unwrap().unwrap();
    assert_eq!(received.sender_pid, std::process::id());
    writeln!(out, "{} waited", tidegate_sys::signal::name(received.signal)).unwrap();
    assert_eq!(signals.read().unwrap(), None);
    writeln!(out, "nothing else waited").unwrap();
    for (name, pid) in ["ended", "running"].into_iter().zip(&arguments[1..]) {
        let process = Process::adopt(pid.parse().unwrap()).unwrap();
        let status = process.wait().unwrap();
        assert_eq!(status, ExitStatus::Code(7));
        writeln!(out, "{name} {status}").unwrap();
        assert!(Process::adopt(pid.parse().unwrap()).is_err(), "it was waited for");
    }
    let again = File::open(&arguments[3]).unwrap();
    let lock = flock(&again, FlockOperation::NonBlockingLockExclusive);
    writeln!(out, "lock is {}", if lock.is_err() { "held" } else { "lost" }).unwrap();
    let mut text = String::new();
    File::from(part.take_fd("pipe").unwrap()).read_to_string(&mut text).unwrap();
    writeln!(out, "pipe: {text}").unwrap();
}

/// What is open besides the standard streams and what was named.
fn others(part: &Part, out: &File) -> String {
    let known: Vec<i32> =
        part.fds.iter().map(|(_, fd)| fd.as_raw_fd()).chain([0, 1, 2, out.as_raw_fd()]).collect();
    let mut others = String::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        let number: i32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let target = std::fs::read_link(&path).unwrap_or_default();
        // The folder that is being read is one of them.
        if !known.contains(&number) && !target.ends_with("fd") {
            others.push_str(&target.to_string_lossy());
        }
    }
    if others.is_empty() { "none".to_owned() } else { others }
}

fn removed_binary() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::copy("/proc/self/exe", &path).unwrap();
    let exe = Exe::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let output = output_of(Spawn::new(&exe, "removed", "path"));
    assert_eq!(output, path.to_str().unwrap());
}
