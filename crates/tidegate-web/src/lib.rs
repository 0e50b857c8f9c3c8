//! The web service: static sites, fixed answers and handlers over HTTP/1.1.
//!
//! Two types to read first: [`Web`], which is a [`Service`](tidegate_engine::Service) for any listener, and
//! [`WebBuilder`], which says what it serves. What HTTP means is decided in `tidegate-http`; this crate decides what is
//! answered, and owns the files.
//!
//! Handlers are plain functions of extractors, in the loop or, where they may block, on a pool; see [`WebBuilder::route`],
//! [`deferred`] for answers that come later, [`BodyStream`] and [`BodySink`] for bodies that no memory holds, [`FormData`] and [`FormUploads`] for forms with files, and [`Next`] for
//! middleware.
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

mod access_log;
mod admission;
mod answer;
#[cfg(feature = "accounts")]
mod api;
mod blocking_pool;
mod budget;
mod builder;
mod cookies;
mod counters;
mod date;
mod delivery;
mod dispatch;
mod encoded;
mod endpoint;
mod exchange;
mod extra;
mod extract;
mod fields;
mod files;
mod form_data;
mod form_upload;
mod forwarded;
mod gate;
mod handler;
mod hosts;
mod incoming;
mod into_response;
mod middleware;
mod note;
mod outgoing;
mod pace;
mod params;
mod redirects;
mod reply;
mod request;
mod request_id;
mod response;
mod routes;
mod session;
mod sink;
mod site;
mod site_builder;
mod sites;
mod state;
mod stream;
mod upload;
mod web;

pub use access_log::AccessFormat;
#[cfg(feature = "accounts")]
pub use api::session_token;
pub use blocking_pool::BlockingPool;
pub use builder::{WebBuilder, WebError};
pub use cookies::Cookies;
pub use endpoint::{
    Endpoint, IntoEndpoint, MethodRoutes, Plain, deferred, delete, get, partial_sink, patch, post, put, sink,
};
pub use exchange::Client;
pub use extract::{Extension, Form, FromRequest, Json, Path, Query, State};
pub use files::{FilesError, FilesOptions};
pub use form_data::{FormData, FormField};
pub use form_upload::{FormUpload, FormUploads, UploadedFile, UploadedForm};
pub use gate::{
    Access, LOGIN_LIMIT_TABLES, MAX_USERS_FILE_BYTES, NetworkError, Networks, REQUEST_LIMIT_WORDS,
    RequestRate, Users, UsersError, hash_password,
};
pub use handler::{ByReference, Handler};
pub use into_response::{Html, IntoResponse, Redirect};
pub use middleware::Next;
pub use note::Note;
pub use redirects::{RedirectError, SiteRedirect};
pub use reply::Reply;
pub use request::Request;
pub use request_id::RequestIdMode;
pub use response::{Body, FileSlice, Part, Response};
pub use session::{Message, Session};
pub use sink::BodySink;
pub use site_builder::{Hsts, SiteBuilder, SiteError};
pub use stream::{BodyStream, BodyWriter, Pulled, StreamClosed};
pub use tidegate_http::{CookieError, FormDataLimits, FormPart, Method, SameSite, SetCookie, Status};
pub use upload::{Upload, UploadDir};
pub use web::Web;
