//! Middleware: plain functions around handlers.
//!
//! Invariant: the first that was named is the outermost; each calls the next at most once, since that takes it.

use std::fmt;
use std::sync::Arc;

use crate::{Request, Response};

/// A function around handlers.
pub(crate) type Middleware = Arc<dyn Fn(Request<'_>, Next<'_>) -> Response + Send + Sync>;

/// What is inside a middleware: the next one, or the handler.
///
/// ```
/// use tidegate_web::{Next, Request, Response, Status, Web};
///
/// fn only_with_a_key(request: Request<'_>, next: Next<'_>) -> Response {
///     if request.header("X-Api-Key") != Some("secret") {
///         return Response::new(Status::FORBIDDEN);
///     }
///     next.run(request).header("X-Served-By", "tidegate")
/// }
///
/// let web = Web::builder().middleware(only_with_a_key).handler("/", |_| Response::new(Status::OK));
/// # drop(web.build());
/// ```
pub struct Next<'a> {
    rest: &'a [Middleware],
    last: &'a dyn Fn(&Request<'_>) -> Response,
}

impl<'a> Next<'a> {
    pub(crate) fn new(all: &'a [Middleware], last: &'a dyn Fn(&Request<'_>) -> Response) -> Self {
        Self { rest: all, last }
    }

    /// Calls what is inside, and answers its answer.
    ///
    /// Of a handler that answers later ([`deferred`](crate::deferred), [`sink`](crate::sink)) it is a 202 without a body;
    /// fields that are added to it stand in the later answer.
    pub fn run(self, request: Request<'_>) -> Response {
        match self.rest.split_first() {
            Some((first, rest)) => first(request, Next { rest, last: self.last }),
            None => (self.last)(&request),
        }
    }
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Next({} functions and a handler)", self.rest.len())
    }
}
