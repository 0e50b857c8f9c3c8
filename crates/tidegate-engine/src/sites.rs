//! `Sites`: the listeners and clients of a loop while it is put together.
//!
//! Invariant: a site has the same number in each of the lists, and clients come behind all listeners, so that a listener has
//! the same number here and with whoever accepts for it.

use std::sync::Arc;

use tidegate_reactor::Reactor;

use crate::accepting::{Accepting, Door};
use crate::builder::{BoxError, BoxedService, FactoryError, MAX_LISTENERS};
use crate::connect::Client;
use crate::datagram::Datagrams;
use crate::event_loop::upstreams::Pool;
use crate::host::Hosted;
use crate::io::Site;
use crate::metrics::ProcessMetrics;
use crate::socket::Sockets;
use crate::upstream::{Backoff, MAX_UPSTREAM_CONNECTIONS, OpenSet, UpstreamConfig};

/// All sites, by their numbers, and what the loop does with them.
pub(crate) struct Sites {
    pub(crate) hosts: Vec<Box<dyn Hosted>>,
    pub(crate) sites: Vec<Arc<Site>>,
    pub(crate) accepting: Accepting,
    pub(crate) datagrams: Datagrams,
    pub(crate) clients: Vec<Client>,
    pub(crate) pools: Vec<Pool>,
}

/// A site to be.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) service: Result<BoxedService, BoxError>,
}

/// Where its connections come from.
#[derive(Debug)]
pub(crate) enum Source {
    Listener(Sockets),
    /// They are outgoing, each of which somebody asks for.
    Client,
    /// They are outgoing, and the loop keeps some open.
    Upstream(UpstreamConfig),
}

impl Sites {
    /// Opens them all.
    ///
    /// # Errors
    ///
    /// As [`LoopBuilder::build`](crate::LoopBuilder::build).
    pub(crate) fn open<R: Reactor>(
        plans: Vec<Plan>,
        metrics: &ProcessMetrics,
        reactor: &mut R,
    ) -> Result<Self, BoxError> {
        let (count, most) = (plans.len(), metrics.listeners().min(MAX_LISTENERS));
        if count > most {
            return Err(format!("{count} listeners and clients, where there is room for {most}").into());
        }
        let (hosts, sites) = (Vec::new(), Vec::new());
        let (accepting, clients, pools) = (Accepting::new(metrics.clone()), Vec::new(), Vec::new());
        let datagrams = Datagrams::default();
        let mut this = Self { hosts, sites, accepting, datagrams, clients, pools };
        for plan in plans {
            this.add(plan, metrics, reactor)?;
        }
        Ok(this)
    }

    fn add<R: Reactor>(
        &mut self,
        Plan { name, source, service }: Plan,
        metrics: &ProcessMetrics,
        reactor: &mut R,
    ) -> Result<(), BoxError> {
        let BoxedService { host, datagrams, note, layer, client_layer, .. } =
            service.map_err(|source| FactoryError { listener: name.clone(), source })?;
        // What was meant to be secured must not go on without.
        match &source {
            Source::Listener(_) if client_layer.is_some() => {
                return Err(format!("listener \"{name}\": its layer is one for outgoing connections").into());
            }
            Source::Client | Source::Upstream(_) if layer.is_some() => {
                return Err(
                    format!("client \"{name}\": its layer is one for connections that are accepted").into()
                );
            }
            _ => {}
        }
        let at = self.sites.len();
        let (name, metrics): (Arc<str>, _) = (name.into(), metrics.listener(at));
        let (limits, index) = (host.limits(), u16::try_from(at)?);
        self.accepting.add(Door {
            outgoing: !matches!(source, Source::Listener(_)),
            handed_over: if let Source::Listener(sockets) = &source {
                sockets.is_handed_over()
            } else {
                true
            },
            vacant: datagrams.is_some(),
            paused: false,
            name: Arc::clone(&name),
            metrics: metrics.clone(),
            overload_answer: host.overload_answer(),
        });
        let proxied = matches!(&source, Source::Listener(sockets) if sockets.is_proxied());
        let open = match (source, datagrams) {
            (Source::Listener(sockets), Some(service)) => {
                self.datagrams.listen_all(reactor, at, service, sockets)?;
                None
            }
            (Source::Listener(sockets), None) => {
                self.accepting.listen_all(reactor, at, sockets)?;
                None
            }
            (Source::Client, _) => Some(None),
            (Source::Upstream(config), _) => Some(Some(self.add_pool(&name, index, config)?)),
        };
        if let Some(open) = open {
            self.clients.push(Client { name: Arc::clone(&name), note, site: index, open });
        }
        self.sites.push(Arc::new(Site { name, metrics, note, limits, index, proxied, layer, client_layer }));
        self.hosts.push(host);
        Ok(())
    }

    fn add_pool(&mut self, name: &str, site: u16, config: UpstreamConfig) -> Result<Arc<OpenSet>, BoxError> {
        let count = config.connections;
        if count == 0 || count > MAX_UPSTREAM_CONNECTIONS {
            let most = MAX_UPSTREAM_CONNECTIONS;
            return Err(format!("upstream \"{name}\": {count} connections; 1 to {most} can be kept").into());
        }
        let Backoff { first, max } = config.backoff;
        if first.min(max) < Backoff::LEAST {
            let least = Backoff::LEAST;
            return Err(format!(
                "upstream \"{name}\": a back-off of {first:?} to {max:?}; both are {least:?} at the least, or a target that is away would be called without a pause"
            )
            .into());
        }
        let open = Arc::new(OpenSet::new(count));
        self.pools.push(Pool::new(site, config, Arc::clone(&open)));
        Ok(open)
    }
}
