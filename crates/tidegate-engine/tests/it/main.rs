//! The engine with real sockets: a service that does what its peers tell it, and clients that never wait for ever.

/// Runs each case with each way a loop can work. A case that is in no list is dead code, which the compiler reports.
#[cfg(test)]
macro_rules! under_each_model {
    ($($case:ident),+ $(,)?) => {
        under_each_model!(@ level, Epoll, Level, Inline, $($case)+);
        under_each_model!(@ edge, Epoll, Edge, Inline, $($case)+);
        under_each_model!(@ oneshot, Epoll, Oneshot, Inline, $($case)+);
        under_each_model!(@ uring, Uring, Edge, Inline, $($case)+);
        under_each_model!(@ level_pool, Epoll, Level, Pool, $($case)+);
        under_each_model!(@ edge_pool, Epoll, Edge, Pool, $($case)+);
        under_each_model!(@ oneshot_pool, Epoll, Oneshot, Pool, $($case)+);
        under_each_model!(@ uring_pool, Uring, Edge, Pool, $($case)+);
        under_each_model!(@ reactor, Epoll, Oneshot, Reactor, $($case)+);
        under_each_model!(@ leader_follower, Epoll, Oneshot, LeaderFollower, $($case)+);
    };
    (@ $name:ident, $backend:ident, $trigger:ident, $dispatch:ident, $($case:ident)+) => {
        mod $name {
            use tidegate_engine::{Backend, Dispatch, EngineConfig, Trigger};
            $(
                #[test]
                fn $case() {
                    let (backend, trigger) = (Backend::$backend, Trigger::$trigger);
                    let dispatch = Dispatch::$dispatch;
                    crate::support::under(
                        EngineConfig { backend, trigger, dispatch, ..EngineConfig::default() },
                        super::$case,
                    );
                }
            )+
        }
    };
}

/// Makes tests of the cases again, one for each queue of timers but the default, which all other tests have.
#[cfg(test)]
macro_rules! with_each_other_timer_queue {
    ($($case:ident),+ $(,)?) => {
        with_each_other_timer_queue!(@ heap, Heap, $($case)+);
        with_each_other_timer_queue!(@ tree, Tree, $($case)+);
        with_each_other_timer_queue!(@ list, List, $($case)+);
    };
    (@ $name:ident, $timers:ident, $($case:ident)+) => {
        mod $name {
            use tidegate_engine::{EngineConfig, TimerKind};
            $(
                #[test]
                fn $case() {
                    super::$case(EngineConfig { timers: TimerKind::$timers, ..EngineConfig::default() });
                }
            )+
        }
    };
}

/// As `under_each_model`, but at the same time: for cases that mostly wait.
#[cfg(test)]
macro_rules! under_all_models_at_once {
    ($($case:ident),+ $(,)?) => {
        mod at_once {
            $(
                #[test]
                fn $case() {
                    crate::support::under_all_models_at_once(super::$case);
                }
            )+
        }
    };
}

#[cfg(test)]
mod acceptor;
#[cfg(test)]
mod addresses;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod closing;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod datagrams;
#[cfg(test)]
mod descriptors;
#[cfg(test)]
mod files;
#[cfg(test)]
mod greeting;
#[cfg(test)]
mod handles;
#[cfg(test)]
mod handover;
#[cfg(test)]
mod hangups;
#[cfg(test)]
mod input;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod latency;
mod limits;
#[cfg(test)]
mod named;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod output;
#[cfg(test)]
mod panics;
#[cfg(test)]
mod pool;
#[cfg(test)]
mod receiving;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod retiring;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod support;
#[cfg(test)]
mod suspend;
#[cfg(test)]
mod ties;
#[cfg(test)]
mod time;
#[cfg(test)]
mod upstreams;
#[cfg(test)]
mod workers;
