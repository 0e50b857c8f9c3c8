//! Sealing: the output of connections that have a layer between them and their service.
//!
//! It is kept as the service wrote it until the kernel may take it: what a layer has made cannot be put in another order any
//! more.
//!
//! Invariant: between events nothing stands in `Loop::work`; what a layer has made is with the kernel, or in the connection's
//! output in the order in which it was made.

use tidegate_reactor::{More, Reactor, Token};

use super::Loop;
use crate::conn::{Sending, State};
use crate::layered::PIECE_BYTES;
use crate::metrics::ListenerWord;
use crate::output::{Cursor, Output, Progress, SendError};

impl<R: Reactor> Loop<R> {
    /// Sends what the layer has made, behind what it has made before. False when the connection ended over it.
    pub(super) fn send_sealed(&mut self, token: Token) -> bool {
        if self.work.sealed.is_empty() {
            return true;
        }
        let Some(conn) = self.conns.get_mut(token) else { return false };
        let mut taken = 0;
        if matches!(conn.state, State::Lingering(_)) || conn.unheard.is_some() {
            taken = self.work.sealed.len();
        } else if conn.output.is_none() {
            match self.reactor.send(token, &self.work.sealed, More::No) {
                Ok(n) => taken = n,
                Err(errno) => {
                    self.work.clear();
                    return self.on_unsendable(token, errno);
                }
            }
            conn.bytes_out += taken as u64;
            self.sites[usize::from(conn.site)].metrics.add(ListenerWord::BytesOut, taken as u64);
        }
        let mut work = std::mem::take(&mut self.work);
        self.keep_sealed(token, &work.sealed[taken..]);
        work.clear();
        self.work = work;
        true
    }

    /// Keeps what the layer has made and the kernel has not taken.
    pub(super) fn keep_sealed(&mut self, token: Token, rest: &[u8]) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if rest.is_empty() || conn.unheard.is_some() {
            return;
        }
        let fresh = conn.output.is_none();
        conn.output.get_or_insert_with(Box::<Output>::default).push_sealed(rest);
        if fresh {
            conn.last_out = self.turn.now;
            self.reactor.await_writable(token);
        }
    }

    /// Sends the batch's output of a connection with a layer. False when the connection ended over it.
    pub(super) fn flush_layered(&mut self, token: Token) -> bool {
        let Some(conn) = self.conns.get_mut(token) else { return false };
        if conn.output.is_some() {
            return self.queue_batch(token, Cursor::default(), Progress::Refused);
        }
        if !self.turn.record.files.is_empty() {
            // They are read as the peer takes them; what precedes them goes with them.
            return self.queue_batch(token, Cursor::default(), Progress::Share)
                && self.drain(token).is_some();
        }
        let mut work = std::mem::take(&mut self.work);
        let outcome = self.seal_batch(token, &mut work.sealed);
        let kept = match outcome {
            Ok((done, Progress::Done)) if done.at == self.turn.record.out.len() => {
                self.turn.record.clear_output();
                true
            }
            Ok((done, progress)) => {
                let rest = work.sealed.split_off(usize::try_from(done.sent).unwrap_or(usize::MAX));
                let kept = self.queue_batch(token, Cursor { sent: 0, ..done }, progress);
                if kept && let Some(output) = self.conns.get_mut(token).and_then(|conn| conn.output.as_mut())
                {
                    output.push_sealed(&rest);
                }
                kept
            }
            Err(error) => self.fail(token, error),
        };
        work.clear();
        self.work = work;
        kept
    }

    /// Seals and sends the batch piece by piece, as long as the kernel takes all of each. Answers how much of the batch is
    /// sealed, and how much of the last piece was taken, which still stands in `sealed`.
    fn seal_batch(&mut self, token: Token, sealed: &mut Vec<u8>) -> Result<(Cursor, Progress), SendError> {
        let mut done = Cursor::default();
        let Some(conn) = self.conns.get_mut(token) else { return Ok((done, Progress::Done)) };
        let metrics = &self.sites[usize::from(conn.site)].metrics;
        let Some(layer) = conn.aside.as_deref_mut().and_then(|aside| aside.layer.as_mut()) else {
            return Err(SendError::Layer);
        };
        let out = &self.turn.record.out;
        while done.at < out.len() {
            let piece = &out[done.at..out.len().min(done.at + PIECE_BYTES)];
            sealed.clear();
            layer.seal(piece, sealed).map_err(SendError::from)?;
            done.at += piece.len();
            let more = if done.at < out.len() { More::Follows } else { More::No };
            let sent = self.reactor.send(token, sealed, more);
            if sent.is_err() {
                layer.forget_sealed(piece.len());
            }
            let taken = sent?;
            conn.bytes_out += taken as u64;
            metrics.add(ListenerWord::BytesOut, taken as u64);
            done.sent = taken as u64;
            if taken < sealed.len() {
                return Ok((done, Progress::Refused));
            }
        }
        Ok((done, Progress::Done))
    }

    /// Tells the peer in the layer's words that nothing more follows. False while that waits for the peer, or when the
    /// connection ended over it.
    pub(super) fn close_layer(&mut self, token: Token) -> bool {
        let Some(conn) = self.conns.get_mut(token) else { return false };
        if conn.layer().is_none() || conn.sending == Sending::Breaking || conn.unheard.is_some() {
            return true;
        }
        if let Some(layer) = conn.aside.as_deref_mut().and_then(|aside| aside.layer.as_mut()) {
            layer.close(&mut self.work.sealed);
        }
        if !self.send_sealed(token) || self.conns.get_mut(token).is_none_or(|conn| conn.output.is_some()) {
            return false;
        }
        let left = self.reactor.unsent(token);
        if left {
            self.reactor.await_writable(token);
        }
        !left
    }

    /// As [`close_layer`](Self::close_layer), for a connection that ends at once: what the kernel does not take is lost.
    pub(super) fn say_goodbye(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let silent = matches!(conn.state, State::Handshaking | State::Lingering(_));
        if silent || conn.output.is_some() || conn.unheard.is_some() {
            return;
        }
        let Some(layer) = conn.layer_mut() else { return };
        layer.close(&mut self.work.sealed);
        if !self.work.sealed.is_empty() {
            // The connection ends whatever comes of it.
            let _ = self.reactor.send(token, &self.work.sealed, More::No);
            self.work.clear();
        }
    }
}
