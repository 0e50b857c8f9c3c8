//! `SpawnedServer`: a server on threads of the calling process, which keeps its signals.

use std::net::SocketAddr;
use std::time::Duration;

use super::Ready;
use crate::Error;
use crate::run::loops::WorkerLoops;
use crate::sockets::Bound;

/// A server on threads of this process. Dropping it stops the server.
#[derive(Debug)]
pub struct SpawnedServer {
    pub(crate) ready: Ready,
    /// Taken when it is joined.
    pub(crate) loops: Option<WorkerLoops>,
    pub(crate) bound: Vec<Bound>,
}

impl SpawnedServer {
    /// The listeners with their real addresses.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The real address of the listener `name`, of TCP or UDP.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        let (_, address) = self.ready.listeners.iter().find(|(known, _)| known == name)?;
        address.strip_prefix("udp:").unwrap_or(address).parse().ok()
    }

    /// Stops accepting; connections may finish within `grace`.
    pub fn quit(&self, grace: Duration) {
        if let Some(loops) = &self.loops {
            loops.quit(grace);
        }
    }

    /// Closes everything.
    pub fn stop(&self) {
        if let Some(loops) = &self.loops {
            loops.stop();
        }
    }

    /// Waits until the server has ended.
    ///
    /// # Errors
    ///
    /// The first event loop's that failed.
    pub fn join(mut self) -> Result<(), Error> {
        self.loops.take().map_or(Ok(()), WorkerLoops::join)
    }
}

impl Drop for SpawnedServer {
    fn drop(&mut self) {
        self.stop();
        if let Some(Err(error)) = self.loops.take().map(WorkerLoops::join) {
            tracing::error!(%error, "event loop failed");
        }
        self.bound.iter().for_each(Bound::remove_file);
    }
}
