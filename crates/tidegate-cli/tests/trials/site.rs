//! `Site`: a folder with a configuration that can be rewritten, something to serve, and the server that runs there.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tidegate::Status;

use crate::kernel::{Kept, memory_kib};
use crate::load::Targets;
use crate::support::{Server, Setup, log_server, wait_until};

/// What the configuration says.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) workers: usize,
    /// `process.accept`.
    pub(crate) accept: &'static str,
    /// Further lines of `[process]`.
    pub(crate) process: String,
    /// Further lines of the web's `[[listen]]`.
    pub(crate) web: String,
    /// Where each of [`LISTENERS`] listens; port 0 takes a free one.
    pub(crate) addresses: [SocketAddr; 3],
}

/// Their names, and what they serve.
const LISTENERS: [&str; 3] = ["web", "gateway", "admin"];

impl Shape {
    pub(crate) fn new(workers: usize, accept: &'static str) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { workers, accept, process: String::new(), web: String::new(), addresses: [any; 3] }
    }

    pub(crate) fn process(mut self, line: &str) -> Self {
        self.process.push_str(line);
        self.process.push('\n');
        self
    }

    pub(crate) fn web(mut self, line: &str) -> Self {
        self.web.push_str(line);
        self.web.push('\n');
        self
    }

    pub(crate) fn text(&self) -> String {
        let Self { workers, accept, process, web, addresses } = self;
        let listener = |index: usize| {
            let (name, address) = (LISTENERS[index], addresses[index]);
            format!("[[listen]]\nname = \"{name}\"\naddress = \"{address}\"\nservice = \"{name}\"\n")
        };
        format!(
            "data_dir = \"data\"\n[process]\nworkers = {workers}\naccept = \"{accept}\"\n{process}\
             [web]\nroot = \"site\"\n{}{web}{}{}",
            listener(0),
            listener(1),
            listener(2),
        )
    }
}

/// The folder.
#[derive(Debug)]
pub(crate) struct Site {
    dir: TempDir,
    big: Arc<[u8]>,
}

/// Read in small pieces it takes seconds.
const BIG_BYTES: usize = 3 << 20;

impl Site {
    pub(crate) fn new(shape: &Shape) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // No two pieces of it that are read at a time are alike.
        let big: Arc<[u8]> = (0..=250_u8).cycle().take(BIG_BYTES).collect();
        fs::create_dir(dir.path().join("site")).unwrap();
        fs::write(dir.path().join("site/big"), &big).unwrap();
        let site = Self { dir, big };
        site.configure(shape);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces the configuration; the server hears of it by a reload.
    pub(crate) fn configure(&self, shape: &Shape) {
        self.write(&shape.text());
    }

    /// Replaces the configuration by this text.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.path("next.toml"), text).unwrap();
        fs::rename(self.path("next.toml"), self.path("tidegate.toml")).unwrap();
    }

    /// How a server of this folder is started.
    pub(crate) fn setup(&self) -> Setup {
        Setup::file(&self.dir)
    }

    pub(crate) fn start(&self) -> Server {
        self.setup().start()
    }

    pub(crate) fn targets(&self, server: &Server) -> Targets {
        Targets { web: server.address("web"), gateway: server.address("gateway"), big: Arc::clone(&self.big) }
    }
}

/// The real addresses of a server, for a next one that is to have the same.
pub(crate) fn addresses(server: &Server) -> [SocketAddr; 3] {
    LISTENERS.map(|name| server.address(name))
}

/// Every worker that there is, by its generation.
pub(crate) fn generations(status: &Status) -> Vec<u64> {
    let workers = status.processes.iter().filter(|process| process.role == "worker");
    workers.map(|worker| worker.generation).collect()
}

/// The master when all retired generations have ended.
pub(crate) struct Settled {
    pub(crate) kept: Kept,
    pub(crate) memory_kib: u64,
}

impl Settled {
    /// Waits for it. The last generation is as its shape says.
    pub(crate) fn of(server: &Server, last: u64, shape: &Shape) -> Self {
        let status = server.wait_status("the retired generations have ended", |status| {
            let left = generations(status);
            left.len() == shape.workers && left.iter().all(|&generation| generation == last)
        });
        let master = status.processes[0].pid;
        server.wait_status("the log server runs the program of the master", |status| {
            let program = |pid| fs::metadata(format!("/proc/{pid}/exe")).map(|file| (file.dev(), file.ino()));
            let (own, its) = (program(master).unwrap(), program(log_server(status).pid));
            its.is_ok_and(|its| its == own)
        });
        // Who asked for the status is let go after the answer, in a further turn.
        let mut kept = Kept::of(master);
        wait_until("the master closes nothing any more", || {
            thread::sleep(Duration::from_millis(20));
            std::mem::replace(&mut kept, Kept::of(master)) == kept
        });
        Self { kept, memory_kib: memory_kib(master) }
    }
}
