//! `Token`: the secret that stands for a session, as a client has it.
//!
//! Invariant: 32 bytes of the kernel's generator, so that nobody guesses one; written as 64 hexadecimal digits. The database
//! keeps only their hash: who reads it cannot log in with what is there.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::AccountsError;

/// The secret of a session.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: [u8; SECRET_LEN],
}

/// Bytes of a secret.
pub(crate) const SECRET_LEN: usize = 32;

impl Token {
    /// The token that these 64 hexadecimal digits are; `None` when they are something else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        Some(Self { secret: from_hex(text)? })
    }

    /// A new one.
    pub(crate) fn generate() -> Result<Self, AccountsError> {
        Ok(Self { secret: random()? })
    }

    /// The digits, for the client and nobody else.
    #[must_use]
    pub fn reveal(&self) -> String {
        to_hex(&self.secret)
    }

    /// What is stored of it.
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random() -> Result<[u8; SECRET_LEN], AccountsError> {
    let mut bytes = [0; SECRET_LEN];
    getrandom::fill(&mut bytes).map_err(AccountsError::Random)?;
    Ok(bytes)
}

/// Two lower-case digits for each byte.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    text
}

/// The bytes that exactly so many digits are, of either case.
pub(crate) fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; N] = pairs.try_into().ok()?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_revealed_is_parsed_again_and_is_not_shown_by_debug() {
        let token = Token::generate().unwrap();
        let text = token.reveal();
        assert_eq!(text.len(), 64);
        assert_eq!(Token::parse(text.as_bytes()), Some(token.clone()));
        assert_eq!(Token::parse(text.to_uppercase().as_bytes()), Some(token.clone()));
        assert_eq!(format!("{token:?}"), "Token(..)");
        assert_ne!(Token::generate().unwrap(), token);
    }

    #[test]
    fn the_hash_is_sha_256_of_the_bytes() {
        let token = Token { secret: [0; 32] };
        // Of `sha256sum` over 32 zeros.
        assert_eq!(to_hex(&token.hash()), "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
    }

    #[test]
    fn other_texts_are_no_token() {
        let text = "0".repeat(64);
        assert!(Token::parse(text.as_bytes()).is_some());
        for wrong in
            ["", "0", &text[1..], &format!("{text}0"), &format!("{text}00"), &format!("g{}", &text[1..])]
        {
            assert_eq!(Token::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
