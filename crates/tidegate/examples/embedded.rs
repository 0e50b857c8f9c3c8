//! A server inside another program: `Server::spawn` runs it on threads of its own, and the program goes on.
//!
//! `cargo run --release -p tidegate --example embedded`. The program here is a thermometer that measures on its own; whoever connects
//! is told each new value, and a line that is sent is answered with the last one. The server takes no signal, forks nothing and
//! ends with the program, or before it with `quit`: what is being sent is delivered first.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate::{ConnHandle, Decoded, Flow, Io, Peer, Phase, Refusal, Server, Service, SpawnedServer};

/// What the program and its server share.
#[derive(Default)]
struct Station {
    /// In tenths of a degree.
    last: AtomicI64,
    listeners: Mutex<Vec<ConnHandle<()>>>,
}

impl Station {
    /// The program's own work has brought a new value.
    fn publish(&self, value: i64) {
        self.last.store(value, Ordering::Relaxed);
        let line = reading(value);
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        // A handle whose connection has ended says so.
        listeners.retain(|listener| listener.send(line.as_bytes()).is_ok());
    }
}

fn reading(value: i64) -> String {
    format!("{}{}.{}\n", if value < 0 { "-" } else { "" }, value.abs() / 10, value.abs() % 10)
}

struct Readings(Arc<Station>);

impl Service for Readings {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(io.handle());
        io.send(reading(self.0.last.load(Ordering::Relaxed)).as_bytes());
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        match input.iter().position(|byte| *byte == b'\n') {
            Some(end) => Decoded::Message { len: end + 1, head: () },
            None => Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 },
        }
    }

    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        io.send(reading(self.0.last.load(Ordering::Relaxed)).as_bytes());
        Flow::Continue
    }
}

fn serve(station: &Arc<Station>, address: &str) -> Result<SpawnedServer, tidegate::Error> {
    let station = Arc::clone(station);
    Server::builder()
        .listen_named("readings", address, move || Ok(Readings(Arc::clone(&station))))
        .max_connections(1_000)
        .spawn()
}

fn main() -> Result<(), tidegate::Error> {
    let station = Arc::new(Station::default());
    let server = serve(&station, "127.0.0.1:7003")?;
    println!("readings at {:?} for ten seconds", server.address("readings"));
    for tick in 0..20 {
        station.publish(210 + tick % 7);
        std::thread::sleep(Duration::from_millis(500));
    }
    server.quit(Duration::from_secs(1));
    server.join()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn the_program_speaks_through_its_server() {
        let station = Arc::new(Station::default());
        station.publish(-15);
        let server = serve(&station, "127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(server.address("readings").unwrap()).unwrap();
        let mut answers = BufReader::new(&stream).lines().map(Result::unwrap);
        assert_eq!(answers.next().as_deref(), Some("-1.5"));
        station.publish(208);
        assert_eq!(answers.next().as_deref(), Some("20.8"));
        (&stream).write_all(b"?\n").unwrap();
        assert_eq!(answers.next().as_deref(), Some("20.8"));
        server.stop();
        assert_eq!(answers.next(), None);
        server.join().unwrap();
    }
}
