//! `Candidates`: what is tried in turn for a path, in the words of nginx's `try_files`.
//!
//! ```text
//!   ["$uri", "$uri/", "/index.html"]        the file, else the folder, else always this file (a single-page application)
//!   ["$uri", "$uri.html", "=404"]           the file, else the one with `.html` at its end, else 404
//! ```
//!
//! Invariant: what comes out is a path relative to the root. That it stays beneath the root is the root's business.

use std::borrow::Cow;

use tidegate_http::{Status, normalize_path};

use super::FilesError;

/// What is tried, in order. Without any, the file or the folder of the path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    list: Vec<Candidate>,
}

/// One thing to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// A file whose path is the request's between these two.
    File { before: Vec<u8>, after: Vec<u8> },
    /// The folder of the request's path: its index or its listing.
    Folder,
    /// Always this file.
    Fixed(Vec<u8>),
    /// No file but a status.
    Status(Status),
}

const URI: &str = "$uri";

impl Candidates {
    pub(crate) fn new(patterns: &[String]) -> Result<Self, FilesError> {
        let list = patterns.iter().map(|pattern| Candidate::parse(pattern)).collect::<Result<Vec<_>, _>>()?;
        let status = list.iter().position(|candidate| matches!(candidate, Candidate::Status(_)));
        match status {
            Some(at) if at + 1 < list.len() => Err(bad(&patterns[at], "a status can only come last")),
            _ => Ok(Self { list }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.list.iter()
    }
}

impl Candidate {
    fn parse(pattern: &str) -> Result<Self, FilesError> {
        if let Some(code) = pattern.strip_prefix('=') {
            let status = code.parse().ok().and_then(Status::from_code).filter(|status| status.class() >= 4);
            return status.map(Self::Status).ok_or_else(|| bad(pattern, "expected a status from 400 to 599"));
        }
        let pattern_path = pattern.strip_prefix('/').unwrap_or(pattern);
        let Some((before, after)) = pattern_path.split_once(URI) else {
            if !pattern.starts_with('/') {
                return Err(bad(pattern, "expected \"$uri\", a path that begins with '/', or \"=404\""));
            }
            let fixed =
                normalize_path(pattern.as_bytes()).map_err(|error| bad(pattern, &error.to_string()))?;
            return Ok(Self::Fixed(fixed.into_owned()));
        };
        if after.contains('$') || before.contains('$') {
            return Err(bad(pattern, "\"$uri\" can be there once, and there is no other variable"));
        }
        if before.is_empty() && after == "/" {
            return Ok(Self::Folder);
        }
        if after.ends_with('/') || before.split('/').chain(after.split('/')).any(|s| s == "." || s == "..") {
            return Err(bad(pattern, "a folder is tried by \"$uri/\", and there is no \".\" or \"..\""));
        }
        Ok(Self::File { before: before.into(), after: after.into() })
    }

    /// The path of a file to try, if this can be one for the path of the request.
    pub(crate) fn path<'a>(&'a self, request: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self {
            Self::Fixed(path) => Some(Cow::Borrowed(path)),
            Self::Folder | Self::Status(_) => None,
            // A path with a slash at its end names a folder.
            Self::File { .. } if request.is_empty() || request.ends_with(b"/") => None,
            Self::File { before, after } if before.is_empty() && after.is_empty() => {
                Some(Cow::Borrowed(request))
            }
            Self::File { before, after } => Some(Cow::Owned([before, request, after].concat())),
        }
    }
}

fn bad(pattern: &str, why: &str) -> FilesError {
    FilesError::TryFiles { pattern: pattern.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(patterns: &[&str]) -> Result<Candidates, FilesError> {
        Candidates::new(&patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn patterns_become_paths() {
        let all = parse(&["$uri", "$uri/", "$uri.html", "/en/$uri", "/app/./index.html", "=410"]).unwrap();
        let paths = |request: &'static str| -> Vec<Option<String>> {
            all.iter()
                .map(|c| c.path(request.as_bytes()).map(|p| String::from_utf8(p.into_owned()).unwrap()))
                .collect()
        };
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(
            paths("a/b"),
            [some("a/b"), None, some("a/b.html"), some("en/a/b"), some("app/index.html"), None]
        );
        assert_eq!(paths("a/"), [None, None, None, None, some("app/index.html"), None]);
        assert_eq!(paths(""), [None, None, None, None, some("app/index.html"), None]);
        assert_eq!(all.iter().nth(1), Some(&Candidate::Folder));
        assert!(parse(&[]).unwrap().is_empty());
    }

    #[test]
    fn patterns_that_cannot_be_are_errors_that_say_why() {
        for (patterns, why) in [
            (&["index.html"][..], "begins with '/'"),
            (&["=404", "$uri"], "last"),
            (&["=200"], "400 to 599"),
            (&["=x"], "400 to 599"),
            (&["$uri$uri"], "once"),
            (&["$uri/$args"], "no other variable"),
            (&["/../x"], "leaves the root"),
            (&["/a/$uri/"], "$uri/"),
            (&["/../$uri"], "\"..\""),
        ] {
            let error = parse(patterns).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("try_files"), "{error}");
        }
    }
}
