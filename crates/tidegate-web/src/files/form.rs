//! `Form`: a file in one content coding, ready to be answered: whole, in part, or by saying that the client has it.
//!
//! Invariant: head and body belong together. Small content is in memory behind its head, large content is a descriptor that
//! the kernel copies from; either is one state of one file.

use std::sync::Arc;

use tidegate_http::{
    ByteRange, ContentCoding, EntityTag, Multipart, Ranges, Status, Validators, content_range,
    format_http_date, unsatisfied_range,
};

use crate::answer::Answer;
use crate::encoded::{Content, Encoded};
use crate::exchange::Exchange;
use crate::fields::{SiteField, with_site};
use crate::response::{FileSlice, Part};
use crate::{Body, Response};

/// What all forms of a file have in common.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) content_type: String,
    pub(crate) cache_control: Option<String>,
    /// Whether the form depends on `Accept-Encoding`.
    pub(crate) negotiated: bool,
}

/// What identifies a form to a client.
#[derive(Clone, Debug)]
pub(crate) struct Tags {
    pub(crate) coding: ContentCoding,
    pub(crate) etag: String,
    /// Seconds since 1970; none for a file from before then.
    pub(crate) last_modified: Option<u64>,
}

/// A file in one coding.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) tags: Tags,
    answer: Arc<Encoded>,
}

type Field = (&'static str, String);

impl Tags {
    pub(crate) fn validators(&self) -> Validators<'_> {
        Validators { etag: EntityTag::parse(self.etag.as_bytes()), last_modified: self.last_modified }
    }

    /// The fields of a 200 or 206 but for `Content-Type`.
    fn fields(&self, facts: &Facts) -> Vec<Field> {
        let mut fields = self.lasting_fields(facts);
        if self.coding != ContentCoding::Identity {
            fields.push(("Content-Encoding", self.coding.name().to_owned()));
        }
        fields
    }

    /// The fields that a 304 has too (RFC 9110, section 15.4.5).
    fn lasting_fields(&self, facts: &Facts) -> Vec<Field> {
        let mut fields = vec![("ETag", self.etag.clone())];
        if let Some(seconds) = self.last_modified {
            let text = format_http_date(seconds).iter().map(|&b| char::from(b)).collect();
            fields.push(("Last-Modified", text));
        }
        if let Some(value) = &facts.cache_control {
            fields.push(("Cache-Control", value.clone()));
        }
        if facts.negotiated {
            fields.push(("Vary", "Accept-Encoding".to_owned()));
        }
        fields
    }

    /// Says that the client has it.
    pub(crate) fn not_modified(&self, facts: &Facts) -> Answer {
        with(Response::new(Status::NOT_MODIFIED), self.lasting_fields(facts)).into()
    }
}

impl Form {
    /// Writes the answer for the whole of it, with the fields of its site.
    pub(crate) fn new(tags: Tags, facts: &Facts, site: &[SiteField], content: Content<'_>) -> Self {
        let mut fields = vec![("Content-Type", facts.content_type.as_str())];
        let own = tags.fields(facts);
        fields.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
        // Ranges of what is compressed here are not served: see `StaticFile::offered`.
        if !tags.etag.starts_with("W/") {
            fields.push(("Accept-Ranges", "bytes"));
        }
        let answer = Arc::new(Encoded::new(Status::OK, &with_site(fields, site), content));
        Self { tags, answer }
    }

    /// The content as it is kept.
    pub(crate) fn content(&self) -> Content<'_> {
        self.answer.content()
    }

    /// How much memory it takes, in bytes, when its content is a file only in memory.
    pub(crate) fn weight_made(&self) -> usize {
        let content = match self.content() {
            Content::Inline(_) => 0,
            Content::File(slice) => usize::try_from(slice.len).unwrap_or(usize::MAX),
        };
        self.weight() + content
    }

    /// How much memory it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.answer.weight() + self.tags.etag.len()
    }

    /// All of it.
    #[inline]
    pub(crate) fn whole(&self) -> Answer {
        Answer::Encoded(Arc::clone(&self.answer))
    }

    /// What the ranges ask for.
    pub(crate) fn select(&self, ranges: &Ranges, facts: &Facts, exchange: &Exchange<'_>) -> Answer {
        let size = self.content().len();
        match ranges {
            Ranges::Whole => self.whole(),
            Ranges::Single(range) => {
                let body = match self.part(*range) {
                    Part::Bytes(bytes) => Body::from(bytes),
                    Part::File(slice) => Body::File(slice),
                };
                let response = Response::new(Status::PARTIAL_CONTENT)
                    .header("Content-Type", facts.content_type.clone())
                    .header("Content-Range", content_range(*range, size))
                    .body(body);
                with(response, self.tags.fields(facts)).into()
            }
            Ranges::Several(ranges) => {
                let multipart = Multipart::new(ranges, size, &facts.content_type, nonce());
                let mut parts = Vec::with_capacity(2 * ranges.len() + 1);
                for (head, range) in multipart.parts() {
                    parts.push(Part::Bytes(head.as_bytes().to_vec()));
                    parts.push(self.part(range));
                }
                parts.push(Part::Bytes(multipart.end().as_bytes().to_vec()));
                let response = Response::new(Status::PARTIAL_CONTENT)
                    .header("Content-Type", multipart.content_type())
                    .body(Body::Parts(parts));
                with(response, self.tags.fields(facts)).into()
            }
            Ranges::Unsatisfiable => exchange
                .site
                .error(Status::RANGE_NOT_SATISFIABLE)
                .header("Content-Range", unsatisfied_range(size))
                .into(),
        }
    }

    /// A range lies within the content.
    fn part(&self, range: ByteRange) -> Part {
        match self.content() {
            // What is in memory is small.
            Content::Inline(bytes) => {
                let start = usize::try_from(range.first()).unwrap_or(usize::MAX).min(bytes.len());
                let len = usize::try_from(range.len()).unwrap_or(usize::MAX).min(bytes.len() - start);
                Part::Bytes(bytes[start..start + len].to_vec())
            }
            Content::File(FileSlice { file, offset, .. }) => {
                Part::File(FileSlice { file, offset: offset + range.first(), len: range.len() })
            }
        }
    }
}

fn with(response: Response, fields: Vec<Field>) -> Response {
    fields.into_iter().fold(response, |response, (name, value)| response.header(name, value))
}

/// A number that nobody can foresee, so that no file can hold the boundary made from it: hashes with keys that the standard
/// library draws from the kernel.
fn nonce() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    let half = || u128::from(RandomState::new().hash_one(0));
    half() << 64 | half()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_differ() {
        assert_ne!(nonce(), nonce());
    }
}
