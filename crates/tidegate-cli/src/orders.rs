//! `tidegate reload`, `upgrade`, `drain`, `pause`, `resume`, `close` and `loglevel`: orders to the master, each answered
//! when it is done.
//!
//! The one invariant: success is said only when the server has said that it is done.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tidegate::config::{Config, ConfigErrors, LoadOptions};

use crate::ask::{Patience, Reply, ask_at, nobody};
use crate::configuration::of_running;
use crate::failure::Failure;
use crate::output::print;

/// What the server is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Reload,
    Upgrade,
    /// Replaces a worker; the old one finishes what it holds.
    Drain(u32),
    Pause(Whose),
    Resume(Whose),
    /// Closes a connection.
    Close(String),
    /// As `[TARGET=]LEVEL`.
    LogLevel(String),
}

/// Whose accepting is paused or resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    Listener(String),
    Worker(u32),
}

/// Gives the order, and waits until it is carried out, but no longer than `bound`.
pub(crate) fn give(options: &LoadOptions, order: &Order, bound: Option<Duration>) -> Result<(), Failure> {
    let config = match order {
        Order::Reload => Config::load(options).map_err(|errors| not_asked(order, &errors))?,
        Order::Upgrade => of_running(options).map_err(|errors| not_asked(order, &errors))?,
        _ => of_running(options)?,
    };
    match give_at(&config.control_socket(), order, bound)? {
        Some(text) => print(text),
        None => Err(nobody(&config).into()),
    }
}

/// The server would read this configuration, too, and refuse what was asked; but here nothing has begun yet.
fn not_asked(order: &Order, errors: &ConfigErrors) -> anyhow::Error {
    anyhow!("{}: the configuration is refused, and the server was not asked\n{errors}", order.undone())
}

/// What to print; `None` when nobody listens there.
fn give_at(socket: &Path, order: &Order, bound: Option<Duration>) -> anyhow::Result<Option<String>> {
    let patience = bound
        .map_or(Patience::SHORT, |bound| Patience { bound: bound.max(SHORTEST), work: Some(order.name()) });
    match ask_at(socket, &order.request(), patience)? {
        Reply::Given(answer) => {
            let answer: serde_json::Value =
                serde_json::from_slice(&answer).context("the server's answer is not understood")?;
            Ok(Some(order.done(&answer)))
        }
        Reply::Refused(why) => Err(anyhow!("{}: {}", order.undone(), why.trim_end())),
        Reply::Nobody => Ok(None),
    }
}

impl Order {
    /// The line on the control socket.
    fn request(&self) -> String {
        match self {
            Self::Reload => "reload".to_owned(),
            Self::Upgrade => "upgrade".to_owned(),
            Self::Drain(worker) => format!("drain {worker}"),
            Self::Pause(whose) => format!("pause {}", whose.words()),
            Self::Resume(whose) => format!("resume {}", whose.words()),
            Self::Close(id) => format!("close {id}"),
            Self::LogLevel(spec) => format!("loglevel {spec}"),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
            Self::Drain(_) => "replacement",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resumption",
            Self::Close(_) => "close",
            Self::LogLevel(_) => "change",
        }
    }

    /// What to tell when it is done.
    fn done(&self, answer: &serde_json::Value) -> String {
        let generation = answer.get("generation").and_then(serde_json::Value::as_u64);
        let generation =
            generation.map_or_else(String::new, |generation| format!(", generation {generation}"));
        match self {
            Self::Reload => format!("reloaded{generation}\n"),
            Self::Upgrade => format!("upgraded{generation}\n"),
            Self::Drain(worker) => format!("worker {worker} is replaced\n"),
            Self::Pause(whose) => format!("{} is paused\n", whose.words()),
            Self::Resume(whose) => format!("{} accepts\n", whose.words()),
            Self::Close(id) => format!("closed, {id}\n"),
            Self::LogLevel(spec) => format!("log level {spec}\n"),
        }
    }

    /// What to tell, before the reason, when it is not done.
    fn undone(&self) -> &'static str {
        match self {
            Self::Reload => "not reloaded",
            Self::Upgrade => "not upgraded",
            Self::Drain(_) => "not replaced",
            Self::Pause(_) => "not paused",
            Self::Resume(_) => "not resumed",
            Self::Close(_) => "not closed",
            Self::LogLevel(_) => "not changed",
        }
    }
}

impl Whose {
    fn words(&self) -> String {
        match self {
            Self::Listener(name) => format!("listener {name}"),
            Self::Worker(number) => format!("worker {number}"),
        }
    }
}

/// A time-out of no length would be none at all (socket(7)).
const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::tests::FakeServer;

    #[track_caller]
    fn check(order: &Order, request: &str, answer: &str, printed: &str) {
        let server = FakeServer::new(&[Some(answer)]);
        let text = give_at(&server.socket(), order, Some(Duration::from_secs(60))).unwrap().unwrap();
        assert_eq!((server.asked(), text.as_str()), (vec![format!("{request}\n")], printed));
    }

    #[test]
    fn orders_are_one_line_and_success_says_what_is_so_now() {
        let web = Whose::Listener("web".to_owned());
        check(&Order::Reload, "reload", r#"{"ok":true,"generation":3}"#, "reloaded, generation 3\n");
        check(&Order::Upgrade, "upgrade", r#"{"ok":true,"generation":4}"#, "upgraded, generation 4\n");
        check(&Order::Drain(1), "drain 1", r#"{"ok":true}"#, "worker 1 is replaced\n");
        check(&Order::Pause(web.clone()), "pause listener web", r#"{"ok":true}"#, "listener web is paused\n");
        check(&Order::Resume(web), "resume listener web", r#"{"ok":true}"#, "listener web accepts\n");
        let worker = Whose::Worker(0);
        check(&Order::Pause(worker), "pause worker 0", r#"{"ok":true}"#, "worker 0 is paused\n");
        let close = Order::Close("1.0.0.12.3".to_owned());
        check(&close, "close 1.0.0.12.3", r#"{"ok":true}"#, "closed, 1.0.0.12.3\n");
        let level = Order::LogLevel("tidegate_engine=trace".to_owned());
        check(
            &level,
            "loglevel tidegate_engine=trace",
            r#"{"ok":true}"#,
            "log level tidegate_engine=trace\n",
        );
    }

    #[test]
    fn a_refusal_says_all_that_the_server_says() {
        let answer = r#"{"error":"tidegate.toml:3:1: unknown key\n  3 | x = 1\n"}"#;
        let server = FakeServer::new(&[Some(answer)]);
        let error = give_at(&server.socket(), &Order::Reload, None).unwrap_err();
        assert_eq!(error.to_string(), "not reloaded: tidegate.toml:3:1: unknown key\n  3 | x = 1");
        assert_eq!(server.asked(), ["reload\n"]);
    }

    #[test]
    fn nobody_is_told_from_a_refusal() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(give_at(&dir.path().join("control.sock"), &Order::Upgrade, None).unwrap(), None);
    }
}
