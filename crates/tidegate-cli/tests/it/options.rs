//! Options of listeners, read from the descriptors of the workers.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{getpeername, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tempfile::tempdir;
use tidegate::ProcessStatus;

use crate::http::Connection;
use crate::support::{Setup, pid, worker};

/// The worker's end of a connection, as a copy of its descriptor.
pub(crate) fn accepted(worker: &ProcessStatus, client: SocketAddr) -> Option<OwnedFd> {
    let process = pidfd_open(pid(worker.pid.try_into().unwrap()), PidfdFlags::empty()).unwrap();
    let fds = fs::read_dir(format!("/proc/{}/fd", worker.pid)).unwrap();
    let numbers = fds.map(|fd| fd.unwrap().file_name().into_string().unwrap().parse().unwrap());
    // One of them may have been closed meanwhile.
    let mut copies =
        numbers.filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
    let peer = |fd: &OwnedFd| SocketAddr::try_from(getpeername(fd).ok().flatten()?).ok();
    copies.find(|fd| peer(fd) == Some(client))
}

#[test]
fn connections_have_the_options_that_the_configuration_gives_their_listener() {
    check_options("each");
    check_options("main");
}

#[track_caller]
fn check_options(acceptor: &str) {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir)
        .set("engine.loops=2")
        .set(format!("engine.acceptor={acceptor}"))
        .set("listen.web.nodelay=false")
        .set("listen.web.keepalive=2m")
        .set("listen.web.linger=0s")
        .set("listen.web.receive_buffer=64KiB")
        .set("listen.web.send_buffer=32KiB")
        .start();
    let status = server.status();
    let workers = [worker(&status, 0), worker(&status, 1)];
    for (listener, path, is_special) in [("web", "/hello", true), ("admin", "/healthz", false)] {
        let mut client = Connection::open(server.address(listener));
        assert_eq!(client.get(path).status, 200);
        let address = client.local_address();
        let copy = workers.into_iter().find_map(|worker| accepted(worker, address)).unwrap();
        assert_eq!(sockopt::tcp_nodelay(&copy).unwrap(), !is_special, "{listener}");
        // Without a word of the configuration, peers over HTTP are asked for after a minute.
        assert!(sockopt::socket_keepalive(&copy).unwrap(), "{listener}");
        let asked_after = Duration::from_secs(if is_special { 120 } else { 60 });
        assert_eq!(sockopt::tcp_keepidle(&copy).unwrap(), asked_after, "{listener}");
        assert_eq!(
            sockopt::socket_linger(&copy).unwrap(),
            is_special.then_some(Duration::ZERO),
            "{listener}"
        );
        if is_special {
            assert_eq!(sockopt::tcp_keepintvl(&copy).unwrap(), Duration::from_secs(24));
            // The kernel doubles what it is told.
            assert_eq!(sockopt::socket_recv_buffer_size(&copy).unwrap(), 128 << 10);
            assert_eq!(sockopt::socket_send_buffer_size(&copy).unwrap(), 64 << 10);
        }
    }
}

#[test]
fn a_buffer_that_the_kernel_caps_is_told() {
    let dir = tempdir().unwrap();
    let limit: usize = fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap().trim().parse().unwrap();
    // A kernel that was told to cap nothing.
    if limit >= 1 << 30 {
        return;
    }
    let more = limit + 1;
    let mut server = Setup::new(&dir).set(format!("listen.web.receive_buffer={more}B")).spawn();
    server.wait_lines(&[
        "the kernel caps a buffer",
        "listener=web",
        &format!("asked={more}"),
        &format!("got={limit}"),
    ]);
}
