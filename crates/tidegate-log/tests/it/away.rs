//! Standard error: in the foreground, while the log server is away, and when nobody reads it.

use std::io::{BufRead as _, BufReader, PipeReader, Read as _};
use std::time::Duration;

use tidegate_log::{ClientOptions, LogTo, SharedStore, StderrMode, Store};

use crate::support::{LONG, Site, logging_to, wait_until};

/// Makes the client write to a pipe instead of standard error.
fn to_pipe(options: &mut ClientOptions, mode: StderrMode) -> BufReader<PipeReader> {
    let (reader, writer) = std::io::pipe().unwrap();
    options.stderr = mode;
    options.stderr_fd = Some(writer.into());
    BufReader::new(reader)
}

fn next_line(reader: &mut BufReader<PipeReader>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

#[test]
fn records_go_to_standard_error_while_the_server_is_away_and_to_the_server_later() {
    let site = Site::new();
    let mut screen = None;
    let client = {
        let _nobody = std::fs::rename(site.socket(), site.socket().with_extension("hidden"));
        site.client_with(|options| screen = Some(to_pipe(options, StderrMode::WhenAway)))
    };
    let mut screen = screen.unwrap();
    assert!(client.is_away());
    logging_to(&client, || tracing::warn!(count = 3, "alone"));
    let line = next_line(&mut screen);
    assert!(line.ends_with(" test: alone count=3\n".replace("test:", "it::away:").as_str()), "{line}");
    assert!(line.contains(&format!(" WARN  test[{}] ", std::process::id())), "{line}");
    assert_eq!(client.flush(Duration::from_secs(1_000_000)).unsent, 1, "nobody listens");

    std::fs::rename(site.socket().with_extension("hidden"), site.socket()).unwrap();
    let server = site.serve();
    wait_until("the client has found the server", || !client.is_away());
    logging_to(&client, || tracing::warn!("together"));
    assert_eq!(client.flush(LONG).unsent, 0);
    let bodies: Vec<String> = site.records().into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, ["alone", "together"]);

    server.stop();
    wait_until("the client misses the server", || client.is_away() || site.records().len() > 2);
    drop(client);
    let mut rest = String::new();
    screen.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "what the server has is not shown");
}

#[test]
fn a_daemon_whose_standard_error_is_the_null_device_loses_nothing_without_saying_so() {
    let site = Site::new();
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let client = {
        let _nobody = std::fs::rename(site.socket(), site.socket().with_extension("hidden"));
        site.client_with(|options| {
            options.stderr = StderrMode::Always;
            options.stderr_fd = Some(null.into());
            options.ring_bytes = 128 << 10;
        })
    };
    let filler = "x".repeat(1000);
    let logged = 1000;
    logging_to(&client, || (0..logged).for_each(|n| tracing::info!(n, filler, "one of many")));
    let dropped = client.dropped();
    assert!(dropped > 0, "more than the queue holds");
    assert_eq!(client.flush(LONG).unsent, logged - dropped, "the null device has taken charge of none");

    std::fs::rename(site.socket().with_extension("hidden"), site.socket()).unwrap();
    let server = site.serve();
    wait_until("the server has them all", || client.flush(LONG).unsent == 0);
    let records = site.records();
    let told: u64 = records.iter().filter_map(|record| record.attributes.get("dropped")?.as_u64()).sum();
    let stored = records.iter().filter(|record| record.body == "one of many").count() as u64;
    assert_eq!((stored + told, told), (logged, dropped));
    server.stop();
}

#[test]
fn a_server_that_does_not_answer_is_away() {
    // The socket is there and nobody reads it, as when the log server hangs.
    let site = Site::new();
    let mut screen = None;
    let client = site.client_with(|options| screen = Some(to_pipe(options, StderrMode::WhenAway)));
    assert!(!client.is_away(), "the connection waits to be accepted");
    logging_to(&client, || tracing::warn!("is anybody there?"));
    let line = next_line(&mut screen.unwrap());
    assert!(line.ends_with("is anybody there?\n"), "{line}");
    assert!(client.is_away());
    let server = site.serve();
    assert_eq!(client.flush(LONG).unsent, 0);
    assert_eq!(site.records().len(), 1, "the same connection goes on");
    wait_until("the server is trusted again", || !client.is_away());
    server.stop();
}

