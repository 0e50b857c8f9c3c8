//! `StaticFile`: a file that is served, in all the forms it has: as it is, compressed beside it, compressed by the server.
//!
//! Invariant: which form a request gets depends on the request and on nothing else, but for one thing: of a large file that
//! is still being compressed the plain form is sent. Each form has an entity tag of its own. What the server compresses has
//! the plain form's tag made weak, since another release may compress to other bytes; so it has no ranges (RFC 9110,
//! section 13.1.5), and a request for a range gets one of the plain form.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tidegate_http::{
    AcceptEncoding, ContentCoding, Method, Precondition, Representation, Status, evaluate_preconditions,
    select_ranges,
};

use super::cache::Cached;
use super::compress::{self, compress};
use super::content::{MAX_INLINE_BYTES, keep, read_unchanged};
use super::content_type::is_compressible;
use super::form::{Facts, Form, Tags};
use super::identity::Identity;
use crate::answer::Answer;
use crate::encoded::Content;
use crate::exchange::Exchange;
use crate::fields::SiteField;
use crate::response::FileSlice;

/// A file with everything that its answers need.
#[derive(Debug)]
pub(crate) struct StaticFile {
    state: State,
    facts: Facts,
    plain: Form,
    /// In the order of [`BESIDE`].
    beside: [Option<Form>; 3],
    /// In the order of [`MADE`].
    made: [Making; 2],
    compressible: bool,
    /// What is added to answers that are written later.
    site_fields: Box<[SiteField]>,
}

/// A file as it was found, and what was found beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) plain: Identity,
    pub(crate) beside: [Option<Identity>; 3],
}

/// A file that was opened, with what was opened beside it.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) state: State,
    pub(crate) plain: OwnedFd,
    pub(crate) beside: [Option<OwnedFd>; 3],
}

/// A form that the server makes itself.
#[derive(Debug, Default)]
struct Making {
    /// `None` inside when it would not be smaller.
    form: OnceLock<Option<Form>>,
    /// Somebody is at it.
    asked: AtomicBool,
}

/// The codings of ready files, with what is behind the name of the file.
pub(crate) const BESIDE: [(ContentCoding, &[u8]); 3] =
    [(ContentCoding::Brotli, b".br"), (ContentCoding::Zstd, b".zst"), (ContentCoding::Gzip, b".gz")];

/// What the server makes itself.
const MADE: [(ContentCoding, compress::Method); 2] =
    [(ContentCoding::Brotli, compress::Method::Brotli), (ContentCoding::Gzip, compress::Method::Gzip)];

/// What is to be done before the best form can be sent.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answer(Answer),
    /// This one, but others could have a better one when the coding with this number has been [made](StaticFile::make).
    Meanwhile(Answer, usize),
}

/// The form that a request gets.
enum Choice<'a> {
    Form(&'a Form),
    /// What the server has to make first; and whether the client takes the plain form instead.
    Make {
        place: usize,
        plain_will_do: bool,
    },
}

impl Cached for StaticFile {
    type State = State;

    fn state(&self) -> &State {
        &self.state
    }

    fn weight(&self) -> usize {
        let beside = self.beside.iter().flatten().map(Form::weight);
        let made = self.made.iter().filter_map(|making| making.form.get()?.as_ref()).map(Form::weight_made);
        size_of::<Self>() + self.plain.weight() + beside.chain(made).sum::<usize>()
    }
}

/// How a file is to be served.
#[derive(Debug)]
pub(crate) struct Manner<'a> {
    pub(crate) content_type: String,
    pub(crate) cache_control: Option<String>,
    pub(crate) compress: bool,
    pub(crate) site_fields: &'a [SiteField],
    /// The wall clock.
    pub(crate) now: u64,
}

impl StaticFile {
    /// Prepares the answers for open files.
    pub(crate) fn new(found: Found, manner: Manner<'_>) -> io::Result<Self> {
        let Found { state, plain, beside } = found;
        let compressible = manner.compress
            && (compress::MIN_BYTES..=compress::MAX_BYTES).contains(&state.plain.size)
            && is_compressible(&manner.content_type);
        let facts = Facts {
            content_type: manner.content_type,
            cache_control: manner.cache_control,
            negotiated: compressible || state.beside.iter().any(Option::is_some),
        };
        let form = |coding, fd: OwnedFd, identity: &Identity| {
            let last_modified = identity.modified(manner.now);
            let tags = Tags { coding, etag: identity.etag(), last_modified };
            read_form(tags, &facts, manner.site_fields, fd, identity)
        };
        let plain = form(ContentCoding::Identity, plain, &state.plain)?;
        let mut forms = [None, None, None];
        for (place, fd) in beside.into_iter().enumerate() {
            if let (Some(fd), Some(identity)) = (fd, &state.beside[place]) {
                forms[place] = Some(form(BESIDE[place].0, fd, identity)?);
            }
        }
        let site_fields = if compressible { manner.site_fields.into() } else { Box::default() };
        Ok(Self { state, facts, plain, beside: forms, made: Default::default(), compressible, site_fields })
    }

