//! `Layer`: what stands between the bytes of a connection and its service, as TLS does.
//!
//! A layer turns what was received into what the service reads, and what the service sends into what is sent. It sees bytes
//! and never a socket: the engine receives for it, keeps what it has not taken yet, sends what it has made, and watches its
//! time. Invariant: between two calls a session of a layer holds no buffer, so that an idle connection holds none either.
//!
//! Nothing here knows a protocol; `tidegate-tls` is the layer that there is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{Peer, Target};

/// A layer of a listener: makes a session for each of its connections. See
/// [`BoxedService::layer`](crate::BoxedService::layer).
pub trait Layer: Send + Sync + 'static {
    /// The first bytes of a connection have come.
    fn accept(&self, peer: &Peer<'_>) -> Box<dyn LayerSession>;

    /// How long a connection has from when it was accepted to the end of its handshake. Later, it ends with
    /// [`Reason::TLS_TIMEOUT`](crate::Reason::TLS_TIMEOUT).
    fn handshake_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// Handshakes of this listener at the same time, in each loop. A connection counts from its first byte; those beyond
    /// the limit wait with no more read of them, and go on in the order in which they came.
    fn max_handshakes(&self) -> usize {
        2000
    }
}

/// A layer of a client: makes a session for each connection that was asked for and has come about. See
/// [`BoxedService::client_layer`](crate::BoxedService::client_layer).
///
/// How long it may take to agree with the peer, [`Connect::deadline`](crate::Connect::deadline) says, which began when the
/// connection was asked for.
pub trait ClientLayer: Send + Sync + 'static {
    /// The connection to `target` is there, whose name is what [`Connect::server_name`](crate::Connect::server_name) said.
    ///
    /// # Errors
    ///
    /// There can be no session with it. The connection ends then without a word.
    fn connect(&self, target: &Target, name: Option<&str>) -> Result<Box<dyn LayerSession>, LayerError>;
}

/// The layer's side of one connection.
///
/// Used by one thread at a time, not always the same.
pub trait LayerSession: Send {
    /// Takes of `input` as much as can be understood: all that has been received and not been taken before, which may be
    /// changed in place. Appends to `plain` what it means for the service, and to `out` what the peer is to be sent at once.
    /// The session of a [`ClientLayer`] is called once before anything has come, and may speak first.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol, or nothing can be agreed upon. What was appended to `plain` and `out` before is still
    /// valid; with the latter the peer is told.
    fn receive(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<LayerProgress, LayerError>;

    /// Appends to `out` what `plain` is on its way to the peer. Only called once the handshake is done.
    ///
    /// # Errors
    ///
    /// Nothing more can be sent in this session.
    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError>;

    /// Appends to `out` by what the peer knows that nothing more follows. Called once at most, and nothing is sent after it.
    fn close(&mut self, out: &mut Vec<u8>);

    /// What was agreed upon. Asked once, when the handshake is done.
    fn security(&self) -> Security;
}

/// What came of a call of [`LayerSession::receive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerProgress {
    /// How many bytes from the start of the input are done with. The rest is given again, with more behind it.
    pub consumed: usize,
    /// Where the session stands.
    pub state: LayerState,
}

/// Where a session of a layer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// Nothing can be sent yet, and nothing has come for the service.
    Handshaking,
    /// Both sides can send.
    Open,
    /// The peer has said that nothing more follows from its side.
    Ended,
}

/// Why a session of a layer cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LayerError(pub String);

/// How a connection is secured: see [`Io::security`](crate::Io::security).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// The version of the protocol, as `TLSv1.3`.
    pub protocol: &'static str,
    /// The cipher suite, by the name that the protocol's registry gives it.
    pub cipher: &'static str,
    /// The protocol above, if one was agreed upon (RFC 7301).
    pub alpn: Option<Box<[u8]>>,
    /// The host that the peer asked for by name (RFC 6066, section 3), in lower case; of an outgoing connection the one that
    /// the peer was asked for and has shown to be.
    pub server_name: Option<Box<str>>,
    /// Whether it goes on from an earlier connection, which spared most of the handshake.
    pub resumed: bool,
}

/// A layer of whatever kind, as a site has it.
#[derive(Clone)]
pub(crate) struct AnyLayer(pub(crate) Arc<dyn Layer>);

impl fmt::Debug for AnyLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Layer")
    }
}

/// A layer of a client of whatever kind, as a site has it.
#[derive(Clone)]
pub(crate) struct AnyClientLayer(pub(crate) Arc<dyn ClientLayer>);

impl fmt::Debug for AnyClientLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientLayer")
    }
}
