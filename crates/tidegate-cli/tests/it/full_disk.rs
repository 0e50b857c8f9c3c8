//! A full disk under the access log: every request is served, what found no room is counted and told, and records go on when
//! there is room again.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::tempdir;

use crate::http::{Connection, get, metric};
use crate::support::{Server, Setup, wait_until, write_file};

/// Runs this very test again in a mount namespace of its own, where a disk can be made.
#[test]
fn a_full_disk_under_the_access_log_costs_records_and_nothing_else() {
    const DISK: &str = "TIDEGATE_IT_FULL_DISK";
    if let Some(disk) = std::env::var_os(DISK) {
        return try_full_disk(Path::new(&disk));
    }
    let dir = tempdir().unwrap();
    let script = format!("mount -t tmpfs -o size=4m tmpfs \"${DISK}\" || exit 77; exec \"$0\" \"$@\"");
    let child = Command::new("unshare")
        .args(["-rm", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full_disk::a_full_disk_under_the_access_log_costs_records_and_nothing_else"])
        .env(DISK, dir.path())
        .output();
    match child {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("1 passed"), "{text}");
        }
        Ok(output) if matches!(output.status.code(), Some(77 | 1)) && output.stdout.is_empty() => {
            eprintln!("skipped: no mount namespace: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output) => panic!(
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => eprintln!("skipped: unshare: {error}"),
    }
}

fn try_full_disk(disk: &Path) {
    // Its other files are on a disk that has room.
    let dir = tempdir().unwrap();
    write_file(
        dir.path(),
        &format!(
            "process = {{ workers = 2 }}\nlisten = [\
             {{ name = \"web\", address = \"127.0.0.1:0\", service = \"web\" }},\
             {{ name = \"admin\", address = \"127.0.0.1:0\", service = \"admin\" }}]\n\
             web = {{ access_log = \"combined\" }}\nlog = {{ dir = \"{}\" }}\n",
            disk.join("log").display()
        ),
    );
    let mut server = Setup::file(&dir).start();
    // What somebody else keeps there, which will be taken away.
    fs::write(disk.join("ballast"), vec![0; 3 << 20]).unwrap();
    let mut clients: Vec<Connection> = (0..20).map(|_| Connection::open(server.address("web"))).collect();
    let mut asked = 0;
    wait_until("records are dropped", || {
        for _ in 0..50 {
            clients.iter_mut().for_each(|client| assert_eq!(client.get("/hello").status, 200));
            asked += clients.len();
        }
        dropped(&server) > 0
    });
    server.wait_line("the log directory cannot be written; records wait in memory");
    // And goes on to be.
    for _ in 0..50 {
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/hello").status, 200));
        asked += clients.len();
    }
    assert!(stored(disk, "/hello") < asked);
    fs::remove_file(disk.join("ballast")).unwrap();
    let mut number = 0;
    wait_until("a new record is stored", || {
        number += 1;
        assert_eq!(get(server.address("web"), &format!("/again-{number}")).status, 404);
        stored(disk, "/again-") > 0
    });
    wait_until("what is missing is told", || stored(disk, "\"dropped\"") > 0);
    let dropped = dropped(&server);
    // Each request has a record, or is among those that are missing; other records may be among these as well.
    wait_until("all that was not dropped is stored", || {
        stored(disk, "/hello") + usize::try_from(dropped).unwrap() >= asked
    });
}

/// How many records the log server has told that it dropped.
fn dropped(server: &Server) -> u64 {
    let text = get(server.address("admin"), "/metrics").body;
    metric(&text, "tidegate_log_dropped_total", &[]) + metric(&text, "tidegate_log_server_dropped_total", &[])
}

/// How many records in the files have this in them.
fn stored(disk: &Path, part: &str) -> usize {
    let files = fs::read_dir(disk.join("log")).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    texts.map(|text| text.lines().filter(|line| line.contains(part)).count()).sum()
}
