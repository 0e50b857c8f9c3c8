//! `tidegate latency`: captures of a real server behind a network that loses packets, told as tshark tells them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::{TempDir, tempdir};
use tidegate_capture::{Counts, End, Options, Percentiles, Report, analyse};

use crate::forwarder::{Deeds, Plan};
use crate::links::{check_links, told_without_format};
use crate::network::Network;
use crate::support::{BOUND, Client, Setup, folder_with, output_of, stderr, stdout, tidegate_in, wait_until};
use crate::tshark::compare;

/// Several round trips' worth at any window.
const LARGE: usize = 1 << 20;
const REQUESTS: usize = 40;
const PINGS: usize = 60;
/// So many of a hundred packets get lost that every kind of recovery is seen, and nothing ends for it.
const DROPS: &str = "numgen inc mod 37 == 11";
/// What is late is overtaken, and is there before it could have been sent again.
const PLAN: Plan = Plan {
    way: Duration::from_millis(2),
    jitter: Duration::from_millis(1),
    drop_each: 53,
    double_each: 31,
    late_each: 17,
    late: Duration::from_micros(2_500),
};

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, BOUND).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

/// One request after the other, and each answer as a whole.
fn ask(to: SocketAddr, path: &str, count: usize) -> usize {
    let mut stream = connect(to);
    let mut bytes = 0;
    for _ in 0..count {
        // In one piece, so that it is one packet.
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut buf = vec![0; 64 << 10];
        let mut whole = usize::MAX;
        while answer.len() < whole {
            let read = stream.read(&mut buf).unwrap();
            assert!(read > 0, "the answer is cut");
            answer.extend_from_slice(&buf[..read]);
            if let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
                let text = std::str::from_utf8(&answer[..head]).unwrap().to_ascii_lowercase();
                let length = text.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
                whole = head + 4 + length.parse::<usize>().unwrap();
            }
        }
        bytes += answer.len();
    }
    bytes
}

/// Asks for more than there is room for, and reads it when that has been captured.
fn read_late(to: SocketAddr, capture: &Path) {
    let mut stream = connect(to);
    stream.write_all(b"GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    wait_until("there is no room", || {
        analyse(capture, &Options::default()).is_ok_and(|report| report.total.from_clients.zero_windows > 0)
    });
    assert!(stream.read_to_end(&mut Vec::new()).unwrap() > LARGE);
}

fn ping(to: SocketAddr, count: usize) {
    let mut client = Client::open(to);
    (1..count).for_each(|_| client.ping());
}

/// Waits until the capture has come up to now: until it has a whole connection that is opened while it is waited for.
fn catch_up(path: &Path, gateway: SocketAddr) {
    wait_until("the capture has caught up", || {
        ping(gateway, 1);
        let last = analyse(path, &Options::default()).ok().and_then(|mut report| report.connections.pop());
        last.is_some_and(|last| last.end == End::Closed && last.server == gateway.to_string())
    });
}

/// A file, and whether tcpdump has had the time for all packets.
type Captured = (PathBuf, bool);

/// A server, traffic with it, and what was captured of it at the client and at the server.
fn capture_in(dir: &TempDir, network: &Network) -> [Captured; 2] {
    let root = folder_with("large.bin", &"tide".repeat(LARGE / 4));
    let mut setup = Setup::new(dir).set(format!("web.root={}", root.path().display()));
    setup.program = network.server_program(dir);
    setup = setup.set("listen.web.address=10.99.2.1:0").set("listen.gateway.address=[fd99:2::1]:0");
    let server = setup.start();
    let (at_client, at_server) = (dir.path().join("client.pcap"), dir.path().join("server.pcap"));
    let captures = [network.capture_at_client(&at_client), network.capture_at_server(&at_server)];
    let (web, gateway) = (server.address("web"), server.address("gateway"));
    network.as_client(|| {
        assert!(ask(web, "/large.bin", 1) > LARGE);
        ask(web, "/none", REQUESTS);
        ping(gateway, PINGS);
        read_late(web, &at_client);
        catch_up(&at_client, gateway);
        catch_up(&at_server, gateway);
    });
    let [client, server] = captures.map(super::network::Capture::stop);
    eprintln!("tcpdump has missed {client} packets at the client, and {server} at the server");
    [(at_client, client == 0), (at_server, server == 0)]
}

#[test]
fn what_is_told_of_a_lossy_network_is_what_tshark_tells() {
    let Some(network) = Network::open("loss", DROPS) else { return };
    let dir = tempdir().unwrap();
    let [(at_client, client_is_whole), (at_server, server_is_whole)] = capture_in(&dir, &network);
    let as_pcapng = dir.path().join("client.pcapng");
    convert(&at_client, &as_pcapng);
    assert_eq!(told_without_format(&as_pcapng), told_without_format(&at_client));
    check_links(&at_client, dir.path());
    for (path, is_whole) in [(&as_pcapng, client_is_whole), (&at_server, server_is_whole)] {
        let (report, agreement) = compare(path);
        eprintln!("{}: {agreement:?}", path.display());
        assert!(report.file.damage.is_none());
        // The packet that told of it may have been lost on its way to the server.
        let stalled = agreement.zero_windows > 0 && report.total.from_clients.zero_window_ns > 0;
        assert!(stalled || *path == at_server, "{agreement:?}");
        assert!(agreement.round_trips > 150 && agreement.again > 10, "{agreement:?}");
        check_messages(&report, is_whole);
        check_command(path, &report);
    }
}

