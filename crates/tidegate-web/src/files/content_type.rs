//! The media type of a file, by its name, and whether content of that type gets smaller when it is compressed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// By the name's extension. Text is taken to be UTF-8, which a browser would not guess.
pub(crate) fn content_type(name: &[u8]) -> String {
    match mime_guess::from_path(Path::new(OsStr::from_bytes(name))).first_raw() {
        Some(text) if text.starts_with("text/") => format!("{text}; charset=utf-8"),
        Some(other) => other.to_owned(),
        None => "application/octet-stream".to_owned(),
    }
}

/// Whether it is text in some form, or one of the binary formats that leave compression to others.
pub(crate) fn is_compressible(content_type: &str) -> bool {
    let essence = content_type.split_once(';').map_or(content_type, |(essence, _)| essence);
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || COMPRESSIBLE.contains(&essence)
}

/// Besides the families.
const COMPRESSIBLE: [&str; 16] = [
    "application/javascript",
    "application/json",
    "application/json5",
    "application/rtf",
    "application/sql",
    "application/toml",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/x-sh",
    "application/x-yaml",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_follow_the_extension_and_text_is_utf_8() {
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a.CSS", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.png", "image/png"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("a", "application/octet-stream"),
            ("a.unheard-of", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(content_type(b"dir.d/\xff.txt"), "text/plain; charset=utf-8");
    }

    #[test]
    fn text_is_compressed_and_what_is_compressed_is_not() {
        for name in [
            "a.html",
            "a.css",
            "a.js",
            "a.mjs",
            "a.json",
            "a.svg",
            "a.xml",
            "a.wasm",
            "a.ttf",
            "a.webmanifest",
            "a.txt",
            "a.md",
        ] {
            assert!(is_compressible(&content_type(name.as_bytes())), "{name}");
        }
        for name in ["a.png", "a.jpg", "a.woff2", "a.zip", "a.gz", "a.mp4", "a.pdf", "a"] {
            assert!(!is_compressible(&content_type(name.as_bytes())), "{name}");
        }
    }
}
