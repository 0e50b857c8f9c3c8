//! `Backend`: which interface of the kernel is under a loop.

use std::sync::Once;

use tidegate_reactor::Uring;

/// The kernel interface under a loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Backend {
    /// What was measured to be no slower: epoll, see DESIGN.md. The log says what else there would be.
    #[default]
    Auto,
    /// epoll(7): the loop receives and sends when the kernel says that it can.
    Epoll,
    /// io_uring(7): the kernel receives, accepts and sends, and reports what it has done. Where it cannot do all that this
    /// needs, the loop runs on epoll, and the log says what is missing.
    Uring,
}

impl Backend {
    /// The reactor, when it is to be io_uring and the kernel can do it. The first loop of a process says in one record what
    /// was chosen and why.
    pub(crate) fn choose(self) -> Option<Uring> {
        static SAID: Once = Once::new();
        match self {
            Self::Epoll => None,
            Self::Auto => {
                SAID.call_once(|| match Uring::new() {
                    Ok(_) => tracing::info!(
                        backend = "epoll",
                        "epoll chosen: io_uring is there, and was not measured to be faster"
                    ),
                    Err(why) => {
                        tracing::info!(backend = "epoll", %why, "epoll chosen: io_uring is not there")
                    }
                });
                None
            }
            Self::Uring => match Uring::new() {
                Ok(reactor) => {
                    SAID.call_once(|| {
                        tracing::info!(backend = "uring", "io_uring chosen: all that is needed was found");
                    });
                    Some(reactor)
                }
                Err(why) => {
                    SAID.call_once(|| {
                        tracing::warn!(backend = "epoll", %why, "io_uring cannot be used; epoll is under the loops");
                    });
                    None
                }
            },
        }
    }
}
