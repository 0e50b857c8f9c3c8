//! `tidegate bench echo|http|msg`: loads a server, and shows what came of it.
//!
//! The one invariant: exit code 0 means that every request got a right answer.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context;
use tidegate_bench::chart::{Axis, Chart, Kind, Series};
use tidegate_bench::{LoadReport, LoadSpec, Percentiles, Progress, Stop, run};

use super::load_args::LoadArgs;
use super::progress::ProgressLine;
use super::told;
use crate::failure::Failure;
use crate::human;
use crate::output::{colour, print, print_json};
use crate::table::{Cell, Table, Tone, number, word};

/// Loads, and prints the report.
pub(super) fn load(args: &LoadArgs, spec: anyhow::Result<LoadSpec>) -> Result<(), Failure> {
    let spec = spec?;
    let mut line = ProgressLine::default();
    let report = run(&spec, &Stop::on_signal().context("SIGINT and SIGTERM")?, &mut |progress| {
        if let Some(text) = text_of(progress) {
            line.show(&text);
        }
    });
    line.clear();
    let report = report.map_err(anyhow::Error::new)?;
    if let Some(file) = &args.svg {
        draw(&report, file)?;
    }
    if args.json {
        print_json(&serde_json::to_value(&report).context("the report as JSON")?)?;
    } else {
        print(text(&report, args.tls.insecure))?;
    }
    told(report.failures.total() == 0 && report.requests > 0)
}

/// What a run's progress reads like.
fn text_of(progress: &Progress) -> Option<String> {
    Some(match progress {
        Progress::Ready { .. } | Progress::Begin | Progress::End | Progress::Settled => return None,
        Progress::Connecting { open, of } => format!("{open} of {of} connections stand"),
        Progress::WarmingUp { left } => format!("warm-up, {:.0} s", left.as_secs_f64().ceil()),
        Progress::Measuring { elapsed, of, last, failures, open } => format!(
            "{:.0} of {} s: {:.0} requests/s, p99 {}, {open} connections, {failures} failed",
            elapsed.as_secs_f64(),
            of.as_secs_f64(),
            last.rate,
            time(last.p99_us),
        ),
        Progress::Settling { left } => format!("the last answers of {left} connections"),
    })
}

/// The report for people.
fn text(report: &LoadReport, insecure: bool) -> String {
    let mut text = String::new();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (connections, threads) = (report.connections, report.threads);
    let loop_kind = match report.wanted_rate {
        Some(rate) => format!("{rate} requests/s wanted"),
        None => "as fast as it answers".to_owned(),
    };
    let asking = match report.asking {
        all if all == connections => String::new(),
        some => format!(" of which {some} ask"),
    };
    let time = match report.stopped_of {
        Some(of) => format!("stopped after {:.2} of {of} s", report.seconds),
        None => format!("{} s", report.seconds),
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} to {}: {connections} connection{}{asking}, {} in flight on each, {threads} thread{}, {time}, {loop_kind}\n",
        report.ask,
        report.to.join(" "),
        plural(connections),
        report.pipeline,
        plural(threads),
    );
    let mut table = Table::new([word("RESULT"), number("COUNT"), number("PER SECOND")], colour());
    table.write(&counts(report), &mut text);
    text.push('\n');
    let mut table = Table::new(LATENCY, colour());
    let mut rows = vec![row("latency", &report.latency), row("connecting", &report.connect)];
    rows.extend(report.lateness.as_ref().map(|lateness| row("sent late by", lateness)));
    table.write(&rows, &mut text);
    text.push('\n');
    notes(report, &mut text);
    secured(report, insecure, &mut text);
    text
}

/// How the connections were secured.
fn secured(report: &LoadReport, insecure: bool, text: &mut String) {
    for agreed in report.tls.iter().flat_map(|tls| &tls.agreed) {
        let (protocol, cipher) = (&agreed.protocol, &agreed.cipher);
        let _ = writeln!(
            text,
            "{protocol} with {cipher}, {}: {} handshakes, {} of them resumed",
            agreed.alpn.as_deref().unwrap_or("no protocol by name"),
            agreed.handshakes,
            agreed.resumed,
        );
    }
    if insecure {
        text.push_str(
            "The server's certificate was not checked (--insecure): anybody could have answered.\n",
        );
    }
}

const LATENCY: [crate::table::Column; 9] = [
    word("TIME"),
    number("MEAN"),
    number("P50"),
    number("P75"),
    number("P90"),
    number("P99"),
    number("P99.9"),
    number("P99.99"),
    number("MAX"),
];

