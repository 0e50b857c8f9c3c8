//! `Routes`: the paths that are answered without a file.
//!
//! Invariant: sorted by path, each path once; found by bisection, which for the handful of routes there are is cheaper than
//! any hash.

use std::fmt;
use std::sync::Arc;

use crate::answer::Answer;
use crate::encoded::Encoded;
use crate::exchange::Exchange;
use crate::{Request, Response};

/// The routes of a service.
#[derive(Debug)]
pub(crate) struct Routes {
    sorted: Box<[(Box<str>, Route)]>,
}

/// What answers a path.
pub(crate) enum Route {
    /// Always the same.
    Fixed(Arc<Encoded>),
    /// Whatever the function says.
    Handler(Handler),
}

/// A function that answers.
pub(crate) type Handler = Box<dyn Fn(&Request<'_>) -> Response + Send + Sync>;

impl Routes {
    /// Takes the routes in any order. The error is a path that is there twice.
    pub(crate) fn new(mut routes: Vec<(Box<str>, Route)>) -> Result<Self, Box<str>> {
        routes.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(pair) = routes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(pair[0].0.clone());
        }
        Ok(Self { sorted: routes.into() })
    }

    /// The route of exactly this path.
    #[inline]
    pub(crate) fn find(&self, path: &[u8]) -> Option<(&str, &Route)> {
        let at = self.sorted.binary_search_by(|(known, _)| known.as_bytes().cmp(path)).ok()?;
        let (path, route) = &self.sorted[at];
        Some((path, route))
    }
}

impl Route {
    /// Decides what answers a request for `path`, under which the route was found.
    #[inline]
    pub(crate) fn answer(&self, exchange: &Exchange<'_>, path: &str) -> Answer {
        match self {
            Self::Fixed(encoded) => Answer::Encoded(Arc::clone(encoded)),
            Self::Handler(handler) => Answer::Response(handler(&Request { exchange, path })),
        }
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed",
            Self::Handler(_) => "Handler",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_http::Status;

    fn route() -> Route {
        Route::Handler(Box::new(|_| Response::new(Status::OK)))
    }

    #[test]
    fn whole_paths_are_found_and_nothing_else() {
        let paths = ["/b", "/", "/a/b", "/a"];
        let routes = Routes::new(paths.iter().map(|&p| (p.into(), route())).collect()).unwrap();
        for path in paths {
            assert_eq!(routes.find(path.as_bytes()).map(|(p, _)| p), Some(path));
        }
        for path in ["", "/a/", "/c", "/A", "//"] {
            assert!(routes.find(path.as_bytes()).is_none(), "{path}");
        }
    }

    #[test]
    fn a_path_may_be_there_once() {
        let twice = vec![("/a".into(), route()), ("/b".into(), route()), ("/a".into(), route())];
        assert_eq!(Routes::new(twice).unwrap_err().as_ref(), "/a");
    }
}
