//! How long answers take, measured for a sample of the batches of messages.
//!
//! From the moment in which the loop had the input, which is when its wait ended, to the one in which the answers were given
//! to the kernel or put behind what still waits for the peer. What waits in the kernel before is not in it, nor how long
//! the peer takes. Invariant: a batch that is not measured costs one subtraction.

use tidegate_reactor::Reactor;
use tidegate_timer::Instant;

use super::Loop;

impl<R: Reactor> Loop<R> {
    /// The answers to a batch that came at `since` have left.
    #[inline]
    pub(super) fn answered(&mut self, site: u16, since: Instant) {
        if let Some(weight) = self.sampler.is_due() {
            self.measure(site, since, weight);
        }
    }

    #[cold]
    fn measure(&mut self, site: u16, since: Instant, weight: u32) {
        let now = self.reactor.clock();
        self.sampler.measured(now);
        let took = now.saturating_duration_since(since);
        self.sites[usize::from(site)].metrics.record_latency(took, weight);
    }
}
