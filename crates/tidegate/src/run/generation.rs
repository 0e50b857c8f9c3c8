//! `Generation`: one configuration with its sockets and counters, and the children that are to serve it.
//!
//! ```text
//!  reuseport: slot t, over all workers, polls the sockets i with i mod slots = t     shared: every slot polls all of them
//!  handoff:   the acceptor polls all of them, and hands what it accepts over through one channel for each worker
//! ```
//!
//! Invariant: whatever listens is accepted from, and is not closed while its listener stays. Sockets that make a group of the
//! generation before larger get connections as soon as they listen, before the new generation serves. So they do that when
//! nothing else of it can fail, and the generation before accepts from them, too.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{LISTENER_WORDS, Metrics, Words};
use tidegate_process::systemd::ActivatedSockets;
use tidegate_process::{Amendment, ChildSpec, Plan, Role};
use tidegate_sys::fd_channel::FdChannel;
use tidegate_sys::shared::SharedMemory;
use tidegate_sys::socket::TcpOptions;

use super::handout::{HANDOUT_FD, Handout, metrics_name};
use super::worker::SharedWords;
use crate::board::Board;
use crate::config::Accept;
use crate::layout::Layout;
use crate::sockets::Bound;
use crate::status::{StatusSource, View};
use crate::tables::{TableSizes, Tables};
use crate::{Error, ServerBuilder};

/// A configuration that is, was or is about to be served.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) number: u32,
    pub(crate) server: ServerBuilder,
    pub(crate) workers: u32,
    /// In the order of the listeners.
    pub(crate) bound: Vec<Bound>,
    pub(crate) view: View,
    pub(crate) metrics: Arc<OwnedFd>,
    pub(crate) is_committed: bool,
}

/// A listener of the next generation.
#[derive(Debug)]
pub(crate) struct Grown {
    bound: Bound,
    options: TcpOptions,
}

/// Counters that several processes share, and their memory.
pub(crate) fn shared_metrics(
    places: usize,
    listeners: usize,
    tables: TableSizes,
) -> Result<(Metrics, Tables, Arc<OwnedFd>), Error> {
    let words = Metrics::words_needed(places, listeners) + tables.total();
    let memory = SharedMemory::create("tidegate-metrics", words * size_of::<u64>())
        .map_err(Error::system("making the counters"))?;
    let fd = memory.as_fd().try_clone_to_owned().map_err(Error::system("sharing the counters"))?;
    let (metrics, tables) = views_of(memory, (listeners, LISTENER_WORDS), tables);
    Ok((metrics, tables, Arc::new(fd)))
}

/// The counters at the beginning of a memory, of so many listeners of so many words, and the tables at its end.
pub(crate) fn views_of(
    memory: SharedMemory,
    (listeners, listener_words): (usize, usize),
    sizes: TableSizes,
) -> (Metrics, Tables) {
    let memory: Arc<dyn Words> = Arc::new(SharedWords(memory));
    let counters = memory.words().len().saturating_sub(sizes.total());
    let tables = Tables::behind(&memory, counters, sizes);
    (Metrics::new(memory, listeners).with_listener_words(listener_words).in_first(counters), tables)
}

impl Generation {
    /// Binds what is not bound yet. `before` is the generation that serves, if one does.
    pub(crate) fn new(
        number: u32,
        server: ServerBuilder,
        before: Option<&Self>,
        given: &mut ActivatedSockets,
        patience: Duration,
    ) -> Result<Self, Error> {
        #[cfg(feature = "full")]
        server.tls.warn();
        let workers = server.worker_count();
        let before = before.map_or(&[][..], |before| &before.bound);
        let bound = server.bind_beside(workers, before, given, patience)?;
        let worker_count = usize::try_from(workers).unwrap_or(usize::MAX);
        let places = server.layout().places(worker_count);
        let seats = Layout::worker_seats(worker_count);
        let tables = server.tables.with_addresses(seats, server.config.engine.max_connections);
        let (metrics, tables, fd) = shared_metrics(places, server.site_count(), tables)?;
        let listeners = server.listener_metas(bound.iter().map(|bound| bound.address.as_str()));
        let view = View { generation: number.into(), metrics, listeners, layout: server.layout(), tables };
        Ok(Self { number, server, workers, bound, view, metrics: fd, is_committed: false })
    }

