//! Last words: what can still be received over a connection that is broken.
//!
//! A peer that hangs up with FIN and is then sent something answers with a reset; what it had sent before lies in the
//! socket's buffer all the same, and all of it. So does what was sent over a Unix socket, which loses nothing when a peer
//! goes. Over TCP without a FIN, something is missing anyhow. Nothing here receives.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::AddressFamily;

/// Whether a connection that fails with this error is to be received from to its end before it is said to have failed. It
/// ends by itself then: there is nothing to wait for behind a reset.
pub(crate) fn leaves_words(socket: impl AsFd, errno: Errno) -> bool {
    match errno {
        // The kernel gives EPIPE for a reset that came behind a FIN.
        Errno::PIPE => true,
        Errno::CONNRESET => is_local(socket),
        _ => false,
    }
}

/// Whether it is over a Unix socket.
fn is_local(socket: impl AsFd) -> bool {
    rustix::net::sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
}
