//! `AcceptorBuilder`: puts listeners and loops together into an [`Acceptor`].

use std::sync::Arc;

use tidegate_reactor::{Epoll, Reactor, Trigger};

use super::Acceptor;
use super::balance::{Balance, Balancer};
use super::handle::{AcceptorHandle, Orders};
use crate::accepting::{Accepting, Door};
use crate::intake::Room;
use crate::metrics::{Metrics, ProcessMetrics};
use crate::{BoxError, LoopHandle, Socket};

/// Puts an acceptor together.
///
/// The loops are built first, with [`Socket::handed_over`] for each listener, and the acceptor is given the sockets under
/// the same names in the same order. The loops are ended by the [`AcceptorHandle`], which sees to it that no
/// connection is lost between the acceptor and them.
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
    loops: Vec<LoopHandle>,
    listeners: Vec<(String, Socket)>,
    metrics: Option<ProcessMetrics>,
}

impl AcceptorBuilder {
    /// Starts with no listener, for loops whose connections are all handed over.
    #[must_use]
    pub fn new(balance: Balance, loops: Vec<LoopHandle>) -> Self {
        Self { balance, loops, listeners: Vec::new(), metrics: None }
    }

    /// Adds the socket of a listener that the loops have under the same name. What a peer is told for whom there is no
    /// descriptor is what the service of the first loop answers.
    #[must_use]
    pub fn listen(mut self, name: &str, socket: impl Into<Socket>) -> Self {
        self.listeners.push((name.to_owned(), socket.into()));
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
    /// That there is no loop, that a loop has another acceptor or not these listeners, that there are more
    /// listeners than metrics for them, or the kernel's when it cannot watch a socket.
    pub fn build_on<R: Reactor>(self, mut reactor: R) -> Result<(Acceptor<R>, AcceptorHandle), BoxError> {
        self.check()?;
        let Self { balance, loops, listeners, metrics } = self;
        let metrics = metrics.unwrap_or_else(|| Metrics::on_heap(listeners.len()).process(0));
        let room = Arc::new(Room::new(reactor.waker()));
        let mut accepting = Accepting::new(metrics.clone());
        for (site, (name, socket)) in listeners.into_iter().enumerate() {
            let listener = socket.listen(&mut reactor)?;
            let overload_answer = loops[0].shared.intake.sites()[site].overload_answer;
            let metrics = metrics.listener(site);
            accepting.add(Door { listener, name: name.into(), metrics, overload_answer });
        }
        for (number, event_loop) in loops.iter().enumerate() {
            if !event_loop.shared.intake.attach(Arc::clone(&room)) {
                return Err(format!("loop {number} has an acceptor already").into());
            }
        }
        let orders = Arc::new(Orders::new(Arc::clone(&room), loops.clone()));
        let handle = AcceptorHandle::new(Arc::clone(&orders));
        let (now, balancer) = (reactor.now(), Balancer::new(balance, loops));
        Ok((Acceptor { reactor, accepting, balancer, orders, room, metrics, now }, handle))
    }

    /// Whether sites and loops fit each other.
    fn check(&self) -> Result<(), BoxError> {
        let count = self.listeners.len();
        if self.loops.is_empty() {
            return Err("an acceptor needs a loop to accept for".into());
        }
        if let Some(metrics) = &self.metrics
            && count > metrics.listeners()
        {
            return Err(format!("{count} listeners, where there is room for {}", metrics.listeners()).into());
        }
        if let Some((name, _)) = self.listeners.iter().find(|(_, socket)| socket.fd.is_none()) {
            return Err(format!("listener \"{name}\" has no socket to accept from").into());
        }
        let names = || self.listeners.iter().map(|(name, _)| name.as_str());
        for (number, event_loop) in self.loops.iter().enumerate() {
            let sites = event_loop.shared.intake.sites();
            if !names().eq(sites.iter().map(|site| &*site.name)) {
                let names: Vec<&str> = names().collect();
                let theirs: Vec<&str> = sites.iter().map(|site| &*site.name).collect();
                return Err(format!(
                    "the acceptor has the listeners {names:?}, and loop {number} is handed connections for {theirs:?}"
                )
                .into());
            }
        }
        Ok(())
    }
}
