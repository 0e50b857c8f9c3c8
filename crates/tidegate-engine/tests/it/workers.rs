//! An acceptor and workers that it hands connections over to, each with loops of its own, as in processes of their own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tidegate_engine::{
    AcceptorBuilder, AcceptorHandle, Balance, FdChannel, ListenerWord, Metrics, ProcessMetrics, ProcessWord,
    Receiver, ReceiverBuilder, ReceiverHandle,
};

use crate::cluster::{Member, outcome, run_loop};
use crate::support::{Client, check_the_books, prepare_the_process};

pub(crate) type Thread = JoinHandle<std::io::Result<()>>;

/// A worker: loops, and a receiver on a thread.
pub(crate) struct Worker {
    pub(crate) members: Vec<Member>,
    pub(crate) threads: Vec<Thread>,
    /// Until it is started.
    pub(crate) receiver: Option<Receiver>,
    pub(crate) handle: ReceiverHandle,
    pub(crate) metrics: ProcessMetrics,
}

impl Worker {
    /// With a loop for each limit; nobody receives yet.
    pub(crate) fn build(limits: &[usize], channel: FdChannel) -> Self {
        Self::build_with(limits, None, channel)
    }

    /// As [`build`](Self::build), with a service that has an answer for want of descriptors.
    pub(crate) fn build_with(
        limits: &[usize],
        overload_answer: Option<&'static [u8]>,
        channel: FdChannel,
    ) -> Self {
        prepare_the_process();
        let (members, loops): (Vec<_>, Vec<_>) =
            limits.iter().map(|limit| Member::build(*limit, overload_answer)).unzip();
        let metrics = Metrics::on_heap(1).process(0);
        let handles = members.iter().map(|member| member.handle.clone()).collect();
        let (receiver, handle) = ReceiverBuilder::new(Balance::RoundRobin, handles)
            .channel(channel)
            .metrics(metrics.clone())
            .build()
            .unwrap();
        let threads = loops.into_iter().map(run_loop).collect();
        Self { members, threads, receiver: Some(receiver), handle, metrics }
    }

    pub(crate) fn start(limits: &[usize], channel: FdChannel) -> Self {
        let mut worker = Self::build(limits, channel);
        worker.run();
        worker
    }

    pub(crate) fn run(&mut self) {
        let mut receiver = self.receiver.take().unwrap();
        self.threads.push(std::thread::spawn(move || receiver.run()));
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.members.iter().map(|member| member.count(ListenerWord::Accepted)).sum()
    }

    pub(crate) fn connections(&self) -> usize {
        self.members.iter().map(|member| member.handle.connections()).sum()
    }

    pub(crate) fn errors(&self) -> u64 {
        self.metrics.get(ProcessWord::HandoverErrors)
    }

    /// Waits for its end; it was told.
    pub(crate) fn join(&mut self) {
        self.receiver = None;
        self.threads.drain(..).for_each(|thread| outcome(thread).unwrap());
    }
}

impl Drop for Worker {
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
    }
}

/// An acceptor on a thread, and both ends of its channels, as a master keeps them.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    pub(crate) handle: AcceptorHandle,
    pub(crate) metrics: ProcessMetrics,
    pub(crate) channels: Vec<(FdChannel, FdChannel)>,
    /// What each worker is said to have.
    pub(crate) loads: Arc<Vec<AtomicUsize>>,
    pub(crate) thread: Option<Thread>,
}

impl Front {
    pub(crate) fn start(balance: Balance, workers: usize) -> Self {
        prepare_the_process();
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        rustix::net::listen(&socket, 4096).unwrap();
        let address = socket.local_addr().unwrap();
        let metrics = Metrics::on_heap(1).process(0);
        let channels: Vec<_> = (0..workers).map(|_| FdChannel::pair().unwrap()).collect();
        let sending = channels.iter().map(|(sending, _)| sending.try_clone().unwrap()).collect();
        let loads: Arc<Vec<AtomicUsize>> = Arc::new((0..workers).map(|_| AtomicUsize::new(0)).collect());
        let asked = Arc::clone(&loads);
        let (mut acceptor, handle) = AcceptorBuilder::to_channels(balance, sending, move |worker| {
            asked[worker].load(Ordering::Relaxed)
        })
        .listen("lab", socket)
        .metrics(metrics.clone())
        .build()
        .unwrap();
        let thread = Some(std::thread::spawn(move || acceptor.run()));
        Self { address, handle, metrics, channels, loads, thread }
    }

    pub(crate) fn receiving(&self, worker: usize) -> FdChannel {
        self.channels[worker].1.try_clone().unwrap()
    }

    pub(crate) fn worker(&self, worker: usize, limits: &[usize]) -> Worker {
        Worker::start(limits, self.receiving(worker))
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Clients that have said something, and are not served perhaps.
    pub(crate) fn clients(&self, count: usize) -> Vec<Client> {
        let clients: Vec<Client> = (0..count).map(|_| self.client()).collect();
        clients.iter().for_each(|client| client.send("echo at last\n"));
        clients
    }

    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            outcome(thread).unwrap();
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.handle.stop();
        self.join();
        assert_eq!(self.metrics.listener(0).get(ListenerWord::Overloaded), 0, "connections were lost");
    }
}

pub(crate) fn total(workers: &[Worker]) -> u64 {
    workers.iter().map(Worker::accepted).sum()
}
