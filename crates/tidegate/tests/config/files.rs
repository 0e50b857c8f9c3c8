//! The file: syntax, places, what it is not.

use super::*;

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
