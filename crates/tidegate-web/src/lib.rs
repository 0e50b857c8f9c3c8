//! The web service: static sites, fixed answers and handlers over HTTP/1.1.
//!
//! Two types to read first: [`Web`], which is a [`Service`](tidegate_engine::Service) for any listener, and
//! [`WebBuilder`], which says what it serves. What HTTP means is decided in `tidegate-http`; this crate decides what is
//! answered, and owns the files.
//!
//! ```
//! use tidegate_web::{Response, Status, Web};
//!
//! # fn main() -> Result<(), tidegate_web::WebError> {
//! let web = Web::builder()
//!     .builtin_site()
//!     .respond("/hello", Status::OK, "", "Hello, World!")
//!     .handler("/time", |request| Response::new(Status::OK).body(request.path()))
//!     .build()?;
//! # drop(web);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod answer;
mod builder;
mod counters;
mod date;
mod delivery;
mod encoded;
mod exchange;
mod files;
mod request;
mod response;
mod routes;
mod session;
mod site;
mod web;

pub use builder::{WebBuilder, WebError};
pub use exchange::Client;
pub use files::{FilesError, FilesOptions};
pub use request::Request;
pub use response::{Body, FileSlice, Part, Response};
pub use session::{Message, Session};
pub use tidegate_http::{Method, Status};
pub use web::Web;
