//! What the admin pages tell machines: the counters in the text format of Prometheus, and whether the server is ready.
//!
//! Everything is read from the shared counters, so any worker can answer for all of them.

use std::fmt::Write as _;

use tidegate_engine::{ListenerWord, ProcessWord, Reason};

use crate::layout::Seat;
use crate::status::{
    ListenerMeta, ProcessCounters, ProcessState, ROLE_ACCEPTOR, ROLE_LOG_SERVER, ROLE_MASTER, ROLE_PROCESS,
    ROLE_WORKER, StatusSource, role_name,
};

impl StatusSource {
    /// Whether the server takes work: some worker is ready, and it has not begun to stop.
    pub(crate) fn is_ready(&self) -> bool {
        let is_ready =
            |process: &ProcessCounters| process.get(ProcessWord::State) == ProcessState::Ready as u64;
        let mut all = self.started();
        // A server of one process has no master.
        let is_stopping = all.any(|it| it.get(ProcessWord::Role) == ROLE_MASTER && !is_ready(&it));
        !is_stopping && self.started().any(|it| it.get(ProcessWord::Role) == ROLE_WORKER && is_ready(&it))
    }

    /// All counters in the text format of Prometheus, version 0.0.4.
    pub(crate) fn prometheus(&self) -> String {
        self.steadily(|| self.exposition())
    }

    fn exposition(&self) -> String {
        let mut text = String::with_capacity(16 << 10);
        self.write_process_metrics(&mut text);
        self.write_loop_metrics(&mut text);
        self.write_loop_connections(&mut text);
        self.write_turns(&mut text);
        self.write_listener_metrics(&mut text);
        self.write_latencies(&mut text);
        self.write_closes(&mut text);
        self.write_first_ends(&mut text);
        self.write_service_counters(&mut text);
        text
    }

    fn write_process_metrics(&self, text: &mut String) {
        head(
            text,
            "tidegate_process_start_time_seconds",
            "gauge",
            "Start of the process, in seconds since 1970.",
        );
        for process in self.started() {
            let value = process.get(ProcessWord::StartedUnix);
            line(text, "tidegate_process_start_time_seconds", &process_label(&process), value);
        }
        for (word, name, kind, help) in PROCESS_METRICS {
            head(text, name, kind, help);
            for process in self.started() {
                line(text, name, &process_label(&process), process.get(*word));
            }
        }
    }

    /// What each loop and each acceptor counts for itself.
    fn write_loop_metrics(&self, text: &mut String) {
        for (word, name, kind, help) in LOOP_METRICS {
            head(text, name, kind, help);
            for process in self.started() {
                for (seat, place) in process.seats() {
                    line(text, name, &loop_labels(&process, seat), place.get(*word));
                }
            }
        }
    }

    /// How connections are spread. An acceptor has none.
    fn write_loop_connections(&self, text: &mut String) {
        for (word, name, kind, help) in LOOP_CONNECTIONS {
            head(text, name, kind, help);
            for process in self.started() {
                for (seat, place) in process.seats().filter(|(seat, _)| *seat != Seat::Acceptor) {
                    let sum = process.listeners().map(|(index, _)| place.listener(index).get(*word)).sum();
                    line(text, name, &loop_labels(&process, seat), sum);
                }
            }
        }
    }

    /// A histogram for each loop.
    fn write_turns(&self, text: &mut String) {
        const NAME: &str = "tidegate_loop_turn_seconds";
        head(text, NAME, "histogram", "How long turns of an event loop took, without the wait between them.");
        for process in self.started() {
            for (seat, place) in process.seats() {
                let turns = place.turns();
                histogram(text, NAME, &loop_labels(&process, seat), turns.buckets(), turns.sum_ns);
            }
        }
    }

    /// A histogram for each listener that has answered something.
    fn write_latencies(&self, text: &mut String) {
        const NAME: &str = "tidegate_answer_seconds";
        let help = "How long answers took, from when an event loop had a batch of messages; from a sample.";
        head(text, NAME, "histogram", help);
        for process in self.counted() {
            for (index, meta) in process.listeners() {
                let took = process.latency(index);
                if took.total() > 0 {
                    histogram(text, NAME, &listener_labels(&process, meta), took.buckets(), took.sum_ns);
                }
            }
        }
    }

    /// Who ended connections, over all their reasons.
    fn write_first_ends(&self, text: &mut String) {
        const NAME: &str = "tidegate_connections_closed_first_total";
        head(text, NAME, "counter", "Connections that ended, by the side whose FIN or reset came first.");
        let sides = [("peer", ListenerWord::ClosedByPeer), ("server", ListenerWord::ClosedByServer)];
        for process in self.counted() {
            for (index, meta) in process.listeners() {
                for (side, word) in sides {
                    let labels = format!("{},side=\"{side}\"", listener_labels(&process, meta));
                    line(text, NAME, &labels, process.sum(index, |counts| counts.get(word)));
                }
            }
        }
    }

