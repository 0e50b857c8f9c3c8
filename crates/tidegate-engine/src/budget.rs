//! `Budget`: how many bytes the connections of a process may hold in memory, shared by its event loops.
//!
//! A loop takes what its connections hold in coarse grants, so that the shared counter is touched once for many messages,
//! and asks for no more than a relaxed load in a turn. How full the budget is decides how far the loops go to relieve it:
//!
//! ```text
//!  0                                  12/16      13/16       14/16            16/16     17/16
//!  |                                  | pause    | free idle | refuse new     | close   |
//!  |                                  | reads    | buffers   | connections    | slowest |
//! ```
//!
//! A step is gone back 1/16 below where it was taken. Each loop has a limit of its own too, with the same steps.
//!
//! Invariant: what is granted is at least what the loops have entered, and over the limit by no more than 1/16 and by the
//! input that was received before anybody could know.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidegate_reactor::Waker;

/// A limit on the bytes that all connections of several loops hold together: input that is not handled yet, output that
/// the peers have not taken, messages on their way to handlers, and buffers kept for the next of them. Clones share it.
///
/// ```
/// use tidegate_engine::{Budget, EngineConfig, LoopBuilder};
///
/// let budget = Budget::new(64 << 20);
/// let builders = [0, 1].map(|_| LoopBuilder::new(EngineConfig::default()).budget(&budget));
/// # drop(builders);
/// assert_eq!((budget.limit_bytes(), budget.used_bytes()), (64 << 20, 0));
/// ```
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    granted: AtomicUsize,
    /// As of the last change of `granted` that mattered.
    relief: AtomicU8,
    members: Mutex<Vec<Arc<Member>>>,
}

/// A loop, as the others see it.
#[derive(Debug)]
struct Member {
    granted: AtomicUsize,
    /// Bytes that another loop needs and this one is to make free.
    owed: AtomicUsize,
    waker: Waker,
}

/// How far a loop goes to have bytes given back. Each step includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Relief {
    #[default]
    None,
    /// Peers that hold memory already are not read from.
    PauseReads,
    /// Buffers that nothing is in are freed.
    FreeIdle,
    /// No connection is accepted.
    RefuseNew,
}

const STEPS: [Relief; 4] = [Relief::None, Relief::PauseReads, Relief::FreeIdle, Relief::RefuseNew];
/// Where the steps after the first are taken, and where they are gone back, in sixteenths of the limit.
const UP: [usize; 3] = [12, 13, 14];
const DOWN: [usize; 3] = [11, 12, 13];
/// The grant that a loop takes at a time, unless the budget is too small for it.
const GRANT_BYTES: usize = 64 << 10;

impl Relief {
    /// The step for `held` bytes of `limit`, of whoever has taken this one.
    fn at(self, held: usize, limit: usize) -> Self {
        let sixteenths = |marks: [usize; 3]| marks.iter().filter(|mark| held > limit / 16 * **mark).count();
        STEPS[sixteenths(UP)].max(self.min(STEPS[sixteenths(DOWN)]))
    }
}

impl Budget {
    /// A budget of `bytes`. Much less than 1 MiB leaves no room for a large answer.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let inner = Inner {
            limit: bytes,
            granted: AtomicUsize::new(0),
            relief: AtomicU8::new(Relief::None as u8),
            members: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The limit.
    #[must_use]
    pub fn limit_bytes(&self) -> usize {
        self.inner.limit
    }

    /// What the loops have taken of it, which is a little more than they use: each is ahead by up to 128 KiB.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.inner.granted.load(Ordering::Relaxed)
    }

    fn relief(&self) -> Relief {
        STEPS[usize::from(self.inner.relief.load(Ordering::SeqCst))]
    }

    fn grant_bytes(&self) -> usize {
        GRANT_BYTES.min(self.inner.limit / 64).max(1)
    }

    /// After each change of what is granted: when that changes the step, all loops are told.
    fn review(&self) {
        let step = || self.relief().at(self.inner.granted.load(Ordering::SeqCst), self.inner.limit);
        if step() == self.relief() {
            return;
        }
        let members = self.members();
        // Whoever changes the amount meanwhile may still have seen the old step, so it is looked at again.
        while step() != self.relief() {
            self.inner.relief.store(step() as u8, Ordering::SeqCst);
        }
        members.iter().for_each(|member| member.waker.wake());
    }

    fn members(&self) -> MutexGuard<'_, Vec<Arc<Member>>> {
        // Every change under the lock is one operation, so a panic leaves it whole.
        self.inner.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which limit there is no room under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Loop,
    Budget,
}

/// A loop's part of the budget.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    member: Arc<Member>,
    /// Of this loop alone.
    limit: usize,
    granted: usize,
    /// By the loop's own limit.
    own: Relief,
}

