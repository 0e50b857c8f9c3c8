//! `Once`: a reply that either the accounts answer, or, when they refuse the request at once, whoever asked them.

use std::sync::{Arc, Mutex, PoisonError};

use tidegate_accounts::AccountsError;

use super::undecided;
use crate::{Reply, Response};

/// A reply in two hands, of which one sends it.
pub(super) struct Once {
    reply: Arc<Mutex<Option<Reply>>>,
}

/// Hears what the accounts have decided.
pub(super) type Done<T> = Box<dyn FnOnce(Result<T, AccountsError>) + Send>;

impl Once {
    pub(super) fn new(reply: Reply) -> Self {
        Self { reply: Arc::new(Mutex::new(Some(reply))) }
    }

    /// Asks the accounts, and answers what `answer` makes of their decision, or that there is none.
    pub(super) fn submit<T: 'static>(
        self,
        ask: impl FnOnce(Done<T>) -> Result<(), AccountsError>,
        answer: impl FnOnce(T) -> Response + Send + 'static,
    ) {
        let theirs = Self { reply: Arc::clone(&self.reply) };
        let asked = ask(Box::new(move |decided| {
            theirs.send(match decided {
                Ok(decision) => answer(decision),
                Err(error) => undecided(&error),
            });
        }));
        if let Err(error) = asked {
            self.send(undecided(&error));
        }
    }

    fn send(&self, response: Response) {
        let reply = self.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = reply {
            reply.send(response);
        }
    }
}
