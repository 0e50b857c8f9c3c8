//! The admin pages: `/` for people, `/healthz`, `/readyz`, `/metrics` and `/status` for machines, over all processes.
//!
//! Invariant: they change nothing, and name nothing outside of this server: a page that was made to say more than it should
//! still runs no script of others. A page of others gets at them under no name of its own, either.

mod chart;
mod figures;
mod page;
mod tables;
mod text;

use std::net::Ipv4Addr;

use tidegate_engine::PeerAddress;
use tidegate_web::{Next, Request, Response, Status, Web, WebError};

use self::figures::Figures;
use crate::status::StatusSource;

/// Makes the service of a listener with `service = "admin"`.
pub(crate) fn admin(source: &StatusSource) -> Result<Web, WebError> {
    let (people, ready, metrics, status) = (source.clone(), source.clone(), source.clone(), source.clone());
    Web::builder()
        .middleware(only_under_own_names)
        .handler("/", move |_| page_answer(page::page(&Figures::read(&people))))
        .handler("/admin/page.css", |_| fixed("text/css; charset=utf-8", include_str!("admin/page.css")))
        .handler("/admin/page.js", |_| fixed("text/javascript; charset=utf-8", include_str!("admin/page.js")))
        .handler("/admin/icon.svg", |_| fixed("image/svg+xml", include_str!("admin/icon.svg")))
        .handler("/healthz", |_| answer(Status::OK, TEXT, "ok\n"))
        .handler("/readyz", move |_| match ready.is_ready() {
            true => answer(Status::OK, TEXT, "ready\n"),
            false => answer(Status::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
        })
        .handler("/metrics", move |_| answer(Status::OK, PROMETHEUS, metrics.prometheus()))
        .handler("/status", move |_| match serde_json::to_vec_pretty(&status.collect()) {
            Ok(body) => answer(Status::OK, "application/json", body),
            Err(error) => answer(Status::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        })
        .build()
}

/// Whoever asks from this machine may be a browser that was told of a name of somebody else that it leads here (DNS
/// rebinding), and would let his page read the answer. What asks for the state of health is no browser, and learns nothing.
fn only_under_own_names(request: Request<'_>, next: Next<'_>) -> Response {
    let is_from_here =
        matches!(request.peer(), PeerAddress::Inet(address) if address.ip().to_canonical().is_loopback());
    let is_of_health = matches!(request.path(), "/healthz" | "/readyz");
    if is_from_here && !is_of_health && request.header("Host").is_some_and(may_be_of_others) {
        return answer(Status::MISDIRECTED_REQUEST, TEXT, STRANGE_NAME);
    }
    next.run(request)
}

/// Whether the host of a request is a name that others can have: one with a dot in it that is neither an address nor below
/// `localhost` (RFC 6761, section 6.3).
fn may_be_of_others(host: &str) -> bool {
    let is_ipv6 = host.starts_with('[');
    let name = host.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    let is_own = !name.contains('.') || name.ends_with(".localhost") || name.parse::<Ipv4Addr>().is_ok();
    !is_ipv6 && !is_own
}

fn page_answer(html: String) -> Response {
    answer(Status::OK, "text/html; charset=utf-8", html)
        .header("Content-Security-Policy", POLICY)
        .header("Referrer-Policy", "no-referrer")
}

/// What belongs to this version of the page, and is asked for again with the next one.
fn fixed(content_type: &'static str, body: &'static str) -> Response {
    answer(Status::OK, content_type, body)
}

fn answer(status: Status, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
    // What is true now may not be in a second, so nobody keeps it.
    Response::new(status)
        .header("Content-Type", content_type)
        .header("Cache-Control", "no-store")
        .header("X-Content-Type-Options", "nosniff")
        .body(body.into())
}

const STRANGE_NAME: &str = "From this machine these pages are asked for as \"localhost\", by an address, or by a name without a dot. \
                            A proxy in front has to send one of these as Host.\n";
const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The page's own script, style and picture, and nothing written into it; in no frame of others.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_others_can_have_is_not_ours() {
        for host in [
            "localhost",
            "LocalHost.:8081",
            "a.localhost:1",
            "127.0.0.1:8081",
            "10.0.0.1",
            "[::1]:8081",
            "node1",
            "",
        ] {
            assert!(!may_be_of_others(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example.:8081",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "xlocalhost.a",
        ] {
            assert!(may_be_of_others(host), "{host}");
        }
    }
}
