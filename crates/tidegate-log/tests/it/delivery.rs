//! Records arrive, all of them, or are counted.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use tidegate_log::{LogClient, LogTo, Record, SharedStore, Store};

use crate::support::{LONG, Site, lines, logging_to, wait_until};

fn log_from_threads(client: &LogClient, threads: u64, each: u64) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                logging_to(client, || {
                    for number in 0..each {
                        tracing::info!(thread, number, "one of many");
                    }
                });
            });
        }
    });
}

fn numbers(records: &[Record]) -> BTreeMap<u64, Vec<u64>> {
    let mut numbers: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.body == "one of many") {
        let attribute = |name: &str| record.attributes[name].as_u64().unwrap();
        numbers.entry(attribute("thread")).or_default().push(attribute("number"));
    }
    numbers
}

#[test]
fn a_flush_loses_nothing_of_four_threads() {
    let site = Site::new();
    let server = site.serve();
    let client = site.client_with(|options| options.ring_bytes = 32 << 20);
    log_from_threads(&client, 4, 10_000);
    let flushed = client.flush(LONG);
    assert_eq!((flushed.unsent, flushed.dropped), (0, 0));
    let records = site.records();
    for (_, numbers) in numbers(&records) {
        assert!(numbers.iter().copied().eq(0..10_000), "each once, in the order of its thread");
    }
    assert_eq!(numbers(&records).len(), 4);
    assert!(records.iter().map(|record| record.seq).eq(1..=40_000), "numbered in the order of the file");
    let counts = server.store.lock().counts();
    assert_eq!((counts.records, counts.dropped), (40_000, 0));
    assert_eq!(server.metrics().service(0), 40_000);
    server.stop();
}

#[test]
fn what_the_queue_drops_is_counted_and_told() {
    let site = Site::new();
    let client = site.client_with(|options| options.ring_bytes = 0);
    log_from_threads(&client, 2, 10_000);
    let dropped = client.dropped();
    assert!(
        dropped > 10_000,
        "the smallest queue holds less than a thousand records, {dropped} were dropped"
    );
    let server = site.serve();
    let flushed = client.flush(LONG);
    assert_eq!((flushed.unsent, flushed.dropped), (0, dropped));
    let records = site.records();
    let stored: usize = numbers(&records).values().map(Vec::len).sum();
    assert_eq!(stored as u64 + dropped, 20_000);
    let told = records.iter().filter(|record| record.target == "tidegate_log::client");
    let told: u64 = told.map(|record| record.attributes["dropped"].as_u64().unwrap()).sum();
    assert_eq!(told, dropped);
    server.stop();
}

#[test]
fn a_busy_client_with_a_small_queue_drops_or_delivers() {
    let site = Site::new();
    let server = site.serve();
    let client = site.client_with(|options| options.ring_bytes = 0);
    log_from_threads(&client, 4, 5_000);
    let flushed = client.flush(LONG);
    assert_eq!(flushed.unsent, 0);
    let records = site.records();
    let stored: usize = numbers(&records).values().map(Vec::len).sum();
    assert_eq!(stored as u64 + flushed.dropped, 20_000);
    server.stop();
}

#[test]
fn a_server_that_is_stopped_again_and_again_costs_nothing() {
    let site = Site::new();
    let client = site.client_with(|options| options.ring_bytes = 32 << 20);
    std::thread::scope(|scope| {
        let work = scope.spawn(|| log_from_threads(&client, 2, 20_000));
        while !work.is_finished() {
            let before = lines(&site.dir()).len();
            let server = site.serve();
            wait_until("the server stores, or all is logged", || {
                work.is_finished() || lines(&site.dir()).len() > before
            });
            server.stop();
        }
    });
    let server = site.serve();
    let flushed = client.flush(LONG);
    assert_eq!((flushed.unsent, flushed.dropped), (0, 0));
    assert_each_at_least_once(&site, 2, 20_000);
    server.stop();
}

/// All numbers are there, and what is there twice is the same line.
pub fn assert_each_at_least_once(site: &Site, threads: usize, each: u64) {
    let records = site.records();
    let numbers = numbers(&records);
    assert_eq!(numbers.len(), threads);
    for mut numbers in numbers.into_values() {
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.into_iter().eq(0..each));
    }
    let mut by_seq: BTreeMap<u64, &Record> = BTreeMap::new();
    for record in &records {
        let first = by_seq.entry(record.seq).or_insert(record);
        assert_eq!(*first, record, "a record that is stored twice is the same twice");
    }
}

#[test]
fn a_server_that_comes_late_gets_the_first_record() {
    let site = Site::new();
    let client = site.client();
    logging_to(&client, || tracing::info!("first"));
    let server = site.serve();
    assert_eq!(client.flush(LONG).unsent, 0);
    assert_eq!(site.records()[0].body, "first");
    server.stop();
}

#[test]
fn acknowledgements_of_what_was_never_sent_end_the_connection() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("log.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let resource = tidegate_log::Resource::this_process("test", 1);
    let mut options = tidegate_log::ClientOptions::new(LogTo::Socket(path), resource);
    options.stderr = tidegate_log::StderrMode::Never;
    let client = LogClient::start(options).unwrap();
    let (mut liar, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut liar, &1_000_000u64.to_be_bytes()).unwrap();
    let mut hello = String::new();
    liar.read_to_string(&mut hello).expect("the client ends the connection");
    assert!(hello.starts_with("{\"tidegate_log\":1,\"process\":\"test\","), "{hello}");
    let (_second, _) = listener.accept().expect("and tries another");
    drop(client);
}

#[test]
fn a_client_in_the_servers_process_needs_no_socket() {
    let site = Site::new();
    let store = SharedStore::new(Store::open(site.store_options()).unwrap());
    let client = site.client_with(|options| options.to = LogTo::Store(store.clone()));
    log_from_threads(&client, 2, 1_000);
    let flushed = client.flush(LONG);
    assert_eq!(flushed.unsent, 0);
    let stored: usize = numbers(&site.records()).values().map(Vec::len).sum();
    assert_eq!(stored as u64 + flushed.dropped, 2_000);
}

#[test]
fn a_flush_ends_early_when_nobody_listens() {
    let root = tempfile::tempdir().unwrap();
    let resource = tidegate_log::Resource::this_process("test", 1);
    let to = LogTo::Socket(root.path().join("log.sock"));
    let mut options = tidegate_log::ClientOptions::new(to, resource);
    options.stderr = tidegate_log::StderrMode::Never;
    let client = LogClient::start(options).unwrap();
    logging_to(&client, || tracing::info!("into the void"));
    // Were it to wait for the time-out, the test would not end.
    assert_eq!(client.flush(Duration::from_secs(1_000_000)).unsent, 1);
}
