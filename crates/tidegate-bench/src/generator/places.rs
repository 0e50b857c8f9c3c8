//! `Places`: the connections of a run: made, made anew when they end, settled and closed.
//!
//! Invariant: each place has one connection or one that is being made, but for the moment before it is made anew.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tidegate_engine::{ConnHandle, HandleError};

use super::client::{Event, Lane, Note};
use super::error::LoadError;
use super::spec::LoadSpec;
use super::tally::Failures;
use super::threads::Asker;

/// The connections of a run, and the threads that have them.
#[derive(Debug)]
pub(super) struct Places {
    spec: LoadSpec,
    askers: Vec<Asker>,
    events: Receiver<Event>,
    places: Vec<Place>,
    /// Places with a connection.
    open: usize,
    /// Those of them that were told to settle and have not.
    unsettled: usize,
    /// Places that want one, and from when on; the nearest first.
    wanted: VecDeque<(Instant, u32)>,
    /// Connections that are being made.
    under_way: usize,
    reconnects: u64,
    /// Nothing is made anew any more.
    closing: bool,
    /// Of making connections.
    failures: Failures,
}

/// A place of the run, and the connection that has it.
#[derive(Debug)]
struct Place {
    conn: Option<ConnHandle<Note>>,
    lane: Lane,
    settling: bool,
}

/// Connections that are made at the same time: fewer than the queue of any server that is to have thousands.
const UNDER_WAY: usize = 128;
/// After a connection that brought nothing, its place waits so long for another.
const PAUSE: Duration = Duration::from_millis(100);

impl Places {
    pub(super) fn new(spec: &LoadSpec, askers: Vec<Asker>, events: Receiver<Event>) -> Self {
        let asking = spec.asking();
        let place = |number: u32| Place {
            conn: None,
            lane: Lane { number, turn: turn(number as usize, asking, spec.connections), sent: 0 },
            settling: false,
        };
        Self {
            places: (0_u32..).take(spec.connections).map(place).collect(),
            spec: spec.clone(),
            askers,
            events,
            open: 0,
            unsettled: 0,
            wanted: VecDeque::new(),
            under_way: 0,
            reconnects: 0,
            closing: false,
            failures: Failures::default(),
        }
    }

