//! `Session`: rustls's side of one connection, driven by bytes.
//!
//! ```text
//!   received ──▶ records ──▶ what the service reads        (plain)
//!                       └──▶ handshake, alerts, tickets     (out)
//! ```
//!
//! rustls is used by its unbuffered interface: what it has not taken stays with the engine, so that an idle session holds keys
//! and no bytes. Invariant: whatever rustls has to say stands in `out` when a call returns.

use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{CommonState, HandshakeKind, ServerConfig};
use tidegate_engine::{LayerError, LayerProgress, LayerSession, LayerState, Security};

use crate::certificates;
use crate::trust::Advice;

/// A session of a server or of a client.
pub(crate) struct Session<C> {
    /// `None` when rustls refused the configuration, which the builder has tried before, and behind an error: rustls must not
    /// be asked for anything then.
    conn: Option<C>,
    /// Of a client, the name that the server was asked for; of a server, that which the client asked for.
    server_name: Option<Box<str>>,
    /// What to do when the peer is not trusted.
    advice: Advice,
    /// The peer has said that nothing more follows.
    ended: bool,
}

/// Bytes that a record has besides its text: header, explicit nonce, tag, type.
const RECORD_OVERHEAD: usize = 5 + 8 + 16 + 1;
/// Text of a record at the most (RFC 8446, section 5.1).
const RECORD_BYTES: usize = 1 << 14;
/// An alert, with what keys may be told of before.
const ALERT_BYTES: usize = 256;

/// What follows from a state.
enum Next {
    /// There may be more in what has come.
    GoOn,
    Stop(LayerState),
}

/// What rustls has twice, for servers and for clients.
pub(crate) trait Side: Send {
    type Data;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
    /// The name that the peer has just asked for.
    fn take_asked() -> Option<Box<str>>;
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn take_asked() -> Option<Box<str>> {
        certificates::take_asked()
    }
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn common(&self) -> &CommonState {
        self
    }

    fn take_asked() -> Option<Box<str>> {
        None
    }
}

impl Session<UnbufferedServerConnection> {
    pub(crate) fn of_server(config: &Arc<ServerConfig>) -> Self {
        let conn = UnbufferedServerConnection::new(Arc::clone(config));
        let conn = conn.map_err(|error| tracing::error!(%error, "no TLS session can be begun")).ok();
        Self { conn, server_name: None, advice: Advice::default(), ended: false }
    }
}

impl Session<UnbufferedClientConnection> {
    pub(crate) fn of_client(
        conn: UnbufferedClientConnection,
        name: Option<Box<str>>,
        advice: Advice,
    ) -> Self {
        Self { conn: Some(conn), server_name: name, advice, ended: false }
    }
}

impl<C: Side> Session<C> {
    fn conn(&mut self) -> Result<&mut C, LayerError> {
        self.conn.as_mut().ok_or_else(no_session)
    }

    /// What rustls has to say behind an error, an alert most often. It is shown what it has not taken: it may hold a piece of a
    /// message in there, and panics over an input without it. Behind the alert it is left alone: it would look at what has
    /// failed a second time.
    fn last_words(&mut self, rest: &mut [u8], out: &mut Vec<u8>) {
        let Some(conn) = &mut self.conn else { return };
        loop {
            match conn.process(rest).state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    let start = out.len();
                    encode(data, out);
                    if is_alert(&out[start..]) {
                        return;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                _ => return,
            }
        }
    }

    /// Takes one step; answers how many bytes it took, and what follows.
    fn step(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Next), LayerError> {
        let ended = self.ended;
        let conn = self.conn.as_mut().ok_or_else(no_session)?;
        let UnbufferedStatus { mut discard, state } = conn.process(input);
        let next = match state.map_err(|error| self.advice.explain(&error))? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(|error| LayerError(error.to_string()))?;
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Next::GoOn
            }
            ConnectionState::EncodeTlsData(data) => {
                encode(data, out);
                Next::GoOn
            }
            ConnectionState::TransmitTlsData(sent) => {
                sent.done();
                Next::GoOn
            }
            ConnectionState::PeerClosed => {
                self.ended = true;
                Next::GoOn
            }
            ConnectionState::Closed => Next::Stop(LayerState::Ended),
            ConnectionState::WriteTraffic(_) if ended => Next::Stop(LayerState::Ended),
            ConnectionState::WriteTraffic(_) => Next::Stop(LayerState::Open),
            ConnectionState::BlockedHandshake => Next::Stop(LayerState::Handshaking),
            // Early data is never accepted; see `Tls`.
            state => return Err(LayerError(format!("{state:?} is not expected of this session"))),
        };
        Ok((discard, next))
    }
}

