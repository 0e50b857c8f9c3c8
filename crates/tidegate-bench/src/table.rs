//! A report as tables in Markdown.
//!
//! Invariant: what went wrong stands in the row's last column; an empty one means that every answer was right.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::matrix::{Median, Report, Row, RowResult, ScenarioReport};
use crate::measure::Syscalls;

/// One table for each scenario, and a line on how it was measured.
pub(crate) fn markdown(report: &Report) -> String {
    let place = report.server_cpu.map_or_else(
        || "the server on any processor".to_owned(),
        |cpu| format!("the server and all its threads on CPU {cpu}"),
    );
    let mut text = format!(
        "Linux {}, {place}, medians of {} × {} s; pools have {} threads; system calls {}.\n",
        report.kernel,
        report.rounds,
        report.seconds,
        report.pool_threads,
        counted(report)
    );
    for scenario in &report.scenarios {
        text.push('\n');
        table(&mut text, scenario);
    }
    text
}

fn counted(report: &Report) -> String {
    let rows = report.scenarios.iter().flat_map(|scenario| &scenario.rows);
    let tools: BTreeSet<&str> = rows
        .filter_map(|row| match &row.result {
            RowResult::Measured(median) => match &median.syscalls {
                Syscalls::Counted(calls) => Some(calls.tool.as_str()),
                Syscalls::NotAsked | Syscalls::Uncounted(_) => None,
            },
            RowResult::Failed(_) => None,
        })
        .collect();
    if tools.is_empty() {
        return "not counted".to_owned();
    }
    format!("counted by {}", tools.into_iter().collect::<Vec<_>>().join(" and "))
}

fn table(text: &mut String, report: &ScenarioReport) {
    let scenario = &report.scenario;
    let at_once =
        if scenario.pipeline > 1 { format!(", {} in flight", scenario.pipeline) } else { String::new() };
    let head = format!(
        "**{}** ({}, {} connections, {} % active{at_once})\n\n\
         | model | req/s | p50 µs | p99 µs | CPU µs/req | syscalls/req | of them polling | RSS MiB | |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---|\n",
        scenario.name,
        scenario.service,
        scenario.connections,
        scenario.active * 100.0,
    );
    text.push_str(&head);
    for row in &report.rows {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{}", line(row));
    }
}

fn line(row: &Row) -> String {
    match &row.result {
        RowResult::Failed(reason) => {
            format!("| {} | – | – | – | – | – | – | – | {} |", row.model, escape(reason))
        }
        RowResult::Measured(median) => {
            let (calls, polling) = match &median.syscalls {
                Syscalls::Counted(calls) => {
                    (format!("{:.2}", calls.poller + calls.others), format!("{:.2}", calls.poller))
                }
                Syscalls::NotAsked | Syscalls::Uncounted(_) => ("–".to_owned(), "–".to_owned()),
            };
            let latency = median.latency;
            format!(
                "| {} | {:.0} | {:.0} | {:.0} | {:.2} | {calls} | {polling} | {:.1} | {} |",
                row.model,
                median.rate,
                latency.p50_us,
                latency.p99_us,
                median.cpu_us,
                mebibytes(median.resident_bytes),
                escape(&remarks(median)),
            )
        }
    }
}

fn remarks(median: &Median) -> String {
    let failures = median.failures.kinds().map(|(kind, count)| format!("{count} failed: {kind}"));
    let uncounted = match &median.syscalls {
        Syscalls::Uncounted(reason) => Some(reason.clone()),
        Syscalls::Counted(_) | Syscalls::NotAsked => None,
    };
    failures.chain(uncounted).collect::<Vec<_>>().join("; ")
}

/// A text as it can stand in a cell.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::SyscallsPerRequest;
    use crate::{Failures, LatencySummary, Scenario};

    #[test]
    fn a_report_becomes_a_table() {
        let latency = LatencySummary { p50_us: 12.4, p99_us: 99.6, max_us: 1e6 };
        let syscalls = SyscallsPerRequest { poller: 0.25, others: 2.0, by_name: vec![], tool: "perf".into() };
        let median = Median {
            rate: 123_456.7,
            latency,
            cpu_us: 3.456,
            resident_bytes: 3 << 19,
            failures: Failures { reset: 2, ..Failures::default() },
            syscalls: Syscalls::Counted(syscalls),
        };
        let measured = RowResult::Measured(Box::new(median));
        let rows = vec![
            Row { model: "poll".into(), result: measured },
            Row { model: "uring-inline".into(), result: RowResult::Failed("no | ring".into()) },
        ];
        let scenarios = vec![ScenarioReport { scenario: Scenario::ALL[1], rows }];
        let kernel = "6.1".to_owned();
        let report =
            Report { kernel, rounds: 3, seconds: 0.5, server_cpu: Some(0), pool_threads: 8, scenarios };
        let expected = "Linux 6.1, the server and all its threads on CPU 0, medians of 3 × 0.5 s; pools have 8 threads; system calls counted by perf.\n\
            \n**pipelined** (hello, 64 connections, 100 % active, 16 in flight)\n\n\
            | model | req/s | p50 µs | p99 µs | CPU µs/req | syscalls/req | of them polling | RSS MiB | |\n\
            |---|---:|---:|---:|---:|---:|---:|---:|---|\n\
            | poll | 123457 | 12 | 100 | 3.46 | 2.25 | 0.25 | 1.5 | 2 failed: reset |\n\
            | uring-inline | – | – | – | – | – | – | – | no \\| ring |\n";
        assert_eq!(markdown(&report), expected);
    }
}
