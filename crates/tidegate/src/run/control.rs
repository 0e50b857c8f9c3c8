//! What operators ask of a running server, and what they are answered.
//!
//! A request is a line of words; an answer is JSON. Orders and states are the master's; connections are asked of the
//! workers, each of which answers for its own, and put together here.
//!
//! Invariant: no request changes what it does not name, and every answer says whether it was understood.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_process::{Begin, ChildAnswer, ChildState, ControlAnswer, Operation, Role, Snapshot, Whom};
use tidegate_sys::signal::Signal;

use super::connections::{ConnectionId, DEFAULT_PAGE, Page, merge};
use super::master::{Hooks, begun};

/// What an operator has said of all processes, for those that start later.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Listeners that do not accept.
    #[serde(default)]
    paused: Vec<String>,
    /// Changes of the log's level, in their order.
    #[serde(default)]
    levels: Vec<String>,
}

impl Said {
    /// The questions that a new process is asked first.
    pub(crate) fn words(&self) -> Vec<String> {
        let paused = self.paused.iter().map(|name| format!("pause listener {name}"));
        let levels = self.levels.iter().map(|level| format!("loglevel {level}"));
        paused.chain(levels).collect()
    }

    /// The changes of the log's level.
    pub(crate) fn level(&self) -> &[String] {
        &self.levels
    }

    fn pause(&mut self, listener: &str, paused: bool) {
        self.paused.retain(|known| known != listener);
        if paused {
            self.paused.push(listener.to_owned());
        }
    }

    fn set_level(&mut self, spec: &str) {
        let target = |spec: &str| spec.split_once('=').map(|(target, _)| target.to_owned());
        self.levels.retain(|known| target(known) != target(spec));
        self.levels.push(spec.to_owned());
    }
}

/// Answers a request, or says who does.
pub(crate) fn answer(hooks: &mut Hooks, request: &[u8], snapshot: &Snapshot) -> ControlAnswer {
    let Ok(text) = str::from_utf8(request) else { return refusal("a request is text") };
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let ask = |whom| ControlAnswer::Ask { text: text.to_owned(), whom };
    match words[..] {
        ["status"] => status(hooks, snapshot),
        ["stop"] => begun(Signal::TERM),
        ["quit"] => begun(Signal::QUIT),
        ["reopen"] => begun(Signal::USR1),
        ["reload"] => ControlAnswer::Begin(Begin::Reload),
        ["upgrade"] => ControlAnswer::Begin(Begin::Upgrade),
        ["drain", worker] => match serving(snapshot, worker) {
            Ok(worker) => ControlAnswer::Begin(Begin::Replace(worker)),
            Err(why) => refusal(&why),
        },
        ["pause" | "resume", "worker", worker] => match serving(snapshot, worker) {
            Ok(worker) => ControlAnswer::Accept { body: done(), worker, accepts: words[0] == "resume" },
            Err(why) => refusal(&why),
        },
        ["pause" | "resume", "listener", name] => {
            if !hooks.current().server.listeners.iter().any(|listener| listener.name == name) {
                return refusal(&format!("there is no listener {name}"));
            }
            hooks.said.pause(name, words[0] == "pause");
            ask(Whom::Accepting)
        }
        ["loglevel", spec] => {
            if let Err(why) = hooks.set_level(spec) {
                return refusal(&why);
            }
            hooks.said.set_level(spec);
            ask(Whom::All)
        }
        ["connections", ref options @ ..] => match Page::parse(options) {
            Ok(_) => ask(Whom::Workers),
            Err(why) => refusal(&why),
        },
        ["close", id] => match id.parse::<ConnectionId>() {
            Ok(id) => ask(Whom::Worker { generation: id.generation, index: id.worker }),
            Err(why) => refusal(&why),
        },
        _ => refusal(UNKNOWN),
    }
}

/// The number of a worker that serves.
fn serving(snapshot: &Snapshot, worker: &str) -> Result<u32, String> {
    let index: u32 = worker.parse().map_err(|_| format!("{worker:?} is not the number of a worker"))?;
    let is_it = |child: &&tidegate_process::ChildSnapshot| {
        child.role == Role::Worker(index) && child.generation == snapshot.generation && !child.is_retired
    };
    let mut there = snapshot.children.iter().filter(is_it);
    match (there.next(), there.next()) {
        (Some(_), None) => Ok(index),
        (Some(_), Some(_)) => Err(format!("worker {index} is being replaced already")),
        (None, _) => Err(format!("there is no worker {index}")),
    }
}

