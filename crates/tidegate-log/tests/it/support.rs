//! What the tests share: a log server in a thread, a client with its own subscriber, and the way back from the files.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate_engine::{EngineConfig, ListenerMetrics, LoopBuilder, Metrics, ProcessMetrics, Running};
use tidegate_log::{
    ClientOptions, LogClient, LogServer, LogTo, Record, Resource, SharedStore, StderrMode, Store,
    StoreOptions,
};
use tracing_subscriber::layer::SubscriberExt as _;

/// No test waits this long unless something is broken.
pub const LONG: Duration = Duration::from_secs(60);

/// A place for a log server: a directory, and a socket that stays while servers come and go.
pub struct Site {
    root: TempDir,
    listener: UnixListener,
}

impl Site {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(root.path().join("log.sock")).unwrap();
        Self { root, listener }
    }

    pub fn socket(&self) -> PathBuf {
        self.root.path().join("log.sock")
    }

    pub fn dir(&self) -> PathBuf {
        self.root.path().join("log")
    }

    pub fn store_options(&self) -> StoreOptions {
        StoreOptions {
            retry_after: Duration::from_millis(10),
            ..StoreOptions::new(self.dir(), Resource::this_process("log server", 1))
        }
    }

    pub fn serve(&self) -> Server {
        self.serve_with(self.store_options())
    }

    pub fn serve_with(&self, options: StoreOptions) -> Server {
        Server::start(self.listener.try_clone().unwrap(), options)
    }

    pub fn client(&self) -> LogClient {
        self.client_with(|_| {})
    }

    pub fn client_with(&self, change: impl FnOnce(&mut ClientOptions)) -> LogClient {
        let to = LogTo::Socket(self.socket());
        let mut options = ClientOptions::new(to, Resource::this_process("test", 7));
        options.stderr = StderrMode::Never;
        change(&mut options);
        LogClient::start(options).unwrap()
    }

    pub fn records(&self) -> Vec<Record> {
        records(&self.dir())
    }
}

pub struct Server {
    pub running: Running,
    pub store: SharedStore,
    metrics: ProcessMetrics,
}

impl Server {
    fn start(listener: UnixListener, options: StoreOptions) -> Self {
        let store = SharedStore::new(Store::open(options).unwrap());
        let metrics = Metrics::on_heap(1).process(0);
        let server = LogServer::new(store.clone());
        let running = LoopBuilder::new(EngineConfig::default())
            .metrics(metrics.clone())
            .listen("log", listener, || Ok(server))
            .spawn()
            .unwrap();
        Self { running, store, metrics }
    }

    /// Ends the server at once, whatever its clients do.
    pub fn stop(self) {
        self.running.stop();
        self.running.join().unwrap();
    }

    pub fn metrics(&self) -> ListenerMetrics {
        self.metrics.listener(0)
    }
}

/// Logs what `work` logs through the client.
pub fn logging_to<T>(client: &LogClient, work: impl FnOnce() -> T) -> T {
    let subscriber = tracing_subscriber::registry().with(client.layer());
    tracing::subscriber::with_default(subscriber, work)
}

/// All whole lines of a log directory, oldest first.
pub fn lines(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<(u32, String, PathBuf)> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let (day, rest) = name.split_once('.').unwrap();
            let number = rest.strip_suffix(".jsonl").unwrap().parse().unwrap();
            (number, day.to_owned(), path)
        })
        .collect();
    files.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
    let mut lines = Vec::new();
    for (_, _, path) in files {
        // A file may be removed by the limit of all files while it is read.
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        lines.extend(text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned));
    }
    lines
}

pub fn records(dir: &Path) -> Vec<Record> {
    lines(dir)
        .iter()
        .map(|line| Record::parse(line.as_bytes()).expect("every stored line is a record"))
        .collect()
}

/// Waits for an event that nothing announces.
#[track_caller]
pub fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !happened() {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
