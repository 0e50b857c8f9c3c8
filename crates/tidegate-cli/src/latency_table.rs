//! What a capture tells as tables for people.
//!
//! Invariant: a table whose figures are all absent is left out, and what wants to be looked at is told in words or numbers as
//! well as by its colour.

use std::time::Duration;

use tidegate::log::Colour;
use tidegate_capture::{
    ConnectionReport, Counts, End, FileReport, MessageReport, Report, RttReport, TotalReport,
};

use crate::human;
use crate::table::{Cell, Column, Table, Tone, number, word};

/// ```text
/// pcap, 1204 packets in 12s, 3 connections
///
/// ROUND TRIPS        COUNT    MIN    P50    P90    P99  P99.9    MAX
/// handshake              3   51us   60us  ...
/// capture to server    400
///
/// SENT BY  CLIENTS  SERVERS
/// packets      602      604
/// again          4        0
///
/// REQUEST          COUNT  TIME TO        P50    P90    P99    MAX
/// http GET /hello    200  first byte  68.1us  ...
///                         last byte   68.9us
///                         in server   50.2us
///
/// CLIENT           SERVER            BEGAN  LASTED  END  AGAIN  LOST
/// 10.0.0.1:40000   10.0.0.2:80       +1.2s  ...
///
/// CLIENT           HANDSHAKE  TO SERVER  JITTER  TO CLIENT  JITTER  NO ROOM
/// ```
///
/// All of them fit on a terminal of 80 columns, unless addresses are long ones of IPv6.
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
        ("  change to the next", differences(&total.rtt_to_server)),
        ("capture to client", times(&total.rtt_to_client)),
        ("  change to the next", differences(&total.rtt_to_client)),
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
    if total.connections == 0 {
        return;
    }
    let both = [&total.from_clients, &total.from_servers];
    let row = |name: &str, of: &dyn Fn(&Counts) -> Cell| -> [Cell; 3] {
        let [clients, servers] = both.map(of);
        [name.into(), clients, servers]
    };
    let mut rows = vec![
        row("packets", &|counts| counts.packets.into()),
        row("bytes", &|counts| human::bytes(counts.bytes).into()),
    ];
    let is_any = |count: fn(&Counts) -> u64| both.into_iter().any(|counts| count(counts) > 0);
    for (name, tone, count) in LOSSES.into_iter().filter(|(_, _, count)| is_any(*count)) {
        rows.push(row(name, &|counts| toned(count(counts), tone)));
    }
    if is_any(|counts| counts.zero_window_ns) {
        let stalled = |counts: &Counts| match counts.zero_window_ns {
            0 => "".into(),
            ns => time(ns).into(),
        };
        rows.push(row("  for", &stalled));
    }
    write(LOSS_HEAD, &rows, colour, text);
}

fn messages(messages: &[MessageReport], colour: Colour, text: &mut String) {
    let rows = |message: &MessageReport| {
        let protocol = match message.protocol {
            tidegate_capture::Protocol::Http => "http",
            tidegate_capture::Protocol::Frame => "frame",
            tidegate_capture::Protocol::Turns => "turns",
        };
        let what = shortened(format!("{protocol} {}", message.what).trim_end());
        let count = message.to_first_byte.count.to_string();
        let (first, last) = (message.to_first_byte, message.to_last_byte);
        let times = [("first byte", Some(first)), ("last byte", Some(last)), ("in server", message.thinking)];
        let mut names = [what, count];
        let times = times.into_iter().filter_map(|(name, times)| Some((name, times?)));
        let rows: Vec<_> = times
            .map(|(name, it)| -> [Cell; 7] {
                let [what, count] = std::mem::take(&mut names).map(Cell::from);
                let [p50, p90, p99, max] =
                    [it.p50_ns, it.p90_ns, it.p99_ns, it.max_ns].map(|ns| time(ns).into());
                [what, count, name.into(), p50, p90, p99, max]
            })
            .collect();
        rows
    };
    let rows: Vec<_> = messages.iter().take(MAX_MESSAGES).flat_map(rows).collect();
    write(MESSAGE_HEAD, &rows, colour, text);
    if let Some(more) = messages.len().checked_sub(MAX_MESSAGES).filter(|more| *more > 0) {
        text.push_str(&format!("and {more} more kinds of requests, all of which --json has\n"));
    }
}

/// With its begin and its end, when it is longer than its column; JSON has it whole.
fn shortened(what: &str) -> String {
    let len = what.chars().count();
    if len <= MAX_WHAT {
        return what.to_owned();
    }
    let half = MAX_WHAT / 2;
    let begin: String = what.chars().take(half).collect();
    let end: String = what.chars().skip(len - (MAX_WHAT - half - 1)).collect();
    format!("{begin}…{end}")
}