    /// The answer to a request that says nothing which would have to be looked at; nearly all are of this kind.
    #[inline]
    pub(crate) fn simple(&self, exchange: &Exchange<'_>) -> Option<Answer> {
        let head = exchange.head;
        let simple = !head.is_conditional() && !head.has_range() && !head.has_accept_encoding();
        simple.then(|| self.plain.whole())
    }

    /// Decides what answers a `GET` or `HEAD`.
    pub(crate) fn answer(&self, exchange: &Exchange<'_>, max_ranges: usize) -> Outcome {
        let Some(choice) = self.choose(exchange) else {
            return Outcome::Answer(exchange.site.error(Status::NOT_ACCEPTABLE).into());
        };
        let made;
        let tags = match &choice {
            Choice::Form(form) => &form.tags,
            Choice::Make { place, .. } => {
                made = self.tags_of_made(*place);
                &made
            }
        };
        if exchange.head.is_conditional() {
            let fields = exchange.head.fields(exchange.bytes);
            match evaluate_preconditions(exchange.method(), &fields, &tags.validators()) {
                Precondition::Proceed => {}
                Precondition::NotModified => return Outcome::Answer(tags.not_modified(&self.facts)),
                Precondition::Failed => {
                    return Outcome::Answer(exchange.site.error(Status::PRECONDITION_FAILED).into());
                }
            }
        }
        match choice {
            Choice::Form(form) => Outcome::Answer(self.answer_form(form, exchange, max_ranges)),
            Choice::Make { place, plain_will_do: true } => Outcome::Meanwhile(self.plain.whole(), place),
            Choice::Make { place, plain_will_do: false } => {
                let later = exchange.site.error(Status::SERVICE_UNAVAILABLE).header("Retry-After", "1");
                Outcome::Meanwhile(later.into(), place)
            }
        }
    }

    fn answer_form(&self, form: &Form, exchange: &Exchange<'_>, max_ranges: usize) -> Answer {
        if !exchange.head.has_range() || max_ranges == 0 {
            return form.whole();
        }
        let representation = Representation {
            size: form.content().len(),
            validators: form.tags.validators(),
            unix_time: exchange.unix_time,
        };
        let fields = exchange.head.fields(exchange.bytes);
        let ranges = select_ranges(exchange.method(), &fields, &representation, max_ranges);
        form.select(&ranges, &self.facts, exchange)
    }

    /// The form that the client likes best; `None` when it takes none of them.
    fn choose(&self, exchange: &Exchange<'_>) -> Option<Choice<'_>> {
        if !exchange.head.has_accept_encoding() {
            return Some(Choice::Form(&self.plain));
        }
        let fields = exchange.head.fields(exchange.bytes);
        // Only a weight can refuse the one form there is.
        if !self.facts.negotiated
            && !fields.clone().named("accept-encoding").any(|value| value.contains(&b';'))
        {
            return Some(Choice::Form(&self.plain));
        }
        let accepted = AcceptEncoding::parse(&fields);
        let makes = self.compressible && !(exchange.head.has_range() && exchange.method() == Method::Get);
        let offered = self.offered(makes);
        let best = accepted.best(offered.as_slice())?;
        let beside = BESIDE.iter().position(|(coding, _)| *coding == best);
        if let Some(form) = beside.and_then(|place| self.beside[place].as_ref()) {
            return Some(Choice::Form(form));
        }
        let Some(place) = MADE.iter().position(|(coding, _)| *coding == best) else {
            return Some(Choice::Form(&self.plain));
        };
        let plain_will_do = accepted.accepts(ContentCoding::Identity);
        Some(match self.made[place].form.get() {
            Some(Some(form)) => Choice::Form(form),
            Some(None) => Choice::Form(&self.plain),
            None => Choice::Make { place, plain_will_do },
        })
    }

    /// The codings that there are or can be made, the smallest first.
    fn offered(&self, makes: bool) -> Offered {
        let made = |place: usize| makes && !matches!(self.made[place].form.get(), Some(None));
        let mut offered = Offered { codings: [ContentCoding::Identity; 4], len: 0 };
        for (place, (coding, _)) in BESIDE.iter().enumerate() {
            let can_be_made = MADE.iter().position(|(made, _)| made == coding).is_some_and(made);
            if self.beside[place].is_some() || can_be_made {
                offered.push(*coding);
            }
        }
        offered.push(ContentCoding::Identity);
        offered
    }

    fn tags_of_made(&self, place: usize) -> Tags {
        let Tags { etag, last_modified, .. } = &self.plain.tags;
        Tags { coding: MADE[place].0, etag: format!("W/{etag}"), last_modified: *last_modified }
    }

    /// Whether it is so small that it can be compressed between two requests.
    pub(crate) fn is_small(&self) -> bool {
        self.state.plain.size <= MAX_INLINE_BYTES
    }

    /// Whether nobody has asked for this coding to be made before, so that it is done once.
    pub(crate) fn ask(&self, place: usize) -> bool {
        !self.made[place].asked.swap(true, Ordering::Relaxed)
    }

    /// What was asked for is not going to be made now; another may ask again.
    pub(crate) fn ask_again(&self, place: usize) {
        self.made[place].asked.store(false, Ordering::Relaxed);
    }

    /// Compresses the file. `Ok` when that is done, whether it was worth it or not; also by another thread.
    pub(crate) fn make(&self, place: usize) -> io::Result<()> {
        let (coding, method) = MADE[place];
        debug_assert!(self.compressible, "only what is compressible is offered in {}", coding.name());
        let compressed = match self.plain.content() {
            Content::Inline(bytes) => compress(method, bytes)?,
            Content::File(slice) => compress(method, &read_unchanged(&slice.file, &self.state.plain)?)?,
        };
        let form = match &compressed {
            None => None,
            Some(bytes) => {
                let tags = self.tags_of_made(place);
                Some(Form::new(tags, &self.facts, &self.site_fields, keep(bytes)))
            }
        };
        // Two threads that were at it have made the same.
        self.made[place].form.set(form).ok();
        Ok(())
    }
}

/// At most four codings; a request does not allocate to look at them.
struct Offered {
    codings: [ContentCoding; 4],
    len: usize,
}

impl Offered {
    fn push(&mut self, coding: ContentCoding) {
        self.codings[self.len] = coding;
        self.len += 1;
    }

