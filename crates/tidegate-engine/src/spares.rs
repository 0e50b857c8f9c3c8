//! `Spares`: emptied input buffers, for the next message that comes in pieces.
//!
//! Invariant: `bytes` is the sum of their capacities, and at most `SPARES` times `SPARE_BYTES`: 256 KiB.

/// Emptied buffers of a loop.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
    /// None is kept: memory is short.
    closed: bool,
}

/// How many are kept, and how large they may be.
const SPARES: usize = 16;
const SPARE_BYTES: usize = 16 << 10;

impl Spares {
    /// An empty buffer.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffers.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    /// Keeps a buffer that is not needed, or frees it.
    pub(crate) fn keep(&mut self, mut buffer: Vec<u8>) {
        if !self.closed && self.buffers.len() < SPARES && (1..=SPARE_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }

    /// What they take of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frees them all, and keeps none until there is memory again; or keeps them again.
    pub(crate) fn close(&mut self, closed: bool) {
        self.closed = closed;
        if closed {
            self.buffers = Vec::new();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_few_of_moderate_size_and_counts_their_bytes() {
        let mut spares = Spares::default();
        spares.keep(Vec::new());
        spares.keep(Vec::with_capacity(SPARE_BYTES + 1));
        assert_eq!(spares.bytes(), 0);
        for _ in 0..2 * SPARES {
            let mut used = Vec::with_capacity(1000);
            used.push(7);
            spares.keep(used);
        }
        assert_eq!(spares.bytes(), SPARES * 1000);
        let buffer = spares.take();
        assert_eq!((buffer.len(), buffer.capacity(), spares.bytes()), (0, 1000, (SPARES - 1) * 1000));
        spares.close(true);
        spares.keep(buffer);
        assert_eq!((spares.bytes(), spares.take().capacity()), (0, 0));
        spares.close(false);
        spares.keep(Vec::with_capacity(10));
        assert_eq!(spares.bytes(), 10);
    }
}
