//! The reactor alone, on real sockets: no engine, no service.

/// Runs each case on each back end. A case that is in no list is dead code, which the compiler reports.
#[cfg(test)]
macro_rules! with_each_backend {
    ($($case:ident),+ $(,)?) => {
        with_each_backend!(@ level, LEVEL, $($case)+);
        with_each_backend!(@ edge, EDGE, $($case)+);
        with_each_backend!(@ oneshot, ONESHOT, $($case)+);
        with_each_backend!(@ uring, URING, $($case)+);
    };
    (@ $name:ident, $backend:ident, $($case:ident)+) => {
        mod $name {
            $(
                #[test]
                fn $case() {
                    let backend = $crate::support::Backend::$backend;
                    if backend.is_there() {
                        super::$case(backend);
                    }
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
mod outgoing;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod support;
#[cfg(test)]
mod uring;
#[cfg(test)]
mod watch;
