//! A program that uses the library, run for real: this test's own binary, started again as the server, is the master, and
//! the master starts it as its workers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(clippy::print_stdout, reason = "the program and its test speak by standard output")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tidegate::{Flow, Io, ProcessContext, ProcessEvent, Server, Stream, echo};

/// Says which program this process is; the processes that the master starts inherit it.
const PROGRAM: &str = "LIBRARY_TEST_PROGRAM";

fn main() -> ExitCode {
    match std::env::var(PROGRAM).as_deref() {
        Ok("echo") => exit_code(program(|| Ok(echo())).run()),
        Ok("loops") => exit_code(program(|| Ok(own_thread())).loops(3).run()),
        Ok("unable") => exit_code(
            program(|| if true { Err("this program cannot serve".into()) } else { Ok(echo()) }).run(),
        ),
        Ok("process") => exit_code(with_process().run()),
        Ok(other) => panic!("no program {other}"),
        Err(_) => {
            let cases: [(&str, fn()); 6] = [
                ("a_process_of_the_programs_own_is_kept", a_process_of_the_programs_own_is_kept),
                ("a_process_needs_a_name_of_its_own", a_process_needs_a_name_of_its_own),
                ("each_loop_of_each_worker_serves", each_loop_of_each_worker_serves),
                ("a_library_program_serves_and_quits", a_library_program_serves_and_quits),
                ("a_killed_worker_is_replaced", a_killed_worker_is_replaced),
                ("a_program_that_cannot_serve_ends", a_program_that_cannot_serve_ends),
            ];
            for (name, case) in cases {
                case();
                println!("test {name} ... ok");
            }
            println!("test result: {} passed, 0 failed", cases.len());
            ExitCode::SUCCESS
        }
    }
}

/// Answers with the process and the thread that serve the connection.
fn own_thread() -> Stream<impl Fn(&mut Io<'_>, &[u8]) -> Flow + Send + Sync + 'static> {
    Stream::new(|io, _| {
        let name = std::thread::current().name().unwrap_or("unnamed").to_owned();
        io.send(format!("{} {name}", std::process::id()).as_bytes());
        Flow::Continue
    })
}

fn program<S: tidegate::Service>(
    factory: impl Fn() -> Result<S, tidegate::BoxError> + Send + Sync + 'static,
) -> tidegate::ServerBuilder {
    let listening = Server::builder().listen_named("main", "127.0.0.1:0", factory).workers(2);
    listening.on_ready(|ready| println!("{ready}"))
}

fn exit_code(outcome: Result<(), tidegate::Error>) -> ExitCode {
    outcome.map_or_else(|error| ExitCode::from(error.exit_code()), |()| ExitCode::SUCCESS)
}

/// A server with a process that says what it was told and what happens to it.
fn with_process() -> tidegate::ServerBuilder {
    program(|| Ok(echo())).process("greeter", ("hello".to_owned(), 7u64), |process, (greeting, number)| {
        println!("{} {greeting} {number}", std::process::id());
        process.ready()?;
        loop {
            match process.wait(Duration::from_secs(60))? {
                None | Some(ProcessEvent::Reopen) => {}
                Some(told) => {
                    println!("told {told:?}");
                    return Ok(());
                }
            }
        }
    })
}

/// The program as a process; killed when a test ends early.
struct Running {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    fn start(name: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut process = command.env(PROGRAM, name).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }

    /// The address in the line that says that it is ready; empty when it ends without one.
    fn address(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().rsplit('=').next().unwrap_or_default().to_owned()
    }

    /// The next line that is meant.
    fn line(&mut self, is_meant: impl Fn(&str) -> bool) -> String {
        let mut lines = self.lines.by_ref().lines().map(Result::unwrap);
        lines.find(|line| is_meant(line)).expect("no such line before the end")
    }

    /// The process of its own that says next that it is there.
    fn greeter(&mut self) -> u32 {
        let line = self.line(|line| line.ends_with(" hello 7"));
        line.split(' ').next().unwrap().parse().unwrap()
    }

    fn signal(&self, pid: u32, signal: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")).status().unwrap();
        assert!(status.success());
    }

    fn quit(mut self) {
        self.signal(self.process.id(), "QUIT");
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
    }

    fn children(&self) -> Vec<u32> {
        let pid = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already, unless a test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn exchange(address: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn a_process_of_the_programs_own_is_kept() {
    let mut running = Running::start("process");
    let first = running.greeter();
    running.line(|line| line.starts_with("ready"));
    running.signal(first, "KILL");
    let second = running.greeter();
    assert_ne!(first, second);
    let before = running.children();
    running.signal(running.process.id(), "HUP");
    let began = Instant::now();
    while running.children().iter().filter(|child| before.contains(child)).count() > 1 {
        assert!(began.elapsed() < Duration::from_secs(30), "the workers are never replaced");
        std::thread::yield_now();
    }
    assert!(running.children().contains(&second), "it lives over a reload");
    running.signal(running.process.id(), "QUIT");
    running.line(|line| line == "told Quit");
    assert_eq!(running.process.wait().unwrap().code(), Some(0));
}

fn a_process_needs_a_name_of_its_own() {
    let quiet = |_: &mut ProcessContext<'_>, (): ()| Ok(());
    for (name, part) in [("", "1 to 64"), ("a/b", "1 to 64"), ("greeter", "another one")] {
        let error = with_process().process(name, (), quiet).spawn().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

fn a_library_program_serves_and_quits() {
    let mut running = Running::start("echo");
    let address = running.address();
    for _ in 0..20 {
        assert_eq!(exchange(&address).unwrap(), b"hello");
    }
    assert_eq!(running.children().len(), 2, "two workers and no log server");
    running.quit();
    assert!(TcpStream::connect(&address).is_err(), "nobody listens any more");
}

fn each_loop_of_each_worker_serves() {
    let mut running = Running::start("loops");
    let address = running.address();
    let began = Instant::now();
    let mut seen = BTreeSet::new();
    // The kernel spreads connections by a hash, so it takes some until each of the six has had one.
    while seen.len() < 6 {
        assert!(began.elapsed() < Duration::from_secs(30), "only {seen:?} have served");
        seen.insert(String::from_utf8(exchange(&address).unwrap()).unwrap());
    }
    let names: BTreeSet<&str> = seen.iter().filter_map(|served| served.split(' ').nth(1)).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["loop-0", "loop-1", "loop-2"]);
    running.quit();
}

fn a_killed_worker_is_replaced() {
    let mut running = Running::start("echo");
    let address = running.address();
    let before = running.children();
    running.signal(before[0], "KILL");
    // A connection waits in the queue of the slot until the successor takes it.
    for _ in 0..20 {
        assert_eq!(exchange(&address).unwrap(), b"hello");
    }
    let after = running.children();
    assert_eq!(after.len(), 2);
    assert!(!after.contains(&before[0]));
    running.quit();
}

fn a_program_that_cannot_serve_ends() {
    let mut running = Running::start("unable");
    assert_eq!(running.address(), "");
    assert_eq!(running.process.wait().unwrap().code(), Some(1));
}
