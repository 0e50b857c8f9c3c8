//! Standard output: the one place that prints results.
//!
//! A reader that has gone is no error of ours: it becomes [`Failure::OutputClosed`], which ends the command quietly. (The
//! Rust runtime ignores `PIPE`, so a write fails instead of ending the process.)

use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tidegate::log::Colour;

use crate::failure::Failure;

/// In which form a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Form {
    pub(crate) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Writes a text as it is.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).map_err(Failure::output)
}

/// Writes a line to standard error, in one piece: other processes of the server write there too, and what goes out in two
/// could have their lines in the middle.
pub(crate) fn say(text: &str) {
    // When nobody reads standard error there is nobody left to be told.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Writes a JSON value on one line.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print(format!("{value}\n"))
}

/// Whether standard output wants colours: it is a terminal, and `NO_COLOR` (no-color.org) is empty.
pub(crate) fn colour() -> Colour {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !unwanted { Colour::On } else { Colour::Off }
}

/// Waits for `time`; fails at once when the reader of standard output goes, which a writer without anything to write would
/// otherwise never learn.
pub(crate) fn wait_while_read(time: Timespec) -> Result<(), Failure> {
    let stdout = io::stdout();
    // Without flags only the end of the other side (and a bad descriptor) is told.
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    match poll(&mut fds, Some(&time)) {
        Ok(0) | Err(Errno::INTR) => Ok(()),
        Ok(_) => Err(Failure::OutputClosed),
        Err(error) => Err(Failure::output(error.into())),
    }
}
