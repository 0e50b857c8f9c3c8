//! A service with timers: it says "tick" once a second, and "late" to whoever has said nothing for five.
//!
//! `cargo run --release -p tidegate --example timer`, then `nc 127.0.0.1 7001`. Each line that is typed puts the second timer
//! off, and "stop" takes the first one back. A timer costs no thread and no system call.

use std::time::Duration;

use tidegate::{Decoded, Flow, Io, Peer, Phase, Reason, Refusal, Server, Service, TimerToken};

const TICK: TimerToken = TimerToken(0);
const SILENCE: TimerToken = TimerToken(1);
const TICK_INTERVAL: Duration = Duration::from_secs(1);
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

struct Clock;

impl Service for Clock {
    /// How often it has ticked.
    type Session = u64;
    type Head = ();
    type Note = ();

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<u64, Refusal> {
        io.set_timer(TICK, TICK_INTERVAL);
        io.set_timer(SILENCE, SILENCE_LIMIT);
        Ok(0)
    }

    fn decode(&self, _: &mut u64, input: &[u8]) -> Decoded<()> {
        match input.iter().position(|byte| *byte == b'\n') {
            Some(end) => Decoded::Message { len: end + 1, head: () },
            None => Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 },
        }
    }

    fn on_message(&self, io: &mut Io<'_>, _: &mut u64, (): (), line: &[u8]) -> Flow {
        if line.trim_ascii() == b"stop" {
            io.cancel_timer(TICK);
        }
        // The same token: the timer that was set before is replaced.
        io.set_timer(SILENCE, SILENCE_LIMIT);
        Flow::Continue
    }

    fn on_timer(&self, io: &mut Io<'_>, ticks: &mut u64, timer: TimerToken) -> Flow {
        if timer == SILENCE {
            io.send(b"late\n");
            return Flow::CloseAfterFlush(Reason::IDLE_TIMEOUT);
        }
        *ticks += 1;
        io.send(format!("tick {ticks}\n").as_bytes());
        io.set_timer(TICK, TICK_INTERVAL);
        Flow::Continue
    }
}

fn main() -> Result<(), tidegate::Error> {
    Server::builder().listen("127.0.0.1:7001", || Clock).run()
}
