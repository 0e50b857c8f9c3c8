//! The acceptor's process: accepts for all workers, and passes each connection on as a descriptor.
//!
//! Invariant: it reads nothing from a connection, and knows no service.

use std::time::Duration;

use tidegate_engine::{AcceptorBuilder, ListenerWord, ProcessWord, Socket, Sockets};
use tidegate_process::{Child, ChildEvent, Within};
use tidegate_sys::fd_channel::FdChannel;

use super::build::balance;
use super::generation::{HANDOFF_PREFIX, LISTEN_PREFIX, Source};
use super::handout::Handout;
use super::logging;
use super::loops::{Covered, WorkerLoops};
use super::threads::Threads;
use super::watch::Watch;
use super::worker::{ANSWERS_WITHIN, announce, paused_by, tell};
use crate::board::Board;
use crate::layout::{Layout, Seat};
use crate::status::{ProcessState, ROLE_ACCEPTOR};
use crate::{Error, ServerBuilder};

/// Plays the part of the acceptor until it is told to end.
pub(crate) fn run(server: &ServerBuilder, mut child: Child, handout: &Handout) -> Result<(), Error> {
    let board = Board::take(&mut child)?;
    let log = logging::of_child(server, "acceptor", handout.generation, board.as_ref())?;
    let outcome = serve(server, &mut child, handout, log.as_ref());
    logging::end_of_child(&child, "acceptor failed", &outcome, log);
    outcome
}

fn serve(
    server: &ServerBuilder,
    child: &mut Child,
    handout: &Handout,
    log: Option<&tidegate_log::LogClient>,
) -> Result<(), Error> {
    let status = handout.status(server, child, None)?;
    let view =
        status.generations.last().ok_or_else(|| Error::Service("no counters were handed over".into()))?;
    let own = view.metrics.process(Layout::ACCEPTOR);
    announce(&own, ROLE_ACCEPTOR, 0, handout.generation, 0);
    let mut channels = Vec::new();
    let mut inherited = child.take_fds_with_prefix(HANDOFF_PREFIX);
    inherited.sort_by_key(|(worker, _)| worker.parse().unwrap_or(usize::MAX));
    for (_, fd) in inherited {
        channels.push(FdChannel::from_fd(fd).map_err(Error::system("taking a channel"))?);
    }
    let (counters, listeners) = (view.clone(), server.site_count());
    let most = server.config.engine.max_connections;
    let load = move |worker: usize| {
        let places = counters.layout.of_worker(worker, 0).chain(counters.layout.of_worker(worker, 1));
        let open = |place: usize| {
            let process = counters.metrics.process(place);
            (0..listeners).map(|listener| process.listener(listener).get(ListenerWord::Open)).sum::<u64>()
        };
        let connections = usize::try_from(places.map(open).sum::<u64>()).unwrap_or(usize::MAX);
        // A worker that is full gets nothing, so that nobody waits in its channel while another has room.
        if connections < most { connections } else { usize::MAX }
    };
    let mut builder = AcceptorBuilder::to_channels(balance(server), channels, load).metrics(own.clone());
    let mut sockets: Vec<Vec<Socket>> = server.listeners.iter().map(|_| Vec::new()).collect();
    for (rest, fd) in child.take_fds_with_prefix(LISTEN_PREFIX) {
        if let Some(Source::Listen { listener, .. }) = Source::parse(&format!("{LISTEN_PREFIX}{rest}"))
            && let Some(of_listener) = sockets.get_mut(listener)
        {
            of_listener.push(Socket::own(fd).nodelay(server.listeners[listener].options.tcp.nodelay));
        }
    }
    let words = child.first_words().map_err(Error::system("reading the first words"))?;
    for (listener, sockets) in server.listeners.iter().zip(sockets) {
        let is_paused = words.iter().any(|word| paused_by(word) == Some(&listener.name));
        let sockets: Sockets = sockets.into();
        builder = builder.listen(&listener.name, if is_paused { sockets.paused() } else { sockets });
    }
    let built = builder.build().map_err(Error::Service)?;
    let waker = child.waker();
    let threads = Threads::of_log_server(&server.config);
    let acceptor = WorkerLoops::start_acceptor(built, threads, move || waker.wake())?;
    acceptor.publish(std::slice::from_ref(&own));
    own.set(ProcessWord::State, ProcessState::Ready as u64);
    tracing::info!(listeners = server.listeners.len(), "acceptor serves");
    logging::ready(server, child)?;
    let watch = Watch::new(server, Seat::Acceptor, own.clone(), log.cloned());
    for word in &words {
        answer(server, &acceptor, log, word);
    }
    let outcome = until_told(server, child, &acceptor, watch, log);
    let joined = if outcome.is_ok() { acceptor.join() } else { Ok(()) };
    own.set(ProcessWord::State, ProcessState::Ended as u64);
    tracing::info!("acceptor ends");
    outcome.and(joined)
}

fn until_told(
    server: &ServerBuilder,
    child: &mut Child,
    acceptor: &WorkerLoops,
    mut watch: Watch,
    log: Option<&tidegate_log::LogClient>,
) -> Result<(), Error> {
    loop {
        let event = child.wait_event(Some(watch.interval())).map_err(Error::system("waiting for orders"))?;
        watch.look();
        match event {
            Some(ChildEvent::Quit(within)) => acceptor.quit(match within {
                Within::Time(time) | Within::Drain(Some(time)) => time,
                Within::Drain(None) => Duration::MAX,
                Within::Configured => server.config.process.shutdown_timeout,
            }),
            Some(ChildEvent::MasterGone) => {
                tracing::error!("the master has gone; accepting nothing more");
                acceptor.quit(server.config.process.shutdown_timeout);
            }
            Some(ChildEvent::Stop) => acceptor.stop(),
            Some(ChildEvent::Woken) if acceptor.is_finished() => return Ok(()),
            Some(ChildEvent::Ping) if watch.turns(ANSWERS_WITHIN) => tell(child.pong()),
            Some(ChildEvent::Cover { slot, fds }) => {
                for (name, fd) in fds {
                    if let Some(Source::Listen { listener, slot: at, shared }) = Source::parse(&name) {
                        let nodelay = server.listeners.get(listener).is_none_or(|it| it.options.tcp.nodelay);
                        acceptor.adopt(slot, Covered { listener, slot: at, shared, nodelay }, fd);
                    }
                }
            }
            Some(ChildEvent::Pause) => acceptor.pause(None),
            Some(ChildEvent::Resume) => acceptor.resume(None),
            Some(ChildEvent::Ask { ticket, text }) => {
                tell(child.answer(ticket, &answer(server, acceptor, log, &text)))
            }
            _ => {}
        }
    }
}

fn answer(
    server: &ServerBuilder,
    acceptor: &WorkerLoops,
    log: Option<&tidegate_log::LogClient>,
    question: &str,
) -> Vec<u8> {
    let words: Vec<&str> = question.split_ascii_whitespace().collect();
    match words[..] {
        ["pause" | "resume", "listener", name] => {
            if let Some(site) = server.listeners.iter().position(|listener| listener.name == name) {
                if words[0] == "pause" { acceptor.pause(Some(site)) } else { acceptor.resume(Some(site)) }
            }
            super::control::done()
        }
        ["loglevel", spec] => logging::answer_level(log, spec),
        _ => super::control::error("the question is not understood"),
    }
}
