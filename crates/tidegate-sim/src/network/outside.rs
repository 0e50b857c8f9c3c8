//! What happens outside of the loop: peers, other threads, operators, and the lack of things.
//!
//! Invariant: nothing here waits for the loop; whatever it does may happen between any two of its completions.

use std::time::Duration;

use tidegate_engine::Reason;
use tidegate_reactor::Errno;

use super::dial_ledger::Role;
use super::dial_plan::{FIRST_MEMBER, TargetIs};
use super::kernel::{Coming, Kernel};
use super::ledger::{Life, Note};
use super::peer::Peer;
use super::plan::What;
use super::proxy::greeting;
use super::socket::Socket;
use super::wire::{Head, Kind};

impl Kernel {
    pub(super) fn happen(&mut self, what: Coming) {
        match what {
            Coming::Step(what) => self.step(what),
            Coming::Note(conn, number) => self.post(conn, Some(number)),
            Coming::Handle(number) => self.run_handler(number),
            Coming::Settle => self.settle(),
            Coming::Turn(conn) => self.do_part(conn),
            Coming::Answer(conn, answer) => self.answered(conn, answer),
        }
    }

    fn step(&mut self, what: What) {
        self.say(|| format!("world: {what:?}"));
        match what {
            What::Connect(conn) => self.connect(conn),
            What::Say(conn, bytes) => self.peer_says(conn, bytes),
            What::Read(conn, bytes) => self.peer_reads(conn, bytes),
            What::Fin(conn) => self.peer_ends(conn),
            What::Reset(conn) => self.peer_breaks(conn, true),
            What::Vanish(conn) => self.peer_breaks(conn, false),
            What::Letter(conn) => self.send_letter(conn),
            What::Note(conn) => self.post(conn, None),
            What::CloseByHandle(conn, in_order) => self.close_by_handle(conn, in_order),
            What::Shortage(lack, time) => self.lack = Some((lack, self.now + time)),
            What::LoseNext(port) => {
                if let Some(port) = self.ports.get_mut(port) {
                    port.loses_next = true;
                }
            }
            What::ClockStep(by) => self.unix_time = self.unix_time.saturating_add_signed(by),
            What::HoldUp(time) => {
                self.now += time;
                self.ledger.lock().now = self.now;
            }
            What::Interrupt => self.interrupt(),
            What::PauseAccept(site) => {
                self.is_paused = true;
                self.with_handle(|handle| handle.pause(site));
            }
            What::ResumeAccept(site) => self.with_handle(|handle| handle.resume(site)),
            What::Dial(dial) => self.ask_to_dial(dial),
            What::Target(is) => self.turn_target(is),
            What::BreakMembers(by_reset) => self.break_members(by_reset),
            What::Pick => self.pick(),
            What::Quit(grace) => {
                self.ledger.lock().is_told_to_end = true;
                self.is_told_to_end.get_or_insert(what);
                self.ledger.lock().seen.at("quit amid work");
                self.with_handle(|handle| handle.quit(grace));
            }
            What::Stop => {
                self.ledger.lock().is_told_to_end = true;
                self.is_told_to_end = Some(what);
                self.ledger.lock().seen.at("stop amid work");
                self.with_handle(tidegate_engine::LoopHandle::stop);
            }
        }
    }

    fn with_handle(&self, order: impl FnOnce(&tidegate_engine::LoopHandle)) {
        if let Some(handle) = &self.handle {
            order(handle);
        }
    }

    fn connect(&mut self, conn: u32) {
        let plan = std::sync::Arc::clone(&self.plan);
        let plan = &plan.conns[conn as usize];
        let Some(port) = self.ports.get_mut(plan.listener).filter(|port| port.socket.is_some()) else {
            return;
        };
        port.queue.push_back(conn);
        self.sockets.insert(conn, Socket::new(plan.listener == 1, plan.send_buffer));
        self.peers.insert(conn, Peer::new(conn, plan));
        if self.ledger.lock().settling_since.is_some() {
            self.in_us(300, Coming::Turn(conn));
        }
    }

    fn peer_says(&mut self, conn: u32, bytes: usize) {
        let (Some(peer), Some(socket)) = (self.peers.get_mut(&conn), self.sockets.get_mut(&conn)) else {
            return;
        };
        let said = peer.say(bytes);
        if !socket.is_closed() && socket.broken.is_none() {
            socket.to_server.extend(said);
        }
    }

    fn peer_reads(&mut self, conn: u32, bytes: usize) {
        let (Some(peer), Some(socket)) = (self.peers.get_mut(&conn), self.sockets.get_mut(&conn)) else {
            return;
        };
        let bytes: Vec<u8> = socket.to_peer.drain(..bytes.min(socket.to_peer.len())).collect();
        let from = peer.received;
        let heard = peer.hear(&bytes);
        let is_reset = socket.is_over_for_peer();
        peer.heard_end |= is_reset;
        let is_tied = peer.is_tied;
        if let Err(wrong) = heard {
            self.ledger.lock().violated(|| wrong);
        }
        if is_tied {
            self.check_passed(conn, from, &bytes);
        }
    }

