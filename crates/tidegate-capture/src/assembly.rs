//! `Assembly`: the data of one direction in its order, once each.
//!
//! Invariant: what is handed out follows what was handed out before; data that nobody has captured is handed out as missing,
//! so that positions stay right. What waits for its turn is bounded by the room that the caller gives; when that is used up,
//! the first gap is taken for missing.

use std::collections::BTreeMap;

/// Data in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk<'a> {
    /// It was captured.
    Bytes(&'a [u8]),
    /// So many bytes of it were not.
    Missing(u64),
}

/// One direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Assembly {
    /// The position of the first byte that was not handed out; `None` before that of the first one is known.
    next: Option<u64>,
    /// What came early, by its position. Each lies beyond `next`; they may overlap.
    early: BTreeMap<u64, Early>,
    early_bytes: usize,
}

#[derive(Clone, Debug)]
struct Early {
    bytes: Box<[u8]>,
    /// With the bytes that were not captured behind them.
    len: u64,
}

/// Beside the bytes.
const ENTRY: usize = 64;

impl Assembly {
    /// How much room what waits takes.
    pub(crate) fn waiting(&self) -> usize {
        self.early_bytes
    }

    /// The first byte has this position, unless it has one already.
    pub(crate) fn begin(&mut self, position: u64) {
        self.next.get_or_insert(position);
    }

    /// Takes data at a position: `len` bytes, of which `bytes` were captured.
    pub(crate) fn push(
        &mut self,
        start: u64,
        bytes: &[u8],
        len: u64,
        room: usize,
        out: &mut dyn FnMut(Chunk<'_>),
    ) {
        let next = *self.next.get_or_insert(start);
        if start <= next {
            self.hand_out(start, bytes, len, out);
            self.hand_out_early(out);
            return;
        }
        // The longer one of two at the same place has all that the other has.
        if self.early.get(&start).is_none_or(|early| early.len < len) {
            let old = self.early.insert(start, Early { bytes: bytes.into(), len });
            self.early_bytes += bytes.len() + ENTRY;
            self.early_bytes -= old.map_or(0, |old| old.bytes.len() + ENTRY);
        }
        while self.early_bytes > room {
            let Some((&first, _)) = self.early.first_key_value() else { return };
            self.skip_to(first, out);
        }
    }

    /// Nothing before this position will come any more.
    pub(crate) fn skip_to(&mut self, position: u64, out: &mut dyn FnMut(Chunk<'_>)) {
        let Some(mut next) = self.next else { return };
        while next < position {
            let until = self.early.first_key_value().map_or(position, |(&first, _)| first.min(position));
            if until > next {
                out(Chunk::Missing(until - next));
                self.next = Some(until);
            }
            self.hand_out_early(out);
            next = self.next.unwrap_or(position).max(until);
        }
        self.hand_out_early(out);
    }

    fn hand_out_early(&mut self, out: &mut dyn FnMut(Chunk<'_>)) {
        while let Some(entry) = self.early.first_entry()
            && Some(*entry.key()) <= self.next
        {
            let (start, early) = entry.remove_entry();
            self.early_bytes -= early.bytes.len() + ENTRY;
            self.hand_out(start, &early.bytes, early.len, out);
        }
    }

    /// `start` is not beyond `next`.
    fn hand_out(&mut self, start: u64, bytes: &[u8], len: u64, out: &mut dyn FnMut(Chunk<'_>)) {
        let Some(next) = self.next else { return };
        let end = start + len;
        if end <= next {
            return;
        }
        let known = usize::try_from(next - start).ok().and_then(|known| bytes.get(known..)).unwrap_or(&[]);
        if !known.is_empty() {
            out(Chunk::Bytes(known));
        }
        let missing = end - next - known.len() as u64;
        if missing > 0 {
            out(Chunk::Missing(missing));
        }
        self.next = Some(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Out(Vec<Option<u8>>);

    impl Out {
        fn take(&mut self, chunk: Chunk<'_>) {
            match chunk {
                Chunk::Bytes(bytes) => {
                    assert!(!bytes.is_empty());
                    self.0.extend(bytes.iter().map(|byte| Some(*byte)));
                }
                Chunk::Missing(len) => {
                    self.0.extend(std::iter::repeat_n(None, usize::try_from(len).unwrap()))
                }
            }
        }
    }

    fn text(out: &Out) -> String {
        out.0.iter().map(|byte| byte.map_or('?', char::from)).collect()
    }

    fn assembled(pieces: &[(u64, &str)], room: usize) -> String {
        let (mut assembly, mut out) = (Assembly::default(), Out::default());
        for (start, bytes) in pieces {
            assembly.push(*start, bytes.as_bytes(), bytes.len() as u64, room, &mut |chunk| out.take(chunk));
        }
        text(&out)
    }

    #[test]
    fn each_byte_comes_once_and_in_order() {
        assert_eq!(assembled(&[(10, "ab"), (12, "cd")], 1000), "abcd");
        assert_eq!(assembled(&[(10, "ab"), (14, "ef"), (12, "cd"), (16, "g")], 1000), "abcdefg");
        assert_eq!(assembled(&[(10, "ab"), (10, "abc"), (11, "bcd")], 1000), "abcd");
        assert_eq!(assembled(&[(10, "ab"), (13, "d"), (13, "de"), (12, "c")], 1000), "abcde");
    }

    #[test]
    fn without_room_a_gap_is_missing() {
        assert_eq!(assembled(&[(10, "ab"), (14, "ef")], 0), "ab??ef");
        assert_eq!(assembled(&[(10, "ab"), (14, "ef"), (20, "x")], 66), "ab??ef");
    }

    #[test]
    fn what_is_acknowledged_and_was_not_captured_is_missing() {
        let (mut assembly, mut out) = (Assembly::default(), Out::default());
        let mut take = |chunk: Chunk<'_>| out.take(chunk);
        assembly.push(10, b"ab", 2, 1000, &mut take);
        assembly.push(14, b"ef", 2, 1000, &mut take);
        assembly.skip_to(12, &mut take);
        assembly.skip_to(18, &mut take);
        // Of this one three bytes were captured.
        assembly.push(18, b"xyz", 5, 1000, &mut take);
        assert_eq!(assembly.waiting(), 0);
        assert_eq!(text(&out), "ab??ef??xyz??");
    }

    proptest! {
        #[test]
        fn any_order_gives_the_stream(pieces in prop::collection::vec((0..200_u64, 1..40_u64), 1..60), room in 0..2000_usize) {
            let stream: Vec<u8> = (0..=255).collect();
            let (mut assembly, mut out) = (Assembly::default(), Out::default());
            let mut take = |chunk: Chunk<'_>| out.take(chunk);
            assembly.push(0, &stream[..1], 1, room, &mut take);
            for (start, len) in pieces {
                let at = usize::try_from(start).unwrap();
                let end = usize::try_from(start + len).unwrap();
                assembly.push(start, &stream[at..end], len, room, &mut take);
                prop_assert!(assembly.waiting() <= room);
            }
            assembly.skip_to(250, &mut take);
            prop_assert_eq!(assembly.waiting(), 0);
            prop_assert_eq!(out.0.len(), 250);
            for (place, byte) in out.0.iter().enumerate() {
                prop_assert!(byte.is_none_or(|byte| usize::from(byte) == place));
            }
        }
    }
}
