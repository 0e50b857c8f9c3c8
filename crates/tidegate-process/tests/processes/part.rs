//! The parts that the program plays when it is not testing. Every process says what it does on standard output.

use std::fmt::{self, Write};
use std::path::PathBuf;
use std::process::{ExitCode, id};
use std::sync::Arc;
use std::time::Duration;

use tidegate_process::{
    Child, ChildEvent, ChildSpec, ControlAnswer, ControlSocket, Limits, Master, MasterHooks, MasterOptions,
    Role, Signals, Snapshot,
};
use tidegate_sys::shared;
use tidegate_sys::signal::Signal;

use crate::say;

/// The variable that makes the program a master: words for the behaviour of its children.
pub(crate) const SCENARIO: &str = "PROCESSES_SCENARIO";
/// Where the master takes requests, if anywhere.
pub(crate) const CONTROL: &str = "PROCESSES_CONTROL";

pub(crate) fn play_master(scenario: &str) -> ExitCode {
    let signals = Signals::block().unwrap();
    tracing::subscriber::set_global_default(Lines).unwrap();
    say(&format!("master {} begins", id()));
    let greeting = Arc::new(shared::sealed_bytes("greeting", b"hello").unwrap());
    let roles = [Role::LogServer, Role::Worker(0), Role::Worker(1)];
    let children = roles.map(|role| {
        let name = role.to_string();
        ChildSpec::new(role)
            .fd("greeting", Arc::clone(&greeting))
            .fd(format!("own:{name}"), Arc::clone(&greeting))
    });
    let mut options = MasterOptions::new(children.into()).unwrap();
    if scenario.contains("impatient") {
        options.limits = Limits {
            shutdown_timeout: Duration::from_millis(100),
            shutdown_grace: Duration::from_millis(50),
            stop_timeout: Duration::from_millis(100),
            ..Limits::default()
        };
    }
    options.control =
        std::env::var_os(CONTROL).map(|path| ControlSocket::bind(&PathBuf::from(path)).unwrap());
    let code = Master::new(signals, options, Hooks).run().unwrap();
    say(&format!("master ends {code}"));
    ExitCode::from(code)
}

struct Hooks;

impl MasterHooks for Hooks {
    fn on_ready(&mut self, snapshot: &Snapshot) {
        assert!(snapshot.is_running && snapshot.children.iter().all(|child| child.pid.is_some()));
        say("master ready");
    }

    fn on_control(&mut self, request: &[u8], snapshot: &Snapshot) -> ControlAnswer {
        match request {
            b"stop" => ControlAnswer { body: b"stopping\n".to_vec(), signal: Some(Signal::TERM) },
            b"big" => vec![b'x'; 3_000_000].into(),
            _ => {
                let mut text = String::new();
                for child in &snapshot.children {
                    let exit = child.last_exit.map_or("none".to_owned(), |exit| exit.to_string());
                    let (role, state, restarts, status) =
                        (child.role, child.state, child.restarts, &child.status);
                    writeln!(text, "{role} {state} restarts={restarts} exit={exit} status={status}").unwrap();
                }
                text.into_bytes().into()
            }
        }
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
    tell("begins");
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
            ChildEvent::Quit { timeout: None } => tell("quit by signal"),
            ChildEvent::Quit { timeout: Some(timeout) } => {
                tell(&format!("quit within {timeout:?}"));
                break;
            }
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
