//! `Listings`: the listings that were asked for lately, as answers.
//!
//! Invariant: a directory is read at most once a second, however often it is asked for, as long as those that are asked for
//! in a second are no more than [`MAX_KEPT`], with no more than [`MAX_KEPT_BYTES`] of answers. So a flood of requests for them
//! does not occupy the loop. Beyond that, each request reads its directory; no more than that is ever kept.

use std::collections::VecDeque;
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
    /// The oldest first.
    kept: VecDeque<Kept>,
    /// What the answers weigh together.
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    path: Box<[u8]>,
    format: Format,
    second: u64,
    answer: Arc<Encoded>,
}

/// How many are kept: as many as are looked through for each request.
const MAX_KEPT: usize = 64;
/// How many bytes they have together. One has at most a megabyte and a half, with the longest names there can be; of 2048 names
/// of the usual length, a quarter of one.
const MAX_KEPT_BYTES: usize = 8 << 20;

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

    /// Makes room and keeps it. What is of another second is good for nobody.
    fn keep(&mut self, kept: Kept) {
        let (second, bytes) = (kept.second, kept.answer.weight());
        while let Some(oldest) = self.kept.front()
            && (oldest.second != second
                || self.kept.len() >= MAX_KEPT
                || self.bytes.saturating_add(bytes) > MAX_KEPT_BYTES)
        {
            self.bytes -= oldest.answer.weight();
            self.kept.pop_front();
        }
        if bytes <= MAX_KEPT_BYTES {
            self.bytes += bytes;
            self.kept.push_back(kept);
        }
    }
}

/// JSON for who likes it better than HTML; who likes neither gets HTML all the same (RFC 9110, section 12.5.1).
fn format_of(fields: &Fields<'_>) -> Format {
    let [html, json] = ["text/html", "application/json"];
    if Accept::parse(fields).best(&[html, json]) == Some(json) { Format::Json } else { Format::Html }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(listings: &mut Listings, path: usize, second: u64, len: usize) {
        let answer = Encoded::new(Status::OK, &[], Content::Inline(&vec![b'x'; len]));
        let path = path.to_string().into_bytes().into();
        listings.keep(Kept { path, format: Format::Html, second, answer: Arc::new(answer) });
    }

    #[track_caller]
    fn check(listings: &Listings, paths: std::ops::Range<usize>) {
        let found: Vec<_> = listings.kept.iter().map(|kept| String::from_utf8_lossy(&kept.path)).collect();
        assert_eq!(found, paths.map(|path| path.to_string()).collect::<Vec<_>>());
        assert_eq!(listings.bytes, listings.kept.iter().map(|kept| kept.answer.weight()).sum::<usize>());
        assert!(listings.bytes <= MAX_KEPT_BYTES);
    }

    #[test]
    fn the_newest_are_kept_up_to_their_number_and_their_bytes() {
        let mut listings = Listings::default();
        for n in 0..MAX_KEPT + 2 {
            keep(&mut listings, n, 7, 1000);
        }
        check(&listings, 2..MAX_KEPT + 2);
        let mut listings = Listings::default();
        for n in 0..9 {
            keep(&mut listings, n, 7, 1 << 20);
        }
        check(&listings, 2..9);
        keep(&mut listings, 9, 7, MAX_KEPT_BYTES / 2);
        check(&listings, 6..10);
        keep(&mut listings, 10, 7, MAX_KEPT_BYTES);
        check(&listings, 0..0);
    }

    #[test]
    fn a_new_second_ends_what_was_kept() {
        let mut listings = Listings::default();
        for (n, second) in [7, 7, 8].into_iter().enumerate() {
            keep(&mut listings, n, second, 1000);
        }
        check(&listings, 2..3);
        // A clock that is set back is another second, too.
        keep(&mut listings, 3, 7, 1000);
        check(&listings, 3..4);
    }
}
