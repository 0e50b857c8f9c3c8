//! A program that a service manager starts with open descriptors.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};

use rustix::io::{FdFlags, fcntl_getfd};
use tidegate_sys::process::{ActivationError, Exe, Spawn, take_activated};

use crate::Case;

/// Set for the program that plays the one that was started; its value is what it expects.
pub(crate) const PART: &str = "TEST_ACTIVATED";
pub(crate) const ALL: &[Case] = &[
    ("activated_descriptors_arrive_with_their_names", arrive),
    ("those_of_another_process_are_left_alone", of_another),
    ("one_that_is_not_open_is_named", not_open),
    ("a_child_is_told_nothing_of_the_manager", children_know_nothing),
];

/// Starts this program as a manager does, with a listener at 3 and nothing at 4. The pid is known in the child only, so a
/// shell writes it down, and then becomes the program.
fn output_of(part: &str, count: &str, names: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "export LISTEN_PID=$$; [ \"$TEST_ACTIVATED\" = other ] && LISTEN_PID=1; \
        exec \"$0\" 3<&0 4<&- </dev/null";
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script).arg(std::env::current_exe().unwrap()).stdin(OwnedFd::from(listener));
    command.env(PART, part).env("LISTEN_FDS", count).env("LISTEN_FDNAMES", names);
    command.env("NOTIFY_SOCKET", "@nobody").env("WATCHDOG_USEC", "1").stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success(), "{output}");
    output
}

fn arrive() {
    assert_eq!(output_of("taken", "1", "web"), "web 3 closed at exec true; twice refused true\n");
}

fn of_another() {
    assert_eq!(output_of("other", "1", "web"), "none; 3 is open true\n");
}

fn not_open() {
    let output = output_of("error", "2", "web:gateway");
    assert_eq!(output, "activated descriptor 4 (\"gateway\") is not open\n");
}

fn children_know_nothing() {
    assert_eq!(output_of("spawn", "1", "web"), "variables:\n");
}

/// What the started program does.
pub(crate) fn play() -> ExitCode {
    let line = match std::env::var(PART).unwrap().as_str() {
        "taken" => {
            let fds = take_activated().unwrap();
            let [(name, fd)] = fds.as_slice() else { panic!("{fds:?}") };
            let is_closed = fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC);
            let is_twice = matches!(take_activated(), Err(ActivationError::Twice));
            format!("{name} {} closed at exec {is_closed}; twice refused {is_twice}", fd.as_raw_fd())
        }
        "other" => {
            assert!(take_activated().unwrap().is_empty());
            format!("none; 3 is open {}", std::fs::read_link("/proc/self/fd/3").is_ok())
        }
        "error" => take_activated().unwrap_err().to_string(),
        "spawn" => {
            let exe = Exe::open(std::path::Path::new("/bin/sh")).unwrap();
            let script =
                "echo variables: $LISTEN_PID $LISTEN_FDS $LISTEN_FDNAMES $NOTIFY_SOCKET $WATCHDOG_USEC";
            let child = Spawn::new(&exe, "sh", "none").args(["-c", script]).start().unwrap();
            assert!(child.wait().unwrap().is_success());
            return ExitCode::SUCCESS;
        }
        part => panic!("part {part:?}"),
    };
    crate::say(&line);
    ExitCode::SUCCESS
}
