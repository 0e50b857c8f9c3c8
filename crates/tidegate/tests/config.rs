//! The configuration as its users meet it: files, variables and `--set` in, values or messages out.
//!
//! Each test of a message is one `check`: the file, and the exact text that a terminal shows.

// Clippy takes the helpers for test code by this.
#![cfg(test)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tidegate::config::{
    Accept, Address, ByteSize, Config, ConfigErrors, Count, Database, Level, LoadOptions, Origin,
    ServiceName, reference,
};

/// A folder to run in, and what is given there.
struct Given {
    dir: TempDir,
    options: LoadOptions,
}

impl Given {
    fn nothing() -> Self {
        let dir = TempDir::new().unwrap();
        let options = LoadOptions { current_dir: Some(dir.path().to_owned()), ..LoadOptions::default() };
        Self { dir, options }
    }

    fn file(text: impl AsRef<[u8]>) -> Self {
        let given = Self::nothing();
        std::fs::write(given.dir.path().join("tidegate.toml"), text).unwrap();
        given
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.options.env.push((OsString::from(name), OsString::from(value)));
        self
    }

    fn set(mut self, text: &str) -> Self {
        self.options.set.push(text.to_owned());
        self
    }

    fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.options)
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|errors| panic!("refused:\n{errors}"))
    }

    /// The message, with `DIR` in place of the folder.
    #[track_caller]
    fn refused(&self, expect: &str) {
        let errors = self.load().expect_err("accepted").to_string();
        let errors = errors.replace(self.dir.path().to_str().unwrap(), "DIR");
        assert_eq!(
            errors.trim_end(),
            expect.trim(),
            "\n--- found:\n{errors}\n--- expected:\n{}",
            expect.trim()
        );
    }
}

#[track_caller]
fn check(file: &str, expect: &str) {
    Given::file(file).refused(expect);
}

#[track_caller]
fn check_set(set: &str, expect: &str) {
    Given::nothing().set(set).refused(expect);
}

#[track_caller]
fn check_env(name: &str, value: &str, expect: &str) {
    Given::nothing().env(name, value).refused(expect);
}

fn listeners(config: &Config) -> Vec<String> {
    config.listen.iter().map(|listener| format!("{}={}", listener.name, listener.address)).collect()
}

// Values

