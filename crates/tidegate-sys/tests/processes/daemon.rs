//! Detached processes: this program starts one of itself in the background.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::Mode;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{getppid, umask};
use tidegate_sys::daemon::{Detached, Notifier, detach};
use tidegate_sys::process::{Exe, Replace, Spawn};

use crate::{Case, Part, output_of};

pub(crate) const ALL: &[Case] = &[
    ("a_daemon_leaves_everything_of_its_starter_behind", leaves_everything),
    ("the_starter_ends_when_the_daemon_is_ready", starter_ends),
    ("the_notifier_passes_over_an_exec", passes_over),
    ("the_starter_is_told_the_exit_code", exit_code),
    ("the_starter_learns_of_a_death", death),
];

/// The lines of starter and daemon, sorted, as they come in any order.
fn lines_of(role: &str) -> Vec<String> {
    let exe = Exe::open_self().unwrap();
    let output = output_of(Spawn::new(&exe, format!("test: {role}"), role));
    let mut lines: Vec<String> = output.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn leaves_everything() {
    let expected = [
        "daemon: folder /",
        "daemon: kept is open true, leaked is open false, own is open true",
        "daemon: mask 027",
        "daemon: new session true, its leader false",
        "daemon: parent is the starter false",
        "daemon: stderr is a pipe true, then /dev/null",
        "daemon: stdin /dev/null, stdout /dev/null",
        "starter: no child is left",
        "starter: ready, the pid is the daemon's true, it said \"before\\n\"",
    ];
    assert_eq!(lines_of("daemon:facts"), expected);
}

fn starter_ends() {
    assert_eq!(lines_of("daemon:child"), ["child: ended", "starter: Ready, it said \"\""]);
}

fn passes_over() {
    assert_eq!(lines_of("daemon:exec"), ["starter: Ready, it said \"from the second program\\n\""]);
}

fn exit_code() {
    assert_eq!(lines_of("daemon:failed"), ["starter: Failed(2), it said \"no\\nlast words\\n\""]);
}

fn death() {
    assert_eq!(lines_of("daemon:died"), ["starter: Died, it said \"dying\\n\""]);
}

/// What the starter and the daemon do in each of the cases.
pub(crate) fn play(mut part: Part, out: &File) {
    match part.role.as_str() {
        "daemon:facts" => facts(out),
        "daemon:child" => child(out),
        "daemon:sleeper" => {
            let mut gate = File::from(part.take_fd("gate").unwrap());
            std::io::copy(&mut gate, &mut std::io::sink()).unwrap();
            writeln!(&*out, "child: ended").unwrap();
        }
        "daemon:exec" => start(out, |notifier| {
            let exe = Exe::open_self().unwrap();
            let replace = Replace::new(&exe, "second", "daemon:second").fd("out", out.as_fd());
            panic!("{:?}", replace.fd("notifier", notifier.as_fd()).exec());
        }),
        "daemon:second" => {
            let notifier = Notifier::from_fd(part.take_fd("notifier").unwrap()).unwrap();
            eprint_line("from the second program");
            notifier.ready().unwrap();
        }
        "daemon:failed" => start(out, |notifier| {
            eprint_line("no");
            notifier.failed(2).unwrap();
            eprint_line("last words");
            std::process::exit(2);
        }),
        "daemon:died" => start(out, |_notifier| {
            eprint_line("dying");
            std::process::exit(0);
        }),
        role => panic!("role {role:?}"),
    }
}

fn start(out: &File, daemon: impl FnOnce(Notifier)) {
    match detach(&[]).unwrap() {
        Detached::Daemon(notifier) => daemon(notifier),
        Detached::Starter(waiter) => {
            let mut said = Vec::new();
            let outcome = format!("{:?}", waiter.wait(&mut said).unwrap());
            let outcome = outcome.split(' ').next().unwrap();
            writeln!(&*out, "starter: {outcome}, it said {:?}", String::from_utf8(said).unwrap()).unwrap();
        }
    }
}

/// The daemon starts a child that lives, with the same standard error, until the starter has returned.
fn child(out: &File) {
    let (gate, gate_end) = std::io::pipe().unwrap();
    match detach(&[]).unwrap() {
        Detached::Daemon(notifier) => {
            drop(gate_end);
            let exe = Exe::open_self().unwrap();
            let spawn = Spawn::new(&exe, "sleeper", "daemon:sleeper").fd("gate", gate.as_fd());
            let child = spawn.fd("out", out.as_fd()).start().unwrap();
            notifier.ready().unwrap();
            assert!(child.wait().unwrap().is_success());
        }
        Detached::Starter(waiter) => {
            let mut said = Vec::new();
            waiter.wait(&mut said).unwrap();
            writeln!(&*out, "starter: Ready, it said {:?}", String::from_utf8(said).unwrap()).unwrap();
            drop(gate_end);
        }
    }
}

/// Process group and session of this process; 0 where they belong to a leader outside of its PID namespace, as in a
/// container whose session was made by the host: `getsid` of rustix takes no such answer (proc_pid_stat(5)).
fn group_and_session() -> (u32, u32) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name of the program, in parentheses, may hold blanks.
    let mut fields = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().skip(2);
    let mut number = || fields.next().unwrap().parse().unwrap();
    (number(), number())
}

