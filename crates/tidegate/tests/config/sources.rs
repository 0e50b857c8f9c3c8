//! Where values come from, and which of them wins.

use super::*;

#[test]
fn later_sources_win() {
    let text = "process.workers = 1\n";
    let workers = |given: &Given| given.config().process.workers;
    assert_eq!(workers(&Given::nothing()), Count::Auto);
    assert_eq!(workers(&Given::file(text)), Count::Exactly(1));
    assert_eq!(workers(&Given::file(text).env("TIDEGATE_PROCESS_WORKERS", "2")), Count::Exactly(2));
    let all = Given::file(text)
        .env("TIDEGATE_PROCESS_WORKERS", "2")
        .set("process.workers=3")
        .set("process.workers = 4");
    assert_eq!(workers(&all), Count::Exactly(4));
    assert_eq!(workers(&Given::file(text).set("process.workers=auto")), Count::Auto);
}

#[test]
fn a_given_file_replaces_the_one_in_the_folder() {
    let mut given = Given::file("process.workers = 1\n");
    let other = given.dir.path().join("other.toml");
    std::fs::write(&other, "process.workers = 2\n").unwrap();
    given.options.file = Some("other.toml".into());
    let config = given.config();
    assert_eq!((config.process.workers, config.file()), (Count::Exactly(2), Some(other.as_path())));
}

#[test]
fn listeners_of_a_file_replace_those_built_in() {
    let given = Given::file("[[listen]]\nname = \"e\"\naddress = \"127.0.0.1:7\"\nservice = \"echo\"\n");
    assert_eq!(listeners(&given.config()), ["e=127.0.0.1:7"]);
    assert_eq!(given.config().web.respond.len(), 1);
    assert!(Given::file("listen = []\n").config().listen.is_empty());
}

