//! Handing connections over to other processes: which worker gets them, and what becomes of them while none has room.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_engine::{
    AcceptorBuilder, Balance, EngineConfig, FdChannel, ListenerWord, LoopBuilder, Metrics, ProcessWord,
    Received, ReceiverBuilder, Running, Socket,
};

use crate::cluster::{Member, client_from, outcome};
use crate::named::Named;
use crate::support::{Client, PATIENCE, until};
use crate::workers::{Front, Worker, total};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn one_worker_after_the_other_gets_a_connection_and_its_loops_share_them() {
    let front = Front::start(Balance::RoundRobin, 2);
    let workers = [front.worker(0, &[100, 100]), front.worker(1, &[100, 100])];
    let mut clients: Vec<Client> = (0..20).map(|_| front.client()).collect();
    clients.iter_mut().for_each(Client::round_trip);
    for worker in &workers {
        assert_eq!(worker.accepted(), 10);
        assert_eq!(
            worker.members.iter().map(|member| member.handle.connections()).collect::<Vec<_>>(),
            [5, 5]
        );
    }
    drop(clients);
    until(|| workers.iter().all(|worker| worker.connections() == 0));
}

#[test]
fn an_address_keeps_its_worker() {
    let front = Front::start(Balance::Hash, 4);
    let workers: Vec<Worker> = (0..4).map(|worker| front.worker(worker, &[100])).collect();
    let place = |host: Ipv4Addr| {
        let before: Vec<u64> = workers.iter().map(Worker::accepted).collect();
        client_from(host, front.address).round_trip();
        workers.iter().zip(before).position(|(worker, before)| worker.accepted() > before).unwrap()
    };
    for host in 1..=20 {
        let host = Ipv4Addr::new(127, 0, 0, host);
        assert_eq!(place(host), place(host), "{host}");
    }
}

#[test]
fn the_worker_with_the_lowest_load_gets_the_next() {
    let front = Front::start(Balance::LeastConnections, 3);
    let workers: Vec<Worker> = (0..3).map(|worker| front.worker(worker, &[100])).collect();
    let give = |count: usize| {
        let before: Vec<u64> = workers.iter().map(Worker::accepted).collect();
        (0..count).for_each(|_| front.client().round_trip());
        let after = workers.iter().map(Worker::accepted);
        after.zip(before).map(|(after, before)| after - before).collect::<Vec<u64>>()
    };
    // What was sent counts before the worker says so.
    assert_eq!(give(6), [2, 2, 2]);
    for (load, says) in front.loads.iter().zip([10, 3, 10]) {
        load.store(says, Ordering::Relaxed);
    }
    assert_eq!(give(7), [0, 7, 0]);
    front.loads[1].store(20, Ordering::Relaxed);
    assert_eq!(give(4), [2, 0, 2]);
}

#[test]
fn a_worker_that_says_that_it_has_no_room_gets_none_until_it_has() {
    let front = Front::start(Balance::RoundRobin, 2);
    let workers = [front.worker(0, &[100]), front.worker(1, &[100])];
    front.loads[0].store(usize::MAX, Ordering::Relaxed);
    // What was accepted before it said so it has already.
    front.client().round_trip();
    let before = workers[0].accepted();
    (0..10).for_each(|_| front.client().round_trip());
    assert_eq!(workers[0].accepted(), before);
    front.loads[1].store(usize::MAX, Ordering::Relaxed);
    front.client().send("echo at last\n");
    let mut waiting = front.clients(10);
    front.loads[0].store(5, Ordering::Relaxed);
    waiting.iter_mut().for_each(|client| client.expect("at last"));
    assert!(
        workers[0].accepted() >= before + 9,
        "the turn that saw the change may have had one for the other"
    );
}

#[test]
fn thousands_of_connections_reach_eight_workers_and_none_is_lost() {
    let front = Front::start(Balance::RoundRobin, 8);
    let workers: Vec<Worker> = (0..8).map(|worker| front.worker(worker, &[1000])).collect();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| (0..500).for_each(|_| front.client().round_trip()));
        }
    });
    assert_eq!(total(&workers), 5000);
    assert!(workers.iter().all(|worker| worker.accepted() > 0 && worker.errors() == 0));
}

