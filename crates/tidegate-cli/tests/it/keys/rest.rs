//! `[process]`, `[engine]`, `[gateway]`, `[accounts]` and `[log]`: at least one look at each key that can be seen from outside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;
use tempfile::tempdir;

use super::limits::stays_or_ends;
use super::{Case, World, case, check, connect, descriptors, hear, worker};
use crate::http::get;
use crate::support::{BOUND, Setup, stdout, wait_until, write_file};

pub(super) const CASES: &[Case] = &[
    case("engine.trigger", "edge", "level", |world| {
        // What polls itself in any case does not count.
        let before = edges(world);
        let _client = client(world, "echo");
        if edges(world) > before { "edge" } else { "level" }.to_owned()
    }),
    case("engine.dispatch", "inline", "pool", |world| {
        if threads(world, "pool") > 0 { "pool" } else { "inline" }.to_owned()
    }),
    case("engine.pool_threads", "0", "5", |world| threads(world, "pool").to_string()),
    case("engine.loops", "1", "3", |world| threads(world, "loop").to_string()),
    case("engine.acceptor", "0", "1", |world| threads(world, "acceptor").to_string()),
    case("engine.idle_timeout", "stays", "ends", |world| {
        stays_or_ends(hear(&mut connect(world.server.address("echo")), world.patience()).end)
    }),
    case("engine.max_buffer_bytes", "0", "some", |world| {
        let mut readers: Vec<TcpStream> = (0..40).map(|_| connect(world.web())).collect();
        // Nobody takes the answers, which the kernel has no room for.
        let request = "GET /long HTTP/1.1\r\nHost: test\r\n\r\n".repeat(20);
        // Who was the slowest has been ended.
        readers.iter_mut().for_each(|reader| drop(reader.write_all(request.as_bytes())));
        let is_any_ended = || readers.iter().any(|reader| reader.take_error().unwrap().is_some());
        if world.is_after {
            wait_until("the slowest is ended", is_any_ended);
            return "some".to_owned();
        }
        std::thread::sleep(super::MOMENT);
        if is_any_ended() { "some" } else { "0" }.to_owned()
    }),
    case("gateway.heartbeat_interval", "stays", "ends", |world| {
        // Ten seconds more than twice of it.
        stays_or_ends(hear(&mut connect(world.server.address("gateway")), world.patience()).end)
    }),
    case("gateway.max_queued_frames", "stays", "ends", |world| {
        let mut stream = connect(world.server.address("gateway"));
        stream.set_write_timeout(Some(world.patience())).unwrap();
        let pings = [0, 8, 0, 0, 0, 0, 0, 0].repeat(8 << 10);
        // Fewer than a million in all, far more than the kernel takes of the answers.
        for _ in 0..100 {
            match stream.write_all(&pings) {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return "ends".to_owned(),
                Err(_) => break,
                Ok(()) => {}
            }
        }
        if world.is_after {
            wait_until("its end is counted", || closed(world, "output-overflow") > 0);
            return "ends".to_owned();
        }
        "stays".to_owned()
    }),
    case("gateway.max_frames_per_second", "stays", "ends", |world| {
        let mut stream = connect(world.server.address("gateway"));
        stream.write_all(&[0, 8, 0, 0, 0, 0, 0, 0].repeat(50)).unwrap();
        stays_or_ends(hear(&mut stream, world.patience()).end)
    }),
    case("gateway.on_unknown", "stays", "ends", |world| {
        let mut stream = connect(world.server.address("gateway"));
        stream.write_all(&UNKNOWN).unwrap();
        stays_or_ends(hear(&mut stream, world.patience()).end)
    }),
    case("accounts.threads", "1", "3", |world| {
        // One more only asks the database.
        (threads(world, "accounts-") - threads(world, "accounts-quick")).to_string()
    }),
    case("accounts.queue", "false", "true", |world| {
        let form = "user=ada&password=wrong";
        let head = "Host: test\r\nContent-Type: application/x-www-form-urlencoded\r\nConnection: close";
        let request =
            format!("POST /api/login HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{form}", form.len());
        let mut streams: Vec<TcpStream> = (0..16).map(|_| connect(world.web())).collect();
        streams.iter_mut().for_each(|stream| stream.write_all(request.as_bytes()).unwrap());
        let statuses: Vec<String> = streams.iter_mut().map(|stream| hear(stream, BOUND).status()).collect();
        assert!(statuses.iter().any(|status| status == "401"), "{statuses:?}");
        statuses.iter().any(|status| status == "503").to_string()
    }),
    case("accounts.database", "true, false", "true, true", |world| {
        format!("{}, {}", world.path("data/accounts.db").exists(), world.path("other.db").exists())
    }),
    case("log.client_buffer", "false", "true", |world| {
        let stopped = crate::processes::stop(&world.server.log_server());
        let mut stream = connect(world.web());
        let request = "GET /hello HTTP/1.1\r\nHost: test\r\n\r\n";
        // More records than the kernel takes for a log server that does not read.
        for _ in 0..30 {
            stream.write_all(request.repeat(100).as_bytes()).unwrap();
            let mut answers = 0;
            while answers < 100 {
                let mut bytes = [0; 4096];
                let count = stream.read(&mut bytes).unwrap();
                // The last letter of each, and nowhere else.
                answers += bytes[..count].iter().filter(|byte| **byte == b'!').count();
            }
        }
        let is_any_dropped = || {
            let text = get(world.server.address("admin"), "/metrics").body;
            crate::http::metric(&text, "tidegate_log_dropped_total", &["worker"]) > 0
        };
        if world.is_after {
            wait_until("records are dropped", is_any_dropped);
        }
        let any = is_any_dropped();
        stopped.signal(Signal::CONT);
        any.to_string()
    }),
    case("log.level", "false", "true", |world| {
        drop(client(world, "echo"));
        let mut is_told = false;
        let told = || {
            let lines = world.server.tidegate(&["log", "tail", "-n", "1000", "--level", "debug"]);
            stdout(&lines).contains("connection closed")
        };
        if world.is_after {
            wait_until("the end is recorded", || {
                is_told = told();
                is_told
            });
        } else {
            is_told = told();
        }
        is_told.to_string()
    }),
];

