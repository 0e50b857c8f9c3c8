//! `Upstream`: connections to one target that a loop keeps open, for whoever wants to send something there.
//!
//! A connection that ends is made again, after a time that doubles with each failure in a row and of which a random part is
//! waited ("full jitter"), so that many loops whose target was away do not come back all at once.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_reactor::{Target, Token};

use crate::ConnHandle;
use crate::connect::Connect;
use crate::handle::Shared;

/// What a loop keeps connected to: see [`LoopBuilder::upstream`](crate::LoopBuilder::upstream).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Where the connections go.
    pub target: Target,
    /// How many connections each loop keeps, at least 1 and at most [`MAX_UPSTREAM_CONNECTIONS`]. They count as the loop's
    /// other connections do. Default 1.
    pub connections: usize,
    /// How long one may take to be made. Default 10 s.
    pub connect_timeout: Duration,
    /// How long to wait before one is made again.
    pub backoff: Backoff,
    /// What the random part of the waiting is drawn from; `None`: from the kernel's random numbers.
    pub seed: Option<u64>,
}

impl UpstreamConfig {
    /// One connection to this target, and the default times.
    #[must_use]
    pub fn to(target: impl Into<Target>) -> Self {
        let (connect_timeout, backoff) = (Connect::DEFAULT_DEADLINE, Backoff::default());
        Self { target: target.into(), connections: 1, connect_timeout, backoff, seed: None }
    }
}

/// How long to wait after a failure: a random time of up to `first`, twice that after the second in a row, and so on, but
/// never more than `max`.
///
/// A connection that ended sooner than it would then have waited at the most is a failure too, so that a target that accepts
/// and hangs up is not called without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// At the most after the first failure. Default 100 ms.
    pub first: Duration,
    /// At the most after any. Default 10 s.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

impl Backoff {
    /// The least that either may be.
    pub const LEAST: Duration = Duration::from_millis(1);

    /// The longest wait after so many failures in a row before this one.
    #[must_use]
    pub fn ceiling(&self, failures: u32) -> Duration {
        let factor = 2_u32.checked_pow(failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.max)
    }
}

/// How many connections an upstream has at the most.
pub const MAX_UPSTREAM_CONNECTIONS: usize = 1024;

/// The open connections of one upstream of one loop, for any thread.
///
/// `N` is the [`Note`](crate::Service::Note) of its service.
pub struct Upstream<N> {
    open: Arc<OpenSet>,
    shared: Arc<Shared>,
    note: PhantomData<fn(N)>,
}

/// No connection of the upstream is open at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no connection to the upstream is open")]
pub struct NotConnected;

impl<N: Send + 'static> Upstream<N> {
    pub(crate) fn new(open: Arc<OpenSet>, shared: Arc<Shared>) -> Self {
        Self { open, shared, note: PhantomData }
    }

    /// An open connection; another one each time, in turn. One that is tied, or that only delivers its last output, is not
    /// named; but it may come to that right after the answer.
    ///
    /// # Errors
    ///
    /// [`NotConnected`].
    pub fn pick(&self) -> Result<ConnHandle<N>, NotConnected> {
        let token = self.open.next().ok_or(NotConnected)?;
        Ok(ConnHandle::new(token, Arc::clone(&self.shared)))
    }

    /// How many connections can be picked from.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.members.iter().filter(|member| member.load(Ordering::Acquire) != VACANT).count()
    }
}

impl<N> Clone for Upstream<N> {
    fn clone(&self) -> Self {
        Self { open: Arc::clone(&self.open), shared: Arc::clone(&self.shared), note: PhantomData }
    }
}

impl<N> fmt::Debug for Upstream<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Which connections are open, by member. Written by the loop alone.
#[derive(Debug)]
pub(crate) struct OpenSet {
    /// A token in each, its generation in the upper half.
    members: Box<[AtomicU64]>,
    turn: AtomicUsize,
}

/// Of a member without a connection: no token has generation 0.
const VACANT: u64 = 0;

impl OpenSet {
    pub(crate) fn new(members: usize) -> Self {
        Self { members: (0..members).map(|_| AtomicU64::new(VACANT)).collect(), turn: AtomicUsize::new(0) }
    }

    pub(crate) fn set(&self, member: usize, token: Option<Token>) {
        let word = token.map_or(VACANT, |token| u64::from(token.generation) << 32 | u64::from(token.slot));
        self.members[member].store(word, Ordering::Release);
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves of what `set` made")]
    fn next(&self) -> Option<Token> {
        let (count, start) = (self.members.len(), self.turn.fetch_add(1, Ordering::Relaxed));
        let words = (0..count).map(|at| self.members[start.wrapping_add(at) % count].load(Ordering::Acquire));
        words
            .filter(|word| *word != VACANT)
            .map(|word| Token { slot: word as u32, generation: (word >> 32) as u32 })
            .next()
    }
}

/// The random part of a wait: the generator "SplitMix64" (Steele, Lea and Flood, 2014).
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// From a seed, or from one that the kernel's random numbers are behind.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()))
    }

    /// A time from nothing to `ceiling`.
    pub(crate) fn draw(&mut self, ceiling: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^= word >> 31;
        let share = (u128::from(word) * (ceiling.as_nanos() + 1)) >> 64;
        Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_its_limit() {
        let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };
        let ms = |failures| backoff.ceiling(failures).as_millis();
        assert_eq!(
            [ms(0), ms(1), ms(2), ms(3), ms(4), ms(31), ms(32), ms(u32::MAX)],
            [100, 200, 400, 800, 1000, 1000, 1000, 1000]
        );
    }

    #[test]
    fn a_wait_is_anything_up_to_the_ceiling_and_the_same_for_a_seed() {
        let ceiling = Duration::from_millis(100);
        let draws = |seed| {
            let mut jitter = Jitter::new(Some(seed));
            (0..1000).map(|_| jitter.draw(ceiling)).collect::<Vec<_>>()
        };
        let waits = draws(1);
        assert_eq!(waits, draws(1));
        assert_ne!(waits, draws(2));
        assert!(waits.iter().all(|wait| *wait <= ceiling));
        let below = |part: u32| waits.iter().filter(|wait| **wait < ceiling / part).count();
        assert!((400..600).contains(&below(2)), "{} of 1000 in the lower half", below(2));
        assert!((50..200).contains(&below(8)), "{} of 1000 in the lowest eighth", below(8));
        assert_eq!(Jitter::new(None).draw(Duration::ZERO), Duration::ZERO);
        assert_ne!(Jitter::new(None).0, Jitter::new(None).0);
    }

    #[test]
    fn members_are_picked_in_turn_and_vacant_ones_are_left_out() {
        let set = OpenSet::new(3);
        assert_eq!(set.next(), None);
        let token = |slot| Token { slot, generation: u32::MAX };
        set.set(0, Some(token(7)));
        set.set(2, Some(token(9)));
        let mut picked: Vec<u32> = (0..6).filter_map(|_| set.next()).map(|token| token.slot).collect();
        picked.sort_unstable();
        assert!(picked.iter().filter(|slot| **slot == 7).count() >= 2, "{picked:?}");
        assert!(picked.iter().filter(|slot| **slot == 9).count() >= 2, "{picked:?}");
        set.set(0, None);
        assert_eq!(set.next(), Some(token(9)));
    }
}
