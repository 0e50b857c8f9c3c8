//! Telling the service manager how it is (`sd_notify(3)`).
//!
//! The one invariant: nobody waits for the manager. A datagram that it does not take at once is lost, and the first one that
//! is lost is logged.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The service manager of this process, if it has one.
///
/// ```
/// use tidegate_process::systemd::Notify;
///
/// // Nothing is sent anywhere unless NOTIFY_SOCKET is set.
/// let manager = Notify::from_env();
/// manager.ready("serving on 127.0.0.1:8080");
/// ```
#[derive(Debug)]
pub struct Notify {
    target: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    has_failed: AtomicBool,
}

impl Notify {
    /// The manager that `NOTIFY_SOCKET` names: a path, or an abstract name behind `@`. Another kind of address is logged,
    /// and then there is none.
    #[must_use]
    pub fn from_env() -> Self {
        let target = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let target = target.and_then(|address| match open(&address) {
            Ok(target) => Some(target),
            Err(error) => {
                tracing::warn!(address = %address.to_string_lossy(), %error, "the service manager cannot be told anything");
                None
            }
        });
        let variable = |name| env::var(name).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        Self { target, watchdog, has_failed: AtomicBool::new(false) }
    }

    /// Whether there is a manager.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.target.is_some()
    }

    /// The server serves: for the first time, or again after [`Notify::reloading`], whether that worked or not.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// A reload or an upgrade has begun; [`Notify::ready`] must follow.
    pub fn reloading(&self) {
        // The manager tells by it whether the answer is to its own signal or to an earlier one.
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The server has begun to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The start, or the stop, is under way and may take this much longer than the unit allows.
    pub fn extend_timeout(&self, timeout: Duration) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}", timeout.as_micros()));
    }

    /// What `systemctl status` shows; cut at 1,024 bytes, line ends become spaces.
    pub fn status(&self, text: &str) {
        self.tell(&format!("STATUS={}", one_line(text)));
    }

    /// The server is alive. To be called every [`Notify::watchdog_interval`].
    pub fn watchdog(&self) {
        self.tell("WATCHDOG=1");
    }

    /// How often the manager wants to hear [`Notify::watchdog`]: half of the time after which it would end this process.
    /// None when it has no watchdog, or one for another process.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.is_present())
    }

    fn tell(&self, message: &str) {
        let Some((socket, address)) = &self.target else { return };
        let sent = loop {
            match socket.send_to_addr(message.as_bytes(), address) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        if let Err(error) = sent
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, message, "the service manager did not take a message; said once");
        }
    }
}

/// A socket of our own, which does not block, and the address of the manager.
fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Half of the time, when it is meant for this process (`sd_watchdog_enabled(3)`).
fn watchdog(usec: Option<String>, pid: Option<String>) -> Option<Duration> {
    let is_for_us = pid.is_none_or(|pid| pid.parse() == Ok(process::id()));
    let usec: u64 = usec?.parse().ok().filter(|&usec| usec > 0 && is_for_us)?;
    Some(Duration::from_micros(usec.div_ceil(2)))
}

/// A line end would begin another assignment, and the manager would take it for our word.
fn one_line(text: &str) -> String {
    let end = (0..=text.len().min(MAX_STATUS_BYTES)).rev().find(|&end| text.is_char_boundary(end));
    text[..end.unwrap_or(0)].replace(char::is_control, " ")
}

const MAX_STATUS_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn notify(address: &OsStr) -> Notify {
        Notify { target: Some(open(address).unwrap()), watchdog: None, has_failed: AtomicBool::new(false) }
    }

    fn next(manager: &UnixDatagram) -> String {
        let mut buf = [0; 4096];
        let read = manager.recv(&mut buf).unwrap();
        String::from_utf8(buf[..read].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_at_a_path_is_told_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = notify(path.as_os_str());
        notify.ready("two\nlines");
        assert_eq!(next(&manager), "READY=1\nSTATUS=two lines");
        let before = clock_gettime(ClockId::Monotonic).tv_sec;
        notify.reloading();
        let text = next(&manager);
        let micros: i64 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        let after = clock_gettime(ClockId::Monotonic).tv_sec;
        assert!((before..=after).contains(&(micros / 1_000_000)), "{text}");
        notify.status("reload failed:\tline 3");
        assert_eq!(next(&manager), "STATUS=reload failed: line 3");
        notify.status(&"ü".repeat(1000));
        assert_eq!(next(&manager), format!("STATUS={}", "ü".repeat(512)));
        notify.watchdog();
        assert_eq!(next(&manager), "WATCHDOG=1");
        notify.extend_timeout(Duration::from_secs(30));
        assert_eq!(next(&manager), "EXTEND_TIMEOUT_USEC=30000000");
        notify.stopping();
        assert_eq!(next(&manager), "STOPPING=1");
    }

    #[test]
    fn an_abstract_name_works_too() {
        let name = format!("tidegate-test-{}", process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notify(OsStr::new(&format!("@{name}"))).stopping();
        assert_eq!(next(&manager), "STOPPING=1");
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = notify(path.as_os_str());
        // Its queue has far fewer places (net.unix.max_dgram_qlen).
        for _ in 0..10_000 {
            notify.watchdog();
        }
        assert!(notify.has_failed.load(Ordering::Relaxed));
        assert_eq!(next(&manager), "WATCHDOG=1");
        drop(manager);
        notify.stopping();
    }

    #[test]
    fn other_addresses_are_refused() {
        for address in ["relative", "vsock:2:1234", ""] {
            assert!(open(OsStr::new(address)).is_err(), "{address}");
        }
        assert!(open(OsStr::new(&format!("/{}", "x".repeat(200)))).is_err());
    }

    #[test]
    fn the_watchdog_is_fed_twice_as_often_as_it_asks() {
        let text = |text: &str| Some(text.to_owned());
        let own = text(&process::id().to_string());
        assert_eq!(watchdog(text("3000000"), own.clone()), Some(Duration::from_millis(1500)));
        assert_eq!(watchdog(text("30"), None), Some(Duration::from_micros(15)));
        for usec in ["0", "", "x", "-1"] {
            assert_eq!(watchdog(text(usec), own.clone()), None);
        }
        assert_eq!(watchdog(None, own), None);
        assert_eq!(watchdog(text("3000000"), text("1")), None);
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let notify =
            Notify { target: None, watchdog: Some(Duration::from_secs(1)), has_failed: false.into() };
        notify.ready("text");
        assert!(!notify.is_present());
        assert_eq!(notify.watchdog_interval(), None);
    }
}
