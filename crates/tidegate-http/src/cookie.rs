//! Cookies: those that a client sends, and those that it is told to keep (RFC 6265).
//!
//! Invariant: a [`SetCookie`] cannot be built from a name, value, path or domain that would end it early or add to it; so
//! what a user typed may be put into one.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt::Write;

use crate::bytes::{is_token, trim_ows};
use crate::{Fields, format_http_date};

/// The cookies of a request.
///
/// ```
/// use tidegate_http::{Cookies, HeadLimits, Parsed, parse_head};
///
/// let input = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: SID=31d4d96e407aad42; lang=en-US\r\n\r\n";
/// let Ok(Parsed::Head(head)) = parse_head(input, &HeadLimits::default()) else { panic!("a valid head") };
/// assert_eq!(Cookies::of(&head.fields(input)).value("lang"), Some(&b"en-US"[..]));
/// ```
#[derive(Clone, Debug)]
pub struct Cookies<'a> {
    fields: Fields<'a>,
}

impl<'a> Cookies<'a> {
    /// The cookies in all `Cookie` lines of a request.
    #[must_use]
    pub fn of(fields: &Fields<'a>) -> Self {
        Self { fields: fields.clone() }
    }

    /// The names and values in the order in which they were sent. Values are without the quotes around them. What is no
    /// pair, or has a name that is no token, is left out.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.fields.clone().named("cookie").flat_map(|line| line.split(|&b| b == b';')).filter_map(parse_pair)
    }

    /// The value of the first cookie of this name. Names have a case. Of several the first is the one with the longest path
    /// (RFC 6265, section 5.4).
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

/// `cookie-name "=" cookie-value` (RFC 6265, section 4.1.1). Of the value only what a field may hold is known.
fn parse_pair(pair: &[u8]) -> Option<(&str, &[u8])> {
    let pair = trim_ows(pair);
    let equals = memchr::memchr(b'=', pair)?;
    let (name, value) = (trim_ows(&pair[..equals]), trim_ows(&pair[equals + 1..]));
    if !is_token(name) {
        return None;
    }
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    };
    Some((str::from_utf8(name).ok()?, value))
}

/// Whether a cookie goes along with requests that other sites cause (RFC 6265bis, section 5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When a link is followed.
    Lax,
    /// Always; browsers insist on `Secure`.
    None,
}

/// What a client is told to keep, as the value of a `Set-Cookie` field.
///
/// ```
/// use tidegate_http::{SameSite, SetCookie};
///
/// let cookie = SetCookie::new("SID", "31d4d96e").expect("a cookie").path("/").http_only().same_site(SameSite::Lax);
/// assert_eq!(cookie.to_string(), "SID=31d4d96e; Path=/; HttpOnly; SameSite=Lax");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetCookie {
    /// The text so far; complete after each call.
    text: String,
    same_site_none: bool,
    secure: bool,
}

/// Why there is no such cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieError {
    /// The name is no token.
    #[error("name of a cookie is no token")]
    Name,
    /// The value has a byte that no value may have: a control character, a blank, `"`, `,`, `;`, `\` or one above ASCII.
    #[error("value of a cookie has a byte that is not allowed")]
    Value,
}

impl SetCookie {
    /// A cookie that lasts until the browser ends, for this host and the folder of this path.
    ///
    /// # Errors
    ///
    /// The name is no token, or the value has other bytes than `cookie-octet` (RFC 6265, section 4.1.1).
    pub fn new(name: &str, value: &str) -> Result<Self, CookieError> {
        if !is_token(name.as_bytes()) {
            return Err(CookieError::Name);
        }
        if !value.bytes().all(is_cookie_byte) {
            return Err(CookieError::Value);
        }
        Ok(Self { text: alloc::format!("{name}={value}"), same_site_none: false, secure: false })
    }

    /// One that makes the client forget the cookie of this name. Path and domain must be those it was set with.
    ///
    /// # Errors
    ///
    /// The name is no token.
    pub fn removal(name: &str) -> Result<Self, CookieError> {
        Ok(Self::new(name, "")?.max_age(0).expires(0))
    }

    /// How long the cookie lasts, in seconds from now.
    #[must_use]
    pub fn max_age(mut self, seconds: u64) -> Self {
        self.push(format_args!("Max-Age={seconds}"));
        self
    }

    /// When the cookie ends, in seconds since 1970. `Max-Age` wins over it.
    #[must_use]
    pub fn expires(mut self, unix_time: u64) -> Self {
        let date = format_http_date(unix_time);
        self.push(format_args!("Expires={}", str::from_utf8(&date).unwrap_or_default()));
        self
    }

    /// The cookie is sent for this path and what is below it. Bytes that a path cannot have here are percent-encoded.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        self.push(format_args!("Path={}", encoded(path)));
        self
    }

    /// The cookie is sent to this host and those below it, not only to the one that set it. Bytes that a name cannot have
    /// are percent-encoded, which no host matches.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Self {
        self.push(format_args!("Domain={}", encoded(domain)));
        self
    }

    /// The cookie is sent over TLS only.
    #[must_use]
    pub fn secure(mut self) -> Self {
        if !self.secure {
            self.push(format_args!("Secure"));
        }
        self.secure = true;
        self
    }

    /// Scripts do not see the cookie.
    #[must_use]
    pub fn http_only(mut self) -> Self {
        self.push(format_args!("HttpOnly"));
        self
    }

    /// Whether the cookie goes along with requests that other sites cause. `None` brings `Secure` with it.
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        let name = match same_site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        };
        self.push(format_args!("SameSite={name}"));
        if same_site == SameSite::None { self.secure() } else { self }
    }

    /// The value of the field.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn push(&mut self, attribute: core::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = write!(self.text, "; {attribute}");
    }
}

