//! The tables of the admin page: processes, listeners, generations, ends of connections, and the last warnings and errors.
//!
//! On a narrow screen each row is a card, which the style sheet makes of the names that the cells carry. Invariant: a cell
//! has the name of its column.

use std::collections::HashMap;

use maud::{Markup, html};
use tidegate_log::{Record, Severity};

use self::Column::{Number, Text};
use super::chart::gauge;
use super::figures::{Figures, Load};
use super::text;
use crate::status::ProcessStatus;

pub(super) fn processes(figures: &Figures) -> Markup {
    let columns = [
        Text("Process"),
        Text("State"),
        Number("Connections"),
        Number("Requests/s"),
        Number("Sent/s"),
        Number("Busy"),
        Number("Stalls"),
        Number("Panics"),
        Number("Restarts"),
        Number("Uptime"),
        Number("Pid"),
        Number("Generation"),
    ];
    let rows = figures.status.processes.iter().zip(&figures.loads);
    table(
        "processes",
        "Processes",
        &columns,
        &html! {
            @for (process, load) in rows { tr { (process_cells(process, load)) } }
        },
    )
}

fn process_cells(process: &ProcessStatus, load: &Load) -> Markup {
    let works = process.role != "master" && process.role != "process";
    let rates = load.rates.filter(|_| works);
    html! {
        th scope="row" data-name="Process" {
            (process.role)
            @if let Some(index) = process.index { " " (index) }
        }
        td data-name="State" { (state(process)) }
        td .n data-name="Connections" { @if works { (text::count(process.connections)) } @else { "–" } }
        td .n data-name="Requests/s" { (rates.map_or("–".to_owned(), |rates| text::count(rates.requests))) }
        td .n data-name="Sent/s" { (rates.map_or("–".to_owned(), |rates| text::bytes(rates.bytes_out))) }
        td .n data-name="Busy" {
            @match rates {
                Some(rates) => { (gauge(rates.busy_permille)) (text::percent(rates.busy_permille)) }
                None => "–",
            }
        }
        td .n data-name="Stalls" { (alarming(load.stalls)) }
        td .n data-name="Panics" { (alarming(load.panics)) }
        td .n data-name="Restarts" { (alarming(process.restarts)) }
        td .n data-name="Uptime" { (text::age(process.uptime)) }
        td .n data-name="Pid" { (process.pid) }
        td .n data-name="Generation" { @if process.generation > 0 { (process.generation) } @else { "–" } }
    }
}

/// Its own word, unless the kernel has another one that matters more.
fn state(process: &ProcessStatus) -> Markup {
    match (process.state.as_str(), process.os_state.as_str()) {
        (_, os @ ("stopped" | "zombie" | "gone")) => html! { span .badge .bad { (os) } },
        ("ready", _) => html! { span .badge .good { "ready" } },
        (other, _) => html! { span .badge .warn { (other) } },
    }
}

/// A count that should be nothing.
fn alarming(count: u64) -> Markup {
    html! { @if count > 0 { strong .alarm { (text::count(count)) } } @else { "0" } }
}

pub(super) fn listeners(figures: &Figures) -> Markup {
    let columns = [
        Text("Listener"),
        Text("Address"),
        Text("Service"),
        Number("Connections"),
        Number("Accepted"),
        Number("Requests"),
        Number("p50"),
        Number("p99"),
    ];
    let rows = figures.status.listeners.iter().zip(&figures.latencies);
    table(
        "listeners",
        "Listeners",
        &columns,
        &html! {
            @for (listener, took) in rows {
                @let say = |of_1000| took.quantile_ns(of_1000).map_or("–".to_owned(), text::duration);
                tr {
                    th scope="row" data-name="Listener" { (listener.name) }
                    td data-name="Address" { code { (listener.address) } }
                    td data-name="Service" { (listener.service) }
                    td .n data-name="Connections" { (text::count(listener.connections)) }
                    td .n data-name="Accepted" { (text::count(listener.accepted)) }
                    td .n data-name="Requests" { (text::count(listener.requests)) }
                    td .n data-name="p50" { (say(500)) }
                    td .n data-name="p99" { (say(990)) }
                }
            }
        },
    )
}

