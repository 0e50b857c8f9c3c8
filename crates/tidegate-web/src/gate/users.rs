//! `Users`: the file of names and password hashes behind basic authentication.
//!
//! ```text
//! # a comment
//! ada:$argon2id$v=19$m=19456,t=2,p=1$…$…
//! ```
//!
//! Invariant: a hash that is here can be checked, and checking it costs no more than [`MAX_MEMORY_KIB`] and [`MAX_PASSES`];
//! what cannot is an error of the file, and not a refusal of whoever asks.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};

/// Names with their hashes.
#[derive(Clone, Default)]
pub struct Users {
    hashes: HashMap<Box<str>, PasswordHash>,
}

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// The file cannot be read.
    #[error("users file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A line of it is wrong.
    #[error("users file {}, line {line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong, and what is expected.
        problem: String,
    },
}

/// Bytes of the largest file.
pub const MAX_USERS_FILE_BYTES: u64 = 1 << 20;
/// Memory that checking a password may take, in KiB.
pub(crate) const MAX_MEMORY_KIB: u32 = 256 << 10;
/// Passes over that memory.
pub(crate) const MAX_PASSES: u32 = 32;
/// Bytes of the longest name.
pub(crate) const MAX_NAME_BYTES: usize = 256;
/// Bytes of the longest password that is looked at.
pub(crate) const MAX_PASSWORD_BYTES: usize = 256;

/// What OWASP recommends for argon2id with little memory.
const MEMORY_KIB: u32 = 19 << 10;
const PASSES: u32 = 2;

