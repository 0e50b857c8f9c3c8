//! `docs/configuration.md` says what the schema says.

use super::*;

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
        "# A file with mistakes.\n[process]\nworker = 2\nshutdown_timeout = 30\naccept = \"hand-off\"\n\n[log]\nlevel = info\n",
    )
    .env("TIDEGATE_ENGINE_BACKENDS", "epoll")
    .set("listen.wbe.address=0.0.0.0:80")
    .refused(&expect);
}

const BEGIN: &str =
    "<!-- The table of keys: written by the test `the_documentation_has_the_table_of_keys`. -->";
const END: &str = "<!-- The end of the table of keys. -->";
