//! The rules of `[[listen]]`: which options a socket has.
//!
//! Invariant: an option that would have no effect, or would stop a loop, is an error with the reason. A value that is the
//! default may be written out, so that what `tidegate config` prints can be loaded.

use super::Finding;
use crate::config::schema::LISTEN;
use crate::config::tree::{Row, Setting, Tree};
use crate::config::value::ServiceName;

/// Options that cannot be served.
pub(super) fn options(tree: &Tree) -> Vec<Finding> {
    let rows = tree.rows(LISTEN).iter().enumerate();
    rows.flat_map(|(idx, row)| {
        let address = row.text("address").unwrap_or_default();
        let found = match address.split_once(':').map_or("", |(scheme, _)| scheme) {
            "unix" => on_unix(row),
            "udp" | "unixgram" => on_datagrams(row),
            _ => lingering(row).into_iter().collect(),
        };
        found.into_iter().map(move |(name, setting, why)| {
            let message = format!("{} {why}", setting.value);
            Finding::new(&setting.place, format!("{LISTEN}[{idx}].{name}"), message)
        })
    })
    .collect()
}

/// A name, its value, and what is wrong with it.
type Wrong<'a> = (&'static str, &'a Setting, &'static str);

/// socket(7): close(2) waits for so long, also of a non-blocking socket, and with it all connections of the loop.
fn lingering(row: &Row) -> Option<Wrong<'_>> {
    let linger = row.get("linger").filter(|linger| linger.value != "0s")?;
    Some(("linger", linger, "cannot be served: close(2) would keep the loop waiting for so long; \"0s\" can"))
}

/// Options of TCP, and those that accepted Unix sockets do not inherit.
fn on_unix(row: &Row) -> Vec<Wrong<'_>> {
    const TCP: &str = "has no effect: it is an option of TCP, and the address is that of a Unix socket";
    const BUFFER: &str =
        "has no effect: a Unix socket does not pass it on to the connections that it accepts";
    let options = [
        ("nodelay", TCP),
        ("keepalive", TCP),
        ("user_timeout", TCP),
        ("linger", TCP),
        ("receive_buffer", BUFFER),
        ("send_buffer", BUFFER),
        ("max_unsent", TCP),
    ];
    let said = options.into_iter().filter_map(|(name, why)| Some((name, row.get(name)?, why)));
    said.filter(|(name, setting, _)| *name == "linger" || !is_default(name, setting)).collect()
}

/// Services and options of connections, where datagrams come.
fn on_datagrams(row: &Row) -> Vec<Wrong<'_>> {
    const SERVICE: &str = "serves connections, and the address is one of datagrams";
    const OPTION: &str = "has no effect: it is an option of connections, and the address is one of datagrams";
    let service = row.get("service").filter(|service| {
        [ServiceName::Web, ServiceName::Redirect, ServiceName::Gateway, ServiceName::Admin]
            .iter()
            .any(|it| service.value == it.as_str())
    });
    let options =
        ["backlog", "nodelay", "keepalive", "user_timeout", "linger", "max_unsent", "proxy_protocol", "tls"];
    let said = options.into_iter().filter_map(|name| Some((name, row.get(name)?, OPTION)));
    let wrong = said.filter(|(name, setting, _)| *name == "linger" || !is_default(name, setting));
    service.map(|service| ("service", service, SERVICE)).into_iter().chain(wrong).collect()
}

/// Of those options that have a default.
fn is_default(name: &str, setting: &Setting) -> bool {
    match name {
        "nodelay" => setting.value == true,
        "proxy_protocol" => setting.value == false,
        _ => setting.value == "0s" || setting.value == "0B" || setting.value == 4096,
    }
}
