//! `tidegate bench`: measuring as a whole, with servers in processes of their own. No time is asserted.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::tempdir;
use tidegate_bench::ServerProcess;

use crate::processes::Watched;
use crate::support::{Setup, TIDEGATE, clean, stderr, stdout, tidegate_in, wait_until};

fn run(line: &str) -> Output {
    let dir = tempdir().unwrap();
    let words: Vec<&str> = ["bench"].into_iter().chain(line.split_whitespace()).collect();
    tidegate_in(dir.path(), &words)
}

fn json(output: &Output) -> Value {
    serde_json::from_str(stdout(output)).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// An echo server in a process of its own.
fn echo() -> ServerProcess {
    let arguments = ["bench", "serve", "--model", "epoll-edge-inline", "--service", "echo"];
    ServerProcess::start(Path::new(TIDEGATE), &arguments.map(str::to_owned)).unwrap()
}

#[test]
fn the_engines_models_have_a_row_each() {
    let output = run(
        "engine --model epoll-edge-inline,poll --scenario hello,echo --rounds 1 --duration 100ms --warmup 50ms --trace 50ms --json",
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
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
            let calls = &measured["syscalls"];
            assert!(calls["counted"].is_object() || calls["uncounted"].is_string(), "{row}");
        }
    }
}

#[test]
fn a_server_that_cannot_listen_says_why() {
    let output = run("serve --model epoll-edge-inline --service echo --listen 192.0.2.1:1");
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).starts_with("refused "), "{output:?}");
}

#[test]
fn connections_are_held_over_processes() {
    let server = echo();
    let output = run(&format!(
        "hold --to {} --connections 41 --processes 3 --every 100ms --for 300ms --server-pid {} --json",
        server.address(),
        server.pid()
    ));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(report["held"], true);
    assert_eq!(report["connections"], 41);
    // Three periods of 41 questions, none of them left out, however late they were asked.
    assert_eq!(report["total"]["due"], 123);
    assert_eq!(report["total"]["answered"], 123);
    assert!(report["server_cores"].as_f64().unwrap() > 0.0);
    assert!(report["server_resident_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn a_hold_without_a_server_fails_and_says_why() {
    let address = echo().address();
    let output = run(&format!("hold --to {address} --connections 2 --processes 1 --for 100ms"));
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("Connection refused") && text.contains("member 0: it ended"), "{text:?}");
}

#[test]
fn the_server_is_measured_in_its_combinations_and_what_is_refused_has_its_reason() {
    let dir = tempdir().unwrap();
    let line = "bench models --quick --trace 50ms --backend epoll --trigger edge,oneshot --dispatch inline,reactor --accept shared \
                --loops 1 --connections 8 --scenario echo,http,msg,pipelined --json --svg picture.svg";
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = tidegate_in(dir.path(), &words);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    let scenarios = report["scenarios"].as_array().unwrap();
    assert_eq!(scenarios.len(), 4);
    for scenario in scenarios {
        let rows = scenario["rows"].as_array().unwrap();
        let mut models: Vec<&str> = rows.iter().map(|row| row["model"].as_str().unwrap()).collect();
        let rates: Vec<f64> = rows.iter().map(|row| row["measured"]["rate"].as_f64().unwrap()).collect();
        assert!(rates.is_sorted_by(|a, b| a >= b) && rates.iter().all(|rate| *rate > 0.0), "{scenario}");
        models.sort_unstable();
        assert_eq!(
            models,
            ["epoll-edge inline shared", "epoll-oneshot inline shared", "epoll-oneshot reactor shared"]
        );
        for row in rows {
            let measured = &row["measured"];
            assert_eq!(measured["failures"]["first"], Value::Null, "{row}");
            for figure in ["cpu_us", "memory_bytes", "p50_us", "threads", "wakes_per_accept"] {
                assert!(measured[figure].as_f64().unwrap() > 0.0, "{figure}: {row}");
            }
            // Where nothing can count, the row says so.
            let calls = &measured["syscalls"];
            assert!(calls["counted"].is_object() || calls["uncounted"].is_string(), "{row}");
            assert!(row["settings"].to_string().contains("process.accept=shared"), "{row}");
        }
    }
    let refused = report["refused"].to_string();
    assert!(refused.contains("engine.trigger: \\\"edge\\\" cannot be served"), "{refused}");
    let picture = std::fs::read_to_string(dir.path().join("picture.svg")).unwrap();
    assert!(picture.starts_with("<svg ") && picture.contains("epoll-oneshot reactor shared"));
}

#[test]
fn a_plan_finds_the_servers_processes_and_no_request_fails() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    for (listener, ask) in [("web", "http --path /hello"), ("gateway", "msg")] {
        let line = format!(
            "plan --to {} --ask {ask} --connections 1,2,100 --duration 200ms --warmup 50ms --json",
            server.address(listener)
        );
        let output = run(&line);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let report = json(&output);
        assert_eq!(report["server"]["Ok"], server.pid(), "{report}");
        let stages = report["stages"].as_array().unwrap();
        assert_eq!(
            stages.iter().map(|stage| stage["connections"].as_u64().unwrap()).collect::<Vec<_>>(),
            [1, 2, 100]
        );
        for stage in stages {
            let measured = &stage["measured"];
            assert!(measured["requests"].as_u64().unwrap() > 0 && measured["failed"] == 0, "{stage}");
            let used = &measured["server"];
            for figure in ["cores", "memory_bytes", "received_per_s", "packets_per_s"] {
                assert!(used[figure].as_f64().unwrap() > 0.0, "{figure}: {stage}");
            }
            assert!(
                used["descriptors"].as_u64().unwrap() >= stage["connections"].as_u64().unwrap(),
                "{stage}"
            );
            // The master, the log server and two workers.
            assert_eq!(used["processes"], 4, "{stage}");
        }
        assert!(report["knee"]["connections"].is_u64());
    }
}

#[test]
fn a_plan_shows_a_table_and_says_what_it_could_not_measure() {
    let dir = tempdir().unwrap();
    let server = echo();
    let line = format!(
        "bench plan --to {} --max-connections 400 --duration 50ms --warmup 10ms --svg picture.svg",
        server.address()
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = tidegate_in(dir.path(), &words);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    for part in [
        "single ",
        "concurrent ",
        "The knee: ",
        "The end: 800 connections would be more than 400",
        "process ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(std::fs::read_to_string(dir.path().join("picture.svg")).unwrap().contains("Latency"));
    let address = server.address();
    drop(server);
    let output = run(&format!("plan --to {address} --connections 1"));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("Connection refused") && stdout(&output).contains("nobody listens"),
        "{output:?}"
    );
}

#[test]
fn a_server_that_is_measured_ends_with_whoever_measures() {
    let dir = tempdir().unwrap();
    let mut child = Command::new(TIDEGATE);
    clean(&mut child, dir.path())
        .args("bench models --quick --dispatch inline --accept shared --loops 1".split(' '));
    child.args(["--limit", "1d", "--rounds", "100"]).env("TMPDIR", dir.path());
    let mut child = child.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let family = || tidegate_bench::family(child.id()).unwrap();
    // A master that has children has asked for the signal before.
    wait_until("a server with children", || family().len() > 3);
    let server = Watched::open(i32::try_from(family()[1]).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    server.wait_end();
}
