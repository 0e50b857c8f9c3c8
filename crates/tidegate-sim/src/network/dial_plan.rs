//! `DialPlan`, `DoorPlan`, `UpstreamPlan`: outgoing connections, as they are planned.
//!
//! A connection to the door is tied to an outgoing one: what its peer says goes to a target, and what the target says comes
//! back. Others ask for outgoing connections too, and some are kept open by the engine itself.
//!
//! Invariant: whatever becomes of an outgoing connection at first follows from its plan, and not from when it is asked for.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tidegate_engine::{Backoff, Connect, Target, UpstreamConfig};
use tidegate_reactor::Errno;

use super::plan::{ConnPlan, Step, What};
use crate::random::Random;

/// An outgoing connection that somebody asks for, once.
#[derive(Clone, Debug)]
pub(crate) struct DialPlan {
    pub(crate) is_unix: bool,
    pub(crate) deadline: Duration,
    pub(crate) answer: Answer,
    /// Bytes that the target says.
    pub(crate) talk: usize,
    /// Bytes that the client's service says first.
    pub(crate) greeting: usize,
    pub(crate) send_buffer: usize,
    /// The client's service wants it not, once it is there.
    pub(crate) refusal: Option<&'static [u8]>,
}

/// What comes of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// After so long.
    Connected(Duration),
    Refused(Duration, Errno),
    /// None at all.
    Silence,
    /// The call itself fails.
    AtOnce(Errno),
    /// The queue of a Unix socket is full for so long.
    Full(Duration),
}

/// What becomes of a connection to the door.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoorPlan {
    /// The outgoing connection that it asks for, and is tied to.
    pub(crate) dial: u32,
    /// It asks when so many messages have been handled.
    pub(crate) after: u32,
    pub(crate) meanwhile: Meanwhile,
    /// Bytes that its own peer is told first.
    pub(crate) greeting: usize,
}

/// What a service does while it waits for the other connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meanwhile {
    Pause,
    Suspend,
    /// Further messages are handled, and do not reach the target.
    GoOn,
}

/// Connections that the engine keeps open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UpstreamPlan {
    pub(crate) connections: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) backoff: Backoff,
    pub(crate) seed: u64,
}

/// How the target of the upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetIs {
    Up,
    /// Every attempt is refused.
    Refusing,
    /// No attempt is answered.
    Silent,
    /// It accepts and hangs up.
    HangingUp,
}

/// Outgoing connections are numbered from here on, in the order of their plans.
pub(crate) const FIRST_DIAL: u32 = 1_000;
/// Those of the upstream, in the order in which they are made.
pub(crate) const FIRST_MEMBER: u32 = 100_000;
/// The target of the upstream; others have the number of their connection.
const UPSTREAM_PORT: u16 = 9;

impl DialPlan {
    fn draw(random: &mut Random) -> Self {
        let is_unix = random.chance(30);
        let soon = Duration::from_micros(random.below(random.clone().one_of(&[50, 3_000, 300_000])));
        let refused = random.one_of(&[Errno::CONNREFUSED, Errno::HOSTUNREACH]);
        let answer = match random.below(20) {
            0 | 1 => Answer::Refused(soon, refused),
            2 => Answer::Silence,
            3 => Answer::AtOnce(random.one_of(&[Errno::NETUNREACH, Errno::ACCESS])),
            4 | 5 if is_unix => Answer::Full(soon),
            _ => Answer::Connected(soon),
        };
        Self {
            is_unix,
            deadline: Duration::from_millis(random.one_of(&[2, 40, 400])),
            answer,
            talk: random.index(random.clone().one_of(&[1, 100, 20_000, 300_000])),
            greeting: random.one_of(&[0, 0, 30]),
            send_buffer: random.one_of(&[100, 2_000, 20_000, 200_000]),
            refusal: random.chance(8).then(|| random.one_of(&[b"".as_slice(), b"no".as_slice()])),
        }
    }

    /// What is asked for.
    pub(crate) fn connect(&self, dial: u32) -> Connect {
        let target = if self.is_unix {
            Target::from(Path::new(&format!("/sim/{dial}")))
        } else {
            // There are fewer than ports.
            Target::from(address(u16::try_from(FIRST_DIAL + dial).unwrap_or(u16::MAX)))
        };
        Connect::to(target).deadline(self.deadline)
    }
}

