//! Extractors: the arguments of a handler, each made of the request.
//!
//! Invariant: what cannot be made of a request is answered with what is wrong with it, and the handler is not called.

use std::fmt;

use serde::de::DeserializeOwned;
use tidegate_http::{MediaType, Status, check_form};

use crate::exchange::Client;
use crate::{Request, Response};

/// An argument of a handler.
///
/// ```
/// use tidegate_web::{FromRequest, Request, Response, Status, get, Web};
///
/// /// Who asks in the name of a key that we know.
/// struct Partner(String);
///
/// impl FromRequest for Partner {
///     fn from_request(request: &Request<'_>) -> Result<Self, Response> {
///         match request.header("X-Api-Key") {
///             Some("secret") => Ok(Self("ada".to_owned())),
///             _ => Err(Response::new(Status::FORBIDDEN).body("a key is needed\n")),
///         }
///     }
/// }
///
/// let web = Web::builder().route("/report", get(|Partner(name): Partner| format!("for {name}")));
/// # drop(web.build());
/// ```
pub trait FromRequest: Sized {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// The answer to a request of which it cannot be made.
    fn from_request(request: &Request<'_>) -> Result<Self, Response>;
}

/// What stands in the path: a struct by the names of the pattern, a tuple in their order, or the only one by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<T>(pub T);

/// The query, `a=1&b=2`. A field that is a `Vec` takes a name that is there several times. What is no UTF-8 when it has been
/// decoded, or has more than 1000 pairs, is answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<T>(pub T);

/// A body of JSON; as an answer, likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// A body of a form, `application/x-www-form-urlencoded`; names and values as in a [`Query`]. One with files is a
/// [`FormData`](crate::FormData).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form<T>(pub T);

/// What the builder was given for all handlers, cloned: most often an [`Arc`](std::sync::Arc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State<T>(pub T);

/// What a middleware has put there ([`Request::insert`]), cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Path<T> {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        T::deserialize(request.params).map(Self).map_err(|error| refuse(Status::BAD_REQUEST, "path", &error))
    }
}

impl<T: DeserializeOwned> FromRequest for Query<T> {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        let query = request.query().unwrap_or_default();
        check_form(query.as_bytes()).map_err(|error| refuse(Status::BAD_REQUEST, "query", &error))?;
        let value = serde_html_form::from_str(query);
        value.map(Self).map_err(|error| refuse(Status::BAD_REQUEST, "query", &error))
    }
}

impl<T: DeserializeOwned> FromRequest for Json<T> {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        if !media_type(request).is_some_and(|it| it.is_json()) {
            return Err(unsupported("application/json"));
        }
        serde_json::from_slice(request.body()).map(Self).map_err(|error| {
            let is_json = error.is_data();
            refuse(if is_json { Status::UNPROCESSABLE_CONTENT } else { Status::BAD_REQUEST }, "body", &error)
        })
    }
}

impl<T: DeserializeOwned> FromRequest for Form<T> {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        if !media_type(request).is_some_and(|it| it.is("application", "x-www-form-urlencoded")) {
            return Err(unsupported("application/x-www-form-urlencoded"));
        }
        check_form(request.body()).map_err(|error| refuse(Status::BAD_REQUEST, "body", &error))?;
        let value = serde_html_form::from_bytes(request.body());
        value.map(Self).map_err(|error| refuse(Status::UNPROCESSABLE_CONTENT, "body", &error))
    }
}

impl<T: Clone + 'static> FromRequest for State<T> {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        request.state().cloned().map(Self).ok_or_else(|| missing("state", std::any::type_name::<T>()))
    }
}

impl<T: Clone + 'static> FromRequest for Extension<T> {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        request.extension().cloned().map(Self).ok_or_else(|| missing("extension", std::any::type_name::<T>()))
    }
}

impl FromRequest for Client {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        Ok(request.client())
    }
}

/// The body as it is.
impl FromRequest for Vec<u8> {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        Ok(request.body().to_vec())
    }
}

/// The body as text.
impl FromRequest for String {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        let text = str::from_utf8(request.body());
        text.map(str::to_owned).map_err(|error| refuse(Status::BAD_REQUEST, "body", &error))
    }
}

/// Whatever goes wrong is `None`.
impl<T: FromRequest> FromRequest for Option<T> {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        Ok(T::from_request(request).ok())
    }
}

/// The type of the body; `None` when there is none, two, or one that is malformed.
fn media_type<'a>(request: &Request<'a>) -> Option<MediaType<'a>> {
    MediaType::of(&request.head.fields(request.bytes))
}

/// Says what is wrong, and where.
fn refuse(status: Status, what: &str, error: &dyn fmt::Display) -> Response {
    Response::new(status).body(format!("{what}: {error}\n"))
}

pub(crate) fn unsupported(wanted: &str) -> Response {
    Response::new(Status::UNSUPPORTED_MEDIA_TYPE).body(format!("Content-Type: {wanted} is needed\n"))
}

/// The program has forgotten something.
fn missing(what: &str, type_name: &str) -> Response {
    tracing::error!(what, type_name, "a handler wants what nobody has given");
    Response::page(Status::INTERNAL_SERVER_ERROR)
}
