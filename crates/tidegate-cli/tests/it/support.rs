//! A server of its own for each test: its folder, its ports, its processes and what it says.
//!
//! The one invariant: whatever a test does, the whole process group of its server is gone when it ends. Everything that is
//! waited for has a bound that only a failure reaches.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;
use tidegate::{ProcessStatus, Status, control_socket};

use crate::processes::{self, Exit, Watched};

/// Far beyond what anything takes that is waited for.
pub(crate) const BOUND: Duration = Duration::from_secs(30);

/// How a server is to be started.
pub(crate) struct Setup {
    dir: PathBuf,
    set: Vec<String>,
    /// What `ulimit` is told.
    open_files: Option<String>,
    /// `run`, unless it is left out.
    command: Option<&'static str>,
    /// What a service manager would add to the environment.
    env: Vec<(&'static str, String)>,
    /// What it hands over, from descriptor 3 on.
    given: Vec<OwnedFd>,
    /// What was built, or a copy of it that can be replaced.
    pub(crate) program: PathBuf,
}

impl Setup {
    /// Two workers, free ports, and everything else in `dir`.
    pub(crate) fn new(dir: &TempDir) -> Self {
        let dir = dir.path().to_owned();
        let mut set =
            vec![format!("data_dir={}", dir.join("data").display()), "process.workers=2".to_owned()];
        set.extend(["web", "gateway", "admin"].map(|name| format!("listen.{name}.address=127.0.0.1:0")));
        Self { set, ..Self::in_folder(&dir) }
    }

    /// As the file `tidegate.toml` in `dir` says, whose data folder is to be `data`.
    pub(crate) fn file(dir: &TempDir) -> Self {
        Self::in_folder(dir.path())
    }

    fn in_folder(dir: &Path) -> Self {
        let program = PathBuf::from(TIDEGATE);
        Self {
            dir: dir.to_owned(),
            set: Vec::new(),
            open_files: None,
            command: Some("run"),
            env: Vec::new(),
            given: Vec::new(),
            program,
        }
    }

    pub(crate) fn without_command(mut self) -> Self {
        self.command = None;
        self
    }

    pub(crate) fn set(mut self, setting: impl Into<String>) -> Self {
        self.set.push(setting.into());
        self
    }

    /// Starts it with a limit of open files that it cannot raise.
    pub(crate) fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(format!("-n {limit}"));
        self
    }

    /// Starts it with a limit of open files that it can raise.
    pub(crate) fn soft_open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(format!("-Sn {limit}"));
        self
    }

    /// Adds a variable to the environment.
    pub(crate) fn env(mut self, key: &'static str, value: &str) -> Self {
        self.env.push((key, value.to_owned()));
        self
    }

    /// Hands sockets over as systemd does.
    pub(crate) fn hand_over(mut self, sockets: &[(&str, OwnedFd)]) -> Self {
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        // Far from where they are to stand.
        self.given = sockets.iter().map(|(_, socket)| fcntl_dupfd_cloexec(socket, 100).unwrap()).collect();
        self.env("LISTEN_FDS", &sockets.len().to_string()).env("LISTEN_FDNAMES", &names.join(":"))
    }

    /// Starts the server and waits until it serves.
    pub(crate) fn start(self) -> Server {
        let mut server = self.spawn();
        let line = server.wait_line("tidegate: ready, ");
        let listeners = line.strip_prefix("tidegate: ready, ").unwrap().split(' ');
        let listeners = listeners.map(|listener| listener.split_once('=').unwrap());
        let of_inet = listeners.filter(|(_, address)| !address.starts_with("unix"));
        let inet = |address: &str| address.strip_prefix("udp:").unwrap_or(address).parse().unwrap();
        server.listeners = of_inet.map(|(name, address)| (name.to_owned(), inet(address))).collect();
        server
    }

    /// Starts the server.
    pub(crate) fn spawn(mut self) -> Server {
        let mut command = match &self.open_files {
            // Only the process itself knows the pid that LISTEN_PID is to be, and where its descriptors are to stand.
            None if !self.given.is_empty() => {
                let places = self.given.iter().zip(3..);
                let moved: String = places.map(|(fd, to)| format!(" {to}<&{}", fd.as_raw_fd())).collect();
                self.given.iter().for_each(|fd| fcntl_setfd(fd, FdFlags::empty()).unwrap());
                let mut shell = Command::new("bash");
                shell.args(["-c", &format!("export LISTEN_PID=$$; exec \"$@\"{moved}"), "bash"]);
                shell.arg(&self.program);
                shell
            }
            None => Command::new(&self.program),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit {limit}; exec \"$@\""), "sh"]).arg(&self.program);
                shell
            }
        };
        clean(&mut command, &self.dir).args(self.command).args(settings(&self.set));
        command.envs(self.env.iter().map(|(key, value)| (*key, value.as_str())));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut master = spawned(&mut command);
        self.given.clear();
        let stderr = BufReader::new(master.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let watched = Watched::open(id(&master));
        Server { setup: self, master, watched, lines, seen: Vec::new(), listeners: Vec::new() }
    }
}

