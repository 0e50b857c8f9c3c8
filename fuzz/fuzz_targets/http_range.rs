//! `Range` on whatever comes: what is selected lies within the representation, is no longer than it, and fits into a
//! multipart answer whose length is the one that was said before.
//!
//! The first bytes of the input are the size and how many ranges may be asked for; the rest is the value of the field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_http::{ByteRange, Multipart, Ranges, content_range, parse_ranges};

fuzz_target!(|data: &[u8]| {
    let Some((&[shift, low, max], value)) = data.split_first_chunk::<3>() else { return };
    let size = u64::from(low) << (shift % 57);
    let max = usize::from(max % 20);
    for value in [value.to_vec(), [b"bytes=", value].concat()] {
        match parse_ranges(&value, size, max) {
            Ranges::Whole | Ranges::Unsatisfiable => {}
            Ranges::Single(range) => check(&[range], size, max),
            Ranges::Several(ranges) => {
                assert!(ranges.len() > 1);
                check(&ranges, size, max);
            }
        }
    }
});

fn check(ranges: &[ByteRange], size: u64, max: usize) {
    assert!(ranges.len() <= max);
    assert!(ranges.iter().all(|range| range.first() <= range.last() && range.last() < size));
    let sum: u128 = ranges.iter().map(|range| u128::from(range.len())).sum();
    assert!(sum <= u128::from(size));

    // What was selected selects itself again.
    let specs: Vec<_> = ranges.iter().map(|range| format!("{}-{}", range.first(), range.last())).collect();
    let again = match parse_ranges(format!("bytes={}", specs.join(", ")).as_bytes(), size, max) {
        Ranges::Single(range) => vec![range],
        Ranges::Several(ranges) => ranges,
        other => panic!("{other:?}"),
    };
    assert_eq!(again, ranges);

    let multipart = Multipart::new(ranges, size, "text/plain", 7);
    let mut frame = multipart.end().len();
    for (head, range) in multipart.parts() {
        assert!(head.contains(&content_range(range, size)) && head.ends_with("\r\n\r\n"));
        frame += head.len();
    }
    assert_eq!(u128::from(multipart.content_length()), frame as u128 + sum);
}
