//! What must hold of outgoing connections: of attempts, of ties, and of the upstream.
//!
//! Invariant: a pair is judged as bound only when the engine has had a whole turn for it, and from then on as one.

use std::time::Duration;

use tidegate_engine::{End, Reason};
use tidegate_reactor::Errno;

use super::dial_ledger::{Came, Role};
use super::dial_plan::TargetIs;
use super::judge::RESOLUTION;
use super::kernel::Kernel;
use super::ledger::{Ledger, Life};
use super::reactor::RECEIVED_BYTES;
use super::service::LIMITS;
use super::socket::{Side, Socket};

/// After each turn.
pub(super) fn judge_outgoing(ledger: &mut Ledger, kernel: &Kernel, pool_is_idle: bool) {
    judge_attempts(ledger);
    judge_members(ledger, kernel);
    let doors = ledger.conns.iter().filter_map(|(conn, entry)| match entry.partner {
        Some(partner) if partner > *conn => Some((*conn, partner)),
        _ => None,
    });
    let doors: Vec<(u32, u32)> = doors.collect();
    for (door, other) in doors {
        for (from, to) in [(door, other), (other, door)] {
            judge_direction(ledger, kernel, from, to);
        }
        let is_whole = [door, other].iter().all(|conn| {
            let entry = &ledger.conns[conn];
            entry.life == Life::Open && entry.ending.is_none() && entry.asked.is_none()
        });
        if pool_is_idle && is_whole {
            for conn in [door, other] {
                if let Some(entry) = ledger.conns.get_mut(&conn) {
                    entry.is_bound = true;
                }
            }
        }
    }
}

/// No attempt is forgotten.
fn judge_attempts(ledger: &mut Ledger) {
    let now = ledger.now;
    let late = ledger.dials.iter().find(|(number, dial)| {
        let deadline = ledger.plan.dials[**number as usize].deadline;
        dial.came == Came::Nothing && dial.begun_at.is_some_and(|begun| begun + deadline + RESOLUTION < now)
    });
    if let Some(number) = late.map(|(number, _)| *number) {
        ledger
            .violated(|| format!("dial {number} is neither open nor given up, and its deadline has passed"));
    }
    let silent = ledger.conns.iter().find(|(conn, entry)| {
        matches!(ledger.role(**conn), Role::Dial(_)) && entry.life == Life::Open && !entry.wish_came
    });
    if let Some(conn) = silent.map(|(conn, _)| *conn) {
        ledger.violated(|| format!("#{conn} is open, and the note of its wish has not come"));
    }
}

fn judge_members(ledger: &mut Ledger, kernel: &Kernel) {
    let Some(plan) = kernel.plan.upstream else { return };
    let (open, connecting) = kernel.members();
    ledger.check(open + connecting <= plan.connections, || {
        format!("the upstream has {open} connections and {connecting} to be, of {}", plan.connections)
    });
}

/// What is on its way from one to the other.
fn judge_direction(ledger: &mut Ledger, kernel: &Kernel, from: u32, to: u32) {
    let (Some(source), Some(sink)) = (kernel.sockets.get(&from), kernel.sockets.get(&to)) else { return };
    let Some((came, went)) = ledger.passed(from, to, source.bytes_in, sink.bytes_out) else { return };
    let is_calm = [from, to].iter().all(|conn| {
        let entry = &ledger.conns[conn];
        entry.life == Life::Open && entry.asked.is_none()
    });
    let is_bound = is_calm && [from, to].iter().all(|conn| ledger.conns[conn].is_bound);
    let held = came.saturating_sub(went);
    let most = (LIMITS.max_input_bytes + LIMITS.high_water_bytes + 2 * RECEIVED_BYTES) as u64;
    ledger
        .check(!is_calm || held <= most, || format!("{held} bytes wait on their way from #{from} to #{to}"));
    if !is_bound || source.broken.is_some() || sink.broken.is_some() {
        return;
    }
    let has_ended = source.told_end && came == went;
    ledger.check(!has_ended || sink.shut_at.is_some(), || {
        format!("the end of #{from} was told, and is not passed on to #{to}")
    });
    ledger.check(sink.shut_at.is_none() || has_ended, || {
        format!("#{to} is told an end, and of #{from} {came} bytes came and {went} went")
    });
    if has_ended {
        ledger.seen.at("half-close passed on");
    }
    if source.paused {
        ledger.seen.at("back-pressure");
    }
}

