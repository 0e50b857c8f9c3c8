//! "Did you mean": the known word nearest to one that is not known.
//!
//! Invariant: a suggestion is always one of the candidates, and nothing is suggested that is not similar.

/// The candidate with the fewest typing errors between it and `word`, if there are few for its length.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance takes time and memory in the product of the lengths, and nothing this long is similar to a
    // key.
    if word.len() > MAX_LEN {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let distance =
        |candidate: &str| strsim::damerau_levenshtein(&word, &candidate.to_lowercase().replace('-', "_"));
    let scored = candidates.into_iter().map(|candidate| (distance(candidate), candidate));
    scored
        .filter(|(errors, candidate)| *errors <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

const MAX_LEN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_errors_for_the_length() {
        let words = ["workers", "accept", "nice", "user"];
        for (word, expect) in [
            ("worker", Some("workers")),
            ("wrokers", Some("workers")),
            ("Workers", Some("workers")),
            ("acept", Some("accept")),
            ("nise", Some("nice")),
            ("processes", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, words), expect, "{word}");
        }
        assert_eq!(nearest("pid-file", ["pid_file"]), Some("pid_file"));
        assert_eq!(nearest(&"w".repeat(101), words), None);
    }
}
