//! Running out of descriptors, in a process of its own whose limit is low.
//!
//! Each test starts this program once more for itself alone. The child is the server: it prints its port, serves until its
//! standard input ends, and then stops and checks its books.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_engine::{EngineConfig, ListenerWord, ProcessWord};

use crate::support::{Client, PATIENCE, Server, Setup, name_of, prepare_the_process};

const ROLE: &str = "TIDEGATE_TEST_SERVER";
/// Room for so many connections.
const ROOM: usize = 8;
/// Descriptors of the child.
const LIMIT: u64 = 256;
pub(crate) const ANSWER: &[u8] = b"503 not now\n";

/// The child's life.
fn serve(config: EngineConfig, overload_answer: Option<&'static [u8]>) {
    lower_the_limit();
    let server = Server::start(Setup { overload_answer, ..Setup::new(config) });
    serve_with_little_room(server.address, || {
        (server.metrics.get(ProcessWord::AcceptExhausted), server.count(ListenerWord::Overloaded))
    });
}

/// To be called before the server starts: io_uring accepts within the limit that held when it began to.
pub(crate) fn lower_the_limit() {
    prepare_the_process();
    let limit = Rlimit { current: Some(LIMIT), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Leaves few descriptors and lets the server serve until its parent has seen enough; then tells what `counted` says: how
/// often accepting failed, and how many peers were told.
pub(crate) fn serve_with_little_room(address: SocketAddr, counted: impl FnOnce() -> (u64, u64)) {
    let mut fillers = Vec::new();
    while let Ok(filler) = File::open("/dev/null") {
        fillers.push(filler);
    }
    fillers.truncate(fillers.len() - ROOM);
    let mut out = std::io::stdout();
    writeln!(out, "port {}", address.port()).unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(fillers);
    let (exhausted, overloaded) = counted();
    writeln!(out, "exhausted {exhausted} overloaded {overloaded}").unwrap();
}

/// The parent's view of it.
pub(crate) struct Process {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
}

impl Process {
    fn start(config: EngineConfig, case: &str) -> Self {
        let model = name_of(config);
        Self::of_test(&format!("descriptors::{model}::{case}"))
    }

    /// A process that runs one test as a child.
    pub(crate) fn of_test(test: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let port = word_after(&mut out, "port ").parse().unwrap();
        Self { child, out, address: ([127, 0, 0, 1], port).into() }
    }

    /// Runs one test as a child, to its end.
    pub(crate) fn run_test(test: &str) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
    }

    /// User and system time so far, in ticks of 10 ms (proc_pid_stat(5)).
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// Ends it; answers how often accepting failed, and how many peers were told.
    fn end(mut self) -> (u64, u64) {
        drop(self.child.stdin.take());
        let line = word_after(&mut self.out, "exhausted ");
        let (exhausted, overloaded) = line.split_once(" overloaded ").unwrap();
        self.out.read_to_end(&mut Vec::new()).unwrap();
        assert!(self.child.wait().unwrap().success());
        (exhausted.parse().unwrap(), overloaded.parse().unwrap())
    }
}

/// The rest of the first line in which `word` stands.
fn word_after(out: &mut impl BufRead, word: &str) -> String {
    for line in out.lines() {
        if let Some((_, rest)) = line.unwrap().split_once(word) {
            return rest.to_owned();
        }
    }
    panic!("the child ended before it said \"{word}\"");
}

pub(crate) fn is_child() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// Takes all the room there is.
fn fill(process: &Process) -> Vec<Client> {
    (0..ROOM)
        .map(|_| {
            let mut client = Client::new(process.address);
            client.round_trip();
            client
        })
        .collect()
}

under_each_model!(
    a_service_with_an_answer_gives_it,
    without_an_answer_peers_wait_and_the_server_does_not_spin,
);

fn a_service_with_an_answer_gives_it(config: EngineConfig) {
    if is_child() {
        return serve(config, Some(ANSWER));
    }
    expect_answers(Process::start(config, "a_service_with_an_answer_gives_it"));
}

/// A server whose service has the answer tells every peer that it has no descriptor for, and serves again when it has.
pub(crate) fn expect_answers(process: Process) {
    let mut served = fill(&process);
    for _ in 0..100 {
        let mut refused = Client::new(process.address);
        assert_eq!(refused.rest(), ANSWER);
    }
    served.iter_mut().for_each(Client::round_trip);
    // With nobody left to be told, there is nothing to do.
    let before = process.cpu_ticks();
    std::thread::park_timeout(Duration::from_millis(300));
    let ticks = process.cpu_ticks() - before;
    assert!(ticks <= 10, "{} ms of 300 ms were spent", ticks * 10);
    served.pop();
    // There is room again as soon as the server has noticed; until then it says no.
    let mut tries = 0;
    loop {
        let mut client = Client::new(process.address);
        client.send("echo yes\n");
        match client.line().as_str() {
            "yes" => break,
            other => assert_eq!(other.as_bytes(), &ANSWER[..ANSWER.len() - 1]),
        }
        tries += 1;
        assert!(tries < 1000);
    }
    let (exhausted, overloaded) = process.end();
    assert!(exhausted >= 1 && overloaded == 100 + tries, "{exhausted}, {overloaded}");
}

fn without_an_answer_peers_wait_and_the_server_does_not_spin(config: EngineConfig) {
    if is_child() {
        return serve(config, None);
    }
    expect_patience(Process::start(config, "without_an_answer_peers_wait_and_the_server_does_not_spin"));
}

/// A server whose service has no answer leaves peers waiting at no cost, and serves them when it can.
pub(crate) fn expect_patience(process: Process) {
    let mut served = fill(&process);
    let waiting: Vec<Client> = (0..20).map(|_| Client::new(process.address)).collect();
    waiting.iter().for_each(|client| client.send("echo at last\n"));
    // The first of them waits in vain for 300 ms, in which the server has next to nothing to do.
    let before = process.cpu_ticks();
    waiting[0].stream().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = waiting[0].stream().read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    waiting[0].stream().set_read_timeout(Some(PATIENCE)).unwrap();
    let ticks = process.cpu_ticks() - before;
    assert!(ticks <= 10, "{} ms of 300 ms were spent", ticks * 10);
    served.iter_mut().for_each(Client::round_trip);
    drop(served);
    for mut client in waiting {
        client.expect("at last");
    }
    let (exhausted, overloaded) = process.end();
    assert!(exhausted > 1 && overloaded == 0, "{exhausted}, {overloaded}");
}
