//! An echo server: `cargo run --release -p tidegate --example echo`, then `nc 127.0.0.1 7000`.

use tidegate::{Decoded, Flow, Io, Peer, Refusal, Server, Service};

struct Echo;

impl Service for Echo {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }
    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }
    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), bytes: &[u8]) -> Flow {
        io.send(bytes);
        Flow::Continue
    }
}

fn main() -> Result<(), tidegate::Error> {
    Server::builder().listen("127.0.0.1:7000", || Echo).run()
}
