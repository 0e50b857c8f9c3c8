//! Values that are wrong, each with what is allowed.

use super::*;

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
tidegate.toml:1:18: process.accept: unknown value \"reuse-port\"; did you mean \"reuseport\"? (allowed: \"reuseport\", \"shared\" or \"handoff\")
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
