//! `Server`: one protocol under one model, in this process.

use std::net::{SocketAddr, TcpListener};

use tidegate_engine::{BoxError, LoopBuilder, Running};

use crate::poll_server::PollServer;
use crate::{Echo, Hello, Measured, Model, Protocol, ServiceKind, Settings, Sleep};

/// A server that is measured.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Engine(Running),
    Poll(PollServer),
}

/// Longer than the usual limit of the kernel (`net.core.somaxconn`), which cuts it.
const BACKLOG: i32 = 16_384;

impl Server {
    /// Listens on `address` and serves. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// The address cannot be had, or the model cannot run here.
    pub fn start(
        model: Model,
        settings: &Settings,
        service: ServiceKind,
        address: SocketAddr,
    ) -> Result<Self, BoxError> {
        let listener = TcpListener::bind(address)?;
        // Once more, since the standard library asks for a short queue: thousands connect at once.
        rustix::net::listen(&listener, BACKLOG)?;
        let address = listener.local_addr()?;
        let inner = match service {
            ServiceKind::Hello => Inner::start(model, settings, listener, Hello),
            ServiceKind::Echo => Inner::start(model, settings, listener, Echo),
            ServiceKind::Sleep => Inner::start(model, settings, listener, Sleep),
        }?;
        Ok(Self { address, inner })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes everything and waits for the end.
    ///
    /// # Errors
    ///
    /// What the server ended with.
    pub fn stop(self) -> std::io::Result<()> {
        match self.inner {
            Inner::Poll(server) => server.stop(),
            Inner::Engine(running) => {
                running.stop();
                running.join()
            }
        }
    }
}

impl Inner {
    fn start<P: Protocol>(
        model: Model,
        settings: &Settings,
        listener: TcpListener,
        protocol: P,
    ) -> Result<Self, BoxError> {
        match model {
            Model::Poll => Ok(Self::Poll(PollServer::spawn(listener, protocol, settings.max_connections)?)),
            Model::Engine(config) => {
                let builder = LoopBuilder::new(config);
                Ok(Self::Engine(builder.listen("measured", listener, || Ok(Measured(protocol))).spawn()?))
            }
        }
    }
}