fn status(hooks: &Hooks, snapshot: &Snapshot) -> ControlAnswer {
    let mut status = hooks.status().collect();
    for listener in &mut status.listeners {
        if hooks.said.paused.contains(&listener.name) {
            listener.note = "paused".to_owned();
        }
    }
    for process in &mut status.processes {
        let Some(child) = snapshot.children.iter().find(|it| it.pid.map(u64::from) == Some(process.pid))
        else {
            continue;
        };
        process.last_exit = child.last_exit.map(|status| status.to_string()).unwrap_or_default();
        if matches!(child.role, Role::Process(_)) {
            process.role = child.title.trim_start_matches("tidegate: ").to_owned();
        }
        process.note = match child {
            it if it.is_stuck && it.role == Role::Acceptor => {
                "does not answer; peers wait until it does".to_owned()
            }
            it if it.is_stuck => "does not answer; others accept its connections".to_owned(),
            it if it.is_paused => "paused; others accept its connections".to_owned(),
            it if it.is_retired && it.state == ChildState::Stopping => "finishes what it holds".to_owned(),
            it => it.status.clone(),
        };
    }
    // Those that are about to be started again have no process to be found by.
    match serde_json::to_vec(&status) {
        Ok(body) => ControlAnswer::Now(body),
        Err(error) => refusal(&error.to_string()),
    }
}

/// The answer to a request that children were asked.
pub(crate) fn compose(request: &[u8], answers: &[ChildAnswer]) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    let words: Vec<&str> = request.split_ascii_whitespace().collect();
    let missing: Vec<String> = answers
        .iter()
        .filter(|it| it.answer.is_none())
        .map(|it| format!("{} does not answer", who(it)))
        .collect();
    match words[..] {
        ["connections", ref options @ ..] => {
            // It was parsed before anybody was asked.
            let page = Page::parse(options).unwrap_or(Page { after: None, limit: DEFAULT_PAGE });
            to_bytes(&merge(&page, answers, missing))
        }
        ["close", id] => match answers {
            [] => error(&format!("there is no connection {id}: the worker that it names is not there")),
            // While a worker is being replaced two have its number, and one of them has the connection.
            _ => {
                let bodies = || answers.iter().filter_map(|it| it.answer.as_ref());
                let closed = bodies().find(|body| failure(body).is_none());
                closed.or_else(|| bodies().next()).cloned().unwrap_or_else(|| error(&missing.join("; ")))
            }
        },
        _ => {
            let said = answers.iter().filter_map(|it| Some((it, failure(it.answer.as_ref()?)?)));
            let errors: Vec<String> =
                said.map(|(it, why)| format!("{}: {why}", who(it))).chain(missing).collect();
            if errors.is_empty() { done() } else { error(&errors.join("\n")) }
        }
    }
}

/// The process as people call it.
fn who(answer: &ChildAnswer) -> String {
    let title = answer.role.title();
    format!("{} (pid {})", title.trim_start_matches("tidegate: "), answer.pid)
}

/// What a child said was wrong.
fn failure(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    Some(answer.get("error")?.as_str()?.to_owned())
}

/// The answer when an operation has ended.
pub(crate) fn outcome(outcome: Result<u32, &str>) -> Vec<u8> {
    match outcome {
        Ok(generation) => to_bytes(&json!({ "ok": true, "generation": generation })),
        Err(why) => error(why),
    }
}

pub(crate) fn name_of(operation: Operation) -> &'static str {
    match operation {
        Operation::Reload => "reload",
        Operation::Upgrade => "upgrade",
        Operation::Replace(_) => "replacing a worker",
    }
}

/// Something was done.
pub(crate) fn done() -> Vec<u8> {
    to_bytes(&json!({ "ok": true }))
}

/// Something was not.
pub(crate) fn error(why: &str) -> Vec<u8> {
    to_bytes(&json!({ "error": why }))
}

pub(crate) fn to_bytes(answer: &impl Serialize) -> Vec<u8> {
    match serde_json::to_vec(answer) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            bytes
        }
        Err(error) => format!("{{\"error\":\"{error}\"}}\n").into_bytes(),
    }
}

fn refusal(why: &str) -> ControlAnswer {
    ControlAnswer::Now(error(why))
}

impl Hooks {
    /// Changes the level of the master's own records.
    fn set_level(&mut self, spec: &str) -> Result<(), String> {
        let Some(log) = self.log() else { return Ok(()) };
        let levels = log.levels().with_target(spec).map_err(|error| error.to_string())?;
        log.set_levels(&levels);
        Ok(())
    }
}

const UNKNOWN: &str = "unknown request; there are status, stop, quit, reopen, reload, upgrade, drain, pause, resume, \
                       connections, close and loglevel";
