//! Clients that never wait for ever.
//!
//! The tests of the crate that puts a layer under a service have the same cases, and another file in place of this one.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::sockopt;
use tidegate_engine::BoxedService;

use crate::lab::Lab;
use crate::support::PATIENCE;

/// The service as it is.
pub(crate) fn boxed(lab: Lab) -> BoxedService {
    BoxedService::new(lab)
}

/// How many connections a loop that stands still can have waiting in its queue, as far as a client is concerned.
pub(crate) const UNGREETED: u64 = 100;

/// Whether a counter of bytes that were sent or received is right: what the service wrote or read, and nothing else.
pub(crate) fn counts(counted: u64, bytes: u64) -> bool {
    counted == bytes
}

/// A client of the lab.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        sockopt::set_socket_recv_buffer_size(&stream, 32 << 10).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(crate) fn send(&self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).unwrap();
    }

    /// Writes from another thread, so that this one can read.
    pub(crate) fn send_aside(&self, bytes: Vec<u8>) -> std::thread::JoinHandle<std::io::Result<()>> {
        let mut stream = self.stream().try_clone().unwrap();
        std::thread::spawn(move || stream.write_all(&bytes))
    }

    /// Writes a letter now and then, until nobody takes it any more.
    pub(crate) fn dribble(&self) -> std::thread::JoinHandle<()> {
        let mut stream = self.stream().try_clone().unwrap();
        std::thread::spawn(move || {
            // The pace of the peer, not a wait for anything.
            while stream.write_all(b"e").is_ok() {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        })
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        assert_eq!(line.pop(), Some('\n'), "the end came after {line:?}");
        line
    }

    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// Says something and hears it: everything before it has been handled.
    pub(crate) fn round_trip(&mut self) {
        self.send("echo there and back\n");
        self.expect("there and back");
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to FIN.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to a reset.
    pub(crate) fn until_reset(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let error = self.reader.read_to_end(&mut bytes).expect_err("FIN came, and a reset was expected");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        bytes
    }

    pub(crate) fn end_input(&self) {
        self.stream().shutdown(Shutdown::Write).unwrap();
    }

    /// Ends with a reset.
    pub(crate) fn reset(self) {
        sockopt::set_socket_linger(self.stream(), Some(Duration::ZERO)).unwrap();
    }
}
