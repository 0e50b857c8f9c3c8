//! `EventLoop`: a loop of whichever model its configuration asks for.

use std::io;

use tidegate_reactor::{Epoll, Uring};

use crate::event_loop::Loop;
use crate::shared_loop::SharedLoop;

/// An event loop. Made by [`LoopBuilder`](crate::LoopBuilder); [`run`](Self::run) returns when it was told to stop.
#[derive(Debug)]
pub struct EventLoop(pub(crate) Model);

/// The loops are compiled for each reactor, so that choosing one costs nothing while it runs.
#[derive(Debug)]
pub(crate) enum Model {
    Epoll(Box<Loop<Epoll>>),
    Uring(Box<Loop<Uring>>),
    Shared(Box<SharedLoop>),
}

impl EventLoop {
    /// Serves until it is told to stop, or to quit and all connections have ended.
    ///
    /// # Errors
    ///
    /// The kernel's, when it cannot wait for events any more, or has no memory or permission for a thread.
    pub fn run(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Model::Epoll(event_loop) => event_loop.run(),
            Model::Uring(event_loop) => event_loop.run(),
            Model::Shared(shared) => shared.run(),
        }
    }
}
