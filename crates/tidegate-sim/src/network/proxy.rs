//! `Door`, `Client`, `Member`: services of a program that connects to others.
//!
//! A connection to the door asks for an outgoing one, and is tied to it when it is there. Invariant: they keep all that they
//! have been told in the ledger, so that whoever is told nothing shows.

use tidegate_engine::{
    Closed, ConnHandle, ConnectFailed, Decoded, Flow, Io, Limits, Peer, Phase, Reason, Refusal, Service,
};

use super::dial_plan::Meanwhile;
use super::ledger::{Note, SharedLedger};
use super::service::{self, LIMITS};
use super::wire::{Head, spoken};

/// Whose peers are to be tied to targets.
pub(crate) struct Door(pub(crate) SharedLedger);

/// Whose connections others ask for.
pub(crate) struct Client(pub(crate) SharedLedger);

/// Whose connections the engine keeps open.
pub(crate) struct Member(pub(crate) SharedLedger);

/// What comes with the wish for an outgoing connection.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) dial: u32,
    /// Who is to be tied to it.
    pub(crate) door: Option<(u32, ConnHandle<Note>)>,
}

/// What services say before a tie.
pub(crate) fn greeting(conn: u32, len: usize) -> Vec<u8> {
    spoken(u32::MAX - conn, len)
}

impl Door {
    /// Asks for the other connection, if it is time.
    fn ask(&self, io: &mut Io<'_>, conn: u32, handled: u32) -> Flow {
        let (plan, connect) = {
            let mut ledger = self.0.lock();
            let Some(door) = ledger.conn_plan(conn).door.filter(|door| door.after == handled) else {
                return Flow::Continue;
            };
            ledger.asks(door.dial);
            if let Some(entry) = ledger.conns.get_mut(&conn) {
                entry.greeted = door.greeting;
                entry.dial = Some(door.dial);
            }
            (door, ledger.plan.dials[door.dial as usize].connect(door.dial))
        };
        let wanted = Wanted { dial: plan.dial, door: Some((conn, io.handle())) };
        let asked = io.connect("client", connect, wanted);
        self.0.lock().check(asked.is_ok(), || format!("#{conn} asks for dial {}: {asked:?}", plan.dial));
        io.send(&greeting(conn, plan.greeting));
        match plan.meanwhile {
            Meanwhile::Pause => io.pause(),
            Meanwhile::Suspend => return Flow::Suspend,
            Meanwhile::GoOn => {}
        }
        Flow::Continue
    }
}

impl Service for Door {
    type Session = u32;
    type Head = Head;
    type Note = Note;

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<u32, Refusal> {
        let opened = self.0.lock().opened(io.id(), Some(io.handle()));
        let Some(conn) = opened else { return Err(Reason::REFUSED.into()) };
        // There is nothing to suspend yet.
        if self.ask(io, conn, 0) == Flow::Suspend {
            io.pause();
        }
        Ok(conn)
    }

    fn decode(&self, conn: &mut u32, input: &[u8]) -> Decoded<Head> {
        service::decode(&self.0, *conn, input)
    }

    fn on_message(&self, io: &mut Io<'_>, conn: &mut u32, head: Head, bytes: &[u8]) -> Flow {
        if self.0.lock().message(*conn, io.id(), head, bytes).is_none() {
            return Flow::Continue;
        }
        self.ask(io, *conn, head.number + 1)
    }

    fn on_note(&self, io: &mut Io<'_>, conn: &mut u32, note: Note) -> Flow {
        let mut ledger = self.0.lock();
        ledger.check(note.conn == *conn, || format!("#{conn}: on_note with a note for #{}", note.conn));
        ledger.called(*conn, io.id(), "on_note");
        Flow::Continue
    }

    fn on_deadline(&self, io: &mut Io<'_>, conn: &mut u32, phase: Phase) -> Flow {
        deadline(&self.0, io, *conn, phase)
    }

    fn on_eof(&self, io: &mut Io<'_>, conn: &mut u32) -> Flow {
        let mut ledger = self.0.lock();
        let Some(entry) = ledger.called(*conn, io.id(), "on_eof") else { return Flow::Continue };
        if entry.dial.is_some() {
            // What it has said may still have to be passed on.
            return Flow::Continue;
        }
        ledger.end(*conn, Reason::PEER_CLOSED, true);
        Flow::CloseAfterFlush(Reason::PEER_CLOSED)
    }

    fn on_retire(&self, io: &mut Io<'_>, conn: &mut u32) -> Flow {
        retire(&self.0, io, *conn)
    }

