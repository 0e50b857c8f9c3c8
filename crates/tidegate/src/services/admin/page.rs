//! The admin page: figures in, HTML out.
//!
//! Whole without a script; the one that it names only fetches it anew. Invariant: every text is escaped where it is written,
//! by the macro that writes all of it.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use tidegate_engine::LatencyHistogram;

use super::chart::{Bar, TimeChart, histogram};
use super::figures::{Figures, rate_of};
use super::tables;
use super::text;

/// The whole page.
pub(super) fn page(figures: &Figures) -> String {
    let title = if figures.is_ready { "Tidegate" } else { "Tidegate: not ready" };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="/admin/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/admin/page.css";
                noscript { meta http-equiv="refresh" content="5"; }
                script src="/admin/page.js" defer {}
            }
            body {
                header {
                    h1 { (PreEscaped(include_str!("icon.svg"))) "Tidegate" }
                    p #live role="status" { noscript { "Loaded anew every 5 seconds." } }
                    button #pause type="button" hidden { "Pause" }
                }
                main { (body(figures)) }
                footer {
                    nav aria-label="For machines" {
                        @for (path, what) in LINKS { a href=(path) title=(what) { (path) } }
                    }
                    p { "Any worker answers here for all processes of this server." }
                }
            }
        }
    }
    .into_string()
}

/// What is fetched anew.
fn body(figures: &Figures) -> Markup {
    html! {
        (summary(figures))
        @if figures.has_board {
            div .cards { (charts(figures)) }
        } @else {
            p .note { "This server keeps no samples of the last minutes, and no last errors." }
        }
        (tables::processes(figures))
        (tables::listeners(figures))
        div .pair {
            (tables::generations(figures))
            (tables::closes(figures))
        }
        @if figures.has_board { (tables::records(figures)) }
    }
}

