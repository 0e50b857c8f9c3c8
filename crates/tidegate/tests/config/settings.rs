//! Variables of the environment and `--set`.

use super::*;

#[test]
fn unknown_variables() {
    check_env(
        "TIDEGATE_PROCESS_WORKER",
        "1",
        "TIDEGATE_PROCESS_WORKER: unknown variable; did you mean TIDEGATE_PROCESS_WORKERS?",
    );
    check_env(
        "TIDEGATE_LISTEN_WEB_ADRESS",
        "x",
        "TIDEGATE_LISTEN_WEB_ADRESS: unknown variable; did you mean TIDEGATE_LISTEN_WEB_ADDRESS?",
    );
    check_env("TIDEGATE_", "x", "TIDEGATE_: unknown variable");
}

#[test]
fn variable_with_a_wrong_value() {
    check_env(
        "TIDEGATE_PROCESS_WORKERS",
        "many",
        "TIDEGATE_PROCESS_WORKERS: process.workers: unknown value \"many\" (allowed: \"auto\" or a number from 0 to 256)",
    );
}

#[test]
fn variable_that_is_not_text() {
    use std::os::unix::ffi::OsStringExt as _;
    let mut given = Given::nothing();
    given.options.env.push(("TIDEGATE_DATA_DIR".into(), OsString::from_vec(vec![0xff])));
    given.options.env.push((OsString::from_vec(b"TIDEGATE_\xff".to_vec()), "x".into()));
    given.refused("TIDEGATE_DATA_DIR: not UTF-8\nTIDEGATE_\u{fffd}: not UTF-8");
}

#[test]
fn set_of_nothing() {
    check_set("process.workers", "--set process.workers: no value (allowed: --set KEY=VALUE)");
}

#[test]
fn set_of_unknown_keys() {
    check_set(
        "process.worker=2",
        "--set process.worker=2: unknown key \"worker\" in [process]; did you mean \"workers\"?",
    );
    check_set(
        "proces.workers=2",
        "--set proces.workers=2: no section is named \"proces\"; did you mean \"process.workers\"?",
    );
    check_set(
        "x.y=2",
        "--set x.y=2: no section is named \"x\" (allowed: process, engine, listen, web, web.respond, web.site, gateway, accounts, log)",
    );
    check_set(
        "workers=2",
        "--set workers=2: unknown key \"workers\" at the top of the file; did you mean \"process.workers\"?",
    );
}

#[test]
fn set_of_listeners() {
    check_set(
        "listen.wbe.address=127.0.0.1:1",
        "--set listen.wbe.address=127.0.0.1:1: no listener is named \"wbe\"; did you mean \"web\"?",
    );
    check_set(
        "listen.web.adress=127.0.0.1:1",
        "--set listen.web.adress=127.0.0.1:1: unknown key \"adress\" in [[listen]]; did you mean \"address\"?",
    );
    check_set(
        "listen.address=127.0.0.1:1",
        "--set listen.address=127.0.0.1:1: listen is an array of tables (allowed: listen.NAME.KEY=VALUE, or listen=[…])",
    );
    check_set(
        "web.respond.path=/",
        "--set web.respond.path=/: web.respond is an array of tables (allowed: web.respond=[…])",
    );
}

#[test]
fn set_of_broken_toml() {
    check_set("listen=[1", "--set listen=[1: listen: not TOML: unclosed array, expected `]`");
    check_set("data_dir=\"a", "--set data_dir=\"a: data_dir: not TOML: invalid basic string, expected `\"`");
}
