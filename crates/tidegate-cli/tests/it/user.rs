//! `process.user`: a master that was started as root, and children that are somebody else.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::process::{Signal, geteuid};
use tempfile::tempdir;

use crate::http::get;
use crate::processes::Exit;
use crate::support::{Server, Setup, current, stdout, tidegate_in, write_file};

const FILE: &str = r#"
process = { workers = 2, accept = "handoff", user = "nobody" }
listen = [
    { name = "web", address = "127.0.0.1:0", service = "web" },
    { name = "gateway", address = "127.0.0.1:0", service = "gateway" },
]
"#;

/// The words of a line of proc_pid_status(5).
fn words(pid: i32, key: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// Number, group and groups of nobody, as `id` tells them.
fn nobody() -> (u32, String, Vec<String>) {
    let ask = |flag| {
        let output = std::process::Command::new("id").args([flag, "nobody"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let mut groups: Vec<_> = ask("-G").split_whitespace().map(str::to_owned).collect();
    groups.sort();
    (ask("-u").parse().unwrap(), ask("-g"), groups)
}

#[track_caller]
fn check_processes(server: &Server) {
    let (uid, gid, groups) = nobody();
    for process in server.group() {
        let is_master = process.pid == server.pid();
        let user = if is_master { "0".to_owned() } else { uid.to_string() };
        assert_eq!(words(process.pid, "Uid"), vec![user; 4], "{process:?}");
        if is_master {
            continue;
        }
        assert_eq!(words(process.pid, "Gid"), vec![gid.clone(); 4]);
        let mut its = words(process.pid, "Groups");
        its.sort();
        assert_eq!(its, groups);
        assert_eq!(words(process.pid, "NoNewPrivs"), ["1"]);
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(words(process.pid, set), ["0000000000000000"], "{set} of {process:?}");
        }
    }
}

#[test]
fn children_are_somebody_else_and_the_master_is_not() {
    if !geteuid().is_root() {
        // Only root can be somebody else.
        return;
    }
    let dir = tempdir().unwrap();
    // The folder of a test is its owner's alone.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    write_file(dir.path(), FILE);
    let mut server = Setup::file(&dir).start();
    assert_eq!(server.group().len(), 5);
    check_processes(&server);
    assert_eq!(get(server.address("web"), "/hello").status, 200);
    let gateway = server.address("gateway").to_string();
    let account = ["--to", &gateway, "--user", "somebody", "--password", "secret"];
    let register = tidegate_in(dir.path(), [&["msg", "register"], &account[..]].concat());
    assert_eq!(register.status.code(), Some(0), "{register:?}");
    assert_eq!(fs::metadata(server.data("accounts.db")).unwrap().uid(), nobody().0);

    // The next generation has a listener that only root may bind.
    server.write(
        &FILE.replace("]\n", "{ name = \"low\", address = \"127.0.0.77:79\", service = \"echo\" }]\n"),
    );
    assert_eq!(server.reload(), 2);
    assert!(std::net::TcpStream::connect("127.0.0.77:79").is_ok());
    server.wait_status("one generation is left", |it| it.generations.len() == 1);
    check_processes(&server);
    assert_eq!(server.upgrade(), 3);
    let status = server.wait_status("one generation is left", |it| it.generations.len() == 1);
    assert_eq!(current(&status), 3);
    check_processes(&server);
    let login = tidegate_in(dir.path(), [&["msg", "login"], &account[..]].concat());
    assert_eq!(login.status.code(), Some(0), "{}", stdout(&login));
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    server.check_nothing_left();
    assert!(crate::log::records(&server).iter().any(|record| record.body.contains("worker serves")));
    assert!(!server.all_lines().iter().any(|line| line.contains("ERROR")));
}
