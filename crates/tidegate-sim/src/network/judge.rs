//! What must hold: after each turn, of each connection when it has ended, and of what its peer was told.
//!
//! Invariant: whatever is judged here follows from what the engine promises, not from how it does it.

use std::time::Duration;

use tidegate_engine::{Instant, ListenerWord, ProcessWord, Reason};

use super::dial_ledger::Role;
use super::judge_outgoing::{is_right_of_pair, judge_all, judge_outgoing, judge_tied_end};
use super::kernel::Kernel;
use super::ledger::{Ending, Ledger, Life};
use super::plan::{AtEof, What};
use super::reactor::RECEIVED_BYTES;
use super::service::LIMITS;
use super::socket::{Side, Socket};
use super::world::World;

/// A timer is at most so late, and the turn.
pub(super) const RESOLUTION: Duration = Duration::from_millis(1);
/// Listeners, the client and the upstream, whether or not the plan has them.
pub(super) const SITES: usize = 5;
/// How long the service listens to a peer after its own last word.
const LINGER: Duration = Duration::from_secs(2);

impl World {
    pub(super) fn judge_turn(&mut self, pool_was_idle: bool) {
        let mut kernel = self.kernel.borrow_mut();
        let is_idle = kernel.is_pool_idle() && pool_was_idle;
        let mut ledger = self.ledger.lock();
        self.whole_since = match kernel.pool {
            None => Some(Instant::default()),
            Some(_) if is_idle => self.whole_since.or(Some(ledger.now)),
            Some(_) => None,
        };
        if let Some(since) = self.whole_since {
            ledger.check_timers(since, RESOLUTION);
        }
        let held = self.metrics.get(ProcessWord::BufferBytes);
        let most = self.plan.knobs.max_buffer_bytes as u64;
        // Over the limit by what was received before anybody could know.
        let all = self.plan.conns.len() + self.plan.dials.len();
        let most = most + most / 16 + 2 * RECEIVED_BYTES as u64 * all as u64;
        ledger.check(held <= most, || format!("{held} bytes are held, where {most} may be"));
        let open =
            kernel.sockets.values().filter(|socket| matches!(socket.side, Side::Open(_))).count() as u64;
        let most = self.plan.knobs.max_connections as u64;
        let taken = kernel.taken_places() as u64;
        ledger.check(taken <= most, || format!("{taken} connections, where {most} may be"));
        if taken == most {
            ledger.seen.at("full");
        }
        let counted: u64 = (0..SITES).map(|site| self.metrics.listener(site).get(ListenerWord::Open)).sum();
        ledger.check(counted == open, || format!("{counted} connections are counted, and {open} are open"));
        for (conn, socket) in &kernel.sockets {
            judge_socket(&mut ledger, *conn, socket, is_idle);
        }
        judge_fresh_ends(&mut ledger, &kernel);
        judge_outgoing(&mut ledger, &kernel, self.whole_since.is_some());
    }

    /// All connections, when the loop has ended.
    pub(super) fn judge_conns(&self) {
        let mut kernel = self.kernel.borrow_mut();
        let kernel = &mut *kernel;
        let mut ledger = self.ledger.lock();
        judge_fresh_ends(&mut ledger, kernel);
        for (conn, socket) in &kernel.sockets {
            let life = ledger.conns.get(conn).map(|entry| entry.life);
            ledger.check(life != Some(Life::Open), || format!("#{conn} sees no on_close"));
            ledger.check(!socket.is_taken(), || format!("#{conn} is left open"));
        }
        for (conn, socket) in &mut kernel.sockets {
            let Some(peer) = kernel.peers.get_mut(conn) else { continue };
            let rest: Vec<u8> = socket.to_peer.drain(..).collect();
            if let Err(wrong) = peer.hear(&rest) {
                ledger.violated(|| wrong);
            }
            if ledger.role(*conn) != Role::Obedient {
                continue;
            }
            let (answers, letters, amid) = (peer.answers, peer.letters, peer.is_amid_frame());
            let Some(entry) = ledger.conns.get(conn) else { continue };
            let (sent, posted, handled, eof_told) =
                (entry.sent, entry.letters, entry.handled, entry.eof_told);
            let was_delivered = entry.ending.is_some_and(|ending| is_delivered(ending, entry.life, socket));
            let said = peer.requests(ledger.conn_plan(*conn));
            ledger.check(answers <= sent && letters <= posted, || {
                format!("#{conn} is told more than was sent")
            });
            ledger.check(!was_delivered || (answers == sent && !amid), || {
                format!("#{conn} is told {answers} of {sent} answers, and the connection was closed in order")
            });
            ledger.check(!eof_told || handled == said, || {
                format!("#{conn}: {handled} of {said} requests were handled before the end")
            });
        }
        judge_all(&mut ledger, kernel);
    }
}

/// Whether everything must have reached a peer that read to the end.
fn is_delivered(ending: Ending, life: Life, socket: &Socket) -> bool {
    let in_order = ending.flushes && life == Life::Closed(ending.reason);
    in_order && socket.broken.is_none() && !socket.is_cut
}

