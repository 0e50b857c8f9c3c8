//! Sends every datagram back: `cargo run --release -p tidegate --example udp_echo`, then `nc -u 127.0.0.1 7000`. Another
//! address may be given, as `udp:[::1]:7000` or `unixgram:/path`, and behind it the number of workers.

use tidegate::{CounterDef, DatagramIo, DatagramPeer, DatagramService, Server, may_answer};

struct Echo;

/// The number of the counter.
const IGNORED: usize = 0;

impl DatagramService for Echo {
    const COUNTERS: &'static [CounterDef] =
        &[CounterDef { name: "ignored", help: "Datagrams that it would be unwise to answer." }];

    fn on_datagram(&self, io: &mut DatagramIo<'_>, from: &DatagramPeer, bytes: &[u8]) {
        // A datagram's source is whatever its sender has written there.
        if may_answer(from) { io.reply(bytes) } else { io.count(IGNORED, 1) }
    }
}

#[expect(clippy::print_stdout, reason = "a program says where it can be found")]
fn main() -> Result<(), tidegate::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "udp:127.0.0.1:7000".to_owned());
    let mut server = Server::builder().listen_datagrams(address, || Echo);
    if let Some(workers) = std::env::args().nth(2).and_then(|text| text.parse().ok()) {
        server = server.workers(workers);
    }
    server.on_ready(|ready| println!("{ready}")).run()
}
