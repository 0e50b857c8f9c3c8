//! Cookies and the other fields whose values have a grammar of their own, on whatever comes: nothing panics, what comes out
//! keeps its promises, and a cookie that is set holds nothing that was not meant.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_http::{
    Accept, AcceptEncoding, ContentCoding, Cookies, Credentials, HeadLimits, MediaType, Parsed, SetCookie,
    forwarded_client, forwarded_secure, is_field_value, is_token, parse_head,
};

const NAMES: [&str; 7] = [
    "Cookie",
    "Accept",
    "Accept-Encoding",
    "Content-Type",
    "Authorization",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
];

fuzz_target!(|data: &[u8]| {
    // What a browser would send back is what was set.
    if let Ok(text) = std::str::from_utf8(data) {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if let Ok(cookie) = SetCookie::new(name, value) {
            let cookie = cookie.path(value).domain(name).http_only();
            assert!(is_field_value(cookie.as_str().as_bytes()));
            assert_eq!(cookie.as_str().matches(';').count(), 3);
            let lines = format!("Cookie: {name}={value}");
            with_fields(lines.as_bytes(), |fields| {
                assert_eq!(Cookies::of(&fields).value(name), Some(value.as_bytes()));
            });
        }
        let _ = SetCookie::new("name", "value").map(|cookie| {
            let cookie = cookie.path(text).domain(text);
            assert!(is_field_value(cookie.as_str().as_bytes()) && cookie.as_str().matches(';').count() == 2);
        });
    }
    for name in NAMES {
        with_fields(&[name.as_bytes(), b":", data].concat(), |fields| check(&fields));
    }
});

fn with_fields(lines: &[u8], check: impl FnOnce(tidegate_http::Fields<'_>)) {
    let request = [b"GET / HTTP/1.1\r\nHost: a\r\n", lines, b"\r\n\r\n"].concat();
    if let Ok(Parsed::Head(head)) = parse_head(&request, &HeadLimits::default()) {
        check(head.fields(&request));
    }
}

fn check(fields: &tidegate_http::Fields<'_>) {
    for (name, value) in Cookies::of(fields).iter() {
        assert!(is_token(name.as_bytes()) && is_field_value(value) && !value.contains(&b';'));
    }
    let encodings = AcceptEncoding::parse(fields);
    let offered = [ContentCoding::Brotli, ContentCoding::Zstd, ContentCoding::Gzip, ContentCoding::Identity];
    match encodings.best(&offered) {
        Some(best) => assert!(encodings.accepts(best)),
        None => assert!(offered.iter().all(|coding| !encodings.accepts(*coding))),
    }
    let accept = Accept::parse(fields);
    let offered = ["text/html", "application/json"];
    match accept.best(&offered) {
        Some(best) => assert!(offered.iter().all(|other| accept.weight(other) <= accept.weight(best))),
        None => assert!(offered.iter().all(|other| accept.weight(other) == 0)),
    }
    if let Some(media_type) = MediaType::of(fields) {
        let _ = (media_type.is_json(), media_type.parameter("charset"), media_type.parameter("boundary"));
    }
    match Credentials::of(fields) {
        Some(Credentials::Basic { user, password }) => {
            assert!(!user.contains(':') && !user.chars().chain(password.chars()).any(char::is_control));
        }
        Some(Credentials::Bearer(token)) => assert!(!token.is_empty() && token.is_ascii()),
        None => {}
    }
    // The one nearest to us says who it is, whomever it trusts.
    assert_eq!(forwarded_client(fields, |_| false).is_some(), forwarded_client(fields, |_| true).is_some());
    let _ = forwarded_secure(fields);
}
