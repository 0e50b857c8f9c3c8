//! `Lab`: a service whose peers say, line by line, what its callbacks are to do, and which reports what they saw.
//!
//! A line is a command with numbers after it; see `Lab::run`. The session remembers what later callbacks are to do.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate_engine::{
    Closed, ConnHandle, CounterDef, Decoded, Flow, Io, Limits, Peer, Phase, Reason, Refusal, Service,
    TimerToken,
};

use crate::support::pattern;

/// What a callback saw.
#[derive(Debug)]
pub(crate) enum Seen {
    Opened(ConnHandle<Note>),
    Suspended(ConnHandle<Note>),
    Blocked,
    Drained,
    /// How much waited then.
    Sent(usize),
    /// Whether the loop was draining.
    Retire(bool),
    Closed(Closed),
}

/// What other threads post.
#[derive(Debug)]
pub(crate) enum Note {
    Say(String),
    Suspend,
    Resume,
    Panic,
    Done,
    /// Its destructor panics.
    Bomb(Bomb),
}

#[derive(Debug)]
pub(crate) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("boom");
    }
}

/// What tests set and read while the service runs.
#[derive(Debug, Default)]
pub(crate) struct Control {
    /// What `on_open` answers.
    pub(crate) refuse: Mutex<Option<Refusal>>,
    pub(crate) panic_in_open: AtomicBool,
    pub(crate) file: Mutex<Option<Arc<OwnedFd>>>,
    /// How often `on_close` was called.
    pub(crate) closed: AtomicU64,
    /// The most `Io::queued_bytes` was.
    pub(crate) max_queued: AtomicUsize,
}

pub(crate) struct Lab {
    pub(crate) limits: Limits,
    pub(crate) overload_answer: Option<&'static [u8]>,
    pub(crate) control: Arc<Control>,
    pub(crate) seen: Sender<Seen>,
    /// What the commands `block` (the loop) and `hold` (the message) wait for.
    pub(crate) unblock: Mutex<Receiver<()>>,
}

impl Lab {
    /// One whose reports nobody hears.
    pub(crate) fn quiet() -> Self {
        let (seen, unblock) = (channel().0, Mutex::new(channel().1));
        Self { limits: Limits::default(), overload_answer: None, control: Arc::default(), seen, unblock }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The callback that is to panic.
    plan: String,
    /// Bytes of a body that are still to come.
    body: usize,
    /// Chunks that `stream` still has to send.
    chunks: usize,
    /// Times that a timer is still to set itself.
    again: u32,
    keep_after_eof: bool,
    patient: bool,
    stay: bool,
}

#[derive(Debug)]
pub(crate) enum Head {
    Line,
    Body,
}

/// The timer that blocks the loop.
const BLOCK: TimerToken = TimerToken(u32::MAX);

/// What a streaming callback sends at a time.
pub(crate) const CHUNK: usize = 100_000;

impl Lab {
    fn tell(&self, seen: Seen) {
        // A test that has seen enough has dropped its end.
        let _ = self.seen.send(seen);
    }

    fn block(&self) {
        self.tell(Seen::Blocked);
        self.unblock.lock().unwrap().recv().unwrap();
    }

    fn say(&self, io: &mut Io<'_>, text: &str) {
        io.send_vectored(&[text.as_bytes(), b"\n"]);
        self.control.max_queued.fetch_max(io.queued_bytes(), Ordering::Relaxed);
    }

    fn run(&self, io: &mut Io<'_>, session: &mut Session, line: &str) -> Flow {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let numbers: Vec<u64> = rest.split(' ').filter_map(|n| n.parse().ok()).collect();
        match word {
            "echo" => self.say(io, rest),
            "peer" => self.say(io, &io.peer().address.to_string()),
            "more" => self.say(io, if io.has_more_input() { "more" } else { "all" }),
            "big" => self.say(io, &String::from_utf8(letters(numbers[0])).unwrap()),
            "stream" => {
                session.chunks = usize::try_from(numbers[0]).unwrap();
                self.stream(io, session);
            }
            "hold-stream" => {
                self.block();
                session.chunks = usize::try_from(numbers[0]).unwrap();
                self.stream(io, session);
            }
            "file" => {
                let file = self.control.file.lock().unwrap().clone().unwrap();
                io.send_file(file, numbers[0], numbers[1]);
            }
            "body" => {
                session.body = usize::try_from(numbers[0]).unwrap();
                io.expect(Phase::Body);
            }
            "timer" | "cancel" => self.set_timer(io, session, word, &numbers),
            "suspend" => {
                self.tell(Seen::Suspended(io.handle()));
                return Flow::Suspend;
            }
            // A timer is the loop's in every model, so it is the loop that stands still.
            "block" => io.set_timer(BLOCK, Duration::ZERO),
            "hold" => self.block(),
            "pause" => io.pause(),
            "nap" => {
                io.set_timer(TimerToken(7), Duration::from_millis(numbers[0]));
                io.pause();
            }
            "tell" => {
                io.tell_when_sent();
                return self.run(io, session, rest);
            }
            "keep" => session.keep_after_eof = true,
            "patient" => session.patient = true,
            "stay" => session.stay = true,
            "plan" => rest.clone_into(&mut session.plan),
            "count" => io.count(0, numbers[0]),
            "done" => return Flow::CloseAfterFlush(Reason::DONE),
            "abort" => return Flow::Abort(Reason::FLOOD),
            "bye" => return Flow::Abort(Reason::DONE),
            "panic" => panic!("told to"),
            "wrong" => drop(io.handle::<Vec<u8>>()),
            other => panic!("no such command: {other}"),
        }
        Flow::Continue
    }

