//! `Secured`: how the connections of a run were secured, and how often they went on from an earlier one.
//!
//! Invariant: each connection that was made over TLS is counted under exactly one [`Agreed`].

use serde::{Deserialize, Serialize};
use tidegate_engine::Security;

/// How the connections of a run were secured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secured {
    /// What was agreed upon, in the order in which it was first; one, unless the servers differ.
    pub agreed: Vec<Agreed>,
}

/// What some connections have agreed upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// The version, as `TLSv1.3`.
    pub protocol: String,
    /// The cipher suite, by its name in the registry of IANA.
    pub cipher: String,
    /// The protocol above, if one was agreed upon.
    pub alpn: Option<String>,
    /// How many connections.
    pub handshakes: u64,
    /// How many of them went on from an earlier one, which spared them the most of it.
    pub resumed: u64,
}

impl Secured {
    /// Counts a connection.
    pub(super) fn count(&mut self, security: &Security) {
        let resumed = u64::from(security.resumed);
        let alpn = security.alpn.as_deref();
        let is_same = |agreed: &&mut Agreed| {
            agreed.protocol == security.protocol
                && agreed.cipher == security.cipher
                && agreed.alpn.as_deref().map(str::as_bytes) == alpn
        };
        if let Some(agreed) = self.agreed.iter_mut().find(is_same) {
            agreed.handshakes += 1;
            agreed.resumed += resumed;
            return;
        }
        self.agreed.push(Agreed {
            protocol: security.protocol.to_owned(),
            cipher: security.cipher.to_owned(),
            alpn: alpn.map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
            handshakes: 1,
            resumed,
        });
    }

    /// Counts others too.
    pub(super) fn add(&mut self, other: Self) {
        for new in other.agreed {
            let is_same = |agreed: &&mut Agreed| {
                (&agreed.protocol, &agreed.cipher, &agreed.alpn) == (&new.protocol, &new.cipher, &new.alpn)
            };
            match self.agreed.iter_mut().find(is_same) {
                Some(agreed) => {
                    agreed.handshakes += new.handshakes;
                    agreed.resumed += new.resumed;
                }
                None => self.agreed.push(new),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_what_they_agreed_upon() {
        let of = |cipher, resumed| Security {
            protocol: "TLSv1.3",
            cipher,
            alpn: Some(b"http/1.1"[..].into()),
            server_name: None,
            resumed,
        };
        let (mut one, mut other) = (Secured::default(), Secured::default());
        for (secured, cipher, resumed) in [(0, "A", false), (0, "A", true), (1, "B", true), (1, "A", true)] {
            [&mut one, &mut other][secured].count(&of(cipher, resumed));
        }
        one.add(other);
        let told: Vec<_> =
            one.agreed.iter().map(|it| (it.cipher.as_str(), it.handshakes, it.resumed)).collect();
        assert_eq!(told, [("A", 3, 2), ("B", 1, 1)]);
        assert_eq!(one.agreed[0].alpn.as_deref(), Some("http/1.1"));
    }
}
