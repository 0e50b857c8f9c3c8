//! `Credentials`: what a client says it may do (RFC 9110, section 11.4; Basic: RFC 7617; Bearer: RFC 6750).
//!
//! Invariant: nothing is compared here, and nothing that was secret is shown by `Debug`.

use alloc::string::String;

use base64ct::{Base64, Encoding};

use crate::Fields;
use crate::bytes::{is_token, trim_ows};

/// The credentials of an `Authorization` field.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// A name and a password, of UTF-8 (RFC 7617, section 2.1).
    Basic {
        /// The name. Holds no colon.
        user: String,
        /// The password, which may be empty.
        password: String,
    },
    /// A token (RFC 6750, section 2.1).
    Bearer(&'a str),
}

impl<'a> Credentials<'a> {
    /// Reads the value of an `Authorization` field. `None` for another scheme, and for what breaks the grammar.
    ///
    /// ```
    /// use tidegate_http::Credentials;
    ///
    /// // RFC 7617, section 2.
    /// let credentials = Credentials::parse(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    /// assert!(matches!(credentials, Some(Credentials::Basic { user, password }) if user == "Aladdin" && password == "open sesame"));
    /// ```
    #[must_use]
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let blank = memchr::memchr(b' ', value)?;
        // One blank or more (RFC 9110, section 11.4).
        let (scheme, token) = (&value[..blank], trim_ows(&value[blank..]));
        if !is_token68(token) {
            return None;
        }
        let token = str::from_utf8(token).ok()?;
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Some(Self::Bearer(token));
        }
        if scheme.eq_ignore_ascii_case(b"basic") {
            return parse_basic(token);
        }
        None
    }

    /// The credentials of a request. `None` when there are none that are understood, or more than one `Authorization`.
    #[must_use]
    pub fn of(fields: &Fields<'a>) -> Option<Self> {
        let mut values = fields.clone().named("authorization");
        let value = values.next()?;
        if values.next().is_some() { None } else { Self::parse(value) }
    }
}

impl core::fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Basic { user, .. } => f.debug_struct("Basic").field("user", user).finish_non_exhaustive(),
            Self::Bearer(_) => f.debug_tuple("Bearer").finish_non_exhaustive(),
        }
    }
}

fn parse_basic<'a>(token: &str) -> Option<Credentials<'a>> {
    let decoded = String::from_utf8(Base64::decode_vec(token).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    // RFC 7617, section 2: no control characters.
    if decoded.chars().any(char::is_control) {
        return None;
    }
    Some(Credentials::Basic { user: user.into(), password: password.into() })
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="` (RFC 9110, section 11.2).
fn is_token68(text: &[u8]) -> bool {
    let mut body = text;
    while let [rest @ .., b'='] = body {
        body = rest;
    }
    !body.is_empty() && body.iter().all(|b| *b == b'/' || is_token(&[*b]) && !b"!#$%&'*^`|".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(user: &str, password: &str) -> Option<Credentials<'static>> {
        Some(Credentials::Basic { user: user.into(), password: password.into() })
    }

    #[test]
    fn credentials_are_read() {
        for (value, expected) in [
            // RFC 7617, sections 2 and 2.1.
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", basic("Aladdin", "open sesame")),
            ("Basic dGVzdDoxMjPCow==", basic("test", "123\u{a3}")),
            ("bASIC  dTpwOnE=", basic("u", "p:q")),
            ("Basic Og==", basic("", "")),
            // RFC 6750, section 2.1.
            ("Bearer mF_9.B5f-4.1JqM", Some(Credentials::Bearer("mF_9.B5f-4.1JqM"))),
            ("bearer a+/~==", Some(Credentials::Bearer("a+/~=="))),
        ] {
            assert_eq!(Credentials::parse(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_none() {
        for value in [
            "",
            "Basic",
            "Basic ",
            "Basic=",
            "Bearer",
            "Bearer ",
            "Bearer a b",
            "Bearer a,b",
            "Bearer \"a\"",
            "Bearer =",
            "Bearer a=b",
            "Digest username=\"a\"",
            "Negotiate YQ==",
            "Basic QWxhZGRpbg==",
            "Basic dTpw=",
            "Basic dTpwOnE",
            "Basic dT pw",
            "Basic dTpwOnE==",
            "Basic dTpwCg==",
            "Basic /////w==",
            "Basic dTpw-_",
            "Bearer\ta",
        ] {
            assert_eq!(Credentials::parse(value.as_bytes()), None, "{value:?}");
        }
    }

    #[test]
    fn a_request_has_one_authorization_and_secrets_are_not_shown() {
        let of = |text: &'static str| Credentials::of(&Fields::new(text.as_bytes()));
        assert_eq!(of("authorization: Bearer abc\r\n"), Some(Credentials::Bearer("abc")));
        assert_eq!(of("Authorization: Bearer abc\r\nAuthorization: Bearer abc\r\n"), None);
        assert_eq!(of("Host: a\r\n"), None);
        let shown = format!("{:?} {:?}", basic("name", "secret"), of("authorization: Bearer secret\r\n"));
        assert!(shown.contains("name") && !shown.contains("secret"), "{shown}");
    }
}
