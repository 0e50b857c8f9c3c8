//! A server under test.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_engine::{
    AddressCounts, Backend, Budget, Closed, ConnHandle, Dispatch, EngineConfig, Limits, ListenerMetrics,
    ListenerWord, LoopBuilder, Metrics, ProcessMetrics, Reason, Running, Socket, Sockets, Trigger, Uring,
};

use crate::client;
pub(crate) use crate::client::Client;
use crate::lab::{Control, Lab, Note, Seen};

/// Far more than any of these tests needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a case with each way a loop can work, at the same time. The threads' names tell them apart when one fails.
pub(crate) fn under_all_models_at_once(case: fn(EngineConfig)) {
    under_all_models_at_once_with(case);
}

pub(crate) fn under_all_models_at_once_with(case: impl Fn(EngineConfig) + Sync) {
    let case = &case;
    std::thread::scope(|scope| {
        for config in models() {
            let thread = std::thread::Builder::new().name(name_of(config));
            thread.spawn_scoped(scope, move || under(config, case)).unwrap();
        }
    });
}

/// Each way a loop can work: interface, trigger and dispatch.
pub(crate) fn models() -> impl Iterator<Item = EngineConfig> {
    let (epoll, uring) = (Backend::Epoll, Backend::Uring);
    let triggers = [Trigger::Level, Trigger::Edge, Trigger::Oneshot];
    let interfaces = triggers.map(|trigger| (epoll, trigger)).into_iter().chain([(uring, Trigger::Edge)]);
    let several = interfaces.flat_map(|(backend, trigger)| {
        [Dispatch::Inline, Dispatch::Pool].map(|dispatch| (backend, trigger, dispatch))
    });
    let shared = [Dispatch::Reactor, Dispatch::LeaderFollower];
    let models = several.chain(shared.map(move |dispatch| (epoll, Trigger::Oneshot, dispatch)));
    models.map(|(backend, trigger, dispatch)| EngineConfig {
        backend,
        trigger,
        dispatch,
        ..EngineConfig::default()
    })
}

/// Runs a case, when the kernel can do what its model needs. Epoll in place of io_uring would show nothing.
pub(crate) fn under(config: EngineConfig, case: impl Fn(EngineConfig)) {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    // On a thread of its own: what is left of a ring interrupts the next wait of the thread that had it.
    let look = || std::thread::spawn(|| Uring::new().err().map(|why| why.to_string())).join().unwrap();
    if config.backend == Backend::Uring
        && let Some(why) = MISSING.get_or_init(look)
    {
        let mut out = std::io::stderr();
        return writeln!(out, "skipped: {why}").unwrap();
    }
    case(config);
}

/// The name of a model, as `under_each_model` has it.
pub(crate) fn name_of(config: EngineConfig) -> String {
    let interface = match config.backend {
        Backend::Uring => "uring".to_owned(),
        Backend::Auto | Backend::Epoll => format!("{:?}", config.trigger).to_lowercase(),
    };
    match config.dispatch {
        Dispatch::Inline => interface,
        Dispatch::Pool => interface + "_pool",
        Dispatch::Reactor => "reactor".to_owned(),
        Dispatch::LeaderFollower => "leader_follower".to_owned(),
    }
}

/// A loop that serves a [`Lab`]. When it is dropped it is stopped, and its books must balance.
pub(crate) struct Server {
    pub(crate) running: Option<Running>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: ProcessMetrics,
    pub(crate) control: Arc<Control>,
    pub(crate) unblock: Sender<()>,
    seen: Receiver<Seen>,
}

/// How the server is to be.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) config: EngineConfig,
    pub(crate) limits: Limits,
    pub(crate) overload_answer: Option<&'static [u8]>,
    pub(crate) send_buffer: usize,
    /// Each connection begins with a PROXY header.
    pub(crate) proxied: bool,
}

impl Setup {
    pub(crate) fn new(config: EngineConfig) -> Self {
        Self {
            config,
            limits: Limits::default(),
            overload_answer: None,
            send_buffer: 32 << 10,
            proxied: false,
        }
    }
}

impl Server {
    pub(crate) fn new(config: EngineConfig) -> Self {
        Self::start(Setup::new(config))
    }

    pub(crate) fn with(config: EngineConfig, change: impl FnOnce(&mut Limits)) -> Self {
        let mut setup = Setup::new(config);
        change(&mut setup.limits);
        Self::start(setup)
    }

    pub(crate) fn start(setup: Setup) -> Self {
        Self::build(setup, |builder| builder)
    }

    /// As [`start`](Self::start), with a loop that shares its budget with others.
    pub(crate) fn sharing(budget: &Budget, setup: Setup) -> Self {
        Self::build(setup, |builder| builder.budget(budget))
    }

    /// As [`start`](Self::start), with a loop that counts the connections of each address together with others.
    pub(crate) fn counting(counts: &AddressCounts, setup: Setup) -> Self {
        Self::build(setup, |builder| builder.address_counts(counts))
    }

