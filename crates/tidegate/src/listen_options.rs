//! `ListenOptions`: what the connections of a listener get from it.
//!
//! Invariant: an option that is not said is the kernel's, but for `TCP_NODELAY`. All are set once, on the listening socket,
//! and inherited by what it accepts.

use std::time::Duration;

use tidegate_sys::datagram::DatagramOptions;
use tidegate_sys::socket::{Keepalive, TcpOptions};

#[cfg(feature = "full")]
use crate::config;

/// Options of a TCP listener and its connections, for [`ServerBuilder::listen_with`](crate::ServerBuilder::listen_with).
/// Unix sockets have the backlog only, and sockets for datagrams the buffers.
///
/// ```
/// use std::time::Duration;
/// use tidegate::{ListenOptions, Server, echo};
///
/// # fn main() -> Result<(), tidegate::Error> {
/// let options = ListenOptions::default().keepalive(Duration::from_secs(60)).send_buffer(256 << 10);
/// let server = Server::builder().listen_with("main", "127.0.0.1:0", options, || Ok(echo())).spawn()?;
/// # drop(server);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct ListenOptions {
    pub(crate) tcp: TcpOptions,
    /// Each connection begins with a PROXY header.
    pub(crate) proxied: bool,
}

impl ListenOptions {
    /// Connections that wait to be accepted, per socket, see listen(2). Default 4096; at least 1.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.tcp.backlog = connections.max(1);
        self
    }

    /// Whether what is sent leaves at once (`TCP_NODELAY`, tcp(7)), which is the default: the engine sends a whole batch in one
    /// call. Otherwise a small segment waits for the acknowledgement of the one before it.
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.tcp.nodelay = nodelay;
        self
    }

    /// Lets the kernel ask a peer that has been silent for `idle` whether it is there (`SO_KEEPALIVE`, tcp(7)): five times, a
    /// fifth of `idle` apart, but between 1 s and 75 s. A peer that does not answer is closed as
    /// [`Reason::PEER_RESET`](crate::Reason::PEER_RESET). In whole seconds, rounded up, at most 9 h; zero: never, the default.
    pub fn keepalive(mut self, idle: Duration) -> Self {
        self.tcp.keepalive = keepalive(idle);
        self
    }

    /// How long what was sent may stay unacknowledged, or the peer's window shut, before the kernel gives the connection up
    /// (`TCP_USER_TIMEOUT`, tcp(7)), as [`Reason::PEER_RESET`](crate::Reason::PEER_RESET). With [`keepalive`](Self::keepalive) a
    /// peer that does not answer is given up after the longer of the two. Zero: as long as the kernel tries, the default.
    pub fn user_timeout(mut self, timeout: Duration) -> Self {
        self.tcp.user_timeout = (!timeout.is_zero()).then_some(timeout);
        self
    }

    /// Takes each connection to begin with a header of the PROXY protocol, version 1 or 2, from a balancer: its peer is the one
    /// that the header names. One without it is reset as [`Reason::PROXY_HEADER`](crate::Reason::PROXY_HEADER). Whoever reaches
    /// such a listener can name any address, so nobody but the balancer should. Also for Unix sockets.
    pub fn proxy_protocol(mut self, proxied: bool) -> Self {
        self.proxied = proxied;
        self
    }

    /// Makes the end of every connection a reset (`SO_LINGER` with a time of 0, socket(7)): the server keeps no TIME_WAIT, and
    /// what the peer has not received by then is lost.
    pub fn reset_on_close(mut self) -> Self {
        self.tcp.reset_on_close = true;
        self
    }

    /// Bytes of the kernel's receive buffer of each connection (`SO_RCVBUF`, socket(7)). The kernel doubles it, caps it at twice
    /// `net.core.rmem_max`, and no longer adapts it to the connection. 0: as the kernel has it, the default.
    pub fn receive_buffer(mut self, bytes: usize) -> Self {
        self.tcp.receive_buffer = (bytes > 0).then_some(bytes);
        self
    }

    /// Bytes of the kernel's send buffer of each connection (`SO_SNDBUF`), as [`receive_buffer`](Self::receive_buffer) with
    /// `net.core.wmem_max`.
    pub fn send_buffer(mut self, bytes: usize) -> Self {
        self.tcp.send_buffer = (bytes > 0).then_some(bytes);
        self
    }

    /// Bytes that may wait in the kernel to be sent for the first time (`TCP_NOTSENT_LOWAT`, tcp(7)): what a peer that does not
    /// read costs there. The connection is writable again when half of them have left. A small number costs a fast peer
    /// of large answers more calls. 0: as the kernel has it, the default.
    pub fn max_unsent(mut self, bytes: usize) -> Self {
        self.tcp.max_unsent = (bytes > 0).then(|| u32::try_from(bytes).unwrap_or(u32::MAX));
        self
    }

    /// What a socket for datagrams has of it.
    pub(crate) fn of_datagrams(tcp: &TcpOptions) -> DatagramOptions {
        DatagramOptions { receive_buffer: tcp.receive_buffer, send_buffer: tcp.send_buffer }
    }

    /// What a listener of the configuration says.
    #[cfg(feature = "full")]
    pub(crate) fn of(listener: &config::Listener) -> Self {
        let options = Self::default()
            .backlog(listener.backlog)
            .nodelay(listener.nodelay)
            .keepalive(listener.keepalive())
            .user_timeout(listener.user_timeout())
            .proxy_protocol(listener.proxy_protocol)
            .receive_buffer(listener.receive_buffer.as_usize())
            .send_buffer(listener.send_buffer.as_usize())
            .max_unsent(listener.max_unsent().as_usize());
        // Another time than zero is refused by the rules: close(2) would keep the loop waiting.
        if listener.linger.is_some() { options.reset_on_close() } else { options }
    }

    /// The first option that a socket for datagrams does not have.
    pub(crate) fn connections_only(&self) -> Option<&'static str> {
        let has_backlog = self.tcp.backlog == TcpOptions::default().backlog;
        let buffers_aside = TcpOptions { receive_buffer: None, send_buffer: None, ..self.tcp };
        let first = Self { tcp: buffers_aside, ..*self }.tcp_only();
        first.or((!has_backlog).then_some("backlog")).or(self.proxied.then_some("proxy_protocol"))
    }

    /// The first option that a Unix socket does not have.
    pub(crate) fn tcp_only(&self) -> Option<&'static str> {
        let plain = TcpOptions { backlog: self.tcp.backlog, ..TcpOptions::default() };
        let said = [
            ("nodelay", self.tcp.nodelay != plain.nodelay),
            ("keepalive", self.tcp.keepalive != plain.keepalive),
            ("user_timeout", self.tcp.user_timeout != plain.user_timeout),
            ("reset_on_close", self.tcp.reset_on_close != plain.reset_on_close),
            ("receive_buffer", self.tcp.receive_buffer != plain.receive_buffer),
            ("send_buffer", self.tcp.send_buffer != plain.send_buffer),
            ("max_unsent", self.tcp.max_unsent != plain.max_unsent),
        ];
        said.into_iter().find(|(_, is_said)| *is_said).map(|(name, _)| name)
    }
}

