//! One reactor that accepts, and several loops that serve.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use tidegate_engine::{
    AcceptorBuilder, Balance, EngineConfig, ListenerWord, LoopBuilder, Metrics, ProcessMetrics, ProcessWord,
    Reason, Running, Socket,
};

use crate::cluster::{Cluster, Member, client_from, outcome, run_loop};
use crate::descriptors::{
    ANSWER, Process, expect_answers, expect_patience, is_child, lower_the_limit, serve_with_little_room,
};
use crate::lab::Seen;
use crate::named::Named;
use crate::support::{Client, PATIENCE, until};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn one_loop_after_the_other_gets_a_connection() {
    let cluster = Cluster::start(Balance::RoundRobin, &[100, 100, 100]);
    let mut clients: Vec<Client> = (0..30).map(|_| cluster.client()).collect();
    clients.iter_mut().for_each(Client::round_trip);
    assert_eq!(cluster.accepted(), [10, 10, 10]);
    assert_eq!(cluster.connections(), [10, 10, 10]);
    drop(clients);
    until(|| cluster.connections() == [0, 0, 0]);
    assert_eq!(cluster.closes(), 30);
}

#[test]
fn the_loop_with_the_fewest_connections_gets_the_next() {
    let cluster = Cluster::start(Balance::LeastConnections, &[100, 100, 100]);
    let mut clients: Vec<(Client, usize)> = (0..12).map(|_| cluster.client_and_loop()).collect();
    assert_eq!(cluster.connections(), [4, 4, 4]);
    clients.retain(|(_, chosen)| *chosen != 1);
    until(|| cluster.connections() == [4, 0, 4]);
    for _ in 0..4 {
        let (client, chosen) = cluster.client_and_loop();
        assert_eq!(chosen, 1);
        clients.push((client, chosen));
    }
    assert_eq!(cluster.connections(), [4, 4, 4]);
}

#[test]
fn an_address_keeps_its_loop() {
    let cluster = Cluster::start(Balance::Hash, &[100, 100, 100]);
    let mut kept = Vec::new();
    for host in 1..=20 {
        let host = Ipv4Addr::new(127, 0, 0, host);
        let (first, own) = cluster.client_and_loop_from(host);
        let (second, again) = cluster.client_and_loop_from(host);
        assert_eq!(own, again, "{host}");
        drop(first);
        kept.push((host, own, second));
    }
    for (host, own, _) in &kept {
        assert_eq!(cluster.client_and_loop_from(*host).1, *own, "{host}");
    }
    assert_eq!(cluster.accepted().iter().sum::<u64>(), 60);
}

#[test]
fn a_full_loop_is_passed_over() {
    let cluster = Cluster::start(Balance::RoundRobin, &[1, 4]);
    let mut clients: Vec<Client> = (0..5).map(|_| cluster.client()).collect();
    clients.iter_mut().for_each(Client::round_trip);
    assert_eq!(cluster.connections(), [1, 4]);
}

#[test]
fn peers_wait_while_all_loops_are_full_and_are_served_when_one_has_room() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::Hash] {
        let cluster = Cluster::start(balance, &[2, 2]);
        let mut served: Vec<Client> = (0..4).map(|_| cluster.client()).collect();
        served.iter_mut().for_each(Client::round_trip);
        let mut waiting: Vec<Client> = (0..6).map(|_| cluster.client()).collect();
        waiting.iter().for_each(|client| client.send("echo at last\n"));
        served.iter_mut().for_each(Client::round_trip);
        assert_eq!(cluster.accepted().iter().sum::<u64>(), 4);
        for (gone, mut client) in served.into_iter().zip(waiting.drain(..4)) {
            drop(gone);
            client.expect("at last");
            assert!(cluster.connections().iter().all(|open| *open <= 2));
        }
        waiting.iter_mut().for_each(|client| client.expect("at last"));
        assert_eq!(cluster.accepted().iter().sum::<u64>(), 10);
        assert_eq!(cluster.metrics.listener(0).get(ListenerWord::Overloaded), 0);
    }
}

