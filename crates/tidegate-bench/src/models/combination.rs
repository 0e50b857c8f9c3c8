//! `Combination`: the choices of the configuration that make a concurrency model, and all ways to combine them.
//!
//! Invariant: this file does not know which of them go together; the configuration of the server says that, in its words.

use std::fmt;

use serde::Serialize;

/// One way to run the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Combination {
    /// `engine.backend`
    pub backend: &'static str,
    /// `engine.trigger`; io_uring has none.
    pub trigger: Option<&'static str>,
    /// `engine.dispatch`
    pub dispatch: &'static str,
    /// `process.accept`
    pub accept: &'static str,
    /// `engine.acceptor`
    pub acceptor: &'static str,
    /// `engine.loops`
    pub loops: u16,
}

impl Combination {
    /// The values of `engine.backend`.
    pub const BACKENDS: [&'static str; 2] = ["epoll", "uring"];
    /// The values of `engine.trigger`.
    pub const TRIGGERS: [&'static str; 3] = ["level", "edge", "oneshot"];
    /// The values of `engine.dispatch`.
    pub const DISPATCHES: [&'static str; 4] = ["inline", "pool", "reactor", "leader-follower"];
    /// The values of `process.accept`.
    pub const ACCEPTS: [&'static str; 3] = ["reuseport", "shared", "handoff"];
    /// The values of `engine.acceptor`.
    pub const ACCEPTORS: [&'static str; 2] = ["each", "main"];

    /// All of them, with one loop and with `loops` in each worker.
    #[must_use]
    pub fn all(loops: u16) -> Vec<Self> {
        let epoll = Self::TRIGGERS.map(|trigger| ("epoll", Some(trigger)));
        let pollers = epoll.into_iter().chain([("uring", None)]);
        let mut loops = vec![1, loops];
        loops.dedup();
        let mut all = Vec::new();
        for (backend, trigger) in pollers {
            for dispatch in Self::DISPATCHES {
                for accept in Self::ACCEPTS {
                    for acceptor in Self::ACCEPTORS {
                        let with = |&loops| Self { backend, trigger, dispatch, accept, acceptor, loops };
                        all.extend(loops.iter().map(with));
                    }
                }
            }
        }
        all
    }

    /// As `KEY=VALUE` of the configuration. What is not said is the default.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        let mut settings = vec![
            format!("engine.backend={}", self.backend),
            format!("engine.dispatch={}", self.dispatch),
            format!("process.accept={}", self.accept),
            format!("engine.acceptor={}", self.acceptor),
            format!("engine.loops={}", self.loops),
        ];
        settings.extend(self.trigger.map(|trigger| format!("engine.trigger={trigger}")));
        settings
    }

    /// Whether a server whose processes have these descriptors of the kernel (`[eventpoll]`, `[io_uring]`) waits on what this
    /// one says.
    pub(super) fn waits_on(&self, descriptors: &[String]) -> bool {
        let has = |kind: &str| descriptors.iter().any(|descriptor| descriptor == kind);
        has(if self.backend == "uring" { "[io_uring]" } else { "[eventpoll]" })
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.backend)?;
        if let Some(trigger) = self.trigger {
            write!(f, "-{trigger}")?;
        }
        write!(f, " {} {}", self.dispatch, self.accept)?;
        match (self.acceptor, self.loops) {
            ("each", 1) => Ok(()),
            ("each", loops) => write!(f, " {loops} loops"),
            (acceptor, loops) => write!(f, " {acceptor}+{loops} loops"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_have_names_of_their_own() {
        let all = Combination::all(2);
        assert_eq!(all.len(), 4 * 4 * 3 * 2 * 2);
        let names: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), all.len());
        assert!(
            names.contains("epoll-edge inline reuseport") && names.contains("uring pool shared main+2 loops")
        );
        assert_eq!(Combination::all(1).len(), all.len() / 2);
    }

    #[test]
    fn the_settings_say_all_of_it() {
        let one = Combination::all(2)[0];
        let said = one.settings().join(" ");
        for part in [
            "backend=epoll",
            "trigger=level",
            "dispatch=inline",
            "accept=reuseport",
            "acceptor=each",
            "loops=1",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
}
