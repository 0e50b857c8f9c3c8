//! `MethodRoutes`: what answers the methods of a route, and where it runs.
//!
//! Invariant: each method has at most one endpoint; `HEAD` is answered by that of `GET`, `OPTIONS` by the list of them.

use std::fmt;
use std::sync::Arc;

use tidegate_http::{Method, Status};

use crate::{BodySink, Handler, Reply, Request, Response};

/// Whatever answers a method of a route.
pub struct Endpoint {
    pub(crate) work: Work,
    /// Runs on the pool and may block; otherwise in the loop.
    pub(crate) blocking: bool,
    /// How large a body may be; `None`: as large as for all.
    pub(crate) max_body_bytes: Option<u64>,
}

/// What an endpoint does.
pub(crate) enum Work {
    /// Answers a request with its body.
    Call(Box<AnswerNow>),
    /// Sees that it is answered.
    Defer(Box<AnswerLater>),
    /// Takes the body as it comes.
    Sink(Box<OpenSink>),
}

pub(crate) type AnswerNow = dyn Fn(&Request<'_>) -> Response + Send + Sync;
pub(crate) type AnswerLater = dyn Fn(&Request<'_>, Reply) + Send + Sync;
/// Begins to take a body, or refuses it.
pub(crate) type OpenSink = dyn Fn(&Request<'_>) -> Result<Box<dyn BodySink>, Response> + Send + Sync;

/// The methods of a route: see [`get`] and its like.
#[derive(Debug, Default)]
#[must_use = "routes answer nothing until `WebBuilder::route` has them"]
pub struct MethodRoutes {
    list: Vec<(Method, Endpoint)>,
    /// The method that was named twice, if one was.
    pub(crate) twice: Option<Method>,
}

/// What can answer a method: a [`Handler`], or an [`Endpoint`] of [`deferred`] or [`sink`]. `M` is of no meaning.
pub trait IntoEndpoint<M> {
    /// The endpoint.
    fn into_endpoint(self) -> Endpoint;
}

/// The mark of functions.
#[derive(Debug)]
pub struct Plain<M>(std::marker::PhantomData<M>);

impl<M, H: Handler<M>> IntoEndpoint<Plain<M>> for H {
    fn into_endpoint(self) -> Endpoint {
        Endpoint::new(Work::Call(Box::new(move |request| self.call(request))))
    }
}

impl IntoEndpoint<()> for Endpoint {
    fn into_endpoint(self) -> Endpoint {
        self
    }
}

impl Endpoint {
    pub(crate) const fn new(work: Work) -> Self {
        Self { work, blocking: false, max_body_bytes: None }
    }
}

/// Answers later, by the [`Reply`], from whatever thread. The function itself runs in the loop and must not block; the
/// connection waits meanwhile, and nobody else does.
///
/// ```
/// use tidegate_web::{Reply, Request, Web, deferred, get};
///
/// let later = deferred(|_request: &Request<'_>, reply: Reply| {
///     std::thread::spawn(move || reply.send("after all\n"));
/// });
/// let web = Web::builder().route("/later", get(later));
/// # drop(web.build());
/// ```
pub fn deferred(work: impl Fn(&Request<'_>, Reply) + Send + Sync + 'static) -> Endpoint {
    Endpoint::new(Work::Defer(Box::new(work)))
}

/// Takes a body part by part, as large as the route allows. The function sees the head alone, and begins or refuses; a client
/// that waits for `100 Continue` is told it then. With [`MethodRoutes::blocking`], it and its sink run on the pool.
///
/// A `PUT` or `POST` with `Content-Range`, which sends a part of something, is answered with 400 instead of being taken for the
/// whole (RFC 9110, sections 9.3.4 and 14.5). A sink that takes parts is a [`partial_sink`].
pub fn sink<S: BodySink + 'static>(
    open: impl Fn(&Request<'_>) -> Result<S, Response> + Send + Sync + 'static,
) -> Endpoint {
    partial_sink(move |request| match part_of(request) {
        Some(_) => {
            Err(Response::new(Status::BAD_REQUEST).body("Content-Range: only the whole is taken here\n"))
        }
        None => open(request),
    })
}

/// As [`sink`], but a request with `Content-Range` is for the function to deal with.
pub fn partial_sink<S: BodySink + 'static>(
    open: impl Fn(&Request<'_>) -> Result<S, Response> + Send + Sync + 'static,
) -> Endpoint {
    Endpoint::new(Work::Sink(Box::new(move |request| {
        let sink: Box<dyn BodySink> = Box::new(open(request)?);
        Ok(sink)
    })))
}

/// The `Content-Range` of a request, where it has a meaning.
fn part_of<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    let has_meaning = matches!(request.method(), Method::Put | Method::Post);
    has_meaning.then(|| request.head.fields(request.bytes).named("content-range").next()).flatten()
}

macro_rules! methods {
    ($($name:ident $method:ident $token:literal)*) => {
        impl MethodRoutes {
            $(
                #[doc = concat!("Adds what answers `", $token, "`.")]
                pub fn $name<M>(self, endpoint: impl IntoEndpoint<M>) -> Self {
                    self.with(Method::$method, endpoint.into_endpoint())
                }
            )*
        }

        $(
            #[doc = concat!("A route of which this answers `", $token, "`.")]
            pub fn $name<M>(endpoint: impl IntoEndpoint<M>) -> MethodRoutes {
                MethodRoutes::default().$name(endpoint)
            }
        )*
    };
}

methods! { get Get "GET" post Post "POST" put Put "PUT" patch Patch "PATCH" delete Delete "DELETE" }

impl MethodRoutes {
    fn with(mut self, method: Method, endpoint: Endpoint) -> Self {
        if self.list.iter().any(|(known, _)| *known == method) {
            self.twice = Some(method);
        }
        self.list.push((method, endpoint));
        self
    }

    /// Whether anything runs on the pool.
    pub(crate) fn block(&self) -> bool {
        self.list.iter().any(|(_, endpoint)| endpoint.blocking)
    }

    /// Runs what has been named so far on the pool of threads, where it may block: up to
    /// [`blocking_threads`](crate::WebBuilder::blocking_threads) at a time. When
    /// [`blocking_queue`](crate::WebBuilder::blocking_queue) more wait already, the client is told 503. It makes no difference to
    /// what is [`deferred`].
    pub fn blocking(mut self) -> Self {
        self.list.iter_mut().for_each(|(_, endpoint)| endpoint.blocking = true);
        self
    }

    /// How large a body what has been named so far takes; more is a 413. Default: as
    /// [`WebBuilder::max_body_bytes`](crate::WebBuilder::max_body_bytes) says for all.
    pub fn max_body_bytes(mut self, bytes: u64) -> Self {
        self.list.iter_mut().for_each(|(_, endpoint)| endpoint.max_body_bytes = Some(bytes));
        self
    }
}

/// The endpoints of a route, ready to be called.
#[derive(Clone, Debug)]
pub(crate) struct MethodTable {
    list: Box<[(Method, Arc<Endpoint>)]>,
    /// The value of `Allow`.
    allow: String,
}

impl MethodTable {
    pub(crate) fn new(routes: MethodRoutes) -> Self {
        let list: Box<[_]> =
            routes.list.into_iter().map(|(method, endpoint)| (method, Arc::new(endpoint))).collect();
        let mut allow = String::new();
        for (method, _) in &list {
            allow += method.as_str();
            allow += if *method == Method::Get { ", HEAD, " } else { ", " };
        }
        allow += "OPTIONS";
        Self { list, allow }
    }

    /// What answers the method.
    #[inline]
    pub(crate) fn find(&self, method: Method) -> Option<&Arc<Endpoint>> {
        let method = if method == Method::Head { Method::Get } else { method };
        self.list.iter().find(|(known, _)| *known == method).map(|(_, endpoint)| endpoint)
    }

    /// The answer to `OPTIONS`, which is the list of methods (RFC 9110, section 9.3.7).
    pub(crate) fn options(&self) -> Response {
        Response::new(Status::NO_CONTENT).header("Allow", self.allow.clone())
    }

    /// The methods, as `Allow` lists them.
    pub(crate) fn allow(&self) -> String {
        self.allow.clone()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = match self.work {
            Work::Call(_) => "Call",
            Work::Defer(_) => "Defer",
            Work::Sink(_) => "Sink",
        };
        f.debug_struct("Endpoint")
            .field("work", &work)
            .field("blocking", &self.blocking)
            .field("max_body_bytes", &self.max_body_bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() {}

    #[test]
    fn head_goes_to_get_and_all_are_listed() {
        let table = MethodTable::new(get(nothing).post(nothing).delete(nothing));
        assert!(table.find(Method::Head).is_some() && table.find(Method::Delete).is_some());
        assert!(table.find(Method::Put).is_none() && table.find(Method::Options).is_none());
        assert_eq!(table.allow(), "GET, HEAD, POST, DELETE, OPTIONS");
        assert_eq!(table.options().field("allow"), Some("GET, HEAD, POST, DELETE, OPTIONS"));
    }

    #[test]
    fn what_is_said_of_endpoints_goes_for_those_before_it() {
        let table = MethodTable::new(get(nothing).blocking().max_body_bytes(5).post(nothing));
        let of = |method| table.find(method).map(|endpoint| (endpoint.blocking, endpoint.max_body_bytes));
        assert_eq!(of(Method::Get), Some((true, Some(5))));
        assert_eq!(of(Method::Post), Some((false, None)));
        assert_eq!(get(nothing).get(nothing).twice, Some(Method::Get));
    }
}
