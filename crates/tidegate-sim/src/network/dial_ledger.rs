//! The ledger's pages on outgoing connections: who has asked for one, what came of it, and what it was tied to.
//!
//! Invariant: of each connection that was asked for one thing comes, and what is told of it is what the kernel has done.

use tidegate_engine::{ConnId, ConnectFailure, Instant, Reason};
use tidegate_reactor::Errno;

use super::dial_plan::{DialPlan, FIRST_DIAL, FIRST_MEMBER};
use super::ledger::{Entry, Ledger, Life};

/// A connection that was asked for.
#[derive(Debug)]
pub(crate) struct Dial {
    /// When the loop first tried.
    pub(crate) begun_at: Option<Instant>,
    /// It waits until the loop tries again.
    pub(crate) is_tried_again: bool,
    /// What the kernel has told of it.
    pub(crate) errno: Option<Errno>,
    pub(crate) came: Came,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    Nothing,
    Open,
    Failure(ConnectFailure),
}

/// What a connection is to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Of one of the listeners whose peers say what is to be done.
    Obedient,
    Door,
    Dial(u32),
    Member,
}

impl Ledger {
    pub(crate) fn role(&self, conn: u32) -> Role {
        match conn {
            FIRST_MEMBER.. => Role::Member,
            FIRST_DIAL.. => Role::Dial(conn - FIRST_DIAL),
            _ if self.conn_plan(conn).door.is_some() => Role::Door,
            _ => Role::Obedient,
        }
    }

    /// What a service answers that does not want a connection.
    pub(crate) fn refusal(&self, conn: u32) -> Option<&'static [u8]> {
        match self.role(conn) {
            Role::Obedient | Role::Door => self.conn_plan(conn).refusal,
            Role::Dial(dial) => self.dial_plan(dial).refusal,
            Role::Member => None,
        }
    }

    fn dial_plan(&self, dial: u32) -> &DialPlan {
        &self.plan.dials[dial as usize]
    }

    /// Somebody asks for a connection.
    pub(crate) fn asks(&mut self, dial: u32) {
        self.say(|| format!("dial {dial} is asked for, as #{}", FIRST_DIAL + dial));
        let fresh = Dial { begun_at: None, is_tried_again: false, errno: None, came: Came::Nothing };
        let before = self.dials.insert(dial, fresh);
        self.check(before.is_none(), || format!("the plan asks for dial {dial} twice"));
    }

    /// A connection that was asked for is there.
    pub(crate) fn dial_opened(&mut self, dial: u32) {
        self.seen.at("connected");
        let before = self.dials.get_mut(&dial).map(|dial| std::mem::replace(&mut dial.came, Came::Open));
        self.check(before == Some(Came::Nothing), || format!("dial {dial} is opened, and was {before:?}"));
    }

    /// The note that came with the wish follows its connection. Answers how much the service is to say first.
    pub(crate) fn wish_came(&mut self, conn: u32, id: ConnId, wanted: u32) -> usize {
        let Role::Dial(dial) = self.role(conn) else { return 0 };
        let greeting = self.dial_plan(dial).greeting;
        if let Some(entry) = self.called(conn, id, "on_note, with its wish") {
            let is_first = !std::mem::replace(&mut entry.wish_came, true);
            entry.greeted = greeting;
            self.check(is_first && dial == wanted, || {
                format!("#{conn}: the note of dial {wanted}, first: {is_first}")
            });
        }
        greeting
    }

    /// A connection that was asked for is not to be had.
    pub(crate) fn connect_failed(&mut self, dial: u32, failure: &ConnectFailure) {
        self.say(|| format!("dial {dial} on_connect_failed: {failure}"));
        let (now, is_full, is_ending) = (self.now, self.is_full(), self.is_told_to_end);
        let (deadline, scarce) = (self.dial_plan(dial).deadline, self.plan.knobs.is_scarce());
        let Some(entry) = self.dials.get_mut(&dial) else {
            return self.violated(|| format!("dial {dial} fails, and nobody has asked for it"));
        };
        let before = std::mem::replace(&mut entry.came, Came::Failure(failure.clone()));
        let (begun_at, errno) = (entry.begun_at, entry.errno);
        self.check(before == Came::Nothing, || format!("dial {dial} fails, and was {before:?}"));
        let (place, is_right) = match failure {
            ConnectFailure::Refused(told) => ("refused by the target", errno == Some(*told)),
            ConnectFailure::Deadline(told) => {
                let passed = begun_at.is_some_and(|begun| begun + deadline <= now);
                ("connected too late", *told == deadline && passed)
            }
            ConnectFailure::NoRoom => ("no room to connect", begun_at.is_none() && (is_full || scarce)),
            ConnectFailure::Stopped => ("stopped while connecting", is_ending),
            // No client of a plan has a layer.
            ConnectFailure::Handshake(_) => ("not agreed", false),
            // No plan has anybody close what is not connected yet.
            ConnectFailure::Closed(_) => ("closed while connecting", false),
        };
        self.seen.at(place);
        self.check(is_right, || format!("dial {dial} fails: {failure}; begun {begun_at:?}, told {errno:?}"));
    }

    /// Whether the loop has no place for another connection.
    fn is_full(&self) -> bool {
        let waiting = self.dials.values().filter(|dial| dial.is_tried_again && dial.came == Came::Nothing);
        self.taken_places + waiting.count() >= self.plan.knobs.max_connections
    }

    /// Two connections are to be tied.
    pub(crate) fn ties(&mut self, conn: u32, door: u32) {
        self.say(|| format!("#{conn} is tied to #{door}"));
        self.seen.at("tied");
        for (one, other) in [(conn, door), (door, conn)] {
            if let Some(entry) = self.conns.get_mut(&one) {
                let before = entry.partner.replace(other);
                self.check(before.is_none(), || format!("#{one} is tied twice"));
            }
        }
        if self.conns.get(&door).is_some_and(|entry| entry.life != Life::Open) {
            self.seen.at("tied to who is gone");
        }
    }

    /// What is to go to one of a pair: what its service has said, and all that has come to the other but for what that
    /// one's service has handled; and what has gone. Both are the same when everything has been passed on.
    pub(crate) fn passed(&self, from: u32, to: u32, came: u64, went: u64) -> Option<(u64, u64)> {
        let (from, to) = (self.conns.get(&from)?, self.conns.get(&to)?);
        // Of what the service has said itself some may still be on its way.
        let came = came.saturating_sub(from.handled_bytes as u64) + to.greeted as u64;
        Some((came, went))
    }

    /// The connections of the upstream that are open.
    pub(crate) fn open_members(&self) -> Vec<u32> {
        let open = |entry: &Entry| entry.life == Life::Open;
        self.conns.range(FIRST_MEMBER..).filter(|(_, entry)| open(entry)).map(|(conn, _)| *conn).collect()
    }

    /// A connection was closed for this reason by a tie or together with its other side.
    pub(crate) fn note_tie_end(&mut self, conn: u32, reason: Reason) {
        if self.conns.get(&conn).is_some_and(|entry| entry.is_bound) {
            match reason {
                Reason::PEER_CLOSED => self.seen.at("both directions ended"),
                Reason::OTHER_SIDE => self.seen.at("ended with its other side"),
                Reason::IDLE_TIMEOUT => self.seen.at("idle pair"),
                _ => {}
            }
        }
    }
}
