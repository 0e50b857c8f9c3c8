//! The example `proxy`, as a program: its own process, with workers, between real peers.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::sockopt;
use rustix::process::{Pid, Signal, kill_process};

/// Far more than any of these tests needs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Proxy {
    fn start(target: &str, workers: &str) -> Self {
        let mut command = Command::new(program());
        command.args(["127.0.0.1:0", target, workers]).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = lines.map(Result::unwrap).find(|line| line.starts_with("ready,")).unwrap();
        let (_, address) = ready.split_once("front=").unwrap();
        Self { child, address: address.parse().unwrap() }
    }

    fn client(&self) -> TcpStream {
        patient(TcpStream::connect(self.address).unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        if !std::thread::panicking() {
            assert!(status.success(), "{status}");
        }
    }
}

/// Built beside the tests, but not for one of them alone.
fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().parent().unwrap().join("examples").join("proxy");
    assert!(program.exists(), "there is no {}: cargo build -p tidegate --example proxy", program.display());
    program
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn target() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

fn bytes(n: usize) -> Vec<u8> {
    (0u32..).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).take(n).collect()
}

#[test]
fn what_either_side_sends_reaches_the_other_to_its_end() {
    for workers in ["0", "2"] {
        let (listener, address) = target();
        let proxy = Proxy::start(&address, workers);
        for _ in 0..4 {
            let mut client = proxy.client();
            client.write_all(b"question").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut served = patient(listener.accept().unwrap().0);
            let mut asked = Vec::new();
            served.read_to_end(&mut asked).unwrap();
            assert_eq!(asked, b"question");
            let answer = bytes(3 << 20);
            let expected = answer.clone();
            let writer = std::thread::spawn(move || served.write_all(&answer).unwrap());
            let mut got = Vec::new();
            client.read_to_end(&mut got).unwrap();
            assert!(got == expected, "{} of {} bytes, or others", got.len(), expected.len());
            writer.join().unwrap();
        }
    }
}

#[test]
fn a_reset_is_passed_on_and_a_target_that_is_not_there_is_one() {
    let (listener, address) = target();
    let proxy = Proxy::start(&address, "1");
    let mut client = proxy.client();
    client.write_all(b"x").unwrap();
    let mut served = patient(listener.accept().unwrap().0);
    served.read_exact(&mut [0]).unwrap();
    sockopt::set_socket_linger(&served, Some(Duration::ZERO)).unwrap();
    drop(served);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(listener);
    let mut client = proxy.client();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_wrong_command_line_is_told() {
    for args in
        [&["127.0.0.1:0"][..], &["127.0.0.1:0", "localhost:80"], &["127.0.0.1:0", "127.0.0.1:80", "x"]]
    {
        let output = Command::new(program()).args(args).output().unwrap();
        assert!(!output.status.success());
        assert!(output.stderr.starts_with(b"Error: "), "{:?}", String::from_utf8_lossy(&output.stderr));
    }
}
