//! Tests of the store on real files.

use std::path::Path;

use super::*;
use crate::Record;

fn options(dir: &Path) -> StoreOptions {
    let resource = Resource { process: "log server".into(), pid: 1, generation: 1 };
    StoreOptions { retry_after: Duration::ZERO, ..StoreOptions::new(dir, resource) }
}

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    files::list(dir).unwrap().iter().map(|file| file.name.to_string()).collect()
}

fn text(dir: &Path) -> String {
    files::list(dir).unwrap().iter().map(|file| std::fs::read_to_string(&file.path).unwrap()).collect()
}

fn line(number: usize) -> String {
    format!("{{\"line\":\"{number:020}\"}}\n")
}

#[test]
fn each_day_has_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(&dir.path().join("made"))).unwrap();
    for time in ["2026-01-31T23:59:59.999Z", "2026-02-01T00:00:00Z"] {
        store.append(b"{}\n");
        store.flush_at(at(time), Instant::now());
    }
    assert_eq!(names(store.dir()), ["tidegate-2026-01-31.0.jsonl", "tidegate-2026-02-01.0.jsonl"]);
    assert_eq!(store.counts(), StoreCounts { records: 2, bytes: 6, dropped: 0, failures: 0 });
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &files::list(store.dir()).unwrap()[0].path.metadata().unwrap().permissions(),
    );
    assert_eq!(mode & 0o137, 0, "nobody else reads or writes it");
}

#[test]
fn a_full_file_is_followed_by_the_next_and_no_line_is_divided() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(StoreOptions { max_file_bytes: 100, ..options(dir.path()) }).unwrap();
    let lines: String = (0..10).map(line).collect();
    for number in 0..10 {
        store.append(line(number).as_bytes());
    }
    store.flush();
    assert_eq!(text(dir.path()), lines);
    for file in files::list(dir.path()).unwrap() {
        assert!(file.bytes <= 100 && file.bytes % line(0).len() as u64 == 0, "{file:?}");
    }
    assert_eq!(names(dir.path()).len(), 4, "three lines of 33 bytes fit into a file");
    let long = "x".repeat(300);
    store.append(long.as_bytes());
    store.append(b"{}");
    store.flush();
    assert_eq!(
        text(dir.path()),
        format!("{lines}{long}\n{{}}\n"),
        "a line that fits nowhere has a file of its own"
    );
}

#[test]
fn the_oldest_files_go_first_and_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tidegate-2020-01-01.0.jsonl"), "x".repeat(500)).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "y".repeat(5000)).unwrap();
    let limits = StoreOptions { max_file_bytes: 100, max_total_bytes: 350, ..options(dir.path()) };
    let mut store = Store::open(limits).unwrap();
    for number in 0..100 {
        store.append(line(number).as_bytes());
        store.flush();
        let total: u64 = files::list(dir.path()).unwrap().iter().map(|file| file.bytes).sum();
        assert!(total <= 350, "{total}");
    }
    let kept: String = (94..100).map(line).collect();
    assert!(text(dir.path()).ends_with(&kept), "no more is removed than must be");
    assert!(dir.path().join("notes.txt").exists());
    assert!(!dir.path().join("tidegate-2020-01-01.0.jsonl").exists());
}

#[test]
fn a_total_limit_below_the_files_limit_holds_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(StoreOptions { max_total_bytes: 100, ..options(dir.path()) }).unwrap();
    for number in 0..50 {
        store.append(line(number).as_bytes());
        store.flush();
        let total: u64 = files::list(dir.path()).unwrap().iter().map(|file| file.bytes).sum();
        assert!(total <= 100, "{total}");
    }
}

#[test]
fn the_newest_file_of_the_day_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let now = at("2026-01-31T12:00:00Z");
    for (number, torn) in [(1, "{\"torn"), (2, ""), (3, "")] {
        let mut store = Store::open(options(dir.path())).unwrap();
        store.append(line(number).as_bytes());
        store.flush_at(now, Instant::now());
        drop(store);
        let path = dir.path().join("tidegate-2026-01-31.0.jsonl");
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, whole + torn).unwrap();
    }
    assert_eq!(text(dir.path()), line(1) + &line(2) + &line(3));
    assert_eq!(names(dir.path()).len(), 1);
}

#[test]
fn a_file_that_was_removed_or_moved_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(dir.path())).unwrap();
    let now = at("2026-01-31T12:00:00Z");
    let path = dir.path().join("tidegate-2026-01-31.0.jsonl");
    let mut put = |number| {
        store.append(line(number).as_bytes());
        store.flush_at(now, Instant::now());
    };
    put(1);
    std::fs::remove_file(&path).unwrap();
    put(2);
    assert_eq!(text(dir.path()), line(2));
    let moved = dir.path().join("moved");
    std::fs::rename(&path, &moved).unwrap();
    put(3);
    assert_eq!(std::fs::read_to_string(&moved).unwrap(), line(2) + &line(3), "until it is told to reopen");
    store.reopen();
    store.append(line(4).as_bytes());
    store.flush_at(now, Instant::now());
    assert_eq!(text(dir.path()), line(4));
}

/// Takes the directory away from the store: in its place is a file.
struct Away {
    dir: std::path::PathBuf,
    hidden: std::path::PathBuf,
}

