//! The parts that the program plays when it is not testing. Every process says what it does on standard output.

use std::fmt::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitCode, id};
use std::sync::Arc;
use std::time::Duration;

use tidegate_process::{
    Amendment, Begin, Bundle, Child, ChildAnswer, ChildEvent, ChildSpec, ControlAnswer, ControlSocket,
    Limits, Master, MasterHooks, MasterOptions, Operation, Plan, Role, Signals, Snapshot, TakenOver, Whom,
    Within,
};
use tidegate_sys::shared;
use tidegate_sys::signal::Signal;

use crate::say;

/// The variable that makes the program a master: words for the behaviour of its children.
pub(crate) const SCENARIO: &str = "PROCESSES_SCENARIO";
/// Where the master takes requests, if anywhere.
pub(crate) const CONTROL: &str = "PROCESSES_CONTROL";
/// The generation of a worker.
const GENERATION: &str = "PROCESSES_GENERATION";

pub(crate) fn play_master(scenario: &str) -> ExitCode {
    let signals = Signals::block().unwrap();
    tracing::subscriber::set_global_default(Lines).unwrap();
    say(&format!("master {} begins", id()));
    let mut hooks = Hooks { scenario: scenario.to_owned(), prepared: 0 };
    let log_server = spec(Role::LogServer);
    let first = hooks.prepare(1).unwrap();
    let mut options = MasterOptions::new(vec![log_server], first).unwrap();
    options.control =
        std::env::var_os(CONTROL).map(|path| ControlSocket::bind(&PathBuf::from(path)).unwrap());
    finish(Master::new(signals, options, hooks).run().unwrap())
}

/// Goes on where the image before was.
pub(crate) fn play_successor(mut taken: Box<TakenOver>) -> ExitCode {
    let signals = Signals::block().unwrap();
    tracing::subscriber::set_global_default(Lines).unwrap();
    let scenario = taken.hooks()["scenario"].as_str().unwrap().to_owned();
    let back = if taken.is_reverted() { " again" } else { "" };
    say(&format!("master {} takes over{back}", id()));
    if scenario.contains("confused") && !taken.is_reverted() {
        let error = taken.revert("the successor is confused");
        panic!("{error}");
    }
    let hooks = Hooks { scenario, prepared: 1 };
    let master = Master::resume(signals, &mut taken, hooks).unwrap();
    drop(taken);
    finish(master.go_on().unwrap())
}

fn finish(code: u8) -> ExitCode {
    say(&format!("master ends {code}"));
    ExitCode::from(code)
}

fn spec(role: Role) -> ChildSpec {
    let greeting = Arc::new(shared::sealed_bytes("greeting", b"hello").unwrap());
    ChildSpec::new(role).fd("greeting", Arc::clone(&greeting)).covered_fd(format!("own:{role}"), greeting)
}

struct Hooks {
    scenario: String,
    /// How many generations were prepared before.
    prepared: u32,
}

impl Hooks {
    fn has(&self, word: &str) -> bool {
        self.scenario.split(' ').any(|it| it == word)
    }
}

impl MasterHooks for Hooks {
    fn on_ready(&mut self, snapshot: &Snapshot) {
        assert!(snapshot.is_running && snapshot.children.iter().all(|child| child.pid.is_some()));
        say("master ready");
    }

    fn on_control(&mut self, request: &[u8], snapshot: &Snapshot) -> ControlAnswer {
        match request {
            b"stop" => ControlAnswer::Signal { body: b"stopping\n".to_vec(), signal: Signal::TERM },
            b"big" => ControlAnswer::Now(vec![b'x'; 3_000_000]),
            b"reload" => ControlAnswer::Begin(Begin::Reload),
            b"upgrade" => ControlAnswer::Begin(Begin::Upgrade),
            b"replace" => ControlAnswer::Begin(Begin::Replace(0)),
            b"pause" => ControlAnswer::Accept { body: b"paused\n".to_vec(), worker: 0, accepts: false },
            b"ask" => ControlAnswer::Ask { text: "how are you".to_owned(), whom: Whom::Workers },
            _ => {
                let mut text = String::new();
                for child in &snapshot.children {
                    let exit = child.last_exit.map_or("none".to_owned(), |exit| exit.to_string());
                    let (role, state, restarts, status) =
                        (child.role, child.state, child.restarts, &child.status);
                    writeln!(text, "{role} {state} restarts={restarts} exit={exit} status={status}").unwrap();
                }
                ControlAnswer::Now(text.into_bytes())
            }
        }
    }

    fn on_answers(&mut self, request: &[u8], answers: &[ChildAnswer]) -> Vec<u8> {
        assert_eq!(request, b"ask");
        let text = |it: &ChildAnswer| {
            let answer =
                it.answer.as_ref().map_or("nothing".into(), |answer| String::from_utf8_lossy(answer));
            format!("{} says {answer}\n", it.role)
        };
        answers.iter().map(text).collect::<String>().into_bytes()
    }

    fn prepare(&mut self, generation: u32) -> Result<Plan, String> {
        if self.has("refusing") && self.prepared > 0 {
            return Err("line 3: no".to_owned());
        }
        self.prepared += 1;
        let mut limits = Limits::default();
        if self.has("impatient") {
            limits = Limits {
                shutdown_timeout: Duration::from_millis(100),
                shutdown_grace: Duration::from_millis(50),
                stop_timeout: Duration::from_millis(100),
                ..limits
            };
        }
        let of_generation = |mut child: ChildSpec| {
            child.env.push((GENERATION.into(), generation.to_string().into()));
            child
        };
        let children = [0, 1].map(|index| of_generation(spec(Role::Worker(index))));
        Ok(Plan { children: children.into(), limits, ..Plan::default() })
    }

