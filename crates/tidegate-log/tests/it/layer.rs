//! What becomes of an event.

use serde_json::json;
use tidegate_log::{Levels, Record, Severity, hex};
use tracing::Level;

use crate::support::{LONG, Site, logging_to};

/// The records that `work` logs at the given levels.
fn logged(levels: &str, work: impl FnOnce(&Levels)) -> Vec<Record> {
    let site = Site::new();
    let server = site.serve();
    let client = site.client_with(|options| options.levels = levels.parse().unwrap());
    logging_to(&client, || work(client.levels()));
    assert_eq!(client.flush(LONG).unsent, 0);
    server.stop();
    site.records()
}

#[test]
fn fields_keep_their_types() {
    let records = logged("info", |_| {
        let error = std::io::Error::other("inner");
        tracing::error!(
            target: "somewhere",
            integer = -3,
            large = u64::MAX,
            real = 0.5,
            nan = f64::NAN,
            truth = true,
            text = "a \"b\"\n",
            debug = ?[1, 2],
            display = %7,
            error = &error as &(dyn std::error::Error + 'static),
            r#type = "raw",
            "body with {}",
            "a value"
        );
    });
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.severity, record.target.as_str()), (Severity::Error, "somewhere"));
    assert_eq!(record.body, "body with a value");
    assert_eq!((record.resource.process.as_str(), record.resource.generation), ("test", 7));
    assert_eq!(record.resource.pid, std::process::id());
    let expected = json!({
        "integer": -3, "large": u64::MAX, "real": 0.5, "nan": "NaN", "truth": true, "text": "a \"b\"\n",
        "debug": "[1, 2]", "display": "7", "error": "inner", "type": "raw",
    });
    assert_eq!(serde_json::Value::from(record.attributes.clone()), expected);
}

#[test]
fn a_buffer_is_dumped_in_hex() {
    let records = logged("debug", |_| tracing::debug!(dump = %hex(b"\x00\x08ping"), "frame"));
    let dump = records[0].attributes["dump"].as_str().unwrap();
    assert!(dump.starts_with("0000  00 08 70 69 6e 67 ") && dump.ends_with("|..ping|"), "{dump}");
}

#[test]
fn the_fields_of_spans_are_attributes() {
    let records = logged("info", |_| {
        let outer = tracing::info_span!("outer", conn = 5, late = tracing::field::Empty).entered();
        let _inner = tracing::info_span!("inner", conn = 6, kind = "x").entered();
        outer.record("late", "now");
        tracing::info!(kind = "y", "within");
    });
    let expected = json!({"conn": 6, "late": "now", "kind": "y"});
    assert_eq!(serde_json::Value::from(records[0].attributes.clone()), expected);
}

#[test]
fn levels_hold_per_target_and_change_at_run_time() {
    fn speak(round: u64) {
        tracing::debug!(target: "loud::part", round, "loud");
        tracing::info!(target: "other", round, "other");
        tracing::warn!(target: "other", round, "warn");
        tracing::error!(target: "mute", round, "mute");
    }
    let records = logged("warn,loud=debug,mute=off", |levels| {
        assert!(tracing::enabled!(target: "loud::part", Level::DEBUG));
        assert!(!tracing::enabled!(target: "other", Level::INFO));
        speak(1);
        levels.set("info").unwrap();
        assert!(tracing::enabled!(target: "other", Level::INFO));
        speak(2);
        levels.set("off").unwrap();
        speak(3);
        levels.set("trace").unwrap();
        speak(4);
    });
    let seen: Vec<_> =
        records.iter().map(|r| (r.attributes["round"].as_u64().unwrap(), r.body.as_str())).collect();
    assert_eq!(
        seen,
        [
            (1, "loud"),
            (1, "warn"),
            (2, "other"),
            (2, "warn"),
            (2, "mute"),
            (4, "loud"),
            (4, "other"),
            (4, "warn"),
            (4, "mute"),
        ]
    );
}

#[test]
fn other_levels_of_a_client_hold_in_every_thread_from_the_next_event_on() {
    fn speak(round: u64) {
        tracing::debug!(target: "quiet", round, "quiet");
        tracing::debug!(target: "loud", round, "loud");
    }
    let site = Site::new();
    let server = site.serve();
    let client = site.client_with(|options| options.levels = "info".parse().unwrap());
    let (order, orders) = std::sync::mpsc::channel::<u64>();
    let (done, is_done) = std::sync::mpsc::channel();
    let speaker = client.clone();
    let thread = std::thread::spawn(move || {
        logging_to(&speaker, || {
            orders.into_iter().for_each(|round| {
                speak(round);
                done.send(()).unwrap();
            });
        });
    });
    // A change asks the subscriber of the thread that makes it when there is no other, so this one has one too, as every
    // thread of a program has after `install`.
    logging_to(&client, || {
        for (round, change) in ["warn", "loud=debug", "debug", "loud=info"].into_iter().enumerate() {
            client.set_levels(&client.levels().with_target(change).unwrap());
            order.send(round as u64).unwrap();
            is_done.recv().unwrap();
        }
    });
    drop(order);
    thread.join().unwrap();
    assert_eq!(client.flush(LONG).unsent, 0);
    let records = site.records();
    let seen: Vec<_> =
        records.iter().map(|r| (r.attributes["round"].as_u64().unwrap(), r.body.as_str())).collect();
    assert_eq!(seen, [(1, "loud"), (2, "quiet"), (2, "loud"), (3, "quiet")]);
    assert_eq!(client.levels().to_string(), "debug,loud=info");
    server.stop();
}

#[test]
fn a_huge_event_is_cut_and_costs_no_other() {
    let records = logged("info", |_| {
        tracing::info!("before");
        let huge = "\u{1}é".repeat(100_000);
        tracing::info!(a = huge, b = %huge, c = ?huge, "{huge}");
        tracing::info!("after");
    });
    assert_eq!(records.len(), 3);
    assert!(records[1].body.ends_with("…[cut]") && records[1].body.len() > 1000);
    assert_eq!(records[2].body, "after");
}
