//! `tidegate upgrade`: another program in the same process, and nobody loses a connection.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use tempfile::{TempDir, tempdir};
use tidegate::Status;

use crate::http::{Connection, get};
use crate::processes::{Exit, Watched};
use crate::support::{Client, Server, Setup, TIDEGATE, current, tidegate_in, write_file};

const FILE: &str = r#"
process = { workers = 2 }
listen = [
    { name = "web", address = "127.0.0.1:0", service = "web" },
    { name = "gateway", address = "127.0.0.1:0", service = "gateway" },
    { name = "admin", address = "127.0.0.1:0", service = "admin" },
]
"#;

/// A server whose program is a file of its own.
fn start(dir: &TempDir) -> Server {
    write_file(dir.path(), FILE);
    let mut setup = Setup::file(dir);
    setup.program = dir.path().join("tidegate");
    install(&setup.program, Path::new(TIDEGATE));
    setup.start()
}

/// Puts a copy of a program at a path, as package managers do; returns its inode.
fn install(at: &Path, program: &Path) -> u64 {
    let next = at.with_extension("next");
    fs::copy(program, &next).unwrap();
    fs::rename(&next, at).unwrap();
    fs::metadata(at).unwrap().ino()
}

/// Which file a process runs.
fn runs(pid: i32) -> u64 {
    fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino()
}

fn serves(server: &Server) {
    for _ in 0..20 {
        assert_eq!(get(server.address("web"), "/hello").body, "Hello, World!");
    }
}

