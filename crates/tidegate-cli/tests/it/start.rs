//! Starting: the ready line, the titles, and starts that are refused.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use tempfile::{TempDir, tempdir};

use crate::http::get;
use crate::processes::Exit;
use crate::support::{Setup, TIDEGATE, clean, output_of, stderr, stdout};

#[test]
fn one_line_says_where_it_serves() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let names: Vec<&str> = server.listeners().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["web", "gateway", "admin"]);
    assert!(server.listeners().iter().all(|(_, address)| address.port() != 0));
    assert_eq!(get(server.address("web"), "/hello").body, "Hello, World!");
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
    let of_ours = server.all_lines().iter().filter(|line| line.starts_with("tidegate: ")).count();
    assert_eq!(of_ours, 1);
}

#[test]
fn processes_have_their_titles() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let mut group = server.group();
    group.sort_by(|a, b| a.title.cmp(&b.title));
    let titles: Vec<&str> = group.iter().map(|process| process.title.as_str()).collect();
    assert_eq!(
        titles,
        ["tidegate: log server", "tidegate: master", "tidegate: worker 0", "tidegate: worker 1"]
    );
    for process in &group {
        assert_eq!(process.name, "tidegate", "{process:?}");
        assert_eq!(process.parent == server.pid(), process.title != "tidegate: master", "{process:?}");
    }
}

#[test]
fn the_data_folder_has_a_pid_file_while_it_runs() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let pid_file = server.data("tidegate.pid");
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap().trim(), server.pid().to_string());
    assert_eq!(server.end(Signal::INT), Exit::Code(0));
    for left in ["tidegate.pid", "control.sock", "log.sock"] {
        assert!(!server.data(left).exists(), "{left}");
    }
}

#[test]
fn a_second_start_on_the_same_address_is_refused() {
    let (dir, other) = (tempdir().unwrap(), tempdir().unwrap());
    let server = Setup::new(&dir).start();
    let address = server.address("web").to_string();
    let mut second = Setup::new(&other).set(format!("listen.web.address={address}")).spawn();
    assert_eq!(second.wait_exit(), Exit::Code(1));
    let last = second.all_lines().last().unwrap();
    assert!(
        last.starts_with("tidegate: --set listen.web.address=")
            && last.contains(&format!("listener \"web\": cannot listen on {address}")),
        "{last}"
    );
    assert!(
        last.ends_with(&format!("the address is in use by process {} (tidegate)", server.pid())),
        "{last}"
    );
    // Had it joined the first one's sockets, some of these would wait in vain.
    for _ in 0..8 {
        assert_eq!(get(server.address("web"), "/hello").status, 200);
    }
}

#[test]
fn what_limits_the_server_is_said_once() {
    let dir = tempdir().unwrap();
    let mut server =
        Setup::new(&dir).set("listen.web.backlog=65535").set("engine.max_connections=1000000").start();
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
    let limits: Vec<&String> = server.all_lines().iter().filter(|line| line.contains(" limit=")).collect();
    for limit in ["open files of a process", "fs.nr_open", "fs.file-max", "net.core.somaxconn", "memory"] {
        let named = |line: &&&String| {
            line.contains(&format!("limit={limit} ")) || line.contains(&format!("limit=\"{limit}\""))
        };
        assert_eq!(limits.iter().filter(named).count(), 1, "{limit}: {limits:?}");
    }
    assert!(limits.iter().all(|line| line.contains(" master[") && !line.contains(" ERROR ")), "{limits:?}");
    let somaxconn: u32 =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    let backlog = limits.iter().find(|line| line.contains("limit=net.core.somaxconn")).unwrap();
    assert_eq!(backlog.contains(" WARN "), somaxconn < 65535, "{backlog}");
    assert!(somaxconn >= 65535 || backlog.contains("listen.web.backlog"), "{backlog}");
}

#[test]
fn the_limit_of_open_files_is_raised_to_the_hard_one_in_every_process_and_told() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).soft_open_files(256).start();
    let limits = server.group().into_iter().map(|process| {
        let text = std::fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let values: Vec<String> = line.split_whitespace().take(2).map(str::to_owned).collect();
        (values[0].clone(), values[1].clone())
    });
    let limits: Vec<(String, String)> = limits.collect();
    assert_eq!(limits.len(), 4);
    assert!(limits.iter().all(|(soft, hard)| soft == hard && soft != "256"), "{limits:?}");
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
    let told = format!("has=\"{0}, hard limit {0}\" limit=\"open files of a process\"", limits[0].0);
    let is_unlimited = limits[0].0 == "unlimited";
    assert!(is_unlimited || server.all_lines().iter().any(|line| line.contains(&told)), "{told}");
}

