//! One service, every concurrency model: which one is a word of the command line, and the service does not know.
//!
//! `cargo run --release -p tidegate --features full --example models -- leader-follower`, then `nc 127.0.0.1 7003`: what is typed
//! comes back, whatever the model. Further arguments are keys of the configuration: `uring-pool engine.pool_threads=4`.
//! Without an argument it says which models there are.

use std::fmt::Display;
use std::process::ExitCode;

use tidegate::config::LoadOptions;
use tidegate::{Config, from_config, run_if_child};

/// Each model, and the keys that make it.
const MODELS: [(&str, &[&str]); 12] = [
    ("level", &["engine.backend=epoll", "engine.trigger=level"]),
    ("edge", &["engine.backend=epoll", "engine.trigger=edge"]),
    ("oneshot", &["engine.backend=epoll", "engine.trigger=oneshot"]),
    ("uring", &["engine.backend=uring"]),
    ("level-pool", &["engine.backend=epoll", "engine.trigger=level", "engine.dispatch=pool"]),
    ("edge-pool", &["engine.backend=epoll", "engine.trigger=edge", "engine.dispatch=pool"]),
    ("oneshot-pool", &["engine.backend=epoll", "engine.trigger=oneshot", "engine.dispatch=pool"]),
    ("uring-pool", &["engine.backend=uring", "engine.dispatch=pool"]),
    ("reactor", &["engine.dispatch=reactor"]),
    ("leader-follower", &["engine.dispatch=leader-follower"]),
    ("acceptor", &["engine.backend=epoll", "engine.acceptor=main", "engine.loops=2"]),
    ("uring-acceptor", &["engine.backend=uring", "engine.acceptor=main", "engine.loops=2"]),
];

/// What all of them have: one process, one listener, and a folder that is in nobody's way.
const COMMON: [&str; 3] = [
    "process.workers=0",
    "log.level=info",
    r#"listen=[{name="echo", address="127.0.0.1:7003", service="echo"}]"#,
];

fn main() -> Result<ExitCode, tidegate::Error> {
    // With `process.workers=2` each worker is this program again.
    if let Some(outcome) = run_if_child() {
        return outcome.map(|()| ExitCode::SUCCESS);
    }
    let Some(set) = settings() else { return Ok(refuse(&usage())) };
    match Config::load(&LoadOptions { set, ..LoadOptions::default() }) {
        Ok(config) => from_config(config)?.run().map(|()| ExitCode::SUCCESS),
        // A combination that makes no sense is refused with the reason.
        Err(errors) => Ok(refuse(&errors)),
    }
}

/// The keys of the model that was typed, and what else was.
fn settings() -> Option<Vec<String>> {
    let mut args = std::env::args().skip(1);
    let typed = args.next()?;
    let (_, keys) = MODELS.iter().find(|(name, _)| *name == typed)?;
    let folder = std::env::temp_dir().join("tidegate-models");
    let mut set: Vec<String> = COMMON.iter().chain(*keys).map(|&setting| setting.to_owned()).collect();
    set.push(format!("data_dir={}", folder.display()));
    set.extend(args);
    Some(set)
}

fn usage() -> String {
    let mut text = "usage: models MODEL [KEY=VALUE]..., where MODEL is one of".to_owned();
    for (name, keys) in MODELS {
        text.push_str(&format!("\n  {name:<16} {}", keys.join(" ")));
    }
    text
}

#[expect(clippy::print_stderr, reason = "it is for who typed the command")]
fn refuse(why: &dyn Display) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(2)
}
