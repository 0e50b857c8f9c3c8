//! The reactor alone, on real sockets: no engine, no service.

/// Runs each case under each trigger. A case that is in no list is dead code, which the compiler reports.
#[cfg(test)]
macro_rules! with_each_trigger {
    ($($case:ident),+ $(,)?) => {
        with_each_trigger!(@ level, Level, $($case)+);
        with_each_trigger!(@ edge, Edge, $($case)+);
        with_each_trigger!(@ oneshot, Oneshot, $($case)+);
    };
    (@ $name:ident, $trigger:ident, $($case:ident)+) => {
        mod $name {
            $(
                #[test]
                fn $case() {
                    super::$case(tidegate_reactor::Trigger::$trigger);
                }
            )+
        }
    };
}

#[cfg(test)]
mod connections;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod support;
