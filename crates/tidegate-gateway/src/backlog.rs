//! How many frames wait for a peer because the kernel did not take them.
//!
//! The engine tells bytes, not frames, and what a batch sends counts as queued until the batch is flushed. So the count is
//! made at the first look in each turn of the loop, when everything that is queued has been refused once, and shrinks in
//! the proportion of the bytes: exact for frames of one size, an estimate otherwise.

use tidegate_engine::Instant;

/// The frames of one connection that wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    /// When it was last looked at; a later time is another turn.
    turn: Instant,
    /// Frames sent that may wait still.
    frames: u32,
    /// Bytes that waited when the last of them was sent.
    bytes: u32,
}

impl Backlog {
    /// Frames that the kernel has refused, of which `queued` bytes are left. `None` after the first look in a turn.
    pub(crate) fn refused(&mut self, now: Instant, queued: usize) -> Option<u32> {
        if now == self.turn {
            return None;
        }
        self.turn = now;
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        let share = u64::from(self.frames) * u64::from(queued);
        let left = share.div_ceil(u64::from(self.bytes.max(1))).min(u64::from(self.frames));
        self.frames = u32::try_from(left).unwrap_or(u32::MAX);
        self.bytes = queued;
        Some(self.frames)
    }

    /// One frame more; `queued` bytes wait now, the frame included.
    pub(crate) fn sent(&mut self, queued: usize) {
        self.frames = self.frames.saturating_add(1);
        self.bytes = u32::try_from(queued).unwrap_or(u32::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(n: u64) -> Instant {
        Instant::from_nanos(n)
    }

    fn send(backlog: &mut Backlog, frames: usize, size: usize, before: usize) {
        for n in 1..=frames {
            backlog.sent(before + n * size);
        }
    }

    #[test]
    fn what_one_batch_sends_has_not_been_refused() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.refused(turn(1), 0), Some(0));
        send(&mut backlog, 1_000, 8, 0);
        assert_eq!(backlog.refused(turn(1), 8_000), None);
        assert_eq!(backlog.refused(turn(2), 0), Some(0), "the kernel took all of it");
    }

    #[test]
    fn refused_frames_add_up_and_go_with_the_bytes() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.refused(turn(1), 0), Some(0));
        send(&mut backlog, 100, 50, 0);
        assert_eq!(backlog.refused(turn(2), 5_000), Some(100));
        send(&mut backlog, 10, 50, 5_000);
        assert_eq!(backlog.refused(turn(3), 5_500), Some(110));
        assert_eq!(backlog.refused(turn(4), 501), Some(11), "a frame that is sent in part waits");
        assert_eq!(backlog.refused(turn(5), 0), Some(0));
    }

    #[test]
    fn a_reader_that_keeps_up_has_no_backlog_however_long_it_reads() {
        let mut backlog = Backlog::default();
        let mut most = 0;
        for n in 1..10_000 {
            most = most.max(backlog.refused(turn(n), 80).unwrap());
            send(&mut backlog, 20, 8, 80);
        }
        assert!(most <= 20, "{most}");
    }

    #[test]
    fn bytes_that_others_queued_are_not_frames() {
        let mut backlog = Backlog::default();
        backlog.sent(8);
        assert_eq!(backlog.refused(turn(1), 1 << 20), Some(1));
    }
}
