//! `FormData`: a form that may have files, `multipart/form-data`, all of it in memory.
//!
//! Invariant: what is no file is text. The body is as large as the route allows and no larger; for files that are to go to a
//! disk, or that no memory holds, there is [`FormUploads`](crate::FormUploads).

use tidegate_http::{FormDataError, FormDataLimits, FormDataParser, FormEvent, FormPart, Status};

use crate::extract::unsupported;
use crate::{FromRequest, Request, Response};

/// A form as browsers send it with `enctype="multipart/form-data"`, as an argument of a handler.
///
/// Another type of body is answered with 415, a malformed one with 400, and one with more parts, longer names or longer heads
/// than [`FormDataLimits`] has by default with 413.
///
/// ```
/// use tidegate_web::{FormData, Status, Web, post};
///
/// fn attach(mut form: FormData) -> Result<String, Status> {
///     let file = form.take_file("attachment").ok_or(Status::UNPROCESSABLE_CONTENT)?;
///     let name = file.part().base_name().unwrap_or("attachment").to_owned();
///     let content: Vec<u8> = file.into_data();
///     Ok(format!("{name}: {} bytes\n", content.len()))
/// }
///
/// let web = Web::builder().route("/attachments", post(attach).max_body_bytes(64 << 10));
/// # drop(web.build());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FormData {
    fields: Vec<FormField>,
}

/// A field of a form: a text, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormField {
    part: FormPart,
    data: Vec<u8>,
}

impl FormData {
    pub(crate) const fn new(fields: Vec<FormField>) -> Self {
        Self { fields }
    }

    /// All fields, in the order of the form.
    #[must_use]
    pub fn fields(&self) -> &[FormField] {
        &self.fields
    }

    /// The same, to keep them.
    #[must_use]
    pub fn into_fields(self) -> Vec<FormField> {
        self.fields
    }

    /// The first text of this name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.named(name).find_map(FormField::text)
    }

    /// The first file of this name. A field for a file that none was chosen for counts as absent.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&FormField> {
        self.named(name).find(|field| field.is_chosen_file())
    }

    /// Takes the first file of this name out of the form.
    pub fn take_file(&mut self, name: &str) -> Option<FormField> {
        let is_wanted = |field: &FormField| field.part.name() == name && field.is_chosen_file();
        let at = self.fields.iter().position(is_wanted)?;
        Some(self.fields.remove(at))
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &FormField> {
        self.fields.iter().filter(move |field| field.part.name() == name)
    }
}

impl FormField {
    /// # Errors
    ///
    /// The answer to a text that is none. `number` is that of the part, from 1.
    pub(crate) fn new(part: FormPart, data: Vec<u8>, number: usize) -> Result<Self, Response> {
        if part.file_name().is_none() && str::from_utf8(&data).is_err() {
            let text = format!("body: part {number} is neither a file nor UTF-8\n");
            return Err(Response::new(Status::BAD_REQUEST).body(text));
        }
        Ok(Self { part, data })
    }

    /// What the client says of it.
    #[must_use]
    pub const fn part(&self) -> &FormPart {
        &self.part
    }

    /// What it holds.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The same, to keep it.
    #[must_use]
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// What it holds, unless it is a file.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        if self.part.file_name().is_some() { None } else { str::from_utf8(&self.data).ok() }
    }

    fn is_chosen_file(&self) -> bool {
        self.part.file_name().is_some_and(|name| !(name.is_empty() && self.data.is_empty()))
    }
}

impl FromRequest for FormData {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        let mut parser = form_parser(request, FormDataLimits::default())?;
        let (mut fields, mut current, mut rest) = (Vec::new(), None, request.body());
        while !rest.is_empty() {
            let step = parser.step(rest).map_err(refuse_form)?;
            match step.event {
                Some(FormEvent::Part(part)) => current = Some((part, Vec::new())),
                Some(FormEvent::Data(bytes)) => {
                    if let Some((_, data)) = &mut current {
                        data.extend_from_slice(bytes);
                    }
                }
                Some(FormEvent::PartEnd) => {
                    if let Some((part, data)) = current.take() {
                        fields.push(FormField::new(part, data, fields.len() + 1)?);
                    }
                }
                Some(FormEvent::End) | None => {}
            }
            rest = &rest[step.consumed..];
        }
        parser.finish().map_err(refuse_form)?;
        Ok(Self { fields })
    }
}

/// A parser for the body of a request.
pub(crate) fn form_parser(request: &Request<'_>, limits: FormDataLimits) -> Result<FormDataParser, Response> {
    FormDataParser::of(&request.head.fields(request.bytes), limits).map_err(|error| match error {
        FormDataError::NotFormData => unsupported("multipart/form-data"),
        error => refuse_form(error),
    })
}

/// Says what is wrong with a form.
pub(crate) fn refuse_form(error: FormDataError) -> Response {
    Response::new(error.status()).body(format!("body: {error}\n"))
}