    fn as_slice(&self) -> &[ContentCoding] {
        &self.codings[..self.len]
    }
}

fn read_form(
    tags: Tags,
    facts: &Facts,
    site: &[SiteField],
    fd: OwnedFd,
    identity: &Identity,
) -> io::Result<Form> {
    if identity.size > MAX_INLINE_BYTES {
        let slice = FileSlice { file: Arc::new(fd), offset: 0, len: identity.size };
        return Ok(Form::new(tags, facts, site, Content::File(slice)));
    }
    let bytes = read_unchanged(&fd, identity)?;
    Ok(Form::new(tags, facts, site, Content::Inline(&bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::fstat;
    use std::fs::File;
    use std::path::Path;

    fn open(path: &Path) -> StaticFile {
        let fd = OwnedFd::from(File::open(path).unwrap());
        let plain = Identity::of(&fstat(&fd).unwrap());
        let state = State { plain, beside: [None; 3] };
        let manner = Manner {
            content_type: "text/plain".to_owned(),
            cache_control: None,
            compress: true,
            site_fields: &[],
            now: 1_800_000_000,
        };
        StaticFile::new(Found { state, plain: fd, beside: [None, None, None] }, manner).unwrap()
    }

    /// Text of which a quarter is left when it is compressed.
    fn digits(len: usize) -> String {
        (0u32..)
            .flat_map(|n| format!("{:032b}", n.wrapping_mul(2_654_435_761)).into_bytes())
            .map(char::from)
            .take(len)
            .collect()
    }

    #[test]
    fn what_is_compressed_counts_as_memory_also_where_it_is_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (size, apart) in [(10_000, false), (400_000, true)] {
            std::fs::write(file.path(), digits(size)).unwrap();
            let file = open(file.path());
            for place in 0..MADE.len() {
                let before = file.weight();
                file.make(place).unwrap();
                let Some(Some(form)) = file.made[place].form.get() else { panic!("it gets smaller") };
                let len = usize::try_from(form.content().len()).unwrap();
                assert_eq!(matches!(form.content(), Content::File(_)), apart, "{len}");
                assert!((before + len..before + len + 1000).contains(&file.weight()), "{len}");
                // Again is not twice.
                let once = file.weight();
                file.make(place).unwrap();
                assert_eq!(file.weight(), once);
            }
        }
    }

    #[test]
    fn a_large_file_that_changed_is_not_compressed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), digits(50_000)).unwrap();
        let opened = open(file.path());
        std::fs::write(file.path(), digits(49_999)).unwrap();
        assert_eq!(opened.make(0).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert!(opened.made[0].form.get().is_none());
        assert!(opened.ask(0) && !opened.ask(0));
        opened.ask_again(0);
        assert!(opened.ask(0));
    }
}