    fn on_close(&self, conn: u32, closed: &Closed) {
        self.0.lock().closed(conn, closed);
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

impl Service for Client {
    type Session = u32;
    type Head = ();
    type Note = Wanted;

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<u32, Refusal> {
        let mut ledger = self.0.lock();
        let Some(conn) = ledger.opened(io.id(), None) else { return Err(Reason::REFUSED.into()) };
        match ledger.refusal(conn) {
            Some(answer) => Err(Refusal { reason: Reason::REFUSED, answer }),
            None => Ok(conn),
        }
    }

    fn decode(&self, _: &mut u32, input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, io: &mut Io<'_>, conn: &mut u32, (): (), bytes: &[u8]) -> Flow {
        let mut ledger = self.0.lock();
        let Some(entry) = ledger.called(*conn, io.id(), "on_message") else { return Flow::Continue };
        let (from, partner) = (entry.handled_bytes, entry.partner);
        entry.handled_bytes += bytes.len();
        let said = spoken(*conn, from + bytes.len());
        ledger.check(said[from..] == *bytes, || format!("#{conn}: bytes that no target has said"));
        ledger.check(partner.is_none(), || format!("#{conn}: a message, and it is tied"));
        Flow::Continue
    }

    fn on_note(&self, io: &mut Io<'_>, conn: &mut u32, wanted: Wanted) -> Flow {
        let mut ledger = self.0.lock();
        let greeted = ledger.wish_came(*conn, io.id(), wanted.dial);
        drop(ledger);
        io.send(&greeting(*conn, greeted));
        if let Some((door, handle)) = &wanted.door {
            self.0.lock().ties(*conn, *door);
            let tied = io.tie(handle);
            self.0.lock().check(tied.is_ok(), || format!("#{conn} cannot be tied to #{door}: {tied:?}"));
        }
        Flow::Continue
    }

    fn on_deadline(&self, io: &mut Io<'_>, conn: &mut u32, phase: Phase) -> Flow {
        deadline(&self.0, io, *conn, phase)
    }

    fn on_eof(&self, io: &mut Io<'_>, conn: &mut u32) -> Flow {
        let mut ledger = self.0.lock();
        if ledger.called(*conn, io.id(), "on_eof").is_none() {
            return Flow::Continue;
        }
        ledger.end(*conn, Reason::PEER_CLOSED, true);
        Flow::CloseAfterFlush(Reason::PEER_CLOSED)
    }

    fn on_retire(&self, io: &mut Io<'_>, conn: &mut u32) -> Flow {
        retire(&self.0, io, *conn)
    }

    fn on_connect_failed(&self, failed: ConnectFailed<Wanted>) {
        let mut ledger = self.0.lock();
        let Some(Wanted { dial, door }) = failed.note else {
            return ledger.violated(|| format!("no connection to {}, and no note", failed.target));
        };
        ledger.connect_failed(dial, &failed.error);
        if let Some((conn, handle)) = door {
            let is_gone = handle.close(Reason::OPERATOR).is_err();
            if let Some(entry) = ledger.conns.get_mut(&conn).filter(|_| !is_gone) {
                entry.asked.get_or_insert(Reason::OPERATOR);
            }
        }
    }

    fn on_close(&self, conn: u32, closed: &Closed) {
        self.0.lock().closed(conn, closed);
    }

    fn limits(&self) -> Limits {
        LIMITS
    }
}

impl Service for Member {
    type Session = u32;
    type Head = ();
    type Note = Note;

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<u32, Refusal> {
        let opened = self.0.lock().opened(io.id(), Some(io.handle()));
        opened.ok_or_else(|| Reason::REFUSED.into())
    }

    fn decode(&self, _: &mut u32, input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, _: &mut Io<'_>, _: &mut u32, (): (), _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn on_note(&self, io: &mut Io<'_>, conn: &mut u32, note: Note) -> Flow {
        let mut ledger = self.0.lock();
        ledger.check(note.conn == *conn, || format!("#{conn}: on_note with a note for #{}", note.conn));
        ledger.called(*conn, io.id(), "on_note");
        Flow::Continue
    }

    fn on_eof(&self, io: &mut Io<'_>, conn: &mut u32) -> Flow {
        let mut ledger = self.0.lock();
        if ledger.called(*conn, io.id(), "on_eof").is_none() {
            return Flow::Continue;
        }
        ledger.end(*conn, Reason::PEER_CLOSED, true);
        Flow::CloseAfterFlush(Reason::PEER_CLOSED)
    }

    fn on_retire(&self, io: &mut Io<'_>, conn: &mut u32) -> Flow {
        // It is kept for the others, and the engine ends it when they are gone.
        let mut ledger = self.0.lock();
        if let Some(entry) = ledger.called(*conn, io.id(), "on_retire") {
            entry.retire_told += 1;
        }
        Flow::Continue
    }

    fn on_connect_failed(&self, failed: ConnectFailed<Note>) {
        let mut ledger = self.0.lock();
        let error = failed.error;
        ledger.say(|| format!("upstream on_connect_failed: {error}"));
        ledger.seen.at("upstream not connected");
        ledger.check(failed.note.is_none(), || "a note for a connection of the upstream".to_owned());
    }

    fn on_close(&self, conn: u32, closed: &Closed) {
        self.0.lock().closed(conn, closed);
    }

    fn limits(&self) -> Limits {
        Limits { idle_timeout: None, ..LIMITS }
    }
}

fn deadline(ledger: &SharedLedger, io: &Io<'_>, conn: u32, phase: Phase) -> Flow {
    let reason = phase.timeout_reason();
    let mut ledger = ledger.lock();
    if ledger.called(conn, io.id(), "on_deadline").is_some() {
        // Two large messages may each keep the memory that the other needs to become whole.
        if phase != Phase::Body || !ledger.plan.knobs.is_scarce() {
            ledger.timed_out(conn, reason);
        }
        ledger.end(conn, reason, false);
    }
    Flow::Abort(reason)
}

/// Who waits for another connection, or is tied to it, stays.
fn retire(ledger: &SharedLedger, io: &Io<'_>, conn: u32) -> Flow {
    let mut ledger = ledger.lock();
    let Some(entry) = ledger.called(conn, io.id(), "on_retire") else { return Flow::Continue };
    entry.retire_told += 1;
    if entry.dial.is_some() || entry.partner.is_some() {
        return Flow::Continue;
    }
    ledger.end(conn, Reason::SHUTDOWN, true);
    Flow::CloseAfterFlush(Reason::SHUTDOWN)
}