#[test]
fn built_in_default() {
    let given = Given::nothing();
    let config = given.config();
    let dir = given.dir.path();
    assert_eq!(listeners(&config), ["web=127.0.0.1:8080", "gateway=127.0.0.1:9000", "admin=127.0.0.1:8081"]);
    assert_eq!(config.data_dir, dir.join("tidegate-data"));
    assert_eq!(config.pid_file(), dir.join("tidegate-data/tidegate.pid"));
    assert_eq!(config.control_socket(), dir.join("tidegate-data/control.sock"));
    assert_eq!(config.database(), Database::Sqlite(dir.join("tidegate-data/accounts.db")));
    assert_eq!(config.log_dir(), dir.join("tidegate-data/log"));
    assert_eq!(config.log_socket(), dir.join("tidegate-data/log.sock"));
    assert_eq!((config.process.workers, config.process.accept), (Count::Auto, Accept::Reuseport));
    assert_eq!(config.process.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(
        (config.process.drain_timeout, config.process.hang_timeout),
        (None, Some(Duration::from_secs(30)))
    );
    assert_eq!(config.engine.thread_stack, ByteSize::new(1 << 20));
    assert_eq!(config.web.respond.len(), 1);
    assert_eq!((config.web.respond[0].path.as_str(), config.web.respond[0].status), ("/hello", 200));
    assert_eq!(config.web.respond[0].body, "Hello, World!");
    assert_eq!(config.gateway.heartbeat_interval, Some(Duration::from_secs(60)));
    assert_eq!(config.log.level.default_level(), Level::Info);
    assert_eq!((config.file(), config.listen[0].backlog), (None, 4096));
}

#[test]
fn default_is_the_built_in_one() {
    let loaded =
        Config::load(&LoadOptions { file: Some("/dev/null".into()), ..LoadOptions::default() }).unwrap();
    let values = |config: &Config| -> Vec<_> {
        config.effective().unwrap().into_iter().map(|key| (key.key, key.value)).collect()
    };
    assert_eq!(values(&Config::default()), values(&loaded));
}

#[test]
fn every_kind_of_value() {
    let given = Given::file(
        r#"
        data_dir = "/srv/tide"
        process = { workers = 0x2, accept = "shared", shutdown_timeout = "1500ms", max_open_files = 1_000 }
        engine.backend = "epoll"
        engine.thread_stack = 262144
        engine.idle_timeout = "0s"
        listen = [{ name = "v6", address = "[::1]:0", service = "echo" },
                  { name = "sock", address = "unix:run/./tide.sock", service = "discard", backlog = 7 }]
        [web]
        respond = []
        root = "."
        [accounts]
        database = "sqlite:a.db"
        [log]
        level = "warn, tidegate_web=debug,tidegate::x=off"
        max_file_bytes = "4KiB"
        "#,
    );
    let config = given.config();
    assert_eq!(config.data_dir, Path::new("/srv/tide"));
    assert_eq!(config.process.workers, Count::Exactly(2));
    assert_eq!(config.process.shutdown_timeout, Duration::from_millis(1500));
    assert_eq!(config.process.max_open_files, 1000);
    assert_eq!(config.engine.thread_stack.as_usize(), 262_144);
    assert_eq!(config.engine.idle_timeout, None);
    assert_eq!(config.listen[0].service, ServiceName::Echo);
    assert_eq!(config.listen[1].address, Address::Unix(given.dir.path().join("run/tide.sock")));
    assert_eq!((config.listen[0].backlog, config.listen[1].backlog), (4096, 7));
    assert!(config.web.respond.is_empty());
    assert_eq!(config.web.root.as_deref(), Some(given.dir.path()));
    assert_eq!(config.database(), Database::Sqlite(given.dir.path().join("a.db")));
    let targets: Vec<_> = config.log.level.targets().collect();
    assert_eq!(targets, [("tidegate_web", Level::Debug), ("tidegate::x", Level::Off)]);
    assert_eq!(config.log.max_file_bytes.get(), 4096);
    assert_eq!(config.file(), Some(given.dir.path().join("tidegate.toml").as_path()));
}

#[test]
fn counts_resolve_within_their_limit() {
    assert_eq!((Count::Exactly(3).resolve(256), Count::Exactly(0).resolve(256)), (3, 0));
    assert!((1..=4).contains(&Count::Auto.resolve(4)));
}

#[test]
fn two_listeners_may_ask_for_a_free_port() {
    let rows = r#"listen=[{name="a",address="127.0.0.1:0",service="web"},{name="b",address="127.0.0.1:0",service="web"}]"#;
    assert_eq!(listeners(&Given::nothing().set(rows).config()), ["a=127.0.0.1:0", "b=127.0.0.1:0"]);
}

#[test]
fn a_program_has_services_of_its_own() {
    let mut given = Given::nothing().set("listen.web.service=my-game");
    given.options.services = vec!["my-game".to_owned()];
    let service = given.config().listen[0].service.clone();
    assert_eq!(service, ServiceName::Named("my-game".parse().unwrap()));
}

// Sources

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
    assert!(lines.contains(&"accept = \"reuseport\"                     # default; restart"), "{text}");
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

// Unknown keys

#[test]
fn unknown_key() {
    check(
        "[process]\n\n  worker = 2\n",
        "
tidegate.toml:3:3: unknown key \"worker\" in [process]; did you mean \"workers\"?
3 |   worker = 2
  |   ^^^^^^",
    );
}

#[test]
fn unknown_key_like_nothing() {
    check(
        "[accounts]\ncolour = 1\n",
        "
tidegate.toml:2:1: unknown key \"colour\" in [accounts] (allowed: database, threads, queue)
2 | colour = 1
  | ^^^^^^",
    );
}

#[test]
fn unknown_section() {
    check(
        "[proces]\nworkers = 1\n",
        "
tidegate.toml:1:2: unknown key \"proces\" at the top of the file; did you mean \"process\"?
1 | [proces]
  |  ^^^^^^",
    );
}

#[test]
fn key_in_the_wrong_section() {
    check(
        "workers = 1\n",
        "
tidegate.toml:1:1: unknown key \"workers\" at the top of the file; did you mean \"process.workers\"?
1 | workers = 1
  | ^^^^^^^",
    );
}

#[test]
fn unknown_key_of_a_listener() {
    check(
        "[[listen]]\nname = \"a\"\nadress = \"127.0.0.1:1\"\naddress = \"127.0.0.1:1\"\nservice = \"web\"\n",
        "
tidegate.toml:3:1: unknown key \"adress\" in [[listen]]; did you mean \"address\"?
3 | adress = \"127.0.0.1:1\"
  | ^^^^^^",
    );
}

#[test]
fn empty_key() {
    check(
        "\"\" = { workers = 1 }\n",
        "
tidegate.toml:1:1: unknown key \"\" at the top of the file (allowed: data_dir, process, engine, listen, web, gateway, accounts, log)
1 | \"\" = { workers = 1 }
  | ^^",
    );
}

// Values that are wrong

#[test]
fn wrong_type() {
    check(
        "process.workers = true\n",
        "
tidegate.toml:1:19: process.workers: a boolean is not allowed (allowed: \"auto\" or a number from 0 to 256)
1 | process.workers = true
  |                   ^^^^",
    );
}

#[test]
fn number_out_of_range() {
    check(
        "process.workers = 257\nengine.max_connections = 99999999999999999999\n",
        "
tidegate.toml:1:19: process.workers: 257 is out of range (allowed: \"auto\" or a number from 0 to 256)
1 | process.workers = 257
  |                   ^^^
tidegate.toml:2:26: engine.max_connections: 99999999999999999999 is out of range (allowed: a number from 1 to 1000000)
2 | engine.max_connections = 99999999999999999999
  |                          ^^^^^^^^^^^^^^^^^^^^",
    );
}

#[test]
fn unknown_word() {
    check(
        "process.accept = \"reuse-port\"\n",
        "
tidegate.toml:1:18: process.accept: unknown value \"reuse-port\"; did you mean \"reuseport\"? (allowed: \"reuseport\" or \"shared\")
1 | process.accept = \"reuse-port\"
  |                  ^^^^^^^^^^^^",
    );
}

#[test]
fn word_for_a_number() {
    check_set(
        "process.workers=autp",
        "--set process.workers=autp: process.workers: unknown value \"autp\"; did you mean \"auto\"? (allowed: \"auto\" or a number from 0 to 256)",
    );
}

#[test]
fn duration_without_a_unit() {
    check(
        "process.shutdown_timeout = 30\n",
        "
tidegate.toml:1:28: process.shutdown_timeout: 30 is not a duration: no unit; did you mean \"30s\"? (allowed: a duration from \"0s\" to \"1d\")
1 | process.shutdown_timeout = 30
  |                            ^^",
    );
    check_set(
        "web.keep_alive=5",
        "--set web.keep_alive=5: web.keep_alive: \"5\" is not a duration: no unit; did you mean \"5s\"? (allowed: a duration from \"1ms\" to \"1d\")",
    );
}

#[test]
fn duration_out_of_range() {
    check_set(
        "web.keep_alive=0s",
        "--set web.keep_alive=0s: web.keep_alive: \"0s\" is out of range (allowed: a duration from \"1ms\" to \"1d\")",
    );
    check_set(
        "engine.idle_timeout=1us",
        "--set engine.idle_timeout=1us: engine.idle_timeout: \"1us\" is out of range (allowed: \"0s\", or a duration from \"1ms\" to \"30d\")",
    );
}

#[test]
fn size_of_another_unit() {
    check_set(
        "log.max_file_bytes=64MB",
        "--set log.max_file_bytes=64MB: log.max_file_bytes: \"64MB\" is not a size: unknown unit \"MB\" (allowed: a size from \"4KiB\" to \"1TiB\")",
    );
}

#[test]
fn size_out_of_range() {
    check(
        "log.client_buffer = 4095\n",
        "
tidegate.toml:1:21: log.client_buffer: 4095B is out of range (allowed: a size from \"4KiB\" to \"1GiB\")
1 | log.client_buffer = 4095
  |                     ^^^^",
    );
}

#[test]
fn level_that_is_none() {
    check_set(
        "log.level=inof",
        "--set log.level=inof: log.level: \"inof\": not a level; did you mean \"info\"? (allowed: \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\", and \"target=level\" after commas)",
    );
}

#[test]
fn empty_data_dir() {
    check_set("data_dir=", "--set data_dir=: data_dir: an empty path (allowed: a path)");
}

#[test]
fn database_of_no_kind() {
    check_set(
        "accounts.database=accounts.db",
        "--set accounts.database=accounts.db: accounts.database: \"accounts.db\": not a database (allowed: \"sqlite:PATH\", or \"\")",
    );
    check_set(
        "accounts.database=sqlite::memory:",
        "--set accounts.database=sqlite::memory:: accounts.database: \"sqlite::memory:\": each worker would have its own (allowed: \"sqlite:PATH\", or \"\")",
    );
}

#[test]
fn table_where_a_value_belongs_and_the_other_way_round() {
    check(
        "process = 1\nlisten = { name = \"a\" }\n[data_dir]\n",
        "
tidegate.toml:1:11: process: a table is expected here
1 | process = 1
  |           ^
tidegate.toml:2:10: listen: an array of tables is expected here (allowed: [[listen]] before each of its tables)
2 | listen = { name = \"a\" }
  |          ^^^^^^^^^^^^^^
tidegate.toml:3:1: data_dir: a table is not allowed (allowed: a path)
3 | [data_dir]
  | ^^^^^^^^^^",
    );
}

#[test]
fn element_that_is_no_table() {
    check(
        "listen = [1]\n",
        "
tidegate.toml:1:11: listen[0]: a table is expected here
1 | listen = [1]
  |           ^",
    );
}

// Listeners

/// A file of one listener named `a`, of which the values are given.
fn listener(address: &str, service: &str) -> String {
    format!("[[listen]]\nname = \"a\"\naddress = \"{address}\"\nservice = \"{service}\"\n")
}

#[test]
fn address_that_is_none() {
    for (address, near) in [
        ("localhost:80", "; did you mean \"127.0.0.1:80\"?"),
        (":80", "; did you mean \"0.0.0.0:80\"?"),
        ("*:80", "; did you mean \"0.0.0.0:80\"?"),
        ("8080", "; did you mean \"127.0.0.1:8080\"?"),
        ("::1:80", "; did you mean \"[::1]:80\"?"),
        ("127.0.0.1", ""),
        ("127.0.0.1:65536", ""),
        ("example.org:80", ""),
        ("", ""),
    ] {
        let carets = "^".repeat(address.len() + 2);
        check(
            &listener(address, "web"),
            &format!(
                "
tidegate.toml:3:11: listen[0].address: \"{address}\": not an address{near} (allowed: \"IP:port\", \"[IPv6]:port\" or \"unix:/path\")
3 | address = \"{address}\"
  |           {carets}"
            ),
        );
    }
}

#[test]
fn service_that_is_unknown() {
    check(
        &listener("127.0.0.1:1", "wep"),
        "
tidegate.toml:4:11: listen[0].service: unknown value \"wep\"; did you mean \"web\"? (allowed: \"web\", \"gateway\", \"admin\", \"echo\" or \"discard\")
4 | service = \"wep\"
  |           ^^^^^",
    );
}

#[test]
fn name_that_is_none() {
    check(
        "[[listen]]\nname = \"My Web\"\naddress = \"127.0.0.1:1\"\nservice = \"web\"\n",
        "
tidegate.toml:2:8: listen[0].name: \"My Web\" is not allowed (allowed: 1 to 32 of a-z, 0-9 and \"-\")
2 | name = \"My Web\"
  |        ^^^^^^^^",
    );
}

#[test]
fn listener_without_what_it_needs() {
    check(
        "\n[[listen]]\naddress = \"127.0.0.1:1\"\n",
        "
tidegate.toml:2:1: listen[0].name: missing (allowed: 1 to 32 of a-z, 0-9 and \"-\")
2 | [[listen]]
  | ^^^^^^^^^^
tidegate.toml:2:1: listen[0].service: missing (allowed: \"web\", \"gateway\", \"admin\", \"echo\" or \"discard\")
2 | [[listen]]
  | ^^^^^^^^^^",
    );
}

#[test]
fn names_and_addresses_are_unique() {
    check(
        &[listener("127.0.0.1:1", "web"), listener("127.0.0.1:1", "echo")].concat(),
        "
tidegate.toml:6:8: listen[1].name: \"a\" is already the name of listen[0] (a)
6 | name = \"a\"
  |        ^^^
tidegate.toml:7:11: listen[1].address: \"127.0.0.1:1\" is already the address of listen[0] (a)
7 | address = \"127.0.0.1:1\"
  |           ^^^^^^^^^^^^^",
    );
}

#[test]
fn addresses_are_compared_as_addresses() {
    let again = listener("[0:0:0:0:0:0:0:1]:1", "web").replace("\"a\"", "\"b\"");
    check(
        &[listener("[::1]:1", "web"), again].concat(),
        "
tidegate.toml:7:11: listen[1].address: \"[::1]:1\" is already the address of listen[0] (a)
7 | address = \"[0:0:0:0:0:0:0:1]:1\"
  |           ^^^^^^^^^^^^^^^^^^^^^",
    );
}

#[test]
fn path_too_long_for_a_socket() {
    let path = format!("unix:/{}", "x".repeat(107));
    let message = format!("\"/{}\": 108 bytes, and a Unix socket has at most 107", "x".repeat(107));
    let given = Given::nothing().set(&format!("listen.web.address={path}"));
    let errors = given.load().unwrap_err();
    assert_eq!((errors.errors().len(), errors.errors()[0].message()), (1, message.as_str()));

    let data_dir = format!("/{}", "x".repeat(100));
    let errors = Given::nothing().set(&format!("data_dir={data_dir}")).load().unwrap_err();
    assert_eq!(errors.errors().len(), 2, "{errors}");
    assert_eq!(errors.errors()[0].key(), "process.control_socket");
    assert_eq!(
        errors.errors()[1].message(),
        format!("\"{data_dir}/log.sock\": 110 bytes, and a Unix socket has at most 107")
    );
}

#[test]
fn paths_that_are_the_same() {
    check_set(
        "log.socket=tidegate-data/control.sock",
        "--set log.socket=tidegate-data/control.sock: log.socket: \"DIR/tidegate-data/control.sock\" is already the path of process.control_socket",
    );
    check_set(
        "listen.web.address=unix:tidegate-data/control.sock",
        "--set listen.web.address=unix:tidegate-data/control.sock: listen[0].address: \"DIR/tidegate-data/control.sock\" is already the path of process.control_socket",
    );
}

#[test]
fn too_many_listeners() {
    let file = listener("127.0.0.1:0", "web").repeat(65);
    let errors = Given::file(&file).load().unwrap_err();
    assert_eq!(errors.errors()[0].message(), "65 tables are too many");
    assert_eq!((errors.errors().len(), errors.errors()[0].allowed()), (1, Some("at most 64")));
}

// The web

#[test]
fn root_that_is_missing_or_no_folder() {
    check_set(
        "web.root=nowhere",
        "--set web.root=nowhere: web.root: \"DIR/nowhere\": No such file or directory (os error 2)",
    );
    check(
        "web.root = \"tidegate.toml\"\n",
        "
tidegate.toml:1:12: web.root: \"DIR/tidegate.toml\" is not a folder
1 | web.root = \"tidegate.toml\"
  |            ^^^^^^^^^^^^^^^",
    );
}

#[test]
fn data_dir_that_is_a_file() {
    Given::file("")
        .set("data_dir=tidegate.toml")
        .refused("--set data_dir=tidegate.toml: data_dir: \"DIR/tidegate.toml\" is not a folder");
}

#[test]
fn answers_that_cannot_be() {
    check(
        "[[web.respond]]\npath = \"hello\"\nstatus = 600\n[[web.respond]]\npath = \"/a\"\nstatus = 204\nbody = \"x\"\n[[web.respond]]\npath = \"/a\"\ncontent_type = \"a\\r\\nb\"\n",
        "
tidegate.toml:2:8: web.respond[0].path: \"hello\" is not allowed (allowed: a path that begins with \"/\", of at most 1024 bytes, without \"?\", \"#\" and control characters)
2 | path = \"hello\"
  |        ^^^^^^^
tidegate.toml:3:10: web.respond[0].status: 600 is out of range (allowed: a number from 200 to 599)
3 | status = 600
  |          ^^^
tidegate.toml:7:8: web.respond[1].body: an answer of status 204 has no body
7 | body = \"x\"
  |        ^^^
tidegate.toml:9:8: web.respond[2].path: \"/a\" is already the path of web.respond[1]
9 | path = \"/a\"
  |        ^^^^
tidegate.toml:10:16: web.respond[2].content_type: \"a\\r\\nb\" is not allowed (allowed: 1 to 256 visible ASCII characters and spaces)
10 | content_type = \"a\\r\\nb\"
   |                ^^^^^^^^",
    );
}

#[test]
fn body_too_large() {
    let errors = Given::nothing()
        .set(&format!("web.respond=[{{path=\"/\",body=\"{}\"}}]", "x".repeat(65537)))
        .load()
        .unwrap_err();
    assert_eq!(errors.errors()[0].message(), "65537 bytes are too many");
    assert!(errors.to_string().len() < 400, "{errors}");
}

// The log

#[test]
fn less_room_than_for_one_file() {
    check(
        "[log]\nmax_total_bytes = \"1MiB\"\n",
        "
tidegate.toml:2:19: log.max_total_bytes: \"1MiB\" is less than log.max_file_bytes, which is \"64MiB\"
2 | max_total_bytes = \"1MiB\"
  |                   ^^^^^^",
    );
}

#[test]
fn one_mistake_is_one_error() {
    check(
        "[log]\nmax_total_bytes = \"1MiB\"\nmax_file_bytes = \"64kb\"\n",
        "
tidegate.toml:3:18: log.max_file_bytes: \"64kb\" is not a size: unknown unit \"kb\" (allowed: a size from \"4KiB\" to \"1TiB\")
3 | max_file_bytes = \"64kb\"
  |                  ^^^^^^",
    );
}

// Not yet

#[test]
fn later_features_are_refused() {
    for (set, key, message, allowed) in [
        ("process.daemon=true", "process.daemon", "true is not yet supported", "false"),
        (
            "process.accept=handoff",
            "process.accept",
            "\"handoff\" is not yet supported",
            "\"reuseport\" or \"shared\"",
        ),
        ("process.user=nobody", "process.user", "\"nobody\" is not yet supported", "\"\""),
        ("process.shutdown_delay=1s", "process.shutdown_delay", "\"1s\" is not yet supported", "\"0s\""),
        ("process.drain_timeout=60s", "process.drain_timeout", "\"1m\" is not yet supported", "\"0s\""),
        ("process.max_generations=9", "process.max_generations", "9 is not yet supported", "8"),
        ("process.hang_timeout=0s", "process.hang_timeout", "\"0s\" is not yet supported", "\"30s\""),
        ("engine.backend=uring", "engine.backend", "\"uring\" is not yet supported", "\"auto\" or \"epoll\""),
        (
            "engine.dispatch=leader-follower",
            "engine.dispatch",
            "\"leader-follower\" is not yet supported",
            "\"inline\"",
        ),
        ("engine.acceptor=main", "engine.acceptor", "\"main\" is not yet supported", "\"each\""),
        ("engine.balance=hash", "engine.balance", "\"hash\" is not yet supported", "\"round-robin\""),
        ("engine.pool_threads=2", "engine.pool_threads", "2 is not yet supported", "\"auto\""),
        ("engine.cpu_affinity=[[0]]", "engine.cpu_affinity", "[[0]] is not yet supported", "[]"),
        ("engine.nice=-1", "engine.nice", "-1 is not yet supported", "0"),
        (
            "listen.web.service=syslog",
            "listen.web.service",
            "\"syslog\" is not yet supported",
            "\"web\", \"gateway\", \"admin\", \"echo\" or \"discard\"",
        ),
        ("listen.web.proxy_protocol=true", "listen.web.proxy_protocol", "true is not yet supported", "false"),
        (
            "accounts.database=postgres://db/x",
            "accounts.database",
            "a postgres:// database is not yet supported",
            "\"sqlite:PATH\", or \"\"",
        ),
    ] {
        check_set(set, &format!("--set {set}: {key}: {message} (allowed: {allowed})"));
    }
    check_set(
        "listen.web.tls={cert=\"a\"}",
        "--set listen.web.tls={cert=\"a\"}: listen.web.tls: not yet supported",
    );
}

#[test]
fn the_values_that_are_served_can_be_written_out() {
    let config = Given::file(
        "process = { daemon = false, user = \"\", hang_timeout = \"30000ms\", drain_timeout = \"0ms\" }\n\
         engine = { backend = \"auto\", loops = 1, cpu_affinity = [], nice = 0 }\n",
    );
    assert_eq!(config.config().process.user, None);
}

// Files

#[test]
fn not_toml() {
    check(
        "[process\nworkers = 1\n\n[log]\nlevels = 1\n",
        "
tidegate.toml:1:9: not TOML: unclosed table, expected `]`
1 | [process
  |         ^
tidegate.toml:5:1: unknown key \"levels\" in [log]; did you mean \"level\"?
5 | levels = 1
  | ^^^^^^",
    );
}

#[test]
fn strings_without_quotes() {
    for (value, expect) in [
        ("30s", "not TOML: a string needs quotes; did you mean \"30s\"?"),
        ("/srv/x # here", "not TOML: a string needs quotes; did you mean \"/srv/x\"?"),
        ("", "not TOML: no value for a"),
        ("0x_1", "not TOML: `_` may only go between digits, expected nothing"),
        ("[1, 2", "not TOML: unclosed array, expected `]`"),
    ] {
        let errors = Given::file(format!("a = {value}\n")).load().unwrap_err();
        let text = errors.to_string();
        let line = text.lines().next().unwrap();
        assert_eq!(line.split_once(": ").unwrap().1, expect, "{value}");
    }
}

#[test]
fn errors_of_syntax_and_of_values_are_shown_together() {
    check(
        "[process]\nworkers =\nacept = \"shared\"\n[log]\nlevel = info\ndir = 1\ndir = 2\n",
        "
tidegate.toml:2:10: not TOML: no value for workers
2 | workers =
  |          ^
tidegate.toml:3:1: unknown key \"acept\" in [process]; did you mean \"accept\"?
3 | acept = \"shared\"
  | ^^^^^
tidegate.toml:5:9: not TOML: a string needs quotes; did you mean \"info\"?
5 | level = info
  |         ^^^^
tidegate.toml:6:7: log.dir: an integer is not allowed (allowed: a path, or \"\")
6 | dir = 1
  |       ^
tidegate.toml:7:1: not TOML: duplicate key
7 | dir = 2
  | ^^^",
    );
}

#[test]
fn file_that_is_missing() {
    let mut given = Given::nothing();
    given.options.file = Some("none.toml".into());
    given.refused("none.toml: cannot be opened: No such file or directory (os error 2)");
}

#[test]
fn file_that_is_a_folder() {
    let mut given = Given::nothing();
    given.options.file = Some(".".into());
    given.refused(".: cannot be read: Is a directory (os error 21)");
}

#[test]
fn file_that_is_not_text() {
    Given::file(b"a = 1\nb = \"\xff\"\n").refused(
        "
tidegate.toml:2:6: not UTF-8
2 | b = \"\u{fffd}\"
  |      ^",
    );
}

#[test]
fn file_that_is_too_large() {
    Given::file(" ".repeat((1 << 20) + 1)).refused("tidegate.toml: more than 1048576 bytes");
}

#[test]
fn errors_beyond_the_limit_are_counted() {
    let file: String = (0..600).map(|idx| format!("zz{idx} = 1\n")).collect();
    let errors = Given::file(file).load().unwrap_err();
    assert_eq!(errors.errors().len(), 500);
    assert!(errors.to_string().ends_with("\nand 100 more errors"), "{errors}");
}

#[test]
fn folder_and_file_that_are_not_text() {
    use std::os::unix::ffi::OsStringExt as _;
    let mut given = Given::nothing();
    given.options.file = Some(OsString::from_vec(b"\xff.toml".to_vec()).into());
    given.refused("\u{fffd}.toml: the path is not UTF-8");
    given.options.current_dir = Some(OsString::from_vec(b"/\xff".to_vec()).into());
    given.refused("default: the path of the current folder is not UTF-8");
}

// Variables and --set

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
        "--set x.y=2: no section is named \"x\" (allowed: process, engine, listen, web, web.respond, gateway, accounts, log)",
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

// All at once, for people and for programs

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
    let given = Given::file("[process]\nworker = 2\n").set("engine.pool_threads=2");
    let expect = serde_json::json!([
        {
            "source": "tidegate.toml:2:1", "file": "tidegate.toml", "line": 2, "column": 1, "key": "process.worker",
            "message": "unknown key \"worker\" in [process]", "nearest": "\"workers\"", "allowed": null,
        },
        {
            "source": "--set engine.pool_threads=2", "file": null, "line": null, "column": null,
            "key": "engine.pool_threads",
            "message": "2 is not yet supported", "nearest": null, "allowed": "\"auto\"",
        },
    ]);
    let errors = given.load().unwrap_err();
    assert_eq!(errors.to_json(), expect);
    assert_eq!(
        *errors.errors()[0].origin(),
        Origin::File { path: "tidegate.toml".to_owned(), line: 2, column: 1 }
    );
}

// The documentation

fn documentation() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md")
}

#[test]
fn the_documentation_has_the_table_of_keys() {
    let text = std::fs::read_to_string(documentation()).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the mark where the table begins");
    let (table, tail) = rest.split_once(END).expect("the mark where the table ends");
    let expect = format!("\n\n{}\n\n", reference().trim_end());
    if table != expect && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(documentation(), [head, BEGIN, &expect, END, tail].concat()).unwrap();
        return;
    }
    assert!(table == expect, "docs/configuration.md is out of date: run this test with UPDATE_DOCS=1");
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    let text = std::fs::read_to_string(documentation()).unwrap();
    let block = |begin: &str| {
        let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no {begin:?}"));
        rest.split_once("```").expect("the end of the block").0.to_owned()
    };
    // The folder of the example need not be there.
    let config = Given::file(block("```toml\n")).set("web.root=").config();
    assert_eq!(listeners(&config), ["web=0.0.0.0:80", "admin=127.0.0.1:8081"]);

    let expect = format!("tidegate.toml:{}", block("```\ntidegate.toml:"));
    Given::file(
        "# A file with mistakes.\n[process]\nworker = 2\nshutdown_timeout = 30\naccept = \"handoff\"\n\n[log]\nlevel = info\n",
    )
    .env("TIDEGATE_ENGINE_BACKENDS", "epoll")
    .set("listen.wbe.address=0.0.0.0:80")
    .refused(&expect);
}

const BEGIN: &str =
    "<!-- The table of keys: written by the test `the_documentation_has_the_table_of_keys`. -->";
const END: &str = "<!-- The end of the table of keys. -->";

// Input never panics

fn any_toml() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        "[a-z_]{0,8}",
        Just("process".to_owned()),
        Just("workers".to_owned()),
        Just("listen".to_owned()),
        Just("web".to_owned()),
        Just("respond".to_owned()),
        Just("address".to_owned()),
        Just("log.level".to_owned()),
    ];
    let value = prop_oneof![
        "[0-9]{1,25}",
        "\"[^\"\\\\]{0,20}\"",
        "\"[0-9]{1,25}(ns|ms|s|d|B|KiB|TiB|w)?\"",
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("[[1, -1]]".to_owned()),
        Just("{ a = 1 }".to_owned()),
        Just("[{ name = \"a\", address = \"unix:x\" }]".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("1.5".to_owned()),
        ".{0,8}",
    ];
    let line = prop_oneof![
        (key.clone(), value).prop_map(|(key, value)| format!("{key} = {value}\n")),
        key.clone().prop_map(|key| format!("[{key}]\n")),
        (key.clone(), key).prop_map(|(section, key)| format!("[[{section}.{key}]]\n")),
        Just("[[listen]]\n".to_owned()),
    ];
    prop::collection::vec(line, 0..12).prop_map(|lines| lines.concat())
}

/// Loads, and uses what comes out: neither may panic.
fn survives(given: &Given) -> Result<(), TestCaseError> {
    match given.load() {
        Ok(config) => {
            prop_assert_eq!(&Config::from_json(&config.to_json().unwrap()).unwrap(), &config);
            prop_assert!(config.to_toml().is_ok());
        }
        Err(errors) => {
            prop_assert!(!errors.errors().is_empty());
            prop_assert!(!errors.to_string().is_empty() && errors.to_json().is_array());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survives(&Given::file(bytes))?;
    }

    #[test]
    fn any_text_is_survived(text in any_toml()) {
        survives(&Given::file(text))?;
    }

    #[test]
    fn any_setting_is_survived(key in "[a-z._]{0,12}|listen.web.[a-z]{4,8}|log.level|process.workers", value in ".{0,20}") {
        survives(&Given::nothing().set(&format!("{key}={value}")).env("TIDEGATE_LISTEN", &value.replace('\0', "")))?;
    }

    #[test]
    fn any_number_is_read_or_refused(number in any::<i64>()) {
        let loaded = Given::nothing().set(&format!("process.workers={number}")).load();
        prop_assert_eq!(loaded.is_ok(), (0..=256).contains(&number));
    }
}
