//! How long answers take, as the loop measures it.

use std::time::Instant;

use tidegate_engine::EngineConfig;

use crate::lab::Note;
use crate::support::{Server, until};

under_each_model!(the_first_batch_is_measured, an_answer_by_a_note_is_measured_from_the_message_on,);

fn the_first_batch_is_measured(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("echo o");
    // A message that is not whole is not answered, so nothing is measured before its end has come.
    until(|| server.count(tidegate_engine::ListenerWord::BytesIn) == 6);
    assert_eq!(server.listener().latency().total(), 0);
    client.send("ne\n");
    client.expect("one");
    until(|| server.listener().latency().total() == 1);
    assert!(server.listener().latency().sum_ns > 0);
}

fn an_answer_by_a_note_is_measured_from_the_message_on(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("suspend\n");
    let handle = server.suspended();
    server.wait_for(tidegate_engine::ListenerWord::Messages, 1);
    let since = Instant::now();
    until(|| since.elapsed().as_micros() > 500);
    assert_eq!(server.listener().latency().total(), 0);
    let least = since.elapsed().as_nanos();
    handle.post(Note::Say("awake".into())).unwrap();
    client.expect("awake");
    until(|| server.listener().latency().total() == 1);
    assert!(u128::from(server.listener().latency().sum_ns) > least);
}
