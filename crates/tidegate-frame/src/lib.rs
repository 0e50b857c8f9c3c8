//! The framed message protocol, version 1, without I/O: header, decoder, encoder, checksum, and the bodies of the known messages.
//!
//! Read [`Decoder`] and [`encode`] first; `docs/protocol.md` is the normative text. The invariant of the crate: bytes go in
//! and frames or numbered errors come out. It knows no socket, no clock and no session, and no input makes it panic.
//!
//! ```
//! use tidegate_frame::{Decoder, PING, Step, encode};
//!
//! let mut wire = Vec::new();
//! encode(PING, b"", &mut wire)?;
//! assert_eq!(wire, [0, 8, 0, 0, 0, 0, 0, 0]);
//!
//! // Two bytes are enough to know how many are missing.
//! assert_eq!(Decoder::new().decode(&wire[..2]), Ok(Step::Need(8)));
//! assert!(matches!(Decoder::new().decode(&wire), Ok(Step::Frame { len: 8, .. })));
//! # Ok::<(), tidegate_frame::BodyTooLong>(())
//! ```
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod decoder;
mod encoder;
mod header;
mod message;
mod status;
mod text;

pub use decoder::{Decoder, Frame, FrameError, Step};
pub use encoder::{BodyTooLong, encode, encode_header};
pub use header::{HEADER, Header, MAX_BODY, MAX_FRAME};
pub use message::{
    BadBodySize, LOGIN, LOGIN_BODY, LoginReply, LoginRequest, PING, REGISTER, REGISTER_BODY, RegisterReply,
    RegisterRequest,
};
pub use status::Status;
pub use text::{BadText, PASSWORD_FIELD, USERNAME_FIELD};
