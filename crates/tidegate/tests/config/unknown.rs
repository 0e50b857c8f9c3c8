//! Keys that nobody knows, and the nearest that is known.

use super::*;

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
