//! TLS as a layer of the engine, under any service: rustls between the bytes of a connection and what its service reads.
//!
//! Make [`Certificate`]s from PEM, put them into a [`Tls`] by [`Tls::builder`], and give that to
//! [`BoxedService::layer`](tidegate_engine::BoxedService::layer). The layer sees bytes and never a socket. Versions 1.2 and
//! 1.3, the protocol above by ALPN, the certificate by the name that the peer asks for (SNI), sessions that go on by tickets
//! which the workers of a server all understand.
//!
//! For connections that a program makes itself, [`TlsClient`] is the other side: it checks the server's certificate against
//! [`Roots`], and is given to [`BoxedService::client_layer`](tidegate_engine::BoxedService::client_layer).
//!
//! Nothing here does I/O, but that [`Certificate::read`] and [`Roots`] read files.
#![forbid(unsafe_code)]

mod certificate;
mod certificates;
mod client;
mod roots;
mod session;
mod tickets;
mod tls;
mod trust;

pub use certificate::{Certificate, CertificateError, CertificateWarning};
pub use client::{TlsClient, TlsClientBuilder};
pub use roots::{Roots, RootsError};
pub use tickets::TicketSecret;
pub use tls::{Tls, TlsBuilder, TlsError, Version};
