//! `HttpError`: what is wrong with a request, and the status that answers it.
//!
//! Invariant: after any of these the framing of the connection is lost, so the answer is the last one: it says
//! `Connection: close`. What can be answered on a connection that stays (an unknown method, an unknown expectation) is not
//! an error but a fact in the [`Head`](crate::Head).

use crate::Status;

/// A request that cannot be understood. Its answer ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The request line does not follow RFC 9112, section 3.
    #[error("malformed request line")]
    RequestLine,
    /// The version is no `HTTP/digit.digit` (RFC 9112, section 2.3).
    #[error("malformed HTTP version")]
    Version,
    /// More empty lines before the request line than [`HeadLimits`](crate::HeadLimits) allows.
    #[error("too many empty lines before the request")]
    EmptyLines,
    /// The major version is not 1.
    #[error("HTTP version not supported")]
    VersionNotSupported,
    /// The method is longer than any that there is.
    #[error("method too long")]
    MethodTooLong,
    /// The target is longer than the limit.
    #[error("request target too long")]
    TargetTooLong,
    /// The target has none of the forms of RFC 9112, section 3.2, or one that its method does not go with.
    #[error("malformed request target")]
    Target,
    /// The head is larger than the limit.
    #[error("head too large")]
    HeadTooLarge,
    /// The head has more fields than the limit.
    #[error("too many fields")]
    TooManyFields,
    /// A field line does not follow RFC 9112, section 5.
    #[error("malformed field line")]
    Field,
    /// A field line is continued on the next line (RFC 9112, section 5.2).
    #[error("obsolete line folding")]
    Folding,
    /// A carriage return without a line feed, or a line feed without a carriage return (RFC 9112, section 2.2).
    #[error("bare carriage return or line feed")]
    LineEnd,
    /// HTTP/1.1 without `Host`, more than one, or one that is no host (RFC 9112, section 3.2).
    #[error("missing, repeated or malformed Host")]
    Host,
    /// `Content-Length` is repeated or not a number (RFC 9112, section 6.3).
    #[error("malformed or repeated Content-Length")]
    ContentLength,
    /// Both `Content-Length` and `Transfer-Encoding`: the mark of request smuggling (RFC 9112, section 11.2).
    #[error("both Content-Length and Transfer-Encoding")]
    AmbiguousLength,
    /// `Transfer-Encoding` is malformed, comes with HTTP/1.0, or does not end with the only `chunked`.
    #[error("malformed Transfer-Encoding")]
    TransferEncoding,
    /// A transfer coding other than `chunked`.
    #[error("transfer coding not implemented")]
    UnknownTransferCoding,
    /// The chunked body does not follow RFC 9112, section 7.1.
    #[error("malformed chunked body")]
    Chunk,
    /// The extensions or trailers of a chunked body are larger than the limit.
    #[error("chunk extensions or trailers too large")]
    ChunkOverhead,
}

impl HttpError {
    /// The status that answers the request.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::VersionNotSupported => Status::HTTP_VERSION_NOT_SUPPORTED,
            Self::MethodTooLong | Self::UnknownTransferCoding => Status::NOT_IMPLEMENTED,
            Self::TargetTooLong => Status::URI_TOO_LONG,
            Self::HeadTooLarge | Self::TooManyFields | Self::ChunkOverhead => {
                Status::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::RequestLine
            | Self::Version
            | Self::EmptyLines
            | Self::Target
            | Self::Field
            | Self::Folding
            | Self::LineEnd
            | Self::Host
            | Self::ContentLength
            | Self::AmbiguousLength
            | Self::TransferEncoding
            | Self::Chunk => Status::BAD_REQUEST,
        }
    }
}
