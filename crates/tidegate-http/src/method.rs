//! `Method`: the methods of RFC 9110, section 9, and PATCH of RFC 5789.
//!
//! Invariant: methods are case-sensitive (RFC 9110, section 9.1), so `get` is [`Method::Other`].

/// A request method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Transfer a representation of the target.
    Get,
    /// The same without the content.
    Head,
    /// Process the content.
    Post,
    /// Replace the target by the content.
    Put,
    /// Remove the target.
    Delete,
    /// Open a tunnel.
    Connect,
    /// Describe the options of the target.
    Options,
    /// Loop the request back.
    Trace,
    /// Change the target (RFC 5789).
    Patch,
    /// A method this crate does not know: to be answered with 501.
    Other,
}

impl Method {
    /// The method that this token names.
    #[must_use]
    pub const fn from_token(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// The method's token; `OTHER` for one that is not known.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "OTHER",
        }
    }
}
