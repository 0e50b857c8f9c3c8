//! `AcceptorBuilder`: puts listeners and loops, or the channels of workers, together into an [`Acceptor`].

use std::sync::Arc;

use tidegate_reactor::{Epoll, Reactor, Trigger};
use tidegate_sys::fd_channel::FdChannel;

use super::Acceptor;
use super::balance::{Balance, Balancer};
use super::handle::AcceptorHandle;
use super::lane::{Lane, Load};
use crate::accepting::{Accepting, Door};
use crate::inbox::Inbox;
use crate::intake::Room;
use crate::metrics::{Metrics, ProcessMetrics};
use crate::{BoxError, LoopHandle, MAX_LISTENERS, Sockets};

/// Puts an acceptor together.
///
/// The loops are built first, with [`Socket::handed_over`](crate::Socket::handed_over) for each listener, and the acceptor
/// is given the sockets under the same names in the same order. The loops are ended by the [`AcceptorHandle`], which sees to
/// it that no connection is lost between the acceptor and them.
///
/// ```
/// use tidegate_engine::{
///     AcceptorBuilder, Balance, Decoded, EngineConfig, Flow, Io, LoopBuilder, Peer, Refusal, Service, Socket,
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
/// let mut loops = Vec::new();
/// for _ in 0..2 {
///     let config = EngineConfig { max_connections: 5000, ..EngineConfig::default() };
///     loops.push(LoopBuilder::new(config).listen("echo", Socket::handed_over(), || Ok(Echo)).spawn()?);
/// }
/// let handles = loops.iter().map(|running| running.handle()).collect();
/// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let (mut acceptor, handle) =
///     AcceptorBuilder::new(Balance::LeastConnections, handles).listen("echo", socket).build()?;
/// let thread = std::thread::Builder::new().name("acceptor".into()).spawn(move || acceptor.run())?;
/// handle.quit(std::time::Duration::from_secs(30));
/// thread.join().expect("an acceptor does not panic")?;
/// for running in loops {
///     running.join()?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct AcceptorBuilder {
    balance: Balance,
    takers: Takers,
    listeners: Vec<(String, Sockets)>,
    metrics: Option<ProcessMetrics>,
}

/// Who takes the connections.
#[derive(Debug)]
enum Takers {
    Loops(Vec<LoopHandle>),
    Workers(Vec<FdChannel>, Load),
}

impl AcceptorBuilder {
    /// Starts with no listener, for loops whose connections are all handed over.
    #[must_use]
    pub fn new(balance: Balance, loops: Vec<LoopHandle>) -> Self {
        Self { balance, takers: Takers::Loops(loops), listeners: Vec::new(), metrics: None }
    }

