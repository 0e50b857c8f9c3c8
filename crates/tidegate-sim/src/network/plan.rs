//! `Plan`: everything that the world outside does in one run, drawn from a seed.
//!
//! Invariant: steps name connections by number and mean nothing when theirs is not there, so that any of them may be left
//! out: that is how a failing plan is made small.

use std::time::Duration;

use tidegate_engine::TimerKind;

use super::dial_plan::{self, DialPlan, DoorPlan, TargetIs, UpstreamPlan};
use crate::random::Random;

/// What happens, and to whom.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) knobs: Knobs,
    pub(crate) conns: Vec<ConnPlan>,
    /// Outgoing connections, by their numbers.
    pub(crate) dials: Vec<DialPlan>,
    pub(crate) upstream: Option<UpstreamPlan>,
    /// In the order of their times.
    pub(crate) steps: Vec<Step>,
}

/// What a plan is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A loop that handles messages itself.
    Inline,
    /// A loop with a pool.
    Pool,
    /// Either of them, and it connects to others.
    Outgoing,
}

/// How the kernel and the loop are, for all of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knobs {
    /// Handlers run in a pool, with so many threads and so much room in its queue.
    pub(crate) pool: Option<(usize, usize)>,
    pub(crate) max_connections: usize,
    pub(crate) max_buffer_bytes: usize,
    pub(crate) timers: TimerKind,
    /// Of a hundred receives and sends, how many are cut short.
    pub(crate) short: u64,
    /// Of a hundred things that are ready, how many are reported in a turn.
    pub(crate) prompt: u64,
    /// Of a hundred completions, before how many something happens outside.
    pub(crate) odd: u64,
    /// What the reactor takes is not the kernel's yet.
    pub(crate) owns_output: bool,
    /// The reactor accepts before it is asked to.
    pub(crate) accepts_ahead: bool,
    /// The reactor offers to send from where it has received.
    pub(crate) forwards: bool,
}

/// A connection, as it is planned.
#[derive(Clone, Debug)]
pub(crate) struct ConnPlan {
    /// 0 by TCP, 1 over a Unix socket, 2 the door.
    pub(crate) listener: usize,
    /// It is to be tied to an outgoing one.
    pub(crate) door: Option<DoorPlan>,
    pub(crate) refusal: Option<&'static [u8]>,
    pub(crate) script: Vec<Request>,
    /// What the kernel takes for the peer before it reads.
    pub(crate) send_buffer: usize,
    pub(crate) at_eof: AtEof,
    /// Whether it ends when the loop retires.
    pub(crate) leaves: bool,
    /// Whether a deadline is answered, or aborts.
    pub(crate) answers_deadline: bool,
}

/// What the service does with the end of its peer's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtEof {
    Close,
    SayGoodbye,
    /// Says it by a timer; the other direction stays open so long.
    Later,
}

/// What a peer asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) op: Op,
    /// Bytes of the request's own body.
    pub(crate) body: u16,
}

/// What the service does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Answers as many bytes.
    Echo,
    /// Answers with so many.
    Answer(u16),
    /// Answers from the file.
    File {
        unit: u8,
        len: u16,
    },
    /// So many frames, as the peer takes them.
    Stream(u32),
    /// Waits for a note, which another thread posts after so long.
    Suspend(Duration),
    SetTimer(u32, Duration),
    CancelTimer(u32),
    /// Receives nothing for so long.
    Pause(Duration),
    /// Answers, then closes.
    Close,
    AbortWithFin,
    AbortWithReset,
    Panic,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// After the start.
    pub(crate) at: Duration,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Connect(u32),
    /// The peer says the next bytes of its script.
    Say(u32, usize),
    /// The peer takes bytes.
    Read(u32, usize),
    Fin(u32),
    Reset(u32),
    /// The peer is gone, and what it had not read is thrown away.
    Vanish(u32),
    /// By a handle, from another thread.
    Letter(u32),
    Note(u32),
    CloseByHandle(u32, bool),
    /// For so long there is no descriptor or memory for a new connection.
    Shortage(Lack, Duration),
    /// The next connection is lost while it waits.
    LoseNext(usize),
    ClockStep(i64),
    /// The loop is not scheduled for so long.
    HoldUp(Duration),
    /// The wait ends early, as by a signal.
    Interrupt,
    PauseAccept(Option<usize>),
    ResumeAccept(Option<usize>),
    /// Another thread asks for an outgoing connection.
    Dial(u32),
    /// From now on the target of the upstream is like this.
    Target(TargetIs),
    /// The target ends all connections of the upstream: by a reset, or by FIN.
    BreakMembers(bool),
    /// Another thread picks a connection of the upstream, and posts a note to it.
    Pick,
    Quit(Duration),
    Stop,
}

