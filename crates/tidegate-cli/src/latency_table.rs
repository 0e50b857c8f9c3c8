//! What a capture tells as tables for people.
//!
//! Invariant: a table whose figures are all absent is left out, and what wants to be looked at is told in words or numbers as
//! well as by its colour.

use std::time::Duration;

use tidegate::log::Colour;
use tidegate_capture::{
    ConnectionReport, Counts, End, FileReport, MessageReport, Percentiles, Report, RttReport, TotalReport,
};

use crate::human;
use crate::table::{Cell, Column, Table, Tone, number, word};

/// ```text
/// web.pcap: pcap, 1204 packets in 12s, 3 connections
///
/// ROUND TRIPS        COUNT    MIN    P50    P90    P99    MAX   MEAN
/// handshake              3   51us   60us  ...
/// capture to server    400
///
/// FROM     PACKETS   BYTES  SENT AGAIN  FAST  TIMEOUT  NEEDLESS  LOST  REORDERED  ...
/// clients      602  12KiB           4     3        1         0     4          0
///
/// PROTOCOL  REQUEST    COUNT  FIRST P50  P99  MAX  LAST P50  P99  SERVER P50  P99
/// http      GET /hello   200
///
/// CLIENT           SERVER        BEGAN  LASTED  END  HANDSHAKE  ...
/// ```
pub(crate) fn tables(report: &Report, colour: Colour) -> String {
    let mut text = summary(&report.file, &report.total);
    round_trips(&report.total, colour, &mut text);
    losses(&report.total, colour, &mut text);
    messages(&report.messages, colour, &mut text);
    connections(report, colour, &mut text);
    text
}

fn summary(file: &FileReport, total: &TotalReport) -> String {
    let mut text = format!(
        "{}, {} packets in {}, {} connections\n",
        file.format,
        file.packets,
        time(file.duration_ns),
        total.connections
    );
    let left_out = [
        (file.other_connections, "of other ports"),
        (file.other_protocols, "not TCP over IP"),
        (file.fragments, "fragments of IP packets"),
        (file.broken, "without whole headers"),
        (file.unknown_links, "of an unknown link"),
    ];
    for (count, what) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("left out: {count} packets {what}"));
        if let Some(link) = file.unknown_link.filter(|_| what == "of an unknown link") {
            text.push_str(&format!(" (LINKTYPE {link})"));
        }
        text.push('\n');
    }
    text
}

fn round_trips(total: &TotalReport, colour: Colour, text: &mut String) {
    let times = |rtt: &Option<RttReport>| rtt.as_ref().map(|rtt| rtt.times);
    let differences = |rtt: &Option<RttReport>| rtt.as_ref().and_then(|rtt| rtt.differences);
    let rows = [
        ("handshake", total.handshake),
        ("capture to server", times(&total.rtt_to_server)),
        ("  difference to the one before", differences(&total.rtt_to_server)),
        ("capture to client", times(&total.rtt_to_client)),
        ("  difference to the one before", differences(&total.rtt_to_client)),
    ];
    let rows = rows.into_iter().filter_map(|(name, times)| Some((name, times?)));
    let rows: Vec<[Cell; 8]> = rows
        .map(|(name, it)| {
            let [min, p50, p90, p99, p999, max] =
                [it.min_ns, it.p50_ns, it.p90_ns, it.p99_ns, it.p999_ns, it.max_ns].map(|ns| time(ns).into());
            [name.into(), it.count.into(), min, p50, p90, p99, p999, max]
        })
        .collect();
    write(ROUND_TRIP_HEAD, &rows, colour, text);
}

fn losses(total: &TotalReport, colour: Colour, text: &mut String) {
    let row = |name: &str, counts: &Counts| -> [Cell; 15] {
        [
            name.into(),
            counts.packets.into(),
            human::bytes(counts.bytes).into(),
            noticed(counts.retransmissions),
            counts.fast.into(),
            counts.by_timeout.into(),
            counts.needless.into(),
            alarming(counts.lost),
            counts.lost_before_capture.into(),
            noticed(counts.reordered),
            counts.duplicates.into(),
            counts.duplicate_acks.into(),
            alarming(counts.zero_windows),
            if counts.zero_window_ns == 0 { "".into() } else { time(counts.zero_window_ns).into() },
            noticed(counts.uncaptured),
        ]
    };
    if total.connections > 0 {
        let rows = [row("clients", &total.from_clients), row("servers", &total.from_servers)];
        write(LOSS_HEAD, &rows, colour, text);
    }
}

fn messages(messages: &[MessageReport], colour: Colour, text: &mut String) {
    let row = |message: &MessageReport| -> [Cell; 12] {
        let protocol = match message.protocol {
            tidegate_capture::Protocol::Http => "http",
            tidegate_capture::Protocol::Frame => "frame",
            tidegate_capture::Protocol::Turns => "turns",
        };
        let [first_50, first_99, first_max] = three(&message.to_first_byte);
        let [last_50, last_99, last_max] = three(&message.to_last_byte);
        let [server_50, server_99, server_max] =
            message.thinking.as_ref().map_or_else(|| ["", "", ""].map(Cell::from), three);
        let what = message.what.as_str();
        let count = message.to_first_byte.count.into();
        [
            protocol.into(),
            what.into(),
            count,
            first_50,
            first_99,
            first_max,
            last_50,
            last_99,
            last_max,
            server_50,
            server_99,
            server_max,
        ]
    };
    let rows: Vec<_> = messages.iter().take(MAX_MESSAGES).map(row).collect();
    write(MESSAGE_HEAD, &rows, colour, text);
    if let Some(more) = messages.len().checked_sub(MAX_MESSAGES).filter(|more| *more > 0) {
        text.push_str(&format!("and {more} more kinds of requests, all of which --json has\n"));
    }
}