fn summary(figures: &Figures) -> Markup {
    let status = &figures.status;
    let master = status.processes.iter().find(|process| process.role == "master");
    let first = master.or(status.processes.first());
    let current = status.generations.iter().find(|generation| generation.state == "current");
    html! {
        p .summary {
            @if figures.is_ready { span .badge .good { "ready" } } @else { span .badge .bad { "not ready" } }
            span { "version " (status.version) }
            @if let Some(current) = current { span { "generation " (current.number) } }
            @if let Some(first) = first {
                span { "up " (text::age(first.uptime)) }
                span { "pid " (first.pid) }
            }
            span { time #taken datetime=(tables::instant(status.unix_time)) { (tables::clock(status.unix_time)) } }
        }
    }
}

fn charts(figures: &Figures) -> Markup {
    html! {
        (connections(figures))
        (requests(figures))
        (latency(figures))
        (traffic(figures))
        (busy(figures))
        (latencies(figures))
    }
}

/// A chart with its figure.
fn card(id: &str, title: &str, value: &Markup, note: &str, chart: &Markup) -> Markup {
    html! {
        section .card id=(id) aria-labelledby=(format!("{id}-title")) {
            h2 id=(format!("{id}-title")) { (title) }
            p .value { (value) }
            p .note { (note) }
            (chart)
        }
    }
}

fn connections(figures: &Figures) -> Markup {
    let now = figures.samples.last().map_or(0, |sample| sample.connections);
    let accepted = figures.last(NOW_SECONDS).map_or(0, |last| rate_of(last, |sample| sample.accepted));
    let series = [figures.series("open", |between| Some(between.last.connections as f64))];
    let chart = TimeChart {
        label: format!("Open connections over {}; {} now", span(figures), text::count(now)),
        series: &series,
        span: figures.span() as f64,
        text: short,
        least_top: 3.0,
    };
    let note = format!("{} accepted per second", text::count(accepted));
    card("connections", "Connections", &html! { (text::count(now)) }, &note, &chart.draw())
}

fn requests(figures: &Figures) -> Markup {
    let rate = |seconds| figures.last(seconds).map_or(0, |last| rate_of(last, |sample| sample.requests));
    let now = text::count(rate(NOW_SECONDS));
    let series = [figures.series("requests", |between| Some(between.rate(|sample| sample.requests)))];
    let chart = TimeChart {
        label: format!("Requests per second over {}; {now} now", span(figures)),
        series: &series,
        span: figures.span() as f64,
        text: short,
        least_top: 3.0,
    };
    let note = format!("{} per second over {}", text::count(rate(figures.span())), span(figures));
    card("requests", "Requests per second", &html! { (now) }, &note, &chart.draw())
}

fn latency(figures: &Figures) -> Markup {
    let quantile = |name, of_1000| {
        figures.series(name, move |between| {
            let took = between.last.latency.since(&between.first.latency);
            took.quantile_ns(of_1000).map(|ns| ns as f64)
        })
    };
    let series = [quantile("p99", 990), quantile("p50", 500)];
    let minute = figures.latency(MINUTE);
    let say = |of_1000| minute.quantile_ns(of_1000).map_or("–".to_owned(), text::duration);
    let (p50, p99) = (say(500), say(990));
    let chart = TimeChart {
        label: format!(
            "Latency over {}; in the last minute half within {p50}, 99 % within {p99}",
            span(figures)
        ),
        series: &series,
        span: figures.span() as f64,
        text: |ns| text::round(&text::duration(rounded(ns))),
        least_top: 10_000.0,
    };
    let value = html! { (p99) " " span .key .s0 { "p99" } " " (p50) " " span .key .s1 { "p50" } };
    card("latency", "Latency", &value, "from the request's arrival to its answer, last minute", &chart.draw())
}

fn traffic(figures: &Figures) -> Markup {
    let now = |total: fn(&crate::history::Sample) -> u64| {
        text::bytes(figures.last(NOW_SECONDS).map_or(0, |last| rate_of(last, total)))
    };
    let (sent, received) = (now(|sample| sample.bytes_out), now(|sample| sample.bytes_in));
    let series = [
        figures.series("sent", |between| Some(between.rate(|sample| sample.bytes_out))),
        figures.series("received", |between| Some(between.rate(|sample| sample.bytes_in))),
    ];
    let chart = TimeChart {
        label: format!("Traffic over {}; {sent} sent and {received} received per second now", span(figures)),
        series: &series,
        span: figures.span() as f64,
        text: |value| text::round(&text::bytes(rounded(value))),
        least_top: 1000.0,
    };
    let value = html! { (sent) " " span .key .s0 { "out" } " " (received) " " span .key .s1 { "in" } };
    card("traffic", "Traffic per second", &value, "bytes of all listeners but this one", &chart.draw())
}

fn busy(figures: &Figures) -> Markup {
    let now = figures.samples.last().map_or(0, |sample| sample.busy_permille);
    let series = [figures.series("busy", |between| Some(between.last.busy_permille as f64 / 10.0))];
    let chart = TimeChart {
        label: format!("How busy the event loops were over {}; {} now", span(figures), text::percent(now)),
        series: &series,
        span: figures.span() as f64,
        text: |value| format!("{value:.0}\u{a0}%"),
        least_top: 100.0,
    };
    let stalls = figures.samples.last().map_or(0, |sample| sample.stalls);
    let fresh =
        figures.last(figures.span()).map_or(0, |(first, last)| last.stalls.saturating_sub(first.stalls));
    let note = format!(
        "{} stalls of loops, {} of them in {}",
        text::count(stalls),
        text::count(fresh),
        span(figures)
    );
    card("busy", "Event loops busy", &html! { (text::percent(now)) }, &note, &chart.draw())
}

fn latencies(figures: &Figures) -> Markup {
    let took = figures.latency(HISTOGRAM_SECONDS);
    let total = took.total();
    let bars = bars(&took);
    let chart = histogram("How many answers took how long in the last five minutes", &bars);
    let value = html! { (text::count(total)) };
    card("histogram", "Answers by latency", &value, "batches of requests in the last five minutes", &chart)
}

/// The buckets from the first to the last that has something in it, and some more where these are few.
fn bars(took: &LatencyHistogram) -> Vec<Bar> {
    let total = took.total().max(1);
    let filled = || took.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(bucket, _)| bucket);
    let first = filled().next().unwrap_or(0).min(took.counts.len() - LEAST_BARS);
    let last = filled().next_back().unwrap_or(0).max(first + LEAST_BARS - 1);
    let mut from = "0".to_owned();
    let mut bars = Vec::with_capacity(took.counts.len());
    for (bucket, (limit, value)) in took.buckets().enumerate() {
        let limit = limit.map_or("more".to_owned(), |ns| text::round(&text::duration(ns)));
        if (first..=last).contains(&bucket) {
            let share = text::percent(value.saturating_mul(1000) / total);
            let title = format!("{from} to {limit}: {} ({share})", text::count(value));
            bars.push(Bar { limit: limit.clone(), title, value });
        }
        from = limit;
    }
    bars
}

/// What the charts show, as people say it.
fn span(figures: &Figures) -> String {
    match figures.span() / MINUTE {
        0 | 1 => "the last minute".to_owned(),
        minutes => format!("the last {minutes} minutes"),
    }
}

/// A number at the grid of a chart.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e9 => format!("{}\u{a0}G", trimmed(value / 1e9)),
        value if value >= 1e6 => format!("{}\u{a0}M", trimmed(value / 1e6)),
        value if value >= 1e4 => format!("{}\u{a0}k", trimmed(value / 1e3)),
        value => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// A number of the grid, which is not negative and far below the largest.
fn rounded(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float is cut to the range"
    )]
    let whole = value.round() as u64;
    whole
}

