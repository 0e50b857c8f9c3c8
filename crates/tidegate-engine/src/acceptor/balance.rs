//! `Balancer`: who gets the next connection.
//!
//! A loop that is full, or takes no connections any more, is passed over. A choice counts at once: the next one sees it,
//! though the connection is handed over only with the others of its turn.

use std::hash::{BuildHasher, RandomState};

use tidegate_reactor::PeerAddress;

use crate::LoopHandle;
use crate::intake::{Arrival, Intake};

/// How an [`Acceptor`](crate::Acceptor) chooses the loop for a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The loop with the fewest connections; among equals, one after the other.
    LeastConnections,
    /// By the peer's address without its port: a client stays with its loop as long as that has room, and falls to the
    /// next one otherwise. The hash is keyed anew for each acceptor, so that no peer can aim at a loop. Peers on Unix
    /// sockets have no address and go to one loop after the other.
    Hash,
}

/// Chooses loops, and keeps what was chosen for each of them during a turn.
#[derive(Debug)]
pub(super) struct Balancer {
    balance: Balance,
    /// Never empty.
    lanes: Vec<Lane>,
    /// Where the search begins, but for what is hashed.
    next: usize,
    keys: RandomState,
}

#[derive(Debug)]
struct Lane {
    handle: LoopHandle,
    /// Counted in there, and not handed over yet.
    batch: Vec<Arrival>,
}

impl Lane {
    fn intake(&self) -> &Intake {
        &self.handle.shared.intake
    }
}

impl Balancer {
    /// Over at least one loop.
    pub(super) fn new(balance: Balance, loops: Vec<LoopHandle>) -> Self {
        let lanes = loops.into_iter().map(|handle| Lane { handle, batch: Vec::new() }).collect();
        Self { balance, lanes, next: 0, keys: RandomState::new() }
    }

    /// Counts a connection in where it is to go; the connection itself when no loop has room.
    pub(super) fn assign(&mut self, arrival: Arrival) -> Result<(), Arrival> {
        let Some(chosen) = self.choose(arrival.peer) else { return Err(arrival) };
        let lane = &mut self.lanes[chosen];
        lane.intake().enter();
        lane.batch.push(arrival);
        Ok(())
    }

    /// Hands over what was assigned, with one post for each loop. Answers what no loop takes.
    pub(super) fn hand_over(&mut self) -> Vec<Arrival> {
        let mut left = Vec::new();
        loop {
            let mut refused = Vec::new();
            for lane in &mut self.lanes {
                if lane.batch.is_empty() || lane.handle.shared.intake.hand_over(&mut lane.batch) {
                    continue;
                }
                lane.batch.iter().for_each(|_| lane.handle.shared.intake.leave());
                refused.append(&mut lane.batch);
            }
            // It ends: a loop that refuses once is not chosen again.
            if refused.is_empty() {
                return left;
            }
            left.extend(refused.into_iter().filter_map(|arrival| self.assign(arrival).err()));
        }
    }

    /// Whether the next connection has a place.
    pub(super) fn has_room(&self) -> bool {
        self.lanes.iter().any(|lane| lane.intake().has_room())
    }

    /// Whether any loop takes connections, now or when it has room.
    pub(super) fn has_takers(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.intake().is_closed())
    }

    /// The connections of all loops.
    pub(super) fn connections(&self) -> usize {
        self.lanes.iter().map(|lane| lane.intake().connections()).sum()
    }

    fn choose(&mut self, peer: PeerAddress) -> Option<usize> {
        let count = self.lanes.len();
        let hashed = if self.balance == Balance::Hash { self.hash(peer) } else { None };
        let start = hashed.unwrap_or(self.next);
        let mut with_room =
            (start..start + count).map(|at| at % count).filter(|at| self.lanes[*at].intake().has_room());
        let chosen = match self.balance {
            Balance::RoundRobin | Balance::Hash => with_room.next(),
            // The first of several equals.
            Balance::LeastConnections => with_room.min_by_key(|at| self.lanes[*at].intake().connections()),
        }?;
        if hashed.is_none() {
            self.next = (chosen + 1) % count;
        }
        Some(chosen)
    }

    /// The loop that an address belongs to.
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
    use crate::handle::Shared;
    use crate::intake::Handed;

    /// Loops that nobody runs, with room for so many connections each.
    fn balancer(balance: Balance, limits: &[usize]) -> Balancer {
        let waker = Epoll::new(Trigger::Edge).unwrap().waker();
        let loops = limits.iter().map(|limit| {
            let handed = vec![Handed { name: "lab".into(), overload_answer: None }];
            LoopHandle { shared: Arc::new(Shared::new(waker.clone(), *limit, handed)) }
        });
        Balancer::new(balance, loops.collect())
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