impl Away {
    fn take(store: &mut Store) -> Self {
        let dir = store.dir().to_owned();
        let hidden = dir.with_extension("hidden");
        store.reopen();
        std::fs::rename(&dir, &hidden).unwrap();
        std::fs::write(&dir, "").unwrap();
        Self { dir, hidden }
    }

    fn give_back(self) {
        std::fs::remove_file(&self.dir).unwrap();
        std::fs::rename(&self.hidden, &self.dir).unwrap();
    }
}

#[test]
fn lines_wait_for_a_directory_that_vanished_and_nothing_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let mut store = Store::open(options(&root.path().join("log"))).unwrap();
    store.append(line(1).as_bytes());
    store.flush();
    let away = Away::take(&mut store);
    for number in 2..=50 {
        store.append(line(number).as_bytes());
        store.flush();
        assert!(store.failure().is_some());
    }
    assert!(store.new_failure().is_some() && store.new_failure().is_none(), "it is told once");
    assert_eq!(store.counts().records, 1);
    away.give_back();
    store.flush();
    assert!(store.failure().is_none());
    let text = text(store.dir());
    let expected: String = (1..=50).map(line).collect();
    let notice = text.strip_prefix(&expected).expect("all lines are there, in order");
    let record = Record::parse(notice.as_bytes()).unwrap();
    assert_eq!(record.body, "the log directory can be written again");
    assert_eq!(record.attributes["dropped"], 0);
    assert_eq!(store.counts().dropped, 0);
}

#[test]
fn what_does_not_fit_into_the_buffer_is_dropped_and_counted() {
    let root = tempfile::tempdir().unwrap();
    let limits = StoreOptions { buffer_bytes: 1000, ..options(&root.path().join("log")) };
    let mut store = Store::open(limits).unwrap();
    let away = Away::take(&mut store);
    for number in 1..=1000 {
        store.append(line(number).as_bytes());
        store.flush();
        assert!(store.pending_bytes() <= 1000);
    }
    away.give_back();
    store.flush();
    let text = text(store.dir());
    let lines: Vec<&str> = text.lines().collect();
    let record = Record::parse(lines[lines.len() - 1].as_bytes()).unwrap();
    let kept = lines.len() - 1;
    assert!(kept >= 20, "{kept}");
    assert_eq!(record.attributes["dropped"], 1000 - kept);
    assert_eq!(store.counts().dropped, 1000 - kept as u64);
    let newest: String = (1001 - kept..=1000).map(line).collect();
    assert!(text.starts_with(&newest), "the newest are kept");
}

#[test]
fn a_disk_in_trouble_is_left_alone_for_a_while() {
    let root = tempfile::tempdir().unwrap();
    let limits = StoreOptions { retry_after: Duration::from_secs(3600), ..options(&root.path().join("log")) };
    let mut store = Store::open(limits).unwrap();
    let away = Away::take(&mut store);
    let (now, clock) = (Timestamp::now(), Instant::now());
    store.append(b"{}");
    store.flush_at(now, clock);
    store.flush_at(now, clock + Duration::from_secs(3599));
    assert_eq!(store.counts().failures, 1);
    away.give_back();
    store.flush_at(now, clock + Duration::from_secs(3599));
    assert_eq!(store.counts().records, 0);
    store.flush_at(now, clock + Duration::from_secs(3600));
    assert_eq!(store.counts().records, 2, "the line, and the record that says what happened");
}

/// A file system of 128 KiB, unmounted at the end. `None` where that is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=128k", "tidegate-test"]).arg(dir.path());
        let mounted = mount.stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then(|| Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_costs_nothing_but_what_does_not_fit() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: a small file system can be mounted by root only");
        return;
    };
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![0; 60_000]).unwrap();
    let mut store = Store::open(options(&disk.0.path().join("log"))).unwrap();
    let mut number = 0;
    // In batches whose size has nothing to do with that of a page, so that the last is cut in the middle of a line.
    while store.failure().is_none() {
        assert!(number < 100_000, "the disk has 128 KiB");
        for _ in 0..77 {
            number += 1;
            store.append(line(number).as_bytes());
        }
        store.flush();
    }
    assert_eq!(store.failure().unwrap().raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()));
    let stored = text(store.dir());
    assert!(stored.ends_with('\n') && stored.len() > 1000, "only whole lines are on the disk");
    std::fs::remove_file(&ballast).unwrap();
    store.flush();
    assert!(store.failure().is_none());
    let stored = text(store.dir());
    let expected: String = (1..=number).map(line).collect();
    let notice = stored.strip_prefix(&expected).expect("every line is there, once, in order");
    assert_eq!(Record::parse(notice.as_bytes()).unwrap().attributes["dropped"], 0);
    assert_eq!(store.counts().bytes, stored.len() as u64);
}

#[test]
fn what_waits_is_written_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = SharedStore::new(Store::open(options(dir.path())).unwrap());
    store.clone().lock().append(b"{}");
    assert_eq!(text(dir.path()), "");
    drop(store);
    assert_eq!(text(dir.path()), "{}\n");
}

#[test]
fn a_directory_that_cannot_be_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(options(&file)).unwrap_err();
    assert!(error.to_string().ends_with("/file"), "{error}");
}
