//! The parsers on cases, on every split of them, against naive ones and against another implementation.

#[path = "../corpus/mod.rs"]
mod corpus;

mod chunked;
mod differential;
mod form_data;
mod head;
mod malformed;
mod requests;
