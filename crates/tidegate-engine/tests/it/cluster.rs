//! A server of several loops and their acceptor, each loop with a [`Lab`] of its own.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::net::{AddressFamily, SocketType, bind, connect, listen, socket};
use tidegate_engine::{
    Acceptor, AcceptorBuilder, AcceptorHandle, Balance, EngineConfig, Epoll, EventLoop, Limits, ListenerWord,
    LoopBuilder, LoopHandle, Metrics, ProcessMetrics, Reason, Socket,
};

use crate::lab::{Control, Lab, Seen};
use crate::support::{Client, PATIENCE, check_the_books, prepare_the_process, until};

/// A loop of a cluster, and what is known of it from outside.
pub(crate) struct Member {
    pub(crate) handle: LoopHandle,
    pub(crate) metrics: ProcessMetrics,
    pub(crate) control: Arc<Control>,
    pub(crate) unblock: Sender<()>,
    pub(crate) seen: Receiver<Seen>,
}

impl Member {
    pub(crate) fn build(limit: usize, overload_answer: Option<&'static [u8]>) -> (Self, EventLoop) {
        let metrics = Metrics::on_heap(1).process(0);
        let control = Arc::new(Control::default());
        let ((seen_by, seen), (unblock, blocked)) = (channel(), channel());
        let lab = Lab {
            limits: Limits::default(),
            overload_answer,
            control: Arc::clone(&control),
            seen: seen_by,
            unblock: Mutex::new(blocked),
        };
        let config = EngineConfig { max_connections: limit, ..EngineConfig::default() };
        let (event_loop, handle) = LoopBuilder::new(config)
            .listen("lab", Socket::handed_over(), || Ok(lab))
            .metrics(metrics.clone())
            .build()
            .unwrap();
        (Self { handle, metrics, control, unblock, seen }, event_loop)
    }

    pub(crate) fn count(&self, word: ListenerWord) -> u64 {
        self.metrics.listener(0).get(word)
    }

    pub(crate) fn closed(&self, reason: Reason) -> u64 {
        self.metrics.listener(0).closed(reason)
    }

    pub(crate) fn wait_for_a_block(&self) {
        while !matches!(self.seen.recv_timeout(PATIENCE).unwrap(), Seen::Blocked) {}
    }
}

/// Loops and their acceptor. When it is dropped it is stopped, and its books must balance.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) threads: Vec<JoinHandle<std::io::Result<()>>>,
    /// Until it is started.
    pub(crate) acceptor: Option<Acceptor<Epoll>>,
    pub(crate) accepting: Option<JoinHandle<std::io::Result<()>>>,
    pub(crate) handle: AcceptorHandle,
    pub(crate) metrics: ProcessMetrics,
    pub(crate) address: SocketAddr,
}

impl Cluster {
    /// With a loop for each limit.
    pub(crate) fn start(balance: Balance, limits: &[usize]) -> Self {
        let mut cluster = Self::without_acceptor(balance, limits, None);
        cluster.start_acceptor();
        cluster
    }

    /// The loops serve, and nobody accepts yet.
    pub(crate) fn without_acceptor(
        balance: Balance,
        limits: &[usize],
        overload_answer: Option<&'static [u8]>,
    ) -> Self {
        let built = limits.iter().map(|limit| Member::build(*limit, overload_answer));
        let (members, loops): (Vec<_>, Vec<_>) = built.unzip();
        let mut cluster = Self::of(balance, members);
        cluster.threads = loops.into_iter().map(run_loop).collect();
        cluster
    }

    pub(crate) fn of(balance: Balance, members: Vec<Member>) -> Self {
        prepare_the_process();
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Room for all that queue up in these tests.
        listen(&socket, 1024).unwrap();
        let address = socket.local_addr().unwrap();
        let metrics = Metrics::on_heap(1).process(0);
        let loops = members.iter().map(|member| member.handle.clone()).collect();
        let (acceptor, handle) = AcceptorBuilder::new(balance, loops)
            .listen("lab", socket)
            .metrics(metrics.clone())
            .build()
            .unwrap();
        let acceptor = Some(acceptor);
        Self { members, threads: Vec::new(), acceptor, accepting: None, handle, metrics, address }
    }

    pub(crate) fn start_acceptor(&mut self) {
        let mut acceptor = self.acceptor.take().unwrap();
        let thread = std::thread::Builder::new().name("acceptor".into());
        self.accepting = Some(thread.spawn(move || acceptor.run()).unwrap());
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A client that is being served, and by which loop. Nobody else may come meanwhile.
    pub(crate) fn client_and_loop(&self) -> (Client, usize) {
        self.client_and_loop_from(Ipv4Addr::LOCALHOST)
    }

    pub(crate) fn client_and_loop_from(&self, host: Ipv4Addr) -> (Client, usize) {
        let before = self.accepted();
        let mut client = client_from(host, self.address);
        client.round_trip();
        let chosen = self.accepted().iter().zip(&before).position(|(now, before)| now > before);
        (client, chosen.expect("a loop has accepted it"))
    }

    /// Waits until some loop blocks, and answers which.
    pub(crate) fn blocked(&self) -> usize {
        let blocks = |member: &Member| member.seen.try_iter().any(|seen| matches!(seen, Seen::Blocked));
        let mut found = None;
        until(|| {
            found = self.members.iter().position(blocks);
            found.is_some()
        });
        found.unwrap()
    }

    pub(crate) fn accepted(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.count(ListenerWord::Accepted)).collect()
    }

    pub(crate) fn connections(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.handle.connections()).collect()
    }

    pub(crate) fn closes(&self) -> u64 {
        self.members.iter().map(|member| member.control.closed.load(Ordering::Relaxed)).sum()
    }

    /// Waits for the end of all threads, which were told.
    pub(crate) fn join(&mut self) {
        self.acceptor = None;
        if let Some(thread) = self.accepting.take() {
            outcome(thread).unwrap();
        }
        self.threads.drain(..).for_each(|thread| outcome(thread).unwrap());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.handle.stop();
        self.join();
        for member in &self.members {
            check_the_books(&member.metrics.listener(0));
            assert_eq!(member.handle.connections(), 0);
        }
        assert_eq!(self.metrics.listener(0).get(ListenerWord::Accepted), 0, "the loops count these");
    }
}

pub(crate) fn run_loop(mut event_loop: EventLoop) -> JoinHandle<std::io::Result<()>> {
    // Its panics are not printed, as those of any other loop under test.
    std::thread::Builder::new().name("loop-0".into()).spawn(move || event_loop.run()).unwrap()
}

/// What came of an acceptor or a loop, which was told to end.
pub(crate) fn outcome(thread: JoinHandle<std::io::Result<()>>) -> std::io::Result<()> {
    until(|| thread.is_finished());
    thread.join().unwrap()
}

/// A client with an address of its own.
pub(crate) fn client_from(host: Ipv4Addr, server: SocketAddr) -> Client {
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&stream, &SocketAddrV4::new(host, 0)).unwrap();
    connect(&stream, &server).unwrap();
    Client::over(TcpStream::from(stream))
}
