//! The log server: a [`Service`] on a Unix socket that stores what arrives.
//!
//! A message is a line. Lines are collected in the shared store and written together, 64 KiB or a few milliseconds at a
//! time; only then are they acknowledged. A disk that takes nothing holds nobody up: lines that the store keeps in its
//! buffer are acknowledged all the same, and what the store must drop it counts and reports.
//!
//! A line is never a reason to lose another: one that is not JSON is stored wrapped in a record. A line longer than a record
//! may be ends its connection, since nothing tells where the next begins.
//!
//! When the server retires, clients that said hello are read until they close; they are the other processes of this server,
//! and their last words matter most. Other programs are given a moment of silence and then closed.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use memchr::memchr;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tidegate_engine::{
    Closed, CounterDef, Decoded, Flow, Io, Limits, Peer, Phase, Reason, Refusal, Service, TimerToken,
};

use crate::encode::record_line;
use crate::wire::{Hello, VERSION};
use crate::{MAX_LINE_BYTES, Record, Resource, Severity, SharedStore, StoreCounts};

/// Stores the lines that clients and other programs send. All instances, one for each loop, share the store.
///
/// ```no_run
/// use tidegate_engine::{EngineConfig, LoopBuilder};
/// use tidegate_log::{LogServer, Resource, SharedStore, Store, StoreOptions};
///
/// let options = StoreOptions::new("log", Resource::this_process("log server", 1));
/// let store = SharedStore::new(Store::open(options)?);
/// let listener = std::os::unix::net::UnixListener::bind("log.sock")?;
/// let server = store.clone();
/// let running = LoopBuilder::new(EngineConfig::default())
///     .listen("log", listener, move || Ok(LogServer::new(server.clone())))
///     .spawn()?;
/// running.join()?;
/// store.lock().flush_now();
/// # Ok::<(), tidegate_engine::BoxError>(())
/// ```
#[derive(Debug)]
pub struct LogServer {
    store: SharedStore,
    /// What of the store's counts is in the service's counters already.
    counted: Mutex<StoreCounts>,
}

/// What the log server knows of a connection.
#[derive(Debug, Default)]
pub struct LogSession {
    origin: Origin,
    /// Bytes of lines since the hello that the store has.
    received: u64,
    /// Of these, how many the client was told of.
    acknowledged: u64,
    /// The end of the input up to which there is no newline.
    scanned: usize,
    /// What `received` was when the timer last expired.
    seen: u64,
    /// How often the acknowledgement has been put off.
    put_off: u32,
    /// The timer for writing is set.
    due: bool,
    /// The timer for trying a disk again is set.
    retrying: bool,
    /// What another program has sent of a line; it may close without ending it.
    unfinished: Vec<u8>,
}

/// Who sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Origin {
    /// The first line has not come yet.
    #[default]
    Unknown,
    /// A client of ours, which waits for acknowledgements.
    Client,
    /// Another program.
    Other,
}

impl LogServer {
    /// Stores into `store`.
    #[must_use]
    pub fn new(store: SharedStore) -> Self {
        // What another instance wrote before is for that one to count.
        let counted = Mutex::new(store.lock().counts());
        Self { store, counted }
    }

    /// Takes a line, without its newline, into the store; true when the store's buffer should be written.
    fn take_line(&self, io: &mut Io<'_>, session: &mut LogSession, line: &[u8]) -> bool {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return false;
        }
        if session.origin == Origin::Client && is_json_object(line) {
            return self.store.lock().append(line);
        }
        let (line, sound) = adopted(line);
        if !sound {
            io.count(BAD_LINES, 1);
        }
        self.store.lock().append(&line)
    }

    /// Writes what the store holds.
    fn write(&self, io: &mut Io<'_>, session: &mut LogSession) {
        let mut store = self.store.lock();
        store.flush();
        let counts = store.counts();
        let failure = store.new_failure();
        let waits = store.pending_bytes() > 0;
        drop(store);
        self.count(io, counts);
        if let Some(error) = failure {
            // Once for each time the trouble begins, and outside the lock: the client of this process writes to the
            // store too, and shows its records on standard error while that fails.
            tracing::error!(error, "the log directory cannot be written; records wait in memory");
        }
        if waits && !session.retrying {
            session.retrying = true;
            io.set_timer(RETRY, RETRY_AFTER);
        }
    }

    /// Stores what is left of a connection that ends.
    fn finish(&self, io: &mut Io<'_>, session: &mut LogSession) {
        if session.origin != Origin::Client {
            // The last line of a program that does not end its lines. What is left of a client's was not acknowledged.
            let line = std::mem::take(&mut session.unfinished);
            self.take_line(io, session, &line);
        }
        self.write(io, session);
        acknowledge(io, session);
    }

    fn count(&self, io: &mut Io<'_>, counts: StoreCounts) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        // Another loop may have looked at the store later and counted first.
        io.count(RECORDS, counts.records.saturating_sub(counted.records));
        io.count(BYTES, counts.bytes.saturating_sub(counted.bytes));
        io.count(DROPPED, counts.dropped.saturating_sub(counted.dropped));
        counted.records = counted.records.max(counts.records);
        counted.bytes = counted.bytes.max(counts.bytes);
        counted.dropped = counted.dropped.max(counts.dropped);
    }
}