    fn write_listener_metrics(&self, text: &mut String) {
        for (word, name, kind, help) in LISTENER_METRICS {
            head(text, name, kind, help);
            for process in self.counted() {
                for (index, meta) in process.listeners() {
                    let value = process.sum(index, |counts| counts.get(*word));
                    line(text, name, &listener_labels(&process, meta), value);
                }
            }
        }
    }

    fn write_closes(&self, text: &mut String) {
        const NAME: &str = "tidegate_connections_closed_total";
        head(text, NAME, "counter", "Connections that ended, by reason; docs/operations.md lists them.");
        let known = Reason::ALL.iter().copied();
        let custom = Reason::all_custom();
        let reasons: Vec<Reason> = known.chain(custom).collect();
        for process in self.counted() {
            for (index, meta) in process.listeners() {
                for reason in &reasons {
                    let closed = process.sum(index, |counts| counts.closed(*reason));
                    if closed == 0 {
                        continue;
                    }
                    let labels = listener_labels(&process, meta);
                    let labels =
                        format!("{labels},reason=\"{}\",number=\"{}\"", reason.name(), reason.number());
                    line(text, NAME, &labels, closed);
                }
            }
        }
    }

    fn write_service_counters(&self, text: &mut String) {
        let mut written: Vec<String> = Vec::new();
        let metas: Vec<ListenerMeta> = self.views().flat_map(|view| view.listeners.to_vec()).collect();
        for meta in &metas {
            for (counter, def) in meta.counters.iter().enumerate() {
                let name = format!("tidegate_{}_{}_total", meta.service.replace('-', "_"), def.name);
                if written.contains(&name) {
                    continue;
                }
                head(text, &name, "counter", def.help);
                for process in self.counted() {
                    for (index, other) in
                        process.listeners().filter(|(_, other)| other.service == meta.service)
                    {
                        let value = process.sum(index, |counts| counts.service(counter));
                        line(text, &name, &listener_labels(&process, other), value);
                    }
                }
                written.push(name);
            }
        }
    }
}

type Row<W> = (W, &'static str, &'static str, &'static str);

const PROCESS_METRICS: &[Row<ProcessWord>] = &[
    (ProcessWord::State, "tidegate_process_state", "gauge", "0 starting, 1 ready, 2 retiring, 3 ended."),
    (ProcessWord::Generation, "tidegate_process_generation", "gauge", "Generation of the configuration."),
    (
        ProcessWord::Restarts,
        "tidegate_process_restarts_total",
        "counter",
        "Times the process was started again.",
    ),
    (ProcessWord::LogDropped, "tidegate_log_dropped_total", "counter", "Log records dropped by the process."),
];

const LOOP_METRICS: &[Row<ProcessWord>] = &[
    (ProcessWord::LoopTurns, "tidegate_loop_turns_total", "counter", "Turns of the event loop."),
    (
        ProcessWord::Stalls,
        "tidegate_loop_stalls_total",
        "counter",
        "Turns of the event loop that took longer than engine.stall_after.",
    ),
    (
        ProcessWord::StaleHandles,
        "tidegate_stale_handles_total",
        "counter",
        "Work dropped because its connection had gone.",
    ),
    (
        ProcessWord::AcceptExhausted,
        "tidegate_accept_exhausted_total",
        "counter",
        "Accepts that failed for want of descriptors or memory.",
    ),
    (ProcessWord::BufferBytes, "tidegate_buffer_bytes", "gauge", "What connections hold in memory."),
    (
        ProcessWord::AcceptsHeld,
        "tidegate_accepts_held_total",
        "counter",
        "Times that accepting stopped for want of memory for buffers.",
    ),
    (
        ProcessWord::HandoverErrors,
        "tidegate_handover_errors_total",
        "counter",
        "Messages and descriptors that were handed over and are no connections.",
    ),
    (ProcessWord::Panics, "tidegate_panics_total", "counter", "Panics caught in callbacks."),
];

const LOOP_CONNECTIONS: &[Row<ListenerWord>] = &[
    (
        ListenerWord::Accepted,
        "tidegate_loop_connections_accepted_total",
        "counter",
        "Connections that the event loop got, of all listeners.",
    ),
    (
        ListenerWord::Open,
        "tidegate_loop_connections_open",
        "gauge",
        "Connections that the event loop has now, of all listeners.",
    ),
];

const LISTENER_METRICS: &[Row<ListenerWord>] = &[
    (ListenerWord::Accepted, "tidegate_connections_accepted_total", "counter", "Connections accepted."),
    (ListenerWord::Open, "tidegate_connections_open", "gauge", "Connections open now."),
    (ListenerWord::BytesIn, "tidegate_received_bytes_total", "counter", "Bytes received."),
    (
        ListenerWord::BytesOut,
        "tidegate_sent_bytes_total",
        "counter",
        "Bytes that the kernel took for sending.",
    ),
    (ListenerWord::Messages, "tidegate_messages_total", "counter", "Complete messages handled."),
    (
        ListenerWord::Overloaded,
        "tidegate_connections_overloaded_total",
        "counter",
        "Peers refused for want of descriptors.",
    ),
    (
        ListenerWord::AcceptLost,
        "tidegate_connections_lost_total",
        "counter",
        "Connections lost before they were accepted.",
    ),
    (
        ListenerWord::Handshakes,
        "tidegate_tls_handshakes_total",
        "counter",
        "Handshakes of TLS that were done.",
    ),
    (
        ListenerWord::HandshakesResumed,
        "tidegate_tls_handshakes_resumed_total",
        "counter",
        "Those of them that went on from an earlier connection.",
    ),
    (ListenerWord::Connects, "tidegate_connects_total", "counter", "Outgoing connections asked for."),
    (
        ListenerWord::ConnectFailures,
        "tidegate_connect_failures_total",
        "counter",
        "Outgoing connections that could not be had.",
    ),
    (ListenerWord::DatagramsIn, "tidegate_datagrams_received_total", "counter", "Datagrams handled."),
    (
        ListenerWord::DatagramsOut,
        "tidegate_datagrams_sent_total",
        "counter",
        "Datagrams that the kernel took for sending.",
    ),
    (
        ListenerWord::DatagramsDropped,
        "tidegate_datagrams_dropped_total",
        "counter",
        "Datagrams that were to be sent and were not, for want of room or because the kernel refused them.",
    ),
    (
        ListenerWord::DatagramsTruncated,
        "tidegate_datagrams_truncated_total",
        "counter",
        "Datagrams of more than 64 KiB, thrown away.",
    ),
];

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(text, "{name}{{{labels}}} {value}");
}

