//! The HTTP head parser on whatever comes: no panic, one answer however the bytes are cut, offsets that hold, and nothing
//! that gets past it which the grammar forbids. What a server does next with a head (path, conditions, ranges) is done too.
//! What is taken has to be taken by `httparse` as well, and read alike.
//!
//! The first byte of the input says how the rest is cut; the rest is what a client sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_http::{
    BodyFraming, EntityTag, Head, HeadLimits, HeadParser, HttpError, Parsed, Ranges, Representation,
    Validators, Version, evaluate_preconditions, is_field_value, is_token, normalize_path, parse_head,
    select_ranges,
};

/// Small, so that the limits are met too.
const LIMITS: HeadLimits =
    HeadLimits { max_head_bytes: 512, max_target_bytes: 128, max_fields: 8, max_overhead_bytes: 4 };

fuzz_target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let whole = parse_head(input, &LIMITS);
    assert_eq!(in_pieces(input, usize::from(cut) + 1), whole);
    assert_eq!(in_pieces(input, 1), whole);
    match whole {
        Ok(Parsed::Head(head)) => {
            check_head(&head, input);
            compare(&head, input);
        }
        Ok(Parsed::Need) => assert!(input.len() < LIMITS.max_head_bytes),
        Err(error) => assert!(error.status().code() >= 400),
    }
});

fn in_pieces(input: &[u8], cut: usize) -> Result<Parsed, HttpError> {
    let mut parser = HeadParser::new();
    for end in (cut..input.len()).step_by(cut).chain([input.len()]) {
        match parser.parse(&input[..end], &LIMITS) {
            Ok(Parsed::Need) => {}
            decided => return decided,
        }
    }
    Ok(Parsed::Need)
}

fn check_head(head: &Head, input: &[u8]) {
    assert!(head.end() <= input.len().min(LIMITS.max_head_bytes));
    assert!(input[..head.end()].ends_with(b"\r\n\r\n"));
    let text = &input[..head.end()];
    assert_eq!(
        text.iter().filter(|&&b| b == b'\n').count(),
        text.windows(2).filter(|w| w == b"\r\n").count()
    );
    assert_eq!(
        text.iter().filter(|&&b| b == b'\r').count(),
        text.windows(2).filter(|w| w == b"\r\n").count()
    );

    let fields: Vec<_> = head.fields(input).collect();
    assert!(fields.len() <= LIMITS.max_fields);
    assert!(fields.iter().all(|field| is_token(field.name) && is_field_value(field.value)));
    let count = |name: &str| head.fields(input).named(name).count();
    assert!(count("host") <= 1 && count("content-length") <= 1);
    match head.body() {
        BodyFraming::None => assert_eq!(count("transfer-encoding"), 0),
        BodyFraming::Length(length) => assert!(length > 0 && count("transfer-encoding") == 0),
        BodyFraming::Chunked => assert_eq!(count("content-length"), 0),
    }

    assert!(head.path(input).len() + head.query(input).map_or(0, <[u8]>::len) <= LIMITS.max_target_bytes);
    if let Ok(path) = normalize_path(head.path(input)) {
        assert!(path.is_empty() || !path.starts_with(b"/"));
        assert!(!path.contains(&0));
        assert!(path.split(|&b| b == b'/').all(|segment| segment != b"." && segment != b".."));
    }
    let state = Validators { etag: EntityTag::parse(b"\"1\""), last_modified: Some(784_111_777) };
    let _ = evaluate_preconditions(head.method(), &head.fields(input), &state);
    let file = Representation { size: 1000, validators: state, unix_time: 784_111_800 };
    let selected = select_ranges(head.method(), &head.fields(input), &file, 16);
    assert!(selected == Ranges::Whole || head.has_range());
    match head.host(input) {
        Some(host) => assert!(!host.name().is_empty()),
        None => assert_eq!(head.version(), Version::Http10),
    }
}

/// `httparse` takes what we take, unless the minor version is one that it does not know.
fn compare(head: &Head, input: &[u8]) {
    let line = &input[head.empty_line_bytes()..];
    let mut fields = [httparse::EMPTY_HEADER; LIMITS.max_fields];
    let mut other = httparse::Request::new(&mut fields);
    match other.parse(input) {
        Ok(status) => assert_eq!(status, httparse::Status::Complete(head.end())),
        Err(error) => {
            let minor = head.method_token(input).len() + 1 + head.target(input).len() + b" HTTP/1.".len();
            assert!(error == httparse::Error::Version && (b'2'..=b'9').contains(&line[minor]));
            return;
        }
    }
    assert_eq!(other.method.map(str::as_bytes), Some(head.method_token(input)));
    assert_eq!(other.path.map(str::as_bytes), Some(head.target(input)));
    let theirs = other.headers.iter().map(|field| (field.name.as_bytes(), field.value));
    assert!(theirs.eq(head.fields(input).map(|field| (field.name, field.value))));
}