/// Probes that find out within about twice the time that a peer has gone.
fn keepalive(idle: Duration) -> Option<Keepalive> {
    let whole = |time: Duration| Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0));
    if idle.is_zero() {
        return None;
    }
    let idle = whole(idle.min(MAX_IDLE));
    let interval = whole(idle / PROBES).clamp(Duration::from_secs(1), Duration::from_secs(75));
    Some(Keepalive { idle, interval, count: PROBES })
}

const PROBES: u32 = 5;
/// The kernel takes 32,767 s.
const MAX_IDLE: Duration = Duration::from_secs(9 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(idle: Duration, expect: Option<(u64, u64)>) {
        let found = keepalive(idle).map(|probes| (probes.idle.as_secs(), probes.interval.as_secs()));
        assert_eq!(found, expect);
    }

    #[test]
    fn probes_come_in_whole_seconds_within_the_kernels_limits() {
        check(Duration::ZERO, None);
        check(Duration::from_millis(1), Some((1, 1)));
        check(Duration::from_secs(60), Some((60, 12)));
        check(Duration::from_millis(60_001), Some((61, 13)));
        check(Duration::from_secs(7200), Some((7200, 75)));
        check(Duration::MAX, Some((32_400, 75)));
    }

    #[test]
    fn the_backlog_is_for_unix_sockets_too() {
        assert_eq!(ListenOptions::default().backlog(7).tcp_only(), None);
        assert_eq!(ListenOptions::default().nodelay(true).keepalive(Duration::ZERO).tcp_only(), None);
        assert_eq!(ListenOptions::default().send_buffer(1).tcp_only(), Some("send_buffer"));
        let timeout = ListenOptions::default().user_timeout(Duration::from_secs(1));
        assert_eq!(timeout.tcp_only(), Some("user_timeout"));
        assert_eq!(timeout.user_timeout(Duration::ZERO).tcp_only(), None);
    }

    #[test]
    fn a_header_of_a_balancer_is_for_all_that_has_connections() {
        let proxied = ListenOptions::default().proxy_protocol(true);
        assert_eq!((proxied.tcp_only(), proxied.connections_only()), (None, Some("proxy_protocol")));
    }
}
