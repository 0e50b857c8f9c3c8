//! A program's own processes: started, watched and ended by the master as the others are.
//!
//! Invariant: the arguments are those of the process that started the server; they survive restarts and upgrades.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{BoxError, ProcessWord};
use tidegate_process::{Child, ChildEvent};
use tidegate_sys::shared::{read_all, sealed_bytes};

use super::handout::Handout;
use super::logging;
use super::worker::{announce, tell};
use crate::board::Board;
use crate::layout::Layout;
use crate::status::{ProcessState, ROLE_PROCESS};
use crate::{Error, ServerBuilder};

/// A process that a program adds to its server.
#[derive(Clone)]
pub(crate) struct ProcessSpec {
    pub(crate) name: String,
    /// The arguments, as JSON.
    pub(crate) args: Arc<[u8]>,
    pub(crate) entry: Entry,
}

/// Runs a process with its arguments, which are JSON.
pub(crate) type Entry = Arc<dyn Fn(&mut ProcessContext<'_>, &[u8]) -> Result<(), BoxError> + Send + Sync>;

impl fmt::Debug for ProcessSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ProcessSpec {
    /// The arguments for a child, in a memory file.
    pub(crate) fn args_file(&self) -> Result<Arc<OwnedFd>, Error> {
        sealed_bytes("tidegate-args", &self.args)
            .map(Arc::new)
            .map_err(Error::system("handing arguments over"))
    }
}

/// What a process of a program's own has of its server.
///
/// It is to call [`ready`](Self::ready) when it works, and to hear from [`wait`](Self::wait) when it is to end. The master does
/// not ask it whether it makes progress: one that hangs is not replaced, one that ends is, unless everything ends.
///
/// ```no_run
/// use std::time::Duration;
/// use tidegate::{BoxError, ProcessContext, ProcessEvent};
///
/// # fn reopen_files() {}
/// /// To be given to `ServerBuilder::process`, with a number as its arguments.
/// fn count_down(process: &mut ProcessContext<'_>, from: u32) -> Result<(), BoxError> {
///     process.ready()?;
///     for left in (0..from).rev() {
///         process.status(&format!("{left} to go"))?;
///         match process.wait(Duration::from_secs(1))? {
///             None => {}
///             Some(ProcessEvent::Reopen) => reopen_files(),
///             Some(ProcessEvent::Quit | ProcessEvent::Stop) => return Ok(()),
///         }
///     }
///     // Whoever returns without having been told to is started again.
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct ProcessContext<'a> {
    child: &'a mut Child,
    log: Option<&'a tidegate_log::LogClient>,
    state: tidegate_engine::ProcessMetrics,
}

/// What a process of a program's own is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessEvent {
    /// Finish what is in flight, and return.
    Quit,
    /// Return at once.
    Stop,
    /// Open files again that others may have moved.
    Reopen,
}

impl ProcessContext<'_> {
    /// Says that the process works: the start of the server waits for it.
    ///
    /// # Errors
    ///
    /// That the master has gone; [`wait`](Self::wait) tells so, too.
    pub fn ready(&self) -> std::io::Result<()> {
        self.state.set(ProcessWord::State, ProcessState::Ready as u64);
        self.child.ready()
    }

    /// Tells people, in the status, what the process is at; cut at 4 KiB.
    ///
    /// # Errors
    ///
    /// That the master has gone.
    pub fn status(&self, text: &str) -> std::io::Result<()> {
        self.child.status(text)
    }

    /// Waits until the process is told something, but no longer than `timeout`; `None` when that has passed.
    ///
    /// # Errors
    ///
    /// The kernel's, when it cannot wait.
    pub fn wait(&mut self, timeout: Duration) -> std::io::Result<Option<ProcessEvent>> {
        let until = std::time::Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            let Some(event) = self.child.wait_event(Some(left))? else { return Ok(None) };
            match event {
                ChildEvent::Quit(_) | ChildEvent::MasterGone => {
                    self.state.set(ProcessWord::State, ProcessState::Retiring as u64);
                    return Ok(Some(ProcessEvent::Quit));
                }
                ChildEvent::Stop => return Ok(Some(ProcessEvent::Stop)),
                ChildEvent::Reopen => return Ok(Some(ProcessEvent::Reopen)),
                ChildEvent::Ping => tell(self.child.pong()),
                ChildEvent::Ask { ticket, text } => {
                    let answer = match text.strip_prefix("loglevel ") {
                        Some(spec) => logging::answer_level(self.log, spec),
                        None => super::control::done(),
                    };
                    tell(self.child.answer(ticket, &answer));
                }
                _ => {}
            }
        }
    }
}

/// Plays the part of a program's own process.
pub(crate) fn run(
    server: &ServerBuilder,
    mut child: Child,
    handout: &Handout,
    index: u32,
) -> Result<(), Error> {
    let place = usize::try_from(index).unwrap_or(usize::MAX);
    let spec = server.processes.get(place);
    let spec = spec.ok_or_else(|| Error::Service(format!("this program has no process {index}").into()))?;
    let board = Board::take(&mut child)?;
    let log = logging::of_child(server, &spec.name, 0, board.as_ref())?;
    let outcome = serve(server, &mut child, handout, spec, index, log.as_ref());
    logging::end_of_child(&child, "process failed", &outcome, log);
    outcome
}

fn serve(
    server: &ServerBuilder,
    child: &mut Child,
    handout: &Handout,
    spec: &ProcessSpec,
    index: u32,
    log: Option<&tidegate_log::LogClient>,
) -> Result<(), Error> {
    let status = handout.status(server, child, None)?;
    let place = Layout::FIRST_PROCESS + usize::try_from(index).unwrap_or(0);
    let own = status.permanent.metrics.process(place);
    announce(&own, ROLE_PROCESS, index.into(), 0, 0);
    let args =
        child.take_fd(ARGS_FD).ok_or_else(|| Error::Service("no arguments were handed over".into()))?;
    let args = read_all(args.as_fd(), MAX_ARGS_BYTES).map_err(Error::system("reading the arguments"))?;
    let mut context = ProcessContext { child, log, state: own.clone() };
    let outcome = (spec.entry)(&mut context, &args).map_err(Error::Service);
    own.set(ProcessWord::State, ProcessState::Ended as u64);
    outcome
}

/// The name under which the arguments are handed over.
pub(crate) const ARGS_FD: &str = "args";
/// The longest arguments, as JSON.
pub(crate) const MAX_ARGS_BYTES: usize = 1 << 20;