fn judge_socket(ledger: &mut Ledger, conn: u32, socket: &Socket, pool_is_idle: bool) {
    let now = ledger.now;
    let Some(entry) = ledger.conns.get(&conn) else { return };
    if entry.life != Life::Open {
        return;
    }
    let (bytes_in, handled) = (socket.bytes_in, entry.handled_bytes as u64);
    // What is passed on is looked at elsewhere.
    let is_over = entry.ending.is_some() || entry.asked.is_some() || entry.partner.is_some();
    let quiet = now.saturating_duration_since(entry.moved.max(entry.last_out).max(entry.last_in));
    let waits = ledger.role(conn) != Role::Obedient
        || entry.awaits.is_some()
        || entry.paused
        || !pool_is_idle
        || socket.is_readable();
    ledger.check(!socket.is_closed(), || format!("#{conn} is closed, and its service knows nothing of it"));
    let kept = bytes_in.saturating_sub(handled);
    // Of those that are to be tied some take whatever came as one message, and it may be with a handler.
    let messages = if ledger.role(conn) == Role::Obedient { 1 } else { 2 };
    let most = (messages * (LIMITS.max_input_bytes + RECEIVED_BYTES)) as u64;
    ledger.check(is_over || kept <= most, || format!("#{conn}: {kept} bytes of input are kept"));
    // Whatever the connection was doing, the longest of its deadlines has passed.
    let longest = LIMITS.idle_timeout.unwrap_or_default() + LINGER + RESOLUTION * 10;
    ledger.check(waits || quiet <= longest, || {
        format!("#{conn}: nothing for {quiet:?}, and no deadline passed")
    });
}

/// Those that have ended since the last turn.
fn judge_fresh_ends(ledger: &mut Ledger, kernel: &Kernel) {
    let fresh = ledger.conns.iter().filter(|(_, entry)| !entry.is_judged);
    let fresh = fresh.filter_map(|(conn, entry)| match entry.life {
        Life::Closed(reason) => Some((*conn, reason)),
        Life::Open | Life::Refused => None,
    });
    let fresh: Vec<(u32, Reason)> = fresh.collect();
    for (conn, reason) in fresh {
        if let Some(entry) = ledger.conns.get_mut(&conn) {
            entry.is_judged = true;
        }
        match kernel.sockets.get(&conn) {
            Some(socket) => judge_end(ledger, kernel, conn, reason, socket),
            None => ledger.violated(|| format!("#{conn} was served and never accepted")),
        }
    }
}

fn judge_end(ledger: &mut Ledger, kernel: &Kernel, conn: u32, reason: Reason, socket: &Socket) {
    let Some(entry) = ledger.conns.get(&conn) else { return };
    let counts = (socket.bytes_in, socket.bytes_out);
    let was_told = entry.retire_told > 0;
    let (told, ending, asked) = (entry.counts, entry.ending, entry.asked);
    let is_tied = entry.partner.is_some();
    let (eof_told, streams) = (entry.eof_told, entry.stream > 0);
    ledger.check(socket.is_closed(), || format!("#{conn}: on_close, and its socket is open"));
    ledger.check(told == counts, || format!("#{conn}: {told:?} bytes are told, and {counts:?} were"));
    let is_small = kernel.knobs.is_scarce();
    let to_end = kernel.is_told_to_end;
    let is_retired_member = ledger.role(conn) == Role::Member && was_told;
    let is_right = match reason {
        _ if ending.is_some_and(|ending| ending.reason == reason) || asked == Some(reason) => true,
        Reason::PEER_RESET => socket.broken.is_some(),
        Reason::STOPPED => to_end == Some(What::Stop),
        Reason::SHUTDOWN_TIMEOUT => to_end.is_some_and(|what| matches!(what, What::Quit(_))),
        Reason::MEMORY_PRESSURE | Reason::OUTPUT_OVERFLOW => is_small,
        Reason::WRITE_TIMEOUT if ending.is_some() || asked.is_some() || eof_told => true,
        Reason::SHUTDOWN => is_retired_member,
        _ => is_right_of_pair(ledger, kernel, conn, reason),
    };
    ledger.check(is_right, || format!("#{conn} ended for the reason {reason}, which nobody gave"));
    judge_tied_end(ledger, kernel, conn, reason, socket);
    if matches!(reason, Reason::WRITE_TIMEOUT | Reason::IDLE_TIMEOUT) {
        ledger.timed_out(conn, reason);
    }
    let is_asked = ending.is_some() || asked.is_some() || kernel.pool.is_some() || is_tied;
    ledger.check(reason != Reason::SHUTDOWN_TIMEOUT || was_told || is_asked, || {
        format!("#{conn} is ended with the loop, and was never told that it retires")
    });
    let lingered = match (socket.shut_at, socket.closed_at) {
        (Some(from), Some(to)) => to.saturating_duration_since(from),
        _ => Duration::ZERO,
    };
    // A loop that has to end now does not wait for it.
    let is_hurried = to_end.is_some();
    let had_its_time =
        is_hurried || lingered >= LINGER || !matches!(reason, Reason::DONE | Reason::PEER_CLOSED);
    let is_flushed = ending.is_some_and(|ending| ending.flushes && ending.reason == reason);
    ledger.check(!socket.is_cut || had_its_time || !is_flushed, || {
        format!("#{conn} is cut off {lingered:?} after the last word to it")
    });
    let is_obedient = ledger.role(conn) == Role::Obedient;
    if is_obedient
        && ending.is_none()
        && eof_told
        && !streams
        && ledger.conn_plan(conn).at_eof == AtEof::Close
    {
        ledger.violated(|| format!("#{conn}: on_eof was told and its answer forgotten"));
    }
}
