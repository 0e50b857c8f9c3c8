//! `tidegate start`: the server leaves the terminal, and the command tells how that went.

use std::fs;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use crate::http::get;
use crate::processes::Watched;
use crate::support::{TIDEGATE, clean, output_of, stderr, stdout, tidegate_in, wait_until, write_file};

const FILE: &str = r#"
process = { workers = 1 }
listen = [
    { name = "web", address = "127.0.0.1:0", service = "web" },
    { name = "admin", address = "127.0.0.1:0", service = "admin" },
]
"#;

/// A server that nobody is the parent of, ended with the test.
struct Daemon {
    dir: PathBuf,
    pid: i32,
    watched: Watched,
    web: std::net::SocketAddr,
}

impl Daemon {
    /// What has started in this folder, with its data in `data`.
    fn of(dir: &Path, said: &Output) -> Self {
        assert_eq!(said.status.code(), Some(0), "{said:?}");
        let ready = stderr(said).lines().find_map(|line| line.strip_prefix("tidegate: ready, ")).unwrap();
        let web = ready.split(' ').find_map(|it| it.strip_prefix("web=")).unwrap().parse().unwrap();
        let pid = fs::read_to_string(dir.join("data/tidegate.pid")).unwrap().trim().parse().unwrap();
        Self { dir: dir.to_owned(), pid, watched: Watched::open(pid), web }
    }

    fn start(dir: &TempDir, file: &str) -> Self {
        write_file(dir.path(), file);
        let said = tidegate_in(dir.path(), ["start"]);
        Self::of(dir.path(), &said)
    }

    #[track_caller]
    fn stop(&self, said: &Output) {
        assert_eq!((said.status.code(), stdout(said)), (Some(0), &*format!("stopped, pid {}\n", self.pid)));
        self.watched.wait_end();
        for name in ["tidegate.pid", "control.sock", "log.sock"] {
            assert!(!self.dir.join("data").join(name).exists(), "{name}");
        }
    }

    fn all(&self) -> Vec<i32> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid)).unwrap();
        let children = children.split_whitespace().map(|it| it.parse().unwrap());
        std::iter::once(self.pid).chain(children).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.watched.has_ended() {
            self.watched.signal(Signal::TERM);
            self.watched.wait_end();
        }
    }
}

/// A line of proc_pid_status(5).
fn status(pid: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap().trim().to_owned()
}

/// The field of proc_pid_stat(5) with this number.
fn stat(pid: i32, number: usize) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    text.rsplit_once(") ").unwrap().1.split(' ').nth(number - 3).unwrap().parse().unwrap()
}

fn fds(pid: i32) -> Vec<(i32, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
    let number = |entry: &fs::DirEntry| entry.file_name().to_str().unwrap().parse().unwrap();
    // One that was closed meanwhile.
    entries.filter_map(|entry| Some((number(&entry), fs::read_link(entry.path()).ok()?))).collect()
}

#[test]
fn it_leaves_everything_of_the_terminal_behind() {
    let dir = tempdir().unwrap();
    write_file(dir.path(), FILE);
    // What a careless shell leaves open.
    let left = fs::File::create(dir.path().join("left open")).unwrap();
    fcntl_setfd(&left, FdFlags::empty()).unwrap();
    let mut command = Command::new(TIDEGATE);
    let said = output_of(clean(&mut command, dir.path()).arg("start").stdin(Stdio::null()));
    let daemon = Daemon::of(dir.path(), &said);
    assert!(left.as_raw_fd() > 2);
    assert!(said.stdout.is_empty());
    assert_eq!(get(daemon.web, "/hello").status, 200);

    let (pid, own) = (daemon.pid, i32::try_from(std::process::id()).unwrap());
    assert_ne!(status(pid, "PPid"), own.to_string());
    // A session of its own, of which it is not the leader: no terminal can become its own.
    let session = stat(pid, 6);
    assert_ne!(session, stat(own, 6));
    assert_ne!(session, pid);
    assert_eq!(stat(pid, 7), 0, "a terminal");
    assert_eq!(status(pid, "Umask"), "0027");
    for pid in daemon.all() {
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
        let fds = fds(pid);
        for number in 0..=2 {
            let (_, path) = fds.iter().find(|(fd, _)| *fd == number).unwrap();
            assert_eq!(path, Path::new("/dev/null"), "{number} of {pid}");
        }
        let left = fds.iter().find(|(_, path)| path.ends_with("left open"));
        assert!(left.is_none(), "{left:?} of {pid}");
    }
    daemon.stop(&tidegate_in(dir.path(), ["stop"]));
}