/// What there is none of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// EMFILE at accept4(2).
    Descriptors,
    /// ENFILE.
    Files,
    /// ENOMEM at accept4(2).
    Memory,
    /// ENOMEM at epoll_ctl(2).
    Watches,
}

/// What a small budget is.
const SMALL_BUDGET_BYTES: usize = 1 << 20;

impl Plan {
    /// The plan of a seed.
    pub(crate) fn new(seed: u64, kind: Kind) -> Self {
        let mut random = Random::new(seed);
        let with_pool = match kind {
            Kind::Inline => false,
            Kind::Pool => true,
            Kind::Outgoing => random.chance(50),
        };
        let mut knobs = Knobs::draw(&mut random, with_pool);
        let longest_ms = random.one_of(&[5, 50, 400, 6_000]);
        let trouble = random.one_of(&[0, 3, 15]);
        let count = 1 + random.index(random.clone().one_of(&[2, 6, 14]));
        let mut conns: Vec<ConnPlan> = (0..count).map(|_| ConnPlan::draw(&mut random, trouble)).collect();
        let (mut dials, mut upstream, mut steps) = (Vec::new(), None, Vec::new());
        if kind == Kind::Outgoing {
            dials = dial_plan::plan_dials(&mut random, &mut conns, longest_ms, &mut steps);
            if random.chance(50) {
                let plan = UpstreamPlan::draw(&mut random);
                // There is room for others beside them.
                knobs.max_connections += plan.connections;
                dial_plan::plan_upstream(&mut random, longest_ms, &mut steps);
                upstream = Some(plan);
            }
        }
        for (conn, plan) in (0..).zip(&conns) {
            plan_peer(&mut random, conn, plan, longest_ms, trouble, &mut steps);
        }
        plan_world(&mut random, conns.len(), longest_ms, trouble, &mut steps);
        steps.sort_by_key(|step| step.at);
        Self { seed, knobs, conns, dials, upstream, steps }
    }
}

impl Knobs {
    /// Whether there may be no memory for what is wanted.
    pub(crate) fn is_scarce(&self) -> bool {
        self.max_buffer_bytes <= SMALL_BUDGET_BYTES
    }

    fn draw(random: &mut Random, with_pool: bool) -> Self {
        let pool = (1 + random.index(3), random.one_of(&[1, 2, 64]));
        Self {
            pool: with_pool.then_some(pool),
            max_connections: random.one_of(&[1, 2, 4, 100]),
            max_buffer_bytes: random.one_of(&[8 << 20, 8 << 20, 96 << 10]),
            timers: random.one_of(&TimerKind::ALL),
            short: random.one_of(&[0, 10, 60]),
            prompt: random.one_of(&[30, 70, 100]),
            odd: random.one_of(&[0, 10, 40]),
            owns_output: random.chance(25),
            accepts_ahead: random.chance(25),
            forwards: random.chance(50),
        }
    }
}

impl ConnPlan {
    fn draw(random: &mut Random, trouble: u64) -> Self {
        let requests = random.one_of(&[0, 1, 3, 12]);
        Self {
            listener: random.index(2),
            door: None,
            refusal: match random.below(30) {
                0 => Some(b"".as_slice()),
                1 => Some(b"no".as_slice()),
                _ => None,
            },
            script: (0..requests).map(|_| Request::draw(random, trouble)).collect(),
            send_buffer: random.one_of(&[100, 2_000, 20_000, 200_000]),
            at_eof: random.one_of(&[AtEof::Close, AtEof::Close, AtEof::SayGoodbye, AtEof::Later]),
            leaves: random.chance(70),
            answers_deadline: random.chance(30),
        }
    }
}

