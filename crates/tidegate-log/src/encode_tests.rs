//! Tests of the encoder: what is written reads back, and fits.

use super::*;
use crate::{MAX_LINE_BYTES, Resource};
use proptest::prelude::*;

fn line(body: &str, attributes: &[(&str, Value)]) -> Vec<u8> {
    let resource = resource_json(&Resource { process: "\u{1}".repeat(128), pid: u32::MAX, generation: 9 });
    let head = Head { time: Timestamp::MAX, severity: Severity::Info, target: "t", resource: &resource };
    let mut line = notice(&head, body, attributes);
    finish_line(&mut line, u64::MAX);
    line
}

#[test]
fn a_record_reads_back_as_it_was() {
    let attributes =
        [("n", Value::from(-3)), ("text", Value::from("a\"b\n")), ("list", serde_json::json!([1, 2]))];
    let record = Record::parse(&line("body \u{7f}\u{1} é", &attributes)).unwrap();
    assert_eq!(record.body, "body \u{7f}\u{1} é");
    assert_eq!(record.time, Timestamp::MAX);
    assert_eq!(record.seq, u64::MAX);
    assert_eq!(record.resource.generation, 9);
    for (name, value) in &attributes {
        assert_eq!(&record.attributes[*name], value);
    }
    assert_eq!(
        record_line(&record),
        line("body \u{7f}\u{1} é", &{
            let mut sorted = attributes.clone();
            sorted.sort_by_key(|(name, _)| *name);
            sorted
        })
    );
}

#[test]
fn the_worst_texts_still_fit_into_a_line() {
    let worst = "\u{1}".repeat(MAX_LINE_BYTES);
    let names: Vec<String> = (0..500).map(|n| format!("{n}{}", "\u{1}".repeat(500))).collect();
    let attributes: Vec<_> = names.iter().map(|name| (name.as_str(), Value::from(worst.as_str()))).collect();
    let line = line(&worst, &attributes);
    assert!(line.len() <= MAX_LINE_BYTES, "{}", line.len());
    let record = Record::parse(&line).unwrap();
    assert!(record.body.ends_with("…[cut]"));
    let kept = record.attributes.len() - 1;
    assert!(kept >= 2);
    assert_eq!(record.attributes["attributes_cut"], 500 - kept);
}

#[test]
fn a_cut_is_exact_at_the_limit() {
    let exact = "x".repeat(BODY_BYTES - 2);
    assert_eq!(Record::parse(&line(&exact, &[])).unwrap().body, exact);
    let over = "x".repeat(BODY_BYTES - 1);
    let body = Record::parse(&line(&over, &[])).unwrap().body;
    assert_eq!(body.len(), BODY_BYTES - 2);
    assert!(body.ends_with("x…[cut]"));
}

proptest! {
    #[test]
    fn any_text_is_kept_or_cut_at_a_character(text in ".{0,200}", max in 16usize..400) {
        let mut line = Vec::new();
        push_text(&mut line, &text, false, max);
        prop_assert!(line.len() <= max);
        let back: String = serde_json::from_slice(&line).unwrap();
        if serde_json::to_vec(&text).unwrap().len() <= max {
            prop_assert_eq!(back, text);
        } else {
            let kept = back.strip_suffix(CUT_MARK).expect("a text that does not fit is marked");
            prop_assert!(text.starts_with(kept));
        }
    }
}
