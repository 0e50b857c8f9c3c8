//! `tidegate password`: a line for a file of users.
//!
//! It only prints: which file it belongs to, and whether it replaces a line, is known to who keeps the file.

use anyhow::anyhow;
use tidegate::web::{Users, hash_password};

use crate::failure::Failure;
use crate::output::print;
use crate::password;

/// Reads a password from standard input and prints the user with its hash.
pub(crate) fn print_line(user: &str) -> Result<(), Failure> {
    // Before anybody has typed a password for it.
    Users::check_name(user).map_err(|why| Failure::Failed(anyhow!("{user:?} cannot be a user: {why}")))?;
    let password = password::read("").map_err(Failure::Failed)?;
    let hash = hash_password(&password).map_err(|why| Failure::Failed(anyhow!(why)))?;
    print(format!("{user}:{hash}\n"))
}
