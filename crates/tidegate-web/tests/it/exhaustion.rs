//! A process without descriptors: known files are served, others are a 503, and nobody is harmed.
//!
//! The limit is the process's, so the test runs in a process of its own: the test binary, started again with this test
//! alone.

use std::os::fd::AsRawFd;
use std::process::Command;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_web::Web;

use crate::client::{Server, get};
use crate::files::{root, site};

const CHILD: &str = "TIDEGATE_TEST_EXHAUSTION";

#[test]
fn without_descriptors_known_files_are_served_and_others_are_503() {
    if std::env::var_os(CHILD).is_some() {
        return in_child();
    }
    let name = "exhaustion::without_descriptors_known_files_are_served_and_others_are_503";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

fn in_child() {
    let dir = site();
    let server = Server::start(Web::builder().root(root(&dir)));
    let mut client = server.connect();
    assert_eq!(client.ask(get("/")).status, 200);
    let before = getrlimit(Resource::Nofile);

    // A small file holds no descriptor, so there is none to give back.
    leave_no_descriptor(before);
    for _ in 0..3 {
        let answer = client.ask(get("/over.bin"));
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
    }
    setrlimit(Resource::Nofile, before).unwrap();
    assert_eq!(client.ask(get("/over.bin")).status, 200);

    // A large file is kept open, and given up for one that is asked for.
    leave_no_descriptor(before);
    assert_eq!(client.ask(get("/large.bin")).body.len(), 5 << 20);
    assert_eq!(client.ask(get("/dir/style.css")).text(), "a{}");
    setrlimit(Resource::Nofile, before).unwrap();
}

/// Lowers the limit to the first number that is free, so that all below it are taken.
fn leave_no_descriptor(before: Rlimit) {
    let free = std::fs::File::open("/dev/null").unwrap().as_raw_fd();
    let current = Some(u64::try_from(free).unwrap());
    setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
}