fn row(name: &str, told: &Percentiles) -> [Cell; 9] {
    let times = [
        told.mean_us,
        told.p50_us,
        told.p75_us,
        told.p90_us,
        told.p99_us,
        told.p99_9_us,
        told.p99_99_us,
        told.max_us,
    ];
    let mut cells = [const { String::new() }; 9];
    cells[0] = name.to_owned();
    for (cell, us) in cells[1..].iter_mut().zip(times) {
        *cell = time(us);
    }
    cells.map(Cell::from)
}

fn counts(report: &LoadReport) -> Vec<[Cell; 3]> {
    let bytes = |name: &str, count: u64| {
        [name.into(), human::bytes(count).into(), Cell::from(bytes_per_second(count, report.seconds))]
    };
    let mut rows = vec![
        ["requests".into(), report.requests.into(), format!("{:.0}", report.rate).into()],
        bytes("received", report.bytes_in),
        bytes("sent", report.bytes_out),
    ];
    let failed = |name: &str, count: u64| {
        let tone = if count > 0 { Tone::Alarm } else { Tone::Plain };
        [Cell::toned(name, tone), Cell::toned(count.to_string(), tone), "".into()]
    };
    rows.push(failed("failed", report.failures.total()));
    rows.extend(report.failures.kinds().map(|(kind, count)| failed(&format!("  {kind}"), count)));
    if report.unsent > 0 {
        rows.push([
            Cell::toned("not sent", Tone::Notice),
            Cell::toned(report.unsent.to_string(), Tone::Notice),
            "".into(),
        ]);
    }
    if report.reconnects > 0 {
        rows.push(["reconnects".into(), report.reconnects.into(), "".into()]);
    }
    rows
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a figure for people, of three digits, which is never negative"
)]
fn bytes_per_second(count: u64, seconds: f64) -> String {
    human::bytes((count as f64 / seconds) as u64)
}

/// What the figures do not say by themselves.
fn notes(report: &LoadReport, text: &mut String) {
    let percent = |share: f64| share * 100.0;
    let _ = writeln!(
        text,
        "client: {} {:.0} % busy, and {:.0} % of the time without a processor",
        threads(report),
        percent(report.client_busy),
        percent(report.client_starved),
    );
    if report.is_client_bound() {
        text.push_str(
            "The client had next to no time to spare, so the figures are its own as much as the server's.\n",
        );
    }
    if report.unsent > 0 {
        text.push_str(
            "The rate was not reached: requests that were due could not be sent, as those before them had no answer; \
they stand among the latencies with the time that they had waited.\n",
        );
    }
    if let Some(first) = &report.failures.first {
        let _ = writeln!(text, "first failure: {first}");
    }
}

fn threads(report: &LoadReport) -> String {
    if report.threads == 1 { "its thread".to_owned() } else { format!("its {} threads", report.threads) }
}

/// `12.3us`, `4.56ms`, `1.23s`: three digits.
fn time(us: f64) -> String {
    let (value, unit) = match us {
        ..1e3 => (us, "us"),
        ..1e6 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    let digits = match value {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}{unit}")
}

/// Latency by percentile. The axis is stretched so that each nine of p90, p99, p99.9 is as wide as the one before it.
fn draw(report: &LoadReport, file: &Path) -> Result<(), Failure> {
    let points = report.curve.iter().filter(|(share, _)| *share < 1.0);
    let series = |name: &str, points| Series { name: name.to_owned(), points, kind: Kind::Line };
    let curve = points.map(|&(share, us)| (1.0 / (1.0 - share), us / 1e3)).collect();
    let chart = Chart {
        title: format!(
            "{} over {} connections: {:.0} requests/s",
            report.ask, report.connections, report.rate
        ),
        x: Axis {
            label: "one of so many answers took longer (10: p90, 100: p99, 1000: p99.9)".to_owned(),
            log: true,
        },
        y: Axis { label: "latency, ms".to_owned(), log: true },
        series: vec![series("latency", curve)],
    };
    std::fs::write(file, chart.svg()).with_context(|| format!("writing {}", file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (us, text) in
            [(0.0, "0.00us"), (12.34, "12.3us"), (999.4, "999us"), (1234.0, "1.23ms"), (60e6, "60.0s")]
        {
            assert_eq!(time(us), text);
        }
    }
}
