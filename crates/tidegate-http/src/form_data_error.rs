//! `FormDataError`: what is wrong with a form that is `multipart/form-data`, and the status that answers it.
//!
//! Invariant: no text of the form stands in a message, only numbers, so that a message can be shown and logged as it is.

use crate::Status;

/// A form that cannot be read. Parts are counted from 1; part 0 is what stands before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormDataError {
    /// The `Content-Type` of the request is another one.
    #[error("multipart/form-data is needed as Content-Type")]
    NotFormData,
    /// The `Content-Type` has no boundary, or none that RFC 2046 allows.
    #[error("the boundary in Content-Type is missing or malformed")]
    Boundary,
    /// Behind a boundary is neither the end of the line nor `--`.
    #[error("the line of the boundary behind part {part} goes on")]
    Delimiter {
        /// The part before the boundary.
        part: usize,
    },
    /// Too much that is no part.
    #[error("more than {max} bytes that belong to no part")]
    Overhead {
        /// The limit in bytes.
        max: usize,
    },
    /// Too many parts.
    #[error("more than {max} parts")]
    TooManyParts {
        /// The limit.
        max: usize,
    },
    /// The head of a part is too large.
    #[error("the head of part {part} has more than {max} bytes")]
    HeadTooLarge {
        /// Which part.
        part: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A line in the head of a part is no field.
    #[error("the head of part {part} has a malformed line")]
    Head {
        /// Which part.
        part: usize,
    },
    /// `Content-Disposition` is missing, repeated, malformed, or not `form-data` with one name.
    #[error("Content-Disposition of part {part} is missing, repeated or malformed")]
    Disposition {
        /// Which part.
        part: usize,
    },
    /// `Content-Disposition` has `filename*`, which must not be sent (RFC 7578, section 4.2), or `name*`.
    #[error(
        "Content-Disposition of part {part} has a name in the extended notation, which forms do not have"
    )]
    ExtendedName {
        /// Which part.
        part: usize,
    },
    /// The name of a part or of its file is too long.
    #[error("a name of part {part} has more than {max} bytes")]
    NameTooLong {
        /// Which part.
        part: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The name of a part, that of its file, or its type is not UTF-8.
    #[error("a name of part {part} is not UTF-8")]
    NotUtf8 {
        /// Which part.
        part: usize,
    },
    /// `Content-Transfer-Encoding` says that the data is encoded (RFC 7578, section 4.7).
    #[error("part {part} has a Content-Transfer-Encoding, which is not supported")]
    TransferEncoding {
        /// Which part.
        part: usize,
    },
    /// The form ends before its last boundary.
    #[error("the form is cut off in or behind part {part}")]
    Truncated {
        /// Which part.
        part: usize,
    },
}

impl FormDataError {
    /// The status that answers the request.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::NotFormData | Self::TransferEncoding { .. } => Status::UNSUPPORTED_MEDIA_TYPE,
            Self::Overhead { .. }
            | Self::TooManyParts { .. }
            | Self::HeadTooLarge { .. }
            | Self::NameTooLong { .. } => Status::CONTENT_TOO_LARGE,
            Self::Boundary
            | Self::Delimiter { .. }
            | Self::Head { .. }
            | Self::Disposition { .. }
            | Self::ExtendedName { .. }
            | Self::NotUtf8 { .. }
            | Self::Truncated { .. } => Status::BAD_REQUEST,
        }
    }
}
