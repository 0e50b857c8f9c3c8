//! Ties of connections that have a layer: what the peer of one sends reaches the peer of the other in its own session.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use tidegate_engine::{
    BoxedService, ConnHandle, Decoded, EngineConfig, Flow, Io, LoopBuilder, Metrics, Peer, Reason, Refusal,
    Service,
};

use crate::client::{Client, layer};
use crate::support::{pattern, prepare_the_process, until};

under_each_model!(each_gets_what_the_other_sends_and_the_end_behind_it, a_reset_of_one_ends_the_other,);

/// Ties each second connection that says something to the one before it.
#[derive(Default)]
struct Pairs {
    waiting: Mutex<Option<ConnHandle<()>>>,
}

impl Service for Pairs {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn decode(&self, _: &mut (), _: &[u8]) -> Decoded<()> {
        Decoded::Message { len: 1, head: () }
    }

    fn on_message(&self, io: &mut Io<'_>, _: &mut (), _: (), byte: &[u8]) -> Flow {
        io.send(byte);
        let waiting = self.waiting.lock().unwrap().take();
        match waiting {
            None => *self.waiting.lock().unwrap() = Some(io.handle()),
            Some(other) => io.tie(&other).unwrap(),
        }
        Flow::Continue
    }
}

/// A pair of clients that are tied together, in a loop that is stopped behind what is done with them.
fn tied(config: EngineConfig, reason: Reason, with: impl FnOnce(Client, Client)) {
    prepare_the_process();
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let metrics = Metrics::on_heap(1).process(0);
    let service = BoxedService::new(Pairs::default()).layer(layer());
    let builder = LoopBuilder::new(config).metrics(metrics.clone());
    let running = builder.listen_boxed("pairs", socket, Ok(service)).spawn().unwrap();
    let [one, other] = [(); 2].map(|()| {
        let mut client = Client::new(address);
        client.send("!");
        assert_eq!(client.bytes(1), b"!");
        client
    });
    with(one, other);
    until(|| metrics.listener(0).closed(reason) > 0);
    until(|| metrics.listener(0).get(tidegate_engine::ListenerWord::Open) == 0);
    running.stop();
    running.join().unwrap();
    crate::support::check_the_books(&metrics.listener(0));
}

fn each_gets_what_the_other_sends_and_the_end_behind_it(config: EngineConfig) {
    tied(config, Reason::PEER_CLOSED, |mut one, mut other| {
        let text = pattern(1_000_000);
        let writers = [one.send_aside(text.clone()), other.send_aside(text.clone())];
        assert!(one.bytes(text.len()) == text);
        assert!(other.bytes(text.len()) == text);
        for writer in writers {
            writer.join().unwrap().unwrap();
        }
        one.send("last words");
        one.end_input();
        assert_eq!(other.rest_so_far(), b"last words");
        other.send("and an answer");
        other.end_input();
        assert_eq!(one.rest(), b"and an answer");
    });
}

fn a_reset_of_one_ends_the_other(config: EngineConfig) {
    tied(config, Reason::PEER_RESET, |one, mut other| {
        one.reset();
        other.until_reset();
    });
}