    /// The children that serve it. `status` has the counters of all others that they are to see, whose memory is in
    /// `metrics`.
    pub(crate) fn plan(
        &self,
        status: &StatusSource,
        metrics: &[(u64, Arc<OwnedFd>)],
    ) -> Result<Vec<ChildSpec>, Error> {
        let handout = Handout::new(self.number, &self.server, status).file()?;
        let common = |role| {
            let spec = ChildSpec::new(role).fd(HANDOUT_FD, Arc::clone(&handout));
            let spec = Board::hand_to(status.board.as_ref(), spec);
            metrics.iter().fold(spec, |spec, (number, fd)| spec.fd(metrics_name(*number), Arc::clone(fd)))
        };
        let mut acceptor = self.hands_over().then(|| common(Role::Acceptor));
        let mut children = Vec::new();
        for index in 0..self.workers {
            let mut child = common(Role::Worker(index));
            if let Some(acceptor) = &mut acceptor {
                // Both ends are kept here: what waits in the channel outlives the worker.
                let (sends, receives) = FdChannel::pair().map_err(Error::system("making a channel"))?;
                child = child.covered_fd(HANDOFF_FD, Arc::new(receives.into()));
                acceptor.fds.push((format!("{HANDOFF_PREFIX}{index}"), Arc::new(sends.into())));
                // Nobody can hand a datagram over: every worker has the sockets for them, so none needs a stand-in.
                for (listener, bound) in self.datagrams() {
                    for (number, fd) in bound.sockets.iter().enumerate() {
                        child = child.fd(listen_name(listener, 0, number, true), Arc::clone(fd));
                    }
                }
            } else {
                for (name, fd) in self.sockets_of(index) {
                    child = child.covered_fd(name, fd);
                }
            }
            children.push(child);
        }
        if let Some(mut acceptor) = acceptor {
            let of_connections = |(_, bound): &(usize, &Bound)| !bound.configured.is_datagram();
            for (listener, bound) in self.bound.iter().enumerate().filter(of_connections) {
                for (number, fd) in bound.sockets.iter().enumerate() {
                    acceptor.fds.push((listen_name(listener, 0, number, false), Arc::clone(fd)));
                }
            }
            children.push(acceptor);
        }
        Ok(children)
    }

    /// The listeners of datagrams, with their numbers.
    fn datagrams(&self) -> impl Iterator<Item = (usize, &Bound)> {
        self.bound.iter().enumerate().filter(|(_, bound)| bound.configured.is_datagram())
    }

    pub(crate) fn hands_over(&self) -> bool {
        self.server.config.process.accept == Accept::Handoff
    }

    /// What worker `index` accepts from.
    fn sockets_of(&self, index: u32) -> Vec<(String, Arc<OwnedFd>)> {
        let slots = self.server.slots_per_worker();
        let first = usize::try_from(index).unwrap_or(0) * slots;
        let mut sockets = Vec::new();
        for (listener, bound) in self.bound.iter().enumerate() {
            for slot in 0..slots {
                for (number, fd) in bound.for_slot(first + slot) {
                    sockets.push((listen_name(listener, slot, number, bound.is_shared()), Arc::clone(fd)));
                }
            }
        }
        sockets
    }

