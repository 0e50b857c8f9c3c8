//! System calls that fail although nothing is wrong, by strace(1): nothing is lost, and nobody waits.
//!
//! Where strace is missing or must not attach these trials say so and end. What strace itself costs is shown beside: the same
//! load, traced in the same way, with nothing injected.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustix::process::{Signal, kill_process};

use crate::http::Connection;
use crate::load::{Load, Mix};
use crate::processes::Watched;
use crate::site::{Shape, Site};
use crate::support::{Server, id, pid};
use crate::{alone, check_bound, full_or, is_full, say};

/// A strace that is attached to the workers.
struct Strace {
    child: Child,
    trace: PathBuf,
}

impl Strace {
    /// `None`: there is no strace, or it may not.
    fn attach(server: &Server, site: &Site, call: &str, inject: Option<&str>) -> Option<Self> {
        let trace = site.path("strace.out");
        let mut command = Command::new("strace");
        command.args(["-f", "-e", &format!("trace={call}"), "-o"]).arg(&trace);
        if let Some(inject) = inject {
            command.args(["-e", &format!("inject={call}:{inject}")]);
        }
        let status = server.status();
        let workers: Vec<String> = status
            .processes
            .iter()
            .filter(|process| process.role == "worker")
            .map(|process| process.pid.to_string())
            .collect();
        workers.iter().for_each(|worker| {
            command.args(["-p", worker]);
        });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            eprintln!("skipped: there is no strace");
            return None;
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        // Each thread of a process is attached before its line is written.
        for _ in &workers {
            let line = lines.next().unwrap_or_default();
            if !line.contains("attached") {
                eprintln!("skipped: strace says {line:?}");
                let _ = child.wait();
                return None;
            }
        }
        thread::spawn(move || lines.for_each(drop));
        Some(Self { child, trace })
    }

    /// Lets the workers go, and tells how many calls there were and how many of them failed by this.
    fn end(mut self) -> (usize, usize) {
        kill_process(pid(id(&self.child)), Signal::INT).unwrap();
        self.child.wait().unwrap();
        let trace = fs::read_to_string(&self.trace).unwrap();
        (trace.lines().count(), trace.matches("(INJECTED)").count())
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        // It has ended, unless a trial has failed. Who is traced lives on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers to this many requests are more than the kernel takes for a peer that does not read, buffers being small.
const PIPELINED: usize = 5_000;
const SMALL_BUFFER: usize = 16 << 10;

/// Many requests in one go, by one who begins to read when the server has stopped to.
fn pipelined(address: SocketAddr) {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, SMALL_BUFFER).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut writer = TcpStream::from(socket);
    let mut connection = Connection::over(writer.try_clone().unwrap());
    let writing = thread::spawn(move || {
        let request = "GET /hello HTTP/1.1\r\nHost: trial\r\n\r\n".repeat(100);
        for _ in 0..PIPELINED / 100 {
            writer.write_all(request.as_bytes()).unwrap();
        }
    });
    thread::sleep(Duration::from_millis(100));
    for nth in 0..PIPELINED {
        let answer = connection.answer().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "Hello, World!"), "answer {nth}");
    }
    writing.join().unwrap();
}

struct Seen {
    text: String,
    slowest: Duration,
}

/// The load for a while, with a system call traced. `None`: that cannot be done here.
fn run(server: &Server, site: &Site, call: &str, inject: Option<&str>) -> Option<Seen> {
    let strace = Strace::attach(server, site, call, inject)?;
    let mix = Mix { pause: Duration::from_millis(40), ..Mix::all() };
    let load = Load::start(&site.targets(server), mix);
    load.wait_warm();
    if call == "writev" {
        pipelined(server.address("web"));
    }
    thread::sleep(Duration::from_millis(full_or(3000, 100)));
    let tally = load.finish();
    let (calls, injected) = strace.end();
    tally.check_clean();
    let may_be_busy = inject.is_some_and(|inject| inject.contains("FILE"));
    assert!(may_be_busy || tally.overloaded == 0, "{tally}");
    assert_eq!(tally.raced, 0, "nobody ends a kept connection here");
    assert!(inject.is_none() || injected > 0, "none of {calls} calls of {call} has failed");
    let slowest = tally.slowest();
    Some(Seen { text: format!("{injected} of {calls} calls; {tally}"), slowest })
}

fn check(cases: &[(&str, &str)]) {
    let _alone = alone();
    let site = Site::new(&Shape::new(2, "reuseport").web("send_buffer = \"16KiB\""));
    let server = site.start();
    let workers: Vec<Watched> = server
        .status()
        .processes
        .iter()
        .filter(|process| process.role == "worker")
        .map(Watched::of)
        .collect();
    for &(call, error) in cases {
        let inject = format!("error={error}:when=3+5");
        let mut pauses = Vec::new();
        for _ in 0..full_or(3, 1) {
            // The short trial measures nothing.
            let plain = is_full().then(|| run(&server, &site, call, None)).flatten();
            let Some(seen) = run(&server, &site, call, Some(&inject)) else { return };
            let beside = plain.map_or(Duration::ZERO, |plain| plain.slowest);
            say(
                &format!("{call} fails with {error}"),
                &format!("slowest {:.1?} (nothing injected: {beside:.1?}); {}", seen.slowest, seen.text),
            );
            pauses.push(seen.slowest.saturating_sub(beside));
        }
        // A failure that makes somebody wait does so in each round, hundreds of times; another program on the machine does not.
        let pause = pauses.into_iter().min().unwrap_or_default();
        check_bound(&format!("no pause when {call} fails with {error}"), pause, Duration::from_millis(50));
    }
    assert!(workers.iter().all(|worker| !worker.has_ended()), "a worker has died");
}

#[test]
fn nothing_is_lost_when_accept_fails() {
    check(&[("accept4", "EMFILE"), ("accept4", "ENFILE"), ("accept4", "ECONNABORTED")]);
}

#[test]
fn nothing_is_lost_when_a_wait_or_a_read_is_interrupted() {
    check(&[("epoll_pwait", "EINTR"), ("recvfrom", "EINTR"), ("accept4", "EINTR")]);
}

#[test]
fn nothing_is_lost_when_a_send_is_interrupted() {
    check(&[("sendto", "EINTR"), ("writev", "EINTR"), ("sendfile", "EINTR")]);
}
