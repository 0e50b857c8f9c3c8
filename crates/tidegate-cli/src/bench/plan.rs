//! `tidegate bench plan`: what a server can take, as a table, JSON and a picture.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tidegate_bench::plan::{
    Plan, PlanReport, Role, Stage, StageReport, StageResult, Stages, carry_out as run,
};

use tidegate_bench::{Ask, HttpUrl, LoadSpec, Stop, name_of, resolve};

use super::args::PlanArgs;
use super::progress::ProgressLine;
use super::tls_args::Known;
use super::{told, write_svg};
use crate::failure::Failure;
use crate::human::bytes;
use crate::output::{colour, print, print_json};
use crate::table::{Cell, Table, Tone, number, word};

/// Carries it out, and shows what came of it.
pub(super) fn carry_out(args: &PlanArgs) -> Result<(), Failure> {
    let stages = match args.connections.as_slice() {
        [] => Stages::Find { max_connections: args.max_connections },
        stages => Stages::Fixed(stages.to_vec()),
    };
    let plan = Plan { load: load(args)?, stages };
    let mut line = ProgressLine::default();
    let report = run(&plan, &Stop::on_signal().context("SIGINT and SIGTERM")?, &mut |role, connections| {
        line.show(&format!("{}: {connections} connections, {} s", name(role), args.duration.as_secs_f64()));
    });
    line.clear();
    if args.json {
        print_json(&json!(report))?
    } else {
        print(text(&report))?
    }
    write_svg(args.svg.as_deref(), || report.svg())?;
    told(report.is_right())
}

fn load(args: &PlanArgs) -> anyhow::Result<LoadSpec> {
    let mut https = false;
    let (mut address, mut host, mut path) = (args.to.clone(), args.to.clone(), args.path.clone());
    if args.ask == "http" {
        if let Some(url) = HttpUrl::parse(&args.to).transpose()? {
            (address, host, https) = (url.address, url.host, url.tls);
            path.get_or_insert(url.path);
        } else if address.starts_with("unix:") {
            // A Unix socket has no name that a server could go by.
            host = "localhost".to_owned();
        }
    }
    let alpn = (args.ask == "http").then_some("http/1.1");
    let tls = args.tls.client(Known { https, name: name_of(&host), alpn })?;
    let ask = match args.ask.as_str() {
        "http" => Ask::Http { path: path.unwrap_or_else(|| "/".to_owned()), host, headers: Vec::new() },
        "msg" => Ask::Msg { code: 0, size: 0, login: None },
        // The command line has no fourth word.
        _ => Ask::Echo { size: args.size },
    };
    let (pipeline, warmup, duration) = (args.pipeline, args.warmup, args.duration);
    let to = resolve(&address, LOOK_UP)?;
    let spec =
        LoadSpec { tls, pipeline, warmup, duration, threads: args.threads, ..LoadSpec::new(vec![to], ask) };
    // The threads of a stage are never more than its connections.
    LoadSpec { connections: args.threads.max(1), ..spec.clone() }.check()?;
    Ok(spec)
}

/// How long an address may take to be tried out.
const LOOK_UP: Duration = Duration::from_secs(10);

fn name(role: Role) -> &'static str {
    match role {
        Role::Single => "single",
        Role::Concurrent => "concurrent",
        Role::Stress => "stress",
        Role::Knee => "knee",
        Role::Fixed => "asked for",
    }
}

