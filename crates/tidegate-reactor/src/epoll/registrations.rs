//! `Registrations`: keeps what the kernel watches of each connection at what is wanted.
//!
//! Changes are noted when they happen and carried out together before the next wait, so that an event costs at most one
//! epoll_ctl(2), and what is changed and changed back within a turn costs none. What is wanted, [`Trigger`] says.
//!
//! Invariant: between two waits, a connection whose registration differs from what is wanted stands in the list, once.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::control;
use super::source::{Source, Sources};
use super::word::pack;
use crate::trigger::Interest;
use crate::{Token, Trigger};

#[derive(Debug)]
pub(super) struct Registrations {
    trigger: Trigger,
    /// The connections to look at before the next wait (`Source::unsynced`). Some may have been closed since.
    unsynced: Vec<Token>,
    /// Connections that the kernel refused to watch on, and why.
    refused: Vec<(Token, Errno)>,
}

impl Registrations {
    pub(super) fn new(trigger: Trigger) -> Self {
        Self { trigger, unsynced: Vec::new(), refused: Vec::new() }
    }

    /// See [`Trigger::repeats`].
    #[inline]
    pub(super) fn repeats(&self) -> bool {
        self.trigger.repeats()
    }

    /// Begins to watch a connection.
    pub(super) fn add(
        &self,
        epoll: impl AsFd,
        token: Token,
        socket: impl AsFd,
        interest: Interest,
    ) -> Result<(), Errno> {
        control::add(epoll, socket, pack(token), self.trigger.flags(interest))
    }

    /// An event of this connection was reported.
    #[inline]
    pub(super) fn fired(&mut self, token: Token, source: &mut Source) {
        // What is reported without any interest is ERR or HUP, which would only be reported again.
        if self.trigger == Trigger::Oneshot
            && !matches!(source.registered, Some(Interest::Neither | Interest::Connect))
        {
            source.registered = None;
            self.review(token, source);
        }
    }

    /// A connection is there: from now on it is watched for reading.
    pub(super) fn connected(&mut self, token: Token, source: &mut Source) {
        source.registered = None;
        self.review(token, source);
    }

    /// The end of a connection, or that it broke, is being reported: nothing more will be read from it.
    pub(super) fn end_reading(&mut self, token: Token, source: &mut Source) {
        source.ended = true;
        self.review(token, source);
    }

    /// The state of a connection changed, and with it perhaps what is wanted.
    #[inline]
    pub(super) fn review(&mut self, token: Token, source: &mut Source) {
        if !source.unsynced && source.registered != Some(self.trigger.wanted(source)) {
            source.unsynced = true;
            self.unsynced.push(token);
        }
    }

    /// Tells the kernel what has changed. To be called before each wait.
    #[inline]
    pub(super) fn sync_all(&mut self, epoll: BorrowedFd<'_>, sources: &mut Sources) {
        while let Some(token) = self.unsynced.pop() {
            if let Some(source) = sources.find(token) {
                self.sync(epoll, token, source);
            }
        }
    }

    /// At most one epoll_ctl(2). Modifying looks at the readiness anew, so what became ready meanwhile is not missed.
    fn sync(&mut self, epoll: BorrowedFd<'_>, token: Token, source: &mut Source) {
        source.unsynced = false;
        let interest = self.trigger.wanted(source);
        if source.registered == Some(interest) {
            return;
        }
        source.registered = Some(interest);
        if let Err(errno) = control::modify(epoll, &source.fd, pack(token), self.trigger.flags(interest)) {
            self.refused.push((token, errno));
        }
    }

    /// Whether [`take_refused`](Self::take_refused) has something.
    #[inline]
    pub(super) fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// A connection that is not watched any more though it should be. It may have been closed since.
    pub(super) fn take_refused(&mut self) -> Option<(Token, Errno)> {
        self.refused.pop()
    }
}