impl core::fmt::Display for SetCookie {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.text)
    }
}

/// `cookie-octet`: no control characters, blank, `"`, `,`, `;` or `\`.
const fn is_cookie_byte(byte: u8) -> bool {
    byte > b' ' && byte < 0x7f && !matches!(byte, b'"' | b',' | b';' | b'\\')
}

/// An attribute's value without the bytes that would end it.
fn encoded(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_cookie_byte) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if is_cookie_byte(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cookies(lines: &str) -> Vec<(String, String)> {
        Cookies::of(&Fields::new(lines.as_bytes()))
            .iter()
            .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()))
            .collect()
    }

    #[test]
    fn cookies_are_found_by_their_names() {
        // RFC 6265, section 3.1.
        let cases: [(&str, &[(&str, &str)]); 9] = [
            ("Cookie: SID=31d4d96e407aad42; lang=en-US", &[("SID", "31d4d96e407aad42"), ("lang", "en-US")]),
            ("Cookie: a=1;b=2 ; c = 3", &[("a", "1"), ("b", "2"), ("c", "3")]),
            ("Cookie: a=b=c; d=\"e f\"; g=\"", &[("a", "b=c"), ("d", "e f"), ("g", "\"")]),
            ("Cookie: a=; b", &[("a", "")]),
            ("Cookie: =a; a b=c; ;;", &[]),
            ("Cookie: a=1\r\nHost: x\r\ncookie: b=2", &[("a", "1"), ("b", "2")]),
            ("Cookie: a=1; a=2; A=3", &[("a", "1"), ("a", "2"), ("A", "3")]),
            ("Cookie:", &[]),
            ("Cookie: \"a=b\"=c", &[]),
        ];
        for (lines, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
            assert_eq!(cookies(&format!("{lines}\r\n")), expected, "{lines}");
        }
        let fields = Fields::new(b"Cookie: a=1; a=2; A=3\r\n");
        let all = Cookies::of(&fields);
        assert_eq!(
            (all.value("a"), all.value("A"), all.value("b")),
            (Some(&b"1"[..]), Some(&b"3"[..]), None)
        );
    }

    #[test]
    fn a_cookie_is_written_with_its_attributes() {
        let cookie = SetCookie::new("SID", "31d4d96e407aad42").unwrap();
        assert_eq!(cookie.as_str(), "SID=31d4d96e407aad42");
        assert_eq!(
            cookie
                .path("/")
                .domain("example.com")
                .max_age(3600)
                .secure()
                .http_only()
                .same_site(SameSite::Strict)
                .to_string(),
            "SID=31d4d96e407aad42; Path=/; Domain=example.com; Max-Age=3600; Secure; HttpOnly; SameSite=Strict"
        );
        // RFC 6265, section 3.1.
        assert_eq!(
            SetCookie::new("lang", "").unwrap().expires(784_111_777).as_str(),
            "lang=; Expires=Sun, 06 Nov 1994 08:49:37 GMT"
        );
        assert_eq!(
            SetCookie::removal("lang").unwrap().as_str(),
            "lang=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        );
        let none = SetCookie::new("a", "b").unwrap().secure().same_site(SameSite::None);
        assert_eq!(none.as_str(), "a=b; Secure; SameSite=None");
        assert_eq!(
            SetCookie::new("a", "b").unwrap().same_site(SameSite::None).as_str(),
            "a=b; SameSite=None; Secure"
        );
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_cookie() {
        for name in ["", "a b", "a;b", "a=b", "a\r\nX: y", "\u{e4}"] {
            assert_eq!(SetCookie::new(name, "v"), Err(CookieError::Name), "{name:?}");
        }
        for value in ["a b", "a;b", "a,b", "\"a\"", "a\\b", "a\r\nX: y", "\u{e4}", "\0"] {
            assert_eq!(SetCookie::new("n", value), Err(CookieError::Value), "{value:?}");
        }
        let cookie = SetCookie::new("n", "v").unwrap().path("/a; Secure\r\nX: \u{e4}").domain("a b");
        assert_eq!(cookie.as_str(), "n=v; Path=/a%3B%20Secure%0D%0AX:%20%C3%A4; Domain=a%20b");
    }

    proptest! {
        #[test]
        fn what_is_set_comes_back(name in "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,8}", value in ".{0,12}") {
            if let Ok(cookie) = SetCookie::new(&name, &value) {
                let line = format!("Cookie: x=1; {cookie}; y=2\r\n");
                prop_assert_eq!(
                    Cookies::of(&Fields::new(line.as_bytes())).value(&name),
                    Some(if name == "x" { &b"1"[..] } else { value.as_bytes() })
                );
            }
        }
    }
}
