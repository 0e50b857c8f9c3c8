//! `Datagrams`: a datagram service of one closure. Echo and discard are two of them.

use std::fmt;

use tidegate_engine::{DatagramIo, DatagramPeer, DatagramService};

/// Calls a closure with each datagram.
///
/// ```
/// use tidegate::Datagrams;
/// let upper = Datagrams::new(|io, _from, bytes| io.reply(&bytes.to_ascii_uppercase()));
/// # let _ = upper;
/// ```
#[derive(Clone)]
pub struct Datagrams<F> {
    on_datagram: F,
}

impl<F> Datagrams<F>
where
    F: Fn(&mut DatagramIo<'_>, &DatagramPeer, &[u8]) + Send + Sync + 'static,
{
    /// Makes a service of `on_datagram`.
    pub fn new(on_datagram: F) -> Self {
        Self { on_datagram }
    }
}

/// Sends each datagram back (RFC 862), unless the answer might go to and fro between servers for ever: see
/// [`may_answer`].
pub fn echo_datagrams()
-> Datagrams<impl Fn(&mut DatagramIo<'_>, &DatagramPeer, &[u8]) + Send + Sync + 'static> {
    Datagrams::new(|io, from, bytes| {
        if may_answer(from) {
            io.reply(bytes);
        }
    })
}

/// Throws each datagram away (RFC 863).
pub fn discard_datagrams()
-> Datagrams<impl Fn(&mut DatagramIo<'_>, &DatagramPeer, &[u8]) + Send + Sync + 'static> {
    Datagrams::new(|_, _, _| {})
}

/// Whether a service that answers whatever comes may answer this peer: not when its port is one of those below 1024, where
/// servers of the same kind are, so that a datagram with a forged source does not go to and fro between two of them; not
/// when it was sent to many at once, so that nobody is answered by all who heard it; and not when there is no address.
#[must_use]
pub fn may_answer(from: &DatagramPeer) -> bool {
    let is_server = from.inet().is_some_and(|address| address.port() < 1024);
    from.has_address() && !is_server && !from.sent_to_many()
}

impl<F> fmt::Debug for Datagrams<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").finish_non_exhaustive()
    }
}

impl<F> DatagramService for Datagrams<F>
where
    F: Fn(&mut DatagramIo<'_>, &DatagramPeer, &[u8]) + Send + Sync + 'static,
{
    fn on_datagram(&self, io: &mut DatagramIo<'_>, from: &DatagramPeer, bytes: &[u8]) {
        (self.on_datagram)(io, from, bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn ports_of_servers_are_not_answered() {
        for (port, expected) in [(0, false), (7, false), (1023, false), (1024, true), (65535, true)] {
            let from = DatagramPeer::from(SocketAddr::from(([127, 0, 0, 1], port)));
            assert_eq!(may_answer(&from), expected, "{port}");
        }
    }
}
