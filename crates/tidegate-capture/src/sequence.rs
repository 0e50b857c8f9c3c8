//! Sequence numbers that do not wrap.
//!
//! Invariant: positions grow along the stream, and two of the same stream can be compared as numbers. Nothing here knows
//! what is at a position.

/// Where a stream's first number is placed: far enough from 0 that something just before it has a position too.
const START: u64 = 1 << 32;

/// The position of the first number that was seen.
pub(crate) fn first(seq: u32) -> u64 {
    START | u64::from(seq)
}

/// The position of `seq` that is nearest to `near`.
pub(crate) fn position(near: u64, seq: u32) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is the number on the wire")]
    let difference = seq.wrapping_sub(near as u32).cast_signed();
    near.saturating_add_signed(i64::from(difference))
}

/// Whether a timestamp is before another one (RFC 7323, section 5.2).
pub(crate) fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_over_the_end() {
        let start = first(u32::MAX - 1);
        assert_eq!(position(start, u32::MAX), start + 1);
        assert_eq!(position(start, 3), start + 5);
        assert_eq!(position(start + 5, u32::MAX - 1), start);
        assert_eq!(position(first(0), u32::MAX), first(0) - 1);
        assert_eq!(position(first(7), 7 + (1 << 31) - 1), first(7) + (1 << 31) - 1);
    }

    #[test]
    fn timestamps_wrap_too() {
        assert!(is_before(u32::MAX, 0) && !is_before(0, u32::MAX) && !is_before(5, 5));
    }
}
