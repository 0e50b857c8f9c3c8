//! The table: where it is shown what each key does.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tidegate::config::key_paths;

use super::{Case, files, limits, listen, requests, rest, sites};

/// The cases of this folder.
const CASES: &[&[Case]] = &[
    files::CASES,
    limits::SIZES,
    limits::TIMES,
    limits::PEERS,
    requests::CASES,
    requests::SAMPLE,
    sites::CASES,
    listen::CASES,
    listen::TLS,
    rest::CASES,
    rest::CONNECTIONS,
    rest::BACKEND,
];

/// Keys whose effect another test sees in the real program: which, and what it sees.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("data_dir", "start::the_data_folder_has_a_pid_file_while_it_runs", "where the files are"),
    ("process.workers", "reload::workers_become_more_and_fewer", "how many processes there are"),
    ("process.accept", "reload::the_way_of_accepting_may_change", "who accepts"),
    ("process.daemon", "daemon::run_leaves_the_terminal_when_the_file_says_so", "whether `run` comes back"),
    (
        "process.pid_file",
        "keys/rest::what_is_said_for_the_start_is_so_and_a_reload_does_not_change_it",
        "the file",
    ),
    (
        "process.control_socket",
        "keys/rest::what_is_said_for_the_start_is_so_and_a_reload_does_not_change_it",
        "the socket that answers",
    ),
    ("process.user", "user::children_are_somebody_else_and_the_master_is_not", "whose the processes are"),
    (
        "process.shutdown_timeout",
        "stop::what_outlasts_the_shutdown_timeout_is_closed_with_its_reason",
        "when what is open is closed",
    ),
    (
        "process.shutdown_delay",
        "keys/rest::the_delay_of_a_stop_is_for_balancers_to_see_it",
        "503 before the end",
    ),
    (
        "process.drain_timeout",
        "reload::what_outlasts_the_drain_timeout_is_closed_with_its_reason",
        "when an old connection is closed",
    ),
    (
        "process.max_generations",
        "reload::a_reload_beyond_the_limit_of_generations_waits_and_a_storm_is_one_reload",
        "that a reload waits",
    ),
    ("process.hang_timeout", "keys/rest::a_worker_that_hangs_is_replaced_after_its_time", "another process"),
    (
        "process.max_open_files",
        "keys/rest::what_is_said_for_the_start_is_so_and_a_reload_does_not_change_it",
        "the limit that the kernel tells",
    ),
    (
        "engine.balance",
        "acceptor::the_loop_with_the_fewest_connections_gets_the_next",
        "which loop has how many connections",
    ),
    (
        "engine.thread_stack",
        "threads::loops_keep_to_their_processors_and_are_as_nice_as_told",
        "the stack of a thread",
    ),
    (
        "engine.cpu_affinity",
        "threads::loops_keep_to_their_processors_and_are_as_nice_as_told",
        "the processors of a thread",
    ),
    (
        "engine.nice",
        "threads::loops_keep_to_their_processors_and_are_as_nice_as_told",
        "the niceness of a thread",
    ),
    ("web.api", "api::without_it_there_is_no_api", "whether there is anything under /api"),
    (
        "log.dir",
        "keys/rest::what_is_said_for_the_start_is_so_and_a_reload_does_not_change_it",
        "where the files are",
    ),
    (
        "log.socket",
        "keys/rest::what_is_said_for_the_start_is_so_and_a_reload_does_not_change_it",
        "the socket that the log server has",
    ),
    (
        "log.max_file_bytes",
        "keys/rest::what_is_said_for_the_start_is_so_and_a_reload_does_not_change_it",
        "how large the files are",
    ),
    (
        "log.max_total_bytes",
        "keys/rest::what_is_said_for_the_start_is_so_and_a_reload_does_not_change_it",
        "how large all files are",
    ),
];

/// Keys that nobody can see from outside.
const UNSEEN: &[(&str, &str)] = &[
    (
        "engine.timers",
        "it changes nothing but speed; serve::every_model_serves_the_same_and_stops runs each of its values",
    ),
    (
        "engine.stall_after",
        "no service of the program has a handler that stalls; the engine's tests, which have one, see the report",
    ),
];

#[test]
fn every_key_is_shown_once_or_has_a_reason_not_to_be() {
    let of_cases = CASES.iter().flat_map(|cases| cases.iter()).map(|case| case.key);
    let of_others = ELSEWHERE.iter().map(|(key, ..)| *key).chain(UNSEEN.iter().map(|(key, _)| *key));
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    of_cases.chain(of_others).for_each(|key| *times.entry(key).or_default() += 1);
    let known: Vec<String> = key_paths().map(|(path, _)| path).collect();
    let missing: Vec<&String> = known.iter().filter(|path| !times.contains_key(path.as_str())).collect();
    assert!(
        missing.is_empty(),
        "no test shows what these do; add a case, or a reason why there is none: {missing:?}"
    );
    let unknown: Vec<&&str> = times.keys().filter(|key| !known.iter().any(|path| path == *key)).collect();
    assert!(unknown.is_empty(), "these are no keys: {unknown:?}");
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "these are in the table more than once: {twice:?}");
}

#[test]
fn the_tests_that_the_table_names_are_there_and_are_about_the_key() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for (key, test, seen) in ELSEWHERE {
        let (file, function) = test.split_once("::").unwrap();
        let text = fs::read_to_string(folder.join(format!("{file}.rs"))).unwrap();
        assert!(text.contains(&format!("#[test]\nfn {function}() {{")), "{key}: there is no {test}");
        let name = key.rsplit('.').next().unwrap();
        assert!(text.contains(name) && !seen.is_empty(), "{key}: {file}.rs does not name it");
    }
}

/// What "restart" in the manual says is tried with each such key.
#[test]
fn every_key_that_needs_a_restart_is_refused_by_a_reload() {
    let mut of_schema: Vec<String> =
        key_paths().filter(|(_, reload)| !reload).map(|(path, _)| path).collect();
    let mut tried = rest::AT_START.to_vec();
    of_schema.sort_unstable();
    tried.sort_unstable();
    assert_eq!(of_schema, tried);
}
