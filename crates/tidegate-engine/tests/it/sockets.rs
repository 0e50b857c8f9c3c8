//! Listening sockets that are several, that come and go, and that are paused.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, listen, socket};
use tidegate_engine::{EngineConfig, ListenerWord, LoopHandle, Reason, Socket};

use crate::lab::Seen;
use crate::support::{Client, Server, Setup, until};

const LONG: Duration = Duration::from_secs(60);

under_each_model!(
    a_listener_has_several_sockets,
    a_listener_without_sockets_serves_what_it_adopts,
    what_waits_at_a_released_socket_is_served,
    a_released_socket_goes_on_elsewhere,
    what_a_full_loop_that_retires_cannot_serve_goes_on_elsewhere,
    sockets_that_come_and_go_lose_nobody,
    an_adopted_socket_waits_for_room,
    a_shared_socket_may_be_adopted,
    a_loop_that_retires_takes_what_waits_at_adopted_sockets_and_adopts_no_other,
    a_paused_listener_leaves_peers_in_the_queue,
    a_paused_listener_is_not_resumed_by_room,
    a_full_loop_is_not_resumed_by_the_operator,
    an_adopted_socket_is_paused_with_its_listener,
    what_waits_at_a_paused_listener_is_left_to_the_successor,
    orders_that_make_no_sense_change_nothing,
);

/// A socket that this test keeps, as the owner of all sockets does.
fn owned() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    // Room for all that queue up in these tests.
    listen(&socket, 1024).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn own_copy(socket: &TcpListener) -> Socket {
    Socket::own(socket.try_clone().unwrap())
}

fn shared_copy(socket: &TcpListener) -> Socket {
    Socket::shared(socket.try_clone().unwrap())
}

fn handle(server: &Server) -> LoopHandle {
    server.running.as_ref().unwrap().handle()
}

fn small(config: EngineConfig, max_connections: usize) -> Setup {
    Setup::new(EngineConfig { max_connections, ..config })
}

/// A client that is being served.
fn served(address: SocketAddr) -> Client {
    let mut client = Client::new(address);
    client.round_trip();
    client
}

/// Turns of the loop, in which it would have accepted whoever waits.
fn turns(busy: &mut Client) {
    (0..3).for_each(|_| busy.round_trip());
}

fn block(server: &Server, client: &Client) {
    client.send("block\n");
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
}

fn a_listener_has_several_sockets(config: EngineConfig) {
    let kept: Vec<_> = (0..3).map(|_| owned()).collect();
    let sockets = vec![own_copy(&kept[0].0), shared_copy(&kept[1].0), own_copy(&kept[2].0)];
    let server = Server::on(Setup::new(config), kept[0].1, sockets);
    let clients: Vec<Client> = kept.iter().map(|(_, address)| served(*address)).collect();
    assert_eq!(server.count(ListenerWord::Accepted), 3);
    drop(clients);
}

fn a_listener_without_sockets_serves_what_it_adopts(config: EngineConfig) {
    let (socket, address) = owned();
    let server = Server::on(Setup::new(config), address, Vec::new());
    let mut early = Client::new(address);
    early.send("echo at last\n");
    handle(&server).adopt(7, 0, own_copy(&socket));
    early.expect("at last");
    // Several under one key, and another under its own.
    let (second, third) = (owned(), owned());
    handle(&server).adopt(7, 0, own_copy(&second.0));
    handle(&server).adopt(8, 0, own_copy(&third.0));
    let (_a, _b) = (served(second.1), served(third.1));
    handle(&server).release(7);
    turns(&mut early);
    let mut waiting = [Client::new(address), Client::new(second.1)];
    waiting.iter().for_each(|client| client.send("echo again\n"));
    let _c = served(third.1);
    turns(&mut early);
    assert_eq!(server.count(ListenerWord::Accepted), 4);
    handle(&server).adopt(9, 0, own_copy(&second.0));
    handle(&server).adopt(9, 0, own_copy(&socket));
    waiting.iter_mut().for_each(|client| client.expect("again"));
}