/// Buckets of this format hold those of all smaller limits too.
fn histogram(
    text: &mut String,
    name: &str,
    labels: &str,
    buckets: impl Iterator<Item = (Option<u64>, u64)>,
    sum_ns: u64,
) {
    let mut total = 0u64;
    for (limit, count) in buckets {
        total = total.wrapping_add(count);
        let limit = limit.map_or("+Inf".to_owned(), seconds);
        line(text, &format!("{name}_bucket"), &format!("{labels},le=\"{limit}\""), total);
    }
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}", seconds(sum_ns));
    line(text, &format!("{name}_count"), labels, total);
}

/// Nanoseconds as seconds, to the last digit.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn process_label(process: &ProcessCounters) -> String {
    if let Some(generation) = process.left_to {
        return format!("process=\"ended\",generation=\"{generation}\"");
    }
    let role = process.get(ProcessWord::Role);
    let name = role_name(role).replace(' ', "-");
    match role {
        ROLE_MASTER | ROLE_LOG_SERVER => format!("process=\"{name}\""),
        ROLE_ACCEPTOR => {
            format!("process=\"{name}\",generation=\"{}\"", process.get(ProcessWord::Generation))
        }
        ROLE_PROCESS => format!("process=\"{name}-{}\"", process.get(ProcessWord::Index)),
        _ => {
            // While one replaces another, both have the same number.
            let next = if process.get(ProcessWord::Seat) == 0 { "" } else { "-next" };
            let index = process.get(ProcessWord::Index);
            let generation = process.get(ProcessWord::Generation);
            format!("process=\"worker-{index}{next}\",generation=\"{generation}\"")
        }
    }
}

fn loop_labels(process: &ProcessCounters, seat: Seat) -> String {
    format!("{},loop=\"{}\"", process_label(process), seat.label())
}

