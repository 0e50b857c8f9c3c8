//! Request targets and hosts on whatever comes: the parts of a target are parts of it, a path that is normalised stays
//! under its root and is normal then, and a host holds nothing that could be anything else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_http::{Head, HeadLimits, Host, Parsed, normalize_path, parse_head};

fuzz_target!(|data: &[u8]| {
    for method in ["GET", "OPTIONS", "CONNECT"] {
        let request = [method.as_bytes(), b" ", data, b" HTTP/1.1\r\nHost: other\r\n\r\n"].concat();
        if let Ok(Parsed::Head(head)) = parse_head(&request, &HeadLimits::default()) {
            // More than one head may stand in the input.
            if head.end() == request.len() && head.fields(&request).count() == 1 {
                check_target(&head, &request, data);
            }
        }
    }
    check_path(data);
    check_path(&[b"/", data].concat());
    check_host(data);
});

fn check_target(head: &Head, request: &[u8], target: &[u8]) {
    assert_eq!(head.target(request), target);
    let host = head.host(request).expect("HTTP/1.1 has a host");
    let path = head.path(request);
    if target.starts_with(b"/") || target == b"*" {
        assert_eq!(host.as_sent(), "other");
    } else {
        assert!(contains(target, host.as_sent().as_bytes()));
        assert!(path == b"/" || path == b"*" || contains(target, path));
    }
    if let Some(query) = head.query(request) {
        assert!(target.ends_with(&[b"?", query].concat()));
    }
    assert!(!path.contains(&b'?') && !path.contains(&b'#') && !path.contains(&b' '));
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn check_path(path: &[u8]) {
    let Ok(normal) = normalize_path(path) else { return };
    assert!(!normal.starts_with(b"/") && !normal.contains(&0));
    let segments: Vec<_> = normal.split(|&b| b == b'/').collect();
    assert!(segments.iter().all(|segment| *segment != b"." && *segment != b".."));
    assert!(segments.iter().rev().skip(1).all(|segment| !segment.is_empty()));
    // Decoded once: what comes out is only the same again when nothing in it looks encoded.
    if !normal.contains(&b'%') {
        assert_eq!(normalize_path(&[b"/", &normal[..]].concat()).as_deref(), Ok(&normal[..]));
    }
}

fn check_host(text: &[u8]) {
    let Some(host) = Host::parse(text) else { return };
    let name = host.name();
    assert!(!name.is_empty() && !name.ends_with('.') && !name.contains(".."));
    assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._~:[]".contains(&b)));
    assert!(host.is(&name));
    assert_eq!(Host::parse(name.as_bytes()).map(|again| again.name().into_owned()), Some(name.into_owned()));
}
