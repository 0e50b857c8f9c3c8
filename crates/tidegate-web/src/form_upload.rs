//! `FormUploads`: forms whose files go to a directory as they come.
//!
//! Invariant: a file of a form has no name until the program has seen the whole form and gives it one. Whatever ends a form
//! before, and whatever the program does not name, leaves nothing behind. Of texts no more than their limit is in memory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidegate_http::{FormDataLimits, FormDataParser, FormEvent, FormPart, Status};

use crate::budget::{Budget, Collected};
use crate::form_data::{form_parser, refuse_form};
use crate::{BodySink, FormData, FormField, IntoResponse, Request, Response, Upload, UploadDir};

/// Takes forms with files: texts into memory, files into a directory.
///
/// How large a form may be in all is the route's
/// [`max_body_bytes`](crate::MethodRoutes::max_body_bytes). A file that is under way holds a descriptor.
///
/// ```no_run
/// use tidegate_web::{Redirect, Request, UploadDir, UploadedForm, Web, post, sink};
///
/// let forms = UploadDir::open("/srv/uploads")?.forms().max_files(4).max_file_bytes(64 << 20);
/// let store = sink(move |request: &Request<'_>| {
///     forms.begin(request, |mut form: UploadedForm| {
///         for (number, file) in form.files.iter_mut().enumerate() {
///             let name = file.part().base_name().unwrap_or("unnamed").to_owned();
///             file.save(&format!("{number}-{name}"))?;
///         }
///         Ok::<_, tidegate_web::Response>(Redirect::see_other("/uploads"))
///     })
/// });
/// let web = Web::builder().route("/uploads", post(store).max_body_bytes(256 << 20).blocking());
/// # drop(web);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FormUploads {
    dir: UploadDir,
    max_files: usize,
    max_file_bytes: u64,
    max_text_bytes: usize,
    parser: FormDataLimits,
}

/// A form that has come whole.
#[derive(Debug)]
#[non_exhaustive]
pub struct UploadedForm {
    /// The fields that are no files.
    pub texts: FormData,
    /// The files, in the order of the form. A field for a file that none was chosen for is left out.
    pub files: Vec<UploadedFile>,
}

/// A file of a form, which is on the disk and has no name there. Dropped without [`save`](Self::save) it is gone.
#[derive(Debug)]
pub struct UploadedFile {
    part: FormPart,
    upload: Upload,
    len: u64,
    saved: bool,
}

/// A form that is being received: a [`BodySink`] that `answer` ends.
pub struct FormUpload<F> {
    parser: FormDataParser,
    received: Received,
    answer: F,
}

impl UploadDir {
    /// Takes the files of forms into this directory.
    #[must_use]
    pub fn forms(&self) -> FormUploads {
        FormUploads {
            dir: self.clone(),
            max_files: 10,
            max_file_bytes: u64::MAX,
            max_text_bytes: 64 << 10,
            parser: FormDataLimits::default(),
        }
    }
}

impl FormUploads {
    /// How many files a form may have; more is a 413. Default 10.
    #[must_use]
    pub const fn max_files(mut self, files: usize) -> Self {
        self.max_files = files;
        self
    }

    /// How large each file may be; more is a 413. Default: as large as the form.
    #[must_use]
    pub const fn max_file_bytes(mut self, bytes: u64) -> Self {
        self.max_file_bytes = bytes;
        self
    }

    /// How much may be in memory of a form: what is no file, and the names of all parts; more is a 413. Default 64 KiB. All
    /// forms together take no more than [`WebBuilder::max_collected_bytes`](crate::WebBuilder::max_collected_bytes) for their
    /// texts; beyond it the client is told 503.
    #[must_use]
    pub const fn max_text_bytes(mut self, bytes: usize) -> Self {
        self.max_text_bytes = bytes;
        self
    }

    /// The limits of what stands around the data.
    #[must_use]
    pub const fn limits(mut self, limits: FormDataLimits) -> Self {
        self.parser = limits;
        self
    }

    /// Begins to take the form of a request; `answer` gets it when it is whole. Where this and what follows may block is to be
    /// [`blocking`](crate::MethodRoutes::blocking).
    ///
    /// # Errors
    ///
    /// The answer: 415 for what is no such form, 400 for one without a boundary.
    pub fn begin<F, R>(&self, request: &Request<'_>, answer: F) -> Result<FormUpload<F>, Response>
    where
        F: FnOnce(UploadedForm) -> R + Send,
        R: IntoResponse,
    {
        let parser = form_parser(request, self.parser)?;
        // The builder of the service has put it there.
        let budget = request.state::<Arc<Budget>>().cloned();
        let budget = budget.unwrap_or_else(|| Arc::new(Budget::new(self.max_text_bytes, Duration::MAX)));
        let received = Received {
            to: self.clone(),
            texts: Collected::new(budget),
            text_bytes: 0,
            fields: Vec::new(),
            files: Vec::new(),
            current: None,
            parts: 0,
        };
        Ok(FormUpload { parser, received, answer })
    }
}

impl UploadedFile {
    /// What the client says of it.
    #[must_use]
    pub const fn part(&self) -> &FormPart {
        &self.part
    }