fn acknowledge(io: &mut Io<'_>, session: &mut LogSession) {
    if session.origin == Origin::Client && session.received > session.acknowledged {
        session.acknowledged = session.received;
        session.seen = session.received;
        session.put_off = 0;
        io.send(&session.received.to_be_bytes());
    }
}

impl Service for LogServer {
    type Session = LogSession;
    type Head = ();
    type Note = ();

    const COUNTERS: &'static [CounterDef] = &[
        CounterDef { name: "records", help: "Records written to the log directory." },
        CounterDef { name: "bytes", help: "Bytes written to the log directory." },
        CounterDef {
            name: "bad_lines",
            help: "Lines that were no JSON and were stored wrapped in a record.",
        },
        CounterDef { name: "dropped", help: "Records dropped since the log directory could not be written." },
    ];

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<LogSession, Refusal> {
        Ok(LogSession::default())
    }

    fn decode(&self, session: &mut LogSession, input: &[u8]) -> Decoded<()> {
        let from = session.scanned.min(input.len());
        if let Some(at) = memchr(b'\n', &input[from..]) {
            session.scanned = 0;
            session.unfinished.clear();
            return Decoded::Message { len: from + at + 1, head: () };
        }
        if input.len() >= MAX_LINE_BYTES {
            return Decoded::Close(Reason::INPUT_OVERFLOW);
        }
        session.scanned = input.len();
        if session.origin != Origin::Client {
            session.unfinished.clear();
            session.unfinished.extend_from_slice(input);
        }
        Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 }
    }

    fn on_message(&self, io: &mut Io<'_>, session: &mut LogSession, (): (), bytes: &[u8]) -> Flow {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        if session.origin == Origin::Unknown {
            match Hello::parse(line) {
                Some(hello) if hello.version == VERSION => {
                    session.origin = Origin::Client;
                    return Flow::Continue;
                }
                Some(_) => return Flow::Abort(Reason::PROTOCOL_ERROR),
                None => session.origin = Origin::Other,
            }
        }
        session.received += bytes.len() as u64;
        if self.take_line(io, session, line) {
            self.write(io, session);
        }
        if !session.due {
            session.due = true;
            io.set_timer(WRITE, WRITE_AFTER);
        }
        if io.retiring() && session.origin == Origin::Other {
            io.set_timer(QUIET, QUIET_AFTER);
        }
        Flow::Continue
    }

    fn on_timer(&self, io: &mut Io<'_>, session: &mut LogSession, timer: TimerToken) -> Flow {
        if timer == QUIET {
            if session.origin == Origin::Client {
                // It had not said hello when the timer was set.
                return Flow::Continue;
            }
            self.finish(io, session);
            return Flow::CloseAfterFlush(Reason::SHUTDOWN);
        }
        if timer == RETRY {
            session.retrying = false;
            self.write(io, session);
            return Flow::Continue;
        }
        session.due = false;
        self.write(io, session);
        // Acknowledging to a process that has died breaks the connection, with what was not read yet of its last words. So
        // it waits for a pause, but not so long that the server seems to be away, or that the client's queue fills up.
        let much = session.received - session.acknowledged >= MAX_UNACKNOWLEDGED;
        if session.received == session.seen || session.put_off >= MAX_PUT_OFF || much {
            acknowledge(io, session);
        } else {
            session.seen = session.received;
            session.put_off += 1;
            session.due = true;
            io.set_timer(WRITE, WRITE_AFTER);
        }
        Flow::Continue
    }

    fn on_eof(&self, io: &mut Io<'_>, session: &mut LogSession) -> Flow {
        self.finish(io, session);
        Flow::CloseAfterFlush(Reason::PEER_CLOSED)
    }

    fn on_retire(&self, io: &mut Io<'_>, session: &mut LogSession) -> Flow {
        if session.origin != Origin::Client {
            io.set_timer(QUIET, QUIET_AFTER);
        }
        Flow::Continue
    }

    fn on_close(&self, session: LogSession, _: &Closed) {
        if session.due {
            // Its timer went with it.
            self.store.lock().flush();
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            // A process that has nothing to say, or that was stopped in the middle of a word, is no fault.
            idle_timeout: None,
            head_timeout: None,
            body_timeout: None,
            write_timeout: None,
            max_input_bytes: 2 * MAX_LINE_BYTES,
            // Acknowledgements that a stopped client does not read.
            max_output_bytes: 1 << 20,
            ..Limits::default()
        }
    }
}

