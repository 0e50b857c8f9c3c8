//! Children that run as another user.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;

use tidegate_sys::process::{Credentials, Exe, Spawn, SpawnError};

use crate::{Case, output_of, say};

pub(crate) const ALL: &[Case] = &[
    ("a_child_is_another_user_without_any_capability", another_user),
    ("a_child_of_the_same_user_gives_up_its_capabilities", same_user),
    ("a_binary_that_the_user_may_not_execute_is_an_error_that_says_so", forbidden_binary),
    ("who_may_not_become_another_user_is_told_the_step", no_privilege),
];

/// Whether the tests run as root; else says that a test is skipped.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        say("skipped: only root can become another user");
    }
    is_root
}

/// A copy of this program that everybody may execute, since the folder of the build may be closed to others.
fn open_binary(mode: u32) -> (tempfile::TempDir, Exe) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::copy("/proc/self/exe", &path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    let exe = Exe::open(&path).unwrap();
    (dir, exe)
}

fn another_user() {
    if !is_root() {
        return;
    }
    let (dir, exe) = open_binary(0o755);
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let user = Credentials::of_user("nobody:7").unwrap();
    let output = output_of(Spawn::new(&exe, "test", "credentials").args([&secret]).user(&user));

    let uid = user.uid();
    let mut groups: Vec<u32> = user.groups().collect();
    groups.sort_unstable();
    let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
    let expected = [
        format!("Uid: {uid} {uid} {uid} {uid}"),
        "Gid: 7 7 7 7".to_owned(),
        format!("Groups: {}", groups.join(" ")),
        NO_CAPABILITIES.to_owned(),
        "NoNewPrivs: 1".to_owned(),
        "secret: PermissionDenied".to_owned(),
    ];
    assert_eq!(output.trim_end(), expected.join("\n"));
    assert!(!rustix::thread::no_new_privs().unwrap(), "this process is what it was");
}

fn same_user() {
    let own = format!("{}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let user = Credentials::of_user(&own).unwrap();
    if !rustix::process::geteuid().is_root() && !user.is_current().unwrap() {
        say("skipped: the groups of this process are not those of its user");
        return;
    }
    let exe = Exe::open_self().unwrap();
    let output = output_of(Spawn::new(&exe, "test", "credentials").args(["/nonexistent"]).user(&user));
    let empty_sets = NO_CAPABILITIES.lines().filter(|line| !line.starts_with("CapBnd"));
    for line in empty_sets.chain(["NoNewPrivs: 1", "secret: NotFound"]) {
        assert!(output.lines().any(|found| found == line), "{line}: {output}");
    }
}

fn forbidden_binary() {
    if !is_root() {
        return;
    }
    let (_dir, exe) = open_binary(0o700);
    let user = Credentials::of_user("nobody").unwrap();
    let error = Spawn::new(&exe, "test", "credentials").user(&user).start().unwrap_err();
    let SpawnError::Child { step, source } = error else { panic!("{error:?}") };
    assert_eq!(step, "exec of the binary, which the user of the child must be allowed to execute");
    assert_eq!(source.kind(), ErrorKind::PermissionDenied);
}

/// A child that has become nobody tries to start one that is root.
fn no_privilege() {
    if !is_root() {
        return;
    }
    let (_dir, exe) = open_binary(0o755);
    let user = Credentials::of_user("nobody").unwrap();
    let output = output_of(Spawn::new(&exe, "test", "credentials").args(["become-root"]).user(&user));
    assert_eq!(output, "child process: setgroups: PermissionDenied");
}

/// Says who it is.
pub(crate) fn play(out: &mut File) {
    let path = std::env::args_os().nth(1).unwrap();
    if path == "become-root" {
        let (exe, root) = (Exe::open_self().unwrap(), Credentials::of_user("root").unwrap());
        let error = Spawn::new(&exe, "test", "credentials").user(&root).start().unwrap_err();
        let SpawnError::Child { source, .. } = &error else { panic!("{error:?}") };
        write!(out, "{error}: {:?}", source.kind()).unwrap();
        return;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    for key in ["Uid:", "Gid:", "Groups:", "Cap", "NoNewPrivs:"] {
        for line in status.lines().filter(|line| line.starts_with(key)) {
            writeln!(out, "{}", line.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap();
        }
    }
    let secret = File::open(path).map_err(|error| error.kind());
    writeln!(out, "secret: {:?}", secret.unwrap_err()).unwrap();
}

const NO_CAPABILITIES: &str = "CapInh: 0000000000000000\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\n\
     CapBnd: 0000000000000000\nCapAmb: 0000000000000000";
