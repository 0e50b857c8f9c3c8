//! How values are read: numbers, words, durations, sizes, addresses.

use super::*;

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
