//! Questions to the master, and what may come back instead of an answer.
//!
//! The one invariant: whoever waits long is told for what, on a terminal, and what is waited for no longer goes on in the
//! server.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tidegate::config::{Config, format_duration};
use tidegate::control_socket::{ControlSocketError, request};

use crate::output::say;
use crate::process::ServerProcess;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The answer, a JSON object.
    Given(Vec<u8>),
    /// The server does not do it: why, perhaps in several lines.
    Refused(String),
    /// Nobody listens there.
    Nobody,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience<'a> {
    pub(crate) bound: Duration,
    /// What the server does meanwhile, as `reload`; `None` when it answers at once.
    pub(crate) work: Option<&'a str>,
}

impl Patience<'_> {
    /// A master answers at once, unless it is stopped or the machine is very busy.
    pub(crate) const SHORT: Self = Self { bound: Duration::from_secs(10), work: None };
}

/// Asks whoever listens at the socket.
pub(crate) fn ask_at(socket: &Path, question: &str, patience: Patience<'_>) -> anyhow::Result<Reply> {
    let answer = announcing(patience, || request(socket, question.as_bytes(), patience.bound));
    let answer = match (answer, patience.work) {
        (Ok(answer), _) => answer,
        (Err(ControlSocketError::Io { source, .. }), _) if is_nobody(&source) => return Ok(Reply::Nobody),
        (Err(ControlSocketError::Timeout { .. }), Some(work)) => bail!(
            "the server has not answered within {}; the {work} goes on there: see `tidegate status` and `tidegate log tail`",
            format_duration(patience.bound)
        ),
        (Err(error), _) => return Err(error).context("asking the server"),
    };
    if answer.is_empty() {
        bail!("the server has ended, or hung up, without an answer");
    }
    let json: serde_json::Value =
        serde_json::from_slice(&answer).context("the server's answer is not understood")?;
    Ok(match json.get("error") {
        Some(reason) => Reply::Refused(reason.as_str().unwrap_or("it does not say why").to_owned()),
        None => Reply::Given(answer),
    })
}

/// Asks the server something that it answers at once; `None` when nobody answers there.
pub(crate) fn ask(config: &Config, question: &str) -> anyhow::Result<Option<Vec<u8>>> {
    match ask_at(&config.control_socket(), question, Patience::SHORT)? {
        Reply::Given(answer) => Ok(Some(answer)),
        Reply::Refused(reason) => bail!("the server refuses: {reason}"),
        Reply::Nobody => Ok(None),
    }
}

/// Why nobody answers: there is no server, or it is one process.
pub(crate) fn nobody(config: &Config) -> anyhow::Error {
    match ServerProcess::find(config) {
        Ok(server) => anyhow!(
            "the server, process {}, has no control socket, as it runs without workers (process.workers = 0); its \
             admin listener has /status, and signals are all it obeys",
            server.pid
        ),
        Err(error) => error,
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Says on a terminal what is waited for, once it takes a while.
fn announcing<T>(patience: Patience<'_>, work: impl FnOnce() -> T) -> T {
    let Some(what) = patience.work.filter(|_| io::stderr().is_terminal()) else { return work() };
    let text =
        format!("tidegate: waiting for the {what} to end, at most {}", format_duration(patience.bound));
    telling_after(TOLD_AFTER, move || say(&text), work)
}

/// Works, and tells on another thread when that takes longer than `time`.
fn telling_after<T>(time: Duration, tell: impl FnOnce() + Send, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    thread::scope(|scope| {
        // Without a thread it is not told, and nothing else is missing.
        let _ = thread::Builder::new().spawn_scoped(scope, move || {
            if is_done.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
                tell();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

/// Nobody wonders before.
const TOLD_AFTER: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::thread::JoinHandle;

    use tempfile::TempDir;

    use super::*;

    /// Answers one request after the other with what it was given, and tells in the end what it was asked.
    pub(crate) struct FakeServer {
        dir: TempDir,
        thread: JoinHandle<Vec<String>>,
    }

    impl FakeServer {
        /// `None` in the place of an answer: the connection stays open and nothing comes, until the client goes.
        pub(crate) fn new(answers: &[Option<&str>]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
            let answers: Vec<_> = answers.iter().map(|answer| answer.map(str::to_owned)).collect();
            let serve =
                move || answers.iter().map(|answer| Self::serve(&listener, answer.as_deref())).collect();
            Self { dir, thread: thread::spawn(serve) }
        }

        fn serve(listener: &UnixListener, answer: Option<&str>) -> String {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let mut stream: UnixStream = stream.into_inner();
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                None => assert_eq!(io::Read::read(&mut stream, &mut [0]).unwrap(), 0),
            }
            line
        }

        pub(crate) fn socket(&self) -> PathBuf {
            self.dir.path().join("control.sock")
        }

        /// What it was asked. All of its answers must have been taken.
        pub(crate) fn asked(self) -> Vec<String> {
            self.thread.join().unwrap()
        }
    }

    /// The reply to this answer, or why it is none.
    fn reply(answer: &str) -> Result<Reply, String> {
        let server = FakeServer::new(&[Some(answer)]);
        let reply = ask_at(&server.socket(), "status", Patience::SHORT);
        server.asked();
        reply.map_err(|error| error.to_string())
    }

    #[test]
    fn an_answer_is_given_or_refused_or_not_understood() {
        assert_eq!(reply("{\"ok\":true}\n"), Ok(Reply::Given(b"{\"ok\":true}\n".to_vec())));
        let two_lines = r#"{"error":"first\nsecond"}"#;
        assert_eq!(reply(two_lines), Ok(Reply::Refused("first\nsecond".to_owned())));
        assert_eq!(reply(r#"{"error":7}"#), Ok(Reply::Refused("it does not say why".to_owned())));
        assert!(reply("").unwrap_err().contains("without an answer"));
        assert!(reply("<html>").unwrap_err().contains("not understood"));
    }

    #[test]
    fn what_takes_too_long_is_said_to_go_on() {
        let server = FakeServer::new(&[None]);
        let patience = Patience { bound: Duration::from_millis(10), work: Some("reload") };
        let error = ask_at(&server.socket(), "reload", patience).unwrap_err().to_string();
        assert!(error.starts_with("the server has not answered within 10ms; the reload goes on"), "{error}");
        assert_eq!(server.asked(), ["reload\n"]);
    }

    #[test]
    fn only_what_takes_long_is_told() {
        let (told, is_told) = channel();
        let tell = move || told.send(()).unwrap();
        // It ends when it is told, and would not otherwise.
        telling_after(Duration::from_millis(1), tell, || is_told.recv().unwrap());
        let answer = telling_after(Duration::MAX, || panic!("told although it was done"), || 7);
        assert_eq!(answer, 7);
    }

    #[test]
    fn nobody_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        assert_eq!(ask_at(&socket, "status", Patience::SHORT).unwrap(), Reply::Nobody);
        drop(UnixListener::bind(&socket).unwrap());
        assert_eq!(ask_at(&socket, "status", Patience::SHORT).unwrap(), Reply::Nobody);
    }
}
