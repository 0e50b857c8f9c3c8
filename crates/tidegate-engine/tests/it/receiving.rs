//! What a worker does with what it is handed: it serves it, leaves it to others, or refuses it.

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tidegate_engine::{
    Balance, EngineConfig, FdChannel, ListenerWord, LoopBuilder, Metrics, ProcessWord, Reason,
    ReceiverBuilder, Socket,
};

use crate::cluster::outcome;
use crate::descriptors::{
    ANSWER, Process, expect_patience, is_child, lower_the_limit, serve_with_little_room,
};
use crate::lab::Lab;
use crate::support::{Client, PATIENCE, until};
use crate::workers::{Front, Worker, total};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn what_a_dead_worker_has_not_read_goes_to_its_successor() {
    let front = Front::start(Balance::RoundRobin, 1);
    let first = front.worker(0, &[2]);
    let mut served = [front.client(), front.client()];
    served.iter_mut().for_each(Client::round_trip);
    let mut waiting = front.clients(300);
    // Its loop is full, so it reads one message more at the most; these go with it.
    until(|| front.metrics.get(ProcessWord::LoopTurns) >= 2);
    first.handle.stop();
    drop(first);
    let successor = front.worker(0, &[1000]);
    let mut lost = 0;
    for client in &mut waiting {
        lost += usize::from(!was_served(client));
    }
    assert!(lost <= 16, "{lost}");
    assert_eq!(successor.accepted(), 300 - lost as u64);
    served.iter_mut().for_each(|client| assert!(!was_served(client)));
}

/// Whether a client is answered, and not cut off.
fn was_served(client: &mut Client) -> bool {
    let mut said = [0; 8];
    let got = client.stream().read_exact(&mut said);
    got.is_ok() && &said == b"at last\n"
}

#[test]
fn a_retiring_worker_serves_what_its_channel_holds() {
    let mut front = Front::start(Balance::RoundRobin, 1);
    let mut worker = Worker::build(&[7], front.receiving(0));
    let clients = front.clients(300);
    front.handle.quit(LONG);
    front.join();
    // Told to quit before it has read anything, with a loop that has room for a few at a time.
    worker.handle.quit(LONG);
    worker.run();
    std::thread::scope(|scope| {
        for mut client in clients {
            let waiting = move || client.expect("at last");
            std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, waiting).unwrap();
        }
    });
    worker.join();
    assert_eq!(worker.accepted(), 300);
}

#[test]
fn a_worker_that_ends_with_its_acceptor_takes_what_that_still_hands_over() {
    let mut front = Front::start(Balance::RoundRobin, 1);
    let mut worker = front.worker(0, &[100]);
    let turns = || worker.metrics.get(ProcessWord::LoopTurns);
    let before = turns();
    worker.handle.quit_behind_acceptor(LONG);
    until(|| turns() > before);
    let clients = front.clients(40);
    front.handle.quit(LONG);
    for mut client in clients {
        client.expect("at last");
    }
    front.join();
    worker.join();
    assert_eq!(worker.accepted(), 40);
}

#[test]
fn a_channel_that_is_adopted_right_before_the_end_is_read_to_its_end() {
    let mut front = Front::start(Balance::RoundRobin, 2);
    let mut worker = Worker::start(&[100], front.receiving(0));
    let absent = front.receiving(1);
    let clients = front.clients(40);
    front.handle.quit(LONG);
    front.join();
    worker.handle.adopt(7, absent);
    worker.handle.quit(LONG);
    for mut client in clients {
        client.expect("at last");
    }
    worker.join();
    assert_eq!(worker.accepted(), 40);
}

