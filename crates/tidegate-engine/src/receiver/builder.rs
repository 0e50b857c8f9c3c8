//! `ReceiverBuilder`: puts channels and loops together into a [`Receiver`].

use std::sync::Arc;

use tidegate_reactor::Watch;
use tidegate_sys::fd_channel::FdChannel;

use super::descriptors::Descriptors;
use super::inlet::Inlets;
use super::{Receiver, ReceiverHandle};
use crate::accepting::Reports;
use crate::acceptor::balance::{Balance, Balancer};
use crate::acceptor::{check_sites, lanes_to_loops};
use crate::handover::{BATCH, MESSAGE_BYTES};
use crate::inbox::Inbox;
use crate::intake::Room;
use crate::metrics::{Metrics, ProcessMetrics};
use crate::{BoxError, LoopHandle};

/// Puts a receiver together.
///
/// The loops are built first, with [`Socket::handed_over`](crate::Socket::handed_over) for each listener, in the order in
/// which the acceptor has them. They are ended by the [`ReceiverHandle`], which sees to it that no connection is lost between
/// the channel and them.
///
/// ```
/// use std::io::{Read, Write};
/// use tidegate_engine::{
///     AcceptorBuilder, Balance, Decoded, EngineConfig, FdChannel, Flow, Io, LoopBuilder, Peer, ReceiverBuilder, Refusal,
///     Service, Socket,
/// };
///
/// struct Echo;
/// impl Service for Echo {
///     type Session = ();
///     type Head = ();
///     type Note = ();
///     fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> { Ok(()) }
///     fn decode(&self, _: &mut (), input: &[u8]) -> Decoded<()> {
///         Decoded::Message { len: input.len(), head: () }
///     }
///     fn on_message(&self, io: &mut Io<'_>, _: &mut (), _: (), bytes: &[u8]) -> Flow {
///         io.send(bytes);
///         Flow::Continue
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let (to_worker, of_worker) = FdChannel::pair()?;
/// // In the worker's process:
/// let echo = LoopBuilder::new(EngineConfig::default()).listen("echo", Socket::handed_over(), || Ok(Echo)).spawn()?;
/// let (mut receiver, worker) =
///     ReceiverBuilder::new(Balance::RoundRobin, vec![echo.handle()]).channel(of_worker).build()?;
/// let receiving = std::thread::spawn(move || receiver.run());
/// // In the acceptor's:
/// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let address = socket.local_addr()?;
/// let (mut acceptor, handle) =
///     AcceptorBuilder::to_channels(Balance::RoundRobin, vec![to_worker], |_worker| 0).listen("echo", socket).build()?;
/// let accepting = std::thread::spawn(move || acceptor.run());
///
/// let mut client = std::net::TcpStream::connect(address)?;
/// client.write_all(b"hello")?;
/// let mut said = [0; 5];
/// client.read_exact(&mut said)?;
/// assert_eq!(&said, b"hello");
/// // The acceptor ends first.
/// handle.quit(std::time::Duration::from_secs(30));
/// accepting.join().expect("an acceptor does not panic")?;
/// worker.stop();
/// receiving.join().expect("a receiver does not panic")?;
/// echo.join()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ReceiverBuilder {
    balance: Balance,
    loops: Vec<LoopHandle>,
    channels: Vec<FdChannel>,
    metrics: Option<ProcessMetrics>,
}

impl ReceiverBuilder {
    /// Starts with no channel, for loops whose connections are all handed over.
    #[must_use]
    pub fn new(balance: Balance, loops: Vec<LoopHandle>) -> Self {
        Self { balance, loops, channels: Vec::new(), metrics: None }
    }

    /// Adds a channel that is the worker's own: its receiving end.
    #[must_use]
    pub fn channel(mut self, channel: FdChannel) -> Self {
        self.channels.push(channel);
        self
    }

    /// Counts in `metrics`, a place of the receiver's own, what befalls a connection before a loop has it: turns,
    /// `AcceptExhausted`, `HandoverErrors`, `AcceptLost` and `Overloaded`. `Accepted` and all else is counted by the
    /// loop. Without it, the receiver counts for itself.
    #[must_use]
    pub fn metrics(mut self, metrics: ProcessMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Makes the receiver, and a handle to it and the loops.
    ///
    /// # Errors
    ///
    /// That there is no loop, that a loop has an acceptor or a receiver already or not the listeners of the first, that
    /// there are more listeners than metrics for them, or the kernel's when it cannot poll.
    pub fn build(self) -> Result<(Receiver, ReceiverHandle), BoxError> {
        let Self { balance, loops, channels, metrics } = self;
        let first = loops.first().ok_or("a receiver needs a loop to receive for")?;
        let sites = first.shared.intake.sites().to_vec();
        let names: Vec<&str> = sites.iter().map(|site| &*site.name).collect();
        if names.is_empty() {
            return Err("the loops of a receiver need listeners that are handed over".into());
        }
        check_sites("loop 0", &names, &loops)?;
        let metrics = metrics.unwrap_or_else(|| Metrics::on_heap(sites.len()).process(0));
        if sites.len() > metrics.listeners() {
            let (count, most) = (sites.len(), metrics.listeners());
            return Err(format!("{count} listeners, where there is room for {most}").into());
        }
        let watch = Watch::new()?;
        let (room, now) = (Arc::new(Room::new(watch.waker())), watch.now());
        let lanes = lanes_to_loops(&loops, &room)?;
        let inbox = Arc::new(Inbox::new(Arc::clone(&room), loops));
        let handle = ReceiverHandle::new(Arc::clone(&inbox));
        let mut inlets = Inlets::default();
        channels.into_iter().for_each(|channel| inlets.add(None, channel));
        let receiver = Receiver {
            watch,
            inlets,
            balancer: Balancer::new(balance, lanes, now),
            sites,
            kept: Vec::new(),
            paused: false,
            awaits_end: None,
            exhausted: None,
            descriptors: Descriptors::new(),
            inbox,
            room,
            metrics,
            now,
            message: Box::new([0; MESSAGE_BYTES]),
            fds: Vec::with_capacity(BATCH),
            origins: Vec::with_capacity(BATCH),
            malformed: Reports::default(),
            shortages: Reports::default(),
        };
        Ok((receiver, handle))
    }
}
