//! `tidegate latency`: what a capture file tells, as tables, as JSON and as a picture.
//!
//! Invariant: what could be read of a damaged file is told before the command fails. All figures are
//! [`tidegate_capture`]'s.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use tidegate_bench::chart::{Axis, Chart, Kind, Series};
use tidegate_capture::{Options, Point, Report, analyse};

use crate::failure::Failure;
use crate::latency_table::tables;
use crate::output::{Form, colour, print, print_json};

/// What is asked of which file.
#[derive(Debug)]
pub(crate) struct Study {
    pub(crate) file: PathBuf,
    pub(crate) options: Options,
    /// Where the picture goes.
    pub(crate) svg: Option<PathBuf>,
    pub(crate) form: Form,
}

/// Reads the file and prints what it tells.
pub(crate) fn tell(study: &Study) -> Result<(), Failure> {
    let name = study.file.display();
    let report = analyse(&study.file, &study.options).with_context(|| name.to_string())?;
    match study.form {
        Form::Text => print(tables(&report, colour()))?,
        Form::Json => print_json(&serde_json::to_value(&report).context("the report as JSON")?)?,
    }
    if let Some(path) = &study.svg {
        draw(&report, &study.file, path)?;
    }
    match report.file.damage {
        Some(damage) => Err(anyhow!("{name}: {damage}").into()),
        None => Ok(()),
    }
}

fn draw(report: &Report, file: &Path, path: &Path) -> Result<(), Failure> {
    fs::write(path, chart(report, file).svg()).with_context(|| path.display().to_string())?;
    Ok(())
}

/// Round trips over time, each direction for itself.
fn chart(report: &Report, file: &Path) -> Chart {
    let series = |name: &str, course: &[Point]| Series {
        name: name.to_owned(),
        points: course.iter().map(|point| (s(point.time_ns, report.file.first_ns), ms(point.ns))).collect(),
        kind: Kind::Dots,
    };
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    Chart {
        title: format!("Round trips in {name}"),
        x: Axis { label: "time, s".to_owned(), log: false },
        // From a loopback's microseconds to a time-out's seconds.
        y: Axis { label: "round trip, ms".to_owned(), log: true },
        series: vec![
            series("capture to server", &report.course_to_server),
            series("capture to client", &report.course_to_client),
        ],
    }
}

fn s(time_ns: u64, first_ns: u64) -> f64 {
    std::time::Duration::from_nanos(time_ns.saturating_sub(first_ns)).as_secs_f64()
}

fn ms(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64() * 1e3
}
