//! `CacheControl`: the `Cache-Control` of files by their paths.
//!
//! Invariant: every glob is well-formed and every value may stand in a field, or there is no `CacheControl`. The rules are
//! looked at when a file is opened, not when it is asked for.

use tidegate_http::is_field_value;

use super::FilesError;

/// Rules in their order; the first that matches counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct CacheControl {
    rules: Vec<(String, String)>,
}

impl CacheControl {
    pub(crate) fn new(rules: &[(String, String)]) -> Result<Self, FilesError> {
        for (glob, value) in rules {
            fast_glob::validate(glob)
                .map_err(|error| FilesError::Glob { glob: glob.clone(), why: error.to_string() })?;
            if value.trim().is_empty() || !is_field_value(value.as_bytes()) {
                return Err(FilesError::CacheControl { glob: glob.clone(), value: value.clone() });
            }
        }
        Ok(Self { rules: rules.to_vec() })
    }

    /// The value for a path relative to the root.
    ///
    /// As in `.gitignore`, a glob without a slash is compared with the name in whatever folder, one with a slash with the
    /// whole path, and a slash at its start counts for nothing but that.
    pub(crate) fn of(&self, path: &[u8]) -> Option<&str> {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
        let matches = |glob: &str| match glob.strip_prefix('/') {
            Some(glob) => fast_glob::glob_match(glob, path),
            None if glob.contains('/') => fast_glob::glob_match(glob, path),
            None => fast_glob::glob_match(glob, name),
        };
        self.rules.iter().find(|(glob, _)| matches(glob)).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rules: &[(&str, &str)]) -> Result<CacheControl, FilesError> {
        let rules: Vec<_> = rules.iter().map(|&(glob, value)| (glob.to_owned(), value.to_owned())).collect();
        CacheControl::new(&rules)
    }

    #[test]
    fn the_first_glob_that_matches_counts() {
        let rules = rules(&[
            ("assets/**", "public, max-age=31536000, immutable"),
            ("*.{css,js}", "max-age=3600"),
            ("/index.html", "no-cache"),
            ("*", "max-age=60"),
        ])
        .unwrap();
        for (path, expected) in [
            ("assets/a/b.js", "public, max-age=31536000, immutable"),
            ("assets/x", "public, max-age=31536000, immutable"),
            ("a.css", "max-age=3600"),
            ("deep/er/a.js", "max-age=3600"),
            ("index.html", "no-cache"),
            ("dir/index.html", "max-age=60"),
            ("other/assets/x", "max-age=60"),
            ("\u{e4}.txt", "max-age=60"),
        ] {
            assert_eq!(rules.of(path.as_bytes()), Some(expected), "{path}");
        }
        assert_eq!(rules.of(b"\xff"), Some("max-age=60"));
        assert_eq!(CacheControl::default().of(b"a"), None);
    }

    #[test]
    fn globs_and_values_that_cannot_be_are_errors() {
        let error = rules(&[("*.{css", "no-cache")]).unwrap_err().to_string();
        assert!(error.contains("*.{css"), "{error}");
        for value in ["", " ", "a\r\nb"] {
            let error = rules(&[("*", value)]).unwrap_err();
            assert!(matches!(error, FilesError::CacheControl { .. }), "{error}");
        }
    }
}
