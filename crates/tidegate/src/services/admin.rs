//! The admin pages: `/healthz`, `/readyz`, `/metrics` and `/status`, over all processes.

use tidegate_web::{Response, Status, Web, WebError};

use crate::status::StatusSource;

/// Makes the service of a listener with `service = "admin"`.
pub(crate) fn admin(source: &StatusSource) -> Result<Web, WebError> {
    let (ready, metrics, status) = (source.clone(), source.clone(), source.clone());
    Web::builder()
        .respond("/", Status::OK, "text/html; charset=utf-8", include_str!("admin.html"))
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

fn answer(status: Status, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
    // What is true now may not be in a second, so nobody keeps it.
    Response::new(status)
        .header("Content-Type", content_type)
        .header("Cache-Control", "no-store")
        .body(body.into())
}

const TEXT: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
