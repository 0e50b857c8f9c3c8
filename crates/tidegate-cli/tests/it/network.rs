//! A network of the test's own: a client's and a server's namespace, and between them a router that drops packets, or a wire
//! that does worse.
//!
//! ```text
//!  client 10.99.1.1, fd99:1::1 ── router or wire ── server 10.99.2.1, fd99:2::1
//! ```
//!
//! Invariant: the namespaces are gone when it is dropped. Which packets are dropped is counted and not thrown for, so every
//! run loses as many of as many.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::forwarder::{Forwarder, Plan};
use crate::support::{TIDEGATE, id, output_of, pid};

/// Three namespaces in a row.
pub(crate) struct Network {
    /// Of this test only; what stands behind it is a letter.
    name: String,
}

/// What is between client and server.
#[derive(Clone, Copy)]
enum Middle<'a> {
    /// Drops what this rule says.
    Router { drops: &'a str },
    /// Has two devices and nothing that goes from one to the other.
    Wire,
}

/// A tcpdump.
pub(crate) struct Capture {
    child: Child,
    /// What it says from then on.
    rest: JoinHandle<Vec<String>>,
}

impl Network {
    /// With a router, which drops packets. `None`, with the reason printed, where the machine does not allow it or the
    /// programs are missing.
    pub(crate) fn open(test: &str, drops: &str) -> Option<Self> {
        Self::with(test, Middle::Router { drops })
    }

    /// With a wire, which does what is planned. `None` as above.
    pub(crate) fn open_wire(test: &str, plan: Plan) -> Option<(Self, Forwarder)> {
        let network = Self::with(test, Middle::Wire)?;
        let [_, middle, _] = network.namespaces();
        let forwarder = Forwarder::start(&middle, ["r1", "r2"], plan);
        Some((network, forwarder))
    }

    fn with(test: &str, middle: Middle<'_>) -> Option<Self> {
        for program in ["ip", "nft", "tshark", "editcap", "mergecap", "tcpdump"] {
            if Command::new(program).arg("--version").output().is_err() {
                eprintln!("skipped: there is no {program}");
                return None;
            }
        }
        let network = Self { name: format!("tg{test}{}", std::process::id()) };
        if let Err(why) = network.build(middle) {
            eprintln!("skipped: no network of its own: {why}");
            return None;
        }
        Some(network)
    }

    fn build(&self, middle: Middle<'_>) -> Result<(), String> {
        let [client, router, server] = self.namespaces();
        let (bits, bits6) = if matches!(middle, Middle::Wire) { (16, 16) } else { (24, 64) };
        for name in [&client, &router, &server] {
            run("ip", &["netns", "add", name])?;
            run("ip", &["-n", name, "link", "set", "lo", "up"])?;
        }
        for (nth, end) in ["1", "2"].into_iter().zip([&client, &server]) {
            let ours = format!("r{nth}");
            run(
                "ip",
                &["-n", &router, "link", "add", &ours, "type", "veth", "peer", "name", "e", "netns", end],
            )?;
            // The wire says nothing of its own.
            let silent = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6";
            if matches!(middle, Middle::Wire) {
                run("ip", &["netns", "exec", &router, "sh", "-c", silent])?;
            }
            for (name, device, last) in [(end, "e", "1"), (&router, &*ours, "2")] {
                if name == end || matches!(middle, Middle::Router { .. }) {
                    let address = format!("10.99.{nth}.{last}/{bits}");
                    run("ip", &["-n", name, "addr", "add", &address, "dev", device])?;
                    let address = format!("fd99:{nth}::{last}/{bits6}");
                    run("ip", &["-n", name, "addr", "add", &address, "dev", device, "nodad"])?;
                }
                run("ip", &["-n", name, "link", "set", device, "gso_max_segs", "1", "up"])?;
            }
        }
        match middle {
            Middle::Router { drops } => self.route(drops),
            Middle::Wire => Ok(()),
        }
    }

    fn route(&self, drops: &str) -> Result<(), String> {
        let [client, router, server] = self.namespaces();
        for (nth, end) in ["1", "2"].into_iter().zip([&client, &server]) {
            run("ip", &["-n", end, "route", "add", "default", "via", &format!("10.99.{nth}.2")])?;
            run("ip", &["-n", end, "-6", "route", "add", "default", "via", &format!("fd99:{nth}::2")])?;
        }
        let forward =
            "echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        run("ip", &["netns", "exec", &router, "sh", "-c", forward])?;
        let rules = format!(
            "add table inet loss; add chain inet loss forward {{ type filter hook forward priority 0; }}; \
             add rule inet loss forward meta l4proto tcp {drops} drop"
        );
        run("ip", &["netns", "exec", &router, "nft", &rules])
    }

    /// From now on nothing goes from one to the other, and nobody is told.
    pub(crate) fn cut(&self) {
        let [_, router, _] = self.namespaces();
        let rules = "add table inet cut; add chain inet cut forward { type filter hook forward priority 0; }; \
                     add rule inet cut forward drop";
        run("ip", &["netns", "exec", &router, "nft", rules]).unwrap();
    }

    fn namespaces(&self) -> [String; 3] {
        ["c", "r", "s"].map(|letter| format!("{}{letter}", self.name))
    }

    /// A program that starts the server within its namespace.
    pub(crate) fn server_program(&self, dir: &TempDir) -> PathBuf {
        let path = dir.path().join("in-namespace");
        let [.., server] = self.namespaces();
        std::fs::write(&path, format!("#!/bin/sh\nexec ip netns exec {server} {TIDEGATE} \"$@\"\n")).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, executable).unwrap();
        path
    }

    /// Does something as a client.
    pub(crate) fn as_client<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let [client, ..] = self.namespaces();
        let namespace = File::open(Path::new("/run/netns").join(client)).unwrap();
        // A thread of its own, which takes the namespace with it when it ends.
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    /// Captures at the client.
    pub(crate) fn capture_at_client(&self, path: &Path) -> Capture {
        let [client, ..] = self.namespaces();
        Capture::start(&client, path)
    }

    /// Captures at the server.
    pub(crate) fn capture_at_server(&self, path: &Path) -> Capture {
        let [.., server] = self.namespaces();
        Capture::start(&server, path)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in self.namespaces() {
            // One that was not made is no loss.
            let _ = run("ip", &["netns", "del", &name]);
        }
    }
}

impl Capture {
    /// Starts it and waits until it says that it captures. Packets are written out within a second.
    fn start(namespace: &str, path: &Path) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "tcpdump", "-i", "e"]);
        // With room for all packets that may come before it gets its turn: every packet takes as much of the buffer as the
        // longest may have.
        command.args(["-B", "65536", "-s", "2048"]);
        command.args(["-U", "--immediate-mode", "--nano", "-Z", "root", "tcp", "-w"]).arg(path);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("listening on")), "tcpdump has not begun");
        let rest = std::thread::spawn(move || lines.collect());
        Self { child, rest }
    }

    /// Ends it; it writes out what it has. Returns how many packets it has not had the time for.
    pub(crate) fn stop(mut self) -> u64 {
        kill_process(pid(id(&self.child)), Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
        let rest = self.rest.join().unwrap();
        let dropped = rest.iter().find_map(|line| line.strip_suffix(" packets dropped by kernel"));
        dropped.unwrap_or_else(|| panic!("tcpdump does not tell: {rest:?}")).parse().unwrap()
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = output_of(Command::new(program).args(args));
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
