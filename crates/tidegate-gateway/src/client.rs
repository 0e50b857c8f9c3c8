//! `Client`: the other end of the protocol, blocking.
//!
//! One thread, one connection, a time limit on everything. It speaks version 1 and nothing below it; it does not reconnect.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use tidegate_frame::{
    BadBodySize, BadText, BodyTooLong, Decoder, Frame, FrameError, HEADER, LOGIN, LoginReply, LoginRequest,
    PING, REGISTER, RegisterReply, RegisterRequest, Status, Step, encode,
};

/// A connection to a gateway. What cannot be sent leaves it as it was, and after a time-out [`recv`](Self::recv) may be called
/// again; after any other error it is of no further use.
#[derive(Debug)]
pub struct Client {
    /// A blocking stream socket.
    stream: OwnedFd,
    timeout: Duration,
    /// Bytes received of which no frame was made yet; less than a frame and a read.
    input: Vec<u8>,
    /// Frames that came while another one was waited for.
    waiting: VecDeque<Frame>,
}

/// How many frames are kept that came while another one was waited for.
const MAX_WAITING: usize = 1_024;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No address was given, or none of them could be connected to.
    #[error("connect to {address}")]
    Connect {
        /// The last one tried.
        address: String,
        /// What came of it.
        source: io::Error,
    },
    /// The connection failed; a reset is how a gateway answers a broken frame.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// Nothing came in time, or the server does not read.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The server ended the connection in order.
    #[error("the server closed the connection")]
    Closed,
    /// What came is not this protocol.
    #[error("the server sent no valid frame")]
    Frame(#[from] FrameError),
    /// A reply has not the size that its code asks for.
    #[error("the server sent a reply of a wrong size")]
    BodySize(#[from] BadBodySize),
    /// A name or password does not fit into its field.
    #[error("the name or password cannot be sent")]
    BadText(#[from] BadText),
    /// A body does not fit into a frame.
    #[error("the message cannot be sent")]
    BodyTooLong(#[from] BodyTooLong),
    /// Too many other frames came while an answer was waited for.
    #[error("more than {MAX_WAITING} frames came while an answer was waited for")]
    TooManyWaiting,
}

impl Client {
    /// Connects to the first address that takes it. `timeout` holds for each address, and for each later call as a whole.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub fn connect(address: impl ToSocketAddrs, timeout: Duration) -> Result<Self, ClientError> {
        let connect_error = |address: String, source| ClientError::Connect { address, source };
        let addresses =
            address.to_socket_addrs().map_err(|error| connect_error("the address".into(), error))?;
        let mut last = connect_error("the address".into(), ErrorKind::NotFound.into());
        for address in addresses {
            match Self::connect_one(address, timeout) {
                Ok(client) => return Ok(client),
                Err(source) => last = connect_error(address.to_string(), source),
            }
        }
        Err(last)
    }

    /// Connects to the gateway that listens on a Unix socket. `timeout` holds for this, and for each later call as a whole.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub fn connect_unix(path: impl AsRef<Path>, timeout: Duration) -> Result<Self, ClientError> {
        let path = path.as_ref();
        Self::connect_path(path, timeout)
            .map_err(|source| ClientError::Connect { address: format!("unix:{}", path.display()), source })
    }

    fn connect_one(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        // A request is one write, and waits for no other.
        stream.set_nodelay(true)?;
        Ok(Self::new(stream.into(), timeout))
    }

    fn connect_path(path: &Path, timeout: Duration) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let stream =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // Where the queue of the listener is full, connecting waits as long as sending may (socket(7)).
        set_socket_timeout(&stream, Timeout::Send, Some(timeout))?;
        rustix::net::connect(&stream, &address)?;
        Ok(Self::new(stream, timeout))
    }

    const fn new(stream: OwnedFd, timeout: Duration) -> Self {
        Self { stream, timeout, input: Vec::new(), waiting: VecDeque::new() }
    }

    /// Sends a ping and waits for its answer.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn ping(&mut self) -> Result<(), ClientError> {
        let reply = self.request(PING, b"")?;
        if reply.body.is_empty() {
            return Ok(());
        }
        Err(BadBodySize { code: PING, expected: 0, found: reply.body.len() }.into())
    }

    /// Asks for an account of type `kind`, and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; a refusal is a [`Status`].
    pub fn register(&mut self, kind: i32, username: &[u8], password: &[u8]) -> Result<Status, ClientError> {
        let body = RegisterRequest { kind, username, password }.encode()?;
        let reply = self.request(REGISTER, &body)?;
        Ok(RegisterReply::parse(&reply.body)?.status)
    }

    /// Logs in, and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; a refusal is a [`Status`].
    pub fn login(&mut self, username: &[u8], password: &[u8]) -> Result<Status, ClientError> {
        let body = LoginRequest { username, password }.encode()?;
        let reply = self.request(LOGIN, &body)?;
        Ok(LoginReply::parse(&reply.body)?.status)
    }

    /// Sends one frame.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn send(&mut self, code: u16, body: &[u8]) -> Result<(), ClientError> {
        let mut frame = Vec::with_capacity(HEADER + body.len());
        encode(code, body, &mut frame)?;
        self.send_raw(&frame)
    }

    /// Sends bytes as they are, for tests of a server.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = self.left(deadline)?;
            let sent = set_socket_timeout(&self.stream, Timeout::Send, Some(left))
                .and_then(|()| rustix::net::send(&self.stream, rest, SendFlags::NOSIGNAL));
            rest = &rest[self.taken(sent.map_err(io::Error::from))?..];
        }
        Ok(())
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn recv(&mut self) -> Result<Frame, ClientError> {
        match self.waiting.pop_front() {
            Some(frame) => Ok(frame),
            None => self.read_frame(Instant::now() + self.timeout),
        }
    }

    /// Sends a frame, and waits for one of the same code; others that come before it are kept for [`recv`](Self::recv).
    fn request(&mut self, code: u16, body: &[u8]) -> Result<Frame, ClientError> {
        self.send(code, body)?;
        let deadline = Instant::now() + self.timeout;
        loop {
            let frame = self.read_frame(deadline)?;
            if frame.code == code {
                return Ok(frame);
            }
            if self.waiting.len() >= MAX_WAITING {
                return Err(ClientError::TooManyWaiting);
            }
            self.waiting.push_back(frame);
        }
    }

    fn read_frame(&mut self, deadline: Instant) -> Result<Frame, ClientError> {
        loop {
            if let Step::Frame { len, header } = Decoder::new().decode(&self.input)? {
                let body = self.input[HEADER..len].to_vec();
                self.input.drain(..len);
                return Ok(Frame { code: header.code, body });
            }
            let left = self.left(deadline)?;
            let mut chunk = [0; 4_096];
            let read = set_socket_timeout(&self.stream, Timeout::Recv, Some(left))
                .and_then(|()| rustix::net::recv(&self.stream, &mut chunk, RecvFlags::empty()));
            let read = read.map(|(bytes, _)| bytes).map_err(io::Error::from);
            self.input.extend_from_slice(&chunk[..self.taken(read)?]);
        }
    }

    fn left(&self, deadline: Instant) -> Result<Duration, ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ClientError::Timeout(self.timeout)) } else { Ok(left) }
    }

    /// How many bytes a call moved. None is the end of the connection; an interruption is none that counts.
    fn taken(&self, result: io::Result<usize>) -> Result<usize, ClientError> {
        match result {
            Ok(0) => Err(ClientError::Closed),
            Ok(n) => Ok(n),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => Ok(0),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(ClientError::Timeout(self.timeout)),
                _ => Err(ClientError::Io(error)),
            },
        }
    }
}
