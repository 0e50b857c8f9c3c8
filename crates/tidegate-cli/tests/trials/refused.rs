//! A reload that is refused: the old generation serves on as if nothing had happened, and the command says why.

use std::net::TcpListener;

use tidegate::control_socket;

use crate::http::get;
use crate::load::{Load, Mix};
use crate::site::{Shape, Site};
use crate::support::{BOUND, stderr};
use crate::{alone, say};

/// The number of the first line that has this in it.
fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.contains(part)).unwrap() + 1
}

#[test]
fn the_old_generation_serves_on() {
    let _alone = alone();
    let shape = Shape::new(2, "reuseport");
    let site = Site::new(&shape);
    let server = site.start();
    let before = server.status();
    let load = Load::start(&site.targets(&server), Mix { slow: 0, ..Mix::all() });
    load.wait_warm();

    let good = shape.text();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).unwrap();
    let cases = [
        ("not a value", good.replace("workers = 2", "workers = many"), "workers = "),
        ("an unknown key", good.replace("workers = 2", "wrokers = 2"), "wrokers = "),
        ("a missing root", good.replace("root = \"site\"", "root = \"nowhere\""), "root = "),
        ("a taken port", good.replacen("127.0.0.1:0", &taken.1, 1), &taken.1),
    ];
    let mut said = Vec::new();
    for (what, text, at) in &cases {
        site.write(text);
        let output = server.tidegate(&["reload"]);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {told}");
        let place = format!("tidegate.toml:{}:", line_of(text, at));
        assert!(told.contains(&place), "{what}: {place} is not in\n{told}");
        // The command has read the file itself; who asks in another way has the server read it.
        let answer = control_socket::request(&server.data("control.sock"), b"reload", BOUND).unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
        let answer = answer["error"].as_str().unwrap_or_else(|| panic!("{what}: {answer}"));
        assert!(answer.contains(&place), "{what}: {place} is not in\n{answer}");
        said.push(format!("{what}: {}", answer.trim().lines().find(|line| line.contains(&place)).unwrap()));
        let now = server.status();
        let ids = |status: &tidegate::Status| -> Vec<(u64, u64)> {
            status.processes.iter().map(|process| (process.pid, process.generation)).collect()
        };
        assert_eq!(ids(&now), ids(&before), "{what}");
        assert_eq!(get(server.address("web"), "/hello").status, 200);
    }
    let tally = load.finish();
    // Nobody was even retired for it.
    assert_eq!((tally.raced, tally.reconnected), (0, 0), "{tally}");
    tally.check_clean();

    // And it was not for ever.
    site.write(&good);
    let output = server.tidegate(&["reload"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    say("refused reloads", &said.join("; "));
}