#[test]
fn workers_without_room_hold_up_the_channel_and_then_the_queue_and_nobody_is_lost() {
    let mut front = Front::start(Balance::RoundRobin, 2);
    // Two places for eight hundred, most of whom wait; those who were served go.
    let workers = [front.worker(0, &[3, 2]), front.worker(1, &[5])];
    let clients = front.clients(800);
    // Served in whatever order: each waits on a thread of its own, or hardly.
    std::thread::scope(|scope| {
        for mut client in clients {
            let waiting = move || client.expect("at last");
            std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, waiting).unwrap();
        }
    });
    assert_eq!(total(&workers), 800);
    front.handle.quit(LONG);
    front.join();
}

#[test]
fn a_full_channel_is_passed_over_and_its_worker_comes_back() {
    let front = Front::start(Balance::RoundRobin, 2);
    let filled = fill(&front.channels[0].0);
    let workers = [Worker::build(&[1000], front.receiving(0)), front.worker(1, &[1000])];
    for _ in 0..20 {
        front.client().round_trip();
    }
    assert_eq!(workers[1].accepted(), 20);
    empty(&front.channels[0].1, filled);
    let mut workers = workers;
    workers[0].run();
    until(|| {
        front.client().round_trip();
        workers[0].accepted() > 3
    });
    assert_eq!(workers[0].errors(), 0);
}

/// Sends what is no connection until nothing more is taken. Answers how much that is.
fn fill(channel: &FdChannel) -> usize {
    for count in 0.. {
        if let Err(error) = channel.send(b"filler", &[]) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            return count;
        }
    }
    unreachable!("a channel is full some time")
}

/// Takes out what was filled in, and not what follows.
fn empty(channel: &FdChannel, filled: usize) {
    for _ in 0..filled {
        assert_eq!(channel.recv(&mut [0; 10], &mut Vec::new()).unwrap(), Received::Message { len: 6 });
    }
}

#[test]
fn while_all_channels_are_full_peers_wait_and_none_is_lost() {
    let front = Front::start(Balance::LeastConnections, 2);
    let filled: Vec<usize> = front.channels.iter().map(|(sending, _)| fill(sending)).collect();
    let mut waiting = front.clients(300);
    // The first of them is held by the acceptor, which tries it every now and then.
    until(|| front.metrics.get(ProcessWord::LoopTurns) > 5);
    front.channels.iter().zip(filled).for_each(|((_, receiving), filled)| empty(receiving, filled));
    let workers = [front.worker(0, &[1000]), front.worker(1, &[1000])];
    waiting.iter_mut().for_each(|client| client.expect("at last"));
    assert_eq!(total(&workers), 300);
}

#[test]
fn an_acceptor_that_retires_hands_over_what_waits_even_when_a_worker_is_late() {
    let mut front = Front::start(Balance::RoundRobin, 1);
    let filled = fill(&front.channels[0].0);
    let mut waiting = front.clients(300);
    until(|| front.metrics.get(ProcessWord::LoopTurns) > 5);
    front.handle.quit(LONG);
    until(|| {
        TcpStream::connect(front.address).is_ok_and(|late| {
            drop(late);
            front.metrics.get(ProcessWord::LoopTurns) > 10
        })
    });
    empty(&front.channels[0].1, filled);
    let worker = front.worker(0, &[4000]);
    front.join();
    waiting.iter_mut().for_each(|client| client.expect("at last"));
    assert!(TcpStream::connect(front.address).is_err(), "nobody listens any more");
    assert!(worker.accepted() >= 300);
}

#[test]
fn what_no_worker_takes_before_the_end_is_reported() {
    let mut front = Front::start(Balance::RoundRobin, 1);
    fill(&front.channels[0].0);
    let mut client = front.client();
    until(|| front.metrics.get(ProcessWord::LoopTurns) > 5);
    front.handle.quit(Duration::from_millis(20));
    outcome(front.thread.take().unwrap()).unwrap();
    assert_eq!(client.rest(), b"");
    assert_eq!(front.metrics.listener(0).get(ListenerWord::Overloaded), 1);
    // It is what this test is about, and not to be found by the drop.
    std::mem::forget(front);
}

#[test]
fn without_anybody_at_the_channels_the_acceptor_says_so_and_ends() {
    let mut front = Front::start(Balance::RoundRobin, 1);
    front.channels.clear();
    let _client = front.client();
    let error = outcome(front.thread.take().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "no worker is left that takes connections");
    std::mem::forget(front);
}