    /// Has the sockets listen that were added for the next generation, takes them in, and adds who of this one accepts from
    /// them.
    ///
    /// # Errors
    ///
    /// That one does not listen. It is not among those that were taken in.
    pub(crate) fn grow(&mut self, next: &[Grown], amendments: &mut Vec<Amendment>) -> Result<(), Error> {
        let slots = self.server.slots_per_worker();
        let (hands_over, workers) = (self.hands_over(), self.workers);
        for (listener, bound) in self.bound.iter_mut().enumerate() {
            let is_it = |next: &&Grown| next.bound.is(&bound.name, &bound.configured);
            let Some(grown) = next.iter().find(is_it) else { continue };
            let had = bound.sockets.len();
            for (number, fd) in grown.bound.sockets.iter().enumerate().skip(had) {
                bound.start(fd, &grown.options).map_err(Error::system("listening"))?;
                bound.sockets.push(Arc::clone(fd));
                let mut add = |role, slot| {
                    let name = listen_name(listener, slot, number, bound.is_shared());
                    amendments.push(Amendment { role, name, fd: Arc::clone(fd) });
                };
                if hands_over && bound.configured.is_datagram() {
                    (0..workers).for_each(|index| add(Role::Worker(index), 0));
                    continue;
                }
                if hands_over {
                    add(Role::Acceptor, 0);
                    continue;
                }
                for index in 0..workers {
                    let first = usize::try_from(index).unwrap_or(0) * slots;
                    let is_its = |slot: &usize| bound.for_slot(first + slot).any(|(its, _)| its == number);
                    (0..slots).filter(is_its).for_each(|slot| add(Role::Worker(index), slot));
                }
            }
        }
        Ok(())
    }

    /// Its sockets, with the options that they are to have.
    pub(crate) fn grown(&self) -> Vec<Grown> {
        let options = self.server.listeners.iter().map(|listener| listener.options.tcp);
        self.bound.iter().cloned().zip(options).map(|(bound, options)| Grown { bound, options }).collect()
    }

    /// What the master has to know besides its children.
    pub(crate) fn into_plan(children: Vec<ChildSpec>, server: &ServerBuilder) -> Plan {
        Plan { children, limits: server.process_limits(), user: server.credentials.clone() }
    }

    /// Lets the listeners go that another generation does not have.
    pub(crate) fn release(&mut self, kept: &[Bound]) {
        for bound in self.bound.drain(..) {
            if !kept.iter().any(|kept| kept.is(&bound.name, &bound.configured)) {
                tracing::info!(listener = bound.name, address = bound.address, "no longer listening");
                bound.remove_file();
            }
        }
    }
}

/// The name of a listening socket: the number of the listener, the slot in the worker, the number of the socket.
fn listen_name(listener: usize, slot: usize, number: usize, shared: bool) -> String {
    let suffix = if shared { SHARED_SUFFIX } else { "" };
    format!("{LISTEN_PREFIX}{listener}:{slot}:{number}{suffix}")
}

/// What a descriptor is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A socket that listens.
    Listen { listener: usize, slot: usize, shared: bool },
    /// The end of a channel through which connections come.
    Handoff,
}

impl Source {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name == HANDOFF_FD {
            return Some(Self::Handoff);
        }
        let rest = name.strip_prefix(LISTEN_PREFIX)?;
        let (rest, shared) = match rest.strip_suffix(SHARED_SUFFIX) {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let mut numbers = rest.split(':').map(|number| number.parse().ok());
        let (listener, slot) = (numbers.next()??, numbers.next()??);
        Some(Self::Listen { listener, slot, shared })
    }
}

