//! The threads of the server as the kernel has them: processors, niceness, stacks.

use std::fs;

use rustix::process::{Signal, getpriority_process, setpriority_process};
use tempfile::tempdir;
use tidegate::ProcessStatus;
use tidegate::config::CpuSet;

use crate::http::get;
use crate::processes::Exit;
use crate::support::{Setup, log_server, stdout, worker};

/// The processors that this process may use.
fn processors() -> Vec<u16> {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    (0..1024).filter(|cpu| set.is_set(usize::from(*cpu))).collect()
}

/// Name, `Cpus_allowed_list` and niceness of every thread of a process, read without any help of the server's.
fn tasks(process: &ProcessStatus) -> Vec<(String, String, i64)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.pid)).unwrap();
    tasks
        .map(|task| {
            let read = |file: &str| fs::read_to_string(task.as_ref().unwrap().path().join(file)).unwrap();
            let (status, stat) = (read("status"), read("stat"));
            let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
            let nice = stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap();
            (read("comm").trim().to_owned(), allowed.trim().to_owned(), nice.parse().unwrap())
        })
        .collect()
}

#[test]
fn loops_keep_to_their_processors_and_are_as_nice_as_told() {
    let (dir, cpus) = (tempdir().unwrap(), processors());
    let (first, last) = (cpus[0].to_string(), cpus[cpus.len() - 1].to_string());
    let sets = format!("engine.cpu_affinity=[\"{first}\", \"{last}\", \"{first}\"]");
    let setup = Setup::new(&dir).set(sets).set("engine.nice=7").set("engine.loops=2");
    let server = setup.set("engine.thread_stack=3MiB").start();
    let status = server.status();
    // Loops are counted over both workers, and the sets begin anew with the fourth.
    for (index, expect) in [(0, [&first, &last]), (1, [&first, &first])] {
        let worker = worker(&status, index);
        let told: Vec<_> = worker.threads.iter().map(|t| (t.name.as_str(), &t.cpus, t.nice)).collect();
        assert_eq!(told, [("loop-0", expect[0], 7), ("loop-1", expect[1], 7)]);
        assert!(worker.threads.iter().all(|thread| thread.stack >= 3 << 20), "{worker:?}");
        let tasks = tasks(worker);
        for (name, cpus, nice) in told {
            assert!(tasks.contains(&(name.to_owned(), cpus.clone(), nice)), "{name} of {tasks:?}");
        }
        // Whoever looks after the loops is not bound with them.
        let before = i64::from(getpriority_process(None).unwrap());
        assert!(
            tasks.iter().filter(|task| !task.0.starts_with("loop-")).all(|task| task.2 == before),
            "{tasks:?}"
        );
    }
    let table = server.tidegate(&["status"]);
    assert!(stdout(&table).contains("PROCESSORS  NICE  STACK\n"), "{}", stdout(&table));
    let line = stdout(&table).lines().find(|line| line.starts_with("worker 1  ") && line.contains("loop-1"));
    assert!(line.is_some_and(|line| line.ends_with("  3MiB")), "{}", stdout(&table));
}

#[test]
fn the_threads_of_a_pool_are_as_its_loops() {
    let (dir, cpus) = (tempdir().unwrap(), processors());
    let last = cpus[cpus.len() - 1].to_string();
    let setup =
        Setup::new(&dir).set("engine.dispatch=pool").set("engine.pool_threads=3").set("engine.loops=2");
    let server = setup.set(format!("engine.cpu_affinity=[\"{last}\"]")).set("engine.nice=7").start();
    assert_eq!(get(server.address("web"), "/hello").body, "Hello, World!");
    let status = server.status();
    for index in [0, 1] {
        let worker = worker(&status, index);
        let told: Vec<_> = worker.threads.iter().map(|t| (t.name.as_str(), &t.cpus, t.nice)).collect();
        let names = ["loop-0", "loop-1", "pool-0", "pool-1", "pool-2"];
        assert_eq!(told, names.map(|name| (name, &last, 7)));
    }
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}

#[test]
fn an_acceptor_runs_wherever_one_of_its_loops_may() {
    let (dir, cpus) = (tempdir().unwrap(), processors());
    let (first, last) = (cpus[0], cpus[cpus.len() - 1]);
    let setup = Setup::new(&dir).set(format!("engine.cpu_affinity=[\"{first}\", \"{last}\"]"));
    let setup = setup.set("engine.acceptor=main").set("engine.loops=2").set("engine.thread_stack=3MiB");
    let server = setup.set("engine.nice=7").start();
    let status = server.status();
    for index in [0, 1] {
        let worker = worker(&status, index);
        let names: Vec<_> = worker.threads.iter().map(|thread| thread.name.as_str()).collect();
        assert_eq!(names, ["loop-0", "loop-1", "acceptor"]);
        let acceptor = &worker.threads[2];
        let may: CpuSet = acceptor.cpus.parse().unwrap();
        assert_eq!(Some(may), CpuSet::new([first, last]));
        assert_eq!((acceptor.nice, acceptor.stack >= 3 << 20), (7, true), "{acceptor:?}");
        let told = (acceptor.name.clone(), acceptor.cpus.clone(), acceptor.nice);
        assert!(tasks(worker).contains(&told), "{:?}", tasks(worker));
    }
    let table = server.tidegate(&["status"]);
    assert_eq!(stdout(&table).lines().filter(|line| line.contains("  acceptor  ")).count(), 2);
}

#[test]
fn without_a_word_threads_are_as_the_server_was_started() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).start();
    let status = server.status();
    let inherited = &tasks(&status.processes[0])[0];
    for process in [worker(&status, 0), worker(&status, 1), log_server(&status)] {
        let [thread] = &process.threads[..] else { panic!("{process:?}") };
        assert_eq!((&thread.cpus, thread.nice), (&inherited.1, inherited.2));
    }
    assert!(status.processes[0].threads.is_empty(), "the master serves nobody");
}

#[test]
fn niceness_that_is_not_permitted_is_the_end_of_the_start() {
    let dir = tempdir().unwrap();
    // Of a thread of its own, or the tests after this one would have it too.
    let permitted = std::thread::spawn(|| setpriority_process(None, -20).is_ok()).join().unwrap();
    let setup = Setup::new(&dir).set("engine.nice=-20");
    if permitted {
        let status = setup.start().status();
        assert_eq!(worker(&status, 0).threads[0].nice, -20);
        return;
    }
    let mut server = setup.spawn();
    server.wait_lines(&["engine.nice = -20: permission denied", "CAP_SYS_NICE", "RLIMIT_NICE"]);
    assert_eq!(server.wait_exit(), Exit::Code(1));
}