impl Share {
    /// The part of the loop that `waker` wakes.
    pub(crate) fn new(budget: Budget, limit: usize, waker: Waker) -> Self {
        let member = Member { granted: AtomicUsize::new(0), owed: AtomicUsize::new(0), waker };
        let member = Arc::new(member);
        budget.members().push(Arc::clone(&member));
        Self { budget, member, limit, granted: 0, own: Relief::None }
    }

    /// The most that this loop can ever hold.
    pub(crate) fn limit(&self) -> usize {
        self.limit.min(self.budget.inner.limit)
    }

    /// What is to be done now.
    pub(crate) fn relief(&self) -> Relief {
        self.own.max(self.budget.relief())
    }

    /// Enters what the loop holds, whether there is room for it or not.
    pub(crate) fn enter(&mut self, held: usize) {
        self.own = self.own.at(held, self.limit);
        let step = self.budget.grant_bytes();
        if held > self.granted {
            let more = self.wanted(held);
            self.budget.inner.granted.fetch_add(more, Ordering::SeqCst);
            self.set_granted(self.granted + more);
        } else if self.granted - held >= 2 * step {
            let kept = held + step;
            self.budget.inner.granted.fetch_sub(self.granted - kept, Ordering::SeqCst);
            self.set_granted(kept);
        }
    }

    /// Enters what the loop is to hold, if there is room for it.
    pub(crate) fn reserve(&mut self, held: usize) -> Result<(), Full> {
        if held > self.limit {
            return Err(Full::Loop);
        }
        if held > self.granted {
            self.take_grant(self.wanted(held), self.budget.inner.limit)?;
        }
        self.own = self.own.at(held, self.limit);
        Ok(())
    }

    /// Has the loop that holds the most make so many bytes free, and takes them in advance. `None`: it is this one, or
    /// too much was taken in advance already.
    pub(crate) fn borrow(&mut self, held: usize, bytes: usize) -> Option<()> {
        let limit = self.budget.inner.limit;
        let debtor = {
            let members = self.budget.members();
            let granted = |member: &Arc<Member>| member.granted.load(Ordering::Relaxed);
            let most = members.iter().max_by_key(|member| granted(member))?;
            (granted(most) > self.granted).then(|| Arc::clone(most))?
        };
        self.take_grant(held.saturating_sub(self.granted), limit.saturating_add(limit / 16)).ok()?;
        debtor.owed.fetch_add(bytes, Ordering::SeqCst);
        debtor.waker.wake();
        Some(())
    }

    /// What other loops want this one to make free, once, as far as that is still needed.
    pub(crate) fn take_debt(&self) -> usize {
        if self.member.owed.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let owed = self.member.owed.swap(0, Ordering::SeqCst);
        owed.min(self.budget.used_bytes().saturating_sub(self.budget.inner.limit))
    }

    /// How much more is to be granted for `held` bytes: some in reserve.
    fn wanted(&self, held: usize) -> usize {
        let step = self.budget.grant_bytes();
        (held - self.granted).div_ceil(step).saturating_mul(step)
    }

    fn take_grant(&mut self, more: usize, limit: usize) -> Result<(), Full> {
        let fits = |granted: usize| granted.checked_add(more).filter(|sum| *sum <= limit);
        let taken = self.budget.inner.granted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits);
        taken.map_err(|_| Full::Budget)?;
        self.set_granted(self.granted + more);
        Ok(())
    }

    fn set_granted(&mut self, granted: usize) {
        self.granted = granted;
        self.member.granted.store(granted, Ordering::Relaxed);
        self.budget.review();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.members().retain(|member| !Arc::ptr_eq(member, &self.member));
        self.budget.inner.granted.fetch_sub(self.granted, Ordering::SeqCst);
        self.budget.review();
    }
}

#[cfg(test)]
mod tests {
    use tidegate_reactor::{Completion, Epoll, Reactor, Trigger};

    use super::*;

    const LIMIT: usize = 16 << 20;

    fn share(budget: &Budget, reactor: &Epoll) -> Share {
        Share::new(budget.clone(), usize::MAX, reactor.waker())
    }

    fn reactor() -> Epoll {
        Epoll::new(Trigger::Edge).unwrap()
    }

    fn was_woken(reactor: &mut Epoll) -> bool {
        let now = reactor.now();
        reactor.wait(Some(now)).unwrap();
        matches!(reactor.next(), Some(Completion::Woken))
    }

