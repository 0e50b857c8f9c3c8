//! Finding and reading the file.
//!
//! Invariant: nothing is read beyond `MAX_FILE_BYTES`, and a file that is not text is refused before it is
//! parsed.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::error::{ConfigError, Problem};
use super::origin::{FileText, Origin, Place, Source};

/// Reads the file given, or else the one in the current folder if there is one.
pub(crate) fn read(
    given: Option<&Path>,
    current_dir: Option<&Path>,
) -> Result<Option<FileText>, Box<ConfigError>> {
    let name = given.unwrap_or(Path::new(DEFAULT_FILE));
    let path = current_dir.map_or_else(|| name.to_owned(), |current_dir| current_dir.join(name));
    let shown = name.display().to_string();
    let error = |text: String| Box::new(ConfigError::new(whole(&shown), "", Problem::plain(text)));

    // It is handed to other processes and shown to people, as text.
    if name.to_str().is_none() {
        return Err(error("the path is not UTF-8".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = match File::open(&path) {
        Err(missing) if missing.kind() == ErrorKind::NotFound && given.is_none() => return Ok(None),
        other => other.map_err(|source| error(format!("cannot be opened: {source}")))?,
    };
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| error(format!("cannot be read: {source}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(error(format!("more than {MAX_FILE_BYTES} bytes")));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(FileText::new(shown, text))),
        Err(invalid) => {
            let offset = invalid.utf8_error().valid_up_to();
            let text = FileText::new(shown, String::from_utf8_lossy(invalid.as_bytes()).into_owned());
            let place = Source::File(&text).place(offset..offset + 1);
            Err(Box::new(ConfigError::new(place, "", Problem::plain("not UTF-8".to_owned()))))
        }
    }
}

/// The file as a whole.
fn whole(path: &str) -> Place {
    Place { origin: Origin::File { path: path.to_owned(), line: 0, column: 0 }, excerpt: None }
}

/// The file that is taken when it is there and none is given.
pub(crate) const DEFAULT_FILE: &str = "tidegate.toml";

/// More than anyone writes; what is larger is another file by mistake.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
