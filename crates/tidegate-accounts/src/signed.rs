//! The signed login of devices: what is signed, and with which key.
//!
//! Invariant: what is signed says for which use, when and who, in one way only, so a signature is good for one login of one
//! user. It knows no database; that a salt is used once is for [`Sessions`](crate::Sessions) to see to.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::credentials::check_name;
use crate::token::{SECRET_LEN, from_hex, random, to_hex};
use crate::{AccountsError, InvalidCredentials};

/// The key of an account with which its devices sign: 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceKey {
    bytes: [u8; SECRET_LEN],
}

/// A login with a signature instead of a password.
///
/// The signature is the HMAC-SHA-256 (RFC 2104) under the account's key of these bytes: `tidegate-login-v1`, a line feed, the
/// time, a line feed, the salt, a line feed, the name.
///
/// ```
/// use tidegate_accounts::{DeviceKey, SignedLogin};
/// let key = DeviceKey::parse(&[b'0'; 64]).expect("64 hexadecimal digits");
/// let login = SignedLogin::new(1_700_000_000, b"c2FsdC0x", b"ada", &SignedLogin::sign(&key, 1_700_000_000, "c2FsdC0x", "ada"))?;
/// assert!(login.is_signed_with(&key));
/// # Ok::<(), tidegate_accounts::InvalidSignedLogin>(())
/// ```
#[derive(Clone, Debug)]
pub struct SignedLogin {
    time: i64,
    salt: Box<str>,
    user: Box<str>,
    sign: [u8; 32],
}

/// What of a signed login breaks the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignedLogin {
    /// The salt is too short, too long, or has other characters.
    #[error("a salt has {MIN_SALT} to {MAX_SALT} letters, digits, '-' and '_'")]
    Salt,
    /// The signature is not the hexadecimal digits of 32 bytes.
    #[error("a signature has 64 hexadecimal digits")]
    Sign,
    /// The name is not one that an account can have.
    #[error(transparent)]
    User(#[from] InvalidCredentials),
}

const MIN_SALT: usize = 8;
const MAX_SALT: usize = 64;

impl DeviceKey {
    /// The key that these 64 hexadecimal digits are; `None` when they are something else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        Some(Self { bytes: from_hex(text)? })
    }

    pub(crate) const fn from_bytes(bytes: [u8; SECRET_LEN]) -> Self {
        Self { bytes }
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; SECRET_LEN] {
        &self.bytes
    }

    pub(crate) fn generate() -> Result<Self, AccountsError> {
        Ok(Self { bytes: random()? })
    }

    /// The digits, for the device and nobody else.
    #[must_use]
    pub fn reveal(&self) -> String {
        to_hex(&self.bytes)
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(..)")
    }
}

impl SignedLogin {
    /// Checks the form of what a device sent: seconds since 1970, 8 to 64 letters, digits, `-` and `_`, a name, and 64
    /// hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`InvalidSignedLogin`] names the first rule that is broken.
    pub fn new(time: i64, salt: &[u8], user: &[u8], sign: &str) -> Result<Self, InvalidSignedLogin> {
        let sign = from_hex(sign.as_bytes()).ok_or(InvalidSignedLogin::Sign)?;
        let user = check_name(user)?;
        let in_alphabet = salt.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        match std::str::from_utf8(salt) {
            Ok(salt) if in_alphabet && (MIN_SALT..=MAX_SALT).contains(&salt.len()) => {
                Ok(Self { time, salt: salt.into(), user: user.into(), sign })
            }
            _ => Err(InvalidSignedLogin::Salt),
        }
    }

    /// What a device does: the signature as hexadecimal digits.
    #[must_use]
    pub fn sign(key: &DeviceKey, time: i64, salt: &str, user: &str) -> String {
        to_hex(&mac(key, time, salt, user).finalize().into_bytes())
    }

    /// Whether the signature is the one under this key. Takes as long for any other.
    #[must_use]
    pub fn is_signed_with(&self, key: &DeviceKey) -> bool {
        mac(key, self.time, &self.salt, &self.user).verify_slice(&self.sign).is_ok()
    }

    pub(crate) const fn time(&self) -> i64 {
        self.time
    }

    pub(crate) const fn salt(&self) -> &str {
        &self.salt
    }

    /// Who says to be logging in.
    #[must_use]
    pub const fn user(&self) -> &str {
        &self.user
    }
}

fn mac(key: &DeviceKey, time: i64, salt: &str, user: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.bytes).expect("HMAC takes keys of every length");
    mac.update(format!("tidegate-login-v1\n{time}\n{salt}\n{user}").as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 64] = *b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn the_vector_of_the_documentation() {
        let key = DeviceKey::parse(&KEY).unwrap();
        let sign = SignedLogin::sign(&key, 1_700_000_000, "a1b2c3d4e5f6", "ada");
        // Of Python's hmac module.
        assert_eq!(sign, "993e2d2ddb4dd55c0a8a8bbbe34d421fa35e24a5df67d6ea5f61f888643d76e8");
        let login = SignedLogin::new(1_700_000_000, b"a1b2c3d4e5f6", b"ada", &sign.to_uppercase()).unwrap();
        assert!(login.is_signed_with(&key));
    }

    #[test]
    fn another_time_salt_user_or_key_has_another_signature() {
        let key = DeviceKey::parse(&KEY).unwrap();
        let sign = SignedLogin::sign(&key, 5, "aaaaaaaa", "ada");
        for (time, salt, user) in [(6, "aaaaaaaa", "ada"), (5, "aaaaaaab", "ada"), (5, "aaaaaaaa", "bob")] {
            assert!(
                !SignedLogin::new(time, salt.as_bytes(), user.as_bytes(), &sign)
                    .unwrap()
                    .is_signed_with(&key)
            );
        }
        let login = SignedLogin::new(5, b"aaaaaaaa", b"ada", &sign).unwrap();
        assert!(login.is_signed_with(&key));
        assert!(!login.is_signed_with(&DeviceKey::generate().unwrap()));
    }

    #[test]
    fn what_has_not_the_form_is_refused_by_name() {
        let sign = "0".repeat(64);
        let check = |salt: &[u8], user: &[u8], sign: &str| SignedLogin::new(1, salt, user, sign).map(|_| ());
        assert_eq!(check(b"12345678", b"ada", &sign), Ok(()));
        assert_eq!(check(&[b'a'; 64], b"ada", &sign), Ok(()));
        for salt in [&b"1234567"[..], &[b'a'; 65], b"1234567\n", b"12345678\xff", b"1234 5678"] {
            assert_eq!(check(salt, b"ada", &sign), Err(InvalidSignedLogin::Salt), "{}", salt.escape_ascii());
        }
        for wrong in ["", &sign[1..], &format!("{sign}0"), &format!("x{}", &sign[1..])] {
            assert_eq!(check(b"12345678", b"ada", wrong), Err(InvalidSignedLogin::Sign), "{wrong}");
        }
        let name = Err(InvalidSignedLogin::User(InvalidCredentials::NameControl));
        assert_eq!(check(b"12345678", b"a\nb", &sign), name);
    }
}
