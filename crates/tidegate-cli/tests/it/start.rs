//! Starting: the ready line, the titles, and starts that are refused.

use rustix::process::Signal;
use tempfile::tempdir;

use crate::http::get;
use crate::processes::Exit;
use crate::support::Setup;

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
        last.starts_with("tidegate: listener \"web\": cannot listen on ") && last.contains(&address),
        "{last}"
    );
    assert!(last.contains("in use"), "{last}");
    // Had it joined the first one's sockets, some of these would wait in vain.
    for _ in 0..8 {
        assert_eq!(get(server.address("web"), "/hello").status, 200);
    }
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
