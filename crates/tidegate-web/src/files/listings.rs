//! `Listings`: the listings that were asked for lately, as answers.
//!
//! Invariant: a directory is read at most once a second, however often it is asked for, as long as no more than
//! [`KEPT`] are asked for in turn. So a flood of requests for one does not occupy the loop.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tidegate_http::{Accept, Fields, Status};

use super::listing::Listing;
use super::listing_page::Format;
use super::root::{OpenError, Root};
use crate::answer::Answer;
use crate::encoded::{Content, Encoded};
use crate::exchange::Exchange;
use crate::fields::with_site;

/// A few listings, each good for the second in which it was made.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    kept: Vec<Kept>,
    /// The one that is replaced next.
    next: usize,
}

#[derive(Debug)]
struct Kept {
    path: Box<[u8]>,
    format: Format,
    second: u64,
    answer: Arc<Encoded>,
}

/// How many are kept; one has at most a megabyte and a half, with the longest names there can be.
const KEPT: usize = 8;

impl Listings {
    pub(crate) fn answer(
        &mut self,
        root: &Root,
        exchange: &Exchange<'_>,
        path: &[u8],
        directory: &OwnedFd,
    ) -> Result<Answer, OpenError> {
        let format = format_of(&exchange.head.fields(exchange.bytes));
        let second = exchange.unix_time;
        let fresh = |kept: &&Kept| kept.second == second && kept.format == format && *kept.path == *path;
        if let Some(kept) = self.kept.iter().find(fresh) {
            return Ok(Answer::Encoded(Arc::clone(&kept.answer)));
        }
        let listing = Listing::read(root, directory, path)?;
        let body = format.write(&listing, path);
        let own =
            [("Content-Type", format.content_type()), ("Cache-Control", "no-cache"), ("Vary", "Accept")];
        let fields = with_site(own.to_vec(), &exchange.site.fields);
        let answer = Arc::new(Encoded::new(Status::OK, &fields, Content::Inline(body.as_bytes())));
        self.keep(Kept { path: path.into(), format, second, answer: Arc::clone(&answer) });
        Ok(Answer::Encoded(answer))
    }

    fn keep(&mut self, kept: Kept) {
        if self.kept.len() < KEPT {
            return self.kept.push(kept);
        }
        self.kept[self.next] = kept;
        self.next = (self.next + 1) % KEPT;
    }
}

/// JSON for who likes it better than HTML; who likes neither gets HTML all the same (RFC 9110, section 12.5.1).
fn format_of(fields: &Fields<'_>) -> Format {
    let [html, json] = ["text/html", "application/json"];
    if Accept::parse(fields).best(&[html, json]) == Some(json) { Format::Json } else { Format::Html }
}
