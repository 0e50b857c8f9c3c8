//! Peers of tied connections that hang up in the middle: what they had said before reaches the other side.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::LazyLock;

use rustix::net::sockopt;
use tidegate_engine::{EngineConfig, Limits, ListenerWord, ProcessWord, Reason};

use crate::support::{PATIENCE, pattern, until};
use crate::ties::{Bench, expect, reset, rest};

under_each_model!(
    last_words_that_wait_in_the_kernel_are_passed_on,
    last_words_over_a_unix_socket_are_passed_on,
    last_words_that_are_queued_are_delivered,
    a_client_that_hangs_up_has_said_what_it_said,
    what_is_queued_is_sent_before_a_reset,
    pairs_share_what_memory_there_is,
);

/// A pair is held soon.
const LOW: Limits = Limits { high_water_bytes: 64 << 10, low_water_bytes: 16 << 10, ..DEFAULTS };
/// A pair is never held.
const HIGH: Limits = Limits { high_water_bytes: 12 << 20, ..DEFAULTS };
const DEFAULTS: Limits = Limits {
    idle_timeout: None,
    head_timeout: None,
    body_timeout: None,
    write_timeout: Some(PATIENCE),
    max_input_bytes: 64 << 10,
    high_water_bytes: 256 << 10,
    low_water_bytes: 64 << 10,
    max_output_bytes: 16 << 20,
    min_rate_bytes: 0,
    min_rate_grace: PATIENCE,
    max_connections_per_address: 0,
};

fn bytes_in(bench: &Bench, site: usize) -> u64 {
    bench.metrics.listener(site).get(ListenerWord::BytesIn)
}

/// More than any of the tests gets rid of.
fn all() -> &'static [u8] {
    static ALL: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(4 << 20));
    &ALL
}

/// Writes until the engine, whose other side does not read, takes no more; answers what was written.
fn fill(stream: &mut (impl Write + std::os::fd::AsFd)) -> &'static [u8] {
    let (said, end) = fill_or_end(stream);
    assert!(end.is_none(), "{end:?}");
    said
}

/// The same, or until the connection ends; answers how it did, too.
fn fill_or_end(stream: &mut (impl Write + std::os::fd::AsFd)) -> (&'static [u8], Option<std::io::Error>) {
    let all = all();
    rustix::io::ioctl_fionbio(&*stream, true).unwrap();
    let (mut sent, mut refused) = (0, 0);
    // Refused again and again: what is on its way has arrived.
    while refused < 20 && sent < all.len() {
        match stream.write(&all[sent..]) {
            Ok(n) => (sent, refused) = (sent + n, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(error) => return (&all[..sent], Some(error)),
        }
    }
    rustix::io::ioctl_fionbio(&*stream, false).unwrap();
    (&all[..sent], None)
}

/// Whether the kernel of the other side has all that was sent, and its end.
fn has_all_arrived(stream: &TcpStream) -> bool {
    // proc_net_tcp(5): the local address and the state; 05 is FIN-WAIT-2, in which the FIN has been acknowledged.
    let own = format!("0100007F:{:04X}", stream.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 3 && fields[1] == own && fields[3] == "05"
    })
}

/// Says something to who has hung up, twice: the kernel learns of it by the first, and the engine at the second.
fn talk_on(bench: &Bench, stream: &mut TcpStream, site: usize) {
    let before = bytes_in(bench, site);
    stream.write_all(b"x").unwrap();
    until(|| bytes_in(bench, site) > before);
    stream.write_all(b"y").unwrap();
}

fn last_words_that_wait_in_the_kernel_are_passed_on(config: EngineConfig) {
    let bench = Bench::with(config, LOW);
    let (mut client, mut target) = bench.pair();
    // So that there is room for the last words behind what is held.
    let held = || {
        let page = bench.handle.connections_page(None, 10, PATIENCE).unwrap();
        page.iter().any(|conn| conn.queued > 64 << 10)
    };
    let mut said = 0;
    let all = all();
    sockopt::set_socket_recv_buffer_size(&client, 32 << 10).unwrap();
    while !held() {
        target.write_all(&all[said..said + (32 << 10)]).unwrap();
        said += 32 << 10;
    }
    // Now it is not read from any more; a window of this size is left in any case.
    target.write_all(&all[said..said + (16 << 10)]).unwrap();
    said += 16 << 10;
    target.shutdown(Shutdown::Write).unwrap();
    until(|| has_all_arrived(&target));
    drop(target);
    talk_on(&bench, &mut client, 0);
    let got = rest(&mut client);
    assert!(got == all[..said], "{} of {said} bytes came", got.len());
    drop(client);
    bench.closes();
}

