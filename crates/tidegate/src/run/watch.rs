//! `Watch`: looks after an event loop, or an acceptor, from the main thread of its process.
//!
//! The loop enters when its turn began and which callback it is in; the watch reads that now and then. It asks the loop
//! for nothing, so that it can tell of one that answers nobody.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tidegate_engine::{ProcessMetrics, ProcessWord};
use tidegate_log::LogClient;

use crate::ServerBuilder;
use crate::layout::Seat;

/// Watches one loop.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Whose place it is.
    seat: Seat,
    own: ProcessMetrics,
    log: Option<LogClient>,
    stall_after: Option<Duration>,
    /// Name and service of each listener.
    listeners: Vec<(String, String)>,
    /// The beginning of the turn that was reported last.
    reported: u64,
}

impl Watch {
    pub(crate) fn new(
        server: &ServerBuilder,
        seat: Seat,
        own: ProcessMetrics,
        log: Option<LogClient>,
    ) -> Self {
        Self {
            seat,
            own,
            log,
            stall_after: server.config.engine.stall_after,
            listeners: server.site_names(),
            reported: 0,
        }
    }

    /// How often to look.
    pub(crate) fn interval(&self) -> Duration {
        self.stall_after.map_or(LONGEST, |after| (after / 2).clamp(SHORTEST, LONGEST))
    }

    /// Whether the loop waits, or its turn has not taken longer than this so far.
    pub(crate) fn turns(&self, within: Duration) -> bool {
        let since = self.own.get(ProcessWord::TurnSince);
        since == 0
            || monotonic_ns().saturating_sub(since) < u64::try_from(within.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Reports a turn that has taken too long, once, and publishes what the log client counts.
    pub(crate) fn look(&mut self) {
        if let Some(log) = &self.log {
            self.own.set(ProcessWord::LogDropped, log.dropped());
        }
        let (Some(after), since) = (self.stall_after, self.own.get(ProcessWord::TurnSince)) else { return };
        let lasted = Duration::from_nanos(monotonic_ns().saturating_sub(since));
        if since == 0 || since == self.reported || lasted < after {
            return;
        }
        self.reported = since;
        self.own.add(ProcessWord::Stalls, 1);
        let thread = self.seat;
        let lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
        match self.own.running_callback() {
            Some(running) => {
                let unknown = (String::new(), String::new());
                let (listener, service) = self.listeners.get(running.listener).unwrap_or(&unknown);
                let conn = format!("{}.{}", running.conn.0, running.conn.1);
                let callback = running.callback;
                tracing::warn!(
                    %thread,
                    lasted_ms,
                    service,
                    listener,
                    conn,
                    callback,
                    "a callback blocks the event loop"
                );
            }
            None => {
                tracing::warn!(%thread, lasted_ms, "a turn of the event loop takes long, outside of any callback");
            }
        }
    }
}

pub(super) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::sync::{Mutex, PoisonError};
    use std::time::Instant;

    use tidegate_engine::{EngineConfig, Flow, LoopBuilder, Metrics};

    use super::*;
    use crate::{Server, Stream};

    #[test]
    fn a_blocked_callback_is_counted_once_and_known_by_name() {
        let (entered, has_entered) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let ends = Mutex::new((entered, released));
        let blocking = Stream::new(move |_, _| {
            let ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.0.send(()).unwrap();
            ends.1.recv().unwrap();
            Flow::Continue
        });
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let own = Metrics::on_heap(1).process(0);
        let builder = LoopBuilder::new(EngineConfig::default()).metrics(own.clone());
        let running = builder.listen("main", socket, || Ok(blocking)).spawn().unwrap();

        let mut server = Server::builder().listen("127.0.0.1:0", crate::echo);
        server.config.engine.stall_after = Some(Duration::from_millis(20));
        let mut watch = Watch::new(&server, Seat::Loop(0), own.clone(), None);
        watch.look();
        assert_eq!(own.get(ProcessWord::Stalls), 0, "a loop that waits does not stall");

        TcpStream::connect(address).unwrap().write_all(b"x").unwrap();
        has_entered.recv().unwrap();
        let began = Instant::now();
        while own.get(ProcessWord::Stalls) == 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "never noticed");
            watch.look();
        }
        let callback = own.running_callback().unwrap();
        assert_eq!((callback.listener, callback.callback), (0, "decode or on_message"));
        watch.look();
        assert_eq!(own.get(ProcessWord::Stalls), 1, "the same turn is reported once");
        release.send(()).unwrap();
        running.stop();
        running.join().unwrap();
    }
}