#[test]
fn a_second_start_in_the_same_folder_is_refused_with_the_pid_of_the_first() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let mut second = Setup::new(&dir).spawn();
    assert_eq!(second.wait_exit(), Exit::Code(1));
    let last = second.all_lines().last().unwrap();
    let expected = format!("is locked by process {}", server.pid());
    assert!(last.starts_with("tidegate: ") && last.ends_with(&expected), "{last}");
    // It took nothing from the first.
    assert_eq!(server.status().processes.len(), 4);
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
}

#[test]
fn a_file_in_the_place_of_a_socket_is_left_alone() {
    let dir = tempdir().unwrap();
    for socket in ["log.socket", "process.control_socket"] {
        let file = dir.path().join(socket);
        std::fs::write(&file, "precious").unwrap();
        let mut server = Setup::new(&dir).set(format!("{socket}={}", file.display())).spawn();
        assert_eq!(server.wait_exit(), Exit::Code(1), "{socket}");
        let last = server.all_lines().last().unwrap();
        assert!(last.starts_with("tidegate: ") && last.contains(&file.display().to_string()), "{last}");
        assert!(last.contains("not a socket"), "{last}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    }
}

#[test]
fn a_service_that_cannot_be_built_fails_the_start() {
    let dir = tempdir().unwrap();
    // The folder of the accounts is a file.
    std::fs::write(dir.path().join("file"), "").unwrap();
    let database = format!("accounts.database=sqlite:{}/file/accounts.db", dir.path().display());
    let mut server = Setup::new(&dir).set(database).spawn();
    assert_eq!(server.wait_exit(), Exit::Code(1));
    let said = server.all_lines();
    assert!(!said.iter().any(|line| line.starts_with("tidegate: ready")));
    assert!(
        said.iter().any(|line| line.contains("worker failed") && line.contains("accounts.db")),
        "{said:?}"
    );
}

#[test]
fn without_workers_one_process_does_everything() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).set("process.workers=0").start();
    assert_eq!(server.group().len(), 1);
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    assert_eq!(get(server.address("admin"), "/readyz").status, 200);
    let ping = server.tidegate(&["msg", "ping", "--to", &server.address("gateway").to_string()]);
    assert!(ping.status.success(), "{ping:?}");
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    assert!(server.all_lines().iter().all(|line| !line.contains("ERROR")));
    assert!(!server.data("tidegate.pid").exists());
}

/// Ends a daemon with its folder.
struct Stops<'a>(&'a Path);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        output_of(clean(Command::new(TIDEGATE).args(["stop", "--now"]), self.0));
    }
}

/// Runs the program that `current` leads to, as somebody would who types a relative path.
fn current(dir: &TempDir, command: &str) -> std::process::Output {
    let line = format!("exec current/tidegate {command}");
    output_of(clean(Command::new("sh").args(["-c", &line]), dir.path()))
}

#[test]
fn a_daemon_that_was_started_by_a_relative_path_follows_its_links_anew() {
    let dir = tempdir().unwrap();
    let link = dir.path().join("current");
    let listen = "[{ name = \"echo\", address = \"127.0.0.1:0\", service = \"echo\" }]";
    let file = format!("data_dir = \"data\"\nprocess = {{ workers = 1 }}\nlisten = {listen}\n");
    std::fs::write(dir.path().join("tidegate.toml"), file).unwrap();
    for version in ["v1", "v2"] {
        std::fs::create_dir(dir.path().join(version)).unwrap();
        std::fs::copy(TIDEGATE, dir.path().join(version).join("tidegate")).unwrap();
    }
    symlink("v1", &link).unwrap();
    let _stops = Stops(dir.path());
    let started = current(&dir, "start");
    assert!(started.status.success(), "{}", stderr(&started));
    std::fs::remove_file(&link).unwrap();
    symlink("v2", &link).unwrap();
    let upgraded = current(&dir, "upgrade");
    assert_eq!(stdout(&upgraded), "upgraded, generation 2\n", "{}", stderr(&upgraded));
    let pid = std::fs::read_to_string(dir.path().join("data/tidegate.pid")).unwrap();
    let runs = std::fs::read_link(format!("/proc/{}/exe", pid.trim())).unwrap();
    assert_eq!(runs, dir.path().join("v2/tidegate").canonicalize().unwrap());
}
