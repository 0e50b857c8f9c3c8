//! What another image of the master's process has to know of the server, and how it takes that over.
//!
//! JSON, and descriptors by their places in a bundle. Invariant: until nothing can fail any more, what is taken over removes
//! no file when it is dropped.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidegate_process::systemd::Notify;
use tidegate_process::{Bundle, Unbundled};

use super::Hooks;
use crate::board::Board;
use crate::config::Config;
use crate::run::generation::Generation;
use crate::run::handout::ViewParts;
use crate::run::sampling::Sampling;
use crate::run::{control, logging};
use crate::sockets::{Bound, BoundParts};
use crate::{Error, ServerBuilder};

/// What another image of the process has to know of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FrozenHooks {
    /// Where the configuration comes from.
    #[serde(default)]
    pub(crate) source: serde_json::Value,
    generations: Vec<FrozenGeneration>,
    current: u32,
    permanent: ViewParts,
    permanent_metrics: usize,
    #[serde(default)]
    board: Option<usize>,
    log_socket: Option<usize>,
    pid_file: Option<(PathBuf, usize)>,
    #[serde(default)]
    said: control::Said,
    /// Of which the keys of tickets are made.
    #[cfg(feature = "full")]
    #[serde(default)]
    tickets: crate::tls::Material,
}

#[derive(Debug, Serialize, Deserialize)]
struct FrozenGeneration {
    number: u32,
    config: serde_json::Value,
    workers: u32,
    bound: Vec<(BoundParts, Vec<usize>)>,
    view: ViewParts,
    metrics: usize,
    is_committed: bool,
}

impl Hooks {
    /// Takes over what the image before had frozen.
    pub(super) fn thaw(
        #[cfg_attr(not(feature = "full"), expect(unused_mut, reason = "only its tickets change"))]
        mut server: ServerBuilder,
        frozen: FrozenHooks,
        fds: &Unbundled,
    ) -> Result<Self, Error> {
        #[cfg(feature = "full")]
        {
            // Sessions go on in the workers that are started from now on, too.
            let tls = crate::tls::Material::clone(&server.tls).with_tickets_of(&frozen.tickets);
            server.tls = std::sync::Arc::new(tls);
        }
        let missing = || Error::Service("a descriptor is missing".into());
        let get = |place| fds.get(place).ok_or_else(missing);
        let take = |place| fds.take(place).ok_or_else(missing);
        let board = match frozen.board {
            Some(place) => Board::from_fd(take(place)?)?,
            None => None,
        };
        // Another version may have had none, or one of another kind.
        let board = if server.operated && board.is_none() { Some(Board::shared()?) } else { board };
        let log = match server.operated {
            true => Some(logging::to_server(&server.config, "master", frozen.current, board.as_ref())?),
            false => None,
        };
        let mut generations = BTreeMap::new();
        for parts in frozen.generations {
            let config = Config::of_earlier(parts.config).map_err(|error| Error::Service(error.into()))?;
            let of_then = server.with_config(config);
            let mut bound = Vec::new();
            for (listener, sockets) in parts.bound {
                let sockets = sockets.into_iter().map(get).collect::<Result<_, _>>()?;
                bound.push(Bound::of_parts(listener, sockets));
            }
            let generation = Generation {
                number: parts.number,
                workers: parts.workers,
                bound,
                view: parts.view.view(&of_then, take(parts.metrics)?)?,
                metrics: get(parts.metrics)?,
                is_committed: parts.is_committed,
                server: of_then,
            };
            generations.insert(parts.number, generation);
        }
        let left_pid_file = match frozen.pid_file {
            Some((path, place)) => Some((path, take(place)?)),
            None => None,
        };
        let permanent_metrics = get(frozen.permanent_metrics)?;
        let permanent = frozen.permanent.view(&server, take(frozen.permanent_metrics)?)?;
        Ok(Self {
            server,
            generations,
            current: frozen.current,
            permanent,
            permanent_metrics,
            sampling: board.as_ref().map(Sampling::new),
            board,
            log,
            log_socket: frozen.log_socket.map(get).transpose()?,
            pid_file: None,
            left_pid_file,
            is_armed: false,
            on_ready: None,
            notify: Notify::from_env(),
            said: frozen.said,
            amendments: Vec::new(),
            is_stopping: false,
        })
    }

    /// Everything that another image needs.
    pub(super) fn frozen<'a>(&'a self, bundle: &mut Bundle<'a>) -> Result<serde_json::Value, String> {
        let mut generations = Vec::new();
        for generation in self.generations.values() {
            let config =
                serde_json::to_value(&generation.server.config).map_err(|error| error.to_string())?;
            let sockets = |bound: &'a Bound, bundle: &mut Bundle<'a>| {
                bound.sockets.iter().map(|socket| bundle.put(&**socket)).collect()
            };
            generations.push(FrozenGeneration {
                number: generation.number,
                config,
                workers: generation.workers,
                bound: generation.bound.iter().map(|bound| (bound.parts(), sockets(bound, bundle))).collect(),
                view: ViewParts::of(&generation.view),
                metrics: bundle.put(&*generation.metrics),
                is_committed: generation.is_committed,
            });
        }
        let pid_file = self.pid_file.as_ref().map(|file| {
            let (path, fd) = file.parts();
            (path.to_owned(), bundle.put_borrowed(fd))
        });
        let frozen = FrozenHooks {
            source: self.server.frozen_source()?,
            generations,
            current: self.current,
            permanent: ViewParts::of(&self.permanent),
            permanent_metrics: bundle.put(&*self.permanent_metrics),
            board: self.board.as_ref().and_then(Board::fd).map(|fd| bundle.put(&**fd)),
            log_socket: self.log_socket.as_ref().map(|socket| bundle.put(&**socket)),
            pid_file,
            said: self.said.clone(),
            #[cfg(feature = "full")]
            tickets: self.current().server.tls.tickets_alone(),
        };
        serde_json::to_value(frozen).map_err(|error| error.to_string())
    }
}
