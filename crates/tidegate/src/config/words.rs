//! The keys whose values are words: one enum each.
//!
//! Invariant: an enum's words here are all the words its key knows. Which of them this version serves, and
//! which are "not yet", is the schema's business.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines an enum of which each variant is one word of the configuration.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every word, in the order of the documentation.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word of the configuration file.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// How connections come to workers: `process.accept`.
    Accept {
        /// One socket per worker, spread by the kernel (`SO_REUSEPORT`).
        Reuseport = "reuseport",
        /// One socket that all workers accept from.
        Shared = "shared",
        /// An acceptor process that passes descriptors on.
        Handoff = "handoff",
    }
}
words! {
    /// The lowest version of TLS: `min_version` of `listen.tls`.
    TlsVersion {
        /// 1.2, RFC 5246.
        Tls12 = "1.2",
        /// 1.3, RFC 8446.
        Tls13 = "1.3",
    }
}
words! {
    /// The kernel interface under the reactor: `engine.backend`.
    Backend {
        /// What is measured to be no slower; epoll today.
        Auto = "auto",
        /// Readiness.
        Epoll = "epoll",
        /// Completion.
        Uring = "uring",
    }
}
words! {
    /// Registration of connections on epoll: `engine.trigger`.
    Trigger {
        /// Level-triggered.
        Level = "level",
        /// Edge-triggered.
        Edge = "edge",
        /// One event, then armed again.
        Oneshot = "oneshot",
    }
}
words! {
    /// Where handlers run: `engine.dispatch`.
    Dispatch {
        /// In the loop.
        Inline = "inline",
        /// On a pool, message by message.
        Pool = "pool",
        /// On a pool that also does the reading and writing.
        Reactor = "reactor",
        /// Threads that take turns at the poller.
        LeaderFollower = "leader-follower",
    }
}
words! {
    /// Which loops accept: `engine.acceptor`.
    Acceptor {
        /// Each loop for itself.
        Each = "each",
        /// A main reactor for the others.
        Main = "main",
    }
}
words! {
    /// Who gets the next connection when one accepts for others: `engine.balance`.
    Balance {
        /// In turn.
        RoundRobin = "round-robin",
        /// Whoever has fewest.
        LeastConnections = "least-connections",
        /// By the peer's address.
        Hash = "hash",
    }
}
words! {
    /// The timer queue: `engine.timers`.
    Timers {
        /// Hierarchical wheel.
        Wheel = "wheel",
        /// Binary heap.
        Heap = "heap",
        /// Ordered tree.
        Tree = "tree",
        /// Sorted list.
        List = "list",
    }
}
words! {
    /// What a frame without a handler does: `gateway.on_unknown`.
    OnUnknown {
        /// It is dropped and counted.
        Drop = "drop",
        /// It closes the connection.
        Close = "close",
    }
}
words! {
    /// Whether requests are recorded: `web.access_log`.
    AccessLog {
        /// They are not.
        Off = "off",
        /// As lines that Apache and nginx write.
        Combined = "combined",
        /// As records with attributes.
        Json = "json",
    }
}
words! {
    /// Where the id of a request comes from: `web.request_id`.
    RequestId {
        /// There is none.
        Off = "off",
        /// Each gets a new one.
        New = "new",
        /// The one that it came with, if it can be one.
        Accept = "accept",
    }
}
words! {
    /// The severity of a log record.
    Level {
        /// Nothing at all.
        Off = "off",
        /// Something failed.
        Error = "error",
        /// Something is about to, or was refused.
        Warn = "warn",
        /// What an operator wants to know.
        Info = "info",
        /// What a developer wants to know.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
}