/// A connection that was tied has ended.
pub(super) fn judge_tied_end(
    ledger: &mut Ledger,
    kernel: &Kernel,
    conn: u32,
    reason: Reason,
    socket: &Socket,
) {
    ledger.note_tie_end(conn, reason);
    let Some(entry) = ledger.conns.get(&conn).filter(|entry| entry.is_bound) else { return };
    let Some(partner) = entry.partner else { return };
    let (asked, passed_at) = (entry.asked, entry.passed);
    let Some((other, sink)) = ledger.conns.get(&partner).zip(kernel.sockets.get(&partner)) else { return };
    if asked.is_some() || other.asked.is_some() {
        return;
    }
    let (other_end, other_passed_at, other_life) = (sink.side, other.passed, other.life);
    // A peer that breaks off has said something before: the other side is sent that first, then FIN or a reset.
    let outlives = reason == Reason::PEER_RESET && other_life == Life::Open;
    ledger.check(other_life != Life::Open || outlives, || {
        format!("#{conn} has ended, and #{partner} is left alone")
    });
    if outlives {
        ledger.seen.at("last words of who broke off");
    } else if reason == Reason::PEER_RESET && other_life == Life::Closed(Reason::OTHER_SIDE) {
        // With an end before the break nothing of what it said is missing.
        let had_ended = socket.broken == Some(Errno::PIPE);
        let is_right = match other_end {
            Side::Closed(End::Reset) => !had_ended,
            Side::Closed(End::Fin) => had_ended || socket.told_end,
            _ => false,
        };
        ledger.check(is_right, || format!("#{conn} was reset, and #{partner} is {other_end:?}"));
        ledger.seen.at("reset passed on");
    }
    if reason == Reason::IDLE_TIMEOUT {
        let quiet = ledger.now.saturating_duration_since(passed_at.max(other_passed_at));
        let limit = LIMITS.idle_timeout.unwrap_or(Duration::MAX);
        ledger.check(quiet >= limit, || format!("#{conn} ends as idle after {quiet:?}"));
    }
    if reason == Reason::PEER_CLOSED {
        let passed = ledger.passed(conn, partner, socket.bytes_in, sink.bytes_out);
        let is_whole = passed.is_some_and(|(came, went)| came == went) && socket.told_end;
        ledger.check(is_whole && sink.shut_at.is_some(), || {
            format!("#{conn} ends in order, and of its bytes {passed:?} came and went")
        });
    }
}

/// Why a connection may end that is tied to another.
pub(super) fn is_right_of_pair(ledger: &Ledger, kernel: &Kernel, conn: u32, reason: Reason) -> bool {
    let Some(number) = ledger.conns.get(&conn).and_then(|entry| entry.partner) else { return false };
    let Some(partner) = ledger.conns.get(&number) else { return false };
    let is_broken = kernel.sockets.get(&number).is_some_and(|socket| socket.broken.is_some());
    match reason {
        // It may be heard to the end of what it had said, and is nobody's other side any more.
        Reason::OTHER_SIDE if is_broken => true,
        Reason::OTHER_SIDE => {
            partner.life != Life::Open || partner.ending.is_some() || partner.asked.is_some()
        }
        // How, is looked at elsewhere.
        Reason::PEER_CLOSED | Reason::IDLE_TIMEOUT | Reason::WRITE_TIMEOUT => true,
        reason => partner.asked == Some(reason) || partner.ending.is_some_and(|it| it.reason == reason),
    }
}

/// When the loop has ended.
pub(super) fn judge_all(ledger: &mut Ledger, kernel: &mut Kernel) {
    let unheard = ledger.dials.iter().find(|(_, dial)| dial.came == Came::Nothing).map(|(dial, _)| *dial);
    if let Some(dial) = unheard {
        ledger.violated(|| format!("nobody was told what became of dial {dial}"));
    }
    for (conn, socket) in &kernel.sockets {
        let Some(peer) = kernel.peers.get(conn).filter(|peer| peer.is_tied) else { continue };
        let Some(entry) = ledger.conns.get(conn).filter(|entry| entry.is_bound) else { continue };
        let is_whole = entry.life == Life::Closed(Reason::PEER_CLOSED) && socket.broken.is_none();
        let (heard, sent) = (peer.received as u64, socket.bytes_out);
        ledger.check(!is_whole || heard == sent, || format!("#{conn} is told {heard} of {sent} bytes"));
        if is_whole && peer.received > 0 {
            ledger.seen.at("whole through a tie");
        }
    }
}

/// Whether all connections of the upstream are open; if not, it is judged whether they should be.
pub(super) fn upstream_is_whole(
    ledger: &mut Ledger,
    kernel: &Kernel,
    alone_since: tidegate_engine::Instant,
) -> bool {
    let (Some(plan), Some(upstream)) = (kernel.plan.upstream, &kernel.upstream) else { return true };
    let (open, _) = kernel.members();
    let since = alone_since.max(upstream.since);
    let waited = kernel.now.saturating_duration_since(since);
    if upstream.is == TargetIs::Up && open < plan.connections {
        ledger.check(waited <= plan.patience(), || {
            format!("{open} of {} connections to the upstream, {waited:?} after it is back", plan.connections)
        });
    }
    if open == plan.connections && upstream.since > tidegate_engine::Instant::default() {
        ledger.seen.at("upstream open again");
    }
    open == plan.connections
}
