//! `PollServer`: a bare poll(2) loop, the baseline that every other model is compared with.
//!
//! Invariant: the array given to poll(2) is built anew only when a connection comes, goes, or waits to write, so that the
//! steady state costs what poll(2) costs and no more. It has no deadlines, no limits on output but the peer's own pace, and
//! no way to retire: nobody should serve with it.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, sockopt};
use tidegate_engine::Decoded;

use crate::Protocol;

/// The loop on a thread of its own.
#[derive(Debug)]
pub struct PollServer {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<io::Result<()>>,
}

impl PollServer {
    /// Serves at most `max_connections` at a time; further peers wait in the kernel's queue.
    ///
    /// # Errors
    ///
    /// No descriptor or no thread can be had.
    pub fn spawn<P: Protocol>(
        listener: impl Into<OwnedFd>,
        protocol: P,
        max_connections: usize,
    ) -> io::Result<Self> {
        let listener = Arc::new(listener.into());
        rustix::io::ioctl_fionbio(&listener, true)?;
        // Accepted sockets inherit it (tcp(7)).
        sockopt::set_tcp_nodelay(&listener, true)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let waker = Arc::clone(&stop);
        let mut event_loop = PollLoop {
            stop: waker,
            listener,
            protocol,
            max_connections,
            conns: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            out: Vec::new(),
        };
        let thread = thread::Builder::new().name("poll".into()).spawn(move || event_loop.run())?;
        Ok(Self { stop, thread })
    }

    /// Closes everything and waits for the end.
    ///
    /// # Errors
    ///
    /// What the loop ended with.
    pub fn stop(self) -> io::Result<()> {
        rustix::io::write(&*self.stop, &1_u64.to_ne_bytes())?;
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the poll loop panicked")))
    }
}

const SCRATCH_BYTES: usize = 64 << 10;
/// Where the listener and the first connection stand in the array; the first place is for the order to stop.
const LISTENER: usize = 1;
const FIRST_CONN: usize = 2;

struct PollLoop<P: Protocol> {
    stop: Arc<OwnedFd>,
    listener: Arc<OwnedFd>,
    protocol: P,
    max_connections: usize,
    conns: Vec<(OwnedFd, Conn<P::State>)>,
    scratch: Vec<u8>,
    /// What the present batch answers; empty between batches.
    out: Vec<u8>,
}

/// What is kept of a connection beside its descriptor.
struct Conn<S> {
    state: S,
    /// An incomplete message.
    input: Vec<u8>,
    /// What the kernel refused; nothing is read while it waits.
    output: Vec<u8>,
    closed: bool,
}

/// What a pass over the ready descriptors asks for.
#[derive(PartialEq, Eq)]
enum Next {
    /// The array still holds.
    Same,
    /// It must be built anew.
    Changed,
    Stop,
}

impl<P: Protocol> PollLoop<P> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            // The array borrows the descriptors, so they stand apart from what a pass changes.
            let (sockets, mut states): (Vec<_>, Vec<_>) = mem::take(&mut self.conns).into_iter().unzip();
            let (next, newcomers) = self.turn(&sockets, &mut states)?;
            let held = sockets.into_iter().zip(states).filter(|(_, conn)| !conn.closed);
            self.conns = held.chain(newcomers).collect();
            if next == Next::Stop {
                return Ok(());
            }
        }
    }

    /// Polls and serves until the array must be built anew.
    fn turn(
        &mut self,
        sockets: &[OwnedFd],
        states: &mut [Conn<P::State>],
    ) -> io::Result<(Next, Newcomers<P>)> {
        let accepting = sockets.len() < self.max_connections;
        let (stop, listener) = (Arc::clone(&self.stop), Arc::clone(&self.listener));
        let mut newcomers = Vec::new();
        let mut fds = vec![
            PollFd::new(&*stop, PollFlags::IN),
            PollFd::new(&*listener, if accepting { PollFlags::IN } else { PollFlags::empty() }),
        ];
        fds.extend(sockets.iter().zip(&*states).map(|(socket, conn)| {
            PollFd::new(socket, if conn.output.is_empty() { PollFlags::IN } else { PollFlags::OUT })
        }));
        let mut next = Next::Same;
        while next == Next::Same {
            let mut ready = match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if !fds[0].revents().is_empty() {
                return Ok((Next::Stop, newcomers));
            }
            if !fds[LISTENER].revents().is_empty() {
                ready -= 1;
                let room = self.max_connections - sockets.len();
                self.accept(room, &mut newcomers)?;
                next = Next::Changed;
            }
            let conns = fds[FIRST_CONN..].iter().zip(sockets).zip(states.iter_mut());
            for ((_, socket), conn) in conns.filter(|((fd, _), _)| !fd.revents().is_empty()).take(ready) {
                let waited = !conn.output.is_empty();
                self.serve(socket, conn);
                if conn.closed || waited == conn.output.is_empty() {
                    next = Next::Changed;
                }
            }
        }
        Ok((next, newcomers))
    }

    fn accept(&self, room: usize, newcomers: &mut Newcomers<P>) -> io::Result<()> {
        while newcomers.len() < room {
            let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => return Err(error.into()),
            };
            let state = P::State::default();
            newcomers.push((socket, Conn { state, input: Vec::new(), output: Vec::new(), closed: false }));
        }
        Ok(())
    }

    /// One read, the messages in it, and one write.
    fn serve(&mut self, socket: &OwnedFd, conn: &mut Conn<P::State>) {
        if conn.output.is_empty() {
            let got = match rustix::net::recv(socket, &mut self.scratch[..], RecvFlags::empty()) {
                Ok((got, _)) => got,
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => 0,
            };
            if got == 0 || !handle(&self.protocol, conn, &self.scratch[..got], &mut self.out) {
                conn.closed = true;
            }
        } else {
            mem::swap(&mut self.out, &mut conn.output);
        }
        if !self.out.is_empty() {
            match rustix::net::send(socket.as_fd(), &self.out, SendFlags::NOSIGNAL) {
                Ok(sent) => conn.output.extend_from_slice(&self.out[sent..]),
                Err(Errno::AGAIN | Errno::INTR) => conn.output.extend_from_slice(&self.out),
                Err(_) => conn.closed = true,
            }
            self.out.clear();
        }
    }
}

