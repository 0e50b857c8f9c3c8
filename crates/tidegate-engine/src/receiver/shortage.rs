//! What a receiver does for want of descriptors: it tells peers, or leaves them in the channel.
//!
//! A message is received whole, so there must be a descriptor for each of its connections: if too few are free, some of the
//! [reserve](super::descriptors::Descriptors). Connections whose service has an answer for it get that one then, and are closed;
//! the descriptors that are free go to the others. A message with more of those than there are free descriptors is left
//! where it is, with all that is behind it, and looked at again after [`RETRY_AFTER`] or when a connection has ended.
//!
//! Invariant: what a message brings is not lost for want of descriptors, unless another thread of this process takes the last
//! ones between the look at the message and its receipt.

use std::os::fd::OwnedFd;

use rustix::net::RecvFlags;
use tidegate_reactor::turn_away;
use tidegate_sys::fd_channel::FdChannel;

use super::Receiver;
use crate::accepting::RETRY_AFTER;
use crate::handover::{BATCH, Origin, decode};
use crate::metrics::{ListenerWord, ProcessWord};

/// Bytes that a peer who is refused may have sent and still gets its answer: the head of a request, of some size.
const SCRATCH_BYTES: usize = 16 << 10;

/// Copies the next message of a channel, without its descriptors, and answers its length; 0: there is none.
fn peek(channel: &FdChannel, message: &mut [u8]) -> usize {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    rustix::net::recv(channel, message, flags).map_or(0, |(len, _)| len)
}

/// How many connections a message says it carries.
fn batch_of(message: &[u8]) -> usize {
    message.get(1).map_or(0, |count| usize::from(*count).min(BATCH))
}

/// How many connections the next message of a channel says it carries.
pub(super) fn next_batch(channel: &FdChannel) -> usize {
    let mut head = [0; 2];
    let len = peek(channel, &mut head);
    batch_of(&head[..len])
}

impl Receiver {
    /// Sees to it that the next message of a channel finds descriptors, of which so few are free. False when it is to stay where
    /// it is. Somebody else may take that message, and the one behind it carry more; then some of those may be lost, but only
    /// to a process that has next to no descriptor left.
    pub(super) fn make_way(&mut self, id: u64, free: usize) -> bool {
        let Some(inlet) = self.inlets.find(id) else { return true };
        let len = peek(&inlet.channel, &mut self.message[..]);
        let message = &self.message[..len];
        let count = batch_of(message);
        if count <= free {
            return true;
        }
        // One that is malformed is received and closed.
        let unanswered = match decode(message, count, self.sites.len(), &mut self.origins) {
            Ok(()) => self.unanswered(&self.origins),
            Err(_) => 0,
        };
        let refuses = unanswered <= free && self.descriptors.give_up(count - free);
        self.report_shortage(refuses);
        refuses
    }

    /// How many of these connections have a service without an answer for want of descriptors.
    pub(super) fn unanswered(&self, origins: &[Origin]) -> usize {
        origins.iter().filter(|origin| self.sites[origin.site].overload_answer.is_none()).count()
    }

    /// Tells a peer that there is no descriptor for it. Its connection is closed by the caller.
    pub(super) fn refuse(&self, socket: &OwnedFd, site: usize, answer: &[u8]) {
        turn_away(socket, answer, &mut [0; SCRATCH_BYTES]);
        self.metrics.listener(site).add(ListenerWord::Overloaded, 1);
    }

    /// There are too few descriptors for a message. If peers are not told, they wait.
    fn report_shortage(&mut self, refuses: bool) {
        self.metrics.add(ProcessWord::AcceptExhausted, 1);
        if !refuses {
            self.exhausted = Some(self.now + RETRY_AFTER);
        }
        if let Some(suppressed) = self.shortages.pass(self.now) {
            tracing::warn!(
                connections = self.balancer.connections(),
                waits = !refuses,
                suppressed,
                "out of descriptors or memory for a new connection; raise the limit of open files"
            );
        }
    }
}