#[test]
fn two_thousand_connections_come_and_go_and_each_ends_once() {
    for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::Hash] {
        // Fewer places than peers, so that the listener is paused and resumed all the time.
        let cluster = Cluster::start(balance, &[3, 3, 3, 3]);
        let address = cluster.address;
        std::thread::scope(|scope| {
            for thread in 1..=20 {
                scope.spawn(move || {
                    for n in 0..100 {
                        let mut client = client_from(Ipv4Addr::new(127, 0, 0, thread), address);
                        client.round_trip();
                        if n % 3 == 0 {
                            client.reset();
                        }
                    }
                });
            }
        });
        until(|| cluster.closes() == 2000);
        assert_eq!(cluster.accepted().iter().sum::<u64>(), 2000);
        until(|| cluster.connections() == [0; 4]);
        assert_eq!(cluster.metrics.get(ProcessWord::AcceptExhausted), 0);
    }
}

#[test]
fn what_waits_in_the_queue_of_a_retiring_acceptor_is_served() {
    let mut cluster = Cluster::without_acceptor(Balance::RoundRobin, &[100, 100], None);
    let mut clients: Vec<Client> = (0..200).map(|_| cluster.client()).collect();
    clients.iter().for_each(|client| client.send("echo in time\n"));
    cluster.handle.quit(LONG);
    cluster.start_acceptor();
    for client in &mut clients {
        assert_eq!(client.rest(), b"in time\n");
    }
    drop(clients);
    cluster.join();
    assert_eq!(cluster.accepted(), [100, 100]);
    assert_eq!(cluster.closes(), 200);
    assert_eq!(cluster.members.iter().map(|m| m.closed(Reason::SHUTDOWN)).sum::<u64>(), 200);
    assert!(TcpStream::connect(cluster.address).is_err(), "nobody listens any more");
}

#[test]
fn what_was_handed_over_to_a_busy_loop_is_served_before_it_retires() {
    let mut cluster = Cluster::start(Balance::RoundRobin, &[500, 500]);
    let holders = [cluster.client(), cluster.client()];
    holders.iter().for_each(|holder| holder.send("block\n"));
    cluster.members.iter().for_each(Member::wait_for_a_block);
    let mut clients: Vec<Client> = (0..100).map(|_| cluster.client()).collect();
    clients.iter().for_each(|client| client.send("echo in time\n"));
    until(|| cluster.connections() == [51, 51]);
    assert_eq!(cluster.accepted(), [1, 1]);
    cluster.handle.quit(LONG);
    cluster.members.iter().for_each(|member| member.unblock.send(()).unwrap());
    for client in &mut clients {
        assert_eq!(client.rest(), b"in time\n");
    }
    drop((clients, holders));
    cluster.join();
    assert_eq!(cluster.accepted(), [51, 51]);
    assert_eq!(cluster.closes(), 102);
}

#[test]
fn a_stop_closes_everything_once() {
    let mut cluster = Cluster::start(Balance::RoundRobin, &[500, 500]);
    let mut clients: Vec<Client> = (0..50).map(|_| cluster.client()).collect();
    clients.iter_mut().for_each(Client::round_trip);
    clients[0].send("block\n");
    let stuck = cluster.blocked();
    let late: Vec<Client> = (0..10).map(|_| cluster.client()).collect();
    until(|| cluster.connections() == [30, 30]);
    cluster.handle.stop();
    // A stop is not taken back.
    cluster.handle.quit(LONG);
    cluster.members[stuck].unblock.send(()).unwrap();
    cluster.join();
    assert_eq!(cluster.accepted(), [30, 30]);
    assert_eq!(cluster.members.iter().map(|m| m.closed(Reason::STOPPED)).sum::<u64>(), 60);
    drop((clients, late));
}

#[test]
fn a_loop_that_has_ended_is_passed_over_and_the_last_one_ends_the_acceptor() {
    let (first, idle) = Member::build(9, None);
    let (second, event_loop) = Member::build(9, None);
    let mut cluster = Cluster::of(Balance::RoundRobin, vec![first, second]);
    cluster.threads.push(run_loop(event_loop));
    cluster.start_acceptor();
    // The first loop never runs, so what it is given waits.
    let mut lost = cluster.client();
    // When the second loop has got its connection, the first one has.
    assert_eq!(cluster.client_and_loop().1, 1);
    assert_eq!(cluster.connections()[0], 1);
    drop(idle);
    assert_eq!(lost.rest(), b"");
    let dead = &cluster.members[0];
    assert_eq!((dead.count(ListenerWord::Accepted), dead.closed(Reason::STOPPED)), (1, 1));
    for _ in 0..5 {
        assert_eq!(cluster.client_and_loop().1, 1);
    }
    assert_eq!(cluster.connections()[0], 0);
    cluster.members[1].handle.stop();
    let error = outcome(cluster.accepting.take().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "no event loop is left that takes connections");
    assert!(TcpStream::connect(cluster.address).is_err(), "nobody listens any more");
}

