//! `World`: drives the loop turn by turn through one plan, to the end of the loop.
//!
//! ```text
//!  the plan's steps ─▶ settle: every peer does its part ─▶ all connections have ended ─▶ stop or quit ─▶ nothing is left
//! ```
//!
//! Invariant: the number of turns is bounded, so a loop that spins fails instead of hanging.

use std::cell::RefCell;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType};
use rustix::pipe::PipeFlags;
use tidegate_engine::{
    Budget, Dispatch, EngineConfig, HandlerPool, Instant, LoopBuilder, Metrics, PoolConfig, ProcessMetrics,
    Step, SteppedLoop,
};
use tidegate_reactor::Errno;

use super::dial_plan::FIRST_MEMBER;
use super::judge::SITES;
use super::judge_outgoing::upstream_is_whole;
use super::kernel::{Kernel, MOST_SETTLING, Pool};
use super::ledger::SharedLedger;
use super::plan::{Plan, What};
use super::proxy::{Client, Door, Member};
use super::reactor::Simulated;
use super::service::Obedient;
use super::wire::{FILE_BYTES, file_byte};

pub(super) struct World {
    pub(super) plan: Arc<Plan>,
    pub(super) ledger: SharedLedger,
    pub(super) kernel: Rc<RefCell<Kernel>>,
    pub(super) metrics: ProcessMetrics,
    budget: Budget,
    /// The other end of what every descriptor is a copy of.
    leash: OwnedFd,
    pool: Option<HandlerPool>,
    turns: u64,
    /// Since when the loop has had all its sessions.
    pub(super) whole_since: Option<Instant>,
    /// Since when there has been nobody but the upstream.
    alone_since: Option<Instant>,
}

/// More than any plan needs.
const MAX_TURNS: u64 = 100_000;
/// Turns in a row that do nothing; a wheel of timers may take some to get where it is going.
const MOST_EMPTY_TURNS: u32 = 200;
/// The same, where an upstream is called again and again that is away.
const MOST_REDIALS: u32 = 5_000;

/// Runs a plan to its end, or to the first violation, which stands in the ledger.
pub(super) fn run(plan: &Arc<Plan>, ledger: &SharedLedger) -> anyhow::Result<()> {
    let (mut world, event_loop) = World::new(plan, ledger)?;
    world.drive(event_loop);
    world.judge_end()
}

