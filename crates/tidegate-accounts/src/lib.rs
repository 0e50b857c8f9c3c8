//! Who may log in: users, password hashes and the bounded pool that checks them.
//!
//! Read [`Accounts`] and [`Credentials`] first, then [`Sessions`] for who stays logged in. The invariant: a password is hashed on the pool's threads and nowhere else,
//! so that memory and time have a limit whoever asks. The crate knows no connection and no protocol.
//!
//! ```
//! use tidegate_accounts::{Accounts, Options, Outcome};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let url = format!("sqlite:{}", dir.path().join("accounts.db").display());
//! # let options = Options { memory_kib: 8, passes: 1, ..Options::default() };
//! let accounts = Accounts::open(&url, options)?;
//! assert_eq!(accounts.register(1, b"ada", b"secret")?, Outcome::Done);
//! assert_eq!(accounts.login(b"ada", b"secret")?, Outcome::Done);
//! assert_eq!(accounts.login(b"ada", b"another")?, Outcome::Refused);
//! assert_eq!(accounts.login(b"nobody", b"secret")?, Outcome::Refused);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod accounts;
mod attempts;
mod credentials;
mod error;
mod password;
mod pool;
mod session;
mod sessions;
mod signed;
mod store;
mod token;

pub use accounts::{Accounts, Options, Outcome};
pub use credentials::{Credentials, InvalidCredentials, MAX_PASSWORD, MAX_USERNAME};
pub use error::AccountsError;
pub use sessions::{Login, Registration, Session, SessionRules, Sessions};
pub use signed::{DeviceKey, InvalidSignedLogin, SignedLogin};
pub use store::User;
pub use token::Token;