#[test]
fn what_is_told_of_delays_doubles_and_packets_out_of_order_is_what_was_done() {
    let Some((network, forwarder)) = Network::open_wire("wire", PLAN) else { return };
    let dir = tempdir().unwrap();
    let [(at_client, client_is_whole), (at_server, server_is_whole)] = capture_in(&dir, &network);
    let [from_client, from_server] = forwarder.stop();
    eprintln!("{from_client:?}, {from_server:?}");
    let (report, agreement) = compare(&at_client);
    eprintln!("at the client: {agreement:?}, {:?}", report.total);
    assert!(agreement.round_trips > 100 && agreement.jitters > 0, "{agreement:?}");
    let total = &report.total;
    let (clients, servers) = ((&total.from_clients, &from_client), (&total.from_servers, &from_server));
    check_deeds(clients, servers, client_is_whole);
    check_messages(&report, client_is_whole);
    check_way(total.rtt_to_server.as_ref().map(|rtt| rtt.times));
    check_way(total.handshake);
    let (report, agreement) = compare(&at_server);
    eprintln!("at the server: {agreement:?}, {:?}", report.total);
    let total = &report.total;
    let (clients, servers) = ((&total.from_clients, &from_client), (&total.from_servers, &from_server));
    check_deeds(servers, clients, server_is_whole);
    check_messages(&report, server_is_whole);
    check_way(total.rtt_to_client.as_ref().map(|rtt| rtt.times));
    check_way(total.handshake);
    assert!(total.from_servers.reordered == 0 && from_server.held_back > 20, "{from_server:?}");
}

/// What was captured on this side of the trouble, and on the other.
fn check_deeds((near, deeds): (&Counts, &Deeds), (far, other): (&Counts, &Deeds), is_whole: bool) {
    assert_eq!((near.reordered, near.duplicates), (0, 0), "{near:?}");
    assert!(far.reordered <= other.held_back, "{far:?}, {other:?}");
    if is_whole && near.captured_late + far.captured_late == 0 {
        assert_eq!(far.duplicates, other.doubled, "{far:?}, {other:?}");
        assert!(near.retransmissions >= deeds.dropped, "{near:?}, {deeds:?}");
        // What was doubled says nothing of what was lost; it is a copy's own double that may be taken for the loss's denial.
        assert!(near.lost >= deeds.dropped / 2, "{near:?}, {deeds:?}");
    }
}

/// No round trip over the wire is shorter than the wire.
fn check_way(times: Option<Percentiles>) {
    assert!(times.is_some_and(|times| times.min_ns >= 2 * WAY_NS), "{times:?}");
}

/// One way takes at least so long; the clocks of captures may be set a little meanwhile.
const WAY_NS: u64 = 1_990_000;

/// tshark writes pcapng.
fn convert(from: &Path, to: &Path) {
    let mut command = Command::new("tshark");
    assert!(output_of(command.arg("-r").arg(from).arg("-w").arg(to)).status.success());
}

fn check_messages(report: &Report, is_whole: bool) {
    let told: Vec<_> = report.messages.iter().map(|it| (&*it.what, it.to_first_byte.count)).collect();
    let count = |what: &str| told.iter().find(|it| it.0 == what).map_or(0, |it| it.1);
    // Where the capture has lost packets, it may have lost requests, or the begin of a connection.
    if is_whole {
        assert!(count("0 ping") >= PINGS as u64, "{told:?}");
        assert_eq!((count("GET /none"), count("GET /large.bin")), (REQUESTS as u64, 2), "{told:?}");
    }
    for message in &report.messages {
        assert!(message.to_first_byte.p50_ns <= message.to_last_byte.p50_ns);
        let thinking = message.thinking.as_ref().map_or(0, |thinking| thinking.p50_ns);
        assert!(thinking <= message.to_first_byte.max_ns, "{message:?}");
    }
}

/// The command tells the same in every form.
fn check_command(path: &Path, report: &Report) {
    let dir = tempdir().unwrap();
    let name = path.to_str().unwrap();
    let json = tidegate_in(dir.path(), ["latency", name, "--json", "--svg", "rtt.svg"]);
    assert_eq!(json.status.code(), Some(0), "{json:?}");
    let json: serde_json::Value = serde_json::from_str(stdout(&json)).unwrap();
    assert_eq!(json["total"], serde_json::to_value(&report.total).unwrap());
    assert_eq!(json["messages"], serde_json::to_value(&report.messages).unwrap());
    let svg = std::fs::read_to_string(dir.path().join("rtt.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("capture to server") && svg.contains("circle"));
    let text = tidegate_in(dir.path(), ["latency", name]);
    let text = stdout(&text);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for part in ["ROUND TRIPS", "handshake", "capture to client", "GET /large.bin", "0 ping", "[fd99:2::1]:"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn what_is_no_capture_or_only_half_of_one_is_said() {
    let dir = folder_with("text.pcap", "this is not a capture, and long enough to be one");
    let output = tidegate_in(dir.path(), ["latency", "text.pcap"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""));
    assert_eq!(stderr(&output), "tidegate: text.pcap: this is neither a pcap nor a pcapng file\n");
    let output = tidegate_in(dir.path(), ["latency", "none.pcap"]);
    let text = stderr(&output);
    assert!(text.starts_with("tidegate: none.pcap: the file cannot be opened: No such file"), "{text}");
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1, 5, 0, 60, 60] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    std::fs::write(dir.path().join("half.pcap"), file).unwrap();
    let output = tidegate_in(dir.path(), ["latency", "half.pcap"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).starts_with("pcap, 0 packets in "), "{output:?}");
    assert!(stderr(&output).contains("half.pcap: the file ends in the middle of a record"), "{output:?}");
}
