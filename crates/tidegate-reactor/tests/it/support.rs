//! A reactor with a listener, and clients that never wait for ever.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt;
use tidegate_reactor::{Completion, Epoll, ListenerId, Reactor, Token, Trigger, Uring};

/// Far more than any of these tests needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What the cases run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Epoll(Trigger),
    Uring,
}

impl Backend {
    pub(crate) const LEVEL: Self = Self::Epoll(Trigger::Level);
    pub(crate) const EDGE: Self = Self::Epoll(Trigger::Edge);
    pub(crate) const ONESHOT: Self = Self::Epoll(Trigger::Oneshot);
    pub(crate) const URING: Self = Self::Uring;

    /// Whether this machine has it; says so when it has not.
    pub(crate) fn is_there(self) -> bool {
        match self {
            Self::Epoll(_) => true,
            Self::Uring => Uring::new().inspect_err(|error| eprintln!("skipped, {error}")).is_ok(),
        }
    }
}

/// A reactor, whichever it is.
pub(crate) struct Any(Box<dyn Reactor>);

impl Any {
    pub(crate) fn new(backend: Backend) -> Self {
        match backend {
            Backend::Epoll(trigger) => Self(Box::new(Epoll::new(trigger).unwrap())),
            Backend::Uring => Self(Box::new(Uring::new().unwrap())),
        }
    }

    /// One wait of at most so long.
    pub(crate) fn wait_for(&mut self, limit: Duration) {
        let deadline = self.now() + limit;
        self.wait(Some(deadline)).unwrap();
    }
}

impl std::ops::Deref for Any {
    type Target = dyn Reactor;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl std::ops::DerefMut for Any {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut *self.0
    }
}

/// A reactor that listens on a free port.
pub(crate) struct Bench {
    pub(crate) reactor: Any,
    pub(crate) listener: ListenerId,
    /// The listening socket once more, as another process would hold it.
    pub(crate) socket: OwnedFd,
    pub(crate) address: SocketAddr,
    generation: u32,
}

pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    // Accepted sockets inherit it: a few hundred kilobytes fill the way to a client that does not read.
    sockopt::set_socket_send_buffer_size(&listener, 32 << 10).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

pub(crate) fn client(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    sockopt::set_socket_recv_buffer_size(&client, 32 << 10).unwrap();
    client
}

/// Makes the next close of a client a reset.
pub(crate) fn reset(client: TcpStream) {
    sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
}

/// Turns until `pick` answers something; panics when nothing happens for long.
pub(crate) fn until<T>(reactor: &mut Any, mut pick: impl FnMut(&mut Any, Completion) -> Option<T>) -> T {
    let limit = reactor.now() + PATIENCE;
    while reactor.now() < limit {
        reactor.wait(Some(limit)).unwrap();
        let mut found = None;
        while let Some(completion) = reactor.next() {
            if found.is_some() {
                panic!("{completion:?} came in the same turn as what was waited for");
            }
            found = pick(reactor, completion);
        }
        if let Some(found) = found {
            return found;
        }
    }
    panic!("nothing came for {PATIENCE:?}");
}

/// Whether this says that the connection takes bytes again; a stall says that it does not yet.
pub(crate) fn is_writable(completion: &Completion, token: Token) -> Option<()> {
    match completion {
        Completion::Writable(t) if *t == token => Some(()),
        Completion::Stalled(t) if *t == token => None,
        other => panic!("{other:?}"),
    }
}

/// A wait lasts: there is no event that is reported again and again and dropped.
pub(crate) fn expect_rest(reactor: &mut Any) {
    // What is said once may be left, and a signal may end a wait.
    const MOST_TURNS: u32 = 3;
    let deadline = reactor.now() + Duration::from_millis(20);
    let mut turns = 0;
    while reactor.now() < deadline {
        reactor.wait(Some(deadline)).unwrap();
        turns += 1;
        let completion = reactor.next();
        assert!(completion.is_none(), "{completion:?}");
        assert!(turns <= MOST_TURNS, "{turns} waits ended for nothing");
    }
}

impl Bench {
    pub(crate) fn new(backend: Backend) -> Self {
        let (socket, address) = listener();
        let mut reactor = Any::new(backend);
        let listener = reactor.listen(socket.try_clone().unwrap().into(), false).unwrap();
        Self { reactor, listener, socket: socket.into(), address, generation: 1 }
    }

    /// A client, and the token of its connection in slot 7.
    pub(crate) fn connect(&mut self) -> (TcpStream, Token) {
        self.connect_at(7)
    }

    pub(crate) fn connect_at(&mut self, slot: u32) -> (TcpStream, Token) {
        let client = client(self.address);
        let socket = until(&mut self.reactor, |_, completion| match completion {
            Completion::Accepted { socket, .. } => Some(socket),
            other => panic!("{other:?}"),
        });
        let token = Token { slot, generation: self.generation };
        self.generation += 1;
        self.reactor.open(token, socket).unwrap();
        (client, token)
    }

    /// What came until something other than bytes did.
    pub(crate) fn receive(&mut self) -> (Vec<u8>, Completion) {
        let mut bytes = Vec::new();
        let end = until(&mut self.reactor, |reactor, completion| match completion {
            Completion::Received(_) => {
                bytes.extend_from_slice(reactor.received());
                None
            }
            other => Some(other),
        });
        (bytes, end)
    }

    /// Exactly so many bytes.
    pub(crate) fn receive_bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        until(&mut self.reactor, |reactor, completion| {
            assert!(matches!(completion, Completion::Received(_)), "{completion:?}");
            bytes.extend_from_slice(reactor.received());
            (bytes.len() >= n).then_some(())
        });
        assert_eq!(bytes.len(), n);
        bytes
    }

    /// Begins a turn without waiting: what was asked for has reached the kernel by then at the latest.
    pub(crate) fn submit(&mut self) {
        let now = self.reactor.now();
        self.reactor.wait(Some(now)).unwrap();
        while let Some(completion) = self.reactor.next() {
            assert!(matches!(completion, Completion::Stalled(_)), "{completion:?}");
        }
    }

    /// As [`submit`](Self::submit), in the middle of anything.
    pub(crate) fn submit_whatever_comes(&mut self) {
        let now = self.reactor.now();
        self.reactor.wait(Some(now)).unwrap();
        while self.reactor.next().is_some() {}
    }

    /// Turns until nothing is left that was taken, and what is said meanwhile was awaited before.
    pub(crate) fn deliver(&mut self, token: Token) {
        let limit = self.reactor.now() + PATIENCE;
        self.reactor.await_writable(token);
        while self.reactor.unsent(token) {
            self.reactor.wait(Some(limit)).unwrap();
            while let Some(completion) = self.reactor.next() {
                is_writable(&completion, token);
            }
            assert!(self.reactor.now() < limit, "not delivered within {PATIENCE:?}");
        }
    }

    /// Nothing is reported of what has happened up to now.
    pub(crate) fn expect_silence(&mut self) {
        // An event of our own behind whatever there is: what was ready before is reported with it or before.
        self.reactor.waker().wake();
        let (bytes, end) = self.receive();
        assert!(bytes.is_empty() && matches!(end, Completion::Woken), "{bytes:?}, {end:?}");
    }
}

/// Bytes that show a gap, a repetition or a swap.
pub(crate) fn pattern(n: usize) -> Vec<u8> {
    (0u32..).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).take(n).collect()
}
