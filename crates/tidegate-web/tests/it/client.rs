//! A server for a test, and a blocking client that knows as much HTTP as is needed to check answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use tidegate_engine::{EngineConfig, ListenerMetrics, LoopBuilder, Metrics, Running, Service};
use tidegate_http::parse_http_date;
use tidegate_web::{Web, WebBuilder};

/// No answer of a healthy server takes as long; a test that waits for more fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A loop that serves, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    running: Option<Running>,
    metrics: Metrics,
}

impl Server {
    pub(crate) fn start(builder: WebBuilder) -> Self {
        Self::start_with(EngineConfig::default(), builder)
    }

    pub(crate) fn start_with(config: EngineConfig, builder: WebBuilder) -> Self {
        let web = builder.build().expect("the web service is built");
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let metrics = Metrics::on_heap(1);
        let running = LoopBuilder::new(config)
            .metrics(metrics.process(0))
            .listen("web", socket, || Ok(web))
            .spawn()
            .expect("the loop starts");
        Self { address, running: Some(running), metrics }
    }

    pub(crate) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, received: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        self.connect().ask(request)
    }

    /// `GET` of a path on a connection of its own.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(get(path))
    }

    pub(crate) fn metrics(&self) -> ListenerMetrics {
        self.metrics.process(0).listener(0)
    }

    /// A counter of the service, by its name.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let at = Web::COUNTERS.iter().position(|counter| counter.name == name).expect("a counter of the web");
        self.metrics().service(at)
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("runs until it is dropped")
    }

    /// Ends the loop in order and waits for it.
    pub(crate) fn join(mut self) {
        let running = self.running.take().expect("runs until it is dropped");
        running.join().expect("the loop ends well");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            let ended = running.join();
            if !std::thread::panicking() {
                ended.expect("the loop ends well");
            }
        }
    }
}

/// A `GET` request without any frills.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// A request with these field lines, each with its line end.
pub(crate) fn request(method: &str, path: &str, lines: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{lines}\r\n")
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a field that is there at most once.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {self:?}");
        value
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("a body of text")
    }

    pub(crate) fn closes(&self) -> bool {
        self.field("connection") == Some("close")
    }
}

impl Client {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes what is sent");
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Sends as much as the server takes before it hangs up.
    pub(crate) fn offer(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            other => other.expect("the server takes it or hangs up"),
        }
    }

    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer()
    }

    /// The next answer, to a request other than `HEAD`.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        if answer.status >= 200 && answer.status != 204 && answer.status != 304 {
            let len = answer.field("content-length").expect("an answer with content has a length");
            let len: usize = len.parse().expect("a length is a number");
            while self.received.len() < len {
                assert!(self.receive() > 0, "the connection ended in a body: {answer:?}");
            }
            answer.body = self.received.drain(..len).collect();
        }
        answer
    }

    /// The head of the next answer: all there is of an answer to `HEAD`.
    pub(crate) fn head(&mut self) -> Answer {
        let end = loop {
            match self.received.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => assert!(
                    self.receive() > 0,
                    "the connection ended in a head: {:?}",
                    self.received.escape_ascii().to_string()
                ),
            }
        };
        let head: Vec<u8> = self.received.drain(..end).collect();
        let text = String::from_utf8(head).expect("a head is text");
        let mut lines = text[..text.len() - 4].split("\r\n");
        let status = lines.next().expect("a status line");
        let status = status.strip_prefix("HTTP/1.1 ").expect("the version of the server");
        assert!(status.as_bytes()[3] == b' ', "{status}");
        let fields = lines.map(|line| line.split_once(": ").expect("a field line"));
        let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let answer = Answer { status: status[..3].parse().expect("a status code"), fields, body: Vec::new() };
        if answer.status >= 200 {
            let date = answer.field("date").expect("a final answer has a date");
            assert!(
                parse_http_date(date.as_bytes()).is_some_and(|seconds| seconds > 1_600_000_000),
                "{date}"
            );
        }
        answer
    }

    /// What comes before `end`, which is taken too.
    pub(crate) fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.received.windows(end.len()).position(|window| window == end) {
                let mut found: Vec<u8> = self.received.drain(..at + end.len()).collect();
                found.truncate(at);
                return found;
            }
            assert!(self.receive() > 0, "the connection ended before {}", end.escape_ascii());
        }
    }

    /// So many bytes.
    pub(crate) fn exactly(&mut self, len: usize) -> Vec<u8> {
        while self.received.len() < len {
            assert!(self.receive() > 0, "the connection ended before {len} bytes");
        }
        self.received.drain(..len).collect()
    }

    /// All that comes up to the end of the connection.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.receive() > 0 {}
        std::mem::take(&mut self.received)
    }

    /// Waits for the end of the connection, and insists that nothing comes before it.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        while self.receive() > 0 {}
        assert_eq!(self.received.escape_ascii().to_string(), "", "bytes before the end");
    }

    fn receive(&mut self) -> usize {
        let mut chunk = [0; 64 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(n) => {
                    self.received.extend_from_slice(&chunk[..n]);
                    return n;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return 0,
                Err(error) => {
                    panic!("no answer: {error}; so far {:?}", self.received.escape_ascii().to_string())
                }
            }
        }
    }
}

/// Tries until it is so. For what has to happen soon, but not at a time that could be named.
#[track_caller]
pub(crate) fn eventually(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be");
        std::thread::yield_now();
    }
}