fn text(report: &PlanReport) -> String {
    let mut text = format!("{} at {}, {} s each", report.ask, report.to.join(" "), report.seconds);
    if report.pipeline > 1 {
        let _ = write!(text, ", {} in flight", report.pipeline);
    }
    text.push_str("\n\n");
    let mut table = Table::new(HEAD, colour());
    let rows: Vec<_> = report.stages.iter().map(row).collect();
    table.write(&rows, &mut text);
    text.push('\n');
    // Writing to a String does not fail.
    if let Some(knee) = &report.knee {
        let _ = writeln!(
            text,
            "The knee: {} connections bring {:.0} requests/s, {:.0} % of the best, p50 {:.0} us, p99 {:.0} us.",
            knee.connections,
            knee.rate,
            knee.share * 100.0,
            knee.latency.p50_us,
            knee.latency.p99_us
        );
    }
    let _ = writeln!(text, "The end: {}.", report.ended);
    let _ = match &report.server {
        Ok(pid) => writeln!(
            text,
            "The server: process {pid} and its family; traffic is that of its network namespace."
        ),
        Err(reason) => writeln!(text, "The server's own figures are missing: {reason}."),
    };
    if measured(report).any(|stage| stage.client_busy > CLIENT_IS_FULL) {
        text.push_str(
            "CLIENT near 1.00: there the client was the limit, not the server; --threads gives it more.\n",
        );
    }
    text
}

/// Of all the time of its threads.
const CLIENT_IS_FULL: f64 = 0.95;

fn measured(report: &PlanReport) -> impl Iterator<Item = &Stage> {
    report.stages.iter().filter_map(|stage| match &stage.result {
        StageResult::Measured(stage) => Some(stage),
        StageResult::Failed(_) => None,
    })
}

const COLUMNS: usize = 15;
const HEAD: [crate::table::Column; COLUMNS] = [
    word("STAGE"),
    number("CONNS"),
    number("REQ/S"),
    number("P50us"),
    number("P99us"),
    number("MAXms"),
    number("FAILED"),
    number("CLIENT"),
    number("SERVER"),
    number("CPUus/REQ"),
    number("MEMORY"),
    number("FDS"),
    number("IN/S"),
    number("OUT/S"),
    word("NOTE"),
];

fn row(report: &StageReport) -> [Cell; COLUMNS] {
    let (stage, connections) = (name(report.role).into(), (report.connections as u64).into());
    let figures = match &report.result {
        StageResult::Measured(figures) => figures,
        StageResult::Failed(reason) => {
            let mut cells: [Cell; COLUMNS] = std::array::from_fn(|_| "".into());
            (cells[0], cells[1]) = (stage, connections);
            cells[COLUMNS - 1] = Cell::toned(reason.as_str(), Tone::Alarm);
            return cells;
        }
    };
    let server = figures.server.as_ref();
    let of_server =
        |figure: &dyn Fn(&tidegate_bench::Usage) -> String| server.map_or_else(|| "-".into(), figure);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bytes per second, shown rounded"
    )]
    let per_s = |rate: f64| bytes(rate as u64);
    let tone = if figures.failed > 0 { Tone::Alarm } else { Tone::Plain };
    let client = if figures.client_busy > CLIENT_IS_FULL { Tone::Notice } else { Tone::Plain };
    [
        stage,
        connections,
        format!("{:.0}", figures.rate).into(),
        format!("{:.0}", figures.latency.p50_us).into(),
        format!("{:.0}", figures.latency.p99_us).into(),
        format!("{:.1}", figures.latency.max_us / 1000.0).into(),
        Cell::toned(figures.failed.to_string(), tone),
        Cell::toned(format!("{:.2}", figures.client_busy), client),
        of_server(&|server| format!("{:.2}", server.cores)).into(),
        figures.cpu_us().map_or_else(|| "-".into(), |cpu| format!("{cpu:.2}")).into(),
        of_server(&|server| bytes(server.memory_bytes)).into(),
        of_server(&|server| server.descriptors.to_string()).into(),
        of_server(&|server| per_s(server.received_per_s)).into(),
        of_server(&|server| per_s(server.sent_per_s)).into(),
        server.map(note).unwrap_or_default().into(),
    ]
}

fn note(server: &tidegate_bench::Usage) -> String {
    let counts = [
        (server.retransmissions, "segments sent again"),
        (server.queue_overflows, "times the queue was full"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    counts.collect::<Vec<_>>().join(", ")
}
