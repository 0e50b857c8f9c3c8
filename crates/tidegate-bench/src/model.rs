//! `Model`: the concurrency models by name. [`Model::named`] is the one place where a name becomes a configuration.

use std::num::NonZero;

use tidegate_engine::{Backend, Dispatch, EngineConfig, Trigger};

/// How a server works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// The baseline: see [`poll_server`](crate::poll_server).
    Poll,
    /// The engine.
    Engine(EngineConfig),
}

/// What holds for every model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Connections at the same time.
    pub max_connections: usize,
    /// Threads of the models that have a pool.
    pub pool_threads: NonZero<usize>,
}

/// Why a name is no model that can run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The name is none of [`Model::NAMES`].
    #[error("no model is called {0:?}; there are {names}", names = Model::NAMES.join(", "))]
    Unknown(String),
}

impl Model {
    /// Every name: the poller, for epoll the trigger, and who runs the handlers.
    pub const NAMES: [&'static str; 9] = [
        "poll",
        "epoll-level-inline",
        "epoll-edge-inline",
        "epoll-oneshot-inline",
        "uring-inline",
        "epoll-edge-pool",
        "uring-pool",
        "epoll-oneshot-reactor",
        "epoll-oneshot-leader-follower",
    ];

    /// The model of this name.
    ///
    /// # Errors
    ///
    /// Nothing is called so.
    pub fn named(name: &str, settings: &Settings) -> Result<Self, ModelError> {
        let engine = EngineConfig {
            max_connections: settings.max_connections,
            pool_threads: settings.pool_threads.get(),
            // What is measured is what is named.
            backend: Backend::Epoll,
            ..EngineConfig::default()
        };
        let uring = |dispatch| Ok(Self::Engine(EngineConfig { backend: Backend::Uring, dispatch, ..engine }));
        let epoll = |trigger, dispatch| Ok(Self::Engine(EngineConfig { trigger, dispatch, ..engine }));
        match name {
            "poll" => Ok(Self::Poll),
            "epoll-level-inline" => epoll(Trigger::Level, Dispatch::Inline),
            "epoll-edge-inline" => epoll(Trigger::Edge, Dispatch::Inline),
            "epoll-oneshot-inline" => epoll(Trigger::Oneshot, Dispatch::Inline),
            "epoll-edge-pool" => epoll(Trigger::Edge, Dispatch::Pool),
            "uring-inline" => uring(Dispatch::Inline),
            "uring-pool" => uring(Dispatch::Pool),
            "epoll-oneshot-reactor" => epoll(Trigger::Oneshot, Dispatch::Reactor),
            "epoll-oneshot-leader-follower" => epoll(Trigger::Oneshot, Dispatch::LeaderFollower),
            other => Err(ModelError::Unknown(other.to_owned())),
        }
    }

    /// Whether a server with these descriptors of the kernel (`[eventpoll]`, `[io_uring]`, as /proc/PID/fd shows them) waits
    /// on what a model of this name waits on. One that fell back to another poller is found out by it.
    #[must_use]
    pub fn waits_on(name: &str, descriptors: &[String]) -> bool {
        let has = |kind: &str| descriptors.iter().any(|descriptor| descriptor == kind);
        match name.split('-').next() {
            Some("epoll") => has("[eventpoll]") && !has("[io_uring]"),
            Some("uring") => has("[io_uring]"),
            _ => !has("[eventpoll]") && !has("[io_uring]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings { max_connections: 77, pool_threads: NonZero::new(2).unwrap() };

    #[test]
    fn every_name_is_known() {
        for name in Model::NAMES {
            assert_ne!(Model::named(name, &SETTINGS), Err(ModelError::Unknown(name.to_owned())), "{name}");
        }
        let error = Model::named("select", &SETTINGS).unwrap_err();
        assert!(error.to_string().starts_with("no model is called \"select\"; there are poll, epoll-level-"));
    }

    #[test]
    fn the_trigger_is_the_one_named() {
        let triggers = [("level", Trigger::Level), ("edge", Trigger::Edge), ("oneshot", Trigger::Oneshot)];
        for (name, trigger) in triggers {
            let Ok(Model::Engine(config)) = Model::named(&format!("epoll-{name}-inline"), &SETTINGS) else {
                panic!("{name}")
            };
            assert_eq!((config.trigger, config.max_connections), (trigger, 77));
            assert_eq!(config.dispatch, Dispatch::Inline);
        }
    }

    #[test]
    fn a_pool_has_the_threads_asked_for() {
        let Ok(Model::Engine(config)) = Model::named("epoll-edge-pool", &SETTINGS) else { panic!("no pool") };
        assert_eq!((config.dispatch, config.pool_threads), (Dispatch::Pool, 2));
    }

    #[test]
    fn a_server_that_fell_back_is_found_out() {
        let waits_on = |name, kinds: &[&str]| {
            let kinds: Vec<String> = kinds.iter().map(|&kind| kind.to_owned()).collect();
            Model::waits_on(name, &kinds)
        };
        assert!(waits_on("poll", &["[eventfd]"]));
        assert!(!waits_on("poll", &["[eventpoll]"]));
        assert!(waits_on("epoll-edge-inline", &["[eventfd]", "[eventpoll]"]));
        assert!(!waits_on("epoll-edge-inline", &["[eventpoll]", "[io_uring]"]));
        assert!(waits_on("uring-pool", &["[io_uring]"]));
        assert!(!waits_on("uring-pool", &["[eventpoll]"]));
    }
}
