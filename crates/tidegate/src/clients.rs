//! Clients of a server: services whose connections are outgoing ones.
//!
//! Each event loop has its own, like listeners; but nothing is bound, so they differ from listeners in everything that
//! concerns sockets. In counters and pages they stand behind all listeners. The one invariant: no two sites of a server have
//! the same name.

use std::sync::Arc;

use tidegate_engine::{BoxError, BoxedService, CounterDef, Service, UpstreamConfig};

use crate::status::ListenerMeta;
use crate::{Error, ServerBuilder};

/// A service and where it connects to.
#[derive(Clone)]
pub(crate) struct ClientSpec {
    pub(crate) name: String,
    /// What the loop keeps connected to; `None`: only what somebody asks for.
    pub(crate) upstream: Option<UpstreamConfig>,
    pub(crate) counters: &'static [CounterDef],
    pub(crate) factory: Arc<dyn Fn() -> Result<BoxedService, BoxError> + Send + Sync>,
}

impl ServerBuilder {
    /// Adds a client to every event loop: a service whose connections are outgoing ones, each of which a callback of that loop
    /// asks for by [`Io::connect`](crate::Io::connect) under this name.
    ///
    /// The name is nobody else's, listener or client; anything else is an error of [`run`](Self::run) and
    /// [`spawn`](Self::spawn). Each connection counts against [`max_connections`](Self::max_connections).
    pub fn client<S: Service>(
        self,
        name: impl Into<String>,
        factory: impl Fn() -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.add_client(name.into(), None, factory)
    }

    /// As [`client`](Self::client), and every event loop keeps so many connections open to the target and makes them again
    /// when they end; callbacks pick one by [`Io::upstream`](crate::Io::upstream).
    pub fn upstream<S: Service>(
        self,
        name: impl Into<String>,
        config: UpstreamConfig,
        factory: impl Fn() -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.add_client(name.into(), Some(config), factory)
    }

    /// Puts TLS under the service of the client or upstream that was added last: its connections are secured, and it gets them
    /// when the server has shown who it is.
    #[cfg(feature = "tls")]
    pub fn client_tls(mut self, tls: tidegate_tls::TlsClient) -> Self {
        let layer: Arc<dyn tidegate_engine::ClientLayer> = Arc::new(tls);
        match self.clients.last_mut() {
            Some(client) => {
                let factory = Arc::clone(&client.factory);
                client.factory = Arc::new(move || Ok(factory()?.client_layer(Arc::clone(&layer))));
            }
            None => {
                let error = "TLS of a client is put under one that was added, and none was";
                self.error.get_or_insert(Error::Service(error.into()));
            }
        }
        self
    }

    fn add_client<S: Service>(
        mut self,
        name: String,
        upstream: Option<UpstreamConfig>,
        factory: impl Fn() -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let factory = Arc::new(move || factory().map(BoxedService::new));
        self.clients.push(ClientSpec { name, upstream, counters: S::COUNTERS, factory });
        self
    }

    /// What is wrong with the names of clients.
    pub(crate) fn check_clients(&self) -> Result<(), Error> {
        for (at, client) in self.clients.iter().enumerate() {
            let name = &client.name;
            let taken = self.listeners.iter().any(|listener| listener.name == *name)
                || self.clients[..at].iter().any(|other| other.name == *name);
            if taken {
                return Err(Error::Service(
                    format!("client {name:?}: there is a listener or a client of that name").into(),
                ));
            }
        }
        Ok(())
    }

    /// Listeners and clients: as many as have counters.
    pub(crate) fn site_count(&self) -> usize {
        self.listeners.len() + self.clients.len()
    }

    /// The names of listeners and clients and of their services, by their numbers.
    pub(crate) fn site_names(&self) -> Vec<(String, String)> {
        let listeners = self.listeners.iter().map(|it| (it.name.clone(), it.service.clone()));
        listeners.chain(self.clients.iter().map(|it| (it.name.clone(), it.name.clone()))).collect()
    }

    /// What those who read the counters know of the clients.
    pub(crate) fn client_metas(&self) -> impl Iterator<Item = ListenerMeta> {
        self.clients.iter().map(|client| ListenerMeta {
            name: client.name.clone(),
            address: match &client.upstream {
                Some(upstream) => format!("to {}", upstream.target),
                None => "outgoing".to_owned(),
            },
            // Each has counters of its own, and they are named after the service.
            service: client.name.clone(),
            counters: client.counters,
        })
    }
}
