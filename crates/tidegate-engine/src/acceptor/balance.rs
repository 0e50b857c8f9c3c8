//! `Balancer`: who gets the next connection.
//!
//! A lane (a loop, or a worker's channel) that is full, or takes no connections any more, is passed over. A choice counts
//! at once: the next one sees it, though the connection is handed over only with the others of its turn.

use std::hash::{BuildHasher, RandomState};

use tidegate_reactor::PeerAddress;
use tidegate_timer::Instant;

use super::lane::Lane;
use crate::intake::Arrival;

/// How an [`Acceptor`](crate::Acceptor) chooses the loop for a connection, or the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The loop with the fewest connections; among equals, one after the other. Of a worker it is known what it has
    /// counted, and what was sent since.
    LeastConnections,
    /// By the peer's address without its port: a client stays with its loop as long as that has room, and falls to the
    /// next one otherwise. The hash is keyed anew for each acceptor, so that no peer can aim at a loop. Peers on Unix
    /// sockets have no address and go to one loop after the other.
    Hash,
}

/// Chooses lanes, and has them keep what was chosen for each during a turn.
#[derive(Debug)]
pub(crate) struct Balancer {
    balance: Balance,
    /// Never empty.
    lanes: Vec<Lane>,
    /// Where the search begins, but for what is hashed.
    next: usize,
    keys: RandomState,
    /// When the present turn began.
    now: Instant,
    /// What is sent to workers, written anew for each message.
    message: Vec<u8>,
}

impl Balancer {
    /// Over at least one lane.
    pub(crate) fn new(balance: Balance, lanes: Vec<Lane>, now: Instant) -> Self {
        Self { balance, lanes, next: 0, keys: RandomState::new(), now, message: Vec::new() }
    }

