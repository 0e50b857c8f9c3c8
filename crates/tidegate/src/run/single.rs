//! Everything in the calling process: `workers = 0`, and servers inside other programs.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use tidegate_engine::{LoopBuilder, Metrics, ProcessWord, Socket};
use tidegate_log::{LogServer, SharedStore};
use tidegate_process::Signals;
use tidegate_sys::signal::{self, Signal};

use super::operated::Locked;
use super::watch::Watch;
use super::worker::{Built, WorkerLoop, announce, build_loop, engine_config};
use super::{logging, operated};
use crate::server::{Ready, SpawnedServer};
use crate::sockets::Bound;
use crate::status::{ProcessState, place};
use crate::{Error, ServerBuilder};

/// Starts the server on a thread of this process.
pub(crate) fn spawn(server: &ServerBuilder) -> Result<SpawnedServer, Error> {
    let parts = prepare(server, &counters(server), Duration::ZERO)?;
    let event_loop = WorkerLoop::start_with(parts.built, &server.config, || {})?;
    Ok(SpawnedServer {
        ready: parts.ready,
        handle: event_loop.handle(),
        thread: Some(event_loop.into_thread()),
        bound: parts.bound,
    })
}

struct Parts {
    built: Built,
    ready: Ready,
    bound: Vec<Bound>,
}

/// The counters of a master's place that stays vacant, the log server's loop, and the one worker's.
fn counters(server: &ServerBuilder) -> Metrics {
    Metrics::on_heap_for(place::FIRST_WORKER + 1, server.counted_listeners())
}

/// Binds the listeners and builds the loop.
fn prepare(server: &ServerBuilder, metrics: &Metrics, patience: Duration) -> Result<Parts, Error> {
    let mut bound = server.bind(1, patience)?;
    let ready = Ready { listeners: bound.iter().map(|b| (b.name.clone(), b.address.clone())).collect() };
    let own = metrics.process(place::FIRST_WORKER);
    announce(&own, 2, 0);
    let mut sockets = Vec::with_capacity(bound.len());
    for listener in &mut bound {
        let fd = listener.for_worker(0).try_clone().map_err(Error::system("sharing a socket"))?;
        // The loop's descriptor is the only one, so that peers are refused once it has let go of it.
        listener.sockets.clear();
        sockets.push((Socket::own(fd), listener.address.clone()));
    }
    let built = build_loop(server, metrics, &own, sockets)?;
    own.set(ProcessWord::State, ProcessState::Ready as u64);
    Ok(Parts { built, ready, bound })
}

/// Runs the server in this process until a signal ends it.
pub(crate) fn run(mut server: ServerBuilder, signals: &Signals) -> Result<(), Error> {
    operated::raise_open_files(&server.config)?;
    let on_ready = server.on_ready.take();
    let metrics = counters(&server);
    let watch = |log| Watch::new(&server, metrics.process(place::FIRST_WORKER), log);
    if !server.operated {
        return serve(&server, &metrics, on_ready, signals, Around { operated: None, watch: watch(None) });
    }
    let locked = operated::lock_data_dir(&server.config)?;
    let (client, store) = logging::to_store(&server.config, "worker 0")?;
    let socket = operated::bind_log_socket(&server.config)?;
    let for_loop = store.clone();
    let log_place = metrics.process(place::LOG_SERVER);
    announce(&log_place, 1, 0);
    let log_loop = LoopBuilder::new(engine_config(&server.config))
        .listen("log", Socket::own(socket), move || Ok(LogServer::new(for_loop)))
        .metrics(log_place.without_first_listeners(server.listeners.len()))
        .spawn()
        .map_err(Error::Service)?;
    log_place.set(ProcessWord::State, ProcessState::Ready as u64);
    let around = Around { operated: Some((&locked, &store)), watch: watch(Some(client.clone())) };
    let outcome = serve(&server, &metrics, on_ready, signals, around);
    log_loop.quit(logging::FLUSH_TIMEOUT);
    let log_outcome = log_loop.join().map_err(Error::system("log server"));
    operated::remove_log_socket(&server.config);
    let _ = client.close(logging::FLUSH_TIMEOUT);
    store.lock().flush_now();
    drop(locked.pid_file);
    outcome.and(log_outcome)
}

/// What stands around the loop of a server of one process.
struct Around<'a> {
    operated: Option<(&'a Locked, &'a SharedStore)>,
    watch: Watch,
}

fn serve(
    server: &ServerBuilder,
    metrics: &Metrics,
    on_ready: Option<crate::server::OnReady>,
    signals: &Signals,
    around: Around<'_>,
) -> Result<(), Error> {
    let Around { operated, mut watch } = around;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let parts = prepare(server, metrics, operated.map_or(Duration::ZERO, |(locked, _)| locked.patience))?;
    for (listener, address) in &parts.ready.listeners {
        tracing::info!(listener, address, "listening");
    }
    let own = metrics.process(place::FIRST_WORKER);
    let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let ended = Arc::new(ended.map_err(|errno| Error::system("making a waker")(errno.into()))?);
    let waker = Arc::clone(&ended);
    let event_loop = WorkerLoop::start_with(parts.built, &server.config, move || {
        // A counter of 1 always fits.
        let _ = rustix::io::write(&waker, &1u64.to_ne_bytes());
    })?;
    tracing::info!(pid = std::process::id(), "ready");
    if let Some(on_ready) = on_ready {
        on_ready(&parts.ready);
    }
    while !event_loop.is_finished() {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(&*ended, PollFlags::IN)];
        let interval = Timespec::try_from(watch.interval()).ok();
        let polled = poll(&mut fds, interval.as_ref());
        watch.look();
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("waiting for signals")(errno.into())),
        }
        let Some(received) = signals.read().map_err(Error::system("reading signals"))? else { continue };
        tracing::info!(
            signal = signal::name(received.signal),
            sender_pid = received.sender_pid,
            "signal received"
        );
        match received.signal {
            Signal::TERM | Signal::INT => event_loop.stop(),
            Signal::QUIT => {
                own.set(ProcessWord::State, ProcessState::Retiring as u64);
                event_loop.quit(server.config.process.shutdown_timeout);
            }
            Signal::USR1 => {
                if let Some((_, store)) = operated {
                    store.lock().reopen();
                }
            }
            other => tracing::warn!(
                signal = signal::name(other),
                "signal has no effect on a server of one process"
            ),
        }
    }
    let outcome = event_loop.join();
    tracing::info!("stopped");
    parts.bound.iter().for_each(Bound::remove_file);
    outcome
}
