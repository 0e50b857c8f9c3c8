//! Sending: the batch's output at once, the rest when the peer takes it.
//!
//! What the kernel takes at once is sent from where the callbacks wrote it. Only what it refuses is copied, to pooled
//! blocks. A peer that takes as fast as it is given gets a bounded share in a turn, and the rest in the next ones.

use tidegate_reactor::{End, Errno, More, Reactor, Token};

use super::Loop;
use crate::conn::State;
use crate::io::Turn;
use crate::metrics::ListenerWord;
use crate::output::{Cursor, Output, Progress, SendError, send_batch};
use crate::record::Record;
use crate::{Phase, Reason};

impl<R: Reactor> Loop<R> {
    /// Sends the batch's output. False when the connection ended over it.
    #[inline]
    pub(super) fn flush(&mut self, token: Token) -> bool {
        if self.turn.record.sends_nothing() {
            return true;
        }
        let Some(conn) = self.conns.get_mut(token) else {
            self.turn.record.clear_output();
            return false;
        };
        if matches!(conn.state, State::Lingering(_)) || conn.unheard.is_some() {
            self.turn.record.clear_output();
            return true;
        }
        let site = usize::from(conn.site);
        let weight = conn.queued_weight() + self.turn.record.weight();
        conn.over_water |= weight > self.sites[site].limits.high_water_bytes;
        if conn.aside.is_some() && conn.layer().is_some() {
            return self.flush_layered(token);
        }
        let mut done = Cursor::default();
        if !self.turn.record.forward.is_empty() {
            match self.forward(token) {
                Ok(true) => {}
                Ok(false) => return self.queue_batch(token, done, Progress::Refused),
                Err(errno) => return self.fail(token, errno.into()),
            }
        }
        let Some(conn) = self.conns.get_mut(token) else { return false };
        if conn.output.is_some() {
            return self.queue_batch(token, done, Progress::Refused);
        }
        let outcome = send_batch(&mut self.turn.record, &mut self.reactor, token, &mut done);
        conn.bytes_out += done.sent;
        self.sites[site].metrics.add(ListenerWord::BytesOut, done.sent);
        match outcome {
            Ok(Progress::Done) => {
                self.turn.record.clear_output();
                true
            }
            Ok(progress) => self.queue_batch(token, done, progress),
            Err(error) => self.fail(token, error),
        }
    }

    /// Sends from where it was received what is to be forwarded. False when not all of it was taken, and the rest was put
    /// in front of what follows it.
    fn forward(&mut self, token: Token) -> Result<bool, Errno> {
        let Some(conn) = self.conns.get_mut(token) else { return Ok(true) };
        let record = &mut self.turn.record;
        let range = record.forward.clone();
        let mut taken = 0;
        if conn.output.is_none() {
            let more = if record.weight() == range.len() { More::No } else { More::Follows };
            taken = self.reactor.send_received(token, range.clone(), more)?;
            conn.bytes_out += taken as u64;
            self.sites[usize::from(conn.site)].metrics.add(ListenerWord::BytesOut, taken as u64);
        }
        if taken == range.len() {
            record.forward = 0..0;
            return Ok(true);
        }
        record.forward.start += taken;
        record.copy_forward(self.reactor.received());
        Ok(false)
    }

    /// Copies what is left of the batch to the connection's output queue.
    pub(super) fn queue_batch(&mut self, token: Token, done: Cursor, progress: Progress) -> bool {
        let Some(conn) = self.conns.get_mut(token) else { return false };
        let limit = self.sites[usize::from(conn.site)].limits.max_output_bytes;
        let more = self.turn.record.out.len() - done.at;
        let room = if conn.queued().bytes + more > limit {
            Err(Reason::OUTPUT_OVERFLOW)
        } else {
            self.make_room(token, more)
        };
        if let Err(reason) = room {
            self.close(token, reason, None);
            return false;
        }
        let Some(conn) = self.conns.get_mut(token) else { return false };
        let fresh = conn.output.is_none();
        let output = conn.output.get_or_insert_with(Box::<Output>::default);
        if !self.turn.queue(output, done) {
            self.close(token, Reason::OUTPUT_OVERFLOW, None);
            return false;
        }
        if fresh {
            conn.last_out = self.turn.now;
            conn.send_later = progress == Progress::Share;
            if progress == Progress::Refused {
                self.reactor.await_writable(token);
            }
        }
        self.turn.record.clear_output();
        true
    }