    pub(super) fn askers(&self) -> &[Asker] {
        &self.askers
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = Lane> {
        self.places.iter().map(|place| place.lane)
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects
    }

    pub(super) fn failures(&self) -> &Failures {
        &self.failures
    }

    /// The first connection, and from then on the others. When the server is not there, that is all there is to say.
    pub(super) fn begin(&mut self) {
        self.wanted.push_back((Instant::now(), 0));
    }

    pub(super) fn begin_others(&mut self) {
        let now = Instant::now();
        self.wanted.extend((1_u32..).take(self.places.len().saturating_sub(1)).map(|number| (now, number)));
    }

    /// Lets all ask that are to.
    pub(super) fn go(&self) {
        for conn in self.places.iter().filter(|place| place.lane.turn.is_some()).filter_map(Place::conn) {
            post(conn, || Note::Go);
        }
    }

    /// Lets all settle that ask; [`unsettled`](Self::unsettled) says how many have not yet.
    pub(super) fn settle(&mut self) {
        for place in self.places.iter_mut().filter(|place| place.lane.turn.is_some()) {
            if let Some(conn) = &place.conn {
                post(conn, || Note::Settle);
                place.settling = true;
                self.unsettled += 1;
            }
        }
    }

    /// Nothing is made anew from now on.
    pub(super) fn begin_closing(&mut self) {
        self.closing = true;
        self.wanted.clear();
    }

    /// Tells those that have not settled.
    pub(super) fn tell_unsettled(&self, note: impl Fn() -> Note) {
        for conn in self.places.iter().filter(|place| place.settling).filter_map(Place::conn) {
            post(conn, &note);
        }
    }

    /// Ends all connections and the threads that had them.
    pub(super) fn close(&mut self, patience: Duration) -> Result<(), LoadError> {
        self.begin_closing();
        for conn in self.places.iter().filter_map(Place::conn) {
            post(conn, || Note::End);
        }
        let patience = Instant::now() + patience;
        while self.open + self.under_way > 0 && Instant::now() < patience {
            self.turn(patience)?;
        }
        for asker in &mut self.askers {
            asker.stop().map_err(|error| LoadError::Thread(error.into()))?;
        }
        Ok(())
    }

    /// Makes what connections are due, then handles events until there is none or the time has come.
    pub(super) fn turn(&mut self, until: Instant) -> Result<(), LoadError> {
        self.connect_some()?;
        let next = match self.wanted.front() {
            Some((at, _)) if self.under_way < UNDER_WAY => until.min(*at),
            _ => until,
        };
        match self.events.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(event) => self.take(event)?,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(LoadError::Thread("it has ended before its time".into()));
            }
        }
        while let Ok(event) = self.events.try_recv() {
            self.take(event)?;
        }
        Ok(())
    }

    fn connect_some(&mut self) -> Result<(), LoadError> {
        let now = Instant::now();
        while self.under_way < UNDER_WAY {
            let Some(&(at, number)) = self.wanted.front() else { break };
            if at > now {
                break;
            }
            self.wanted.pop_front();
            let place = number as usize;
            let to = &self.spec.to[place % self.spec.to.len()];
            // By the round of the targets: the sources of a target would else be those of its own turn only.
            let from = (place / self.spec.to.len()).checked_rem(self.spec.from.len());
            let asker = &self.askers[place % self.askers.len()];
            let lane = self.places[place].lane;
            let from = from.map(|nth| self.spec.from[nth]);
            asker.connect(to, from, self.spec.timeout, lane).map_err(LoadError::Thread)?;
            self.under_way += 1;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), LoadError> {
        match event {
            Event::Opened(number, conn) => {
                if self.closing {
                    // One that has gone already tells so itself.
                    let _ = conn.post(Note::End);
                }
                self.places[number as usize].conn = Some(conn);
                self.under_way -= 1;
                self.open += 1;
            }
            Event::Settled(lane) => {
                self.places[lane.number as usize].lane = lane;
                self.has_settled(lane.number);
            }
            Event::Closed { lane, was_useful } => {
                self.has_settled(lane.number);
                let place = &mut self.places[lane.number as usize];
                (place.conn, place.lane) = (None, lane);
                self.open -= 1;
                self.want(lane.number, if was_useful { Duration::ZERO } else { PAUSE });
            }
            Event::Failed(lane, text) => {
                self.under_way -= 1;
                self.failures.connect += 1;
                self.failures.tell(|| text);
                self.want(lane.number, PAUSE);
            }
            Event::Rejected(text) => return Err(LoadError::Rejected(text)),
        }
        Ok(())
    }

    fn has_settled(&mut self, number: u32) {
        if std::mem::take(&mut self.places[number as usize].settling) {
            self.unsettled -= 1;
        }
    }

    /// A place has lost its connection, or did not get one.
    fn want(&mut self, number: u32, pause: Duration) {
        if self.closing {
            return;
        }
        self.reconnects += 1;
        let at = Instant::now() + pause;
        if pause.is_zero() {
            self.wanted.push_front((at, number));
        } else {
            self.wanted.push_back((at, number));
        }
    }
}

impl Place {
    fn conn(&self) -> Option<&ConnHandle<Note>> {
        self.conn.as_ref()
    }
}

/// One that has gone tells so itself. The mailbox is larger than any loop's share that fits into the ports of an address;
/// beyond it a loop needs a moment.
fn post(conn: &ConnHandle<Note>, note: impl Fn() -> Note) {
    while conn.post(note()) == Err(HandleError::Full) {
        std::thread::yield_now();
    }
}

/// Which of the `asking` this one of `all` is: they are spread evenly, so that active and silent connections stand side by side
/// in the server's tables.
fn turn(number: usize, asking: usize, all: usize) -> Option<u32> {
    let nth = (number * asking).div_ceil(all);
    (nth < asking && nth * all / asking == number).then(|| u32::try_from(nth).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_ask_are_spread_evenly_and_numbered() {
        for (asking, all) in [(1, 1), (1, 10), (3, 10), (10, 10), (100, 10_000), (7, 9)] {
            let turns: Vec<(usize, u32)> =
                (0..all).filter_map(|number| Some((number, turn(number, asking, all)?))).collect();
            assert_eq!(turns.len(), asking, "{asking} of {all}: {turns:?}");
            for (nth, (number, turn)) in turns.iter().enumerate() {
                assert_eq!((*turn as usize, *number), (nth, nth * all / asking));
            }
        }
    }
}