/// A frame of a type that nobody knows.
const UNKNOWN: [u8; 8] = [0, 8, 0x7f, 0x77, 0, 0, 0, 0];

#[test]
fn the_rest_is_what_the_keys_say() {
    let listen: String = ["web", "echo", "gateway", "admin"]
        .map(|name| {
            let rest = "address = \"127.0.0.1:0\"\nsend_buffer = \"16KiB\"";
            format!("[[listen]]\nname = \"{name}\"\nservice = \"{name}\"\n{rest}\n")
        })
        .concat();
    let common = format!(
        "{listen}[[web.respond]]\npath = \"/hello\"\nbody = \"Hello!\"\n\
         [[web.respond]]\npath = \"/long\"\nbody = \"{}\"\n\
         [web]\napi = true\napi_max_failures = 1000\naccess_log = \"combined\"\nmin_rate = 0\n\
         [process]\nworkers = 1\n[engine]\nbackend = \"epoll\"\n",
        "x".repeat(60_000)
    );
    let before = format!(
        "{common}idle_timeout = \"1h\"\n[gateway]\nheartbeat_interval = \"1h\"\nmax_queued_frames = 1000000\n\
         [accounts]\nthreads = 1\n[log]\nclient_buffer = \"64MiB\"\n"
    );
    let after = format!(
        "{common}trigger = \"level\"\ndispatch = \"pool\"\nloops = 3\npool_threads = 5\nacceptor = \"main\"\n\
         max_connections = 100\nidle_timeout = \"100ms\"\nmax_buffer_bytes = \"1MiB\"\n\
         [gateway]\non_unknown = \"close\"\nmax_frames_per_second = 5\nheartbeat_interval = \"1ms\"\n\
         max_queued_frames = 1\n[accounts]\nthreads = 3\nqueue = 1\ndatabase = \"sqlite:other.db\"\n\
         [log]\nlevel = \"debug\"\nclient_buffer = \"4KiB\"\n"
    );
    check(|_| (), &before, &after, CASES);
}

