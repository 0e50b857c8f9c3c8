//! `DatagramService`: what a program implements to serve datagrams, over UDP or a Unix socket, in the loop that serves its
//! connections.
//!
//! There are no sessions: a datagram comes, and may be answered. What a callback sends is gathered and leaves with that of
//! the whole batch. Nothing here waits for a peer, so what the kernel does not take is queued up to a limit, and dropped
//! and counted beyond it, as datagrams are.

mod host;
mod io;
mod peer;
mod ports;

use tidegate_sys::datagram::Inbound;

pub(crate) use host::{DatagramEvent, DatagramHost, DatagramHosted, Place, Vacant};
pub use io::DatagramIo;
pub(crate) use io::Outlet;
pub use peer::DatagramPeer;
pub(crate) use ports::{DatagramPort, Datagrams};

use crate::{CounterDef, TimerToken};

/// A protocol of datagrams. One instance serves all sockets of a listener in one event loop.
///
/// `on_start` comes first, then any number of `on_datagram` and `on_timer`, one at a time, and `on_retire` last when the
/// loop is told to quit. A panic in a callback is counted and logged; the next datagram is served.
///
/// All of them run in the loop's thread, whatever [`Dispatch`](crate::Dispatch) says of connections, so slow work is to be
/// handed to others.
///
/// ```
/// use std::net::UdpSocket;
/// use tidegate_engine::{DatagramIo, DatagramPeer, DatagramService, EngineConfig, LoopBuilder};
///
/// struct Upper;
/// impl DatagramService for Upper {
///     fn on_datagram(&self, io: &mut DatagramIo<'_>, _from: &DatagramPeer, bytes: &[u8]) {
///         io.reply(&bytes.to_ascii_uppercase());
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let socket = UdpSocket::bind("127.0.0.1:0")?;
/// let address = socket.local_addr()?;
/// let running =
///     LoopBuilder::new(EngineConfig::default()).listen_datagrams("upper", socket, || Ok(Upper)).spawn()?;
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"hello", address)?;
/// let mut answer = [0; 5];
/// client.recv(&mut answer)?;
/// assert_eq!(&answer, b"HELLO");
/// running.stop();
/// running.join()?;
/// # Ok(())
/// # }
/// ```
pub trait DatagramService: Send + Sync + 'static {
    /// The service's own counters: see [`Service::COUNTERS`](crate::Service::COUNTERS).
    const COUNTERS: &'static [CounterDef] = &[];

    /// The loop begins to serve: the place to set the first timer.
    fn on_start(&self, _io: &mut DatagramIo<'_>) {}

    /// A datagram came, whole; one that was longer than [`MAX_DATAGRAM_BYTES`] is counted and not told.
    fn on_datagram(&self, io: &mut DatagramIo<'_>, from: &DatagramPeer, bytes: &[u8]);

    /// A timer set by [`DatagramIo::set_timer`] expired.
    fn on_timer(&self, _io: &mut DatagramIo<'_>, _timer: TimerToken) {}

    /// The loop is to quit: everything that had come has been told, and no callback follows. What is sent here still leaves.
    fn on_retire(&self, _io: &mut DatagramIo<'_>) {}

    /// Limits of each socket; asked once, when the loop is built.
    fn limits(&self) -> DatagramLimits {
        DatagramLimits::default()
    }
}

/// Limits of a socket for datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramLimits {
    /// Bytes that wait for the kernel to take them, with 64 for each datagram; what is more is dropped and counted.
    /// Default 1 MiB.
    pub max_queued_bytes: usize,
}

impl Default for DatagramLimits {
    fn default() -> Self {
        Self { max_queued_bytes: 1 << 20 }
    }
}

/// The longest datagram that is received. No UDP datagram is longer; of a Unix socket one may be.
pub const MAX_DATAGRAM_BYTES: usize = 64 << 10;

/// What a loop receives into.
fn batch() -> Inbound {
    Inbound::new(MAX_DATAGRAM_BYTES)
}
