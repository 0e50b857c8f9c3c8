//! `Networks` and `Access`: sets of addresses, and who is let in by them.
//!
//! Invariant: an IPv4 address that a dual-stack socket shows as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address in every
//! question. Nothing here resolves names.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// Where a request comes from: an address, or a Unix socket, which has none.
pub(crate) type Source = Option<IpAddr>;

/// A set of addresses: networks, and whether peers of Unix sockets belong to it.
///
/// ```
/// use tidegate_web::Networks;
/// let networks = Networks::new(["10.0.0.0/8", "2001:db8::1", "unix"])?;
/// assert!(networks.contains(Some("10.1.2.3".parse()?)) && networks.contains(None));
/// assert!(!networks.contains(Some("192.0.2.1".parse()?)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    networks: Vec<IpNet>,
    unix: bool,
}

/// A text that is neither an address, nor a network, nor `unix`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a network: expected an IP address, one with a prefix as \"192.0.2.0/24\", or \"unix\""
)]
pub struct NetworkError {
    text: String,
}

impl Networks {
    /// Nobody.
    pub(crate) const NONE: Self = Self { networks: Vec::new(), unix: false };

    /// The networks of these texts: addresses, addresses with a prefix, or `unix`.
    ///
    /// # Errors
    ///
    /// The first text that is none of them.
    pub fn new<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Result<Self, NetworkError> {
        let mut networks = Self::default();
        texts.into_iter().try_for_each(|text| networks.add(text.as_ref()))?;
        Ok(networks)
    }

    /// Whether an address belongs to the set; `None` asks for the peers of Unix sockets.
    #[must_use]
    pub fn contains(&self, address: Option<IpAddr>) -> bool {
        self.prefix_of(address).is_some()
    }

    /// Whether nobody belongs to it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// The length of the longest prefix that the address has in common with one of the networks.
    fn prefix_of(&self, address: Source) -> Option<u8> {
        match address {
            None => self.unix.then_some(u8::MAX),
            Some(address) => {
                let address = address.to_canonical();
                let holding = self.networks.iter().filter(|network| network.contains(&address));
                holding.map(IpNet::prefix_len).max()
            }
        }
    }

    fn add(&mut self, text: &str) -> Result<(), NetworkError> {
        if text == "unix" {
            self.unix = true;
            return Ok(());
        }
        let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| IpNet::from_str(text));
        let network = network.map_err(|_| NetworkError { text: text.to_owned() })?;
        self.networks.push(canonical(network.trunc()));
        Ok(())
    }
}

/// Networks of addresses that a dual-stack socket shows as IPv6 are those of IPv4, as the addresses are.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else { return network };
    let prefix = mapped.prefix_len().checked_sub(MAPPED_PREFIX);
    let plain = prefix.and_then(|prefix| Ipv4Net::new(mapped.addr().to_ipv4_mapped()?, prefix).ok());
    plain.map_or(network, IpNet::V4)
}

/// Bits before the address of IPv4 in `::ffff:192.0.2.1`.
const MAPPED_PREFIX: u8 = 96;

/// Who may ask. The network with the longest prefix that holds an address decides; between two of the same, `deny` does. An
/// address that none of them holds is let in when `allow` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Who is let in; nobody else is, unless this is empty.
    pub allow: Networks,
    /// Who is not.
    pub deny: Networks,
}

impl Access {
    /// Whether an address is let in; `None` asks for the peers of Unix sockets.
    #[must_use]
    pub fn admits(&self, address: Option<IpAddr>) -> bool {
        match (self.allow.prefix_of(address), self.deny.prefix_of(address)) {
            (Some(allowed), Some(denied)) => allowed > denied,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.allow.is_empty(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        Networks::new(texts).unwrap()
    }

    #[track_caller]
    fn check(allow: &[&str], deny: &[&str], admitted: &[&str], refused: &[&str]) {
        let access = Access { allow: networks(allow), deny: networks(deny) };
        let source = |text: &&str| (*text != "unix").then(|| text.parse::<IpAddr>().unwrap());
        for text in admitted {
            assert!(access.admits(source(text)), "{text} is refused");
        }
        for text in refused {
            assert!(!access.admits(source(text)), "{text} is let in");
        }
    }

    #[test]
    fn the_longest_prefix_decides() {
        check(&[], &[], &["192.0.2.1", "::1", "unix"], &[]);
        check(&["10.0.0.0/8"], &[], &["10.9.9.9", "::ffff:10.1.1.1"], &["11.0.0.1", "::1", "unix"]);
        check(&[], &["10.0.0.0/8", "unix"], &["11.0.0.1", "::1"], &["10.0.0.1", "::ffff:10.0.0.1", "unix"]);
        check(&["10.0.0.0/8"], &["10.1.0.0/16"], &["10.2.0.1"], &["10.1.0.1", "11.0.0.1"]);
        check(&["10.1.0.0/16"], &["0.0.0.0/0"], &["10.1.0.1"], &["10.2.0.1", "11.0.0.1"]);
        check(&["10.1.2.3"], &["10.1.2.3"], &[], &["10.1.2.3", "10.1.2.4"]);
        check(&["2001:db8::/32", "unix"], &[], &["2001:db8::1", "unix"], &["2001:db9::1", "10.0.0.1"]);
    }

    #[test]
    fn a_network_of_ipv4_is_one_however_it_is_written() {
        let refused = &["10.0.0.1", "::ffff:10.0.0.1", "192.0.2.1"];
        check(&[], &["::ffff:10.0.0.0/104", "::ffff:192.0.2.1"], &["11.0.0.1", "192.0.2.2", "::1"], refused);
        check(&["::ffff:0:0/96"], &["10.0.0.0/8"], &["192.0.2.1"], &["10.0.0.1", "::1"]);
        // Shorter ones are networks of IPv6 that hold no address of IPv4.
        check(&[], &["::/0"], &["10.0.0.1"], &["::1"]);
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in ["", "localhost", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.1 ", "unix:"] {
            assert!(Networks::new([text]).unwrap_err().to_string().contains(&format!("{text:?}")), "{text}");
        }
    }
}