fn what_waits_at_a_released_socket_is_served(config: EngineConfig) {
    let (socket, address) = owned();
    let server = Server::on(Setup::new(config), address, Vec::new());
    handle(&server).adopt(1, 0, own_copy(&socket));
    let holder = Client::new(address);
    block(&server, &holder);
    let mut queued: Vec<Client> = (0..100).map(|_| Client::new(address)).collect();
    queued.iter().for_each(|client| client.send("echo in time\n"));
    handle(&server).release(1);
    server.unblock.send(()).unwrap();
    queued.iter_mut().for_each(|client| client.expect("in time"));
    assert_eq!(server.count(ListenerWord::Accepted), 101);
    drop(socket);
    assert!(TcpStream::connect(address).is_err(), "the loop has kept a descriptor");
}

fn a_released_socket_goes_on_elsewhere(config: EngineConfig) {
    let (socket, address) = owned();
    let first = Server::on(small(config, 2), address, Vec::new());
    let second = Server::on(Setup::new(config), address, Vec::new());
    handle(&first).adopt(1, 0, own_copy(&socket));
    let mut holder = served(address);
    block(&first, &holder);
    // Room for one of them is left, and a reactor may have accepted more before it knew.
    let mut queued: Vec<Client> = (0..10).map(|_| Client::new(address)).collect();
    queued.iter().for_each(|client| client.send("echo somewhere\ndone\n"));
    handle(&first).release(1);
    first.unblock.send(()).unwrap();
    turns(&mut holder);
    handle(&second).adopt(1, 0, own_copy(&socket));
    for mut client in queued.drain(..) {
        assert_eq!(client.rest(), b"somewhere\n");
    }
    let accepted = first.count(ListenerWord::Accepted) + second.count(ListenerWord::Accepted);
    assert_eq!(accepted, 11);
}

fn what_a_full_loop_that_retires_cannot_serve_goes_on_elsewhere(config: EngineConfig) {
    let (socket, address) = owned();
    let mut old = Server::on(small(config, 2), address, vec![own_copy(&socket)]);
    let mut holder = served(address);
    holder.send("stay\n");
    block(&old, &holder);
    let mut queued: Vec<Client> = (0..10).map(|_| Client::new(address)).collect();
    queued.iter().for_each(|client| client.send("stay\necho somewhere\n"));
    let running = old.running.take().unwrap();
    running.quit(LONG);
    old.unblock.send(()).unwrap();
    holder.round_trip();
    let new = Server::on(Setup::new(config), address, vec![own_copy(&socket)]);
    // What the old loop has accepted and has no room for comes in as the others leave.
    let mut left = 10;
    while left > 0 {
        queued.retain_mut(|client| {
            client.stream().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let answered = client.stream().peek(&mut [0; 1]).is_ok();
            client.stream().set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
            if answered {
                client.expect("somewhere");
                client.send("done\n");
                assert_eq!(client.rest(), b"");
                left -= 1;
            }
            !answered
        });
    }
    holder.send("done\n");
    drop(holder);
    running.join().unwrap();
    assert_eq!(old.count(ListenerWord::Accepted) + new.count(ListenerWord::Accepted), 11);
}

