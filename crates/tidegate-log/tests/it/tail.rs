//! Following the log of a running server.

use std::time::Duration;

use tidegate_log::{Colour, Record, StoreOptions, Tail, TailOptions, render};

use crate::support::{LONG, Site, logging_to};

#[test]
fn a_tail_follows_over_the_change_of_files() {
    let site = Site::new();
    let server = site.serve_with(StoreOptions { max_file_bytes: 4096, ..site.store_options() });
    let client = site.client_with(|options| options.ring_bytes = 8 << 20);
    logging_to(&client, || {
        for number in 0..50 {
            tracing::info!(number, "numbered");
        }
    });
    assert_eq!(client.flush(LONG).unsent, 0);
    let options = TailOptions { lines: 10, follow: true, ..TailOptions::default() };
    let tail = Tail::open(site.dir(), options).unwrap();
    let reader = std::thread::spawn(move || {
        let numbers =
            tail.map(|line| Record::parse(&line.unwrap()).unwrap().attributes["number"].as_u64().unwrap());
        numbers.take(10 + 500).collect::<Vec<u64>>()
    });
    logging_to(&client, || {
        for number in 50..550 {
            tracing::info!(number, "numbered");
            if number % 50 == 0 {
                assert_eq!(client.flush(LONG).unsent, 0);
            }
        }
    });
    assert_eq!(client.flush(LONG).unsent, 0);
    assert!(reader.join().unwrap().into_iter().eq(40..550), "each once and in order");
    assert!(std::fs::read_dir(site.dir()).unwrap().count() > 10);
    server.stop();
}

#[test]
fn stored_records_read_well() {
    let site = Site::new();
    let server = site.serve();
    let client = site.client();
    logging_to(&client, || tracing::warn!(address = "127.0.0.1:80", tries = 3, "cannot bind"));
    assert_eq!(client.flush(Duration::from_secs(60)).unsent, 0);
    let line = Tail::open(site.dir(), TailOptions::default()).unwrap().next().unwrap().unwrap();
    let mut text = String::new();
    render(&line, Colour::Off, &mut text);
    let pid = std::process::id();
    let end = format!(" WARN  test[{pid}] it::tail: cannot bind address=127.0.0.1:80 tries=3\n");
    assert!(text.ends_with(&end), "{text}");
    server.stop();
}
