//! `Handout`: what the master tells each child of a generation, in a memory file.
//!
//! Invariant: a child needs nothing but its handout and the descriptors that it inherits; it reads no configuration file.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tidegate_engine::{CounterDef, MIN_LISTENER_WORDS, Service};
use tidegate_log::LogServer;
use tidegate_process::Child;
use tidegate_sys::shared::{SharedMemory, read_all, sealed_bytes};

use crate::board::Board;
use crate::config::Config;
use crate::layout::Layout;
use crate::status::{ListenerMeta, StatusSource, View};
use crate::tables::TableSizes;
use crate::{Error, ServerBuilder};

use super::generation::views_of;

/// What a child is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Handout {
    pub(crate) generation: u32,
    /// That of the log server and of a program's own processes may be from the time before an upgrade.
    #[serde(deserialize_with = "of_earlier")]
    pub(crate) config: Config,
    /// The certificates, which the child need not have the right to read.
    #[cfg(feature = "full")]
    #[serde(default)]
    pub(crate) tls: crate::tls::Material,
    /// The counters that it inherits: those of the processes that belong to no generation, of generations that are left,
    /// and of its own, which is the last one.
    pub(crate) views: Vec<ViewParts>,
}

/// A view without its counters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ViewParts {
    pub(crate) generation: u64,
    layout: Layout,
    listeners: Vec<(String, String, String)>,
    /// How many words each of them has.
    #[serde(default = "fewest_listener_words")]
    listener_words: usize,
    /// What stands behind the counters.
    #[serde(default)]
    tables: TableSizes,
}

impl Handout {
    pub(crate) fn new(generation: u32, server: &ServerBuilder, status: &StatusSource) -> Self {
        Self {
            generation,
            config: server.config.clone(),
            #[cfg(feature = "full")]
            // Who belongs to no generation serves no peers of it.
            tls: if generation == 0 { Default::default() } else { server.tls.handed_on() },
            views: status.views().map(ViewParts::of).collect(),
        }
    }

    /// As a memory file.
    pub(crate) fn file(&self) -> Result<Arc<OwnedFd>, Error> {
        let json = serde_json::to_vec(self).map_err(|error| Error::Service(error.into()))?;
        sealed_bytes("tidegate-handout", &json)
            .map(Arc::new)
            .map_err(Error::system("handing the configuration over"))
    }

    /// Takes what this child was told.
    pub(crate) fn take(child: &mut Child) -> Result<Self, Error> {
        let fd = child.take_fd(HANDOUT_FD);
        let fd = fd.ok_or_else(|| Error::Service("no configuration was handed over".into()))?;
        let json = read_all(fd.as_fd(), MAX_HANDOUT_BYTES)
            .map_err(Error::system("reading the configuration that was handed over"))?;
        serde_json::from_slice(&json).map_err(|error| Error::Service(error.into()))
    }

    /// Maps the counters that the child inherits.
    pub(crate) fn status(
        &self,
        server: &ServerBuilder,
        child: &mut Child,
        board: Option<Board>,
    ) -> Result<StatusSource, Error> {
        let mut permanent = None;
        let mut generations = Vec::new();
        for parts in &self.views {
            let name = metrics_name(parts.generation);
            let fd = child.take_fd(&name);
            let fd = fd.ok_or_else(|| Error::Service("no counters were handed over".into()))?;
            let view = parts.view(server, fd)?;
            if parts.generation == 0 { permanent = Some(view) } else { generations.push(view) }
        }
        let permanent = permanent.ok_or_else(|| Error::Service("no counters were handed over".into()))?;
        Ok(StatusSource { permanent, generations, board })
    }
}

impl ViewParts {
    pub(crate) fn of(view: &View) -> Self {
        let part = |meta: &ListenerMeta| (meta.name.clone(), meta.address.clone(), meta.service.clone());
        let listeners = view.listeners.iter().map(part).collect();
        let (listener_words, tables) = (view.metrics.listener_words(), view.tables.sizes());
        Self { generation: view.generation, layout: view.layout, listeners, listener_words, tables }
    }

    /// With the counters behind a descriptor.
    pub(crate) fn view(&self, server: &ServerBuilder, metrics: OwnedFd) -> Result<View, Error> {
        let memory = SharedMemory::from_fd(metrics).map_err(Error::system("mapping the counters"))?;
        let meta = |(name, address, service): &(String, String, String)| ListenerMeta {
            name: name.clone(),
            address: address.clone(),
            service: service.clone(),
            counters: counters(server, name, service),
        };
        let listeners: Arc<[ListenerMeta]> = self.listeners.iter().map(meta).collect();
        let (metrics, tables) = views_of(memory, (listeners.len(), self.listener_words), self.tables);
        Ok(View { generation: self.generation, metrics, listeners, layout: self.layout, tables })
    }
}

fn of_earlier<'de, D: Deserializer<'de>>(from: D) -> Result<Config, D::Error> {
    Config::of_earlier(serde_json::Value::deserialize(from)?).map_err(D::Error::custom)
}

/// Of a version that does not say.
const fn fewest_listener_words() -> usize {
    MIN_LISTENER_WORDS
}

/// The counters of a service, by a listener that has it.
fn counters(server: &ServerBuilder, name: &str, service: &str) -> &'static [CounterDef] {
    if service == LOG_SERVICE {
        return LogServer::COUNTERS;
    }
    if let Some(client) = server.clients.iter().find(|client| client.name == name && service == name) {
        return client.counters;
    }
    let same =
        |it: &&crate::server::ListenSpec| it.service == service && (it.name == name || service != "program");
    server.listeners.iter().find(same).map_or(&[], |listener| listener.counters)
}

/// The name under which counters are handed over.
pub(crate) fn metrics_name(generation: u64) -> String {
    format!("metrics:{generation}")
}

/// The name under which the handout is.
pub(crate) const HANDOUT_FD: &str = "handout";
/// The service behind the log socket, in the status.
pub(crate) const LOG_SERVICE: &str = "log-server";
const MAX_HANDOUT_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_has_handed_to_the_log_server_is_read() {
        let views = Vec::new();
        let handout = Handout {
            generation: 0,
            config: Config::default(),
            #[cfg(feature = "full")]
            tls: Default::default(),
            views,
        };
        let mut written = serde_json::to_value(&handout).unwrap();
        assert!(written["config"]["web"].as_object_mut().unwrap().remove("api_max_registrations").is_some());
        let read: Handout = serde_json::from_value(written).unwrap();
        assert_eq!(read.config, handout.config);
    }
}