    fn set_timer(&self, io: &mut Io<'_>, session: &mut Session, word: &str, numbers: &[u64]) {
        let token = TimerToken(u32::try_from(numbers[0]).unwrap());
        if word == "cancel" {
            return io.cancel_timer(token);
        }
        session.again = numbers.get(2).map_or(0, |n| u32::try_from(*n).unwrap());
        io.set_timer(token, Duration::from_millis(numbers[1]));
    }

    /// Sends until it is over the high-water mark.
    fn stream(&self, io: &mut Io<'_>, session: &mut Session) {
        while session.chunks > 0 && io.queued_bytes() <= self.limits.high_water_bytes {
            io.send(&pattern(CHUNK));
            session.chunks -= 1;
        }
        if session.chunks == 0 {
            self.say(io, "end of stream");
        }
    }
}

impl Service for Lab {
    type Session = Session;
    type Head = Head;
    type Note = Note;

    const COUNTERS: &'static [CounterDef] = &[CounterDef { name: "counted", help: "What `count` counts." }];

    #[expect(clippy::panic_in_result_fn, reason = "panicking is what is tested")]
    fn on_open(&self, io: &mut Io<'_>, peer: &Peer<'_>) -> Result<Session, Refusal> {
        assert!(peer.listener.starts_with("lab"), "{}", peer.listener);
        if self.control.panic_in_open.swap(false, Ordering::Relaxed) {
            io.send(b"said before the panic");
            panic!("told to");
        }
        if let Some(refusal) = *self.control.refuse.lock().unwrap() {
            io.send(b"not part of the answer");
            return Err(refusal);
        }
        self.tell(Seen::Opened(io.handle()));
        Ok(Session::default())
    }

    fn decode(&self, session: &mut Session, input: &[u8]) -> Decoded<Head> {
        assert!(!input.is_empty());
        assert_ne!(session.plan, "decode", "told to");
        if session.body > 0 {
            return Decoded::Message { len: input.len().min(session.body), head: Head::Body };
        }
        if input[0] == b'!' {
            return Decoded::Close(Reason::BAD_LENGTH);
        }
        if input[0] == b'?' {
            return Decoded::Need { phase: Phase::Head, at_least: usize::MAX };
        }
        match input.iter().position(|b| *b == b'\n') {
            Some(at) => Decoded::Message { len: at + 1, head: Head::Line },
            None => Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 },
        }
    }

    fn on_message(&self, io: &mut Io<'_>, session: &mut Session, head: Head, bytes: &[u8]) -> Flow {
        match head {
            Head::Line => self.run(io, session, std::str::from_utf8(&bytes[..bytes.len() - 1]).unwrap()),
            Head::Body => {
                session.body -= bytes.len();
                if session.body == 0 {
                    io.expect(Phase::Idle);
                    self.say(io, "body done");
                }
                Flow::Continue
            }
        }
    }

    fn on_note(&self, io: &mut Io<'_>, session: &mut Session, note: Note) -> Flow {
        assert_ne!(session.plan, "note", "told to");
        match note {
            Note::Say(text) => self.say(io, &text),
            Note::Suspend => return Flow::Suspend,
            Note::Resume => io.resume(),
            Note::Panic => panic!("told to"),
            Note::Done => return Flow::CloseAfterFlush(Reason::DONE),
            Note::Bomb(bomb) => drop(bomb),
        }
        Flow::Continue
    }

    fn on_timer(&self, io: &mut Io<'_>, session: &mut Session, timer: TimerToken) -> Flow {
        assert_ne!(session.plan, "timer", "told to");
        if timer == BLOCK {
            self.block();
            return Flow::Continue;
        }
        self.say(io, &format!("timer {}", timer.0));
        if session.again > 0 {
            session.again -= 1;
            io.set_timer(timer, Duration::ZERO);
        }
        io.resume();
        Flow::Continue
    }

    fn on_drained(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        assert_ne!(session.plan, "drained", "told to");
        self.tell(Seen::Drained);
        if session.chunks > 0 {
            self.stream(io, session);
        }
        Flow::Continue
    }

    fn on_sent(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        assert_ne!(session.plan, "sent", "told to");
        self.tell(Seen::Sent(io.queued_bytes()));
        if session.plan == "say it" {
            session.plan.clear();
            self.say(io, "it has been sent");
            io.tell_when_sent();
        }
        Flow::Continue
    }

    fn on_deadline(&self, io: &mut Io<'_>, session: &mut Session, phase: Phase) -> Flow {
        assert_ne!(session.plan, "deadline", "told to");
        if session.patient {
            session.patient = false;
            self.say(io, &format!("late: {phase:?}"));
            return Flow::Continue;
        }
        Flow::Abort(phase.timeout_reason())
    }

    fn on_eof(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        assert_ne!(session.plan, "eof", "told to");
        if session.keep_after_eof {
            self.say(io, "eof");
            return Flow::Continue;
        }
        Flow::CloseAfterFlush(Reason::PEER_CLOSED)
    }

    fn on_retire(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        assert_ne!(session.plan, "retire", "told to");
        assert!(io.retiring());
        self.tell(Seen::Retire(io.draining()));
        if session.stay { Flow::Continue } else { Flow::CloseAfterFlush(Reason::SHUTDOWN) }
    }

    fn on_close(&self, session: Session, closed: &Closed) {
        self.control.closed.fetch_add(1, Ordering::Relaxed);
        self.tell(Seen::Closed(*closed));
        assert_ne!(session.plan, "close", "told to");
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn overload_answer(&self) -> Option<&'static [u8]> {
        self.overload_answer
    }
}

/// What `big` sends: letters, so that it is a line.
pub(crate) fn letters(n: u64) -> Vec<u8> {
    (0..n).map(|i| b'a' + u8::try_from(i * 7 % 26).unwrap()).collect()
}