fn listener_labels(process: &ProcessCounters, meta: &ListenerMeta) -> String {
    format!("{},listener=\"{}\",service=\"{}\"", process_label(process), meta.name, meta.service)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tidegate_engine::Metrics;

    use super::*;
    use crate::layout::Layout;
    use crate::status::View;
    use crate::tables::Tables;

    /// Places: two for the loops of the worker, one for its acceptor.
    const LAYOUT: Layout = Layout { loops: 2, has_acceptor: true, is_permanent: false };

    /// A worker of two loops and an acceptor, and what `/metrics` says of it.
    fn exposition(record: impl FnOnce(&Metrics)) -> String {
        let metrics = Metrics::on_heap_for(LAYOUT.places(1), 1);
        for index in LAYOUT.of_worker(0, 0) {
            let place = metrics.process(index);
            place.set(ProcessWord::Pid, 1);
            place.set(ProcessWord::Role, 2);
            place.set(ProcessWord::Generation, 1);
        }
        record(&metrics);
        let meta = ListenerMeta {
            name: "web".to_owned(),
            address: String::new(),
            service: "web".to_owned(),
            counters: &[],
        };
        let permanent = View {
            generation: 0,
            metrics: Metrics::on_heap_for(2, 1),
            listeners: Arc::new([]),
            layout: Layout::PERMANENT,
            tables: Tables::default(),
        };
        let view = View {
            generation: 1,
            metrics,
            listeners: Arc::new([meta]),
            layout: LAYOUT,
            tables: Tables::default(),
        };
        StatusSource { permanent, generations: vec![view], board: None }.prometheus()
    }

    #[test]
    fn turns_are_a_cumulative_histogram_for_each_loop() {
        let text = exposition(|metrics| {
            let second = metrics.process(LAYOUT.of_worker(0, 0).start + 1);
            for micros in [5, 10, 11, 50_000, 20_000_000] {
                second.record_turn(Duration::from_micros(micros));
            }
        });
        let found: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("tidegate_loop_turn_seconds") && line.contains("loop=\"1\""))
            .map(|line| line.split_once("loop=\"1\"").unwrap().1)
            .collect();
        assert_eq!(
            found,
            [
                ",le=\"0.00001\"} 2",
                ",le=\"0.00004\"} 3",
                ",le=\"0.00016\"} 3",
                ",le=\"0.00064\"} 3",
                ",le=\"0.00256\"} 3",
                ",le=\"0.01024\"} 3",
                ",le=\"0.04096\"} 3",
                ",le=\"0.16384\"} 4",
                ",le=\"0.65536\"} 4",
                ",le=\"2.62144\"} 4",
                ",le=\"10.48576\"} 4",
                ",le=\"+Inf\"} 5",
                "} 20.050026",
                "} 5",
            ]
        );
        assert!(text.contains("# TYPE tidegate_loop_turn_seconds histogram\n"));
        assert!(text.contains(
            "tidegate_loop_turn_seconds_count{process=\"worker-0\",generation=\"1\",loop=\"0\"} 0\n"
        ));
    }

    #[test]
    fn latencies_are_those_of_the_listener_over_all_loops() {
        let none = exposition(|_| {});
        assert!(none.contains("# TYPE tidegate_answer_seconds histogram\n"));
        assert!(!none.contains("tidegate_answer_seconds_count"), "nothing was answered");
        let text = exposition(|metrics| {
            let loops = LAYOUT.of_worker(0, 0);
            metrics.process(loops.start).listener(0).record_latency(Duration::from_micros(3), 64);
            metrics.process(loops.start + 1).listener(0).record_latency(Duration::from_micros(5), 1);
        });
        let labels = "process=\"worker-0\",generation=\"1\",listener=\"web\",service=\"web\"";
        for line in [
            format!("tidegate_answer_seconds_bucket{{{labels},le=\"0.000004\"}} 64\n"),
            format!("tidegate_answer_seconds_bucket{{{labels},le=\"0.000008\"}} 65\n"),
            format!("tidegate_answer_seconds_bucket{{{labels},le=\"+Inf\"}} 65\n"),
            format!("tidegate_answer_seconds_sum{{{labels}}} 0.000197\n"),
            format!("tidegate_answer_seconds_count{{{labels}}} 65\n"),
        ] {
            assert!(text.contains(&line), "{line}{text}");
        }
    }

    #[test]
    fn an_acceptor_is_a_loop_without_connections() {
        let text = exposition(|metrics| {
            let acceptor = metrics.process(LAYOUT.of_worker(0, 0).end - 1);
            acceptor.set(ProcessWord::LoopTurns, 7);
            acceptor.set(ProcessWord::AcceptExhausted, 3);
        });
        let series = |name: &str| -> Vec<String> {
            let prefix = format!("{name}{{process=\"worker-0\",generation=\"1\",");
            text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
        };
        let turns = series("tidegate_loop_turns_total");
        assert_eq!(turns, ["loop=\"0\"} 0", "loop=\"1\"} 0", "loop=\"acceptor\"} 7"]);
        assert_eq!(series("tidegate_accept_exhausted_total")[2], "loop=\"acceptor\"} 3");
        assert_eq!(series("tidegate_loop_connections_open"), ["loop=\"0\"} 0", "loop=\"1\"} 0"]);
        assert_eq!(series("tidegate_loop_connections_accepted_total").len(), 2);
    }

    #[test]
    fn who_ended_first_is_told_for_each_listener() {
        let text = exposition(|_| {});
        for side in ["peer", "server"] {
            let line = format!(
                "tidegate_connections_closed_first_total{{process=\"worker-0\",generation=\"1\",listener=\"web\",service=\"web\",side=\"{side}\"}} 0\n"
            );
            assert!(text.contains(&line), "{text}");
        }
    }
}
