//! The log: complete after an orderly stop, and read by `tidegate log tail`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::tempdir;
use tidegate::log::Record;

use crate::http::get;
use crate::processes::{Exit, Watched};
use crate::support::{Server, Setup, TIDEGATE, clean, id, is_replaced, stdout, tidegate_in, wait_until};

/// All records that are stored, in the order of the files.
pub(crate) fn records(server: &Server) -> Vec<Record> {
    let mut files: Vec<_> =
        fs::read_dir(server.data("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let lines: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    lines.concat().lines().map(|line| Record::parse(line.as_bytes()).unwrap()).collect()
}

/// The bodies of the records of a process.
fn bodies<'a>(records: &'a [Record], process: &str) -> Vec<&'a str> {
    let of_it = records.iter().filter(|record| record.resource.process == process);
    of_it.map(|record| record.body.as_str()).collect()
}

#[test]
fn nothing_is_missing_after_an_orderly_stop() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    for _ in 0..8 {
        get(server.address("web"), "/hello");
    }
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    let records = records(&server);
    let mut numbers: BTreeMap<(&str, u32), Vec<u64>> = BTreeMap::new();
    for record in &records {
        numbers.entry((&record.resource.process, record.resource.pid)).or_default().push(record.seq);
    }
    let who: Vec<&str> = numbers.keys().map(|(process, _)| *process).collect();
    assert_eq!(who, ["log server", "master", "worker 0", "worker 1"]);
    for (process, mut numbers) in numbers {
        numbers.sort_unstable();
        let all: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, all, "{process:?}");
    }
    let master = bodies(&records, "master");
    assert_eq!(master.first(), Some(&"starting"));
    assert_eq!(master.iter().filter(|body| body.starts_with("child serves")).count(), 3);
    assert_eq!(
        master.iter().filter(|body| **body == "child ended with exit code 0").count(),
        2,
        "{master:?}"
    );
    for worker in ["worker 0", "worker 1"] {
        let worker = bodies(&records, worker);
        // What is under the loops is said before they serve.
        assert!(worker[0].starts_with("epoll chosen: "), "{worker:?}");
        assert_eq!((worker.get(1), worker.last()), (Some(&"worker serves"), Some(&"worker ends")));
    }
}

#[test]
fn tail_shows_the_records_to_people_and_to_programs() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    Watched::of(&server.worker(0)).signal(Signal::KILL);
    let tail = |args: &[&str]| server.tidegate(&[&["log", "tail"], args].concat());
    wait_until("the death is stored", || stdout(&tail(&[])).contains("child died with signal 9 (KILL)"));
    let all = tail(&[]);
    let line = stdout(&all).lines().find(|line| line.contains("listening")).unwrap();
    assert!(
        line.contains(&format!(" INFO  master[{}] ", server.pid())) && !line.contains('\u{1b}'),
        "{line}"
    );
    assert_eq!(stdout(&tail(&["-n", "2"])).lines().count(), 2);
    assert_eq!(stdout(&tail(&["-n", "0"])), "");
    let warnings = tail(&["--level", "warn"]);
    assert!(
        stdout(&warnings).lines().all(|line| line.contains(" WARN ") || line.contains(" ERROR ")),
        "{warnings:?}"
    );
    assert!(stdout(&warnings).contains("child died with"));
    let json = tail(&["--json", "-n", "3"]);
    let parsed: Vec<Record> =
        stdout(&json).lines().map(|line| Record::parse(line.as_bytes()).unwrap()).collect();
    assert_eq!(parsed.len(), 3);
}

#[test]
fn follow_goes_on_and_ends_with_its_reader() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let mut command = Command::new(TIDEGATE);
    clean(&mut command, dir.path()).args(server.with_settings(&["log", "tail", "-f"]));
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let watched = Watched::open(id(&child));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("listening")));
    server.signal(Signal::USR1);
    assert!(lines.any(|line| line.contains("signal received") && line.contains("USR1")));
    // Nothing more is logged from here on, so it can only notice by itself.
    drop(lines);
    assert_eq!(watched.wait_exit(), Exit::Code(0));
    assert!(child.wait_with_output().unwrap().stderr.is_empty());
}

#[test]
fn levels_are_obeyed() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).set("log.level=warn,tidegate_engine=debug").start();
    get(server.address("web"), "/hello");
    let before = server.worker(0);
    Watched::of(&before).signal(Signal::KILL);
    server.wait_status("the worker is replaced", |status| is_replaced(status, &before));
    get(server.address("web"), "/hello");
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    let records = records(&server);
    let below = |record: &&Record| record.severity < tidegate::log::Severity::Warn;
    assert!(records.iter().filter(below).all(|record| record.target.starts_with("tidegate_engine")));
    assert!(records.iter().any(|record| record.body == "connection closed"));
    assert!(records.iter().any(|record| record.body.starts_with("child died")));
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let dir = tempdir().unwrap();
    let output = tidegate_in(dir.path(), ["log", "tail"]);
    assert_eq!(output.status.code(), Some(1));
    let text = crate::support::stderr(&output);
    assert!(
        text.starts_with("tidegate: reading the log folder ") && text.contains("tidegate-data/log"),
        "{text}"
    );
}
