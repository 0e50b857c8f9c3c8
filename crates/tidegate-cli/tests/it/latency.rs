//! `tidegate latency`: captures of a real server behind a network that loses packets, told as tshark tells them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::tempdir;
use tidegate_capture::{End, Options, Report, analyse};

use crate::network::Network;
use crate::support::{BOUND, Client, Setup, folder_with, output_of, stderr, stdout, tidegate_in, wait_until};
use crate::tshark::compare;

/// Several round trips' worth at any window.
const LARGE: usize = 1 << 20;
const REQUESTS: usize = 40;
const PINGS: usize = 60;
/// So many of a hundred packets get lost that every kind of recovery is seen, and nothing ends for it.
const DROPS: &str = "numgen inc mod 37 == 11";

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

#[test]
fn what_is_told_of_a_lossy_network_is_what_tshark_tells() {
    let Some(network) = Network::open("loss", DROPS) else { return };
    let dir = tempdir().unwrap();
    let root = folder_with("large.bin", &"tide".repeat(LARGE / 4));
    let mut setup = Setup::new(&dir).set(format!("web.root={}", root.path().display()));
    setup.program = network.server_program(&dir);
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
    captures.into_iter().for_each(super::network::Capture::stop);
    let as_pcapng = dir.path().join("client.pcapng");
    convert(&at_client, &as_pcapng);
    assert_eq!(told_without_format(&as_pcapng), told_without_format(&at_client));
    for path in [&as_pcapng, &at_server] {
        let (report, agreement) = compare(path);
        eprintln!("{}: {agreement:?}", path.display());
        assert!(report.file.damage.is_none());
        // The packet that told of it may have been lost on its way to the server.
        let stalled = agreement.zero_windows > 0 && report.total.from_clients.zero_window_ns > 0;
        assert!(stalled || *path == at_server, "{agreement:?}");
        assert!(agreement.round_trips > 150 && agreement.again > 10, "{agreement:?}");
        check_messages(&report);
        check_command(path, &report);
    }
}

/// tshark writes pcapng.
fn convert(from: &Path, to: &Path) {
    let mut command = Command::new("tshark");
    assert!(output_of(command.arg("-r").arg(from).arg("-w").arg(to)).status.success());
}

fn told_without_format(path: &Path) -> Report {
    let mut report = analyse(path, &Options::default()).unwrap();
    report.file.format = "";
    report
}

fn check_messages(report: &Report) {
    let told: Vec<_> = report.messages.iter().map(|it| (&*it.what, it.to_first_byte.count)).collect();
    let count = |what: &str| told.iter().find(|it| it.0 == what).map_or(0, |it| it.1);
    // Where the capture has lost packets, it has lost the thread of their connections.
    if report.total.from_clients.uncaptured + report.total.from_servers.uncaptured == 0 {
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
