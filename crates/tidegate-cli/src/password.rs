//! A password from standard input: one line, and on a terminal without showing it.
//!
//! It is not taken from the environment: variables that begin with `TIDEGATE_` are keys of the configuration, and a
//! process's environment is shown to all of its user's other processes.

use std::io::{self, BufRead, IsTerminal, Read, StdinLock, Write};

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Reads the password. `otherwise` is what can be done when there is none, for the message.
pub(crate) fn read(otherwise: &str) -> anyhow::Result<Vec<u8>> {
    let mut stdin = io::stdin().lock();
    if !stdin.is_terminal() {
        return line(&mut stdin, otherwise);
    }
    // A prompt that cannot be shown does not keep anybody from typing.
    let _ = write!(io::stderr(), "password: ");
    let echo = Hidden::new(&stdin).context("hiding the password on the terminal")?;
    let password = line(&mut stdin, otherwise);
    drop(echo);
    // The line end that was typed was not shown either.
    let _ = writeln!(io::stderr());
    password
}

fn line(input: &mut impl BufRead, otherwise: &str) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(MAX_LINE).read_until(b'\n', &mut line).context("reading the password from standard input")?;
    let password = line.strip_suffix(b"\n").unwrap_or(&line);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    if password.is_empty() {
        bail!("no password: expected a line on standard input{otherwise}");
    }
    Ok(password.to_vec())
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden {
    before: Termios,
}

impl Hidden {
    fn new(stdin: &StdinLock<'_>) -> io::Result<Self> {
        let before = tcgetattr(stdin)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin, OptionalActions::Flush, &hidden)?;
        Ok(Self { before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Fails only when the terminal has gone, and then there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Longer than any password that can be sent, so that one that is too long is refused and not cut.
const MAX_LINE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expected: &[u8]) {
        assert_eq!(line(&mut &input[..], "").unwrap(), expected);
    }

    #[test]
    fn one_line_is_taken_without_its_end() {
        check(b"secret\nmore\n", b"secret");
        check(b"secret\r\n", b"secret");
        check(b" with spaces ", b" with spaces ");
    }

    #[test]
    fn nothing_is_no_password() {
        assert!(line(&mut &b""[..], "").is_err());
        assert!(line(&mut &b"\n"[..], "").is_err());
    }
}