impl Request {
    fn draw(random: &mut Random, trouble: u64) -> Self {
        let body = random.one_of(&[0, 1, 30, 900, 5_000]);
        let ms = |random: &mut Random| {
            Duration::from_micros(random.below(random.clone().one_of(&[800, 9_000, 60_000])))
        };
        let len = |random: &mut Random| u16::try_from(random.below(20_000)).unwrap_or(0);
        let op = match random.below(28) {
            0..=9 => Op::Echo,
            10..=12 => Op::Answer(len(random)),
            13 | 14 => Op::File { unit: u8::try_from(random.below(256)).unwrap_or(0), len: len(random) },
            15..=17 => Op::Stream(u32::try_from(random.below(300)).unwrap_or(0)),
            18..=20 => Op::Suspend(ms(random)),
            21 | 22 => Op::SetTimer(u32::try_from(random.below(3)).unwrap_or(0), ms(random)),
            23 => Op::CancelTimer(u32::try_from(random.below(3)).unwrap_or(0)),
            24 | 25 => Op::Pause(ms(random)),
            _ if !random.chance(trouble * 3) => Op::Echo,
            _ => random.one_of(&[Op::Close, Op::Close, Op::AbortWithFin, Op::AbortWithReset, Op::Panic]),
        };
        Self { op, body }
    }

    /// Bytes of the request with its head.
    pub(crate) fn frame_bytes(self) -> usize {
        super::wire::HEAD_BYTES + usize::from(self.body)
    }
}

/// What one peer does, and what other threads do with its connection.
fn plan_peer(
    random: &mut Random,
    conn: u32,
    plan: &ConnPlan,
    longest_ms: u64,
    trouble: u64,
    steps: &mut Vec<Step>,
) {
    let mut at = Duration::from_micros(random.below(longest_ms * 500));
    let mut add = |at, what| steps.push(Step { at, what });
    add(at, What::Connect(conn));
    let total: usize = plan.script.iter().map(|request| request.frame_bytes()).sum();
    let pieces = 1 + random.below(8);
    let gap_us = longest_ms * 1000 / (pieces * 2);
    let mut said = 0;
    for _ in 0..pieces {
        at += Duration::from_micros(random.below(gap_us));
        match random.below(10) {
            0..=5 if said < total => {
                let most = total - said;
                let bytes = 1 + random.index(random.clone().one_of(&[most, most.min(10), most.min(2_000)]));
                said += bytes;
                add(at, What::Say(conn, bytes));
            }
            6 if random.chance(trouble * 2) => {
                add(at, random.one_of(&[What::Fin(conn), What::Reset(conn), What::Vanish(conn)]));
            }
            7 => add(at, What::Letter(conn)),
            8 => add(at, What::Note(conn)),
            9 if random.chance(trouble) => add(at, What::CloseByHandle(conn, random.chance(50))),
            _ => add(at, What::Read(conn, random.one_of(&[1, 300, 8_000, 100_000]))),
        }
    }
    if random.chance(trouble) {
        // After its end somebody still has its handle.
        at += Duration::from_micros(random.below(longest_ms * 1000));
        add(at, random.one_of(&[What::Letter(conn), What::Note(conn), What::CloseByHandle(conn, true)]));
    }
}

/// What happens to all.
fn plan_world(random: &mut Random, conns: usize, longest_ms: u64, trouble: u64, steps: &mut Vec<Step>) {
    let events = random.below(3 + trouble + conns as u64 / 2);
    for _ in 0..events {
        let at = Duration::from_micros(random.below(longest_ms * 1000));
        let site = random.one_of(&[None, Some(0), Some(1)]);
        let short = Duration::from_micros(random.below(40_000));
        let lack = random.one_of(&[Lack::Descriptors, Lack::Files, Lack::Memory, Lack::Watches]);
        let what = match random.below(12) {
            0 | 1 => What::Shortage(lack, short),
            2 => What::LoseNext(random.index(2)),
            3 => What::ClockStep(random.one_of(&[-31_536_000, -1, 1, 31_536_000])),
            4 | 5 => What::HoldUp(short * random.one_of(&[1, 10])),
            6..=8 => What::Interrupt,
            9 => What::PauseAccept(site),
            10 => What::ResumeAccept(site),
            _ if random.chance(trouble) && random.chance(30) => What::Stop,
            _ if random.chance(trouble * 2) => {
                What::Quit(random.one_of(&[Duration::ZERO, short, Duration::from_secs(9), Duration::MAX]))
            }
            _ => What::Interrupt,
        };
        steps.push(Step { at, what });
    }
}
