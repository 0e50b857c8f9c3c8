//! The limit on connections.

use tidegate_engine::{EngineConfig, ListenerWord, Reason};

use crate::support::{Client, Server, Setup};

under_each_model!(
    peers_over_the_limit_wait_and_are_served_when_there_is_room,
    connections_come_and_go_by_the_thousand,
);

fn peers_over_the_limit_wait_and_are_served_when_there_is_room(config: EngineConfig) {
    let config = EngineConfig { max_connections: 2, ..config };
    let server = Server::start(Setup::new(config));
    let mut first = server.client();
    let mut second = server.client();
    first.round_trip();
    second.round_trip();
    let mut waiting: Vec<_> = (0..3).map(|_| server.client()).collect();
    waiting.iter().for_each(|client| client.send("echo served\n"));
    first.round_trip();
    second.round_trip();
    assert_eq!(server.count(ListenerWord::Accepted), 2);
    drop(first);
    server.expect_close(Reason::PEER_CLOSED);
    for mut client in waiting.drain(..) {
        client.expect("served");
        assert!(server.count(ListenerWord::Open) <= 2);
        drop(client);
        server.expect_close(Reason::PEER_CLOSED);
    }
    second.round_trip();
    assert_eq!(server.count(ListenerWord::Accepted), 5);
}

fn connections_come_and_go_by_the_thousand(config: EngineConfig) {
    let config = EngineConfig { max_connections: 8, ..config };
    let server = Server::start(Setup::new(config));
    let address = server.address;
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(move || {
                for _ in 0..60 {
                    Client::new(address).round_trip();
                }
            });
        }
    });
    for _ in 0..16 * 60 {
        server.expect_close(Reason::PEER_CLOSED);
    }
    assert_eq!(server.count(ListenerWord::Accepted), 960);
}