/// What "now" is the mean of: one second is too unsteady to be read.
const NOW_SECONDS: u64 = 5;
const MINUTE: u64 = 60;
const HISTOGRAM_SECONDS: u64 = 300;
const LEAST_BARS: usize = 8;
const LINKS: [(&str, &str); 4] = [
    ("/status", "The processes, listeners and their counts, as JSON"),
    ("/metrics", "All counters, in the text format of Prometheus"),
    ("/healthz", "200 while a worker answers"),
    ("/readyz", "200 while the server takes new work, 503 while it starts or stops"),
];

#[cfg(test)]
mod tests {
    use tidegate_engine::Reason;
    use tidegate_log::{Record, Severity};

    use super::super::figures::Load;
    use super::*;
    use crate::history::{SAMPLES, Sample};
    use crate::status::Status;

    fn empty() -> Figures {
        Figures {
            status: Status::default(),
            is_ready: false,
            samples: Vec::new(),
            loads: Vec::new(),
            latencies: Vec::new(),
            closes: Vec::new(),
            records: Vec::new(),
            has_board: true,
        }
    }

    fn record(body: &str, attributes: &str) -> Record {
        let line = serde_json::json!({"time": "2026-01-31T23:59:59Z", "severity": "ERROR", "target": "t", "body": body,
            "attributes": {attributes: attributes, "n": 1}, "resource": {"process": attributes, "pid": 7}});
        Record::parse(line.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_others_may_have_written_is_text_and_nothing_else() {
        let hostile = "</script><script>alert(1)</script>\"'&<b onload=x>";
        let mut figures = empty();
        figures.records = vec![record(hostile, hostile)];
        figures.status.version = hostile.to_owned();
        let status = serde_json::json!({"version": hostile, "unix_time": 1, "processes": [{"role": hostile, "pid": 1,
            "generation": 1, "state": hostile, "os_state": "x", "uptime": 1, "restarts": 0, "connections": 0, "bytes_in": 0,
            "bytes_out": 0, "requests": 0}], "listeners": [{"name": hostile, "address": hostile, "service": hostile,
            "connections": 0, "accepted": 0, "requests": 0}], "generations": [{"number": 1, "state": hostile,
            "processes": 1, "connections": 1}]});
        figures.status = serde_json::from_value(status).unwrap();
        figures.loads = vec![Load::default()];
        figures.latencies = vec![LatencyHistogram::EMPTY];
        let html = page(&figures);
        assert!(html.matches("&lt;script&gt;alert(1)").count() >= 8, "each of them is shown");
        assert!(!html.contains("<script>alert") && !html.contains("<b onload"));
        assert_eq!(html.matches("<script").count(), 1, "its own");
    }

    #[test]
    fn a_server_of_which_nothing_is_known_yet_has_a_page() {
        let html = page(&empty());
        assert!(html.contains("not ready") && html.contains("None since the server was started."));
        assert!(!html.contains("NaN") && !html.contains("inf"));
        let html = page(&Figures { has_board: false, ..empty() });
        assert!(html.contains("keeps no samples") && !html.contains("class=\"card\""));
    }

    #[test]
    fn a_page_has_a_bounded_size() {
        let mut figures = empty();
        let busy = |second: u64| Sample {
            monotonic_ns: second * 1_000_000_000,
            requests: second * second * 997,
            bytes_out: second * second * 1_000_003,
            latency: LatencyHistogram { counts: std::array::from_fn(|at| at as u64 * second), sum_ns: 1 },
            ..Sample::default()
        };
        figures.samples = (0..SAMPLES as u64).map(busy).collect();
        figures.records =
            (0..128).map(|number| record(&format!("{number} {}", "x".repeat(900)), "a")).collect();
        figures.closes = (40..=63).map(|number| (Reason::custom(number), 1)).collect();
        let html = page(&figures);
        assert!(html.len() < 100_000, "{}", html.len());
        assert!(figures.records.iter().all(|record| record.severity == Severity::Error));
    }

    #[test]
    fn the_bars_reach_from_the_first_to_the_last_that_is_filled() {
        let titles = |counts: &[(usize, u64)]| {
            let mut took = LatencyHistogram::EMPTY;
            counts.iter().for_each(|(bucket, count)| took.counts[*bucket] = *count);
            let bars = bars(&took);
            (
                bars.len(),
                bars[0].title.replace('\u{a0}', " "),
                bars[bars.len() - 1].limit.replace('\u{a0}', " "),
            )
        };
        assert_eq!(titles(&[]), (8, "0 to 4 µs: 0 (0 %)".to_owned(), "512 µs".to_owned()));
        assert_eq!(
            titles(&[(2, 3), (12, 1)]),
            (11, "8 µs to 16 µs: 3 (75 %)".to_owned(), "16.4 ms".to_owned())
        );
        assert_eq!(titles(&[(22, 1)]), (8, "65.5 ms to 131 ms: 0 (0 %)".to_owned(), "more".to_owned()));
    }
}