    /// Starts with no listener, for workers in other processes: each has a [`Receiver`](crate::Receiver) at the other end of
    /// its channel, with the same listeners in the same order. `load` tells how many connections the worker has whose
    /// channel has this place; `usize::MAX`: it is to get none for the time being, because it is full or does not
    /// answer. It is asked once in a turn for each, and must not wait. Without it a worker is passed over only when its
    /// channel is full, which is when some hundred messages wait there.
    ///
    /// ```
    /// use tidegate_engine::{AcceptorBuilder, Balance, FdChannel};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let (to_worker, _of_worker) = FdChannel::pair()?;
    /// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let (mut acceptor, handle) =
    ///     AcceptorBuilder::to_channels(Balance::RoundRobin, vec![to_worker], |_worker| 0).listen("echo", socket).build()?;
    /// handle.quit(std::time::Duration::from_secs(1));
    /// acceptor.run()?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn to_channels(
        balance: Balance,
        channels: Vec<FdChannel>,
        load: impl Fn(usize) -> usize + Send + Sync + 'static,
    ) -> Self {
        let takers = Takers::Workers(channels, Load(Arc::new(load)));
        Self { balance, takers, listeners: Vec::new(), metrics: None }
    }

    /// Adds the sockets of a listener that the loops have under the same name. What a peer is told for whom there is no
    /// descriptor is what the service of the first loop answers; with workers, such a peer waits.
    #[must_use]
    pub fn listen(mut self, name: &str, sockets: impl Into<Sockets>) -> Self {
        self.listeners.push((name.to_owned(), sockets.into()));
        self
    }

    /// Counts in `metrics`, a place of the acceptor's own, what befalls a connection before a loop has it: turns,
    /// `AcceptExhausted`, `AcceptLost` and `Overloaded`. `Accepted` and all else is counted by the loop. Without it,
    /// the acceptor counts for itself.
    #[must_use]
    pub fn metrics(mut self, metrics: ProcessMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Makes the acceptor, on epoll, and a handle to it and the loops.
    ///
    /// # Errors
    ///
    /// As [`build_on`](Self::build_on), or the kernel's when it cannot poll.
    pub fn build(self) -> Result<(Acceptor<Epoll>, AcceptorHandle), BoxError> {
        // The trigger is for connections, of which there are none.
        self.build_on(Epoll::new(Trigger::default())?)
    }

    /// Makes the acceptor on a reactor that watches nothing yet.
    ///
    /// # Errors
    ///
    /// That there is no loop and no channel, that a loop has another acceptor or not these listeners, that there are more
    /// listeners than metrics for them, or the kernel's when it cannot watch a socket.
    pub fn build_on<R: Reactor>(self, mut reactor: R) -> Result<(Acceptor<R>, AcceptorHandle), BoxError> {
        self.check()?;
        let Self { balance, takers, listeners, metrics } = self;
        let metrics = metrics.unwrap_or_else(|| Metrics::on_heap(listeners.len()).process(0));
        let room = Arc::new(Room::new(reactor.waker()));
        let mut accepting = Accepting::new(metrics.clone());
        for (site, (name, sockets)) in listeners.into_iter().enumerate() {
            let overload_answer = takers.overload_answer(site);
            let metrics = metrics.listener(site);
            let (name, handed_over, paused) = (name.into(), false, false);
            accepting.add(Door {
                outgoing: false,
                handed_over,
                vacant: false,
                paused,
                name,
                metrics,
                overload_answer,
            });
            accepting.listen_all(&mut reactor, site, sockets)?;
        }
        let keeps = matches!(takers, Takers::Workers(..));
        let (lanes, loops) = match takers {
            Takers::Loops(loops) => (lanes_to_loops(&loops, &room)?, loops),
            Takers::Workers(channels, load) => {
                let lane = |(number, channel)| Lane::to_worker(number, channel, load.clone());
                (channels.into_iter().enumerate().map(lane).collect(), Vec::new())
            }
        };
        let inbox = Arc::new(Inbox::new(Arc::clone(&room), loops));
        let handle = AcceptorHandle::new(Arc::clone(&inbox));
        let now = reactor.now();
        let (balancer, kept) = (Balancer::new(balance, lanes, now), Vec::new());
        Ok((Acceptor { reactor, accepting, balancer, keeps, kept, inbox, room, metrics, now }, handle))
    }

    /// Whether sites and loops fit each other.
    fn check(&self) -> Result<(), BoxError> {
        let count = self.listeners.len();
        match &self.takers {
            Takers::Loops(loops) if loops.is_empty() => {
                return Err("an acceptor needs a loop to accept for".into());
            }
            Takers::Workers(channels, _) if channels.is_empty() => {
                return Err("an acceptor needs a worker to accept for".into());
            }
            Takers::Workers(..) if count > MAX_LISTENERS => {
                return Err(format!("{count} listeners, where there is room for {MAX_LISTENERS}").into());
            }
            Takers::Loops(_) | Takers::Workers(..) => {}
        }
        if let Some(metrics) = &self.metrics
            && count > metrics.listeners()
        {
            return Err(format!("{count} listeners, where there is room for {}", metrics.listeners()).into());
        }
        if let Some((name, _)) = self.listeners.iter().find(|(_, sockets)| sockets.is_handed_over()) {
            return Err(format!("listener \"{name}\" has no socket to accept from").into());
        }
        let names: Vec<&str> = self.listeners.iter().map(|(name, _)| name.as_str()).collect();
        match &self.takers {
            Takers::Loops(loops) => check_sites("the acceptor", &names, loops),
            Takers::Workers(..) => Ok(()),
        }
    }
}

impl Takers {
    /// What a peer is told for whom there is no descriptor.
    fn overload_answer(&self, site: usize) -> Option<&'static [u8]> {
        match self {
            Self::Loops(loops) => loops[0].shared.intake.sites()[site].overload_answer,
            Self::Workers(..) => None,
        }
    }
}

/// Names whoever hands over to these loops, and may hear of room in them.
///
/// # Errors
///
/// That somebody does already.
pub(crate) fn lanes_to_loops(loops: &[LoopHandle], room: &Arc<Room>) -> Result<Vec<Lane>, BoxError> {
    for (number, event_loop) in loops.iter().enumerate() {
        if !event_loop.shared.intake.attach(Arc::clone(room)) {
            return Err(format!("loop {number} has an acceptor already").into());
        }
    }
    Ok(loops.iter().cloned().map(Lane::to_loop).collect())
}

/// Whether loops are handed connections for just these listeners.
///
/// # Errors
///
/// Which loop is not.
pub(crate) fn check_sites(who: &str, names: &[&str], loops: &[LoopHandle]) -> Result<(), BoxError> {
    for (number, event_loop) in loops.iter().enumerate() {
        let theirs: Vec<&str> = event_loop.shared.intake.sites().iter().map(|site| &*site.name).collect();
        if *names != *theirs {
            return Err(format!(
                "{who} has the listeners {names:?}, and loop {number} is handed connections for {theirs:?}"
            )
            .into());
        }
    }
    Ok(())
}
