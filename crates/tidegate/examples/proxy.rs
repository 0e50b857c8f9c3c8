//! A TCP proxy: two connections tied together, `Io::connect` and `Io::tie`.
//!
//! `cargo run --release -p tidegate --example proxy -- 127.0.0.1:7003 127.0.0.1:80`, then `curl http://127.0.0.1:7003/`. What either side
//! sends goes to the other one, its end and its reset too; when one does not read, the other is not read from. A third
//! argument says how many workers there are; with 0 everything is in this process.
//!
//! The services here see no byte: once the two are tied, the engine does the work.

use std::error::Error;
use std::io::Write;

use tidegate::{
    ConnHandle, Connect, ConnectFailed, Decoded, Flow, Io, Peer, Phase, Ready, Reason, Refusal, Server,
    Service, Target,
};

/// Why a client is reset whose target cannot be reached.
const UNREACHABLE: Reason = Reason::custom(40);

/// The clients' side.
struct Front {
    target: Target,
}

impl Service for Front {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        // What the client sends until then waits in the kernel.
        io.pause();
        let me: ConnHandle<()> = io.handle();
        io.connect("back", Connect::to(self.target.clone()), me).map_err(|_| UNREACHABLE.into())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Need { phase: Phase::Idle, at_least: input.len() + 1 }
    }

    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn on_eof(&self, _: &mut Io<'_>, (): &mut ()) -> Flow {
        // A client may well have said all it has to say; that is passed on.
        Flow::Continue
    }
}

/// The target's side.
struct Back;

impl Service for Back {
    type Session = ();
    type Head = ();
    /// The client that the connection is for.
    type Note = ConnHandle<()>;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Need { phase: Phase::Idle, at_least: input.len() + 1 }
    }

    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn on_note(&self, io: &mut Io<'_>, (): &mut (), client: ConnHandle<()>) -> Flow {
        match io.tie(&client) {
            Ok(()) => Flow::Continue,
            Err(_) => Flow::Abort(UNREACHABLE),
        }
    }

    fn on_eof(&self, _: &mut Io<'_>, (): &mut ()) -> Flow {
        Flow::Continue
    }

    fn on_connect_failed(&self, failed: ConnectFailed<ConnHandle<()>>) {
        if let Some(client) = failed.note {
            // The client may have gone by itself meanwhile.
            let _ = client.close(UNREACHABLE);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (listen, target, workers) = match args.as_slice() {
        [listen, target] => (listen, target, None),
        [listen, target, workers] => (listen, target, Some(workers.parse()?)),
        _ => {
            return Err(
                "usage: proxy LISTEN TARGET [WORKERS], as in proxy 127.0.0.1:7003 127.0.0.1:80".into()
            );
        }
    };
    let target: Target = target.parse()?;
    let front = move || Ok(Front { target: target.clone() });
    let mut server =
        Server::builder().listen_named("front", listen.as_str(), front).client("back", || Ok(Back));
    if let Some(workers) = workers {
        server = server.workers(workers);
    }
    let show = |ready: &Ready| {
        // Nobody may be there to read it, which does not keep the proxy from its work.
        let _ = writeln!(std::io::stderr(), "{ready}");
    };
    Ok(server.on_ready(show).run()?)
}
