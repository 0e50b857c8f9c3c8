//! The status of a server as tables for people.

use std::fmt::Write as _;
use std::time::Duration;

use tidegate::config::{ByteSize, format_duration};
use tidegate::{ProcessStatus, Status, ThreadStatus};

/// ```text
/// tidegate 0.1.0
///
/// PROCESS     PID   STATE  SYSTEM    UPTIME  RESTARTS  CONNECTIONS  REQUESTS  RECEIVED  SENT
/// master      4711  ready  sleeping  1m      0                   0         0         0     0
///
/// LISTENER  ADDRESS         SERVICE  CONNECTIONS  ACCEPTED  REQUESTS
/// web       127.0.0.1:8080  web                0         0         0
///
/// PROCESS   THREAD   TID  PROCESSORS  NICE  STACK
/// worker 0  loop-0  4714  0-3            0   1MiB
/// ```
pub(crate) fn tables(status: &Status) -> String {
    let processes = status.processes.iter().map(|process| {
        vec![
            name(process),
            process.pid.to_string(),
            process.state.clone(),
            process.os_state.clone(),
            format_duration(Duration::from_secs(process.uptime)),
            process.restarts.to_string(),
            process.connections.to_string(),
            process.requests.to_string(),
            process.bytes_in.to_string(),
            process.bytes_out.to_string(),
        ]
    });
    let listeners = status.listeners.iter().map(|listener| {
        vec![
            listener.name.clone(),
            listener.address.clone(),
            listener.service.clone(),
            listener.connections.to_string(),
            listener.accepted.to_string(),
            listener.requests.to_string(),
        ]
    });
    let mut text = format!("tidegate {}\n\n", status.version);
    write_table(&mut text, &PROCESS_HEAD, processes.collect());
    text.push('\n');
    write_table(&mut text, &LISTENER_HEAD, listeners.collect());
    text.push('\n');
    write_table(&mut text, &THREAD_HEAD, threads(status));
    text
}

/// The threads that serve, as they really are.
fn threads(status: &Status) -> Vec<Vec<String>> {
    let of = |process: &ProcessStatus| {
        let row = |thread: &ThreadStatus| {
            let (tid, nice) = (thread.tid.to_string(), thread.nice.to_string());
            let stack = ByteSize::new(thread.stack).to_string();
            vec![name(process), thread.name.clone(), tid, thread.cpus.clone(), nice, stack]
        };
        process.threads.iter().map(row).collect::<Vec<_>>()
    };
    status.processes.iter().flat_map(of).collect()
}

fn name(process: &ProcessStatus) -> String {
    process.index.map_or(process.role.clone(), |index| format!("{} {index}", process.role))
}

/// Columns are as wide as their widest cell; numbers stand to the right.
fn write_table(text: &mut String, head: &[Column], rows: Vec<Vec<String>>) {
    let first = head.iter().map(|column| column.title.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(first).chain(rows).collect();
    let width = |idx: usize| rows.iter().map(|row| row[idx].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for ((cell, column), width) in row.iter().zip(head).zip(&widths) {
            // Writing to a String does not fail.
            let _ = match column.is_number {
                true => write!(line, "{cell:>width$}  "),
                false => write!(line, "{cell:<width$}  "),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

struct Column {
    title: &'static str,
    is_number: bool,
}

const fn word(title: &'static str) -> Column {
    Column { title, is_number: false }
}

const fn number(title: &'static str) -> Column {
    Column { title, is_number: true }
}

const PROCESS_HEAD: [Column; 10] = [
    word("PROCESS"),
    number("PID"),
    word("STATE"),
    word("SYSTEM"),
    number("UPTIME"),
    number("RESTARTS"),
    number("CONNECTIONS"),
    number("REQUESTS"),
    number("RECEIVED"),
    number("SENT"),
];

const LISTENER_HEAD: [Column; 6] = [
    word("LISTENER"),
    word("ADDRESS"),
    word("SERVICE"),
    number("CONNECTIONS"),
    number("ACCEPTED"),
    number("REQUESTS"),
];

const THREAD_HEAD: [Column; 6] =
    [word("PROCESS"), word("THREAD"), number("TID"), word("PROCESSORS"), number("NICE"), number("STACK")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut text = String::new();
        let rows = [["a", "5"], ["worker 10", "12345678"]].map(|row| row.map(str::to_owned).to_vec());
        write_table(&mut text, &[word("PROCESS"), number("PID")], rows.to_vec());
        assert_eq!(text, "PROCESS         PID\na                 5\nworker 10  12345678\n");
    }
}