#[test]
fn in_the_foreground_both_get_every_record() {
    let site = Site::new();
    let server = site.serve();
    let mut screen = None;
    let client = site.client_with(|options| screen = Some(to_pipe(options, StderrMode::Always)));
    logging_to(&client, || {
        for number in 0..100 {
            tracing::info!(number, "shown");
        }
    });
    assert_eq!(client.flush(LONG).unsent, 0);
    drop(client);
    let mut shown = String::new();
    screen.unwrap().read_to_string(&mut shown).unwrap();
    assert_eq!(shown.lines().count(), 100);
    assert!(shown.ends_with("shown number=99\n"));
    assert_eq!(site.records().len(), 100);
    server.stop();
}

#[test]
fn a_stuck_standard_error_stops_neither_the_program_nor_the_server() {
    let site = Site::new();
    let server = site.serve();
    let mut screen = None;
    let client = site.client_with(|options| screen = Some(to_pipe(options, StderrMode::Always)));
    // Far more than the pipe and the queue hold together.
    let total = 40_000;
    logging_to(&client, || {
        for number in 0..total {
            tracing::info!(number, "stuck");
            if number % 100 == 0 {
                wait_until("the server keeps up", || client.flush(Duration::ZERO).unsent < 1_000);
            }
        }
    });
    wait_until("the server has everything", || server.store.lock().counts().records >= total);
    assert_eq!(client.dropped(), 0);
    wait_until("it has acknowledged everything", || client.flush(Duration::ZERO).unsent == 0);
    // When somebody reads again, it goes on, and says that it is not all.
    let mut screen = screen.unwrap();
    let (mut seen, mut missing) = (0, 0);
    while seen + missing < total {
        let line = next_line(&mut screen);
        match line.strip_suffix(" records are not shown here\n") {
            Some(count) => missing += count.strip_prefix("tidegate: ").unwrap().parse::<u64>().unwrap(),
            None => seen += 1,
        }
    }
    assert!(seen > 0 && missing > 0 && seen + missing == total, "{seen} {missing}");
    server.stop();
}

#[test]
fn after_close_records_go_to_standard_error_only_and_the_server_need_not_wait() {
    let site = Site::new();
    let server = site.serve();
    let mut screen = None;
    let client = site.client_with(|options| screen = Some(to_pipe(options, StderrMode::WhenAway)));
    logging_to(&client, || tracing::info!("before"));
    assert_eq!(client.close(LONG).unsent, 0);
    // The grace is far longer than the test may take: the server ends since its last client has.
    server.running.quit(Duration::from_secs(3600));
    server.running.join().unwrap();
    logging_to(&client, || tracing::info!("the log server has ended"));
    assert_eq!(client.flush(LONG).unsent, 0);
    assert!(next_line(&mut screen.unwrap()).ends_with("the log server has ended\n"));
    assert_eq!(site.records().len(), 1);
}

#[test]
fn a_failing_disk_shows_the_servers_own_records() {
    let site = Site::new();
    let store = SharedStore::new(Store::open(site.store_options()).unwrap());
    let mut screen = None;
    let client = site.client_with(|options| {
        options.to = LogTo::Store(store.clone());
        screen = Some(to_pipe(options, StderrMode::WhenAway));
    });
    std::fs::remove_dir_all(site.dir()).unwrap();
    std::fs::write(site.dir(), "in the way").unwrap();
    logging_to(&client, || tracing::info!("makes it notice"));
    wait_until("the store is in trouble", || client.is_away());
    logging_to(&client, || tracing::error!("shown"));
    assert!(next_line(&mut screen.unwrap()).ends_with("shown\n"));
    std::fs::remove_file(site.dir()).unwrap();
    wait_until("the store has recovered", || !client.is_away());
    assert_eq!(client.flush(LONG).unsent, 0);
    let bodies: Vec<String> = site.records().into_iter().map(|record| record.body).collect();
    assert_eq!(bodies, ["makes it notice", "shown", "the log directory can be written again"]);
}