/// What the names of listening sockets begin with.
pub(crate) const LISTEN_PREFIX: &str = "listen:";
/// Marks a socket that all workers poll.
const SHARED_SUFFIX: &str = ":shared";
/// The end of a worker's channel that it receives from.
pub(crate) const HANDOFF_FD: &str = "handoff";
/// The ends that the acceptor sends through, with the number of the worker.
pub(crate) const HANDOFF_PREFIX: &str = "handoff:";

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::sockets::{BindOptions, Share};
    use crate::{Server, echo};

    #[test]
    fn names_say_what_a_descriptor_is() {
        let listen = |shared| Some(Source::Listen { listener: 3, slot: 1, shared });
        assert_eq!(Source::parse(&listen_name(3, 1, 7, false)), listen(false));
        assert_eq!(Source::parse(&listen_name(3, 1, 7, true)), listen(true));
        assert_eq!(Source::parse(HANDOFF_FD), Some(Source::Handoff));
        for other in ["", "listen:", "listen:1", "listen:x:0:0", "metrics:1"] {
            assert_eq!(Source::parse(other), None, "{other}");
        }
    }

    /// A generation of so many workers with a socket for each, at a free port.
    fn generation(
        number: u32,
        workers: u32,
        before: Option<&Generation>,
        arrange: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Result<Generation, Error> {
        let server = arrange(Server::builder().listen("127.0.0.1:0", echo).workers(workers));
        Generation::new(number, server, before, &mut ActivatedSockets::default(), Duration::ZERO)
    }

    /// How many of the connections that were made wait in each of the sockets.
    fn waiting(bound: &Bound, count: usize) -> Vec<usize> {
        let clients: Vec<_> = (0..count).map(|_| TcpStream::connect(&bound.address).unwrap()).collect();
        let accepted = |socket: &Arc<OwnedFd>| {
            let listener = TcpListener::from(socket.try_clone().unwrap());
            std::iter::from_fn(|| listener.accept().ok()).count()
        };
        let waiting = bound.sockets.iter().map(accepted).collect();
        drop(clients);
        waiting
    }

    #[test]
    fn a_reload_that_cannot_bind_takes_no_connection_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        let first = generation(1, 1, None, |server| server).unwrap();
        let next = first.bound[0].next("main", options(3)).unwrap();
        assert_eq!(waiting(&next, 60), [60, 0, 0], "what was added does not listen yet");
        let unix = format!("unix:{}", path.display());
        let error = generation(2, 3, Some(&first), |it| it.listen(unix, echo).listen(taken, echo));
        assert!(error.is_err());
        assert!(!path.exists());
        assert_eq!(waiting(&first.bound[0], 20), [20]);
    }

    #[test]
    fn sockets_that_were_added_are_accepted_from_by_those_who_serve() {
        let mut first = generation(1, 2, None, |server| server).unwrap();
        let next = generation(2, 4, Some(&first), |server| server).unwrap();
        let mut amendments = Vec::new();
        first.grow(&next.grown(), &mut amendments).unwrap();
        let said: Vec<_> = amendments.iter().map(|it| (it.role, it.name.as_str())).collect();
        assert_eq!(said, [(Role::Worker(0), "listen:0:0:2"), (Role::Worker(1), "listen:0:0:3")]);
        assert_eq!(first.bound[0].sockets.len(), 4);
        let waiting = waiting(&first.bound[0], 200);
        assert_eq!(waiting.iter().sum::<usize>(), 200);
        assert!(waiting.iter().all(|count| *count > 0), "{waiting:?}");
    }

    #[test]
    fn a_listener_that_is_called_otherwise_is_the_same() {
        let listener = |name: &'static str, address: &str| {
            let server = Server::builder().workers(1);
            server.listen_named(name, address, || Ok(echo()))
        };
        let given = &mut ActivatedSockets::default();
        let first = Generation::new(1, listener("a", "127.0.0.1:0"), None, given, Duration::ZERO).unwrap();
        let address = first.bound[0].address.clone();
        drop(first);
        let mut first = Generation::new(1, listener("a", &address), None, given, Duration::ZERO).unwrap();
        let next = Generation::new(2, listener("b", &address), Some(&first), given, Duration::ZERO).unwrap();
        assert_eq!(next.bound[0].name, "b");
        assert!(Arc::ptr_eq(&first.bound[0].sockets[0], &next.bound[0].sockets[0]));
        first.release(&next.bound);
        assert_eq!(waiting(&next.bound[0], 3), [3]);
    }

    fn options(slots: usize) -> BindOptions {
        let tcp = TcpOptions::default();
        BindOptions { tcp, sharing: Share::Each(slots), patience: Duration::ZERO }
    }
}