#[test]
fn variables_and_set_reach_everything() {
    let given = Given::nothing()
        .env("TIDEGATE_DATA_DIR", "2024")
        .env("TIDEGATE_LISTEN_WEB_ADDRESS", "0.0.0.0:80")
        .env("TIDEGATE_WEB_RESPOND", r#"[{path="/a"},{path="/b", status=204}]"#)
        .env("TIDEGATE_LOG_LEVEL", "\"debug\"")
        .env("TIDEGATE_ROLE", "worker")
        .env("TIDEGATE_CHILD_SLOT", "3")
        .env("PATH", "/bin")
        .set("listen.admin.address=[::1]:81")
        .set("gateway={max_queued_frames = 5, on_unknown = \"close\"}")
        .set("log.max_total_bytes=2147483648");
    let config = given.config();
    assert_eq!(config.data_dir, given.dir.path().join("2024"));
    assert_eq!(listeners(&config), ["web=0.0.0.0:80", "gateway=127.0.0.1:9000", "admin=[::1]:81"]);
    assert_eq!((config.web.respond.len(), config.web.respond[1].status), (2, 204));
    assert_eq!(config.log.level.default_level(), Level::Debug);
    assert_eq!(config.gateway.max_queued_frames, 5);
    assert_eq!(config.log.max_total_bytes.to_string(), "2GiB");
}

#[test]
fn a_listener_of_a_variable_can_be_changed_by_name() {
    let given = Given::nothing()
        .env("TIDEGATE_LISTEN", r#"[{name="my-echo",address="127.0.0.1:1",service="echo"}]"#)
        .env("TIDEGATE_LISTEN_MY_ECHO_BACKLOG", "9");
    let config = given.config();
    assert_eq!((listeners(&config), config.listen[0].backlog), (vec!["my-echo=127.0.0.1:1".to_owned()], 9));
}

#[test]
fn every_value_knows_its_origin() {
    let given = Given::file("[process]\nworkers = 1\nmax_open_files = 99\n[[web.respond]]\npath = \"/x\"\n")
        .env("TIDEGATE_LISTEN_WEB_ADDRESS", "127.0.0.1:1")
        .set("process.max_open_files=100");
    let effective = given.config().effective().unwrap();
    let origin = |key: &str| {
        let found =
            effective.iter().find(|effective| effective.key == key).unwrap_or_else(|| panic!("no {key}"));
        (found.literal(), found.origin.to_string(), found.reload)
    };
    let expect = |value: &str, origin: &str, reload| (value.to_owned(), origin.to_owned(), reload);
    assert_eq!(origin("process.workers"), expect("1", "tidegate.toml:2:11", true));
    assert_eq!(origin("process.max_open_files"), expect("100", "--set process.max_open_files=100", false));
    assert_eq!(origin("listen.web.address"), expect("\"127.0.0.1:1\"", "TIDEGATE_LISTEN_WEB_ADDRESS", true));
    assert_eq!(origin("listen.web.service"), expect("\"web\"", "default", true));
    assert_eq!(origin("web.respond[0].path"), expect("\"/x\"", "tidegate.toml:5:8", true));
    assert_eq!(origin("web.respond[0].status"), expect("200", "default", true));
    assert!(origin("process.pid_file").0.ends_with("/tidegate-data/tidegate.pid\""));
}

#[test]
fn empty_paths_are_shown_as_what_they_stand_for() {
    let config = Given::nothing().set("data_dir=/d").config();
    let effective = config.effective().unwrap();
    for (key, expect) in [
        ("process.pid_file", config.pid_file().display().to_string()),
        ("process.control_socket", config.control_socket().display().to_string()),
        ("accounts.database", config.database().to_string()),
        ("log.dir", config.log_dir().display().to_string()),
        ("log.socket", config.log_socket().display().to_string()),
    ] {
        let found = effective.iter().find(|effective| effective.key == key).unwrap();
        assert_eq!(found.value, expect, "{key}");
    }
}

#[test]
fn effective_values_for_programs() {
    let effective = Given::file("process.workers = 1\n").config().effective().unwrap();
    let workers = effective.iter().find(|key| key.key == "process.workers").unwrap();
    let expect = serde_json::json!({
        "key": "process.workers",
        "value": 1,
        "origin": { "kind": "file", "path": "tidegate.toml", "line": 1, "column": 19 },
        "reload": true,
        "doc": "Worker processes. `\"auto\"`: one per processor; 0: everything in one process.",
    });
    assert_eq!(serde_json::to_value(workers).unwrap(), expect);
}

#[test]
fn what_is_printed_can_be_loaded() {
    let given = Given::file(
        "listen = []\n[web]\nrespond = []\nroot = \"/\"\n[accounts]\ndatabase = \"sqlite:a \\\"b\\\".db\"\n",
    );
    for config in [Given::nothing().config(), given.config()] {
        let again = Given::file(config.to_toml().unwrap()).config();
        let values = |config: &Config| -> Vec<_> {
            config.effective().unwrap().into_iter().map(|key| (key.key, key.value)).collect()
        };
        assert_eq!(values(&again), values(&config));
    }
}

#[test]
fn what_is_printed_says_where_from() {
    let text = Given::file("process.workers = 1\n").config().to_toml().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.contains(&"workers = 1                              # tidegate.toml:1:19; reload"),
        "{text}"
    );
    assert!(lines.contains(&"accept = \"reuseport\"                     # default; reload"), "{text}");
    assert_eq!(lines.iter().filter(|line| **line == "[[listen]]").count(), 3);
}

#[test]
fn a_child_gets_the_same_configuration() {
    let given =
        Given::file("process.workers = 1\n[log]\nlevel = \"a=debug\"\n").set("accounts.database=sqlite:x.db");
    for config in [given.config(), Given::nothing().config(), Config::default()] {
        assert_eq!(Config::from_json(&config.to_json().unwrap()).unwrap(), config);
    }
    assert!(Config::from_json(b"{}").is_err());
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf8_is_not_handed_over_changed() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut config = Config::default();
    config.listen[0].address = Address::Unix(Path::new(std::ffi::OsStr::from_bytes(b"/\xff")).to_owned());
    assert!(config.to_json().is_err() && config.effective().is_err() && config.to_toml().is_err());
}
