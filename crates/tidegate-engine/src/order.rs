//! `Order`: what a loop is told about its listeners, and asked about its connections, while it serves.
//!
//! Orders wait in the mailbox and are carried out in their turn, before the loop is told to end. Each has a limit on how
//! many of it wait: who gives them is not trusted to notice that a loop is stuck.

use std::sync::mpsc::SyncSender;

use crate::conn_info::ConnInfo;
use crate::{ConnId, Socket};

/// What is to be done in passing.
#[derive(Debug)]
pub(crate) enum Order {
    Adopt {
        key: u64,
        site: usize,
        socket: Socket,
    },
    Release {
        key: u64,
    },
    /// Of one site, or of all.
    Pause {
        site: Option<usize>,
    },
    Resume {
        site: Option<usize>,
    },
    List(Question),
}

/// Which connections somebody wants to be told of.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) after: Option<ConnId>,
    pub(crate) limit: usize,
    /// Has room for the one answer, so that the loop never waits for whoever asked.
    pub(crate) answer: SyncSender<Vec<ConnInfo>>,
}

/// How many orders wait for a loop at the most.
pub(crate) const MAX_ORDERS: usize = 4096;
/// How many of them may be questions.
pub(crate) const MAX_QUESTIONS: usize = 16;
