//! `GatewayBuilder`: limits and handlers, before the first connection.
//!
//! What cannot work is refused here, so that a running gateway has nothing left to check.

use std::fmt;
use std::time::Duration;

use tidegate_engine::Flow;
use tidegate_frame::{BodyTooLong, PING};

use crate::{FrameContext, Gateway};

/// What answers the frames of a code.
pub(crate) type Handler =
    Box<dyn Fn(&mut FrameContext<'_, '_>, &[u8]) -> Result<Flow, BodyTooLong> + Send + Sync>;

/// What becomes of a frame whose code has no handler. It is counted either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnknown {
    /// It is dropped.
    #[default]
    Drop,
    /// Its connection is closed with [`Reason::UNKNOWN_CODE`](tidegate_engine::Reason::UNKNOWN_CODE).
    Close,
}

/// Puts a [`Gateway`] together; made by [`Gateway::builder`].
pub struct GatewayBuilder {
    pub(crate) heartbeat_interval: Duration,
    pub(crate) heartbeat_grace: Duration,
    pub(crate) on_unknown: OnUnknown,
    pub(crate) max_queued_frames: u32,
    pub(crate) max_frames_per_second: u32,
    /// Sorted by code.
    pub(crate) handlers: Vec<(u16, Handler)>,
    #[cfg(feature = "accounts")]
    pub(crate) accounts: Option<std::sync::Arc<tidegate_accounts::Accounts>>,
}

impl GatewayBuilder {
    pub(crate) fn new() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(60),
            heartbeat_grace: Duration::from_secs(10),
            on_unknown: OnUnknown::default(),
            max_queued_frames: 400,
            max_frames_per_second: 0,
            handlers: Vec::new(),
            #[cfg(feature = "accounts")]
            accounts: None,
        }
    }

    /// Lets `handler` answer the frames of `code`. It gets the body; it must not block, since all connections of the loop
    /// wait for it: see [`FrameContext::handle`] for slow work. A [`BodyTooLong`] that it returns is logged and closes the
    /// connection.
    ///
    /// Codes up to 99 belong to the family of the protocol, and Tidegate's own messages have codes from 100 to 999; a program
    /// is safe from both with codes from 1000 on. Ping cannot be given another meaning, nor can register and login in a
    /// gateway that has accounts.
    ///
    /// # Panics
    ///
    /// When the code is ping's, or has a handler already.
    #[must_use]
    pub fn on(
        mut self,
        code: u16,
        handler: impl Fn(&mut FrameContext<'_, '_>, &[u8]) -> Result<Flow, BodyTooLong> + Send + Sync + 'static,
    ) -> Self {
        assert!(code != PING, "code {code} is ping, which the gateway answers itself");
        match self.handlers.binary_search_by_key(&code, |(code, _)| *code) {
            Ok(_) => panic!("code {code} has two handlers"),
            Err(at) => self.handlers.insert(at, (code, Box::new(handler))),
        }
        self
    }

    /// How often clients are to send a frame. A connection without a complete valid frame for twice this and the grace is
    /// closed. Zero turns that off, and with it the time limit on unfinished frames. Default 60 s.
    #[must_use]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat_interval = interval;
        self
    }

    /// What is allowed over twice the interval. The protocol says 10 s, the default; tests and closed networks may want less.
    #[must_use]
    pub fn heartbeat_grace(mut self, grace: Duration) -> Self {
        self.heartbeat_grace = grace;
        self
    }

    /// What becomes of a frame whose code has no handler. Default [`OnUnknown::Drop`].
    #[must_use]
    pub fn on_unknown(mut self, on_unknown: OnUnknown) -> Self {
        self.on_unknown = on_unknown;
        self
    }

    /// How many frames may wait for a peer after the kernel has refused them; with more the connection is closed. 0: no limit
    /// but the one in bytes ([`Limits::max_output_bytes`](tidegate_engine::Limits::max_output_bytes)). Default 400.
    #[must_use]
    pub fn max_queued_frames(mut self, frames: u32) -> Self {
        self.max_queued_frames = frames;
        self
    }

    /// How many frames a second a peer may send, on average over a second; with more the connection is closed. 0, the
    /// default: no limit.
    #[must_use]
    pub fn max_frames_per_second(mut self, frames: u32) -> Self {
        self.max_frames_per_second = frames;
        self
    }

    /// Who may log in. Without accounts, register and login are codes like any other.
    #[cfg(feature = "accounts")]
    #[must_use]
    pub fn accounts(mut self, accounts: Option<std::sync::Arc<tidegate_accounts::Accounts>>) -> Self {
        self.accounts = accounts;
        self
    }

    /// The gateway.
    ///
    /// # Panics
    ///
    /// When it has accounts, and a handler of the program for register or login.
    #[must_use]
    pub fn build(self) -> Gateway {
        #[cfg(feature = "accounts")]
        if self.accounts.is_some() {
            use tidegate_frame::{LOGIN, REGISTER};
            for (code, _) in &self.handlers {
                assert!(
                    ![REGISTER, LOGIN].contains(code),
                    "code {code} is register or login, which a gateway with accounts answers itself"
                );
            }
        }
        Gateway::new(self)
    }
}

impl fmt::Debug for GatewayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes: Vec<u16> = self.handlers.iter().map(|(code, _)| *code).collect();
        f.debug_struct("GatewayBuilder")
            .field("heartbeat_interval", &self.heartbeat_interval)
            .field("heartbeat_grace", &self.heartbeat_grace)
            .field("on_unknown", &self.on_unknown)
            .field("max_queued_frames", &self.max_queued_frames)
            .field("max_frames_per_second", &self.max_frames_per_second)
            .field("codes", &codes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(codes: &[u16]) -> GatewayBuilder {
        codes.iter().fold(GatewayBuilder::new(), |builder, &code| builder.on(code, |_, _| Ok(Flow::Continue)))
    }

    #[test]
    fn handlers_are_sorted_whatever_the_order() {
        let codes: Vec<u16> = with(&[700, 5, 65_535, 6, 1]).handlers.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, [1, 5, 6, 700, 65_535]);
    }

    #[test]
    #[should_panic(expected = "code 700 has two handlers")]
    fn two_handlers_for_a_code_are_refused() {
        let _ = with(&[700, 5, 700]);
    }

    #[test]
    #[should_panic(expected = "code 0 is ping")]
    fn a_handler_for_ping_is_refused() {
        let _ = with(&[0]);
    }
}
