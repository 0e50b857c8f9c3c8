//! What a connection loses by its end: requests without an answer, each under the reason of its end.
//!
//! Invariant: a request that was in flight is counted once; a connection that broke without one counts as one failure.

use std::time::Duration;

use tidegate_engine::{Closed, Reason};

use super::client::{Client, OVER, Session, WRONG};
use super::course::now;
use super::dialogue::Dialogue;
use super::tally::Tally;

impl<D: Dialogue> Client<D> {
    /// Counts what a connection has lost by its end.
    pub(super) fn count_loss(&self, session: &Session<D::State>, closed: &Closed) {
        let lost = session.in_flight.len() as u64;
        let now = now();
        let mut tally = self.tally();
        let address = closed.address;
        match closed.reason {
            // Whoever ended the run did not want to wait.
            OVER => {}
            WRONG => {
                tally.failures.wrong += lost.max(1);
                let text = session.trouble.as_deref().unwrap_or("an answer that nobody had asked for");
                tally.failures.tell(|| text.to_owned());
            }
            // Said beforehand, and a `GET` may be asked again (RFC 9112, section 9.3.2).
            Reason::DONE => return,
            // At the end of the run what is still in flight has had its time.
            Reason::STOPPED | Reason::IDLE_TIMEOUT | Reason::HEAD_TIMEOUT | Reason::WRITE_TIMEOUT => {
                tally.failures.timeout += lost;
                if lost > 0 {
                    tally.failures.tell(|| format!("no answer of {address} within {:?}", self.timeout));
                }
            }
            Reason::PEER_CLOSED => {
                tally.failures.closed += lost;
                if lost > 0 {
                    tally
                        .failures
                        .tell(|| format!("{address} closed a connection with a request unanswered"));
                }
            }
            Reason::INPUT_OVERFLOW => {
                tally.failures.wrong += lost.max(1);
                tally.failures.tell(|| format!("an answer of {address} has a head that is too long"));
            }
            reason => {
                tally.failures.reset += lost.max(1);
                let errno = closed.errno.map(std::io::Error::from_raw_os_error);
                let why = errno.map_or_else(|| reason.name().to_owned(), |error| error.to_string());
                tally.failures.tell(|| format!("a connection to {address}: {why}"));
            }
        }
        self.count_waiting(session, &mut tally, now);
    }

    /// At a constant rate, what had no answer took at least as long as it has waited: left out, the worst would be missing.
    fn count_waiting(&self, session: &Session<D::State>, tally: &mut Tally, now: u64) {
        let (Some(_), Some(times)) = (&self.pace, self.course.times()) else { return };
        for &since in session.in_flight.iter().filter(|since| times.counts(**since)) {
            tally.latency.record(Duration::from_nanos(now.saturating_sub(since)), 1);
            tally.lost += 1;
        }
    }
}
