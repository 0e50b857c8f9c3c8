//! Everything at once: hundreds of connections whose peers do whatever they like, from a seed. No connection is lost, none
//! is closed twice, and no one peer harms another.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use tidegate_engine::{EngineConfig, ListenerWord};

use crate::lab::{Note, Seen};
use crate::support::{Client, Server, Setup, closes};

const THREADS: u64 = 8;
const ROUNDS: u64 = 60;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        // xorshift64, Marsaglia 2003
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }
}

fn script(random: &mut Random) -> Vec<u8> {
    let mut script = Vec::new();
    for _ in 0..random.below(12) {
        match random.below(25) {
            0 => script.extend(b"suspend\n"),
            1 => script.extend(b"nap 1\n"),
            2 => script.extend(b"timer 1 1 3\n"),
            3 => script.extend(format!("big {}\n", random.below(300_000)).into_bytes()),
            4 => {
                let n = random.below(100_000) + 1;
                script.extend(format!("body {n}\n").into_bytes());
                script.resize(script.len() + usize::try_from(n).unwrap(), b'x');
            }
            5 => script.extend(b"stream 3\n"),
            6 => script.extend(b"done\n"),
            7 => script.extend(b"bye\n"),
            8 => script.extend(if random.below(2) == 0 { &b"panic\n"[..] } else { b"!" }),
            _ => script.extend(format!("echo {}\n", random.below(1000)).into_bytes()),
        }
    }
    script
}

/// One peer's life. Whatever it meets but silence is fine.
fn live(address: SocketAddr, random: &mut Random) {
    let client = Client::new(address);
    let mut stream = client.stream().try_clone().unwrap();
    let script = script(random);
    let cut = usize::try_from(random.below(script.len() as u64 + 1)).unwrap();
    let end = random.below(8);
    if end <= 1 {
        // It goes without having read all, or anything: it must not be stuck in writing, nor wait for an answer.
        stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    }
    let writer = std::thread::spawn({
        let mut stream = stream.try_clone().unwrap();
        move || {
            // The server may have ended it meanwhile.
            let (first, second) = script.split_at(cut);
            let _ = stream.write_all(first).and_then(|()| stream.write_all(second));
            if end > 1 {
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    });
    match end {
        0 => {
            writer.join().unwrap();
            client.reset();
        }
        1 => {
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.shutdown(Shutdown::Both);
            writer.join().unwrap();
        }
        _ => {
            let ended = stream.read_to_end(&mut Vec::new());
            writer.join().unwrap();
            let waited = ended.is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
            assert!(!waited, "the connection neither went on nor ended");
        }
    }
}

under_each_model!(every_connection_ends_once_whatever_its_peer_does,);

fn every_connection_ends_once_whatever_its_peer_does(config: EngineConfig) {
    let config = EngineConfig { max_connections: 12, ..config };
    let mut setup = Setup::new(config);
    setup.limits.high_water_bytes = 50_000;
    setup.limits.low_water_bytes = 10_000;
    let server = Server::start(setup);
    let address = server.address;
    let peers: Vec<_> = (1..=THREADS)
        .map(|seed| {
            std::thread::spawn(move || {
                let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                for _ in 0..ROUNDS {
                    live(address, &mut random);
                }
            })
        })
        .collect();
    let mut handles = Vec::new();
    let mut left = THREADS * ROUNDS;
    let mut n = 0;
    while left > 0 {
        match server.see(Some) {
            Seen::Opened(handle) => handles.push(handle),
            Seen::Suspended(handle) => drop(handle.post(Note::Say("awake".into()))),
            Seen::Closed(_) => left -= 1,
            Seen::Blocked | Seen::Drained | Seen::Sent(_) | Seen::Retire(_) => {}
        }
        n += 1;
        // Now and then somebody else has something to say, to a connection or to what once was one.
        if n % 3 == 0 && !handles.is_empty() {
            let _ = handles[n % handles.len()].send("news\n");
        }
    }
    for peer in peers {
        peer.join().unwrap();
    }
    assert_eq!(closes(&server), THREADS * ROUNDS);
    assert_eq!(server.count(ListenerWord::Accepted), THREADS * ROUNDS);
}
