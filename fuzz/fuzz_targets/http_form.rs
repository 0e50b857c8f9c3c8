//! Queries and forms on whatever comes: the same pairs that `form_urlencoded` finds, as long as they are text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_http::{FormError, FormPairs, MAX_FORM_PAIRS};

fuzz_target!(|data: &[u8]| {
    let mut theirs = form_urlencoded::parse(data);
    for pair in FormPairs::new(data) {
        match (pair, theirs.next()) {
            (Ok(ours), Some(theirs)) => assert_eq!(ours, theirs),
            (Err(FormError::NotUtf8 { .. }), Some((name, value))) => {
                assert!(name.contains('\u{fffd}') || value.contains('\u{fffd}'));
                return;
            }
            (Err(FormError::TooMany), Some(_)) => {
                assert!(form_urlencoded::parse(data).count() > MAX_FORM_PAIRS);
                return;
            }
            (ours, None) => panic!("{ours:?} is no pair"),
        }
    }
    assert_eq!(theirs.next(), None);
});