#[test]
fn a_retiring_worker_that_is_full_serves_on_until_it_is_told_for_how_long() {
    let mut front = Front::start(Balance::RoundRobin, 1);
    let mut worker = front.worker(0, &[2]);
    let mut served = [front.client(), front.client()];
    served.iter_mut().for_each(Client::round_trip);
    let mut waiting = front.clients(40);
    front.handle.quit(LONG);
    front.join();
    let turns = || worker.metrics.get(ProcessWord::LoopTurns);
    let before = turns();
    worker.handle.quit(Duration::MAX);
    until(|| turns() > before);
    // Its loop has not been told to retire: these would be closed.
    served.iter_mut().for_each(Client::round_trip);
    worker.handle.quit(Duration::from_millis(1));
    served.iter_mut().for_each(|client| assert!(!was_served(client)));
    worker.join();
    // What it has not received is still there.
    let successor = front.worker(0, &[1000]);
    let lost = waiting.iter_mut().filter_map(|client| (!was_served(client)).then_some(())).count();
    assert!(lost <= 16, "{lost}");
    assert_eq!(successor.accepted(), 40 - lost as u64);
}

#[test]
fn a_neighbour_reads_the_channel_that_it_has_adopted_until_it_is_released() {
    let front = Front::start(Balance::RoundRobin, 2);
    let neighbour = front.worker(0, &[1000]);
    neighbour.handle.adopt(7, front.receiving(1));
    for _ in 0..20 {
        front.client().round_trip();
    }
    assert_eq!(neighbour.accepted(), 20);
    let successor = front.worker(1, &[1000]);
    neighbour.handle.release(7);
    for _ in 0..100 {
        front.client().round_trip();
    }
    assert_eq!(neighbour.accepted() + successor.accepted(), 120);
    assert!(successor.accepted() > 0);
    neighbour.handle.release(7);
}

#[test]
fn a_paused_worker_receives_nothing_and_a_neighbour_has_its_share() {
    let front = Front::start(Balance::RoundRobin, 2);
    let workers = [front.worker(0, &[1000]), front.worker(1, &[1000])];
    workers[1].handle.pause(None);
    // One listener is paused where it is accepted from.
    workers[0].handle.pause(Some(0));
    // It may not have heard yet: what it gets until then it serves.
    let mut clients = front.clients(50);
    workers[0].handle.adopt(1, front.receiving(1));
    clients.iter_mut().for_each(|client| client.expect("at last"));
    until(|| {
        let before = workers[1].accepted();
        (0..10).for_each(|_| front.client().round_trip());
        workers[1].accepted() == before
    });
    workers[0].handle.release(1);
    workers[1].handle.resume(None);
    let before = workers[1].accepted();
    (0..50).for_each(|_| front.client().round_trip());
    assert!(workers[1].accepted() > before);
}

#[test]
fn what_was_received_is_served_when_there_is_room_though_the_worker_is_paused() {
    let (sending, receiving) = FdChannel::pair().unwrap();
    let worker = Worker::start(&[1], receiving);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (mut clients, mut accepted) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        clients.push(Client::new(listener.local_addr().unwrap()));
        accepted.push(listener.accept().unwrap().0);
    }
    clients.iter().for_each(|client| client.send("echo at last\n"));
    // In one message, for a loop with one place.
    let mut message = vec![1, 3];
    message.resize(2 + 3 * 30, 0);
    let fds: Vec<_> = accepted.iter().map(AsFd::as_fd).collect();
    sending.send(&message, &fds).unwrap();
    clients[0].expect("at last");
    worker.handle.pause(None);
    for mut client in clients.split_off(1) {
        drop(clients.pop());
        client.expect("at last");
        clients.push(client);
    }
    assert_eq!((worker.accepted(), worker.errors()), (3, 0));
}