/// A server that runs, or has run.
pub(crate) struct Server {
    setup: Setup,
    master: Child,
    watched: Watched,
    lines: Receiver<String>,
    /// What it has said so far on standard error.
    seen: Vec<String>,
    /// Those on TCP and UDP.
    listeners: Vec<(String, SocketAddr)>,
}

impl Server {
    pub(crate) fn pid(&self) -> i32 {
        id(&self.master)
    }

    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.listeners.iter().find(|(name, _)| name == listener).unwrap().1
    }

    pub(crate) fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.listeners
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.setup.dir.join("data").join(name)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(self.pid()), signal).unwrap();
    }

    /// As a terminal does for ^C.
    pub(crate) fn signal_group(&self, signal: Signal) {
        kill_process_group(pid(self.pid()), signal).unwrap();
    }

    /// Waits for a line on standard error that has this in it, and was not waited for before.
    pub(crate) fn wait_line(&mut self, part: &str) -> String {
        self.wait_lines(&[part])
    }

    /// Waits for a line with all of these in it.
    pub(crate) fn wait_lines(&mut self, parts: &[&str]) -> String {
        let deadline = Instant::now() + BOUND;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if parts.iter().all(|part| line.contains(part)) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no line with {parts:?} within {BOUND:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("all processes have ended without saying {parts:?}")
                }
            }
        }
    }

    /// Everything that all its processes said, to be asked when they have ended.
    pub(crate) fn all_lines(&mut self) -> &[String] {
        let deadline = Instant::now() + BOUND;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return &self.seen,
                Err(RecvTimeoutError::Timeout) => panic!("some process has not ended within {BOUND:?}"),
            }
        }
    }

    /// Waits until the master has ended. It stays a zombie, so that its number keeps standing for its group.
    pub(crate) fn wait_exit(&self) -> Exit {
        self.watched.wait_exit()
    }

    /// Sends a signal, and waits for the exit.
    pub(crate) fn end(&self, signal: Signal) -> Exit {
        self.signal(signal);
        self.wait_exit()
    }

    pub(crate) fn status(&self) -> Status {
        let answer = control_socket::request(&self.data("control.sock"), b"status", BOUND).unwrap();
        serde_json::from_slice(&answer).unwrap()
    }

    /// Waits until the status is as wanted.
    pub(crate) fn wait_status(&self, what: &str, mut is_wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.status();
        wait_until(what, || {
            status = self.status();
            is_wanted(&status)
        });
        status
    }

    pub(crate) fn worker(&self, index: u64) -> ProcessStatus {
        worker(&self.status(), index).clone()
    }

    pub(crate) fn log_server(&self) -> ProcessStatus {
        log_server(&self.status()).clone()
    }

    /// The processes of its group, which have not ended.
    pub(crate) fn group(&self) -> Vec<processes::Process> {
        processes::of_group(self.pid())
    }

    /// Writes `tidegate.toml` anew, whose data folder is `data`.
    pub(crate) fn write(&self, text: &str) {
        write_file(&self.setup.dir, text);
    }

    /// Reloads the configuration, and returns the number of the generation that serves then.
    #[track_caller]
    pub(crate) fn reload(&self) -> u64 {
        self.renewed("reload", "reloaded, generation ")
    }

    /// Upgrades the program, and returns the number of the generation that serves then.
    #[track_caller]
    pub(crate) fn upgrade(&self) -> u64 {
        self.renewed("upgrade", "upgraded, generation ")
    }

    #[track_caller]
    fn renewed(&self, command: &str, done: &str) -> u64 {
        let output = self.tidegate(&[command]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let number = stdout(&output).strip_prefix(done).unwrap();
        number.trim_end().parse().unwrap()
    }

    /// Runs a command that is not carried out, and returns what it says about that.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let output = self.tidegate(args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
        stderr(&output).to_owned()
    }

    /// Where a listener of the generation that serves is.
    pub(crate) fn address_now(&self, listener: &str) -> SocketAddr {
        let status = self.status();
        let listener = status.listeners.iter().find(|it| it.name == listener).unwrap();
        listener.address.parse().unwrap()
    }

    /// Waits until the file of the control socket and the pid file are gone, and no process is left.
    #[track_caller]
    pub(crate) fn check_nothing_left(&self) {
        for name in ["tidegate.pid", "control.sock", "log.sock"] {
            assert!(!self.data(name).exists(), "{name} is left");
        }
        let group = self.group();
        assert!(group.is_empty(), "{group:?}");
    }

    /// Runs a command with the configuration of this server.
    pub(crate) fn tidegate(&self, args: &[&str]) -> Output {
        tidegate_in(&self.setup.dir, self.with_settings(args))
    }

    /// The arguments of a command with the configuration of this server.
    pub(crate) fn with_settings(&self, args: &[&str]) -> Vec<String> {
        settings(&self.setup.set).chain(args.iter().map(|&arg| arg.to_owned())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The master is reaped below and nowhere else, so its number stands for its group and no other.
        let _ = kill_process_group(pid(self.pid()), Signal::KILL);
        let _ = self.master.wait();
        if thread::panicking() {
            let seen = self.seen.iter().cloned().chain(self.lines.iter());
            eprintln!("what the server said:\n{}", seen.collect::<Vec<_>>().join("\n"));
        }
    }
}

