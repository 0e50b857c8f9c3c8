//! Datagrams in batches: many received or sent by one system call, each with the address of its peer.
//!
//! [`Inbound`] is filled by recvmmsg(2), [`Outbound`] is emptied by sendmmsg(2); both keep their memory from one call to
//! the next. Neither waits: a socket that has nothing, or takes nothing, says `EAGAIN`. Addresses stay as the kernel writes
//! them ([`Address`]), so that an answer needs no conversion.
//!
//! Invariant: a datagram that did not fit is marked as truncated, never taken for a whole one.

mod address;
mod bind;
mod control;
mod inbound;
mod outbound;

pub use address::Address;
pub use bind::{
    DatagramOptions, bind_udp_group, bind_unix_datagrams, join_udp_group, prepare, set_buffers,
    start_receiving,
};
pub use control::Arrival;
pub use inbound::{Datagram, Inbound};
pub use outbound::Outbound;

/// The most datagrams of one system call.
pub const BATCH: usize = 32;

/// A length in the type that a structure of the kernel has for it. All of them are below 1 MiB here.
fn narrow<T: TryFrom<usize> + Default>(len: usize) -> T {
    T::try_from(len).unwrap_or_default()
}

/// What a socket's datagrams carry besides their bytes, as [`prepare`] has found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// Received ones bring control data: what address they came to, or the size of the segments that were joined.
    pub control: bool,
    /// Runs of equal size may be sent as one, which the kernel or the network card cuts up (`UDP_SEGMENT`, udp(7)).
    pub segments: bool,
}

#[cfg(test)]
mod tests;