pub(super) fn generations(figures: &Figures) -> Markup {
    let columns =
        [Text("Generation"), Text("State"), Text("Since"), Number("Processes"), Number("Connections")];
    let rows = figures.status.generations.iter().rev();
    table(
        "generations",
        "Generations",
        &columns,
        &html! {
            @for generation in rows {
                tr {
                    th scope="row" data-name="Generation" { (generation.number) }
                    td data-name="State" {
                        @let class = if generation.state == "current" { "badge good" } else { "badge warn" };
                        span class=(class) { (generation.state) }
                    }
                    td data-name="Since" {
                        @match generation.since_unix {
                            Some(since) => time datetime=(instant(since)) { (clock(since)) },
                            None => "–",
                        }
                    }
                    td .n data-name="Processes" { (text::count(generation.processes)) }
                    td .n data-name="Connections" { (text::count(generation.connections)) }
                }
            }
        },
    )
}

pub(super) fn closes(figures: &Figures) -> Markup {
    table(
        "closes",
        "Connections ended, by reason",
        &[Text("Reason"), Number("Number"), Number("Connections")],
        &html! {
            @for (reason, count) in figures.closes.iter().take(MOST_REASONS) {
                tr {
                    th scope="row" data-name="Reason" { (reason.name()) }
                    td .n data-name="Number" { (reason.number()) }
                    td .n data-name="Connections" { (text::count(*count)) }
                }
            }
            @if figures.closes.is_empty() { tr { th scope="row" { "None yet." } } }
        },
    )
}

/// A column by its name.
#[derive(Clone, Copy)]
enum Column {
    Text(&'static str),
    Number(&'static str),
}

impl Column {
    fn head(self) -> Markup {
        match self {
            Self::Text(name) => html! { th scope="col" { (name) } },
            Self::Number(name) => html! { th .n scope="col" { (name) } },
        }
    }
}

fn table(id: &str, title: &str, columns: &[Column], rows: &Markup) -> Markup {
    html! {
        section .panel id=(id) aria-labelledby=(format!("{id}-title")) {
            h2 id=(format!("{id}-title")) { (title) }
            table .rows {
                thead { tr { @for column in columns { (column.head()) } } }
                tbody { (rows) }
            }
        }
    }
}

pub(super) fn records(figures: &Figures) -> Markup {
    let now = figures.status.unix_time;
    html! {
        section .panel #records aria-labelledby="records-title" {
            h2 #records-title { "Last warnings and errors" }
            @if figures.records.is_empty() { p .note { "None since the server was started." } }
            ol .records {
                @for (record, times) in together(&figures.records).into_iter().take(MOST_RECORDS) {
                    (one_record(record, times, now))
                }
            }
        }
    }
}

fn one_record(record: &Record, times: u64, now: u64) -> Markup {
    let second = u64::try_from(record.time.as_second()).unwrap_or(0);
    let class = if record.severity >= Severity::Error { "badge bad" } else { "badge warn" };
    html! {
        li {
            span class=(class) { (record.severity.name().to_lowercase()) }
            " "
            time datetime=(instant(second)) title=(clock(second)) { (text::age(now.saturating_sub(second))) " ago" }
            " "
            span .who { (record.resource.process) "[" (record.resource.pid) "]" }
            @if times > 1 { " " span .times { (text::count(times)) " times" } }
            p .said { (record.body) }
            @if !record.attributes.is_empty() {
                p .attributes {
                    @for (name, value) in &record.attributes {
                        span { (name) "=" @match value.as_str() { Some(text) => (text), None => (value.to_string()) } }
                        " "
                    }
                }
            }
        }
    }
}

/// What was said several times stands there once, where it was said last.
fn together(records: &[Record]) -> Vec<(&Record, u64)> {
    let mut said: Vec<(&Record, u64)> = Vec::new();
    let mut places: HashMap<(Severity, &str, &str), usize> = HashMap::new();
    for record in records {
        let key = (record.severity, record.target.as_str(), record.body.as_str());
        let place = *places.entry(key).or_insert(said.len());
        match said.get_mut(place) {
            Some((_, times)) => *times += 1,
            None => said.push((record, 1)),
        }
    }
    said
}

/// As `2026-01-31T23:59:59Z`.
pub(super) fn instant(unix_time: u64) -> String {
    let time = i64::try_from(unix_time).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// As `2026-01-31 23:59:59 UTC`.
pub(super) fn clock(unix_time: u64) -> String {
    instant(unix_time).replace('T', " ").replace('Z', " UTC")
}

const MOST_REASONS: usize = 12;
const MOST_RECORDS: usize = 30;