#[test]
fn each_listener_has_its_service_and_its_peers_in_each_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let tcp6 = TcpListener::bind(("::1", 0));
    let address = tcp.local_addr().unwrap();
    let (sending, receiving) = FdChannel::pair().unwrap();
    let sockets: Vec<OwnedFd> = [unix.into(), tcp.into()].into_iter().collect();
    let mut builder = AcceptorBuilder::to_channels(Balance::Hash, vec![sending], |_| 0);
    for (name, socket) in ["unix", "tcp"].into_iter().zip(sockets) {
        builder = builder.listen(name, socket);
    }
    let address6 = tcp6.as_ref().ok().map(|tcp6| tcp6.local_addr().unwrap());
    if let Ok(tcp6) = tcp6 {
        builder = builder.listen("tcp6", tcp6);
    }
    let (mut acceptor, handle) = builder.build().unwrap();
    let accepting = std::thread::spawn(move || acceptor.run());
    for (trigger, backend, dispatch) in models() {
        let config = EngineConfig { trigger, backend, dispatch, ..EngineConfig::default() };
        let running: Running = LoopBuilder::new(config)
            .listen("unix", Socket::handed_over(), || Ok(Named))
            .listen("tcp", Socket::handed_over(), || Ok(Named))
            .listen("tcp6", Socket::handed_over(), || Ok(Named))
            .spawn()
            .unwrap();
        let (mut receiver, worker) = ReceiverBuilder::new(Balance::Hash, vec![running.handle()])
            .channel(receiving.try_clone().unwrap())
            .build()
            .unwrap();
        let thread = std::thread::spawn(move || receiver.run());
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = [0; 10];
        peer.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"unix unix\n");
        for (name, address) in [("tcp", Some(address)), ("tcp6", address6)] {
            let Some(address) = address else { continue };
            let mut peer = Client::new(address);
            let own = peer.stream().local_addr().unwrap();
            peer.expect(&format!("{name} {own}"));
        }
        worker.stop();
        outcome(thread).unwrap();
        running.join().unwrap();
    }
    handle.stop();
    outcome(accepting).unwrap();
}

/// Every way a loop can work.
fn models() -> Vec<(tidegate_engine::Trigger, tidegate_engine::Backend, tidegate_engine::Dispatch)> {
    use tidegate_engine::{Backend, Dispatch, Trigger, Uring};
    let mut models = vec![
        (Trigger::Level, Backend::Epoll, Dispatch::Inline),
        (Trigger::Edge, Backend::Epoll, Dispatch::Pool),
        (Trigger::Oneshot, Backend::Epoll, Dispatch::Reactor),
        (Trigger::Oneshot, Backend::Epoll, Dispatch::LeaderFollower),
    ];
    if Uring::new().is_ok() {
        models.push((Trigger::Edge, Backend::Uring, Dispatch::Inline));
    }
    models
}

#[test]
fn what_does_not_fit_together_is_not_built() {
    let (member, _loop) = Member::build(9, None);
    let channel = || FdChannel::pair().unwrap().0;
    let socket = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let refused = |builder: ReceiverBuilder| builder.build().unwrap_err().to_string();
    let over = |members: &[&Member]| {
        let handles = members.iter().map(|member| member.handle.clone()).collect();
        ReceiverBuilder::new(Balance::RoundRobin, handles).channel(channel())
    };
    let own =
        LoopBuilder::new(EngineConfig::default()).listen("lab", socket(), || Ok(Named)).spawn().unwrap();
    assert_eq!(refused(over(&[])), "a receiver needs a loop to receive for");
    assert_eq!(
        refused(ReceiverBuilder::new(Balance::Hash, vec![own.handle()])),
        "the loops of a receiver need listeners that are handed over"
    );
    assert_eq!(
        refused(ReceiverBuilder::new(Balance::Hash, vec![member.handle.clone(), own.handle()])),
        "loop 0 has the listeners [\"lab\"], and loop 1 is handed connections for []"
    );
    assert_eq!(
        refused(over(&[&member]).metrics(Metrics::on_heap(0).process(0))),
        "1 listeners, where there is room for 0"
    );
    let (_receiver, _handle) = over(&[&member]).build().unwrap();
    assert_eq!(refused(over(&[&member])), "loop 0 has an acceptor already");
    let nobody = AcceptorBuilder::to_channels(Balance::Hash, Vec::new(), |_| 0).listen("lab", socket());
    assert_eq!(nobody.build().unwrap_err().to_string(), "an acceptor needs a worker to accept for");
    own.stop();
    own.join().unwrap();
}