fn connections(report: &Report, colour: Colour, text: &mut String) {
    let lost = |connection: &ConnectionReport| -> [Cell; 7] {
        let end = match connection.end {
            End::Open => "open".into(),
            End::Closed => "closed".into(),
            End::Reset => Cell::toned("reset", Tone::Notice),
        };
        let sum = |of: fn(&Counts) -> u64| of(&connection.from_client) + of(&connection.from_server);
        [
            connection.client.as_str().into(),
            connection.server.as_str().into(),
            format!("+{}", time(connection.first_ns.saturating_sub(report.file.first_ns))).into(),
            time(connection.duration_ns).into(),
            end,
            toned(sum(|counts| counts.retransmissions), Tone::Notice),
            toned(sum(|counts| counts.lost), Tone::Alarm),
        ]
    };
    let times = |connection: &ConnectionReport| -> [Cell; 7] {
        let rtt = |rtt: &Option<RttReport>| -> [Cell; 2] {
            let smoothed = rtt.as_ref().and_then(|rtt| rtt.smoothed_ns);
            let jitter = rtt.as_ref().and_then(|rtt| rtt.jitter_ns);
            [smoothed, jitter].map(|ns| ns.map_or_else(String::new, time).into())
        };
        let [to_server, server_jitter] = rtt(&connection.rtt_to_server);
        let [to_client, client_jitter] = rtt(&connection.rtt_to_client);
        let no_room = connection.from_client.zero_windows + connection.from_server.zero_windows;
        [
            connection.client.as_str().into(),
            connection.handshake_ns.map_or_else(String::new, time).into(),
            to_server,
            server_jitter,
            to_client,
            client_jitter,
            toned(no_room, Tone::Alarm),
        ]
    };
    write(CONNECTION_HEAD, &report.connections.iter().map(lost).collect::<Vec<_>>(), colour, text);
    write(TIMES_HEAD, &report.connections.iter().map(times).collect::<Vec<_>>(), colour, text);
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

/// A count that nobody has to look at when it is 0.
fn toned(count: u64, tone: Tone) -> Cell {
    Cell::toned(count.to_string(), if count > 0 { tone } else { Tone::Plain })
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
const LOSS_HEAD: [Column; 3] = [word("SENT BY"), number("CLIENTS"), number("SERVERS")];
/// A count, what it is called, and how much it wants to be seen.
type Loss = (&'static str, Tone, fn(&Counts) -> u64);
const LOSSES: [Loss; 11] = [
    ("again", Tone::Notice, |counts| counts.retransmissions),
    ("  fast", Tone::Plain, |counts| counts.fast),
    ("  by time-out", Tone::Plain, |counts| counts.by_timeout),
    ("  needless", Tone::Plain, |counts| counts.needless),
    ("  lost upstream", Tone::Plain, |counts| counts.lost_before_capture),
    ("lost", Tone::Alarm, |counts| counts.lost),
    ("reordered", Tone::Notice, |counts| counts.reordered),
    ("duplicate", Tone::Plain, |counts| counts.duplicates),
    ("uncaptured", Tone::Notice, |counts| counts.uncaptured),
    ("repeated acks", Tone::Plain, |counts| counts.duplicate_acks),
    ("zero windows", Tone::Alarm, |counts| counts.zero_windows),
];
const MESSAGE_HEAD: [Column; 7] = [
    word("REQUEST"),
    number("COUNT"),
    word("TIME TO"),
    number("P50"),
    number("P90"),
    number("P99"),
    number("MAX"),
];
/// Characters of a request in its column.
const MAX_WHAT: usize = 28;
const CONNECTION_HEAD: [Column; 7] = [
    word("CLIENT"),
    word("SERVER"),
    number("BEGAN"),
    number("LASTED"),
    word("END"),
    number("AGAIN"),
    number("LOST"),
];
const TIMES_HEAD: [Column; 7] = [
    word("CLIENT"),
    number("HANDSHAKE"),
    number("TO SERVER"),
    number("JITTER"),
    number("TO CLIENT"),
    number("JITTER"),
    number("NO ROOM"),
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
    fn long_requests_keep_their_ends() {
        assert_eq!(shortened("http GET /hello"), "http GET /hello");
        let long = format!("http GET /{}/end", "x".repeat(100));
        let short = shortened(&long);
        assert_eq!(short.chars().count(), MAX_WHAT);
        assert!(
            short.starts_with("http GET /x") && short.ends_with("xx/end") && short.contains('…'),
            "{short}"
        );
    }

    #[test]
    fn an_empty_capture_is_one_line() {
        let report = tidegate_capture::Analyzer::new(tidegate_capture::Options::default()).finish();
        let text = tables(&report, Colour::On);
        assert_eq!(text, ", 0 packets in 0ns, 0 connections\n");
    }
}