fn is_json_object(line: &[u8]) -> bool {
    line.first() == Some(&b'{')
        && std::str::from_utf8(line).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// A line of another program as a record: as it is when it is one, an object's members as attributes, anything else wrapped
/// as what it is. False when it was no JSON object.
fn adopted(line: &[u8]) -> (Vec<u8>, bool) {
    let text = std::str::from_utf8(line);
    if text.is_ok() && Record::parse(line).is_ok() {
        return (line.to_vec(), true);
    }
    let (record, sound) = match text.map(serde_json::from_str) {
        Ok(Ok(Value::Object(members))) => (from_members(members), true),
        _ => {
            let text = Value::from(String::from_utf8_lossy(line).into_owned());
            let attributes = Map::from_iter([("line".to_owned(), text)]);
            (record(Severity::Warn, "a line that is no JSON object".to_owned(), attributes), false)
        }
    };
    (record_line(&record), sound)
}

/// Finds severity and text under the names that other programs use for them.
fn from_members(mut members: Map<String, Value>) -> Record {
    let word = |value: &Value| value.as_str().and_then(|word| word.parse::<Severity>().ok());
    let named = ["severity", "level", "lvl"].into_iter().find_map(|name| {
        let severity = members.get(name).and_then(word)?;
        members.remove(name);
        Some(severity)
    });
    let body = ["body", "message", "msg"].into_iter().find_map(|name| {
        members.get(name)?.as_str()?;
        members.remove(name)
    });
    let body = match body {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    record(named.unwrap_or(Severity::Info), body, members)
}

fn record(severity: Severity, body: String, attributes: Map<String, Value>) -> Record {
    let resource = Resource { process: OTHER_PROCESS.to_owned(), ..Resource::default() };
    Record { time: Timestamp::now(), severity, target: String::new(), body, attributes, resource, seq: 0 }
}

const RECORDS: usize = 0;
const BYTES: usize = 1;
const BAD_LINES: usize = 2;
const DROPPED: usize = 3;

/// The timer for writing what was collected.
const WRITE: TimerToken = TimerToken(0);
/// The timer for trying a disk again that took nothing.
const RETRY: TimerToken = TimerToken(2);
/// The timer for closing other programs while the server retires.
const QUIET: TimerToken = TimerToken(1);
/// How long lines are collected.
const WRITE_AFTER: Duration = Duration::from_millis(5);
/// How many times as long an acknowledgement waits for a pause in what a client sends.
const MAX_PUT_OFF: u32 = 20;
/// As many bytes are acknowledged even if there is no pause.
const MAX_UNACKNOWLEDGED: u64 = 256 << 10;
/// How often a disk that takes nothing is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long another program must be silent to be closed when the server retires.
const QUIET_AFTER: Duration = Duration::from_millis(500);
/// The process of a record that another program sent without saying who it is.
const OTHER_PROCESS: &str = "other";

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, severity: Severity, body: &str, attributes: &str, sound: bool) {
        let (line, was_sound) = adopted(line.as_bytes());
        let record = Record::parse(&line).unwrap();
        assert_eq!((record.severity, record.body.as_str()), (severity, body));
        assert_eq!(Value::from(record.attributes).to_string(), attributes);
        assert_eq!(was_sound, sound);
    }

    #[test]
    fn a_line_of_another_program_becomes_a_record() {
        check(r#"{"msg":"hello","level":"warning","n":1}"#, Severity::Warn, "hello", r#"{"n":1}"#, true);
        check(r#"{"message":5}"#, Severity::Info, "", r#"{"message":5}"#, true);
        check(r#"{}"#, Severity::Info, "", "{}", true);
        let text = "a line that is no JSON object";
        check("oops", Severity::Warn, text, r#"{"line":"oops"}"#, false);
        check("[1]", Severity::Warn, text, r#"{"line":"[1]"}"#, false);
        check(r#"{"half":"#, Severity::Warn, text, r#"{"line":"{\"half\":"}"#, false);
    }

    #[test]
    fn a_record_is_stored_as_it_is() {
        let line = br#"{"time":"2026-01-31T23:59:59Z","severity":"INFO","body":"b","extra":1}"#;
        assert_eq!(adopted(line), (line.to_vec(), true));
        let (line, sound) = adopted(b"\xff\xfe");
        assert!(!sound && Record::parse(&line).unwrap().attributes["line"] == "\u{fffd}\u{fffd}");
    }

    #[test]
    fn clients_lines_are_checked_without_being_understood() {
        assert!(is_json_object(br#"{"any":[1,2,{"thing":null}]}"#));
        for bad in [&br#"{"a":1"#[..], b"1", b"{\"a\":\"\xff\"}", b"{} {}", b""] {
            assert!(!is_json_object(bad));
        }
    }
}