impl DoorPlan {
    fn draw(random: &mut Random, dial: u32) -> Self {
        Self {
            dial,
            after: random.one_of(&[0, 0, 1, 3]),
            meanwhile: random.one_of(&[Meanwhile::Pause, Meanwhile::Suspend, Meanwhile::GoOn]),
            greeting: random.one_of(&[0, 0, 30]),
        }
    }
}

impl UpstreamPlan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            connections: random.one_of(&[1, 2, 3]),
            connect_timeout: Duration::from_millis(300),
            backoff: Backoff {
                first: Duration::from_millis(random.one_of(&[1, 20])),
                max: Duration::from_millis(random.one_of(&[60, 1_500])),
            },
            seed: random.below(1 << 30),
        }
    }

    pub(crate) fn config(self) -> UpstreamConfig {
        UpstreamConfig {
            connections: self.connections,
            connect_timeout: self.connect_timeout,
            backoff: self.backoff,
            seed: Some(self.seed),
            ..UpstreamConfig::to(address(UPSTREAM_PORT))
        }
    }

    /// All are open again so soon after the target is back, at the latest: one may just have been begun in vain.
    pub(crate) fn patience(self) -> Duration {
        self.connect_timeout + self.backoff.max + Duration::from_millis(20)
    }
}

/// The number of the connection that this is the target of; `None` for the upstream's.
pub(crate) fn dial_of(target: &Target) -> Option<u32> {
    match target {
        Target::Inet(address) => u32::from(address.port()).checked_sub(FIRST_DIAL),
        Target::Unix(path) => path.file_name()?.to_str()?.parse().ok(),
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Makes some of the connections ones that are tied, and plans what else is asked for.
pub(crate) fn plan_dials(
    random: &mut Random,
    conns: &mut [ConnPlan],
    longest_ms: u64,
    steps: &mut Vec<Step>,
) -> Vec<DialPlan> {
    let mut dials = Vec::new();
    for conn in conns.iter_mut() {
        if random.chance(30) {
            continue;
        }
        let dial = u32::try_from(dials.len()).unwrap_or(u32::MAX);
        conn.listener = 2;
        conn.refusal = None;
        conn.door = Some(DoorPlan::draw(random, dial));
        for request in &mut conn.script {
            request.body = random.one_of(&[request.body, request.body, 24_000]);
        }
        dials.push(DialPlan { refusal: None, ..DialPlan::draw(random) });
    }
    let tied = dials.len();
    dials.extend((0..random.below(5)).map(|_| DialPlan::draw(random)));
    for dial in 0..u32::try_from(dials.len()).unwrap_or(u32::MAX) {
        let mut at = Duration::from_micros(random.below(longest_ms * 700));
        if dial as usize >= tied {
            steps.push(Step { at, what: What::Dial(dial) });
        }
        for _ in 0..random.below(8) {
            at += Duration::from_micros(random.below(longest_ms * 300));
            steps.push(Step { at, what: target_does(random, FIRST_DIAL + dial) });
        }
    }
    if random.chance(6) {
        let at = Duration::from_micros(random.below(longest_ms * 1_000));
        steps.push(Step { at, what: What::Stop });
    }
    dials
}

fn target_does(random: &mut Random, conn: u32) -> What {
    match random.below(20) {
        0 => What::Fin(conn),
        1 => random.one_of(&[What::Reset(conn), What::Vanish(conn)]),
        2 => What::CloseByHandle(conn, random.chance(50)),
        3..=9 => What::Read(conn, random.one_of(&[1, 300, 8_000, 100_000])),
        _ => What::Say(conn, random.one_of(&[1, 300, 8_000, 100_000])),
    }
}

/// What happens to the upstream.
pub(crate) fn plan_upstream(random: &mut Random, longest_ms: u64, steps: &mut Vec<Step>) {
    for _ in 0..random.below(8) {
        let at = Duration::from_micros(random.below(longest_ms * 1_000));
        let how = random.one_of(&[TargetIs::Up, TargetIs::Refusing, TargetIs::Silent, TargetIs::HangingUp]);
        let what = match random.below(6) {
            0..=2 => What::Target(how),
            3 => What::BreakMembers(random.chance(50)),
            _ => What::Pick,
        };
        steps.push(Step { at, what });
    }
}
