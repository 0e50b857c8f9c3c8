//! `tidegate log tail`: the records of the log folder, for people or as they are stored.
//!
//! It reads the files and needs no server. The one invariant: with `--follow` it ends when its reader has gone, also while
//! nothing is logged.

use std::io::{self, Write};

use anyhow::Context;
use rustix::event::Timespec;
use tidegate::config::LoadOptions;
use tidegate::log::{Tail, TailOptions, render, render_body};

use crate::configuration::of_running;
use crate::failure::Failure;
use crate::output::{colour, wait_while_read};

/// What is to be printed.
#[derive(Clone, Debug)]
pub(crate) struct Tailing {
    pub(crate) options: TailOptions,
    pub(crate) form: TailForm,
}

/// What is printed of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TailForm {
    /// All of it, for people.
    Text,
    /// As it is stored.
    Json,
    /// Only what it says.
    Body,
}

/// Prints the last records and, with `follow`, those that come.
pub(crate) fn tail(options: &LoadOptions, tailing: &Tailing) -> Result<(), Failure> {
    let dir = of_running(options)?.log_dir();
    let reading = || format!("reading the log folder {}", dir.display());
    // Waiting is done here, where the end of the reader is noticed.
    let once = TailOptions { follow: false, ..tailing.options.clone() };
    let mut tail = Tail::open(&dir, once).with_context(reading)?;
    let mut text = String::new();
    let colour = colour();
    loop {
        let mut out = io::BufWriter::new(io::stdout().lock());
        for line in &mut tail {
            let line = line.with_context(reading)?;
            let bytes = match tailing.form {
                TailForm::Json => line.as_slice(),
                TailForm::Text => {
                    text.clear();
                    render(&line, colour, &mut text);
                    text.as_bytes()
                }
                TailForm::Body => {
                    text.clear();
                    render_body(&line, &mut text);
                    text.as_bytes()
                }
            };
            out.write_all(bytes).map_err(Failure::output)?;
        }
        out.flush().map_err(Failure::output)?;
        drop(out);
        if !tailing.options.follow {
            return Ok(());
        }
        while !tail.poll().with_context(reading)? {
            wait_while_read(LOOK_EVERY)?;
        }
    }
}

/// How often the folder is looked at.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
