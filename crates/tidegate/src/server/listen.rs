//! The listeners of a `ServerBuilder`: addresses, options, and what makes their services.
//!
//! Invariant: what cannot be taken is kept as the error of the start, the first one of all. Nothing is bound here.

use std::net::ToSocketAddrs;
use std::sync::Arc;

use tidegate_engine::{BoxError, BoxedService, CounterDef, DatagramService, Service};

use super::ServerBuilder;
use crate::config::Address;
use crate::status::StatusSource;
use crate::{Error, ListenOptions};

/// Makes the service of a listener, in each loop that serves it. The admin pages read the counters it is given.
pub(crate) type Factory = Arc<dyn Fn(&StatusSource) -> Result<BoxedService, BoxError> + Send + Sync>;

/// A listener and the service behind it.
#[derive(Clone)]
pub(crate) struct ListenSpec {
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) options: ListenOptions,
    /// Any worker can answer for all: one socket, whatever `process.accept` says.
    pub(crate) answers_for_all: bool,
    pub(crate) service: String,
    pub(crate) counters: &'static [CounterDef],
    pub(crate) factory: Factory,
}

impl ServerBuilder {
    /// Adds a listener at `address` (`"127.0.0.1:7000"`, `"[::1]:7000"`, port 0 for a free one, `"unix:/path"`), whose
    /// connections are served by what `factory` makes. The first is called `main`, further ones `listener-2` and so on.
    pub fn listen<S: Service>(
        self,
        address: impl Into<String>,
        factory: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        let name = self.next_name();
        self.listen_named(name, address, move || Ok(factory()))
    }

    /// As [`listen`](Self::listen), with a name, and a factory that may fail: its error is the error of the start.
    pub fn listen_named<S: Service>(
        self,
        name: impl Into<String>,
        address: impl Into<String>,
        factory: impl Fn() -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.listen_with(name, address, ListenOptions::default(), factory)
    }

    /// As [`listen_named`](Self::listen_named), with options of the socket and its connections. An option that a Unix socket
    /// does not have is an error of the start.
    pub fn listen_with<S: Service>(
        self,
        name: impl Into<String>,
        address: impl Into<String>,
        options: ListenOptions,
        factory: impl Fn() -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let text = address.into();
        let fits = |address: Address| match (&address, options.tcp_only()) {
            (Address::Unix(_), Some(option)) => Err(format!("a Unix socket has no option {option}")),
            (Address::Udp(_) | Address::Unixgram(_), _) => {
                Err("what comes there are datagrams: use listen_datagrams".to_owned())
            }
            _ => Ok(address),
        };
        let address =
            parse_address(&text).and_then(fits).map_err(|reason| Error::Address { address: text, reason });
        self.add_listener(
            name.into(),
            address,
            options,
            S::COUNTERS,
            Arc::new(move |_| factory().map(BoxedService::new)),
        )
    }

    /// Puts TLS under the service of the listener that was added last.
    ///
    /// Each process makes its own layer, as `main` runs in each of them; so that sessions go on in whichever worker a peer comes
    /// to next, give all of them the same [`TicketSecret`](crate::TicketSecret).
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: tidegate_tls::Tls) -> Self {
        let layer: Arc<dyn tidegate_engine::Layer> = Arc::new(tls);
        match self.listeners.last_mut().filter(|listener| !listener.address.is_datagram()) {
            Some(listener) => {
                let factory = Arc::clone(&listener.factory);
                listener.factory = Arc::new(move |status| Ok(factory(status)?.layer(Arc::clone(&layer))));
            }
            None => {
                let error = Error::Service(
                    "TLS is put under a listener of connections, and none is before it".into(),
                );
                self.error.get_or_insert(error);
            }
        }
        self
    }

    /// Adds a listener of datagrams at `address` (`"udp:127.0.0.1:7000"`, `"udp:[::1]:7000"`, port 0 for a free one,
    /// `"unixgram:/path"`), which are served by what `factory` makes. It is named as by [`listen`](Self::listen).
    ///
    /// ```no_run
    /// use tidegate::{Datagrams, Server};
    ///
    /// # fn main() -> Result<(), tidegate::Error> {
    /// let upper = || Datagrams::new(|io, _from, bytes| io.reply(&bytes.to_ascii_uppercase()));
    /// Server::builder().listen_datagrams("udp:127.0.0.1:7000", upper).run()
    /// # }
    /// ```
    pub fn listen_datagrams<S: DatagramService>(
        self,
        address: impl Into<String>,
        factory: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        let name = self.next_name();
        self.listen_datagrams_named(name, address, move || Ok(factory()))
    }

    /// As [`listen_datagrams`](Self::listen_datagrams), with a name, and a factory that may fail: its error is the error of
    /// the start.
    pub fn listen_datagrams_named<S: DatagramService>(
        self,
        name: impl Into<String>,
        address: impl Into<String>,
        factory: impl Fn() -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.listen_datagrams_with(name, address, ListenOptions::default(), factory)
    }

    /// As [`listen_datagrams_named`](Self::listen_datagrams_named), with the sizes of the kernel's buffers; any other option
    /// is an error of the start.
    pub fn listen_datagrams_with<S: DatagramService>(
        self,
        name: impl Into<String>,
        address: impl Into<String>,
        options: ListenOptions,
        factory: impl Fn() -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let text = address.into();
        let parsed = match (text.parse::<Address>(), options.connections_only()) {
            (Err(error), _) => Err(error.to_string()),
            (Ok(_), Some(option)) => Err(format!("a socket for datagrams has no option {option}")),
            (Ok(address), _) if !address.is_datagram() => {
                Err("what comes there are connections: \"udp:IP:port\" and \"unixgram:/path\" have datagrams"
                    .to_owned())
            }
            (Ok(address), None) => Ok(address),
        };
        let address = parsed.map_err(|reason| Error::Address { address: text, reason });
        self.add_listener(
            name.into(),
            address,
            options,
            S::COUNTERS,
            Arc::new(move |_| factory().map(BoxedService::of_datagrams)),
        )
    }

    /// The first error of all is that of the start.
    fn add_listener(
        mut self,
        name: String,
        address: Result<Address, Error>,
        options: ListenOptions,
        counters: &'static [CounterDef],
        factory: Factory,
    ) -> Self {
        match address {
            Ok(address) => self.listeners.push(ListenSpec {
                name,
                address,
                options,
                answers_for_all: false,
                service: "program".to_owned(),
                counters,
                factory,
            }),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
        self
    }

    /// What the next listener is called that is given no name.
    fn next_name(&self) -> String {
        match self.listeners.len() {
            0 => "main".to_owned(),
            n => format!("listener-{}", n + 1),
        }
    }
}

fn parse_address(text: &str) -> Result<Address, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    // A host name, as "localhost:7000"; the first of its addresses is taken.
    let mut addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().map(Address::Tcp).ok_or_else(|| "the name has no address".to_owned())
}
