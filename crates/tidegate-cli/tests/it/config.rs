//! `check`, `config` and a `run` that is refused.

use serde_json::Value as Json;
use tempfile::tempdir;

use crate::support::{folder_with, stderr, stdout, tidegate_in};

const WRONG: &str = "\
[process]
wrokers = 2
accept = \"hand-off\"
[engine]
dispatch = \"inlien\"


[web]
root = 5
";

#[test]
fn check_lists_everything_that_is_wrong() {
    let dir = folder_with("tidegate.toml", WRONG);
    let output = tidegate_in(dir.path(), ["check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let text = stderr(&output);
    for part in [
        "tidegate.toml:2:1: ",
        "did you mean \"workers\"?",
        "2 | wrokers = 2",
        "tidegate.toml:3:",
        "did you mean \"handoff\"?",
        "tidegate.toml:5:",
        "did you mean \"inline\"?",
        "tidegate.toml:9:",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(text.starts_with("tidegate: the configuration is refused\n"));
}

#[test]
fn check_tells_programs_the_same() {
    let dir = folder_with("other.toml", WRONG);
    let output = tidegate_in(dir.path(), ["check", "--config", "other.toml", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.is_empty());
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);
    let errors = json["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 4);
    assert_eq!((&errors[0]["line"], &errors[0]["column"]), (&Json::from(2), &Json::from(1)));
    assert_eq!(errors[0]["key"], "process.wrokers");
}

#[test]
fn run_refuses_what_check_refuses() {
    let dir = folder_with("tidegate.toml", WRONG);
    let check = tidegate_in(dir.path(), ["check"]);
    for args in [&["run"][..], &[], &["config"]] {
        let run = tidegate_in(dir.path(), args);
        assert_eq!(run.status.code(), Some(2), "{args:?}");
        assert_eq!(stderr(&run), stderr(&check), "{args:?}");
    }
    assert!(!dir.path().join("tidegate-data").exists());
}

#[test]
fn a_right_configuration_is_fine() {
    let dir = folder_with("tidegate.toml", "[process]\nworkers = 3\n");
    let output = tidegate_in(dir.path(), ["check"]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    assert!(
        text.starts_with("the configuration is fine: ") && text.contains("tidegate.toml, 3 workers\n"),
        "{text}"
    );
    assert!(text.contains("gateway 127.0.0.1:9000 (gateway)"), "{text}");
    let json = tidegate_in(dir.path(), ["check", "--json"]);
    assert_eq!((json.status.code(), stdout(&json)), (Some(0), "{\"errors\":[],\"ok\":true}\n"));
    let missing = tidegate_in(dir.path(), ["check", "--config", "missing.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("missing.toml"));
}

#[test]
fn every_value_is_shown_with_its_origin() {
    let dir = folder_with("tidegate.toml", "[process]\nworkers = 3\n");
    let output = tidegate_in(dir.path(), ["config", "--set", "web.keep_alive=5s"]);
    assert!(output.status.success());
    let line = |key: &str| stdout(&output).lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("workers = 3").contains("tidegate.toml:2:"), "{}", line("workers"));
    assert!(line("keep_alive = \"5s\"").contains("# --set web.keep_alive=5s; reload"));
    assert!(line("backlog").contains("# default"));
    // What is shown is a configuration.
    let again = folder_with("tidegate.toml", stdout(&output));
    assert_eq!(tidegate_in(again.path(), ["check"]).status.code(), Some(0));
    let json = tidegate_in(dir.path(), ["config", "--json"]);
    let json: Vec<Json> = serde_json::from_slice(&json.stdout).unwrap();
    let workers = json.iter().find(|key| key["key"] == "process.workers").unwrap();
    assert_eq!((&workers["value"], &workers["origin"]["kind"]), (&Json::from(3), &Json::from("file")));
}

#[test]
fn the_environment_lies_between_the_file_and_the_command_line() {
    let dir = tempdir().unwrap();
    let mut command = std::process::Command::new(crate::support::TIDEGATE);
    crate::support::clean(&mut command, dir.path()).args(["config", "--set", "process.workers=4"]);
    command.env("TIDEGATE_PROCESS_WORKERS", "3").env("TIDEGATE_WEB_KEEP_ALIVE", "5s");
    let output = crate::support::output_of(&mut command);
    let text = stdout(&output);
    assert!(text.lines().any(|line| line.starts_with("workers = 4 ") && line.contains("# --set")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("keep_alive = \"5s\"") && line.contains("# TIDEGATE_WEB_KEEP_ALIVE")));
}
