//! A gateway in a loop of its own, with its counters and the ends of its connections in view.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tidegate_engine::{
    Closed, CounterDef, Decoded, EngineConfig, Flow, Instant, Io, Limits, ListenerMetrics, LoopBuilder,
    Metrics, Peer, Phase, Reason, Refusal, Running, Service, TimerToken,
};
use tidegate_gateway::{Client, ClientError, Gateway, GatewayBuilder, Head, Note, Session};

/// No event is waited for longer than this.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) running: Running,
    metrics: ListenerMetrics,
    closed: Receiver<Closed>,
}

impl Served {
    pub(crate) fn start(builder: GatewayBuilder) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let metrics = Metrics::on_heap(1).process(0);
        let (closing, closed) = channel();
        let running = LoopBuilder::new(EngineConfig::default())
            .metrics(metrics.clone())
            .listen("gateway", socket, || Ok(Watched { gateway: builder.build(), closing }))
            .spawn()
            .unwrap();
        Self { address, running, metrics: metrics.listener(0), closed }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address, WAIT).unwrap()
    }

    /// Waits for the end of a connection.
    pub(crate) fn closed(&self) -> Closed {
        self.closed.recv_timeout(WAIT).unwrap()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        let at = Gateway::COUNTERS.iter().position(|counter| counter.name == name).unwrap();
        self.metrics.service(at)
    }

    /// Waits until a counter has got to `n`.
    #[cfg(feature = "accounts")]
    pub(crate) fn wait_for_count(&self, name: &str, n: u64) {
        let deadline = std::time::Instant::now() + WAIT;
        while self.count(name) < n {
            assert!(std::time::Instant::now() < deadline, "{name} is {}, not {n}", self.count(name));
            std::thread::yield_now();
        }
    }

    pub(crate) fn closed_for(&self, reason: Reason) -> u64 {
        self.metrics.closed(reason)
    }

    /// Ends the loop; it must have lived until now.
    pub(crate) fn stop(self) {
        assert!(!self.running.is_finished());
        self.client().ping().unwrap();
        self.running.stop();
        self.running.join().unwrap();
    }
}

/// Whether the connection was reset by the server.
pub(crate) fn is_reset(error: &ClientError) -> bool {
    matches!(error, ClientError::Io(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// A gateway that tells of each end of a connection.
struct Watched {
    gateway: Gateway,
    closing: Sender<Closed>,
}

impl Service for Watched {
    type Session = Session;
    type Head = Head;
    type Note = Note;

    const COUNTERS: &'static [CounterDef] = Gateway::COUNTERS;

    fn on_open(&self, io: &mut Io<'_>, peer: &Peer<'_>) -> Result<Session, Refusal> {
        self.gateway.on_open(io, peer)
    }

    fn decode(&self, session: &mut Session, input: &[u8]) -> Decoded<Head> {
        self.gateway.decode(session, input)
    }

    fn on_message(&self, io: &mut Io<'_>, session: &mut Session, head: Head, bytes: &[u8]) -> Flow {
        self.gateway.on_message(io, session, head, bytes)
    }

    fn on_note(&self, io: &mut Io<'_>, session: &mut Session, note: Note) -> Flow {
        self.gateway.on_note(io, session, note)
    }

    fn on_timer(&self, io: &mut Io<'_>, session: &mut Session, timer: TimerToken) -> Flow {
        self.gateway.on_timer(io, session, timer)
    }

    fn on_drained(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        self.gateway.on_drained(io, session)
    }

    fn on_deadline(&self, io: &mut Io<'_>, session: &mut Session, phase: Phase) -> Flow {
        self.gateway.on_deadline(io, session, phase)
    }

    fn on_eof(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        self.gateway.on_eof(io, session)
    }

    fn next_close(&self, session: &Session) -> Option<(Reason, Instant)> {
        self.gateway.next_close(session)
    }

    fn on_retire(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        self.gateway.on_retire(io, session)
    }

    fn on_close(&self, session: Session, closed: &Closed) {
        self.gateway.on_close(session, closed);
        // The test may be over already.
        let _ = self.closing.send(*closed);
    }

    fn limits(&self) -> Limits {
        self.gateway.limits()
    }
}