#[test]
fn paths_mean_the_folder_in_which_it_was_started() {
    let dir = tempdir().unwrap();
    let (etc, site, elsewhere) = (dir.path().join("etc"), dir.path().join("site"), tempdir().unwrap());
    fs::create_dir(&etc).unwrap();
    fs::create_dir(&site).unwrap();
    fs::write(site.join("index.html"), "home").unwrap();
    let data = dir.path().join("data");
    let file = FILE.replace("workers = 1", "workers = 1, pid_file = \"own.pid\"");
    fs::write(etc.join("tidegate.toml"), format!("data_dir = \"{}\"\n{file}", data.display())).unwrap();
    // A path in the file and one on the command line.
    let said = tidegate_in(dir.path(), ["start", "--config", "etc/tidegate.toml", "--set", "web.root=site"]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    let pid: i32 = fs::read_to_string(dir.path().join("own.pid")).unwrap().trim().parse().unwrap();
    let watched = Watched::open(pid);
    let web = stderr(&said).split("web=").nth(1).unwrap().split_whitespace().next().unwrap();
    let web = web.parse().unwrap();
    assert_eq!(get(web, "/").body, "home");
    // Asked from another folder, which is not the one that its paths are relative to.
    let file = etc.join("tidegate.toml");
    let file = file.to_str().unwrap();
    let reload = || tidegate_in(elsewhere.path(), ["reload", "--config", file]);
    let output = reload();
    assert_eq!(stdout(&output), "reloaded, generation 2\n", "{}", stderr(&output));
    assert_eq!(get(web, "/").body, "home");
    let output = tidegate_in(elsewhere.path(), ["upgrade", "--config", file]);
    assert_eq!(stdout(&output), "upgraded, generation 3\n", "{}", stderr(&output));
    assert_eq!(get(web, "/").body, "home");
    fs::remove_dir_all(&site).unwrap();
    let output = reload();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(site.to_str().unwrap()), "{output:?}");
    let output = tidegate_in(elsewhere.path(), ["stop", "--config", file]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    watched.wait_end();
}

#[test]
fn a_second_one_is_refused_with_the_pid_of_the_first() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(&dir, FILE);
    for command in ["start", "run"] {
        let said = tidegate_in(dir.path(), [command]);
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        assert!(stderr(&said).contains(&daemon.pid.to_string()), "{said:?}");
    }
    assert_eq!(get(daemon.web, "/hello").status, 200);
    daemon.stop(&tidegate_in(dir.path(), ["stop"]));
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nobody() {
    let dir = tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    write_file(dir.path(), &FILE.replacen("127.0.0.1:0", &address, 1));
    let said = tidegate_in(dir.path(), ["start"]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let text = stderr(&said);
    assert!(text.contains("\"web\"") && text.contains(&address), "{text}");
    assert!(text.contains(&std::process::id().to_string()), "the holder is not in\n{text}");
    assert!(!dir.path().join("data/tidegate.pid").exists());

    write_file(dir.path(), &FILE.replace("workers = 1", "workers = 1, wokers = 2"));
    let said = tidegate_in(dir.path(), ["start"]);
    assert_eq!(said.status.code(), Some(2), "{said:?}");
    assert!(stderr(&said).contains("tidegate.toml:3:"), "{said:?}");

    // Only a worker finds out, when the command has nothing left to do but to wait.
    fs::write(dir.path().join("bad.db"), "no database".repeat(1000)).unwrap();
    let gateway = "{ name = \"gateway\", address = \"127.0.0.1:0\", service = \"gateway\" },\n]";
    write_file(
        dir.path(),
        &format!(
            "{}accounts.database = \"sqlite:bad.db\"\n",
            FILE.replace("\n]", &format!("\n    {gateway}"))
        ),
    );
    let said = tidegate_in(dir.path(), ["start"]);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(stderr(&said).contains("bad.db"), "{said:?}");
    wait_until("the pid file is gone", || !dir.path().join("data/tidegate.pid").exists());

    let daemon = Daemon::start(&dir, FILE);
    assert_eq!(get(daemon.web, "/hello").status, 200);
    daemon.stop(&tidegate_in(dir.path(), ["stop", "--now"]));
}

#[test]
fn run_leaves_the_terminal_when_the_file_says_so() {
    let dir = tempdir().unwrap();
    write_file(dir.path(), &FILE.replace("workers = 1", "workers = 1, daemon = true"));
    let daemon = Daemon::of(dir.path(), &tidegate_in(dir.path(), ["run"]));
    assert_eq!(status(daemon.pid, "Umask"), "0027");
    let output = tidegate_in(dir.path(), ["reload"]);
    assert_eq!(stdout(&output), "reloaded, generation 2\n", "{}", stderr(&output));
    assert_eq!(get(daemon.web, "/hello").status, 200);
    daemon.stop(&tidegate_in(dir.path(), ["stop"]));
}

#[test]
fn a_server_of_one_process_leaves_it_too() {
    let dir = tempdir().unwrap();
    let daemon = Daemon::start(&dir, &FILE.replace("workers = 1", "workers = 0"));
    assert_eq!(get(daemon.web, "/hello").status, 200);
    assert_eq!(status(daemon.pid, "Umask"), "0027");
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", daemon.pid)).unwrap(), Path::new("/"));
    let second = tidegate_in(dir.path(), ["start"]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains(&daemon.pid.to_string()), "{second:?}");
    daemon.stop(&tidegate_in(dir.path(), ["stop"]));
}
