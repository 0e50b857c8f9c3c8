//! `tidegate bench models`: this program as a server in every combination of its models, as a table, JSON and a picture.

use std::fmt::Write as _;

use anyhow::Context;
use serde_json::json;
use tidegate_bench::Stop;
use tidegate_bench::measure::Syscalls;
use tidegate_bench::models::{Figures, Models, ModelsReport, Row, RowResult, Scenario, run};

use super::args::ModelsArgs;
use super::progress::ProgressLine;
use super::{told, write_svg};
use crate::failure::Failure;
use crate::human::bytes;
use crate::output::{colour, print, print_json};
use crate::table::{Cell, Column, Table, Tone, number, word};

/// Measures them all, and shows the table.
pub(super) fn measure(args: &ModelsArgs) -> Result<(), Failure> {
    let workers = args.workers.unwrap_or_else(|| {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        u16::try_from(processors).unwrap_or(u16::MAX).min(MAX_WORKERS)
    });
    let models = Models {
        program: std::env::current_exe().context("find this program")?,
        combinations: args.combinations(),
        baseline: args.baseline(),
        workers,
        scenarios: args.scenario.iter().filter_map(|name| Scenario::named(name, args.connections)).collect(),
        rounds: args.rounds,
        times: args.times(),
        limit: args.limit,
    };
    let mut line = ProgressLine::default();
    let stop = Stop::on_signal().context("SIGINT and SIGTERM")?;
    let report =
        run(&models, &stop, &mut |now| line.show(&format!("{}/{}: {}", now.done + 1, now.all, now.model)));
    line.clear();
    let report = report.context("measure the models")?;
    if args.json {
        print_json(&json!(report))?
    } else {
        print(text(&report))?
    }
    write_svg(args.svg.as_deref(), || report.svg())?;
    told(report.is_right())
}

/// What `process.workers` allows.
const MAX_WORKERS: u16 = 256;

fn text(report: &ModelsReport) -> String {
    let mut text = format!(
        "Linux {}, {} processors, {} workers each; {} x {} s, client and server share the processors; {:.0} s in all\n",
        report.kernel, report.processors, report.workers, report.rounds, report.seconds, report.took_s
    );
    for scenario in &report.scenarios {
        // Writing to a String does not fail.
        let _ =
            write!(text, "\n{}: {}, {} connections", scenario.name, scenario.question, scenario.connections);
        if scenario.pipeline > 1 {
            let _ = write!(text, ", {} in flight", scenario.pipeline);
        }
        text.push('\n');
        let rows: Vec<_> = scenario.rows.iter().map(row).collect();
        Table::new(HEAD, colour()).write(&rows, &mut text);
    }
    if !report.refused.is_empty() {
        text.push_str("\nNot measured, since the configuration refuses them:\n");
    }
    for refused in &report.refused {
        let _ = writeln!(text, "  {} combinations: {}", refused.models.len(), refused.reason);
    }
    text
}

const COLUMNS: usize = 10;
const HEAD: [Column; COLUMNS] = [
    word("MODEL"),
    number("REQ/S"),
    number("P50us"),
    number("P99us"),
    number("CPUus/REQ"),
    number("CALLS/REQ"),
    number("WAKES/ACCEPT"),
    number("THREADS"),
    number("MEMORY"),
    word("NOTE"),
];

fn row(row: &Row) -> [Cell; COLUMNS] {
    let model: Cell = row.model.to_string().into();
    match &row.result {
        RowResult::Measured(figures) => of_figures(model, figures),
        RowResult::Failed(reason) => {
            let mut cells: [Cell; COLUMNS] = std::array::from_fn(|_| "".into());
            cells[0] = model;
            cells[COLUMNS - 1] = Cell::toned(reason.as_str(), Tone::Notice);
            cells
        }
    }
}

fn of_figures(model: Cell, figures: &Figures) -> [Cell; COLUMNS] {
    let (calls, uncounted) = match &figures.syscalls {
        Syscalls::Counted(calls) => (format!("{:.2}", calls.poller + calls.others), None),
        Syscalls::NotAsked => ("-".to_owned(), None),
        Syscalls::Uncounted(reason) => ("-".to_owned(), Some(reason.as_str())),
    };
    let note = match figures.failures.total() {
        0 => uncounted.unwrap_or_default().into(),
        failed => Cell::toned(format!("{failed} failed"), Tone::Alarm),
    };
    [
        model,
        format!("{:.0}", figures.rate).into(),
        format!("{:.0}", figures.latency.p50_us).into(),
        format!("{:.0}", figures.latency.p99_us).into(),
        format!("{:.2}", figures.cpu_us).into(),
        calls.into(),
        figures.wakes_per_accept.map_or_else(|| "-".to_owned(), |wakes| format!("{wakes:.2}")).into(),
        figures.threads.into(),
        bytes(figures.memory_bytes).into(),
        note,
    ]
}
