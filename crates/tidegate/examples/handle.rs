//! A slow job on a thread of its own, and its way back: `Flow::Suspend`, `ConnHandle::post`, `on_note`.
//!
//! `cargo run --release -p tidegate --example handle`, then `nc 127.0.0.1 7002` and a number, as `1000000007`: the answer is its
//! smallest divisor above 1. The loop is never held up: other connections are served meanwhile, and what this one sends waits.

use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;

use tidegate::{ConnHandle, Decoded, Flow, Io, Peer, Phase, Reason, Refusal, Server, Service};

/// Questions that wait for the thread, at most.
const MAX_WAITING: usize = 64;

struct Divisor {
    questions: SyncSender<Question>,
}

struct Question {
    number: u64,
    /// Reaches the connection that asked, and nobody else: when it has ended, the answer is for nobody.
    asker: ConnHandle<u64>,
}

impl Divisor {
    /// Started where the service is made, in a worker: threads do not survive the way from master to worker.
    fn start() -> std::io::Result<Self> {
        let (questions, waiting) = mpsc::sync_channel::<Question>(MAX_WAITING);
        thread::Builder::new().name("divisor".to_owned()).spawn(move || {
            for Question { number, asker } in waiting {
                let divisor = smallest_divisor(number);
                if asker.post(divisor).is_err() {
                    // It has ended meanwhile; a loop's mailbox has room for many more letters than can wait here.
                    continue;
                }
            }
        })?;
        Ok(Self { questions })
    }
}

impl Service for Divisor {
    type Session = ();
    type Head = ();
    type Note = u64;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        match input.iter().position(|byte| *byte == b'\n') {
            Some(end) => Decoded::Message { len: end + 1, head: () },
            None => Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 },
        }
    }

    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), line: &[u8]) -> Flow {
        let Some(number) = std::str::from_utf8(line).ok().and_then(|text| text.trim().parse().ok()) else {
            io.send(b"not a number\n");
            return Flow::Continue;
        };
        match self.questions.try_send(Question { number, asker: io.handle() }) {
            // The next line waits until the note has come.
            Ok(()) => Flow::Suspend,
            Err(TrySendError::Full(_)) => {
                io.send(b"busy\n");
                Flow::Continue
            }
            Err(TrySendError::Disconnected(_)) => Flow::CloseAfterFlush(Reason::STOPPED),
        }
    }

    fn on_note(&self, io: &mut Io<'_>, (): &mut (), divisor: u64) -> Flow {
        io.send(format!("{divisor}\n").as_bytes());
        Flow::Continue
    }
}

fn smallest_divisor(number: u64) -> u64 {
    let candidates = (2..).take_while(|candidate: &u64| candidate.saturating_mul(*candidate) <= number);
    candidates.into_iter().find(|candidate| number.is_multiple_of(*candidate)).unwrap_or(number)
}

fn main() -> Result<(), tidegate::Error> {
    let factory = || Ok(Divisor::start()?);
    Server::builder().listen_named("divisor", "127.0.0.1:7002", factory).run()
}
