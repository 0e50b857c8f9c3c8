//! `Visit`: a ready connection in the hands of a thread, which receives, handles and sends by itself.
//!
//! Invariant: what a visit did is known to nobody until the loop takes it back; so a thread needs no lock while it works.

use tidegate_reactor::{End, Errno, Got, Loan};

use crate::Flow;
use crate::conn::Reading;
use crate::errand::Errand;
use crate::event_loop::relief::Buffers;
use crate::host::{Input, Then};
use crate::layer::{LayerError, LayerState};
use crate::layered::{Layered, PIECE_BYTES, Workspace};

/// A connection with its session, its socket and its input.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) errand: Errand,
    /// The socket; `None` in a visit that is empty.
    pub(crate) loan: Option<Loan>,
    pub(crate) reading: Reading,
    /// Input that was kept from before, and what is left over.
    pub(crate) input: Vec<u8>,
    pub(crate) came: Came,
    /// The layer of the connection.
    pub(crate) layer: Option<Layered>,
    /// What the layer has made, and is the loop's to send.
    pub(crate) sealed: Vec<u8>,
    /// The layer cannot go on.
    pub(crate) failed: Option<LayerError>,
}

/// What came of a visit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Came {
    /// Bytes received.
    pub(crate) received: u64,
    /// Bytes that the kernel took.
    pub(crate) sent: u64,
    /// Messages handled.
    pub(crate) messages: u64,
    pub(crate) then: Then,
    /// How receiving ended, if it did.
    pub(crate) end: Option<Got>,
    /// The connection broke over sending.
    pub(crate) broken: Option<Errno>,
}

impl Default for Came {
    fn default() -> Self {
        Self { received: 0, sent: 0, messages: 0, then: Then::NeedMore, end: None, broken: None }
    }
}

impl Buffers for Visit {
    fn buffer_bytes(&self) -> usize {
        self.input.capacity() + self.errand.record.out.capacity()
    }

    fn free_buffers(&mut self) {
        self.input = Vec::new();
        self.errand.record.out = Vec::new();
    }
}

impl Visit {
    pub(crate) fn new(errand: Errand, reading: Reading) -> Self {
        Self {
            errand,
            loan: None,
            reading,
            input: Vec::new(),
            came: Came::default(),
            layer: None,
            sealed: Vec::new(),
            failed: None,
        }
    }

    /// Handles what input there is, then what can be received at once, and sends the answers.
    pub(crate) fn run(&mut self, scratch: &mut [u8], work: &mut Workspace) {
        self.came = Came::default();
        self.handle_kept();
        if self.came.then == Then::NeedMore {
            self.receive(scratch, work);
        }
        self.send(work);
        work.clear();
    }

    fn receive(&mut self, scratch: &mut [u8], work: &mut Workspace) {
        let Some(loan) = &mut self.loan else { return };
        match loan.receive(scratch) {
            Got::Bytes(n) => {
                self.came.received = n as u64;
                let data = &scratch[..n];
                if self.layer.is_some() {
                    return self.unseal(data, work);
                }
                if !self.input.is_empty() {
                    self.input.extend_from_slice(data);
                    return self.handle_kept();
                }
                let consumed = self.handle(data);
                if consumed < n && !self.came.then.ends_input() {
                    self.input.extend_from_slice(&data[consumed..]);
                }
            }
            Got::Nothing => {}
            end @ (Got::Ended | Got::Failed(_)) => self.came.end = Some(end),
        }
    }

    /// Has the layer take what was received, and handles what it means.
    fn unseal(&mut self, data: &[u8], work: &mut Workspace) {
        let Some(layer) = &mut self.layer else { return };
        match layer.receive(data, &mut self.input, work) {
            Ok(LayerState::Ended) => self.came.end = Some(Got::Ended),
            Ok(LayerState::Open | LayerState::Handshaking) => {}
            Err(error) => self.failed = Some(error),
        }
        self.send_sealed(&work.sealed);
        self.handle_kept();
    }

    /// Sends what the layer has made, unless something is to be sent before it.
    fn send_sealed(&mut self, sealed: &[u8]) {
        let mut taken = 0;
        if self.errand.queued.weight == 0
            && self.sealed.is_empty()
            && !sealed.is_empty()
            && let Some(loan) = &self.loan
        {
            match loan.send(sealed) {
                Ok(n) => taken = n,
                Err(errno) => return self.came.broken = Some(errno),
            }
        }
        self.came.sent += taken as u64;
        self.sealed.extend_from_slice(&sealed[taken..]);
    }

    /// Seals and sends what was written, piece by piece, as long as the kernel takes all of each.
    fn send_layered(&mut self, sealed: &mut Vec<u8>) {
        let mut at = 0;
        while at < self.errand.record.out.len() && self.sealed.is_empty() && self.came.broken.is_none() {
            let Some(layer) = &mut self.layer else { return };
            let out = &self.errand.record.out;
            let piece = &out[at..out.len().min(at + PIECE_BYTES)];
            sealed.clear();
            if let Err(error) = layer.seal(piece, sealed) {
                self.failed = Some(error);
                break;
            }
            at += piece.len();
            self.send_sealed(sealed);
        }
        self.errand.record.out.drain(..at);
    }

    /// Handles the input that was kept, when it may be enough.
    fn handle_kept(&mut self) {
        if self.input.is_empty() || self.input.len() < self.reading.need as usize {
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        let consumed = self.handle(&input);
        if consumed < input.len() && !self.came.then.ends_input() {
            input.drain(..consumed);
        } else {
            input.clear();
        }
        self.input = input;
    }

    /// Answers how many bytes were consumed.
    fn handle(&mut self, data: &[u8]) -> usize {
        let Some((away, mut io)) = self.errand.begin() else { return data.len() };
        let (Input { consumed, then }, messages) = away.batch(&mut io, &mut self.reading, data);
        self.came.then = then;
        self.came.messages += messages;
        consumed
    }

    /// Sends at once what needs nothing but sending. The rest is the loop's: what comes after older output or after
    /// files, what passes the high-water mark, and what a reset is to throw away.
    fn send(&mut self, work: &mut Workspace) {
        let record = &mut self.errand.record;
        let high_water = self.errand.site.limits.high_water_bytes;
        let plain =
            self.errand.queued.weight == 0 && record.files.is_empty() && record.weight() <= high_water;
        let delivered = match self.came.then {
            Then::NeedMore => true,
            Then::Later => false,
            Then::Flow(Flow::Abort(reason)) => reason.end() == End::Fin,
            Then::Flow(_) => true,
        };
        let Some(loan) = self.loan.as_ref().filter(|_| plain && delivered && !record.out.is_empty()) else {
            return;
        };
        if self.layer.is_some() {
            return self.send_layered(&mut work.sealed);
        }
        match loan.send(&record.out) {
            Ok(taken) => {
                self.came.sent = taken as u64;
                record.out.drain(..taken);
            }
            Err(errno) => self.came.broken = Some(errno),
        }
    }
}
