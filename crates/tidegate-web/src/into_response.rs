//! `IntoResponse`: what a handler may answer instead of a [`Response`].

use std::borrow::Cow;

use serde::Serialize;
use tidegate_http::Status;

use crate::{Body, Json, Response};

/// Whatever can be an answer.
///
/// A status goes before what it is the status of: `(Status::CREATED, Json(user))`. `None` is a 404, and an `Err` is the answer
/// that it holds.
pub trait IntoResponse {
    /// The answer.
    fn into_response(self) -> Response;
}

/// A page of HTML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Html<T>(pub T);

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    status: Status,
    location: Cow<'static, str>,
}

impl Redirect {
    /// To be asked for with `GET` (303): what follows a form.
    #[must_use]
    pub fn see_other(location: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::SEE_OTHER, location: location.into() }
    }

    /// For this time, with the same method (307).
    #[must_use]
    pub fn temporary(location: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::TEMPORARY_REDIRECT, location: location.into() }
    }

    /// For ever, with the same method (308).
    #[must_use]
    pub fn permanent(location: impl Into<Cow<'static, str>>) -> Self {
        Self { status: Status::PERMANENT_REDIRECT, location: location.into() }
    }
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

/// The page for the status; nothing where nothing belongs.
impl IntoResponse for Status {
    fn into_response(self) -> Response {
        if self.class() >= 3 { Response::page(self) } else { Response::new(self) }
    }
}

/// 204.
impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::new(Status::NO_CONTENT)
    }
}

impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::new(Status::OK).body(Body::Bytes(Cow::Borrowed(self.as_bytes())))
    }
}

impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::new(Status::OK).body(self)
    }
}

/// Bytes of no known type.
impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Response::new(Status::OK).header("Content-Type", "application/octet-stream").body(self)
    }
}

impl<T: Into<Body>> IntoResponse for Html<T> {
    fn into_response(self) -> Response {
        Response::new(Status::OK).header("Content-Type", "text/html; charset=utf-8").body(self.0)
    }
}

impl IntoResponse for Redirect {
    fn into_response(self) -> Response {
        Response::page(self.status).header("Location", self.location)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => Response::new(Status::OK).header("Content-Type", "application/json").body(bytes),
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as JSON");
                Response::page(Status::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl<T: IntoResponse> IntoResponse for (Status, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Response {
        self.map_or_else(|| Response::page(Status::NOT_FOUND), IntoResponse::into_response)
    }
}

impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_status_and_type() {
        let of = |answer: Response| (answer.status().code(), answer.field("content-type").map(str::to_owned));
        let html = Some("text/html; charset=utf-8".to_owned());
        assert_eq!(of("hi".into_response()), (200, None));
        assert_eq!(of(().into_response()), (204, None));
        assert_eq!(of(Status::CREATED.into_response()), (201, None));
        assert_eq!(of(Status::NOT_FOUND.into_response()), (404, html.clone()));
        assert_eq!(of(Html("<p>hi").into_response()), (200, html.clone()));
        assert_eq!(of((Status::CREATED, Json([1])).into_response()), (201, Some("application/json".into())));
        assert_eq!(of(None::<String>.into_response()), (404, html.clone()));
        assert_eq!(of(Err::<(), _>(Status::CONFLICT).into_response()), (409, html));
        assert_eq!(Redirect::see_other("/x").into_response().field("location"), Some("/x"));
    }
}