fn three(times: &Percentiles) -> [Cell; 3] {
    [times.p50_ns, times.p99_ns, times.max_ns].map(|ns| time(ns).into())
}

fn connections(report: &Report, colour: Colour, text: &mut String) {
    let row = |connection: &ConnectionReport| -> [Cell; 13] {
        let end = match connection.end {
            End::Open => "open".into(),
            End::Closed => "closed".into(),
            End::Reset => Cell::toned("reset", Tone::Notice),
        };
        let rtt = |rtt: &Option<RttReport>| -> [Cell; 2] {
            let smoothed = rtt.as_ref().and_then(|rtt| rtt.smoothed_ns);
            let jitter = rtt.as_ref().and_then(|rtt| rtt.jitter_ns);
            [smoothed, jitter].map(|ns| ns.map_or_else(String::new, time).into())
        };
        let [to_server, server_jitter] = rtt(&connection.rtt_to_server);
        let [to_client, client_jitter] = rtt(&connection.rtt_to_client);
        let both = [&connection.from_client, &connection.from_server];
        let sum = |of: fn(&Counts) -> u64| both.into_iter().map(of).sum::<u64>();
        [
            connection.client.as_str().into(),
            connection.server.as_str().into(),
            format!("+{}", time(connection.first_ns.saturating_sub(report.file.first_ns))).into(),
            time(connection.duration_ns).into(),
            end,
            connection.handshake_ns.map_or_else(String::new, time).into(),
            to_server,
            server_jitter,
            to_client,
            client_jitter,
            noticed(sum(|counts| counts.retransmissions)),
            alarming(sum(|counts| counts.lost)),
            alarming(sum(|counts| counts.zero_windows)),
        ]
    };
    let rows: Vec<_> = report.connections.iter().map(row).collect();
    write(CONNECTION_HEAD, &rows, colour, text);
    if report.connections_not_listed > 0 {
        let more = report.connections_not_listed;
        text.push_str(&format!("and {more} more connections, which --connections lists\n"));
    }
}

/// Writes a table that has rows, below an empty line.
fn write<const N: usize>(head: [Column; N], rows: &[[Cell; N]], colour: Colour, text: &mut String) {
    if !rows.is_empty() {
        text.push('\n');
        Table::new(head, colour).write(rows, text);
    }
}

fn noticed(count: u64) -> Cell {
    Cell::toned(count.to_string(), if count > 0 { Tone::Notice } else { Tone::Plain })
}

fn alarming(count: u64) -> Cell {
    Cell::toned(count.to_string(), if count > 0 { Tone::Alarm } else { Tone::Plain })
}

/// `870ns`, `12.3us`, `1.25ms`, `31.2s`: three digits, rounded down; from a minute on as elsewhere.
fn time(ns: u64) -> String {
    let (unit, name) = match ns {
        0..1_000 => return format!("{ns}ns"),
        1_000..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        1_000_000_000..60_000_000_000 => (1_000_000_000, "s"),
        _ => return human::time(Duration::from_nanos(ns)),
    };
    let (whole, thousandths) = (ns / unit, ns % unit / (unit / 1_000));
    match whole {
        0..10 => format!("{whole}.{:02}{name}", thousandths / 10),
        10..100 => format!("{whole}.{}{name}", thousandths / 100),
        _ => format!("{whole}{name}"),
    }
}

/// Kinds of requests in the table.
const MAX_MESSAGES: usize = 40;

const ROUND_TRIP_HEAD: [Column; 8] = [
    word("ROUND TRIPS"),
    number("COUNT"),
    number("MIN"),
    number("P50"),
    number("P90"),
    number("P99"),
    number("P99.9"),
    number("MAX"),
];
const LOSS_HEAD: [Column; 15] = [
    word("SENT BY"),
    number("PACKETS"),
    number("BYTES"),
    number("AGAIN"),
    number("FAST"),
    number("TIMEOUT"),
    number("NEEDLESS"),
    number("LOST"),
    number("UPSTREAM"),
    number("REORDERED"),
    number("DUPLICATE"),
    number("DUP ACKS"),
    number("ZERO WINDOWS"),
    number("FOR"),
    number("UNCAPTURED"),
];
const MESSAGE_HEAD: [Column; 12] = [
    word("PROTOCOL"),
    word("REQUEST"),
    number("COUNT"),
    number("FIRST BYTE P50"),
    number("P99"),
    number("MAX"),
    number("LAST BYTE P50"),
    number("P99"),
    number("MAX"),
    number("SERVER P50"),
    number("P99"),
    number("MAX"),
];
const CONNECTION_HEAD: [Column; 13] = [
    word("CLIENT"),
    word("SERVER"),
    number("BEGAN"),
    number("LASTED"),
    word("END"),
    number("HANDSHAKE"),
    number("TO SERVER"),
    number("JITTER"),
    number("TO CLIENT"),
    number("JITTER"),
    number("AGAIN"),
    number("LOST"),
    number("ZERO WINDOWS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (ns, text) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.00us"),
            (12_345, "12.3us"),
            (999_999, "999us"),
            (1_259_999, "1.25ms"),
            (31_250_000_000, "31.2s"),
            (61_000_000_000, "1m01s"),
        ] {
            assert_eq!(time(ns), text);
        }
    }

    #[test]
    fn an_empty_capture_is_one_line() {
        let report = tidegate_capture::Analyzer::new(tidegate_capture::Options::default()).finish();
        let text = tables(&report, Colour::On);
        assert_eq!(text, ", 0 packets in 0ns, 0 connections\n");
    }
}