/// Somebody who has been served.
fn client(world: &World, listener: &str) -> TcpStream {
    let mut stream = connect(world.server.address(listener));
    stream.write_all(b"x").unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// How many connections have been closed for a reason since the last reload or before.
fn closed(world: &World, reason: &str) -> u64 {
    let text = get(world.server.address("admin"), "/metrics").body;
    crate::http::metric(&text, "tidegate_connections_closed_total", &[&format!("reason=\"{reason}\"")])
}

/// How many descriptors a worker has registered with EPOLLET.
fn edges(world: &World) -> usize {
    let infos = fs::read_dir(format!("/proc/{}/fdinfo", worker(world).pid)).unwrap();
    let texts: Vec<String> = infos.filter_map(|info| fs::read_to_string(info.unwrap().path()).ok()).collect();
    let events = texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.split_once("events:"));
    let bits =
        events.map(|(_, rest)| u32::from_str_radix(rest.split_whitespace().next().unwrap(), 16).unwrap());
    bits.filter(|bits| bits & (1 << 31) != 0).count()
}

/// How many threads of the worker have names that begin so.
fn threads(world: &World, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", worker(world).pid)).unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|comm| comm.starts_with(name)).count()
}

pub(super) const CONNECTIONS: &[Case] = &[case("engine.max_connections", "4", "3", |world| {
    let address = world.server.address("echo");
    wait_until("nobody is left", || {
        world.server.status().listeners.iter().find(|it| it.name == "echo").unwrap().connections == 0
    });
    let mut open: Vec<TcpStream> = (0..4).map(|_| connect(address)).collect();
    let mut served = 0;
    for (nth, stream) in open.iter_mut().enumerate() {
        stream.write_all(b"x").unwrap();
        // Three are served in either world.
        stream.set_read_timeout(Some(if nth < 3 { BOUND } else { world.patience_before() })).unwrap();
        served += usize::from(matches!(stream.read(&mut [0]), Ok(1)));
    }
    served.to_string()
})];

#[test]
fn there_are_as_many_connections_as_the_key_says() {
    let most = |count| {
        format!(
            "process = {{ workers = 1 }}\nengine = {{ max_connections = {count} }}\n\
             listen = [{{ name = \"echo\", address = \"127.0.0.1:0\", service = \"echo\" }}]\n"
        )
    };
    check(|_| (), &most(100), &most(3), CONNECTIONS);
}

/// Which interface of the kernel a worker uses, or that it cannot have the one that it was told to.
#[test]
fn the_backend_is_the_one_that_was_named() {
    let backend = |name: &str| format!("process = {{ workers = 1 }}\nengine = {{ backend = \"{name}\" }}\n");
    check(|_| (), &backend("epoll"), &backend("uring"), BACKEND);
}

pub(super) const BACKEND: &[Case] = &[case("engine.backend", "epoll", "uring", |world| {
    let has = |part: &str| descriptors(world).iter().any(|name| name.contains(part));
    let refused =
        || stdout(&world.server.tidegate(&["log", "tail", "-n", "1000"])).contains("io_uring is not there");
    if has("[io_uring]") || (world.is_after && refused()) { "uring" } else { "epoll" }.to_owned()
})];

/// What only a restart changes: each is where it was told to be, and a reload that would change it is refused.
pub(super) const AT_START: &[&str] = &[
    "data_dir",
    "process.pid_file",
    "process.control_socket",
    "process.max_open_files",
    "log.dir",
    "log.socket",
    "log.max_file_bytes",
    "log.max_total_bytes",
    "process.daemon",
    "process.user",
];

