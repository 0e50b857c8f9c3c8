//! The parsers on cases, on every split of them, against naive ones and against another implementation.

#[path = "../corpus/mod.rs"]
mod corpus;

mod chunked;
mod differential;
mod head;
mod malformed;
mod requests;