#[test]
fn a_loop_that_retires_by_itself_is_passed_over() {
    let cluster = Cluster::start(Balance::RoundRobin, &[9, 9]);
    let (client, first) = cluster.client_and_loop();
    client.send("stay\n");
    cluster.members[first].handle.quit(LONG);
    while !matches!(cluster.members[first].seen.recv_timeout(PATIENCE).unwrap(), Seen::Retire(_)) {}
    for _ in 0..4 {
        assert_ne!(cluster.client_and_loop().1, first);
    }
}

#[test]
fn orders_for_an_acceptor_that_never_ran_reach_the_loops() {
    let mut cluster = Cluster::without_acceptor(Balance::RoundRobin, &[9, 9], None);
    // One before it is gone, and one after.
    cluster.handle.quit(LONG);
    cluster.acceptor = None;
    cluster.handle.stop();
    cluster.join();
}

#[test]
fn each_listener_has_its_service_and_its_peers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (unix, tcp) =
        (UnixListener::bind(&path).unwrap(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let address = tcp.local_addr().unwrap();
    let metrics: Vec<ProcessMetrics> = (0..2).map(|_| Metrics::on_heap(2).process(0)).collect();
    let started = metrics.iter().map(|metrics| {
        LoopBuilder::new(EngineConfig::default())
            .listen("one", Socket::handed_over(), || Ok(Named))
            .listen("other", Socket::handed_over(), || Ok(Named))
            .metrics(metrics.clone())
            .spawn()
            .unwrap()
    });
    let loops: Vec<Running> = started.collect();
    let handles = loops.iter().map(Running::handle).collect();
    let (mut acceptor, handle) = AcceptorBuilder::new(Balance::Hash, handles)
        .listen("one", tcp)
        .listen("other", unix)
        .build()
        .unwrap();
    let thread = std::thread::spawn(move || acceptor.run());
    for _ in 0..4 {
        let mut peer = Client::new(address);
        let own = peer.stream().local_addr().unwrap();
        peer.expect(&format!("one {own}"));
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = [0; 11];
        peer.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"other unix\n");
    }
    let accepted = |listener: usize| {
        metrics.iter().map(|m| m.listener(listener).get(ListenerWord::Accepted)).collect::<Vec<u64>>()
    };
    // One address keeps its loop, and peers without one go round.
    assert_eq!(accepted(0).iter().max(), Some(&4));
    assert_eq!(accepted(0).iter().min(), Some(&0));
    assert_eq!(accepted(1), [2, 2]);
    handle.stop();
    outcome(thread).unwrap();
    loops.into_iter().for_each(|running| running.join().unwrap());
}

#[test]
fn what_does_not_fit_together_is_not_built() {
    let member = || Member::build(9, None);
    let socket = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let refused = |builder: AcceptorBuilder| builder.build().unwrap_err().to_string();
    let over = |loops: &[&Member]| {
        let handles = loops.iter().map(|member| member.handle.clone()).collect();
        AcceptorBuilder::new(Balance::RoundRobin, handles)
    };
    let (first, _first) = member();
    let own: Running =
        LoopBuilder::new(EngineConfig::default()).listen("lab", socket(), || Ok(Named)).spawn().unwrap();
    assert_eq!(refused(over(&[]).listen("lab", socket())), "an acceptor needs a loop to accept for");
    assert_eq!(
        refused(over(&[&first]).listen("web", socket())),
        "the acceptor has the listeners [\"web\"], and loop 0 is handed connections for [\"lab\"]"
    );
    assert_eq!(
        refused(AcceptorBuilder::new(Balance::Hash, vec![own.handle()]).listen("lab", socket())),
        "the acceptor has the listeners [\"lab\"], and loop 0 is handed connections for []"
    );
    assert_eq!(
        refused(over(&[&first]).listen("lab", Socket::handed_over())),
        "listener \"lab\" has no socket to accept from"
    );
    assert_eq!(
        refused(over(&[&first]).listen("lab", socket()).metrics(Metrics::on_heap(0).process(0))),
        "1 listeners, where there is room for 0"
    );
    let (_acceptor, _handle) = over(&[&first]).listen("lab", socket()).build().unwrap();
    assert_eq!(refused(over(&[&first]).listen("lab", socket())), "loop 0 has an acceptor already");
    let mixed = LoopBuilder::new(EngineConfig::default()).listen("one", socket(), || Ok(Named)).listen(
        "other",
        Socket::handed_over(),
        || Ok(Named),
    );
    assert_eq!(
        mixed.build().unwrap_err().to_string(),
        "1 of 2 listeners have a socket: a loop accepts from all of its listeners or from none"
    );
    own.stop();
    own.join().unwrap();
}