#[test]
fn what_is_no_connection_is_refused_and_the_worker_lives() {
    let (sending, receiving) = FdChannel::pair().unwrap();
    let worker = Worker::start(&[100], receiving);
    let file = File::open("/dev/null").unwrap();
    let (stream, mut peer) = UnixStream::pair().unwrap();
    let record = |site: u8| {
        let mut message = vec![1, 1, 0, 0, 0, site];
        message.resize(32, 0);
        message
    };
    // Not a message; no descriptor; too many; no such listener; too long.
    sending.send(b"hello", &[]).unwrap();
    sending.send(&record(0), &[]).unwrap();
    sending.send(&record(0), &[stream.as_fd(), stream.as_fd()]).unwrap();
    sending.send(&record(1), &[stream.as_fd()]).unwrap();
    sending.send(&[1; 5000], &[stream.as_fd(); 20]).unwrap();
    // No socket; a listening one; one of packets.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (packets, _other) = FdChannel::pair().unwrap();
    sending.send(&record(0), &[file.as_fd()]).unwrap();
    sending.send(&record(0), &[packets.as_fd()]).unwrap();
    sending.send(&record(0), &[listener.as_fd()]).unwrap();
    until(|| worker.errors() == 7 && worker.metrics.listener(0).get(ListenerWord::AcceptLost) == 1);
    assert_eq!(worker.accepted(), 0);
    drop(stream);
    // Nobody has a copy of it any more.
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    // A connection among them is served, though its socket waits by default.
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    sending.send(&record(0), &[accepted.as_fd()]).unwrap();
    drop(accepted);
    Client::over(client).round_trip();
    assert_eq!(worker.accepted(), 1);
}

