//! Letters: what other threads ask of connections and of the loop.

use tidegate_reactor::{End, Reactor, Token};

use super::{Loop, Stage};
use crate::conn::{Missed, State};
use crate::handle::{Command, Letter};
use crate::host::{self, Event};
use crate::metrics::ProcessWord;
use crate::{ConnectFailure, Flow};

impl<R: Reactor> Loop<R> {
    pub(super) fn on_woken(&mut self) {
        self.welcome();
        let mut letters = std::mem::take(&mut self.letters);
        let mut orders = std::mem::take(&mut self.orders);
        let command = self.turn.shared.collect(&mut letters, &mut orders);
        orders.drain(..).for_each(|order| self.carry_out(order));
        self.orders = orders;
        self.turn.shared.collect_dials(&mut self.turn.wishes);
        for (token, letter) in letters.drain(..) {
            self.on_letter(token, letter);
        }
        self.letters = letters;
        // After the command was read: who hands over connections and then tells the loop to quit has them served.
        self.take_over(command);
        match command {
            Some(Command::Stop) => self.stage = Stage::Stopped,
            Some(Command::Quit { grace }) => self.quit(grace),
            None => {}
        }
    }

    /// Admits the connections that an acceptor has handed over; with a command they are the last ones.
    fn take_over(&mut self, command: Option<Command>) {
        if command.is_some() {
            let last = self.turn.shared.intake.close();
            return last.into_iter().for_each(|arrival| self.admit(arrival));
        }
        let mut arrivals = std::mem::take(&mut self.arrivals);
        self.turn.shared.intake.collect(&mut arrivals);
        arrivals.drain(..).for_each(|arrival| self.admit(arrival));
        self.arrivals = arrivals;
    }

    pub(super) fn on_letter(&mut self, token: Token, letter: Letter) {
        let Some(conn) = self.conns.get_mut(token) else {
            self.metrics.add(ProcessWord::StaleHandles, 1);
            self.turn.shared.letter_read(&letter);
            return host::discard(letter);
        };
        if conn.away {
            return conn.miss(Missed::Letter(letter));
        }
        self.turn.shared.letter_read(&letter);
        if let (State::Tied, Letter::Close(reason)) = (conn.state, &letter) {
            return match reason.end() {
                End::Fin => self.part(token, *reason),
                End::Reset => self.close(token, *reason, None),
            };
        }
        if let (State::Connecting | State::Handshaking, Letter::Close(reason)) = (conn.state, &letter)
            && self.pending.contains_key(&token)
        {
            return self.on_unconnected(token, ConnectFailure::Closed(*reason));
        }
        if let (State::Greeting | State::Handshaking, Letter::Close(reason)) = (conn.state, &letter) {
            return self.close(token, *reason, None);
        }
        if conn.state != State::Open {
            // It ends already, and nothing follows what was its last word.
            return host::discard(letter);
        }
        match letter {
            Letter::Send(bytes) => {
                self.turn.record.out.extend_from_slice(&bytes);
                self.settle(token);
            }
            Letter::Close(reason) if reason.end() == End::Fin => {
                self.apply(token, Flow::CloseAfterFlush(reason));
            }
            Letter::Close(reason) => self.close(token, reason, None),
            Letter::Note(note) => {
                // A note resumes the connection, unless its handler suspends it anew.
                let (suspended, site, since) = (conn.suspended, conn.site, conn.last_in);
                conn.suspended = false;
                self.notify(token, Event::Note(note));
                let is_suspended = self.conns.get_mut(token).is_some_and(|conn| conn.suspended);
                if suspended && !is_suspended {
                    // The message for which it was suspended is answered, in what was sent now.
                    self.answered(site, since);
                }
                self.pump(token);
                self.tell_eof(token);
            }
        }
    }
}
