//! The admin pages: `/` for people, `/healthz`, `/readyz`, `/metrics` and `/status` for machines, over all processes.
//!
//! Invariant: they change nothing, and name nothing outside of this server: a page that was made to say more than it should
//! still runs no script of others.

mod chart;
mod figures;
mod page;
mod tables;
mod text;

use tidegate_web::{Response, Status, Web, WebError};

use self::figures::Figures;
use crate::status::StatusSource;

/// Makes the service of a listener with `service = "admin"`.
pub(crate) fn admin(source: &StatusSource) -> Result<Web, WebError> {
    let (people, ready, metrics, status) = (source.clone(), source.clone(), source.clone(), source.clone());
    Web::builder()
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

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The page's own script, style and picture, and nothing written into it; in no frame of others.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
