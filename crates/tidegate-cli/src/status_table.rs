//! The status of a server as tables for people.
//!
//! The one invariant: what wants somebody's attention is told in words as well as by its colour.

use std::time::Duration;

use tidegate::config::ByteSize;
use tidegate::log::Colour;
use tidegate::{GenerationStatus, ListenerStatus, ProcessStatus, Status, ThreadStatus};

use crate::human;
use crate::table::{Cell, Column, Table, Tone, number, word};

/// ```text
/// tidegate 0.1.0
///
/// GENERATION  STATE     SINCE  WORKERS  CONNECTIONS
///          1  retiring  2h05m        2           17
///          2  current   3m12s        2          230
///
/// PROCESS     GENERATION   PID  STATE     SYSTEM    UPTIME  RESTARTS  CONNECTIONS  REQUESTS  RECEIVED  SENT  NOTE
/// master                  4711  ready     sleeping   2h05m         0            0         0         0     0
/// worker 0             1  4713  retiring  sleeping   2h05m         0           17       450     36000  9000
///
/// LISTENER  ADDRESS         SERVICE  CONNECTIONS  ACCEPTED  REQUESTS  NOTE
/// web       127.0.0.1:8080  web              247       280      1450
///
/// PROCESS   THREAD   TID  PROCESSORS  NICE  STACK
/// worker 0  loop-0  4714  0-3            0   1MiB
/// ```
pub(crate) fn tables(status: &Status, colour: Colour) -> String {
    let mut text = format!("tidegate {}\n\n", status.version);
    if !status.generations.is_empty() {
        let now = status.unix_time;
        let rows: Vec<_> =
            status.generations.iter().map(|generation| generation_row(generation, now)).collect();
        Table::new(GENERATION_HEAD, colour).write(&rows, &mut text);
        text.push('\n');
    }
    let rows: Vec<_> = grouped(status).into_iter().map(process_row).collect();
    Table::new(PROCESS_HEAD, colour).write(&rows, &mut text);
    text.push('\n');
    let rows: Vec<_> = status.listeners.iter().map(listener_row).collect();
    Table::new(LISTENER_HEAD, colour).write(&rows, &mut text);
    text.push('\n');
    Table::new(THREAD_HEAD, colour).write(&thread_rows(status), &mut text);
    text
}

/// First what lives over reloads, then each generation, each in the order of the status.
fn grouped(status: &Status) -> Vec<&ProcessStatus> {
    let mut processes: Vec<_> = status.processes.iter().collect();
    processes.sort_by_key(|process| generation(process));
    processes
}

/// `None` for what belongs to none.
fn generation(process: &ProcessStatus) -> Option<u64> {
    matches!(&*process.role, "worker" | "acceptor").then_some(process.generation)
}

fn generation_row(generation: &GenerationStatus, now: u64) -> [Cell; 5] {
    let since = |since: u64| human::time(Duration::from_secs(now.saturating_sub(since)));
    let tone = if generation.state == "current" { Tone::Plain } else { Tone::Notice };
    [
        generation.number.into(),
        Cell::toned(&*generation.state, tone),
        generation.since_unix.map_or_else(|| "-".to_owned(), since).into(),
        generation.processes.into(),
        generation.connections.into(),
    ]
}

fn process_row(process: &ProcessStatus) -> [Cell; 12] {
    let state = match &*process.state {
        "ready" => Tone::Plain,
        "ended" => Tone::Alarm,
        _ => Tone::Notice,
    };
    let system = match &*process.os_state {
        "running" | "sleeping" => Tone::Plain,
        _ => Tone::Alarm,
    };
    [
        name(process).into(),
        generation(process).map_or_else(String::new, |number| number.to_string()).into(),
        process.pid.into(),
        Cell::toned(&*process.state, state),
        Cell::toned(&*process.os_state, system),
        human::time(Duration::from_secs(process.uptime)).into(),
        process.restarts.into(),
        process.connections.into(),
        process.requests.into(),
        process.bytes_in.into(),
        process.bytes_out.into(),
        note(process),
    ]
}

/// What is to be known of a process: how the one before it ended is told while it may be why somebody looks.
fn note(process: &ProcessStatus) -> Cell {
    let before =
        if process.last_exit.is_empty() { String::new() } else { format!("before: {}", process.last_exit) };
    match (process.note.is_empty(), before.is_empty()) {
        (true, _) => before.into(),
        (false, true) => Cell::toned(&*process.note, Tone::Alarm),
        (false, false) => Cell::toned(format!("{}; {before}", process.note), Tone::Alarm),
    }
}

fn listener_row(listener: &ListenerStatus) -> [Cell; 7] {
    [
        (&*listener.name).into(),
        (&*listener.address).into(),
        (&*listener.service).into(),
        listener.connections.into(),
        listener.accepted.into(),
        listener.requests.into(),
        Cell::toned(&*listener.note, Tone::Alarm),
    ]
}

