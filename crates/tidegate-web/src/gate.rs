//! Gates: who may ask for what, and how often.
//!
//! Invariant: nothing here sends; a gate says what it found, and [`admission`](crate::admission) does what follows.

mod basic_auth;
mod checker;
mod login_limit;
mod networks;
mod request_limit;
mod users;

pub(crate) use basic_auth::{BasicAuth, Judgement, Login, NotChecked};
pub(crate) use checker::Checker;
pub use login_limit::LOGIN_LIMIT_TABLES;
pub(crate) use login_limit::LoginLimit;
pub use networks::{Access, NetworkError, Networks};
pub(crate) use request_limit::RequestLimit;
pub use request_limit::{REQUEST_LIMIT_WORDS, RequestRate};
pub use users::{MAX_USERS_FILE_BYTES, Users, UsersError, hash_password};
