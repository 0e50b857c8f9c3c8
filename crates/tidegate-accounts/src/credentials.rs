//! A name and a password that may be stored: parsed once, at the edge.
//!
//! Names are compared byte for byte; no case and no Unicode form is folded.

use std::fmt;

/// Bytes of the longest name.
pub const MAX_USERNAME: usize = 56;

/// Bytes of the longest password.
pub const MAX_PASSWORD: usize = 40;

/// A name and a password that keep the rules: the name has 1 to [`MAX_USERNAME`] bytes of UTF-8 without control characters,
/// the password 1 to [`MAX_PASSWORD`] bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    username: Box<str>,
    password: Box<[u8]>,
}

/// Which rule is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredentials {
    /// The name is empty or too long.
    #[error("a name has 1 to {MAX_USERNAME} bytes, not {0}")]
    NameLength(usize),
    /// The name is not UTF-8.
    #[error("a name is UTF-8")]
    NameNotText,
    /// The name contains a control character.
    #[error("a name has no control characters")]
    NameControl,
    /// The password is empty or too long.
    #[error("a password has 1 to {MAX_PASSWORD} bytes, not {0}")]
    PasswordLength(usize),
}

impl Credentials {
    /// Checks the rules.
    ///
    /// # Errors
    ///
    /// [`InvalidCredentials`] names the first rule that is broken.
    pub fn new(username: &[u8], password: &[u8]) -> Result<Self, InvalidCredentials> {
        let username = check_name(username)?;
        if !(1..=MAX_PASSWORD).contains(&password.len()) {
            return Err(InvalidCredentials::PasswordLength(password.len()));
        }
        Ok(Self { username: username.into(), password: password.into() })
    }

    /// The name.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    pub(crate) fn password(&self) -> &[u8] {
        &self.password
    }
}

/// The name as text, when an account can have it.
pub(crate) fn check_name(username: &[u8]) -> Result<&str, InvalidCredentials> {
    if !(1..=MAX_USERNAME).contains(&username.len()) {
        return Err(InvalidCredentials::NameLength(username.len()));
    }
    let username = std::str::from_utf8(username).map_err(|_| InvalidCredentials::NameNotText)?;
    if username.chars().any(char::is_control) {
        return Err(InvalidCredentials::NameControl);
    }
    Ok(username)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(username: &[u8], password: &[u8]) -> Result<(), InvalidCredentials> {
        Credentials::new(username, password).map(|_| ())
    }

    #[test]
    fn the_limits_are_inclusive() {
        assert_eq!(check(b"a", b"b"), Ok(()));
        assert_eq!(check(&[b'a'; 56], &[0xff; 40]), Ok(()));
        assert_eq!(check(b"", b"b"), Err(InvalidCredentials::NameLength(0)));
        assert_eq!(check(&[b'a'; 57], b"b"), Err(InvalidCredentials::NameLength(57)));
        assert_eq!(check(b"a", b""), Err(InvalidCredentials::PasswordLength(0)));
        assert_eq!(check(b"a", &[b'b'; 41]), Err(InvalidCredentials::PasswordLength(41)));
    }

    #[test]
    fn a_name_is_text_that_can_be_shown() {
        assert_eq!(check("Jürgen 王".as_bytes(), b"b"), Ok(()));
        assert_eq!(check(b"\xff\xfe", b"b"), Err(InvalidCredentials::NameNotText));
        for control in ["a\0b", "a\nb", "\x1b[31m", "a\u{85}b", "\x7f"] {
            assert_eq!(check(control.as_bytes(), b"b"), Err(InvalidCredentials::NameControl), "{control:?}");
        }
    }

    #[test]
    fn a_password_is_not_shown_by_debug() {
        let shown = format!("{:?}", Credentials::new(b"ada", b"pass").unwrap());
        assert!(shown.contains("ada") && !shown.contains("pass") && !shown.contains("112"), "{shown}");
    }
}