/// The threads that serve, as they really are.
fn thread_rows(status: &Status) -> Vec<[Cell; 6]> {
    let of = |process: &ProcessStatus| {
        let row = |thread: &ThreadStatus| {
            let stack = ByteSize::new(thread.stack).to_string();
            let nice = thread.nice.to_string();
            [
                name(process).into(),
                (&*thread.name).into(),
                thread.tid.into(),
                (&*thread.cpus).into(),
                nice.into(),
                stack.into(),
            ]
        };
        process.threads.iter().map(row).collect::<Vec<_>>()
    };
    grouped(status).into_iter().flat_map(of).collect()
}

fn name(process: &ProcessStatus) -> String {
    process.index.map_or(process.role.clone(), |index| format!("{} {index}", process.role))
}

const GENERATION_HEAD: [Column; 5] =
    [number("GENERATION"), word("STATE"), number("SINCE"), number("WORKERS"), number("CONNECTIONS")];

const PROCESS_HEAD: [Column; 12] = [
    word("PROCESS"),
    number("GENERATION"),
    number("PID"),
    word("STATE"),
    word("SYSTEM"),
    number("UPTIME"),
    number("RESTARTS"),
    number("CONNECTIONS"),
    number("REQUESTS"),
    number("RECEIVED"),
    number("SENT"),
    word("NOTE"),
];

const LISTENER_HEAD: [Column; 7] = [
    word("LISTENER"),
    word("ADDRESS"),
    word("SERVICE"),
    number("CONNECTIONS"),
    number("ACCEPTED"),
    number("REQUESTS"),
    word("NOTE"),
];

const THREAD_HEAD: [Column; 6] =
    [word("PROCESS"), word("THREAD"), number("TID"), word("PROCESSORS"), number("NICE"), number("STACK")];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn process(role: &str, index: Option<u64>, generation: u64, state: &str) -> serde_json::Value {
        json!({
            "role": role, "index": index, "pid": 4711, "generation": generation, "state": state,
            "os_state": "sleeping", "uptime": 75, "restarts": 0, "connections": 3, "bytes_in": 1, "bytes_out": 2,
            "requests": 4,
        })
    }

    fn status(processes: &[serde_json::Value]) -> Status {
        let generations = json!([
            {"number": 1, "state": "retiring", "since_unix": 10_000, "processes": 2, "connections": 17},
            {"number": 2, "state": "current", "since_unix": null, "processes": 2, "connections": 230},
        ]);
        let listeners = json!([{"name": "web", "address": "127.0.0.1:1", "service": "web", "connections": 1, "accepted": 2,
            "requests": 3, "note": "paused"}]);
        let status = json!({"version": "0.1.0", "unix_time": 17_500, "generations": generations, "listeners": listeners,
            "processes": processes});
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn processes_stand_by_generation_and_those_of_none_first() {
        let text = tables(
            &status(&[
                process("worker", Some(0), 2, "ready"),
                process("master", None, 1, "ready"),
                process("worker", Some(0), 1, "retiring"),
                process("acceptor", None, 2, "ready"),
                process("cache", None, 1, "ready"),
            ]),
            Colour::Off,
        );
        let blocks: Vec<&str> = text.split("\n\n").collect();
        assert_eq!(
            blocks[1],
            "GENERATION  STATE     SINCE  WORKERS  CONNECTIONS\n         1  retiring  2h05m        2           17\n         2  current       -        2          230"
        );
        let first: Vec<Vec<&str>> =
            blocks[2].lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        let ends: Vec<String> = first.iter().map(|cells| cells[..2].join(" ")).collect();
        assert_eq!(ends, ["master 4711", "cache 4711", "worker 0", "worker 0", "acceptor 2"]);
        assert_eq!((first[2][2], first[3][2]), ("1", "2"));
        assert!(blocks[3].ends_with("  paused"), "{text}");
    }

    #[test]
    fn what_wants_attention_is_said_and_coloured() {
        let mut worker = process("worker", Some(0), 2, "ready");
        worker["note"] = "does not answer; its connections are accepted by worker 1".into();
        worker["last_exit"] = "signal 9 (KILL)".into();
        worker["os_state"] = "stopped".into();
        let status = status(&[worker]);
        let plain = tables(&status, Colour::Off);
        let said = "does not answer; its connections are accepted by worker 1; before: signal 9 (KILL)";
        assert!(plain.contains(said) && !plain.contains('\u{1b}'), "{plain}");
        let coloured = tables(&status, Colour::On);
        for part in [format!("\u{1b}[31m{said}\u{1b}[0m"), "\u{1b}[31mstopped\u{1b}[0m".to_owned()] {
            assert!(coloured.contains(&part), "{coloured}");
        }
        assert!(!coloured.contains("\u{1b}[31mready"), "{coloured}");
    }
}
