//! Whole processes: a server that is killed, a client that exits.
//!
//! The test binary runs itself with the name of one of the tests below and a role in the environment; without the role these
//! tests are empty.

use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use tidegate_engine::{EngineConfig, LoopBuilder};
use tidegate_log::{
    ClientOptions, LogServer, LogTo, Resource, Severity, SharedStore, StderrMode, Store, StoreOptions,
    install, log_panics,
};

use crate::delivery::assert_each_at_least_once;
use crate::support::{LONG, Site, lines, logging_to, wait_until};

const ROLE: &str = "TIDEGATE_LOG_TEST_ROLE";
const ROOT: &str = "TIDEGATE_LOG_TEST_ROOT";

fn this_program(role: &str, site: &Site) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "process::child", "--nocapture"]);
    command.env(ROLE, role).env(ROOT, site.socket().parent().unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The body of the children.
#[test]
fn child() {
    let (Some(role), Some(root)) = (std::env::var_os(ROLE), std::env::var_os(ROOT)) else { return };
    let root = std::path::PathBuf::from(root);
    match role.to_str().unwrap() {
        "server" => serve(&root),
        "client" => log_and_exit(&root),
        "stuck" => panic_with_full_stderr(),
        other => panic!("no role {other}"),
    }
}

fn serve(root: &std::path::Path) {
    let listener = UnixListener::bind(root.join("server.sock")).unwrap();
    let options = StoreOptions::new(root.join("log"), Resource::this_process("log server", 1));
    let store = SharedStore::new(Store::open(options).unwrap());
    let running = LoopBuilder::new(EngineConfig::default())
        .listen("log", listener, || Ok(LogServer::new(store)))
        .spawn()
        .unwrap();
    running.join().unwrap();
}

fn log_and_exit(root: &std::path::Path) {
    let to = LogTo::Socket(root.join("log.sock"));
    let mut options = ClientOptions::new(to, Resource::this_process("exiting", 1));
    options.stderr = StderrMode::Never;
    options.ring_bytes = 8 << 20;
    let client = install(options).unwrap();
    log_panics();
    let again = ClientOptions::new(LogTo::Socket(root.join("log.sock")), Resource::default());
    let error = install(again).expect_err("there is one subscriber");
    tracing::warn!(error = &error as &(dyn std::error::Error + 'static), "installed twice");
    // Not with a scoped subscriber, since that ignores what is logged from within.
    tracing::info!(who = %Chatty, "outer");
    for number in 0..5_000 {
        tracing::info!(number, "on the way out");
    }
    let panicked =
        std::thread::Builder::new().name("fragile".into()).spawn(|| panic!("it broke")).unwrap().join();
    assert!(panicked.is_err());
    let flushed = client.flush(LONG);
    assert_eq!((flushed.unsent, flushed.dropped), (0, 0));
    std::process::exit(0);
}

fn panic_with_full_stderr() {
    log_panics();
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let stderr = rustix::fs::open("/proc/self/fd/2", flags, rustix::fs::Mode::empty()).unwrap();
    while rustix::io::write(&stderr, &[b'.'; 4096]).is_ok() {}
    for _ in 0..3 {
        assert!(std::thread::spawn(|| panic!("nobody reads this")).join().is_err());
    }
    std::process::exit(0);
}

/// Logs while it is being logged.
struct Chatty;

impl std::fmt::Display for Chatty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        tracing::info!("from within");
        f.write_str("chatty")
    }
}

struct KilledServer(Child);

impl KilledServer {
    fn start(site: &Site) -> Self {
        let path = site.socket().with_file_name("server.sock");
        let _ = std::fs::remove_file(&path);
        let server = Self(this_program("server", site).stderr(Stdio::null()).spawn().unwrap());
        wait_until("the server listens", || path.exists());
        server
    }
}

impl Drop for KilledServer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_server_that_is_killed_again_and_again_costs_nothing() {
    let site = Site::new();
    let client = site.client_with(|options| {
        options.to = LogTo::Socket(site.socket().with_file_name("server.sock"));
        options.ring_bytes = 32 << 20;
    });
    std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            logging_to(&client, || {
                for number in 0..30_000u64 {
                    tracing::info!(thread = 0u64, number, "one of many");
                    if number % 1000 == 0 {
                        // So that the servers have something to do in their short lives.
                        std::thread::yield_now();
                    }
                }
            });
        });
        let mut kills = 0;
        while kills < 3 || !work.is_finished() {
            let before = lines(&site.dir()).len();
            let server = KilledServer::start(&site);
            if kills < 3 {
                logging_to(&client, || tracing::info!("something to store"));
            }
            wait_until("the server stores", || lines(&site.dir()).len() > before || work.is_finished());
            drop(server);
            kills += 1;
        }
    });
    let _last = KilledServer::start(&site);
    let flushed = client.flush(LONG);
    assert_eq!((flushed.unsent, flushed.dropped), (0, 0));
    assert_each_at_least_once(&site, 1, 30_000);
}

#[test]
fn a_process_that_flushes_before_it_exits_loses_nothing() {
    let site = Site::new();
    let server = site.serve();
    let output = this_program("client", &site).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    let records = site.records();
    assert_eq!(records[0].attributes["error"], "a tracing subscriber is installed already");
    assert_eq!((records[1].body.as_str(), records[2].body.as_str()), ("from within", "outer"));
    assert_eq!(records[2].attributes["who"], "chatty");
    let exiting = records.iter().filter(|record| record.body == "on the way out");
    assert!(exiting.map(|record| record.attributes["number"].as_u64().unwrap()).eq(0..5_000));
    let panic = records.last().unwrap();
    assert_eq!(
        (panic.severity, panic.target.as_str(), panic.body.as_str()),
        (Severity::Error, "panic", "it broke")
    );
    assert_eq!(panic.attributes["thread"], "fragile");
    assert!(panic.attributes["location"].as_str().unwrap().contains("process.rs:"));
    assert!(stderr.contains("it broke"), "the usual message stays");
    server.stop();
}

#[test]
fn a_panic_does_not_wait_for_a_standard_error_that_nobody_reads() {
    let site = Site::new();
    let mut stuck = this_program("stuck", &site).spawn().unwrap();
    wait_until("the process has ended", || stuck.try_wait().unwrap().is_some());
    assert!(stuck.wait().unwrap().success());
}