/// Whatever runs there is the same server as before.
#[track_caller]
fn check_whole(server: &Server) {
    let status = server.status();
    assert_eq!(status.processes[0].pid, u64::try_from(server.pid()).unwrap());
    let text = fs::read_to_string(server.data("tidegate.pid")).unwrap();
    assert_eq!(text.trim(), server.pid().to_string());
    let file = fs::File::open(server.data("tidegate.pid")).unwrap();
    assert!(flock(&file, FlockOperation::NonBlockingLockShared).is_err(), "the pid file is not locked");
    assert_eq!(fs::metadata(server.data("control.sock")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(server.data("log.sock").exists());
    for (name, address) in server.listeners() {
        assert_eq!(server.address_now(name), *address);
    }
    serves(server);
}

#[test]
fn the_new_program_goes_on_in_the_same_process() {
    let dir = tempdir().unwrap();
    let mut server = start(&dir);
    let mut client = Client::open(server.address("gateway"));
    let before = runs(server.pid());
    for generation in 2..=3 {
        let next = install(&dir.path().join("tidegate"), Path::new(TIDEGATE));
        assert_ne!(next, before);
        assert_eq!(server.upgrade(), generation);
        assert_eq!(runs(server.pid()), next);
        let status = server.status();
        for process in status.processes.iter().filter(|it| it.generation == generation && it.role == "worker")
        {
            assert_eq!(runs(process.pid.try_into().unwrap()), next);
        }
        check_whole(&server);
        client.ping();
        // It is told to end a moment later, and started again by the new program.
        server.wait_status("the log server is of the new program", |it| {
            let program = fs::metadata(format!("/proc/{}/exe", crate::support::log_server(it).pid));
            program.is_ok_and(|program| program.ino() == next)
        });
    }
    assert_eq!(server.reload(), 4);
    check_whole(&server);
    client.ping();
    drop(client);
    server.wait_status("the older generations have ended", |it| it.generations.len() == 1);
    let stop = server.tidegate(&["stop"]);
    assert_eq!(stop.status.code(), Some(0), "{stop:?}");
    assert_eq!(server.wait_exit(), Exit::Code(0));
    server.check_nothing_left();
    let records = crate::log::records(&server);
    assert!(records.iter().any(|record| record.body.contains("graceful stop")), "the log goes on to the end");
    assert!(!server.all_lines().iter().any(|line| line.contains("ERROR")));
}

/// An upgrade that does not happen.
#[track_caller]
fn check_refused(server: &Server, client: &mut Client, parts: &[&str]) {
    let before = (runs(server.pid()), server.status());
    let text = server.refused(&["upgrade"]);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let after = (runs(server.pid()), server.status());
    let pids = |status: &Status| status.processes.iter().map(|it| it.pid).collect::<Vec<_>>();
    assert_eq!((after.0, pids(&after.1)), (before.0, pids(&before.1)));
    check_whole(server);
    client.ping();
}

fn put(at: &Path, content: &str, mode: u32) {
    let next = at.with_extension("next");
    fs::write(&next, content).unwrap();
    fs::set_permissions(&next, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(&next, at).unwrap();
}

#[test]
fn what_is_no_good_is_refused_and_the_old_program_serves_on() {
    let dir = tempdir().unwrap();
    let server = start(&dir);
    let mut client = Client::open(server.address("gateway"));
    let at = dir.path().join("tidegate");
    let name = at.to_str().unwrap();
    put(&at, "this is no program\n", 0o755);
    check_refused(&server, &mut client, &["not upgraded", name, "Exec format error"]);
    put(&at, "this may not be run\n", 0o644);
    check_refused(&server, &mut client, &["not upgraded", name, "Permission denied"]);
    fs::remove_file(&at).unwrap();
    check_refused(&server, &mut client, &["not upgraded", name, "No such file"]);
    put(&at, "#!/bin/sh\nexit 3\n", 0o755);
    check_refused(&server, &mut client, &["not upgraded", name, "script"]);
    install(&at, &found("false"));
    check_refused(&server, &mut client, &["not upgraded", name, "exit code 1"]);
    // It ends as if all were well, and has not said that it could serve.
    install(&at, &found("true"));
    check_refused(&server, &mut client, &["not upgraded", name, "exit code 0"]);
    // A good one whose configuration is not.
    install(&at, Path::new(TIDEGATE));
    server.write(&format!("{FILE}web.rooot = 1\n"));
    check_refused(&server, &mut client, &["not upgraded", "was not asked", "tidegate.toml:9:", "rooot"]);
    // What is no concern of the command.
    server.write(&format!("{FILE}web.root = \"nowhere\"\n"));
    check_refused(&server, &mut client, &["not upgraded", name, "tidegate.toml:9:", "nowhere"]);
    server.write(FILE);
    assert!(server.upgrade() > 1);
    check_whole(&server);
    client.ping();
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}

/// A program of the system.
fn found(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|it| it.exists());
    fs::canonicalize(found.unwrap()).unwrap()
}

#[test]
fn a_stop_does_not_wait_for_a_program_that_hangs() {
    let dir = tempdir().unwrap();
    let mut server = start(&dir);
    let at = dir.path().join("tidegate");
    install(&at, &found("yes"));
    let folder = dir.path().to_owned();
    let asked = thread::spawn(move || tidegate_in(&folder, ["upgrade"]));
    server.wait_lines(&["child started", "role=probe"]);
    serves(&server);
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    let output = asked.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    server.check_nothing_left();
}

#[test]
fn an_upgrade_and_reloads_pass_while_a_generation_drains() {
    let dir = tempdir().unwrap();
    let server = start(&dir);
    let mut first = Client::open(server.address("gateway"));
    assert_eq!(server.reload(), 2);
    let mut second = Client::open(server.address("gateway"));
    install(&dir.path().join("tidegate"), Path::new(TIDEGATE));
    assert_eq!(server.upgrade(), 3);
    let mut third = Client::open(server.address("gateway"));
    assert_eq!(server.reload(), 4);
    let held = |status: &Status| -> Vec<u64> { status.generations.iter().map(|it| it.connections).collect() };
    let status = server.status();
    let (serving, retiring) = status.generations.split_last().unwrap();
    assert_eq!((serving.number, &*serving.state, serving.connections), (4, "current", 0));
    // Who came right after an upgrade may have been taken by a worker of before.
    assert!(retiring.iter().all(|it| it.state == "retiring"), "{retiring:?}");
    assert_eq!(held(&status).iter().sum::<u64>(), 3);
    [&mut first, &mut second, &mut third].into_iter().for_each(Client::ping);
    drop(first);
    let status = server.wait_status("it has gone", |it| held(it).iter().sum::<u64>() == 2);
    assert_eq!(current(&status), 4);
    [&mut second, &mut third].into_iter().for_each(Client::ping);
    check_whole(&server);
    drop((second, third));
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn workers_that_die_after_an_upgrade_are_replaced() {
    let dir = tempdir().unwrap();
    let server = start(&dir);
    server.upgrade();
    let status = server.wait_status("one generation is left", |it| it.generations.len() == 1);
    let before = crate::support::worker(&status, 0);
    Watched::of(before).signal(Signal::KILL);
    server.wait_status("there is another worker 0", |status| crate::support::is_replaced(status, before));
    let before = server.log_server();
    Watched::of(&before).signal(Signal::KILL);
    server.wait_status("there is another log server", |it| crate::support::is_replaced(it, &before));
    check_whole(&server);
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn a_link_is_followed_anew() {
    let dir = tempdir().unwrap();
    let (one, two, link) = (dir.path().join("v1"), dir.path().join("v2"), dir.path().join("current"));
    for folder in [&one, &two] {
        fs::create_dir(folder).unwrap();
        install(&folder.join("tidegate"), Path::new(TIDEGATE));
    }
    symlink("v1", &link).unwrap();
    write_file(dir.path(), FILE);
    let mut setup = Setup::file(&dir);
    setup.program = link.join("tidegate");
    let server = setup.start();
    let inode = |folder: &Path| fs::metadata(folder.join("tidegate")).unwrap().ino();
    assert_eq!(runs(server.pid()), inode(&one));
    fs::remove_file(&link).unwrap();
    symlink("v2", &link).unwrap();
    // The version before may be gone by then.
    fs::remove_dir_all(&one).unwrap();
    server.upgrade();
    assert_eq!(runs(server.pid()), inode(&two));
    check_whole(&server);
    // And back again.
    fs::create_dir(&one).unwrap();
    install(&one.join("tidegate"), Path::new(TIDEGATE));
    fs::remove_file(&link).unwrap();
    symlink("v1", &link).unwrap();
    server.upgrade();
    assert_eq!(runs(server.pid()), inode(&one));
    check_whole(&server);
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn a_request_in_flight_is_answered() {
    let dir = tempdir().unwrap();
    let server = start(&dir);
    let mut connection = Connection::open(server.address("web"));
    connection.send("GET /hello HTTP/1.1\r\nHo");
    server.wait_status("the half request has arrived", |status| {
        status.processes.iter().any(|it| it.role == "worker" && it.bytes_in > 0)
    });
    server.signal(Signal::USR2);
    server.wait_status("its worker knows that it retires", |status| {
        let of_it =
            |it: &&tidegate::ProcessStatus| it.role == "worker" && it.generation == 1 && it.bytes_in > 0;
        status.processes.iter().find(of_it).is_some_and(|it| it.state == "retiring")
    });
    connection.send("st: test\r\n\r\n");
    assert_eq!(connection.answer().unwrap().body, "Hello, World!");
    assert!(connection.ends_in_order());
    check_whole(&server);
}
