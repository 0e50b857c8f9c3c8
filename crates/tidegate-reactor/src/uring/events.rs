//! What follows from each event of the ring.

use rustix::io::Errno;
use tidegate_sys::uring::{Event, Readiness};

use super::conn::{Conn, Ending, Receiving};
use super::{Uring, word};
use crate::last_words::leaves_words;
use crate::{Completion, Token};

impl Uring {
    #[inline]
    pub(super) fn on_event(&mut self, event: Event) -> Option<Completion> {
        match event {
            Event::Receive { word, result, more } => self.on_received(word::token(word), result, more),
            Event::Send { word, bytes, from, result } => self.on_sent(word::token(word), bytes, from, result),
            Event::Accept { word, result, more } => {
                self.listeners.on_accept(word::listener(word), result, more);
                None
            }
            Event::Poll { word, readiness, more, .. } => match readiness {
                Readiness::Input => self.on_woken(more),
                Readiness::Output => match word::datagrams(word) {
                    Some(id) => self.on_datagram_room(id),
                    None => self.on_room(word::token(word)),
                },
                Readiness::Arrival => self.on_arrival(word::datagrams(word)?),
                Readiness::Hangup => self.on_hangup(word::token(word), more),
            },
        }
    }

    /// What a receive came to. Of a connection that was closed the ring takes the bytes back by itself.
    #[inline]
    fn on_received(&mut self, token: Token, result: Result<usize, Errno>, more: bool) -> Option<Completion> {
        let conn = self.conns.find(token)?;
        if !more {
            conn.receiving = Receiving::Idle;
            Self::review(&mut self.unsynced, token, conn);
        }
        let ending = match result {
            Ok(0) => Ending::Ended,
            Ok(_) if conn.ended => return None,
            Ok(_) if conn.holds() => {
                conn.hold(self.ring.received());
                return None;
            }
            Ok(_) => return Some(Completion::Received(token)),
            // Cancelled, or no buffer was left in this turn: armed again when it is wanted.
            Err(Errno::CANCELED | Errno::NOBUFS | Errno::INTR | Errno::AGAIN) => return None,
            Err(errno) => Ending::Failed(errno),
        };
        if conn.ended {
            return None;
        }
        // An end waits behind what came before it; a connection that broke is heard of even while it is paused.
        if conn.held.is_some() || (conn.paused && ending == Ending::Ended) {
            let keeps = match ending {
                Ending::Ended => true,
                Ending::Failed(errno) => !conn.paused || leaves_words(&conn.fd, errno),
            };
            if keeps {
                conn.hold_end(ending);
                return None;
            }
            conn.held = None;
        }
        Some(end(token, conn, ending))
    }

    /// An error or a hang-up was polled for, since nothing is received for now. A hang-up alone is told by receiving.
    fn on_hangup(&mut self, token: Token, more: bool) -> Option<Completion> {
        let conn = self.conns.find(token)?;
        // What has ended with a hang-up would end with it again.
        conn.listens = more;
        conn.hung_up = !more;
        if conn.failed || !(conn.paused || conn.ended) {
            return None;
        }
        let errno = tidegate_sys::socket::take_error(&conn.fd)?;
        if !conn.ended && leaves_words(&conn.fd, errno) {
            conn.broken = Some(errno);
            return None;
        }
        conn.held = None;
        Some(end(token, conn, Ending::Failed(errno)))
    }

    /// A connection that was asked for is there, or is not to be had.
    pub(super) fn on_connected(&mut self, token: Token) -> Completion {
        let Some(conn) = self.conns.find(token) else { return Completion::Failed(token, Errno::BADF) };
        // As for every connection: a send that waits for room waits only on a blocking descriptor.
        let cause = tidegate_sys::socket::take_error(&conn.fd)
            .or_else(|| rustix::io::ioctl_fionbio(&conn.fd, false).err());
        if let Some(errno) = cause {
            return end(token, conn, Ending::Failed(errno));
        }
        conn.connecting = false;
        Self::review(&mut self.unsynced, token, conn);
        Completion::Connected(token)
    }

    /// Once a turn, however often it was woken.
    fn on_woken(&mut self, more: bool) -> Option<Completion> {
        self.polls_waker = more;
        (!std::mem::replace(&mut self.woken, true)).then_some(Completion::Woken)
    }
}

/// The end of a connection's input, which is reported now.
pub(super) fn end(token: Token, conn: &mut Conn, ending: Ending) -> Completion {
    conn.ended = true;
    match conn.broken.map_or(ending, Ending::Failed) {
        Ending::Ended => Completion::Ended(token),
        Ending::Failed(errno) => {
            conn.failed = true;
            conn.awaits_writable = false;
            Completion::Failed(token, errno)
        }
    }
}
