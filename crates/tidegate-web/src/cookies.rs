//! `Cookies`: the cookies of a request as an argument of a handler.

use crate::{FromRequest, Request, Response};

/// The cookies that a client has sent. Those that are no UTF-8 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cookies {
    pairs: Vec<(String, String)>,
}

impl Cookies {
    /// The value of the first cookie of this name.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The names and values in the order in which they were sent.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromRequest for Cookies {
    fn from_request(request: &Request<'_>) -> Result<Self, Response> {
        let cookies = tidegate_http::Cookies::of(&request.head.fields(request.bytes));
        let pairs = cookies
            .iter()
            .filter_map(|(name, value)| Some((name.to_owned(), str::from_utf8(value).ok()?.to_owned())));
        Ok(Self { pairs: pairs.collect() })
    }
}