impl World {
    fn new(plan: &Arc<Plan>, ledger: &SharedLedger) -> anyhow::Result<(Self, SteppedLoop<Simulated>)> {
        let (leash, held) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let kernel = Kernel::new(plan, ledger.clone(), held);
        let knobs = plan.knobs;
        let metrics = Metrics::on_heap(SITES).process(0);
        let budget = Budget::new(knobs.max_buffer_bytes);
        let kernel = Rc::new(RefCell::new(kernel));
        let config = EngineConfig {
            max_connections: knobs.max_connections,
            max_buffer_bytes: knobs.max_buffer_bytes,
            timers: knobs.timers,
            dispatch: if knobs.pool.is_some() { Dispatch::Pool } else { Dispatch::Inline },
            ..EngineConfig::default()
        };
        let mut builder = LoopBuilder::new(config).metrics(metrics.clone()).budget(&budget);
        let file = file()?;
        // No kernel listens on it; it has to be a socket to be fit for a loop.
        let socket = || rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None);
        for (name, overload_answer) in [("tcp", None), ("unix", Some(b"busy".as_slice()))] {
            let socket = socket()?;
            let (ledger, file) = (ledger.clone(), Arc::clone(&file));
            builder = builder.listen(name, socket, || Ok(Obedient { ledger, file, overload_answer }));
        }
        if !plan.dials.is_empty() {
            let (door, client) = (Door(ledger.clone()), Client(ledger.clone()));
            builder = builder.listen("door", socket()?, || Ok(door)).client("client", || Ok(client));
        }
        if let Some(upstream) = plan.upstream {
            let member = Member(ledger.clone());
            builder = builder.upstream("up", upstream.config(), || Ok(member));
        }
        let mut pool = None;
        if let Some((threads, queue)) = knobs.pool {
            let (own, steps) = HandlerPool::stepped(&PoolConfig { queue, ..PoolConfig::default() });
            builder = builder.pool(&own);
            pool = Some(own);
            kernel.borrow_mut().pool = Some(Pool { steps, threads, taken: Default::default() });
        }
        let built = builder.build_on(Simulated::new(Rc::clone(&kernel)));
        let (event_loop, handle) =
            built.map_err(|error| anyhow::anyhow!("the loop cannot be built: {error}"))?;
        kernel.borrow_mut().handle = Some(handle);
        let (plan, ledger) = (Arc::clone(plan), ledger.clone());
        let world = Self {
            plan,
            ledger,
            kernel,
            metrics,
            budget,
            leash,
            pool,
            turns: 0,
            whole_since: None,
            alone_since: None,
        };
        Ok((world, event_loop))
    }

    /// To the end, or to the first violation.
    fn drive(&mut self, mut event_loop: SteppedLoop<Simulated>) {
        loop {
            let was_idle = self.kernel.borrow_mut().is_pool_idle();
            let step = match event_loop.step() {
                Ok(step) => step,
                Err(errno) => return self.ledger.lock().violated(|| format!("the reactor failed: {errno}")),
            };
            self.turns += 1;
            self.judge_turn(was_idle);
            self.check_progress();
            if step == Step::Turned {
                self.bring_to_end(&event_loop);
            }
            if self.ledger.lock().violation.is_some() {
                return;
            }
            if step == Step::Stopped {
                break;
            }
        }
        self.kernel.borrow_mut().empty_pool();
        self.ledger.lock().say(|| "the loop ends".to_owned());
        event_loop.end();
    }

    fn check_progress(&mut self) {
        let kernel = self.kernel.borrow();
        let mut ledger = self.ledger.lock();
        ledger.check(self.turns < MAX_TURNS, || format!("no end after {MAX_TURNS} turns"));
        let most = if self.plan.upstream.is_some() { MOST_REDIALS } else { MOST_EMPTY_TURNS };
        ledger
            .check(kernel.empty_turns < most, || format!("it spins: {most} turns in which nothing happened"));
        let settled = ledger.settling_since.map(|since| kernel.now.saturating_duration_since(since));
        if kernel.is_stuck || settled.is_some_and(|time| time > MOST_SETTLING) {
            let left = Self::left(&kernel);
            ledger
                .check(left.is_empty(), || format!("never ended though their peers do their part: {left:?}"));
        }
    }

    /// Connections that have not ended, and are to.
    fn left(kernel: &Kernel) -> Vec<u32> {
        kernel
            .sockets
            .range(..FIRST_MEMBER)
            .filter(|(_, socket)| !socket.is_closed())
            .map(|(conn, _)| *conn)
            .collect()
    }

    /// When all connections have ended, the loop is told to.
    fn bring_to_end(&mut self, event_loop: &SteppedLoop<Simulated>) {
        let mut kernel = self.kernel.borrow_mut();
        let has_settled = self.ledger.lock().settling_since.is_some();
        if !has_settled || kernel.is_told_to_end.is_some() || !Self::left(&kernel).is_empty() {
            self.alone_since = None;
            return;
        }
        let alone_since = *self.alone_since.get_or_insert(kernel.now);
        if !upstream_is_whole(&mut self.ledger.lock(), &kernel, alone_since) {
            return;
        }
        let is_idle = self.plan.upstream.is_none();
        if let Some(due) = event_loop.due().filter(|_| is_idle) {
            // Accepting may be tried again, and a letter be on its way; nothing else, and not for long.
            let left = due.saturating_duration_since(kernel.now);
            let limit = Duration::from_millis(20);
            self.ledger
                .lock()
                .check(left < limit, || format!("nobody is there, and a turn is due in {left:?}"));
            return;
        }
        let held = event_loop.bytes_of_connections();
        self.ledger.lock().check(held == 0, || format!("nobody is there, and {held} bytes are held"));
        let what = if kernel.random.chance(50) { What::Stop } else { What::Quit(Duration::from_secs(1)) };
        kernel.is_told_to_end = Some(what);
        self.ledger.lock().is_told_to_end = true;
        kernel.is_stuck = false;
        if let Some(handle) = &kernel.handle {
            match what {
                What::Quit(grace) => handle.quit(grace),
                _ => handle.stop(),
            }
        }
    }

    /// Nothing is left of it.
    fn judge_end(mut self) -> anyhow::Result<()> {
        if self.ledger.lock().violation.is_some() {
            return Ok(());
        }
        self.judge_conns();
        let mut kernel = self.kernel.borrow_mut();
        kernel.handle = None;
        kernel.accepted.clear();
        kernel.ports.clear();
        kernel.pool = None;
        let (_, empty) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        kernel.leash = empty;
        drop(kernel);
        drop(self.pool.take());
        let mut ledger = self.ledger.lock();
        let used = self.budget.used_bytes();
        ledger.check(used == 0, || format!("{used} bytes of the budget are left"));
        // When every copy of the other end is closed, this one has come to its end.
        let end = rustix::io::read(&self.leash, &mut [0; 1]);
        ledger.check(end == Ok(0), || match end {
            Err(Errno::AGAIN) => "a descriptor was not closed".to_owned(),
            other => format!("the leash cannot be read: {other:?}"),
        });
        Ok(())
    }
}

/// What services send parts of.
fn file() -> anyhow::Result<Arc<OwnedFd>> {
    let fd = rustix::fs::memfd_create("sim", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    let bytes: Vec<u8> = (0..FILE_BYTES).map(file_byte).collect();
    file.write_all(&bytes)?;
    Ok(Arc::new(file.into()))
}
