//! The sockets of a server's listeners: how many each gets, from where, and what those who read the counters know of them.
//!
//! Invariant: when one cannot be had, those that were made for it before are gone again.

use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::Service;
use tidegate_log::LogServer;
use tidegate_process::systemd::ActivatedSockets;

use super::ServerBuilder;
use crate::Error;
use crate::config::Accept;
use crate::run;
use crate::sockets::{BindOptions, Bound, Share};
use crate::status::ListenerMeta;

impl ServerBuilder {
    /// Binds all listeners for whoever accepts in so many workers, beside those of the generation before; an address that is
    /// taken is tried again for as long as `patience`. Sockets in `given` are taken by their names in the place of new ones.
    pub(crate) fn bind_beside(
        &self,
        workers: u32,
        before: &[Bound],
        given: &mut ActivatedSockets,
        patience: Duration,
    ) -> Result<Vec<Bound>, Error> {
        let mut bound: Vec<Bound> = Vec::with_capacity(self.listeners.len());
        for listener in &self.listeners {
            let sharing = match self.config.process.accept {
                _ if listener.answers_for_all => Share::All,
                // All loops of a worker have it, and where an acceptor's process accepts, all workers.
                _ if listener.address.is_datagram() && (self.has_acceptor() || self.hands_over()) => {
                    Share::One
                }
                // One process accepts from it.
                Accept::Handoff if workers > 0 => Share::One,
                Accept::Shared => Share::One,
                Accept::Reuseport | Accept::Handoff => {
                    Share::Each(usize::try_from(workers.max(1)).unwrap_or(1) * self.slots_per_worker())
                }
            };
            let options = BindOptions { tcp: listener.options.tcp, sharing, patience };
            let known = before.iter().find(|bound| bound.is(&listener.name, &listener.address));
            let outcome = match (known, given.remove(&listener.name)) {
                (Some(known), _) => known.next(&listener.name, options),
                (None, sockets) if !sockets.is_empty() => {
                    Bound::adopt(&listener.name, &listener.address, sockets, sharing)
                }
                (None, _) => Bound::bind(&listener.name, &listener.address, options),
            };
            match outcome {
                Ok(listener) => bound.push(listener),
                Err(error) => {
                    let is_new = |it: &&Bound| !before.iter().any(|known| known.is(&it.name, &it.configured));
                    bound.iter().filter(is_new).for_each(Bound::remove_file);
                    return Err(self.with_origin(error));
                }
            }
        }
        Ok(bound)
    }

    /// An address that cannot be had, with where the configuration says it.
    fn with_origin(&self, error: crate::BindError) -> Error {
        match self.config.origin(&format!("listen.{}.address", error.listener())) {
            Some(origin) => Error::BindAt { origin: origin.to_string(), source: error },
            None => Error::Bind(error),
        }
    }

    /// What those who read the counters know of the listeners, whose real addresses are given.
    pub(crate) fn listener_metas<'a>(&self, addresses: impl Iterator<Item = &'a str>) -> Arc<[ListenerMeta]> {
        let metas = self.listeners.iter().zip(addresses).map(|(listener, address)| ListenerMeta {
            name: listener.name.clone(),
            address: address.to_owned(),
            service: listener.service.clone(),
            counters: listener.counters,
        });
        metas.chain(self.client_metas()).collect()
    }

    /// What is known of the log socket.
    pub(crate) fn log_meta(&self) -> Option<ListenerMeta> {
        self.operated.then(|| ListenerMeta {
            name: "log".to_owned(),
            address: format!("unix:{}", self.config.log_socket().display()),
            service: run::handout::LOG_SERVICE.to_owned(),
            counters: LogServer::COUNTERS,
        })
    }
}
