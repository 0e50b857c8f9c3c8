//! A listing as a page for people, or as JSON for programs.
//!
//! Invariant: no byte of a name gets into the markup or the JSON but escaped. Names that are not UTF-8 are shown as well as
//! they can be; the links to them are right.

use std::fmt::Write;

use percent_encoding::percent_encode;
use tidegate_http::format_http_date;

use super::listing::{Entry, Kind, Listing, MAX_ENTRIES};
use super::uri::SEGMENT;

/// How a listing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Html,
    Json,
}

impl Format {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }

    /// Writes the listing of the directory with this path: empty, or with a slash at its end.
    pub(crate) fn write(self, listing: &Listing, path: &[u8]) -> String {
        match self {
            Self::Html => html(listing, path),
            Self::Json => json(listing),
        }
    }
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:1em auto;padding:0 1em;max-width:60em}\
    table{border-collapse:collapse;width:100%}td,th{padding:.2em .8em .2em 0;text-align:left;overflow-wrap:anywhere}\
    td:nth-child(2),th:nth-child(2){text-align:right;white-space:nowrap}td:nth-child(3){white-space:nowrap}\
    @media(max-width:40em){td:nth-child(3),th:nth-child(3){display:none}}";

fn html(listing: &Listing, path: &[u8]) -> String {
    let title = Html(&String::from_utf8_lossy(path)).to_string();
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>/{title}</title>\n<style>{STYLE}</style>\n<h1>/{title}</h1>\n\
         <table>\n<tr><th>Name<th>Bytes<th>Modified\n"
    );
    if !path.is_empty() {
        out.push_str("<tr><td><a href=\"../\">../</a><td><td>\n");
    }
    for Entry { kind, name, size, modified } in &listing.entries {
        let slash = if *kind == Kind::Directory { "/" } else { "" };
        let size = if *kind == Kind::File { size.to_string() } else { String::new() };
        let date = format_http_date(*modified);
        let date = std::str::from_utf8(&date).unwrap_or_default();
        let (href, text) = (percent_encode(name, SEGMENT), String::from_utf8_lossy(name));
        // Relative to the directory; the dot keeps a colon in a name from being taken for the end of a scheme.
        writeln!(out, "<tr><td><a href=\"./{href}{slash}\">{}{slash}</a><td>{size}<td>{date}", Html(&text))
            .expect("a String takes everything");
    }
    out.push_str("</table>\n");
    if listing.truncated {
        writeln!(out, "<p>There are more than {MAX_ENTRIES} names; these are some of them.</p>")
            .expect("a String takes everything");
    }
    out
}

fn json(listing: &Listing) -> String {
    let mut out = String::from("{\"entries\":[");
    for (at, Entry { kind, name, size, modified }) in listing.entries.iter().enumerate() {
        let separator = if at == 0 { "" } else { "," };
        let (kind, slash) = match kind {
            Kind::Directory => ("directory", "/"),
            Kind::File => ("file", ""),
        };
        let text = String::from_utf8_lossy(name);
        let href = percent_encode(name, SEGMENT);
        write!(
            out,
            "{separator}\n{{\"name\":{},\"type\":\"{kind}\",\"href\":\"./{href}{slash}\"",
            serde_json::Value::from(text.as_ref())
        )
        .expect("a String takes everything");
        if kind == "file" {
            write!(out, ",\"size\":{size}").expect("a String takes everything");
        }
        write!(out, ",\"modified\":{modified}}}").expect("a String takes everything");
    }
    writeln!(out, "\n],\"truncated\":{}}}", listing.truncated).expect("a String takes everything");
    out
}

/// Text in a page.
struct Html<'a>(&'a str);

impl std::fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing() -> Listing {
        let file =
            |name: &[u8], size| Entry { kind: Kind::File, name: name.to_vec(), size, modified: 784_111_777 };
        let directory = Entry { kind: Kind::Directory, name: b"d d".to_vec(), size: 0, modified: 0 };
        let entries = vec![
            directory,
            file(b"<b>\"&'", 5),
            file(b"\xff", 0),
            file("ä:b?c#d%".as_bytes(), 1),
            file(b"a\nb\\", 2),
        ];
        Listing { entries, truncated: true }
    }

    #[test]
    fn a_page_escapes_names_and_links_to_them() {
        let page = Format::Html.write(&listing(), b"<i>/");
        for part in [
            "<title>/&lt;i&gt;/</title>",
            "<a href=\"../\">",
            "<a href=\"./d%20d/\">d d/</a><td><td>Thu, 01 Jan 1970",
            "<a href=\"./%3Cb%3E%22%26%27\">&lt;b&gt;&quot;&amp;&#39;</a><td>5<td>Sun, 06 Nov 1994 08:49:37 GMT\n",
            "<a href=\"./%FF\">\u{fffd}</a>",
            "<a href=\"./%C3%A4:b%3Fc%23d%25\">ä:b?c#d%</a>",
            "more than 2048",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains("<i>") && !page.contains("<b>"));
        let root = Format::Html.write(&Listing::default(), b"");
        assert!(root.contains("<title>/</title>") && !root.contains("../") && !root.contains("more than"));
    }

    #[test]
    fn json_is_json() {
        let value: serde_json::Value = serde_json::from_str(&Format::Json.write(&listing(), b"a/")).unwrap();
        assert_eq!(value["truncated"], true);
        assert_eq!(value["entries"].as_array().unwrap().len(), 5);
        assert_eq!(
            value["entries"][1],
            serde_json::json!({
                "name": "<b>\"&'", "type": "file", "href": "./%3Cb%3E%22%26%27", "size": 5, "modified": 784_111_777
            })
        );
        assert_eq!(value["entries"][0]["type"], "directory");
        assert_eq!(value["entries"][4]["name"], "a\nb\\");
        let empty: serde_json::Value =
            serde_json::from_str(&Format::Json.write(&Listing::default(), b"")).unwrap();
        assert_eq!(empty, serde_json::json!({ "entries": [], "truncated": false }));
    }
}
