//! `TidegateServer`: this program as a server that is measured, in a folder of its own.
//!
//! Invariant: the server and its folder are gone when this value has been dropped. Should this process die before that, the
//! kernel ends the server (`PR_SET_PDEATHSIG`, prctl(2)), which `bench guard` asks for before it becomes the server.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::family;
use crate::process::ended_within;

/// Where servers are run: the program, and a folder with the configuration that all of them have.
#[derive(Debug)]
pub(super) struct Site {
    program: PathBuf,
    dir: TempDir,
}

/// A running server.
#[derive(Debug)]
pub(super) struct TidegateServer {
    child: Child,
    listeners: BTreeMap<String, SocketAddr>,
}

/// How long a server may take to serve, and to end.
const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// What a server said last, which is told when it does not serve.
const LAST_LINES: usize = 5;

impl Site {
    pub(super) fn new(program: &Path, workers: u16, max_connections: usize) -> std::io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tidegate-models-").tempdir()?;
        let mut text = format!(
            "data_dir = 'data'\n[process]\nworkers = {workers}\nshutdown_timeout = '1s'\n\
             [engine]\nmax_connections = {max_connections}\n[log]\nlevel = 'warn'\n"
        );
        for service in ["echo", "web", "gateway"] {
            text +=
                &format!("[[listen]]\nname = '{service}'\naddress = '127.0.0.1:0'\nservice = '{service}'\n");
        }
        fs::write(dir.path().join(FILE), text)?;
        Ok(Self { program: program.to_owned(), dir })
    }

    /// What the configuration has against these settings.
    pub(super) fn check(&self, settings: &[String]) -> std::io::Result<Vec<String>> {
        let output: Output = self.command(&["check", "--json"], settings).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(Vec::new());
        }
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(errors_of(&said).unwrap_or_else(|| {
            vec![format!(
                "{}, and it said {said:?} {:?}",
                output.status,
                String::from_utf8_lossy(&output.stderr)
            )]
        }))
    }

    /// Starts a server with these settings, and waits until it serves.
    pub(super) fn start(&self, settings: &[String]) -> Result<TidegateServer, String> {
        let own = std::process::id().to_string();
        let mut command = self.command(&["bench", "guard", "--parent", &own, "--", "run"], settings);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A key on the terminal is for this process, which ends the server when its time has come.
        let mut child =
            command.process_group(0).spawn().map_err(|error| format!("the server cannot be run: {error}"))?;
        let stderr = child.stderr.take();
        let mut server = TidegateServer { child, listeners: BTreeMap::new() };
        let (sender, lines) = channel();
        if let Some(stderr) = stderr {
            // Reads to the end, since a server whose standard error is full would wait.
            let lines = BufReader::new(stderr).lines().map_while(Result::ok);
            let mut listened = true;
            let read = move || lines.for_each(|line| listened = listened && sender.send(line).is_ok());
            let reader = thread::Builder::new().name("stderr".to_owned()).spawn(read);
            reader.map_err(|error| format!("no thread for the server's messages: {error}"))?;
        }
        server.listeners = wait_ready(&lines)?;
        Ok(server)
    }

    fn command(&self, first: &[&str], settings: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(first).args(["--config", FILE]).current_dir(self.dir.path());
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        // What this process has of them was meant for another server.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("TIDEGATE_") || name.starts_with("LISTEN_"))
            {
                command.env_remove(name);
            }
        }
        command
    }
}

const FILE: &str = "tidegate.toml";

/// The errors that `tidegate check --json` has printed, each with its key.
fn errors_of(said: &str) -> Option<Vec<String>> {
    let of = |error: &serde_json::Value| {
        let (key, message) = (error["key"].as_str().unwrap_or_default(), error["message"].as_str()?);
        Some(if key.is_empty() { message.to_owned() } else { format!("{key}: {message}") })
    };
    let said = serde_json::from_str::<serde_json::Value>(said).ok()?;
    let errors: Option<Vec<String>> = said["errors"].as_array()?.iter().map(of).collect();
    errors.filter(|errors| !errors.is_empty())
}

/// `tidegate: ready, NAME=ADDRESS …`
fn wait_ready(lines: &Receiver<String>) -> Result<BTreeMap<String, SocketAddr>, String> {
    let deadline = Instant::now() + START_PATIENCE;
    let mut last: Vec<String> = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(ready) = line.strip_prefix("tidegate: ready, ") {
                    let pairs = ready.split(' ').filter_map(|listener| listener.split_once('='));
                    let tcp =
                        pairs.filter_map(|(name, address)| Some((name.to_owned(), address.parse().ok()?)));
                    return Ok(tcp.collect());
                }
                if last.len() == LAST_LINES {
                    last.remove(0);
                }
                last.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(format!("the server ended: {}", last.join("; ")));
            }
            Err(RecvTimeoutError::Timeout) => {
                return Err(format!("not ready after {} s: {}", START_PATIENCE.as_secs(), last.join("; ")));
            }
        }
    }
}

impl TidegateServer {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn address(&self, listener: &str) -> Result<SocketAddr, String> {
        self.listeners.get(listener).copied().ok_or_else(|| format!("it has no listener {listener}"))
    }
}

impl Drop for TidegateServer {
    fn drop(&mut self) {
        let pid = |pid: u32| i32::try_from(pid).ok().and_then(Pid::from_raw);
        let children = family(self.pid()).unwrap_or_default();
        // One that has ended by itself is what is wanted.
        let _ = pid(self.pid()).map(|pid| kill_process(pid, Signal::TERM));
        if !ended_within(&self.child, STOP_PATIENCE) {
            let _ = self.child.kill();
            for child in children.into_iter().skip(1).filter_map(pid) {
                let _ = kill_process(child, Signal::KILL);
            }
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(said: &[&str]) -> Result<BTreeMap<String, SocketAddr>, String> {
        let (sender, lines) = channel();
        said.iter().for_each(|line| sender.send((*line).to_owned()).unwrap());
        drop(sender);
        wait_ready(&lines)
    }

    #[test]
    fn the_ready_line_names_the_listeners() {
        let ready =
            wait(&["a warning", "tidegate: ready, echo=127.0.0.1:7 u=unix:/x web=[::1]:80", "more"]).unwrap();
        assert_eq!(ready.keys().collect::<Vec<_>>(), ["echo", "web"]);
        assert_eq!(ready["web"].port(), 80);
    }

    #[test]
    fn errors_are_told_with_their_keys() {
        let said = r#"{"errors":[{"key":"engine.loops","message":"too many"},{"key":null,"message":"odd"}],"ok":false}"#;
        assert_eq!(errors_of(said).unwrap(), ["engine.loops: too many", "odd"]);
        assert_eq!((errors_of("{\"errors\":[]}"), errors_of(""), errors_of("[1]")), (None, None, None));
    }

    #[test]
    fn a_server_that_ends_is_told_with_its_last_words() {
        let lines: Vec<String> = (0..9).map(|nth| format!("line {nth}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(wait(&lines).unwrap_err(), "the server ended: line 4; line 5; line 6; line 7; line 8");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let site = Site::new(Path::new("/no/such/program"), 1, 100).unwrap();
        assert!(site.start(&[]).unwrap_err().starts_with("the server cannot be run: "));
        assert!(site.check(&[]).is_err());
    }
}