    fn amendments(&mut self) -> Vec<Amendment> {
        let fd = Arc::new(shared::sealed_bytes("more", b"more").unwrap());
        let more = Amendment { role: Role::Worker(1), name: "more".to_owned(), fd };
        if self.has("widening") { vec![more] } else { Vec::new() }
    }

    fn shutdown_delay(&self) -> Duration {
        Duration::from_secs(if self.has("delaying") { 3 } else { 0 })
    }

    fn on_leaving(&mut self) {
        say("master leaves");
    }

    fn on_committed(&mut self, generation: u32) {
        say(&format!("master commits {generation}"));
    }

    fn on_forgotten(&mut self, generation: u32) {
        say(&format!("master forgets {generation}"));
    }

    fn on_done(&mut self, operation: Operation, outcome: Result<u32, &str>) -> Vec<u8> {
        let text = match outcome {
            Ok(generation) => format!("{operation:?} done, generation {generation}\n"),
            Err(why) => format!("{operation:?} failed: {why}\n"),
        };
        say(&format!("master: {}", text.trim_end()));
        text.into_bytes()
    }

    fn freeze<'a>(&'a self, _: &mut Bundle<'a>) -> Result<serde_json::Value, String> {
        Ok(serde_json::json!({ "scenario": self.scenario }))
    }

    fn on_reopen(&mut self) {
        say("master reopens");
    }

    fn on_stopping(&mut self) {
        say("master stops");
    }

    fn on_workers_gone(&mut self) {
        say("master sees no workers");
    }
}

pub(crate) fn play_child(mut child: Child) -> ExitCode {
    let role = child.role();
    let scenario = std::env::var(SCENARIO).unwrap();
    let has = |word: &str| scenario.split(' ').any(|it| it == word);
    let tell = |what: &str| say(&format!("{role} {} {what}", id()));
    let generation = std::env::var(GENERATION).unwrap_or_default();
    tell("begins");
    if role == Role::Probe {
        return play_probe(&child, has("unprobable"));
    }
    if has("growing-worse") && generation == "2" && role == Role::Worker(1) {
        child.failed("no root").unwrap();
        return ExitCode::FAILURE;
    }
    if role == Role::Worker(1) {
        if has("misconfigured") {
            return ExitCode::from(2);
        }
        if has("crashing") {
            return ExitCode::from(101);
        }
    }
    check_inheritance(&mut child);
    child.status("warming up").unwrap();
    child.ready().unwrap();
    tell("ready");
    if has("waking") && role == Role::Worker(0) {
        let waker = child.waker();
        std::thread::spawn(move || waker.wake());
    }
    loop {
        // A stubborn worker hears nothing; only KILL ends it. The bound is for a test that failed.
        if has("stubborn") && role == Role::Worker(0) {
            tell("does not listen");
            std::thread::sleep(Duration::from_secs(60));
        }
        match child.wait_event(Some(Duration::from_secs(60))).unwrap().expect("no event within a minute") {
            ChildEvent::Stop => {
                tell("stop");
                break;
            }
            // As a signal it is followed by the message, which knows the time.
            ChildEvent::Quit(Within::Configured) => tell("quit by signal"),
            ChildEvent::Quit(Within::Time(timeout)) => {
                tell(&format!("quit within {timeout:?}"));
                break;
            }
            ChildEvent::Quit(Within::Drain(None)) => {
                tell("quit without limit");
                break;
            }
            ChildEvent::Quit(Within::Drain(Some(timeout))) => {
                tell(&format!("drains for {timeout:?}"));
                break;
            }
            ChildEvent::Ping => child.pong().unwrap(),
            ChildEvent::Cover { slot, fds } => tell(&covers(slot, &fds)),
            ChildEvent::Uncover { slot } => tell(&format!("uncovers {slot}")),
            ChildEvent::Pause => tell("pauses"),
            ChildEvent::Resume => tell("resumes"),
            ChildEvent::Ask { .. } if has("speechless") && role == Role::Worker(0) => tell("says nothing"),
            ChildEvent::Ask { ticket, .. } => child.answer(ticket, b"well").unwrap(),
            ChildEvent::Reopen => tell("reopens"),
            ChildEvent::MasterGone => {
                tell("misses its master");
                break;
            }
            ChildEvent::Woken => tell("woken"),
        }
    }
    tell("ends");
    ExitCode::SUCCESS
}

fn covers(slot: u32, fds: &[(String, OwnedFd)]) -> String {
    let names: Vec<&str> = fds.iter().map(|(name, _)| name.as_str()).collect();
    format!("covers {slot} by {}", names.join(" "))
}

fn play_probe(child: &Child, fails: bool) -> ExitCode {
    child.ready().unwrap();
    if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn check_inheritance(child: &mut Child) {
    assert!(std::env::vars_os().all(|(key, _)| !key.to_string_lossy().starts_with("TIDEGATE_")));
    assert!(child.take_fd("none").is_none());
    let greeting = child.take_fd("greeting").unwrap();
    assert!(child.take_fd("greeting").is_none(), "taken once");
    assert_eq!(shared::read_all(std::os::fd::AsFd::as_fd(&greeting), 100).unwrap(), b"hello");
    let own = child.take_fds_with_prefix("own:");
    assert_eq!(own.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [child.role().to_string()]);
    assert_eq!(child.index(), child.role().index());
}

/// Records as lines: level, message, fields.
struct Lines;

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(format!("log {}", event.metadata().level()));
        event.record(&mut line);
        say(&line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}