#[test]
fn what_is_said_for_the_start_is_so_and_a_reload_does_not_change_it() {
    let dir = tempdir().unwrap();
    let set = [
        ("process.pid_file", "own.pid", "other.pid"),
        ("process.control_socket", "data/control.sock", "other.sock"),
        ("process.max_open_files", "300", "301"),
        ("log.dir", "records", "others"),
        ("log.socket", "own.log.sock", "other.log.sock"),
        ("log.max_file_bytes", "4KiB", "8KiB"),
        ("log.max_total_bytes", "12KiB", "16KiB"),
        ("process.daemon", "false", "true"),
        ("process.user", "", "nobody"),
        ("data_dir", "data", "other"),
    ];
    assert_eq!(set.map(|(key, ..)| AT_START.contains(&key)), [true; 10]);
    let table = |changed: Option<&str>| -> String {
        let line = |(key, before, after): &(&str, &str, &str)| {
            let value = if changed == Some(*key) { after } else { before };
            let is_bare = ["process.max_open_files", "process.daemon"].contains(key);
            if is_bare { format!("{key} = {value}\n") } else { format!("{key} = \"{value}\"\n") }
        };
        let rest = "process.workers = 1\nlisten = [{ name = \"web\", address = \"127.0.0.1:0\", service = \"web\" }]\n";
        set.iter().map(line).chain([rest.to_owned()]).collect()
    };
    let write = |text: &str| fs::write(dir.path().join("tidegate.toml"), text).unwrap();
    write(&table(None));
    let server = Setup::file(&dir).start();
    let is_there = |name: &str| dir.path().join(name).exists();
    for name in ["own.pid", "data/control.sock", "records", "own.log.sock"] {
        assert!(is_there(name), "{name}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.worker(0).pid)).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().next(), Some("300"));
    for (key, ..) in set {
        write(&table(Some(key)));
        // Whoever asks has to find the server that runs.
        let socket = dir.path().join("data/control.sock");
        let answer = tidegate::control_socket::request(&socket, b"reload", BOUND);
        let answer = String::from_utf8_lossy(&answer.unwrap()).into_owned();
        assert!(answer.contains(key) && answer.contains("cannot be changed by a reload"), "{key}: {answer}");
    }
    // Files are no larger than they may be, and no more of them stay.
    write(&table(None));
    for _ in 0..400 {
        server.signal(Signal::USR1);
        assert_eq!(get(server.address("web"), "/hello").status, 200);
    }
    let sizes = || -> Vec<u64> {
        let files = fs::read_dir(dir.path().join("records")).unwrap();
        files.filter_map(|file| Some(file.unwrap().metadata().ok()?.len())).collect()
    };
    wait_until("there are several files", || sizes().len() > 1);
    assert!(sizes().iter().all(|&size| size <= 4 << 10), "{:?}", sizes());
    assert!(sizes().iter().sum::<u64>() <= 12 << 10, "{:?}", sizes());
}

/// `/readyz` turns before the listeners close.
#[test]
fn the_delay_of_a_stop_is_for_balancers_to_see_it() {
    let dir = tempdir().unwrap();
    write_file(
        dir.path(),
        "process = { workers = 1, shutdown_delay = \"1h\" }\n\
         listen = [{ name = \"admin\", address = \"127.0.0.1:0\", service = \"admin\" }]\n",
    );
    let server = Setup::file(&dir).start();
    let ready = || get(server.address("admin"), "/readyz").status;
    assert_eq!(ready(), 200);
    server.signal(Signal::QUIT);
    wait_until("balancers are told", || ready() == 503);
    assert_eq!(server.end(Signal::TERM), crate::processes::Exit::Code(0));
}

/// A worker that does not turn is replaced, if somebody has said so.
#[test]
fn a_worker_that_hangs_is_replaced_after_its_time() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).set("process.hang_timeout=1s").start();
    let before = server.worker(0);
    let _stopped = crate::processes::stop(&before);
    server.wait_status("the worker is replaced", |status| crate::support::is_replaced(status, &before));
}
