//! `Routes`: the paths that are answered without a file.
//!
//! Invariant: paths without names are sorted, each there once, and found by bisection, which for the handful of them that
//! there are is cheaper than any hash; they come before patterns, which are asked only when there are any.

use std::borrow::Cow;
use std::sync::Arc;

use crate::encoded::Encoded;
use crate::endpoint::{Endpoint, MethodTable};
use crate::params::Params;

/// The routes of a service.
#[derive(Debug)]
pub(crate) struct Routes {
    sorted: Box<[(Box<str>, Route)]>,
    /// What is found is an index of `of_patterns`.
    patterns: matchit::Router<usize>,
    of_patterns: Box<[Route]>,
}

/// What answers a path. A clone has the same endpoints.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    /// Always the same.
    Fixed(Arc<Encoded>),
    /// Whatever the function of the method says.
    Methods(MethodTable),
}

/// Why routes cannot be.
#[derive(Debug)]
pub(crate) enum RoutesError {
    /// This path is there twice.
    Twice(Box<str>),
    /// This pattern is none, or stands in the way of another.
    Pattern(Box<str>, matchit::InsertError),
}

/// The endpoint of a request, with what its path says.
#[derive(Clone, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) endpoint: Cow<'a, Arc<Endpoint>>,
    pub(crate) path: Cow<'a, str>,
    pub(crate) params: Params,
}

impl Found<'_> {
    pub(crate) fn into_owned(self) -> Found<'static> {
        Found {
            endpoint: Cow::Owned(self.endpoint.into_owned()),
            path: Cow::Owned(self.path.into_owned()),
            params: self.params,
        }
    }
}

impl Routes {
    /// Takes the routes in any order: those of whole paths, and those of patterns.
    pub(crate) fn new(
        mut routes: Vec<(Box<str>, Route)>,
        patterns: Vec<(Box<str>, Route)>,
    ) -> Result<Self, RoutesError> {
        routes.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(pair) = routes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(RoutesError::Twice(pair[0].0.clone()));
        }
        let mut router = matchit::Router::new();
        let mut of_patterns = Vec::with_capacity(patterns.len());
        for (pattern, route) in patterns {
            if let Err(error) = router.insert(&*pattern, of_patterns.len()) {
                return Err(RoutesError::Pattern(pattern, error));
            }
            of_patterns.push(route);
        }
        Ok(Self { sorted: routes.into(), patterns: router, of_patterns: of_patterns.into() })
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        Self { sorted: Box::default(), patterns: matchit::Router::new(), of_patterns: Box::default() }
    }

    /// The route of exactly this path.
    #[inline]
    pub(crate) fn find(&self, path: &[u8]) -> Option<(&str, &Route)> {
        let at = self.sorted.binary_search_by(|(known, _)| known.as_bytes().cmp(path)).ok()?;
        let (path, route) = &self.sorted[at];
        Some((path, route))
    }

    /// Whether there is any pattern.
    #[inline]
    pub(crate) const fn has_patterns(&self) -> bool {
        !self.of_patterns.is_empty()
    }

    /// The route whose pattern a path fits, with what stands for its names.
    pub(crate) fn find_pattern(&self, path: &str) -> Option<(&Route, Params)> {
        let found = self.patterns.at(path).ok()?;
        Some((self.of_patterns.get(*found.value)?, Params::of(&found.params)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::get;

    fn route() -> Route {
        Route::Methods(MethodTable::new(get(|| ())))
    }

    #[test]
    fn whole_paths_are_found_and_nothing_else() {
        let paths = ["/b", "/", "/a/b", "/a"];
        let routes = paths.iter().map(|&p| (p.into(), route())).collect();
        let routes = Routes::new(routes, Vec::new()).unwrap();
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
        assert!(matches!(Routes::new(twice, Vec::new()), Err(RoutesError::Twice(path)) if &*path == "/a"));
        let twice = vec![("/a/{b}".into(), route()), ("/a/{c}".into(), route())];
        assert!(
            matches!(Routes::new(Vec::new(), twice), Err(RoutesError::Pattern(path, _)) if &*path == "/a/{c}")
        );
    }

    #[test]
    fn patterns_give_names_to_parts() {
        let patterns = ["/users/{id}", "/users/{id}/posts/{post}", "/files/{*path}"];
        let routes =
            Routes::new(Vec::new(), patterns.iter().map(|&p| (p.into(), route())).collect()).unwrap();
        let of = |path: &str, name: &str| {
            routes.find_pattern(path).and_then(|(_, params)| params.named(name).map(str::to_owned))
        };
        assert_eq!(of("/users/7", "id").as_deref(), Some("7"));
        assert_eq!(of("/users/7/posts/a b", "post").as_deref(), Some("a b"));
        assert_eq!(of("/files/a/b.txt", "path").as_deref(), Some("a/b.txt"));
        for path in ["/users", "/users/", "/users/7/", "/files/", "/"] {
            assert!(routes.find_pattern(path).is_none(), "{path}");
        }
    }
}