fn facts(out: &File) {
    let say = |line: String| (&*out).write_all(format!("{line}\n").as_bytes()).unwrap();
    let careless = || {
        let file = File::open("/dev/zero").unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        file
    };
    let (kept, leaked, own) = (careless(), careless(), File::open("/dev/zero").unwrap());
    let (starter, (_, session)) = (std::process::id(), group_and_session());
    // Nobody owns it, as it is with what a shell left open.
    let leaked = std::os::fd::IntoRawFd::into_raw_fd(leaked);
    let (mut daemon_pid, mut own_pid) = std::io::pipe().unwrap();
    match detach(&[kept.as_fd()]).unwrap() {
        Detached::Daemon(notifier) => {
            let (group, own_session) = group_and_session();
            let leads = own_session == std::process::id() || group == std::process::id();
            say(format!("daemon: new session {}, its leader {leads}", own_session != session));
            let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get().cast_unsigned());
            say(format!("daemon: parent is the starter {}", parent == starter));
            say(format!("daemon: mask {:03o}", umask(Mode::empty()).as_raw_mode()));
            say(format!("daemon: folder {}", std::env::current_dir().unwrap().display()));
            say(format!("daemon: stdin {}, stdout {}", link(0), link(1)));
            let is_open = |number: i32| link(number) == "/dev/zero";
            let (kept, own) = (is_open(kept.as_raw_fd()), is_open(own.as_raw_fd()));
            let leaked = is_open(leaked);
            say(format!("daemon: kept is open {kept}, leaked is open {leaked}, own is open {own}"));
            let is_pipe = link(2).starts_with("pipe:");
            eprint_line("before");
            // Told to the starter by another way, which it reads when the daemon is ready.
            write!(own_pid, "{}", std::process::id()).unwrap();
            notifier.ready().unwrap();
            eprint_line("after");
            say(format!("daemon: stderr is a pipe {is_pipe}, then {}", link(2)));
        }
        Detached::Starter(waiter) => {
            let mut said = Vec::new();
            let outcome = waiter.wait(&mut said).unwrap();
            let tidegate_sys::daemon::Outcome::Ready { pid } = outcome else { panic!("{outcome:?}") };
            drop(own_pid);
            let mut its_pid = String::new();
            daemon_pid.read_to_string(&mut its_pid).unwrap();
            let is_daemon = its_pid == pid.to_string();
            let said = String::from_utf8(said).unwrap();
            say(format!("starter: ready, the pid is the daemon's {is_daemon}, it said {said:?}"));
            let child = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
            say(format!("starter: {}", if child.is_err() { "no child is left" } else { "a child is left" }));
        }
    }
}

fn link(number: i32) -> String {
    let link = std::fs::read_link(format!("/proc/self/fd/{number}"));
    link.map_or("closed".to_owned(), |link| link.to_string_lossy().into_owned())
}

fn eprint_line(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}