/// Two loops have a socket in turns, and for moments both or neither, while peers come all the time.
fn sockets_that_come_and_go_lose_nobody(config: EngineConfig) {
    let (socket, address) = owned();
    let servers = [(); 2].map(|()| Server::on(small(config, 4), address, Vec::new()));
    let handles = [handle(&servers[0]), handle(&servers[1])];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let peers = [(); 6].map(|()| {
            scope.spawn(|| {
                for _ in 0..60 {
                    let mut client = Client::new(address);
                    client.send("echo here\ndone\n");
                    assert_eq!(client.rest(), b"here\n");
                }
            })
        });
        let cover = scope.spawn(|| {
            for round in 0u64.. {
                let (next, last) =
                    (usize::try_from(round % 2).unwrap(), usize::try_from((round + 1) % 2).unwrap());
                let copy = if round % 4 < 2 { own_copy(&socket) } else { shared_copy(&socket) };
                handles[next].adopt(round, 0, copy);
                if round > 0 {
                    handles[last].release(round - 1);
                }
                // The orders are carried out before this connection's bytes are there.
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let mut client = Client::new(address);
                client.send("echo round\ndone\n");
                assert_eq!(client.rest(), b"round\n");
            }
        });
        let outcomes = peers.map(std::thread::ScopedJoinHandle::join);
        over.store(true, Ordering::Relaxed);
        cover.join().unwrap();
        outcomes.into_iter().for_each(Result::unwrap);
    });
    let accepted: u64 = servers.iter().map(|server| server.count(ListenerWord::Accepted)).sum();
    assert!(accepted >= 360, "{accepted}");
    for server in &servers {
        until(|| server.listener().closed(Reason::DONE) == server.count(ListenerWord::Accepted));
    }
}

fn an_adopted_socket_waits_for_room(config: EngineConfig) {
    let ((socket, address), (second, elsewhere)) = (owned(), owned());
    let server = Server::on(small(config, 1), address, vec![own_copy(&socket)]);
    let mut only = served(address);
    handle(&server).adopt(1, 0, own_copy(&second));
    let mut waiting = Client::new(elsewhere);
    waiting.send("echo at last\n");
    turns(&mut only);
    assert_eq!(server.count(ListenerWord::Accepted), 1);
    drop(only);
    waiting.expect("at last");
}

fn a_shared_socket_may_be_adopted(config: EngineConfig) {
    let (socket, address) = owned();
    let first = Server::on(Setup::new(config), address, vec![shared_copy(&socket)]);
    let second = Server::on(Setup::new(config), address, Vec::new());
    handle(&second).adopt(1, 0, shared_copy(&socket));
    let mut clients: Vec<Client> = (0..50).map(|_| served(address)).collect();
    handle(&second).release(1);
    clients.extend((0..50).map(|_| served(address)));
    clients.iter_mut().for_each(Client::round_trip);
    let accepted = [&first, &second].map(|server| server.count(ListenerWord::Accepted));
    assert_eq!(accepted.iter().sum::<u64>(), 100, "{accepted:?}");
}

fn a_loop_that_retires_takes_what_waits_at_adopted_sockets_and_adopts_no_other(config: EngineConfig) {
    let ((socket, address), (late, elsewhere)) = (owned(), owned());
    let mut server = Server::on(Setup::new(config), address, Vec::new());
    handle(&server).adopt(1, 0, own_copy(&socket));
    let holder = Client::new(address);
    holder.send("stay\n");
    block(&server, &holder);
    let mut queued: Vec<Client> = (0..20).map(|_| Client::new(address)).collect();
    queued.iter().for_each(|client| client.send("echo in time\n"));
    let running = server.running.take().unwrap();
    running.quit(LONG);
    server.unblock.send(()).unwrap();
    queued.iter_mut().for_each(|client| assert_eq!(client.rest(), b"in time\n"));
    running.handle().adopt(2, 0, own_copy(&late));
    running.handle().release(1);
    holder.send("done\n");
    drop((holder, queued));
    running.join().unwrap();
    assert_eq!(server.count(ListenerWord::Accepted), 21);
    // Its owner has it still.
    TcpStream::connect(elsewhere).unwrap();
    drop((socket, late));
    assert!(TcpStream::connect(address).is_err() && TcpStream::connect(elsewhere).is_err());
}

fn a_paused_listener_leaves_peers_in_the_queue(config: EngineConfig) {
    let server = Server::new(config);
    let mut known = server.client();
    known.round_trip();
    for site in [None, Some(0)] {
        let before = server.count(ListenerWord::Accepted);
        handle(&server).pause(site);
        handle(&server).pause(None);
        turns(&mut known);
        let mut waiting = server.client();
        waiting.send("echo at last\n");
        turns(&mut known);
        assert_eq!(server.count(ListenerWord::Accepted), before);
        handle(&server).resume(site);
        waiting.expect("at last");
    }
}