    /// What a peer is told that is tied: what the service said before, and then what the other peer has said.
    pub(super) fn check_passed(&self, conn: u32, from: usize, bytes: &[u8]) {
        let mut ledger = self.ledger.lock();
        let (Some(entry), false) = (ledger.conns.get(&conn), bytes.is_empty()) else { return };
        if entry.life == Life::Refused {
            return;
        }
        let mut expected = greeting(conn, entry.greeted);
        if let Some(partner) = entry.partner
            && let (Some(other), Some(peer)) = (ledger.conns.get(&partner), self.peers.get(&partner))
        {
            expected.extend_from_slice(&peer.script()[other.handled_bytes..peer.said()]);
        }
        let is_right = expected.get(from..from + bytes.len()) == Some(bytes);
        let expected = expected.len();
        ledger.check(is_right, || {
            let to = from + bytes.len();
            format!(
                "#{conn} is told bytes {from}..{to}, and they are not those that were said, of {expected}"
            )
        });
    }

    pub(super) fn peer_ends(&mut self, conn: u32) {
        let (Some(peer), Some(socket)) = (self.peers.get_mut(&conn), self.sockets.get_mut(&conn)) else {
            return;
        };
        if !peer.is_gone {
            peer.has_ended = true;
            socket.peer_ended = true;
        }
    }

    pub(super) fn peer_breaks(&mut self, conn: u32, keeps_input: bool) {
        let (Some(peer), Some(socket)) = (self.peers.get_mut(&conn), self.sockets.get_mut(&conn)) else {
            return;
        };
        if !peer.is_over() {
            peer.is_gone = true;
            // A peer on a Unix socket that closes is told of by EPIPE when it is written to, RFC 9293 knows only resets.
            let errno = if socket.is_unix && keeps_input { Errno::PIPE } else { Errno::CONNRESET };
            socket.break_off(errno, keeps_input);
        }
    }

    fn send_letter(&mut self, conn: u32) {
        let mut ledger = self.ledger.lock();
        if !ledger.conns.contains_key(&conn) || ledger.role(conn) != Role::Obedient {
            return;
        }
        let Some(entry) = ledger.conns.get_mut(&conn) else { return };
        let (Some(handle), life) = (&entry.handle, entry.life) else { return };
        let head = Head { kind: Kind::Letter, arg: 0, len: 40, number: entry.letters };
        let taken = handle.send(head.frame(conn)).is_ok();
        entry.letters += u32::from(taken);
        ledger.seen.at(if taken { "letter" } else { "stale handle" });
        ledger.check(life == Life::Refused || taken == (life == Life::Open), || {
            format!("#{conn}: a letter was taken: {taken}, while it is {life:?}")
        });
    }

    /// Another thread posts a note.
    pub(super) fn post(&mut self, conn: u32, awaited: Option<u32>) {
        let mut ledger = self.ledger.lock();
        ledger.say(|| format!("thread: posts note {awaited:?} to #{conn}"));
        let Some(entry) = ledger.conns.get_mut(&conn) else { return };
        let (Some(handle), life) = (&entry.handle, entry.life) else { return };
        let taken = handle.post(Note { conn, awaited }).is_ok();
        ledger.check(life == Life::Refused || taken == (life == Life::Open), || {
            format!("#{conn}: a note was taken: {taken}, while it is {life:?}")
        });
    }

    fn close_by_handle(&mut self, conn: u32, in_order: bool) {
        let mut ledger = self.ledger.lock();
        let Some(entry) = ledger.conns.get_mut(&conn) else { return };
        let reason = if in_order { Reason::OPERATOR } else { Reason::FLOOD };
        if let Some(handle) = &self.handle
            && handle.close(entry.id, reason).is_ok()
        {
            entry.asked.get_or_insert(reason);
        }
    }

    /// From now on every peer does its part, and there is enough of everything.
    fn settle(&mut self) {
        self.say(|| "world: from now on every peer does its part".to_owned());
        self.ledger.lock().settling_since = Some(self.now);
        self.lack = None;
        self.turn_target(TargetIs::Up);
        if self.is_paused {
            self.with_handle(|handle| handle.resume(None));
        }
        let conns: Vec<u32> = self.peers.keys().copied().collect();
        for conn in conns {
            self.in_us(300, Coming::Turn(conn));
        }
    }

    /// Reads all there is, says some more, and ends when all is said.
    fn do_part(&mut self, conn: u32) {
        if !self.sockets.contains_key(&conn) {
            return;
        }
        self.peer_reads(conn, usize::MAX);
        let piece = self.random.one_of(&[7, 900, 100_000]);
        let Some(peer) = self.peers.get(&conn) else { return };
        if peer.has_more_to_say() && !peer.heard_end {
            self.peer_says(conn, piece);
        } else if !peer.has_ended && conn < FIRST_MEMBER {
            self.peer_ends(conn);
        }
        if conn >= FIRST_MEMBER {
            // It stays, and has nothing to say.
            return;
        }
        if self.peers.get(&conn).is_some_and(|peer| !peer.is_over()) {
            let after = Duration::from_micros(200 + self.random.below(2_000));
            self.at(self.now + after, Coming::Turn(conn));
        }
    }
}