type Newcomers<P> = Vec<(OwnedFd, Conn<<P as Protocol>::State>)>;

/// Answers the complete messages and keeps the rest. False when the input breaks the protocol.
fn handle<P: Protocol>(protocol: &P, conn: &mut Conn<P::State>, got: &[u8], out: &mut Vec<u8>) -> bool {
    let mut joined = mem::take(&mut conn.input);
    let input = if joined.is_empty() {
        got
    } else {
        joined.extend_from_slice(got);
        &joined
    };
    let mut at = 0;
    while at < input.len() {
        match protocol.decode(&mut conn.state, &input[at..]) {
            Decoded::Message { len, .. } => {
                out.extend_from_slice(protocol.answer(&input[at..at + len]));
                at += len;
            }
            Decoded::Need { .. } => break,
            Decoded::Close(_) => return false,
        }
    }
    conn.input = input[at..].to_vec();
    true
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::{Echo, Hello, Sleep};

    fn serve<P: Protocol>(protocol: P, max_connections: usize) -> (PollServer, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (PollServer::spawn(listener, protocol, max_connections).unwrap(), address)
    }

    fn client(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn expect(stream: &mut TcpStream, answer: &[u8]) {
        let mut got = vec![0; answer.len()];
        stream.read_exact(&mut got).unwrap();
        assert!(got == answer, "another answer than expected");
    }

    #[test]
    fn requests_in_pieces_and_in_a_row_are_answered() {
        let (server, address) = serve(Hello, 10);
        let mut stream = client(address);
        let (head, tail) = Hello::REQUEST.split_at(10);
        stream.write_all(head).unwrap();
        stream.write_all(&[tail, Hello::REQUEST, Hello::REQUEST].concat()).unwrap();
        expect(&mut stream, &Hello::ANSWER.repeat(3));
        stream.write_all(b"nonsense\r\n\r\n").unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
        server.stop().unwrap();
    }

    #[test]
    fn a_peer_that_reads_late_gets_all() {
        let (server, address) = serve(Echo, 10);
        let mut stream = client(address);
        // Far more than both socket buffers hold, so that the server must wait to write.
        let bytes: Vec<u8> = (0..=255).cycle().take(16 << 20).collect();
        let mut writer = stream.try_clone().unwrap();
        let sent = bytes.clone();
        let writing = thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        expect(&mut stream, &bytes);
        writing.join().unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        server.stop().unwrap();
    }

    #[test]
    fn those_beyond_the_limit_wait_for_a_place() {
        let (server, address) = serve(Sleep, 1);
        let (mut first, mut second) = (client(address), client(address));
        first.write_all(&[1; 64]).unwrap();
        expect(&mut first, &[1; 64]);
        second.write_all(&[2; 64]).unwrap();
        drop(first);
        expect(&mut second, &[2; 64]);
        server.stop().unwrap();
    }
}