impl Users {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`UsersError`] names the file and the line.
    pub fn read(path: &Path) -> Result<Self, UsersError> {
        let read = |source| UsersError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > MAX_USERS_FILE_BYTES {
            let problem = format!("the file has more than {MAX_USERS_FILE_BYTES} bytes");
            return Err(UsersError::Line { path: path.to_owned(), line: 1, problem });
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::parse(&text).map_err(|(line, problem)| UsersError::Line {
            path: path.to_owned(),
            line,
            problem,
        })
    }

    /// The users of a text; the error has the number of the line.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut users = Self::default();
        for (idx, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = parse_line(line).map_err(|problem| (idx + 1, problem))?;
            if users.hashes.insert(name.into(), hash).is_some() {
                return Err((idx + 1, format!("{name:?} is there twice")));
            }
        }
        Ok(users)
    }

    /// Whether this can be the name of a user.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check_name(name: &str) -> Result<(), &'static str> {
        match name {
            "" => Err("a name has at least one byte"),
            _ if name.len() > MAX_NAME_BYTES => Err("a name has at most 256 bytes"),
            _ if name.contains(':') => Err("a name has no \":\", which ends it (RFC 7617)"),
            _ if name.chars().any(char::is_control) => Err("a name has no control characters"),
            _ if name.trim() != name || name.starts_with('#') => {
                Err("a name neither begins with \"#\" nor with or ends in blanks")
            }
            _ => Ok(()),
        }
    }

    /// Whether the password is the one of the user. It takes the same time when there is no such user: a hash, which is tens
    /// of milliseconds and megabytes, so no event loop may call it.
    #[must_use]
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        let known = self.hashes.get(name);
        let Some(hash) = known.or_else(|| self.hashes.values().next()) else { return false };
        let is_right = Argon2::default().verify_password(password, hash).is_ok();
        known.is_some() && is_right
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// The hash of a password as it stands in a file of users: argon2id with a salt of its own, as a PHC string.
///
/// # Errors
///
/// What is wrong with the password, or that the kernel gave no random salt.
///
/// ```
/// let line = format!("ada:{}", tidegate_web::hash_password(b"correct horse")?);
/// assert!(line.starts_with("ada:$argon2id$v=19$"));
/// # Ok::<(), String>(())
/// ```
pub fn hash_password(password: &[u8]) -> Result<String, String> {
    if !(1..=MAX_PASSWORD_BYTES).contains(&password.len()) {
        return Err(format!("a password has 1 to {MAX_PASSWORD_BYTES} bytes, not {}", password.len()));
    }
    // RFC 7617, section 2: nobody could log in with another.
    if !str::from_utf8(password).is_ok_and(|text| !text.contains(char::is_control)) {
        return Err("a password is UTF-8 without control characters".to_owned());
    }
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(password).map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

fn parse_line(line: &str) -> Result<(&str, PasswordHash), String> {
    let expected = "expected \"name:$argon2id$…\", as `tidegate password NAME` prints it";
    let Some((name, hash)) = line.split_once(':') else { return Err(format!("no \":\"; {expected}")) };
    Users::check_name(name).map_err(|why| format!("not a name before the \":\": {why}; {expected}"))?;
    if !hash.starts_with("$argon2") {
        return Err(format!("no argon2 hash behind the \":\"; {expected}"));
    }
    let hash = PasswordHash::new(hash).map_err(|error| format!("not a hash: {error}; {expected}"))?;
    let params =
        Params::try_from(&hash).map_err(|error| format!("not an argon2 hash: {error}; {expected}"))?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(format!("half a hash; {expected}"));
    }
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES {
        return Err(format!(
            "a hash of {} KiB and {} passes costs too much (at most {MAX_MEMORY_KIB} KiB and {MAX_PASSES} passes)",
            params.m_cost(),
            params.t_cost()
        ));
    }
    Ok((name, hash))
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash that costs next to nothing.
    fn cheap(password: &[u8]) -> String {
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password(password).unwrap().to_string()
    }

    #[test]
    fn a_file_says_who_may_log_in() {
        let text = format!("# people\n\nada:{}\r\n  bob:{}  \n", cheap(b"one"), cheap(b"t:wo"));
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users.verify("ada", b"one") && users.verify("bob", b"t:wo"));
        for (name, password) in [("ada", "two"), ("ada", ""), ("bob", "one"), ("eve", "one"), ("", "")] {
            assert!(!users.verify(name, password.as_bytes()), "{name}:{password}");
        }
        assert!(!Users::default().verify("ada", b"one"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users");
        let hash = cheap(b"x");
        for (text, line, problem) in [
            ("\n\nada\n".to_owned(), 3, "no \":\""),
            ("ada:secret\n".to_owned(), 1, "no argon2 hash"),
            ("ada:$apr1$x$y\n".to_owned(), 1, "no argon2 hash"),
            ("ada:$argon2id$v=19$m=8,t=1,p=1\n".to_owned(), 1, "half a hash"),
            ("ada:$argon2id$!!\n".to_owned(), 1, "not a hash"),
            (format!(":{hash}\n"), 1, "not a name"),
            (format!("ada:{hash}\nada:{hash}\n"), 2, "\"ada\" is there twice"),
            (format!("ada:{}\n", hash.replace("m=8", "m=9999999")), 1, "costs too much"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = Users::read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("users, line {line}: ")) && error.contains(problem), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let error = Users::read(&dir.path().join("nowhere")).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        std::fs::write(&path, vec![b'#'; 1 << 21]).unwrap();
        assert!(Users::read(&path).unwrap_err().to_string().contains("more than"));
    }

    #[test]
    fn names_that_a_line_could_not_hold_are_none() {
        for name in ["", "a:b", "#a", " a", "a ", "a\nb", &"a".repeat(257)] {
            assert!(Users::check_name(name).is_err(), "{name:?}");
        }
        assert_eq!(Users::check_name("J\u{fc}rgen K."), Ok(()));
    }

    #[test]
    fn a_hash_that_is_made_is_one_that_is_read() {
        let line = format!("ada:{}", hash_password(b"a b").unwrap());
        assert!(Users::parse(&line).unwrap().verify("ada", b"a b"));
        assert!(hash_password("gr\u{fc}n".as_bytes()).is_ok());
        for nobody_s in [&b""[..], &[b'a'; 257], b"a\tb", b"gr\xfcn", "\u{85}".as_bytes()] {
            assert!(hash_password(nobody_s).is_err(), "{}", nobody_s.escape_ascii());
        }
    }
}
