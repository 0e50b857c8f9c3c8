//! The log server's process: a loop with one Unix socket, ended after all others.

use std::time::Duration;

use tidegate_engine::{Backend, EngineConfig, LoopBuilder, ProcessWord, Socket};
use tidegate_log::LogServer;
use tidegate_process::{Child, ChildEvent, Within};

use super::build::Built;
use super::handout::Handout;
use super::loops::WorkerLoops;
use super::threads::Threads;
use super::watch::Watch;
use super::worker::{ANSWERS_WITHIN, tell};
use super::{logging, worker};
use crate::board::Board;
use crate::layout::{Layout, Seat};
use crate::status::{ProcessState, ROLE_LOG_SERVER};
use crate::{Error, ServerBuilder};

/// The name under which the log socket is handed over.
pub(crate) const LOG_FD: &str = "log";

/// Plays the log server's part until the master says that everybody else has ended.
pub(crate) fn run(server: &ServerBuilder, mut child: Child, handout: &Handout) -> Result<(), Error> {
    let board = Board::take(&mut child)?;
    let (client, store) = logging::to_store(&server.config, "log server", board.as_ref())?;
    let status = handout.status(server, &mut child, None)?;
    let own = status.permanent.metrics.process(Layout::LOG_SERVER);
    worker::announce(&own, ROLE_LOG_SERVER, 0, 0, 0);
    let socket =
        child.take_fd(LOG_FD).ok_or_else(|| Error::Service("no log socket was handed over".into()))?;
    let for_loop = store.clone();
    let built = LoopBuilder::new(EngineConfig { backend: Backend::Epoll, ..EngineConfig::default() })
        .listen("log", Socket::own(socket), move || Ok(LogServer::new(for_loop)))
        .metrics(own.clone())
        .build()
        .map_err(Error::Service)?;
    let waker = child.waker();
    let built = Built::of_loop(built, Threads::of_log_server(&server.config));
    let event_loop = WorkerLoops::start(built, move || waker.wake())?;
    event_loop.publish(std::slice::from_ref(&own));
    tracing::info!(dir = %server.config.log_dir().display(), "storing records");
    logging::ready(server, &child)?;
    own.set(ProcessWord::State, ProcessState::Ready as u64);
    let watch = Watch::new(server, Seat::Loop(0), own.clone(), Some(client.clone()));
    let outcome = serve(server, &mut child, event_loop, &store, watch, &client);
    own.set(ProcessWord::State, ProcessState::Ended as u64);
    // The loop has ended, so nothing is appended any more but by this process itself.
    let _ = client.close(logging::FLUSH_TIMEOUT);
    store.lock().flush_now();
    outcome
}

fn serve(
    server: &ServerBuilder,
    child: &mut Child,
    event_loop: WorkerLoops,
    store: &tidegate_log::SharedStore,
    mut watch: Watch,
    client: &tidegate_log::LogClient,
) -> Result<(), Error> {
    let timeout = server.config.process.shutdown_timeout;
    loop {
        let event = child.wait_event(Some(watch.interval())).map_err(Error::system("waiting for orders"))?;
        watch.look();
        match event {
            Some(ChildEvent::Quit(Within::Time(time))) => event_loop.quit(time),
            Some(ChildEvent::Quit(Within::Drain(_) | Within::Configured)) => event_loop.quit(timeout),
            // Clients that are still connected have something to say until their end: the workers of a master that was
            // killed finish what they hold.
            Some(ChildEvent::MasterGone) => event_loop.quit(timeout + Duration::from_secs(2)),
            Some(ChildEvent::Stop) => event_loop.quit(LAST_WORDS),
            Some(ChildEvent::Reopen) => store.lock().reopen(),
            Some(ChildEvent::Woken) if event_loop.is_finished() => break,
            Some(ChildEvent::Ping) if watch.turns(ANSWERS_WITHIN) => tell(child.pong()),
            Some(ChildEvent::Ask { ticket, text }) => {
                let answer = match text.strip_prefix("loglevel ") {
                    Some(spec) => logging::answer_level(Some(client), spec),
                    None => super::control::error("the question is not understood"),
                };
                tell(child.answer(ticket, &answer));
            }
            _ => {}
        }
    }
    event_loop.join()
}

/// A stop at once still reads what the others, which have ended, have sent.
const LAST_WORDS: Duration = Duration::from_secs(1);
