//! Password hashes: argon2id in PHC strings, with the parameters that OWASP recommends.
//!
//! The invariant: whether a user exists or not, and whether the password is right or wrong, `verify` does one hash. It knows
//! no database. Only the pool's threads call it, since each call takes `memory_kib` of memory and tens of milliseconds.

use argon2::password_hash::{Error as HashError, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};

use crate::AccountsError;

/// Makes and checks hashes.
#[derive(Debug)]
pub(crate) struct Hasher {
    argon2: Argon2<'static>,
    /// What an unknown user's password is checked against: no password is known to have it, and the cost is the same.
    dummy: String,
}

impl Hasher {
    pub(crate) fn new(memory_kib: u32, passes: u32) -> Result<Self, AccountsError> {
        let params = Params::new(memory_kib, passes, 1, None)
            .map_err(|source| AccountsError::HashOptions { memory_kib, passes, source })?;
        let (salt, output) = ("A".repeat(22), "A".repeat(43));
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            dummy: format!("$argon2id$v=19$m={memory_kib},t={passes},p=1${salt}${output}"),
        })
    }

    /// A PHC string with a salt of its own from the kernel's generator.
    pub(crate) fn hash(&self, password: &[u8]) -> Result<String, AccountsError> {
        Ok(self.argon2.hash_password(password)?.to_string())
    }

    /// Whether `password` is the one of `stored`; never, when there is no such user. The parameters are those of the stored
    /// hash, so a change of the options does not lock anybody out.
    pub(crate) fn verify(&self, password: &[u8], stored: Option<&str>) -> Result<bool, AccountsError> {
        match self.argon2.verify_password(password, stored.unwrap_or(&self.dummy)) {
            Ok(()) => Ok(stored.is_some()),
            Err(HashError::PasswordInvalid) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::PasswordHash;

    #[test]
    fn a_hash_is_argon2id_with_the_parameters_and_a_salt_of_its_own() {
        let hasher = Hasher::new(16, 2).unwrap();
        let (a, b) = (hasher.hash(b"pass").unwrap(), hasher.hash(b"pass").unwrap());
        assert!(a.starts_with("$argon2id$v=19$m=16,t=2,p=1$"), "{a}");
        assert_ne!(a, b);
        assert!(hasher.verify(b"pass", Some(&a)).unwrap());
        assert!(!hasher.verify(b"Pass", Some(&a)).unwrap());
    }

    #[test]
    fn an_unknown_user_costs_what_a_known_one_does() {
        let hasher = Hasher::new(24, 3).unwrap();
        let real = PasswordHash::new(&hasher.hash(b"pass").unwrap()).unwrap();
        let dummy = PasswordHash::new(&hasher.dummy).unwrap();
        assert_eq!(
            (dummy.algorithm, dummy.version, dummy.params),
            (real.algorithm, real.version, real.params)
        );
        assert_eq!(dummy.salt.map(|s| s.len()), real.salt.map(|s| s.len()));
        assert_eq!(dummy.hash.map(|h| h.len()), real.hash.map(|h| h.len()));
        assert!(!hasher.verify(b"pass", None).unwrap());
    }

    #[test]
    fn hashes_made_with_other_parameters_are_still_checked() {
        let stored = Hasher::new(8, 1).unwrap().hash(b"pass").unwrap();
        assert!(Hasher::new(32, 2).unwrap().verify(b"pass", Some(&stored)).unwrap());
    }

    #[test]
    fn a_stored_hash_that_cannot_be_read_is_an_error_and_not_a_refusal() {
        let hasher = Hasher::new(8, 1).unwrap();
        for stored in ["", "pass", "$argon2id$v=19$m=8,t=1,p=1", "$md5$AAAAAAAAAAAA$AAAAAAAAAAAAAAAA"] {
            let result = hasher.verify(b"pass", Some(stored));
            assert!(!matches!(result, Ok(true)), "{stored}: {result:?}");
        }
        assert!(matches!(hasher.verify(b"pass", Some("")), Err(AccountsError::Hash(_))));
    }

    #[test]
    fn parameters_that_argon2_refuses_are_an_error() {
        assert!(matches!(Hasher::new(1, 1), Err(AccountsError::HashOptions { memory_kib: 1, .. })));
        assert!(matches!(Hasher::new(8, 0), Err(AccountsError::HashOptions { passes: 0, .. })));
    }
}