    /// A turn begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.now = now;
        self.lanes.iter_mut().for_each(|lane| lane.begin(now));
    }

    /// Counts a connection in where it is to go; the connection itself when no lane has room.
    pub(crate) fn assign(&mut self, arrival: Arrival) -> Result<(), Arrival> {
        let Some(chosen) = self.choose(arrival.peer) else { return Err(arrival) };
        self.lanes[chosen].assign(arrival);
        Ok(())
    }

    /// Hands over what was assigned, with one post for each loop. Answers what no lane takes.
    pub(crate) fn hand_over(&mut self) -> Vec<Arrival> {
        let mut left = Vec::new();
        loop {
            let mut refused = Vec::new();
            for lane in &mut self.lanes {
                lane.hand_over(self.now, &mut self.message);
                refused.append(&mut lane.batch);
            }
            // It ends: a lane that refuses once is not chosen again in this turn.
            if refused.is_empty() {
                return left;
            }
            left.extend(refused.into_iter().filter_map(|arrival| self.assign(arrival).err()));
        }
    }

    /// Whether the next connection has a place.
    pub(crate) fn has_room(&self) -> bool {
        self.lanes.iter().any(|lane| lane.has_room(self.now))
    }

    /// When there may be room again without anybody saying so.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(Lane::retry_at).min()
    }

    /// Whether any lane takes connections, now or when it has room.
    pub(crate) fn has_takers(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.is_closed())
    }

    /// The connections of all lanes.
    pub(crate) fn connections(&self) -> usize {
        self.lanes.iter().map(Lane::connections).fold(0, usize::saturating_add)
    }

    fn choose(&mut self, peer: PeerAddress) -> Option<usize> {
        let count = self.lanes.len();
        let hashed = if self.balance == Balance::Hash { self.hash(peer) } else { None };
        let start = hashed.unwrap_or(self.next);
        let mut with_room =
            (start..start + count).map(|at| at % count).filter(|at| self.lanes[*at].has_room(self.now));
        let chosen = match self.balance {
            Balance::RoundRobin | Balance::Hash => with_room.next(),
            // The first of several equals.
            Balance::LeastConnections => with_room.min_by_key(|at| self.lanes[*at].connections()),
        }?;
        if hashed.is_none() {
            self.next = (chosen + 1) % count;
        }
        Some(chosen)
    }

    /// The lane that an address belongs to.
    fn hash(&self, peer: PeerAddress) -> Option<usize> {
        let PeerAddress::Inet(address) = peer else { return None };
        // A listener on both families shows IPv4 peers with mapped addresses (RFC 4291, section 2.5.5.2).
        let hash = self.keys.hash_one(address.ip().to_canonical());
        let count = u64::try_from(self.lanes.len()).ok()?;
        usize::try_from(hash % count).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::SocketAddr;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use tidegate_reactor::{Epoll, Reactor, Trigger};

    use super::*;
    use crate::LoopHandle;
    use crate::handle::Shared;
    use crate::intake::Handed;

    /// Loops that nobody runs, with room for so many connections each.
    fn balancer(balance: Balance, limits: &[usize]) -> Balancer {
        let waker = Epoll::new(Trigger::Edge).unwrap().waker();
        let loops = limits.iter().map(|limit| {
            let handed = vec![Handed { name: "lab".into(), overload_answer: None }];
            Lane::to_loop(LoopHandle {
                shared: Arc::new(Shared::new(waker.clone(), *limit, handed, Vec::new())),
            })
        });
        Balancer::new(balance, loops.collect(), Instant::default())
    }

    fn arrival(peer: &str) -> Arrival {
        let socket = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let peer = match peer {
            "unix" => PeerAddress::Unix,
            address => PeerAddress::Inet(address.parse::<SocketAddr>().unwrap()),
        };
        Arrival { site: 0, socket, peer }
    }

    /// Where a connection goes.
    fn place(balancer: &mut Balancer, peer: &str) -> Option<usize> {
        let before: Vec<usize> = balancer.lanes.iter().map(|lane| lane.batch.len()).collect();
        balancer.assign(arrival(peer)).ok()?;
        balancer.lanes.iter().zip(before).position(|(lane, before)| lane.batch.len() > before)
    }

    fn places(balancer: &mut Balancer, peer: &str, n: usize) -> Vec<Option<usize>> {
        (0..n).map(|_| place(balancer, peer)).collect()
    }

    #[test]
    fn round_robin_passes_over_what_is_full_and_says_when_all_is() {
        let mut balancer = balancer(Balance::RoundRobin, &[1, 3, 2]);
        let chosen = places(&mut balancer, "10.0.0.1:1", 6);
        assert_eq!(chosen, [Some(0), Some(1), Some(2), Some(1), Some(2), Some(1)]);
        assert!(!balancer.has_room() && balancer.has_takers());
        assert_eq!(place(&mut balancer, "10.0.0.1:1"), None);
        assert_eq!(balancer.connections(), 6);
        balancer.lanes[2].intake().leave();
        assert_eq!(place(&mut balancer, "10.0.0.1:1"), Some(2));
    }

    #[test]
    fn least_connections_takes_the_emptiest_and_equals_in_turn() {
        let mut balancer = balancer(Balance::LeastConnections, &[9, 9, 9]);
        assert_eq!(places(&mut balancer, "10.0.0.1:1", 4), [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(places(&mut balancer, "10.0.0.1:1", 2), [Some(1), Some(2)]);
        balancer.lanes[1].intake().leave();
        balancer.lanes[1].intake().leave();
        assert_eq!(places(&mut balancer, "10.0.0.1:1", 3), [Some(1), Some(1), Some(2)]);
    }

    #[test]
    fn a_loop_that_is_short_of_memory_is_passed_over_until_it_is_not() {
        let mut balancer = balancer(Balance::RoundRobin, &[9, 9]);
        balancer.lanes[0].intake().hold(true);
        assert_eq!([0; 2].map(|_| place(&mut balancer, "unix")), [Some(1), Some(1)]);
        balancer.lanes[1].intake().hold(true);
        assert!(!balancer.has_room());
        balancer.lanes[0].intake().hold(false);
        assert_eq!(place(&mut balancer, "unix"), Some(0));
    }

    #[test]
    fn an_address_keeps_its_loop_whatever_its_port_and_falls_to_the_next_when_it_is_full() {
        let mut balancer = balancer(Balance::Hash, &[4, 4, 4]);
        let own = place(&mut balancer, "10.0.0.1:1").unwrap();
        assert_eq!(place(&mut balancer, "10.0.0.1:2"), Some(own));
        assert_eq!(place(&mut balancer, "[::ffff:10.0.0.1]:3"), Some(own));
        assert_eq!(place(&mut balancer, "10.0.0.1:4"), Some(own));
        assert_eq!(place(&mut balancer, "10.0.0.1:5"), Some((own + 1) % 3));
        balancer.lanes[own].intake().leave();
        assert_eq!(place(&mut balancer, "10.0.0.1:6"), Some(own));
    }

    #[test]
    fn addresses_are_spread_and_peers_without_one_go_round() {
        let mut balancer = balancer(Balance::Hash, &[999, 999, 999]);
        let met: HashSet<_> =
            (0..200).map(|n| place(&mut balancer, &format!("10.0.{n}.1:1")).unwrap()).collect();
        // All 200 in two of three places would take a chance of less than one in 10 to the 34th.
        assert_eq!(met.len(), 3);
        assert_eq!(places(&mut balancer, "unix", 4), [Some(0), Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn what_an_ended_loop_does_not_take_goes_to_the_others() {
        let mut balancer = balancer(Balance::RoundRobin, &[2, 2, 2]);
        places(&mut balancer, "10.0.0.1:1", 5);
        balancer.lanes[0].intake().close();
        let left = balancer.hand_over();
        assert_eq!(left.len(), 1, "five connections and four places");
        assert_eq!(balancer.connections(), 4);
        assert_eq!(balancer.lanes[0].intake().connections(), 0);
        assert!(balancer.lanes.iter().all(|lane| lane.batch.is_empty()));
        for lane in &balancer.lanes[1..] {
            let mut taken = Vec::new();
            lane.intake().collect(&mut taken);
            assert_eq!(taken.len(), 2);
        }
        balancer.lanes[1].intake().close();
        assert!(balancer.has_takers());
        balancer.lanes[2].intake().close();
        assert!(!balancer.has_takers() && !balancer.has_room());
    }
}
