//! All errors at once, for people and for programs.

use super::*;

#[test]
fn all_errors_of_all_sources_in_order() {
    Given::file("[log]\nlevel = 1\n[process]\nworker = 2\n")
        .set("engine.loops=0")
        .env("TIDEGATE_GATEWAY_ON_UNKNOWN", "dorp")
        .refused(
            "
tidegate.toml:2:9: log.level: an integer is not allowed (allowed: \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\", and \"target=level\" after commas)
2 | level = 1
  |         ^
tidegate.toml:4:1: unknown key \"worker\" in [process]; did you mean \"workers\"?
4 | worker = 2
  | ^^^^^^
TIDEGATE_GATEWAY_ON_UNKNOWN: gateway.on_unknown: unknown value \"dorp\"; did you mean \"drop\"? (allowed: \"drop\" or \"close\")
--set engine.loops=0: engine.loops: 0 is out of range (allowed: a number from 1 to 256)",
        );
}

#[test]
fn errors_for_programs() {
    let given = Given::file("[process]\nworker = 2\n").set("listen.web.proxy_protocol=maybe");
    let expect = serde_json::json!([
        {
            "source": "tidegate.toml:2:1", "file": "tidegate.toml", "line": 2, "column": 1, "key": "process.worker",
            "message": "unknown key \"worker\" in [process]", "nearest": "\"workers\"", "allowed": null,
        },
        {
            "source": "--set listen.web.proxy_protocol=maybe", "file": null, "line": null, "column": null,
            "key": "listen.web.proxy_protocol",
            "message": "a string is not allowed", "nearest": null, "allowed": "true or false",
        },
    ]);
    let errors = given.load().unwrap_err();
    assert_eq!(errors.to_json(), expect);
    assert_eq!(
        *errors.errors()[0].origin(),
        Origin::File { path: "tidegate.toml".to_owned(), line: 2, column: 1 }
    );
}