fn last_words_over_a_unix_socket_are_passed_on(config: EngineConfig) {
    // With what it has not read itself, and without: the kernel has another error for each.
    for reads_all in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let bench = Bench::with(config, LOW);
        let mut client = bench.client_of("", &(&*path as &Path).into(), b"to");
        let (mut target, _) = listener.accept().unwrap();
        if reads_all {
            expect(&mut target, b"to");
        }
        let said = fill(&mut target);
        drop(target);
        talk_on(&bench, &mut client, 0);
        let got = rest(&mut client);
        assert!(got == said, "{} of {} bytes came", got.len(), said.len());
        drop(client);
        bench.closes();
    }
}

fn last_words_that_are_queued_are_delivered(config: EngineConfig) {
    let bench = Bench::with(config, HIGH);
    let (mut client, mut target) = bench.pair();
    let said = all();
    target.write_all(said).unwrap();
    until(|| bytes_in(&bench, 1) == 3 + said.len() as u64);
    drop(target);
    talk_on(&bench, &mut client, 0);
    let got = rest(&mut client);
    assert!(got == said, "{} of {} bytes came", got.len(), said.len());
    drop(client);
    bench.closes();
}

fn a_client_that_hangs_up_has_said_what_it_said(config: EngineConfig) {
    let bench = Bench::with(config, HIGH);
    let (mut client, mut target) = bench.pair();
    let before = bytes_in(&bench, 0);
    let said = all();
    client.write_all(said).unwrap();
    until(|| bytes_in(&bench, 0) == before + said.len() as u64);
    drop(client);
    talk_on(&bench, &mut target, 1);
    let got = rest(&mut target);
    assert!(got == said, "{} of {} bytes came", got.len(), said.len());
    drop(target);
    bench.closes();
}

fn what_is_queued_is_sent_before_a_reset(config: EngineConfig) {
    let bench = Bench::with(config, HIGH);
    let (mut client, mut target) = bench.pair();
    sockopt::set_socket_recv_buffer_size(&client, 32 << 10).unwrap();
    let said = all();
    target.write_all(said).unwrap();
    until(|| bytes_in(&bench, 1) == 3 + said.len() as u64);
    reset(target);
    until(|| bench.metrics.listener(1).closed(Reason::PEER_RESET) == 1);
    let mut got = Vec::new();
    let error = client.read_to_end(&mut got).expect_err("what was interrupted looks whole");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // A reset overtakes what the kernel still has.
    assert!(got.len() > said.len() - (512 << 10) && said.starts_with(&got), "{} bytes came", got.len());
    bench.expect_closes(Reason::OTHER_SIDE, Reason::PEER_RESET);
}

fn pairs_share_what_memory_there_is(config: EngineConfig) {
    const LIMIT: usize = 2 << 20;
    let limits = Limits { high_water_bytes: LIMIT, low_water_bytes: LIMIT / 4, ..DEFAULTS };
    let bench = Bench::with(EngineConfig { max_buffer_bytes: LIMIT, ..config }, limits);
    let mut pairs: Vec<_> = (0..12).map(|_| bench.pair()).collect();
    // A busy machine may have it close the first ones for the others already.
    let said: Vec<&[u8]> = pairs.iter_mut().map(|(client, _)| fill_or_end(client).0).collect();
    let held = usize::try_from(bench.metrics.get(ProcessWord::BufferBytes)).unwrap();
    assert!(held <= LIMIT, "{held} bytes are held");
    // Some may have been closed for the others; who was not gets all.
    let mut whole = 0;
    for ((client, mut target), said) in pairs.into_iter().zip(said) {
        let _ = client.shutdown(Shutdown::Write);
        let mut got = Vec::new();
        let outcome = target.read_to_end(&mut got);
        assert!(said.starts_with(&got), "what came is not what was sent");
        if outcome.is_ok() {
            assert_eq!(got.len(), said.len());
            whole += 1;
        }
    }
    let [gate, out] = [0, 1].map(|site| bench.metrics.listener(site));
    until(|| gate.get(ListenerWord::Open) == 0 && out.get(ListenerWord::Open) == 0);
    let closed = gate.closed(Reason::MEMORY_PRESSURE) + out.closed(Reason::MEMORY_PRESSURE);
    assert_eq!(whole + usize::try_from(closed).unwrap(), 12);
    assert!(whole > 0, "nobody was spared");
    until(|| bench.metrics.get(ProcessWord::BufferBytes) <= LIMIT as u64 / 4);
}
