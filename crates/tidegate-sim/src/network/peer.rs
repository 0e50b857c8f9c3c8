//! `Peer`: the far end of a connection: says its script in pieces, and checks what it is told.
//!
//! Invariant: what has been received is whole frames, each the next of its kind, and the beginning of one more.

use super::plan::ConnPlan;
use super::wire::{FILE_BYTES, FILE_UNIT, HEAD_BYTES, Head, Kind, spoken};

#[derive(Debug)]
pub(crate) struct Peer {
    conn: u32,
    /// All that it will ever say.
    script: Vec<u8>,
    said: usize,
    pub(crate) has_ended: bool,
    pub(crate) is_gone: bool,
    /// The server has ended its side, or the connection is over.
    pub(crate) heard_end: bool,
    /// What is no whole frame yet.
    rest: Vec<u8>,
    /// Frames of the service, and letters.
    pub(crate) answers: u32,
    pub(crate) letters: u32,
    /// It was refused: what it is told is no frame.
    refusal: Option<&'static [u8]>,
    /// What it is told comes through a tie, and is looked at as it comes.
    pub(crate) is_tied: bool,
    pub(crate) received: usize,
}

impl Peer {
    pub(crate) fn new(conn: u32, plan: &ConnPlan) -> Self {
        let mut script = Vec::new();
        for (number, request) in (0..).zip(&plan.script) {
            script.extend(Head { kind: Kind::Request, arg: 0, len: request.body, number }.frame(conn));
        }
        Self { is_tied: plan.door.is_some(), ..Self::saying(conn, script, plan.refusal) }
    }

    /// The target of an outgoing connection, which says so many bytes.
    pub(crate) fn target(conn: u32, talk: usize, refusal: Option<&'static [u8]>) -> Self {
        Self { is_tied: true, ..Self::saying(conn, spoken(conn, talk), refusal) }
    }

    fn saying(conn: u32, script: Vec<u8>, refusal: Option<&'static [u8]>) -> Self {
        Self {
            conn,
            script,
            said: 0,
            has_ended: false,
            is_gone: false,
            heard_end: false,
            rest: Vec::new(),
            answers: 0,
            letters: 0,
            refusal,
            is_tied: false,
            received: 0,
        }
    }

    /// Whether it does nothing any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_gone || (self.has_ended && self.heard_end)
    }

    /// The next bytes of the script.
    pub(crate) fn say(&mut self, bytes: usize) -> &[u8] {
        let from = self.said;
        if !self.has_ended && !self.is_gone {
            self.said = self.script.len().min(from + bytes);
        }
        &self.script[from..self.said]
    }

    /// All that it will ever say.
    pub(crate) fn script(&self) -> &[u8] {
        &self.script
    }

    /// How much of it was said.
    pub(crate) fn said(&self) -> usize {
        self.said
    }

    pub(crate) fn has_more_to_say(&self) -> bool {
        self.said < self.script.len() && !self.has_ended
    }

    /// Whole requests among what was said.
    pub(crate) fn requests(&self, plan: &ConnPlan) -> u32 {
        let mut left = self.said;
        let mut requests = 0;
        for request in &plan.script {
            let Some(rest) = left.checked_sub(request.frame_bytes()) else { break };
            left = rest;
            requests += 1;
        }
        requests
    }

    /// Takes what the server has sent.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.received += bytes.len();
        if self.is_tied && self.refusal.is_none() {
            return Ok(());
        }
        self.rest.extend_from_slice(bytes);
        if let Some(answer) = self.refusal {
            let told = answer.starts_with(&self.rest);
            return told.then_some(()).ok_or_else(|| format!("#{} was refused with other words", self.conn));
        }
        let mut at = 0;
        while let Some(frame) = self.frame_at(at)? {
            at += frame;
        }
        self.rest.drain(..at);
        Ok(())
    }

    fn frame_at(&mut self, at: usize) -> Result<Option<usize>, String> {
        let conn = self.conn;
        let rest = &self.rest[at..];
        if rest.len() < HEAD_BYTES {
            return Ok(None);
        }
        let Some(head) = Head::decode(rest).filter(|head| head.kind != Kind::Request) else {
            return Err(format!("#{conn} is told what nobody has said: {:?}", &rest[..HEAD_BYTES]));
        };
        let len = head.frame_bytes();
        if rest.len() < len {
            return Ok(None);
        }
        let number = if head.kind == Kind::Letter { &mut self.letters } else { &mut self.answers };
        if head.number != *number {
            return Err(format!("#{conn} is told {:?} {} instead of {number}", head.kind, head.number));
        }
        *number += 1;
        let ends_in_file = usize::from(head.arg) * FILE_UNIT + usize::from(head.len) <= FILE_BYTES;
        if rest[HEAD_BYTES..len] != head.body(conn) || !ends_in_file {
            return Err(format!("#{conn} is told {:?} {} with other bytes", head.kind, head.number));
        }
        Ok(Some(len))
    }

    /// Whether it is in the middle of a frame.
    pub(crate) fn is_amid_frame(&self) -> bool {
        self.refusal.is_none() && !self.rest.is_empty()
    }
}