pub(crate) fn worker(status: &Status, index: u64) -> &ProcessStatus {
    status.processes.iter().find(|process| process.index == Some(index)).unwrap()
}

/// Whether the worker (or the log server, for which there is no index) serves in a process that is not `before`. It may be
/// missing for a moment, when its place is taken over.
pub(crate) fn is_replaced(status: &Status, before: &ProcessStatus) -> bool {
    let is_its_place =
        |process: &&ProcessStatus| (&process.role, process.index) == (&before.role, before.index);
    let now = status.processes.iter().find(is_its_place);
    now.is_some_and(|now| now.pid != before.pid && now.state == "ready")
}

pub(crate) fn log_server(status: &Status) -> &ProcessStatus {
    status.processes.iter().find(|process| process.role == "log server").unwrap()
}

/// Runs the program in a folder and waits for its end.
pub(crate) fn tidegate_in<S: AsRef<std::ffi::OsStr>>(
    dir: &Path,
    args: impl IntoIterator<Item = S>,
) -> Output {
    output_of(clean(&mut Command::new(TIDEGATE), dir).args(args).stdin(Stdio::null()))
}

/// Runs a command, which is killed when it does not end.
pub(crate) fn output_of(command: &mut Command) -> Output {
    let mut child = spawned(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    // Closed now, so that a command that reads does not wait for more.
    drop(child.stdin.take());
    let watched = Watched::open(id(&child));
    let (sender, output) = channel();
    thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    match output.recv_timeout(BOUND) {
        Ok(output) => output,
        Err(error) => {
            watched.signal(Signal::KILL);
            panic!("{command:?} does not end: {error}");
        }
    }
}

/// A process of the command. A program that was just copied may be open for writing a little longer, in a process that another
/// test has forked and that has not become its own program yet.
fn spawned(command: &mut Command) -> Child {
    let mut outcome = command.spawn();
    let deadline = Instant::now() + BOUND;
    while outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::ExecutableFileBusy) {
        assert!(Instant::now() < deadline, "the program stays open for writing");
        thread::sleep(Duration::from_millis(5));
        outcome = command.spawn();
    }
    outcome.unwrap()
}

/// Without the environment of whoever runs the tests, which may be a configuration.
pub(crate) fn clean<'a>(command: &'a mut Command, dir: &Path) -> &'a mut Command {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).current_dir(dir)
}

fn settings(set: &[String]) -> impl Iterator<Item = String> {
    set.iter().flat_map(|setting| ["--set".to_owned(), setting.clone()])
}

/// Waits for a state of which nobody tells.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + BOUND;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub(crate) fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Somebody who stays with the gateway.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut client = Self(stream);
        client.ping();
        client
    }

    #[track_caller]
    pub(crate) fn ping(&mut self) {
        self.0.write_all(&PING).unwrap();
        let mut back = [0; PING.len()];
        self.0.read_exact(&mut back).unwrap();
        assert_eq!(back, PING);
    }

    /// Waits for the end.
    pub(crate) fn end(&mut self) {
        assert!(matches!(self.0.read(&mut [0]), Ok(0) | Err(_)));
    }
}

const PING: [u8; 8] = [0, 8, 0, 0, 0, 0, 0, 0];

/// The number of the generation that serves.
pub(crate) fn current(status: &Status) -> u64 {
    status.generations.iter().find(|it| it.state == "current").unwrap().number
}

/// Writes `tidegate.toml` in a folder, with the data folder `data`.
pub(crate) fn write_file(dir: &Path, text: &str) {
    fs::write(dir.join("tidegate.toml"), format!("data_dir = \"data\"\n{text}")).unwrap();
}

/// A folder with one file.
pub(crate) fn folder_with(name: &str, content: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), content).unwrap();
    dir
}

pub(crate) fn pid(number: i32) -> Pid {
    Pid::from_raw(number).unwrap()
}

pub(crate) fn id(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

pub(crate) const TIDEGATE: &str = env!("CARGO_BIN_EXE_tidegate");