    /// On these sockets in place of one of its own. `address` is where its clients connect to.
    pub(crate) fn on(setup: Setup, address: SocketAddr, sockets: Vec<Socket>) -> Self {
        Self::assemble(setup, address, sockets, |builder| builder)
    }

    fn build(setup: Setup, adjust: impl FnOnce(LoopBuilder) -> LoopBuilder) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Accepted sockets inherit it: little is on the way to a client that does not read.
        sockopt::set_socket_send_buffer_size(&socket, setup.send_buffer).unwrap();
        let address = socket.local_addr().unwrap();
        Self::assemble(setup, address, socket, adjust)
    }

    fn assemble(
        setup: Setup,
        address: SocketAddr,
        sockets: impl Into<Sockets>,
        adjust: impl FnOnce(LoopBuilder) -> LoopBuilder,
    ) -> Self {
        let Setup { config, limits, overload_answer, .. } = setup;
        prepare_the_process();
        let metrics = Metrics::on_heap(1).process(0);
        let control = Arc::new(Control::default());
        let ((seen_by, seen), (unblock, blocked)) = (channel(), channel());
        let lab = Lab {
            limits,
            overload_answer,
            control: Arc::clone(&control),
            seen: seen_by,
            unblock: Mutex::new(blocked),
        };
        let sockets = sockets.into().proxy_protocol(setup.proxied);
        let builder = LoopBuilder::new(config)
            .listen_boxed("lab", sockets, Ok(client::boxed(lab)))
            .metrics(metrics.clone());
        let running = adjust(builder).spawn().unwrap();
        Self { running: Some(running), address, metrics, control, unblock, seen }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A client that is being served.
    pub(crate) fn served_client(&self) -> Client {
        let mut client = self.client();
        client.round_trip();
        client
    }

    /// A client, and the handle that the service got for it.
    pub(crate) fn client_with_handle(&self) -> (Client, ConnHandle<Note>) {
        let client = self.client();
        let handle = self.see(|seen| if let Seen::Opened(handle) = seen { Some(handle) } else { None });
        (client, handle)
    }

    /// The next thing seen that `pick` wants.
    pub(crate) fn see<T>(&self, pick: impl Fn(Seen) -> Option<T>) -> T {
        let limit = Instant::now() + PATIENCE;
        loop {
            let left = limit.saturating_duration_since(Instant::now());
            let seen = self.seen.recv_timeout(left).expect("what the test waits for was not seen");
            if let Some(found) = pick(seen) {
                return found;
            }
        }
    }

    pub(crate) fn suspended(&self) -> ConnHandle<Note> {
        self.see(|seen| if let Seen::Suspended(handle) = seen { Some(handle) } else { None })
    }

    /// How the next connection ended.
    pub(crate) fn closed(&self) -> Closed {
        self.see(|seen| if let Seen::Closed(closed) = seen { Some(closed) } else { None })
    }

    pub(crate) fn expect_close(&self, reason: Reason) -> Closed {
        let closed = self.closed();
        assert_eq!(closed.reason, reason, "{closed:?}");
        closed
    }

    pub(crate) fn listener(&self) -> ListenerMetrics {
        self.metrics.listener(0)
    }

    pub(crate) fn count(&self, word: ListenerWord) -> u64 {
        self.listener().get(word)
    }

    /// Waits until a counter has come so far.
    pub(crate) fn wait_for(&self, word: ListenerWord, at_least: u64) {
        until(|| self.count(word) >= at_least);
    }

    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join().unwrap();
        }
    }

    /// Every connection that was accepted has ended, once, and for one reason.
    fn check_the_books(&self) {
        check_the_books(&self.listener());
    }
}

/// As [`Server::check_the_books`], for any loop that has ended.
pub(crate) fn check_the_books(listener: &ListenerMetrics) {
    let reasons = (Reason::FIRST_CUSTOM..64).map(Reason::custom).chain(Reason::ALL.iter().copied());
    let ended: u64 = reasons.map(|reason| listener.closed(reason)).sum();
    let connected = listener.get(ListenerWord::Connects) - listener.get(ListenerWord::ConnectFailures);
    assert_eq!(listener.get(ListenerWord::Accepted) + connected, ended, "accepted or connected, ended");
    assert_eq!(listener.get(ListenerWord::Open), 0, "open after the end");
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
            self.check_the_books();
        }
    }
}

/// Waits until something is true that nobody reports.
pub(crate) fn until(mut is_true: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < limit, "what the test waits for did not come");
        std::thread::yield_now();
    }
}

/// Bytes that show a gap, a repetition or a swap.
pub(crate) fn pattern(n: usize) -> Vec<u8> {
    (0u32..).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).take(n).collect()
}

/// Once, before the first server.
pub(crate) fn prepare_the_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The panics that the tests order are caught; printed they would only hide those that are not.
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            if !thread.name().is_some_and(|name| name.starts_with("loop-") || name.starts_with("pool-")) {
                print(info);
            }
        }));
        // Both ends of every connection are in this process.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    });
}

/// How often `on_close` was called.
pub(crate) fn closes(server: &Server) -> u64 {
    server.control.closed.load(Ordering::Relaxed)
}
