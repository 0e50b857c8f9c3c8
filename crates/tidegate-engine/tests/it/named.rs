//! `Named`: a service that says who was accepted by which listener.

use tidegate_engine::{Decoded, Flow, Io, Peer, Refusal, Service};

/// A service that tells each peer which listener accepted it, and from whom.
pub(crate) struct Named;

impl Service for Named {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, io: &mut Io<'_>, peer: &Peer<'_>) -> Result<(), Refusal> {
        io.send(format!("{} {}\n", peer.listener, peer.address).as_bytes());
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        Flow::Continue
    }
}
