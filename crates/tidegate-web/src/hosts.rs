//! `Hosts`: which site a host name belongs to.
//!
//! Invariant: an exact name comes before a wildcard, a longer wildcard before a shorter one, and `*` last. Names are in
//! lower case and without a port here.

use std::collections::HashMap;

/// Names and wildcards, each with the number of a site.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    exact: HashMap<Box<str>, usize>,
    /// Of `*.example.com` the part `example.com`.
    below: HashMap<Box<str>, usize>,
    any: Option<usize>,
}

impl Hosts {
    /// Adds a pattern: a name, `*.` and a domain, or `*`. False when it is there already.
    pub(crate) fn add(&mut self, pattern: &str, site: usize) -> bool {
        let pattern = pattern.strip_suffix('.').unwrap_or(pattern).to_ascii_lowercase();
        let before = match pattern.strip_prefix('*') {
            Some("") => self.any.replace(site),
            Some(domain) => self.below.insert(domain.trim_start_matches('.').into(), site),
            None => self.exact.insert(pattern.into(), site),
        };
        before.is_none()
    }

    /// The site of `*`.
    pub(crate) const fn any(&self) -> Option<usize> {
        self.any
    }

    /// The site of a name. A wildcard stands for one label or more, and not for none.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        let exact = self.exact.get(name).copied();
        let below = || {
            let domains = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
            domains.filter_map(|domain| self.below.get(domain)).copied().next()
        };
        exact.or_else(below).or(self.any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_pattern_wins() {
        let mut hosts = Hosts::default();
        for (site, pattern) in
            ["example.com", "*.example.com", "*.a.example.com", "[::1]", "Other.Example."].iter().enumerate()
        {
            assert!(hosts.add(pattern, site));
        }
        for (name, site) in [
            ("example.com", Some(0)),
            ("x.example.com", Some(1)),
            ("x.y.example.com", Some(1)),
            ("a.example.com", Some(1)),
            ("x.a.example.com", Some(2)),
            ("[::1]", Some(3)),
            ("other.example", Some(4)),
            ("notexample.com", None),
            (".example.com", Some(1)),
            ("com", None),
            ("", None),
        ] {
            assert_eq!(hosts.find(name), site, "{name}");
        }
        assert!(!hosts.add("EXAMPLE.com.", 9) && !hosts.add("*.example.com", 9));
        assert!(hosts.add("*", 7) && !hosts.add("*", 8));
        assert_eq!((hosts.find("anything"), hosts.find("x.a.example.com")), (Some(8), Some(2)));
    }
}