    /// How many bytes it has.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes it to the disk for good and gives it this name in the directory: one name, as [`UploadDir::begin`] takes it.
    /// True when it has taken the place of another. Once.
    ///
    /// # Errors
    ///
    /// The answer: 400 for a name that is none, 409 for one that is taken, 507 when the disk is full. It may be tried with
    /// another name then.
    pub fn save(&mut self, name: &str) -> Result<bool, Response> {
        if self.saved {
            tracing::error!(name, "a file of a form was saved twice");
            return Err(Response::page(Status::INTERNAL_SERVER_ERROR));
        }
        let replaced = self.upload.save_as(name)?;
        self.saved = true;
        Ok(replaced)
    }
}

/// What has come of a form.
struct Received {
    to: FormUploads,
    /// What is no file, one after the other.
    texts: Collected,
    /// What is counted against the limit: the texts and all names.
    text_bytes: usize,
    fields: Vec<Text>,
    files: Vec<UploadedFile>,
    current: Option<Current>,
    parts: usize,
}

/// A field that is no file.
struct Text {
    part: FormPart,
    /// Which part of the form it was, from 1.
    number: usize,
    /// Where it ends among the texts; it begins where the one before it ends.
    end: usize,
}

/// The part that is under way.
enum Current {
    Text(FormPart),
    File(UploadedFile),
    /// A field for a file, without a name. When no data comes, no file was chosen.
    Unnamed(FormPart),
}

impl Received {
    fn begin_part(&mut self, part: FormPart) -> Result<(), Response> {
        self.parts += 1;
        let texts = [Some(part.name()), part.file_name(), part.content_type()];
        self.count(texts.iter().flatten().map(|text| text.len()).sum())?;
        self.current = Some(match part.file_name() {
            None => Current::Text(part),
            Some("") => Current::Unnamed(part),
            Some(_) => Current::File(self.open(part)?),
        });
        Ok(())
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Response> {
        match self.current.take() {
            Some(Current::Text(part)) => {
                self.count(data.len())?;
                if !self.texts.extend(data) {
                    return Err(Response::page(Status::SERVICE_UNAVAILABLE).header("Retry-After", "1"));
                }
                self.current = Some(Current::Text(part));
            }
            Some(Current::Unnamed(part)) => {
                let file = self.open(part)?;
                self.current = Some(Current::File(self.append(file, data)?));
            }
            Some(Current::File(file)) => self.current = Some(Current::File(self.append(file, data)?)),
            None => {}
        }
        Ok(())
    }

    fn end_part(&mut self) {
        match self.current.take() {
            Some(Current::Text(part)) => {
                self.fields.push(Text { part, number: self.parts, end: self.texts.bytes().len() });
            }
            Some(Current::File(file)) => self.files.push(file),
            Some(Current::Unnamed(_)) | None => {}
        }
    }

    fn open(&self, part: FormPart) -> Result<UploadedFile, Response> {
        if self.files.len() == self.to.max_files {
            return Err(too_large(format_args!("more than {} files", self.to.max_files)));
        }
        let upload = self.to.dir.begin_unnamed()?;
        Ok(UploadedFile { part, upload, len: 0, saved: false })
    }

    fn append(&self, mut file: UploadedFile, data: &[u8]) -> Result<UploadedFile, Response> {
        file.len = file.len.saturating_add(data.len() as u64);
        if file.len > self.to.max_file_bytes {
            let (part, max) = (self.parts, self.to.max_file_bytes);
            return Err(too_large(format_args!("the file of part {part} has more than {max} bytes")));
        }
        file.upload.write(data)?;
        Ok(file)
    }

    fn count(&mut self, bytes: usize) -> Result<(), Response> {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
        if self.text_bytes > self.to.max_text_bytes {
            return Err(too_large(format_args!("more than {} bytes besides files", self.to.max_text_bytes)));
        }
        Ok(())
    }

    fn into_form(self) -> Result<UploadedForm, Response> {
        let mut start = 0;
        let fields = self.fields.into_iter().map(|Text { part, number, end }| {
            let text = self.texts.bytes()[start..end].to_vec();
            start = end;
            FormField::new(part, text, number)
        });
        Ok(UploadedForm { texts: FormData::new(fields.collect::<Result<_, _>>()?), files: self.files })
    }
}

impl<F, R> BodySink for FormUpload<F>
where
    F: FnOnce(UploadedForm) -> R + Send,
    R: IntoResponse,
{
    fn write(&mut self, part: &[u8]) -> Result<(), Response> {
        let mut rest = part;
        while !rest.is_empty() {
            let step = self.parser.step(rest).map_err(refuse_form)?;
            match step.event {
                Some(FormEvent::Part(part)) => self.received.begin_part(part)?,
                Some(FormEvent::Data(data)) => self.received.take(data)?,
                Some(FormEvent::PartEnd) => self.received.end_part(),
                Some(FormEvent::End) | None => {}
            }
            rest = &rest[step.consumed..];
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Response {
        let Self { parser, received, answer } = *self;
        match parser.finish().map_err(refuse_form).and_then(|()| received.into_form()) {
            Ok(form) => answer(form).into_response(),
            Err(refusal) => refusal,
        }
    }
}

fn too_large(what: fmt::Arguments<'_>) -> Response {
    Response::new(Status::CONTENT_TOO_LARGE).body(format!("body: {what}\n"))
}

impl<F> fmt::Debug for FormUpload<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FormUpload")
            .field("parts", &self.received.parts)
            .field("files", &self.received.files.len())
            .finish_non_exhaustive()
    }
}