fn a_paused_listener_is_not_resumed_by_room(config: EngineConfig) {
    let server = Server::start(small(config, 2));
    let mut clients = [server.client(), server.client()];
    clients.iter_mut().for_each(Client::round_trip);
    handle(&server).pause(Some(0));
    let [mut stays, leaves] = clients;
    turns(&mut stays);
    drop(leaves);
    server.wait_for(ListenerWord::ClosedByPeer, 1);
    let mut waiting = server.client();
    waiting.send("echo at last\n");
    turns(&mut stays);
    assert_eq!(server.count(ListenerWord::Accepted), 2);
    handle(&server).resume(None);
    waiting.expect("at last");
}

fn a_full_loop_is_not_resumed_by_the_operator(config: EngineConfig) {
    let server = Server::start(small(config, 1));
    let mut only = server.client();
    only.round_trip();
    handle(&server).pause(None);
    handle(&server).resume(None);
    let mut waiting = server.client();
    waiting.send("echo at last\n");
    turns(&mut only);
    assert_eq!(server.count(ListenerWord::Accepted), 1);
    drop(only);
    waiting.expect("at last");
    assert_eq!(server.count(ListenerWord::Overloaded), 0);
}

fn an_adopted_socket_is_paused_with_its_listener(config: EngineConfig) {
    let (socket, address) = owned();
    let server = Server::new(config);
    let mut known = server.client();
    handle(&server).pause(Some(0));
    handle(&server).adopt(1, 0, own_copy(&socket));
    turns(&mut known);
    let mut waiting = [server.client(), Client::new(address)];
    waiting.iter().for_each(|client| client.send("echo at last\n"));
    turns(&mut known);
    assert_eq!(server.count(ListenerWord::Accepted), 1);
    handle(&server).resume(Some(0));
    waiting.iter_mut().for_each(|client| client.expect("at last"));
    // Released while it is paused, it leaves its queue to its owner.
    handle(&server).pause(None);
    turns(&mut known);
    let mut left = Client::new(address);
    handle(&server).release(1);
    turns(&mut known);
    let other = Server::on(Setup::new(config), address, vec![own_copy(&socket)]);
    left.round_trip();
    assert_eq!(other.count(ListenerWord::Accepted), 1);
}

fn what_waits_at_a_paused_listener_is_left_to_the_successor(config: EngineConfig) {
    let (socket, address) = owned();
    let mut old = Server::on(Setup::new(config), address, vec![own_copy(&socket)]);
    let mut known = served(address);
    handle(&old).pause(Some(0));
    turns(&mut known);
    let mut waiting: Vec<Client> = (0..10).map(|_| Client::new(address)).collect();
    let running = old.running.take().unwrap();
    running.quit(LONG);
    assert_eq!(known.rest(), b"");
    drop(known);
    running.join().unwrap();
    assert_eq!(old.count(ListenerWord::Accepted), 1);
    let successor = Server::on(Setup::new(config), address, vec![own_copy(&socket)]);
    waiting.iter_mut().for_each(Client::round_trip);
    assert_eq!(successor.count(ListenerWord::Accepted), 10);
}

fn orders_that_make_no_sense_change_nothing(config: EngineConfig) {
    let server = Server::new(config);
    let handle = handle(&server);
    handle.adopt(1, 9, own_copy(&owned().0));
    handle.adopt(1, 0, Socket::handed_over());
    // Bound and not listening: a reactor finds it broken or silent, and in neither case spins.
    let deaf = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    handle.adopt(2, 0, Socket::own(deaf));
    handle.release(77);
    handle.pause(Some(9));
    handle.resume(Some(9));
    let mut client = server.client();
    turns(&mut client);
    handle.release(2);
    turns(&mut client);
}
