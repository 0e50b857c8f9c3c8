//! Every malformed request of the table gets its status, however it arrives.

use crate::corpus::malformed;
use crate::requests::{Outcome, read, splits};

#[test]
fn malformed_requests_get_their_status_however_they_arrive() {
    let table = malformed();
    assert!(table.len() >= 290, "{} requests", table.len());
    for entry in &table {
        let whole = read(&[&entry.request]);
        let Outcome::Refused(error) = whole else {
            panic!("{}: {whole:?} for {}", entry.why, entry.request.escape_ascii());
        };
        assert_eq!(error.status().code(), entry.status, "{}: {error}", entry.why);
        for pieces in splits(&entry.request) {
            assert_eq!(
                read(&pieces),
                whole,
                "{} in {} pieces, {} first",
                entry.why,
                pieces.len(),
                pieces[0].len()
            );
        }
    }
}

#[test]
fn no_request_stands_in_the_table_twice() {
    let mut seen: std::collections::HashMap<Vec<u8>, String> = std::collections::HashMap::new();
    for entry in malformed() {
        if let Some(other) = seen.insert(entry.request, entry.why.clone()) {
            panic!("{} and {other} are one request", entry.why);
        }
    }
}
