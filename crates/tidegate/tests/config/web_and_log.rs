//! Rules of the web and of the log.

use super::*;

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
