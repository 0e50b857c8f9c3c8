//! The measuring path as a whole: an engine in this process, and servers in processes of their own. No time is asserted.

use std::net::SocketAddr;
use std::num::NonZero;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tidegate_bench::measure::{Subject, Times, measure};
use tidegate_bench::{CountingTool, Model, Scenario, Server, ServerProcess, ServiceKind, Settings};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tidegate-bench");
const MOMENT: Duration = Duration::from_millis(100);

fn few(service: ServiceKind, pipeline: usize) -> Scenario {
    Scenario { name: "few", service, connections: 20, active: 0.5, pipeline }
}

#[test]
fn an_engine_in_this_process_is_measured() {
    let settings = Settings { max_connections: 100, pool_threads: NonZero::<usize>::MIN };
    for name in Model::NAMES {
        let model = Model::named(name, &settings).unwrap();
        for (service, pipeline) in [
            (ServiceKind::Hello, 1),
            (ServiceKind::Hello, 16),
            (ServiceKind::Echo, 4),
            (ServiceKind::Sleep, 2),
        ] {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let server = Server::start(model, &settings, service, any).unwrap();
            let subject = Subject { pid: std::process::id(), address: server.address() };
            let (trace, tool) = (Duration::ZERO, CountingTool::Auto);
            let times = Times { warmup: MOMENT, measure: MOMENT, trace, tool };
            let sample = measure(subject, &few(service, pipeline), &times).unwrap();
            assert!(sample.requests > 0, "{name}, {service}: no answers");
            assert_eq!((sample.wrong, sample.lost), (0, 0), "{name}, {service}");
            assert!(sample.latency.max_us >= sample.latency.p50_us);
            server.stop().unwrap();
        }
    }
}

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("the program of this crate runs")
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text:?}, and on standard error {:?}", String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn a_matrix_has_a_row_for_each_model() {
    let output = run(&[
        "models",
        "--model",
        "epoll-edge-inline,poll",
        "--scenario",
        "hello,echo",
        "--rounds",
        "1",
        "--duration",
        "100ms",
        "--warmup",
        "50ms",
        "--trace",
        "50ms",
        "--json",
    ]);
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    let scenarios = report["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.iter().map(|s| s["name"].as_str().unwrap()).collect::<Vec<_>>(), ["hello", "echo"]);
    for scenario in scenarios {
        let rows = scenario["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 2);
        for row in rows {
            let measured = &row["measured"];
            assert!(measured["rate"].as_f64().unwrap() > 0.0, "{row}");
            assert!(measured["cpu_us"].as_f64().unwrap() > 0.0, "{row}");
            // Where nothing can count, the row says so.
            assert!(measured["syscalls"].is_object() != measured["untraced"].is_string(), "{row}");
        }
    }
}

#[test]
fn a_server_that_ends_early_is_refused_with_its_reason() {
    let output =
        run(&["serve", "--model", "epoll-edge-inline", "--service", "echo", "--listen", "192.0.2.1:1"]);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("refused "), "{text:?}");
}

/// A server in this process, and the address to reach it at.
fn echo() -> (Server, String) {
    let settings = Settings { max_connections: 1000, pool_threads: NonZero::<usize>::MIN };
    let model = Model::named("epoll-edge-inline", &settings).expect("the default model");
    let server = Server::start(model, &settings, ServiceKind::Echo, SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a free port");
    let address = server.address().to_string();
    (server, address)
}

#[test]
fn connections_are_held_over_processes() {
    let arguments = ["serve", "--model", "epoll-edge-inline", "--service", "echo"].map(str::to_owned);
    let server = ServerProcess::start(Path::new(PROGRAM), &arguments).unwrap();
    let (address, pid) = (server.address().to_string(), server.pid().to_string());
    let output = run(&[
        "hold",
        "--to",
        &address,
        "--connections",
        "41",
        "--processes",
        "3",
        "--every",
        "100ms",
        "--for",
        "300ms",
        "--server-pid",
        &pid,
        "--json",
    ]);
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert_eq!(report["held"], true);
    assert_eq!(report["connections"], 41);
    // Three periods of 41 questions, none of them left out, however late they were asked.
    assert_eq!(report["total"]["asked"], 123);
    assert_eq!(report["total"]["answered"], 123);
    assert!(report["server_cores"].as_f64().unwrap() > 0.0);
    assert!(report["server_resident_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_hold_without_a_server_fails_and_says_why() {
    let (server, address) = echo();
    server.stop().unwrap();
    let output = run(&["hold", "--to", &address, "--connections", "2", "--processes", "1", "--for", "100ms"]);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("Connection refused") && text.contains("member 0: it ended"), "{text:?}");
}

#[test]
fn a_load_tells_what_it_saw() {
    let (server, address) = echo();
    let output = run(&[
        "load",
        "--to",
        &address,
        "--from",
        "127.0.0.2",
        "--connections",
        "10",
        "--active",
        "0.2",
        "--size",
        "100000",
        "--pipeline",
        "3",
        "--duration",
        "100ms",
        "--warmup",
        "0s",
        "--json",
    ]);
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert!(report["requests"].as_u64().unwrap() > 0);
    assert_eq!((&report["wrong"], &report["lost"]), (&Value::from(0), &Value::from(0)));
    server.stop().unwrap();
}
