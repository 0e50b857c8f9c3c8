//! The macros that make a test of a case for each way a loop can work.
//!
//! Also included by the tests of the crate that puts a layer under a service, with the same cases.

/// Runs each case with each way a loop can work. A case that is in no list is dead code, which the compiler reports.
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