#[test]
fn nothing_stays_open_when_a_worker_has_come_and_gone() {
    if !is_child() {
        return Process::run_test("receiving::nothing_stays_open_when_a_worker_has_come_and_gone");
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let front = Front::start(Balance::RoundRobin, 2);
    let mut before = open();
    for round in 0..3 {
        let workers = [front.worker(0, &[100]), front.worker(1, &[50, 50])];
        workers[0].handle.adopt(1, front.receiving(1));
        let mut clients: Vec<Client> = (0..100).map(|_| front.client()).collect();
        clients.iter_mut().for_each(Client::round_trip);
        front.channels[1].0.send(b"rubbish", &[front.channels[0].0.as_fd()]).unwrap();
        drop(clients);
        until(|| workers.iter().map(Worker::errors).sum::<u64>() == 1);
        assert_eq!(total(&workers), 100);
        drop(workers);
        if round == 0 {
            // What the process opened for good in the first round.
            before = open();
        }
        assert_eq!(open(), before, "{round}");
    }
}

/// The child's life, in which a worker finds no descriptor for what its channel holds.
fn serve() {
    lower_the_limit();
    let front = Front::start(Balance::RoundRobin, 1);
    let worker = front.worker(0, &[500]);
    let (metrics, acceptor) = (worker.metrics.clone(), front.metrics.clone());
    serve_with_little_room(front.address, || {
        let exhausted =
            metrics.get(ProcessWord::AcceptExhausted) + acceptor.get(ProcessWord::AcceptExhausted);
        (exhausted, acceptor.listener(0).get(ListenerWord::Overloaded) + worker.errors())
    });
}

#[test]
fn without_descriptors_peers_wait_and_nobody_spins() {
    if is_child() {
        return serve();
    }
    expect_patience(Process::of_test("receiving::without_descriptors_peers_wait_and_nobody_spins"));
}

/// Clients, and their connections in the order of these, accepted and not handed over yet.
fn connected(count: usize) -> (Vec<Client>, Vec<TcpStream>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let pairs = (0..count).map(|_| {
        let client = Client::new(listener.local_addr().unwrap());
        client.send("echo in time\n");
        (client, listener.accept().unwrap().0)
    });
    pairs.unzip()
}

/// Hands connections over in one message, each from a listener.
fn hand_over(channel: &FdChannel, connections: &[TcpStream], sites: &[u8]) {
    let mut message = vec![1, u8::try_from(sites.len()).unwrap()];
    for site in sites {
        message.extend_from_slice(&[0, 0, 0, *site]);
        message.resize(message.len() + 26, 0);
    }
    let fds: Vec<_> = connections.iter().map(AsFd::as_fd).collect();
    channel.send(&message, &fds).unwrap();
}

/// Leaves so many descriptors.
fn leave(count: usize) -> Vec<File> {
    let mut fillers: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    fillers.truncate(fillers.len() - count);
    fillers
}

#[test]
fn who_finds_no_descriptor_is_told_and_the_next_one_is_served_when_there_is() {
    if !is_child() {
        let test = "who_finds_no_descriptor_is_told_and_the_next_one_is_served_when_there_is";
        return Process::run_test(&format!("receiving::{test}"));
    }
    lower_the_limit();
    let (sending, receiving) = FdChannel::pair().unwrap();
    let mut worker = Worker::build_with(&[100], Some(ANSWER), receiving);
    worker.run();
    let (mut clients, connections) = connected(24);
    // All threads have what they need once somebody was served.
    hand_over(&sending, &connections[23..], &[0]);
    clients[23].expect("in time");
    let mut fillers = leave(3);
    let mut check = |range: std::ops::Range<usize>, served: usize| {
        hand_over(&sending, &connections[range.clone()], &vec![0; range.len()]);
        for (number, client) in clients[range].iter_mut().enumerate() {
            if number < served {
                client.expect("in time");
            } else {
                assert_eq!(client.rest(), ANSWER);
            }
        }
    };
    // Three of five; none of as many as a message brings; the one that there is room for; and then nobody again.
    check(0..5, 3);
    check(5..21, 0);
    fillers.pop();
    check(21..22, 1);
    check(22..23, 0);
    let counters = worker.metrics.listener(0);
    until(|| counters.get(ListenerWord::Overloaded) == 19);
    assert_eq!(worker.metrics.get(ProcessWord::AcceptExhausted), 3);
    assert_eq!((worker.accepted(), worker.errors()), (5, 0));
}

#[test]
fn for_a_service_without_an_answer_descriptors_are_kept_and_waited_for() {
    if !is_child() {
        let test = "for_a_service_without_an_answer_descriptors_are_kept_and_waited_for";
        return Process::run_test(&format!("receiving::{test}"));
    }
    lower_the_limit();
    let (sending, receiving) = FdChannel::pair().unwrap();
    let metrics = Metrics::on_heap(2).process(0);
    let lab = |overload_answer| Lab { overload_answer, ..Lab::quiet() };
    let served = LoopBuilder::new(EngineConfig::default())
        .listen("lab", Socket::handed_over(), move || Ok(lab(Some(ANSWER))))
        .listen("lab-silent", Socket::handed_over(), move || Ok(lab(None)))
        .spawn()
        .unwrap();
    let builder = ReceiverBuilder::new(Balance::RoundRobin, vec![served.handle()]);
    let (mut receiver, handle) = builder.channel(receiving).metrics(metrics.clone()).build().unwrap();
    let thread = std::thread::spawn(move || receiver.run());
    let (mut clients, connections) = connected(6);
    hand_over(&sending, &connections[5..], &[0]);
    clients[5].expect("in time");
    let mut fillers = leave(1);
    // The one descriptor is for the one who cannot be told.
    hand_over(&sending, &connections[..2], &[0, 1]);
    assert_eq!(clients[0].rest(), ANSWER);
    clients[1].expect("in time");
    // Two who cannot be told wait, and so does who stands behind them.
    hand_over(&sending, &connections[2..4], &[1, 1]);
    hand_over(&sending, &connections[4..5], &[0]);
    until(|| metrics.get(ProcessWord::AcceptExhausted) > 3);
    assert_eq!(metrics.listener(0).get(ListenerWord::Overloaded), 1);
    fillers.truncate(fillers.len() - 2);
    clients[2].expect("in time");
    clients[3].expect("in time");
    assert_eq!(clients[4].rest(), ANSWER);
    until(|| metrics.listener(0).get(ListenerWord::Overloaded) == 2);
    assert_eq!(metrics.listener(1).get(ListenerWord::Overloaded), 0);
    assert_eq!(metrics.get(ProcessWord::HandoverErrors), 0);
    handle.stop();
    outcome(thread).unwrap();
    served.join().unwrap();
}

#[test]
fn orders_for_a_receiver_that_never_ran_reach_the_loops() {
    let (_sending, receiving) = FdChannel::pair().unwrap();
    let mut worker = Worker::build(&[9, 9], receiving);
    worker.handle.quit(LONG);
    worker.receiver = None;
    worker.handle.stop();
    worker.join();
    assert_eq!(worker.members[0].closed(Reason::STOPPED), 0);
}