/// The child's life, in which the acceptor finds no descriptor.
fn serve(overload_answer: Option<&'static [u8]>) {
    lower_the_limit();
    let mut cluster = Cluster::without_acceptor(Balance::LeastConnections, &[500, 500], overload_answer);
    cluster.start_acceptor();
    let metrics = cluster.metrics.clone();
    serve_with_little_room(cluster.address, || {
        (metrics.get(ProcessWord::AcceptExhausted), metrics.listener(0).get(ListenerWord::Overloaded))
    });
}

#[test]
fn without_descriptors_a_service_with_an_answer_gives_it() {
    if is_child() {
        return serve(Some(ANSWER));
    }
    expect_answers(Process::of_test("acceptor::without_descriptors_a_service_with_an_answer_gives_it"));
}

#[test]
fn without_descriptors_and_an_answer_peers_wait_and_the_acceptor_does_not_spin() {
    if is_child() {
        return serve(None);
    }
    expect_patience(Process::of_test(
        "acceptor::without_descriptors_and_an_answer_peers_wait_and_the_acceptor_does_not_spin",
    ));
}

#[test]
fn a_socket_is_adopted_and_released_and_what_waits_in_it_is_served() {
    let cluster = Cluster::start(Balance::RoundRobin, &[500, 500]);
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let copy = || Socket::own(socket.try_clone().unwrap());
    cluster.handle.adopt(7, 0, copy());
    (0..10).for_each(|_| Client::new(address).round_trip());
    // Of a listener that is not there: nothing comes of it, and the acceptor lives.
    cluster.handle.adopt(8, 5, copy());
    cluster.client().round_trip();
    assert_eq!(cluster.accepted().iter().sum::<u64>(), 11);
    cluster.handle.release(7);
    // Whoever came before it was released is served, and whoever comes later waits for the next owner.
    let mut late = Client::new(address);
    late.send("echo at last\n");
    cluster.client().round_trip();
    cluster.handle.adopt(9, 0, copy());
    late.expect("at last");
    cluster.handle.release(9);
    cluster.handle.release(9);
    cluster.client().round_trip();
}

#[test]
fn a_paused_listener_leaves_peers_in_the_queue_until_it_is_resumed() {
    for site in [None, Some(0)] {
        let cluster = Cluster::start(Balance::RoundRobin, &[500, 500]);
        cluster.client().round_trip();
        cluster.handle.pause(site);
        heeded(&cluster);
        let accepted = cluster.accepted();
        let mut waiting = cluster.client();
        waiting.send("echo at last\n");
        // What is adopted meanwhile is paused with the rest.
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut adopted = Client::new(socket.local_addr().unwrap());
        adopted.send("echo at last\n");
        cluster.handle.adopt(1, 0, Socket::own(socket));
        heeded(&cluster);
        assert_eq!(cluster.accepted(), accepted);
        cluster.handle.resume(site);
        waiting.expect("at last");
        adopted.expect("at last");
    }
}

/// Waits until the acceptor has done what it was told: the turn after the next comes behind it.
fn heeded(cluster: &Cluster) {
    let turns = cluster.metrics.get(ProcessWord::LoopTurns);
    until(|| {
        // What is nowhere adopted, to end its wait.
        cluster.handle.release(99);
        cluster.metrics.get(ProcessWord::LoopTurns) >= turns + 2
    });
}