    #[test]
    fn steps_are_taken_in_order_and_gone_back_below_where_they_were_taken() {
        let mut relief = Relief::None;
        let mut seen = Vec::new();
        for mib in [0, 12, 13, 12, 11, 12, 13, 14, 15, 16, 14, 13, 12, 11, 10] {
            // One byte more than the mark.
            relief = relief.at((mib << 20) + 1, 16 << 20);
            seen.push(relief as u8);
        }
        assert_eq!(seen, [0, 1, 2, 2, 1, 1, 2, 3, 3, 3, 3, 3, 2, 1, 0]);
        assert_eq!(Relief::RefuseNew.at(0, 16 << 20), Relief::None);
        assert_eq!(Relief::None.at(0, 0), Relief::None);
        assert_eq!(Relief::None.at(1, 0), Relief::RefuseNew);
        assert_eq!(Relief::None.at(usize::MAX / 2, usize::MAX), Relief::None);
    }

    #[test]
    fn a_loop_takes_coarse_grants_and_gives_them_back() {
        let (budget, reactor) = (Budget::new(LIMIT), reactor());
        let mut share = share(&budget, &reactor);
        share.enter(1);
        assert_eq!(budget.used_bytes(), GRANT_BYTES);
        for held in [GRANT_BYTES, 100, GRANT_BYTES / 2] {
            share.enter(held);
            assert_eq!(budget.used_bytes(), GRANT_BYTES, "nothing was asked for {held}");
        }
        share.enter(10 * GRANT_BYTES + 1);
        assert_eq!(budget.used_bytes(), 11 * GRANT_BYTES);
        share.enter(0);
        assert_eq!(budget.used_bytes(), GRANT_BYTES);
        drop(share);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn what_is_reserved_stays_within_both_limits() {
        let (budget, reactor) = (Budget::new(LIMIT), reactor());
        let mut small = Share::new(budget.clone(), 1 << 20, reactor.waker());
        assert_eq!(small.reserve((1 << 20) + 1), Err(Full::Loop));
        assert_eq!(small.reserve(1 << 20), Ok(()));
        let mut large = share(&budget, &reactor);
        assert_eq!(large.reserve(LIMIT - (1 << 20) + 1), Err(Full::Budget));
        assert_eq!(large.reserve(LIMIT - (1 << 20)), Ok(()));
        assert_eq!(budget.used_bytes(), LIMIT);
    }

    #[test]
    fn every_loop_is_told_when_the_step_changes() {
        let (budget, mut awake, mut asleep) = (Budget::new(LIMIT), reactor(), reactor());
        let mut one = share(&budget, &awake);
        let other = share(&budget, &asleep);
        one.enter(LIMIT / 2);
        assert!(!was_woken(&mut asleep));
        one.enter(LIMIT / 16 * 12 + 1);
        assert!(was_woken(&mut asleep) && was_woken(&mut awake));
        assert_eq!(other.relief(), Relief::PauseReads);
        one.enter(0);
        assert!(was_woken(&mut asleep));
        assert_eq!(other.relief(), Relief::None);
    }

    #[test]
    fn a_loop_under_its_own_limit_relieves_alone() {
        let (budget, reactor) = (Budget::new(LIMIT), reactor());
        let mut small = Share::new(budget.clone(), 1 << 20, reactor.waker());
        let other = share(&budget, &reactor);
        small.enter(1 << 20);
        assert_eq!((small.relief(), other.relief()), (Relief::RefuseNew, Relief::None));
    }

    #[test]
    fn who_holds_the_most_owes_what_others_cannot_have() {
        let (budget, mut large_reactor, reactor) = (Budget::new(LIMIT), reactor(), reactor());
        let mut large = share(&budget, &large_reactor);
        let mut small = share(&budget, &reactor);
        large.reserve(LIMIT).unwrap();
        assert!(was_woken(&mut large_reactor));
        assert_eq!(small.reserve(100_000), Err(Full::Budget));
        assert!(small.borrow(100_000, 100_000).is_some());
        assert!(was_woken(&mut large_reactor));
        assert_eq!((large.take_debt(), large.take_debt(), small.take_debt()), (100_000, 0, 0));
        assert_eq!(budget.used_bytes(), LIMIT + 100_000);
        assert!(large.borrow(LIMIT + 1, 1).is_none(), "nobody holds more");
        assert!(small.borrow(LIMIT / 8, LIMIT / 8).is_none(), "that is more than may be taken in advance");
        assert_eq!(large.take_debt(), 0);
    }

    #[test]
    fn the_last_word_on_the_step_is_that_of_the_last_amount() {
        let (budget, reactor) = (Budget::new(LIMIT), reactor());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mut share = share(&budget, &reactor);
                scope.spawn(move || {
                    for round in 0..2_000 {
                        share.enter((round * 7 + thread) % 5 * (LIMIT / 16));
                    }
                });
            }
        });
        assert_eq!((budget.used_bytes(), budget.relief()), (0, Relief::None));
    }
}