impl<C: Side> LayerSession for Session<C> {
    fn receive(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<LayerProgress, LayerError> {
        let mut consumed = 0;
        let outcome = loop {
            if self.ended {
                // Whatever follows the peer's last word is to be ignored (RFC 8446, section 6.1).
                consumed = input.len();
            }
            let rest = input.get_mut(consumed..).unwrap_or_default();
            match self.step(rest, plain, out) {
                Ok((taken, next)) => {
                    consumed += taken;
                    if let Next::Stop(state) = next {
                        let rest = input.get(consumed..).unwrap_or_default();
                        if state == LayerState::Open && begins_with_record(rest) {
                            // A whole record that is not taken is a piece of a handshake message. The only one that there is a
                            // use for now is the ticket of a server, which fits into a record and is sent in one by all of them;
                            // and rustls must not be asked to send while it holds a piece that it is not shown.
                            self.conn = None;
                            break Err(LayerError(
                                "a handshake message in pieces after the handshake".into(),
                            ));
                        }
                        break Ok(LayerProgress { consumed, state });
                    }
                }
                Err(error) => {
                    self.last_words(input.get_mut(consumed..).unwrap_or_default(), out);
                    self.conn = None;
                    break Err(error);
                }
            }
        };
        if let Some(name) = C::take_asked() {
            self.server_name = Some(name);
        }
        outcome
    }

    fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LayerError> {
        let conn = self.conn()?;
        let start = out.len();
        let records = plain.len().div_ceil(RECORD_BYTES);
        let mut room = plain.len() + records * RECORD_OVERHEAD;
        loop {
            match conn.process(&mut []).state.map_err(|error| LayerError(error.to_string()))? {
                ConnectionState::EncodeTlsData(data) => encode(data, out),
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = out.len();
                    out.resize(start + room, 0);
                    match traffic.encrypt(plain, &mut out[start..]) {
                        Ok(len) => {
                            out.truncate(start + len);
                            return Ok(());
                        }
                        Err(EncryptError::InsufficientSize(needed)) if needed.required_size > room => {
                            out.truncate(start);
                            room = needed.required_size;
                        }
                        Err(error) => {
                            out.truncate(start);
                            return Err(LayerError(error.to_string()));
                        }
                    }
                }
                state => {
                    out.truncate(start);
                    return Err(LayerError(format!("nothing can be sent: {state:?}")));
                }
            }
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Ok(conn) = self.conn() else { return };
        loop {
            match conn.process(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, out),
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let start = out.len();
                    out.resize(start + ALERT_BYTES, 0);
                    // Without the alert the end of the connection says the same, only not so surely.
                    let len = traffic.queue_close_notify(&mut out[start..]).unwrap_or(0);
                    return out.truncate(start + len);
                }
                _ => return,
            }
        }
    }

    fn security(&self) -> Security {
        let conn = self.conn.as_ref().map(C::common);
        let version = conn.and_then(|conn| conn.protocol_version());
        let suite = conn.and_then(|conn| conn.negotiated_cipher_suite());
        Security {
            protocol: version.and_then(|version| version.as_str()).map_or("unknown", protocol),
            cipher: suite.and_then(|suite| suite.suite().as_str()).map_or("unknown", cipher),
            alpn: conn.and_then(|conn| conn.alpn_protocol()).map(Into::into),
            server_name: self.server_name.clone(),
            resumed: conn.and_then(|conn| conn.handshake_kind()) == Some(HandshakeKind::Resumed),
        }
    }
}

fn no_session() -> LayerError {
    LayerError("no session could be begun".into())
}

/// Whether the record is an alert. Version 1.3 hides the type of what is encrypted (RFC 8446, section 5.2), but nothing else is as
/// short: two bytes, the hidden type and the tag.
fn is_alert(record: &[u8]) -> bool {
    match record {
        [21, ..] => true,
        [23, _, _, high, low, ..] => u16::from_be_bytes([*high, *low]) == 2 + 1 + 16,
        _ => false,
    }
}

/// Whether there is a whole record (RFC 8446, section 5.1): type, version, length, text.
fn begins_with_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, text @ ..] => text.len() >= usize::from(u16::from_be_bytes([*high, *low])),
        _ => false,
    }
}

/// Appends a message of rustls's own.
fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut room = ALERT_BYTES;
    loop {
        out.resize(start + room, 0);
        match data.encode(&mut out[start..]) {
            Ok(len) => return out.truncate(start + len),
            Err(EncodeError::InsufficientSize(needed)) if needed.required_size > room => {
                room = needed.required_size;
            }
            Err(_) => return out.truncate(start),
        }
    }
}

/// As OpenSSL and others write it.
fn protocol(name: &'static str) -> &'static str {
    match name {
        "TLSv1_2" => "TLSv1.2",
        "TLSv1_3" => "TLSv1.3",
        other => other,
    }
}

/// As the registry of IANA writes it: rustls marks the suites of version 1.3.
pub(crate) fn cipher(name: &'static str) -> &'static str {
    match name {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}