    /// The kernel has taken some of what the reactor has for this peer, or nothing, but not all.
    pub(super) fn on_stalled(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if !std::mem::replace(&mut conn.stalled, true)
            && let Some(pace) = conn.pace_mut()
        {
            // What it took before was room in the kernel, and says nothing of the peer.
            pace.interrupt();
        }
        conn.last_out = self.turn.now;
        self.reactor.await_writable(token);
        self.settle(token);
    }

    pub(super) fn on_writable(&mut self, token: Token) {
        if let Some(conn) = self.conns.get_mut(token) {
            conn.stalled = false;
        }
        if self.drain(token).is_some() {
            self.settle(token);
        }
    }

    /// Sends what is queued, and answers how many bytes were taken. `None` when it cannot be sent, and what follows from
    /// that has been done.
    pub(super) fn drain(&mut self, token: Token) -> Option<u64> {
        let conn = self.conns.get_mut(token)?;
        if conn.away && self.visits.is_some() {
            // Its socket is with a thread; it goes on when it is back.
            return Some(0);
        }
        let Some(output) = conn.output.as_mut() else { return Some(0) };
        let mut taken = 0;
        let (reactor, pool) = (&mut self.reactor, &mut self.turn.pool);
        let outcome = match conn.aside.as_deref_mut().and_then(|aside| aside.layer.as_mut()) {
            None => output.drain(reactor, token, pool, &mut taken),
            Some(layer) => output.drain_layered(layer, &mut self.work.raw, reactor, token, pool, &mut taken),
        };
        conn.bytes_out += taken;
        self.sites[usize::from(conn.site)].metrics.add(ListenerWord::BytesOut, taken);
        if taken > 0 {
            conn.last_out = self.turn.now;
        }
        conn.send_later = outcome == Ok(Progress::Share);
        match outcome {
            Ok(Progress::Done) => {
                conn.output = None;
                // While the peer was reading nothing else was due from it. A head that was begun has its one deadline.
                if conn.reading.phase != Phase::Head {
                    conn.reading.since = self.turn.now;
                }
            }
            Ok(Progress::Refused) => self.reactor.await_writable(token),
            Ok(Progress::Share) => {}
            Err(error) => {
                if self.fail(token, error) {
                    self.settle(token);
                }
                return None;
            }
        }
        Some(taken)
    }

    /// False when the connection ended over it.
    pub(super) fn fail(&mut self, token: Token, error: SendError) -> bool {
        match error {
            SendError::Connection(errno) => self.on_unsendable(token, errno),
            SendError::FileShrank => {
                self.close(token, Reason::FILE_SHRANK, None);
                false
            }
            SendError::Layer => {
                self.close_with(token, Reason::TLS_FAILED, End::Reset, None);
                false
            }
        }
    }
}

impl Turn {
    /// Moves what is left of the batch to a queue. False when the pool has no room for it.
    fn queue(&mut self, output: &mut Output, done: Cursor) -> bool {
        let mut at = done.at;
        let Record { out, files, .. } = &mut self.record;
        for (position, part) in files.drain(..).skip(done.files) {
            if output.push_bytes(&mut self.pool, &out[at..position]).is_err() {
                return false;
            }
            at = position;
            output.push_file(part);
        }
        output.push_bytes(&mut self.pool, &out[at..]).is_ok()
    }
}
