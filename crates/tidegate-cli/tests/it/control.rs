//! `stop`, `status` and `reopen`: commands to a server that runs, and to one that does not.

use std::fs;

use rustix::process::Signal;
use tempfile::tempdir;
use tidegate::Status;

use crate::http::{Connection, get};
use crate::processes::Exit;
use crate::support::{Server, Setup, stderr, stdout, tidegate_in, wait_until};

#[test]
fn status_is_a_table_for_people_and_json_for_programs() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let table = server.tidegate(&["status"]);
    assert!(table.status.success());
    let text = stdout(&table);
    for part in [
        "GENERATION",
        "current",
        "PROCESS",
        "master",
        "log server",
        "worker 0",
        "worker 1",
        "LISTENER",
        "gateway",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.contains(&server.pid().to_string()) && text.contains(&server.address("admin").to_string()));
    let json = server.tidegate(&["status", "--json"]);
    let status: Status = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(status.processes[0].pid, u64::try_from(server.pid()).unwrap());
    let generations = status.generations.iter().map(|it| (it.number, &*it.state, it.processes));
    assert_eq!(generations.collect::<Vec<_>>(), [(1, "current", 2)]);
}

#[track_caller]
fn check_stop(server: &Server, args: &[&str]) {
    let stop = server.tidegate(args);
    assert_eq!(stop.status.code(), Some(0), "{stop:?}");
    assert_eq!(stdout(&stop), format!("stopped, pid {}\n", server.pid()));
    // It has waited for the end.
    assert!(server.group().is_empty());
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn stop_is_graceful_and_waits() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    check_stop(&server, &["stop"]);
    assert!(server.all_lines().iter().any(|line| line.contains("graceful stop")));
}

#[test]
fn stop_now_waits_for_nobody() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let mut connection = Connection::open(server.address("web"));
    connection.send("GET /hello HTTP/1.1\r\n");
    check_stop(&server, &["stop", "--now"]);
    connection.ends_in_order();
    assert!(server.all_lines().iter().any(|line| line.contains("fast stop")));
}

#[test]
fn a_server_of_one_process_is_found_by_its_pid_file() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).set("process.workers=0").start();
    for command in CONTROL_ONLY {
        let output = server.tidegate(command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let text = stderr(&output);
        assert!(text.contains(&format!("process {}", server.pid())), "{command:?}: {text}");
        assert!(text.contains("process.workers = 0") && output.stdout.is_empty(), "{command:?}: {text}");
    }
    check_reopen(&server);
    check_stop(&server, &["stop"]);
}

/// Commands that a server of one process cannot be asked for.
const CONTROL_ONLY: &[&[&str]] = &[
    &["status"],
    &["status", "--json"],
    &["reload"],
    &["upgrade"],
    &["drain", "0"],
    &["connections"],
    &["connections", "--all", "--json"],
    &["close", "1.0.0.0.1"],
    &["pause", "web"],
    &["resume", "--worker", "0"],
    &["loglevel", "debug"],
];

#[test]
fn a_reload_with_a_broken_configuration_names_the_line_and_asks_nobody() {
    let dir = crate::support::folder_with("tidegate.toml", "data_dir = \"data\"\n[process]\nwokers = 2\n");
    let output = tidegate_in(dir.path(), ["reload"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.starts_with("tidegate: not reloaded: the configuration is refused"), "{text}");
    assert!(text.contains("tidegate.toml:3:1") && text.contains("wokers"), "{text}");
}

#[test]
fn without_a_server_the_commands_say_so() {
    let dir = tempdir().unwrap();
    let others: [&[&str]; 3] = [&["stop"], &["stop", "--now"], &["reopen"]];
    for command in others.iter().chain(CONTROL_ONLY) {
        let output = tidegate_in(dir.path(), *command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let text = stderr(&output);
        assert!(text.starts_with("tidegate: no server runs with this configuration"), "{command:?}: {text}");
        assert!(text.contains("tidegate-data/control.sock"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_pid_file_that_a_killed_server_left_means_no_server() {
    let dir = tempdir().unwrap();
    let data = dir.path().join("tidegate-data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("tidegate.pid"), format!("{}\n", std::process::id())).unwrap();
    let output = tidegate_in(dir.path(), ["stop"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no server runs"), "{output:?}");
}

#[track_caller]
fn check_reopen(server: &Server) {
    let files = || fs::read_dir(server.data("log")).unwrap().map(|entry| entry.unwrap().path());
    wait_until("there is a log file", || files().count() == 1);
    let file = files().next().unwrap();
    let away = server.data("rotated");
    fs::rename(&file, &away).unwrap();
    let reopen = server.tidegate(&["reopen"]);
    assert!(reopen.status.success(), "{reopen:?}");
    wait_until("the log file is there again, with the next record", || {
        server.signal(Signal::USR1);
        files().count() == 1
    });
    assert!(fs::metadata(away).unwrap().len() > 0);
}

#[test]
fn reopen_begins_the_log_files_anew() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    check_reopen(&server);
    assert_eq!(get(server.address("web"), "/hello").status, 200);
}
