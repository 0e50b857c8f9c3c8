//! The limit on connections of one address.

use std::io::ErrorKind;
use std::net::TcpStream;

use tidegate_engine::{AddressCounts, EngineConfig, PeerAddress, Reason};

use crate::support::{Client, Server, Setup, closes, until};

under_each_model!(
    an_address_has_so_many_connections_and_no_more,
    the_address_that_counts_is_the_one_behind_the_balancer,
    loops_that_share_their_counts_have_one_limit,
);

fn limited(config: EngineConfig, proxied: bool) -> Server {
    let mut setup = Setup { proxied, ..Setup::new(config) };
    setup.limits.max_connections_per_address = 2;
    Server::start(setup)
}

/// The reset may be there before the connection has been told of.
fn be_refused(server: &Server) {
    match TcpStream::connect(server.address) {
        Ok(stream) => _ = Client::over(stream).until_reset(),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

fn an_address_has_so_many_connections_and_no_more(config: EngineConfig) {
    let server = limited(config, false);
    let mut served = [server.served_client(), server.served_client()];
    for refused in 1..=3 {
        be_refused(&server);
        until(|| server.listener().closed(Reason::ADDRESS_LIMIT) == refused);
    }
    // None of them was the service's.
    assert_eq!(closes(&server), 0);
    served.iter_mut().for_each(Client::round_trip);
    let [first, mut second] = served;
    drop(first);
    server.expect_close(Reason::PEER_CLOSED);
    let mut third = server.served_client();
    be_refused(&server);
    second.round_trip();
    third.round_trip();
}

fn loops_that_share_their_counts_have_one_limit(config: EngineConfig) {
    let counts = AddressCounts::new();
    let mut setup = Setup::new(config);
    setup.limits.max_connections_per_address = 2;
    let [one, other] = [0, 1].map(|_| Server::counting(&counts, setup));
    let mut served = [one.served_client(), other.served_client()];
    be_refused(&one);
    be_refused(&other);
    served.iter_mut().for_each(Client::round_trip);
    let [first, _second] = served;
    drop(first);
    one.expect_close(Reason::PEER_CLOSED);
    other.served_client().round_trip();
}

fn the_address_that_counts_is_the_one_behind_the_balancer(config: EngineConfig) {
    let server = limited(config, true);
    let behind = |address: &str| {
        let client = server.client();
        client.send(format!("PROXY TCP4 {address} 198.51.100.9 1000 80\r\necho there and back\n"));
        client
    };
    let mut served = ["192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2"].map(behind);
    for client in &mut served {
        client.expect("there and back");
    }
    behind("192.0.2.1").until_reset();
    behind("192.0.2.3").expect("there and back");
    let closed = server.expect_close(Reason::PEER_CLOSED);
    assert_eq!(closed.address, PeerAddress::Inet("192.0.2.3:1000".parse().unwrap()));
    assert_eq!(server.listener().closed(Reason::ADDRESS_LIMIT), 1);
}
