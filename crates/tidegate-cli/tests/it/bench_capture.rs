//! The load generator's latencies beside those of a capture of the same run, taken on the loopback interface.
//!
//! What each counts is the same to the last request. What each times is not: the capture from the packet of the request to
//! that of the answer; a closed loop from before its send(2) until the answer has been read and found right, which has the
//! former in it; a constant rate from the moment when the request was due, which has the latter in it. So each percentile of
//! the generator is at least the capture's, as far as the histogram's three digits and the two clocks (`CLOCK_MONOTONIC`
//! there, `CLOCK_REALTIME` here, which is slewed by up to 500 ppm) allow; and what is more is the client's own share: the way
//! through its socket, and its waiting for a processor, for which there is no bound.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{Setup, id, pid, stdout};

/// A tcpdump of one port on the loopback interface.
struct Capture {
    child: Child,
    said: std::thread::JoinHandle<Vec<String>>,
}

impl Capture {
    /// `None`, with the reason printed, where the machine does not have it or does not allow it.
    fn start(port: u16, file: &Path) -> Option<Self> {
        let filter = format!("tcp port {port}");
        let mut command = Command::new("tcpdump");
        // Without a length the ring has room for a quarter of a megabyte of each packet, and for few of them.
        command.args(["-i", "lo", "-s", "2048", "-B", "131072", "--immediate-mode", "--nano", "-Z", "root"]);
        command.args(["-U", "-w"]);
        command.arg(file).arg(filter).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("skipped: tcpdump cannot be run: {error}");
                return None;
            }
        };
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut first = Vec::new();
        while first.last().is_none_or(|line: &String| !line.contains("listening on")) {
            let Some(line) = lines.next() else {
                child.wait().unwrap();
                eprintln!("skipped: tcpdump does not capture here: {}", first.join("; "));
                return None;
            };
            first.push(line);
        }
        Some(Self { child, said: std::thread::spawn(move || lines.collect()) })
    }

    /// Ends it; it writes out what it has. False when it has not got a turn often enough to have everything.
    fn stop(mut self) -> bool {
        kill_process(pid(id(&self.child)), Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
        let said = self.said.join().unwrap();
        said.iter().any(|line| line == "0 packets dropped by kernel")
    }
}

/// The time of a percentile of the generator is not below that of the capture.
fn contains(load: &Value, capture: &Value, name: &str) {
    let (of_load, of_capture) = match name {
        "p99_9" => ("p99_9_us", "p999_ns"),
        name => (&*format!("{name}_us"), &*format!("{name}_ns")),
    };
    let (load, capture) = (load[of_load].as_f64().unwrap(), capture[of_capture].as_f64().unwrap() / 1e3);
    eprintln!("{name}: {load:.1} us in the client, {capture:.1} us in the capture");
    assert!(load >= capture * 0.997, "{name}: {load} us is less than {capture} us");
}

#[test]
fn a_capture_of_a_load_counts_the_same_and_its_times_are_within_the_clients() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let cases = [
        ("gateway", "msg", &["--rate", "500", "--duration", "600ms"][..]),
        ("web", "http", &["--path", "/hello", "--duration", "50ms", "--pipeline", "3"][..]),
        ("gateway", "msg", &["--duration", "50ms"][..]),
    ];
    for (nth, (listener, ask, args)) in cases.into_iter().enumerate() {
        let (address, file) = (server.address(listener), dir.path().join(format!("{nth}.pcap")));
        let to = address.to_string();
        let load = ["bench", ask, "--to", &to, "--connections", "3", "--warmup", "0s", "--json"];
        let mut tries = 0;
        let output = loop {
            let Some(capture) = Capture::start(address.port(), &file) else { return };
            let output = server.tidegate(&[&load[..], args].concat());
            if capture.stop() {
                break output;
            }
            tries += 1;
            assert!(tries < 10, "the kernel has dropped packets of each of {tries} captures");
        };
        assert!(output.status.success(), "{output:?}");
        let load: Value = serde_json::from_str(stdout(&output)).unwrap();
        let output = server.tidegate(&["latency", file.to_str().unwrap(), "--json"]);
        assert!(output.status.success(), "{output:?}");
        let told: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(told["total"]["connections"], 3, "{told}");
        let [message] = &told["messages"].as_array().unwrap()[..] else { panic!("{}", told["messages"]) };
        // All that was sent was answered, the last ones after the time, when they count no more in a closed loop.
        assert_eq!(message["to_last_byte"]["count"], load["answered"], "{message} {load}");
        for name in ["mean", "p50", "p90", "p99", "p99_9", "max"] {
            if load["answered"] == load["requests"] {
                contains(&load["latency"], &message["to_last_byte"], name);
            }
        }
        assert!(load["latency"]["p50_us"].as_f64().unwrap() > 0.0);
    }
}
