//! `Sends`: the sends that wait for room, by the number that their submission carries.
//!
//! Invariant: a number is free only when the last completion of its send has been seen.

/// A send that waits until the socket takes something.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) word: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) from: usize,
}

#[derive(Debug, Default)]
pub(super) struct Sends {
    places: Vec<Option<Sending>>,
    free: Vec<usize>,
}

impl Sends {
    pub(super) fn insert(&mut self, sending: Sending) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(sending);
        place as u64
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Sending> {
        let place = usize::try_from(number).ok()?;
        let sending = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        Some(sending)
    }

    /// Leaves the bytes to the kernel for good.
    pub(super) fn leak(&mut self) {
        self.places.drain(..).for_each(std::mem::forget);
        self.free.clear();
    }
}
