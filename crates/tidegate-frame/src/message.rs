//! The messages that version 1 defines: their codes and the layout of their bodies.
//!
//! Sizes are exact: a body of another size is an error, not a longer or shorter message. Requests and replies borrow their
//! texts. Whether a name is acceptable is not decided here.
//!
//! ```text
//! register request   kind i32 | username 56 | password 40            100 bytes
//! register reply     status i32 | username 56 | zeros 40             100 bytes
//! login request      username 56 | password 40                        96 bytes
//! login reply        username 56 | status i32 | zeros 36              96 bytes
//! ```

use core::fmt;

use crate::text::{self, BadText, PASSWORD_FIELD, USERNAME_FIELD};
use crate::{MAX_BODY, Status};

/// The code of a ping, which has no body and is answered by the same frame.
pub const PING: u16 = 0;

/// The code of a request to make an account, and of its reply.
pub const REGISTER: u16 = 5;

/// The code of a request to log in, and of its reply.
pub const LOGIN: u16 = 6;

/// Bytes of the body of a register request or reply.
pub const REGISTER_BODY: usize = NUMBER + USERNAME_FIELD + PASSWORD_FIELD;

/// Bytes of the body of a login request or reply.
pub const LOGIN_BODY: usize = USERNAME_FIELD + PASSWORD_FIELD;

/// Bytes of an `i32`.
const NUMBER: usize = 4;

const _: () = assert!(REGISTER_BODY == 100 && LOGIN_BODY == 96 && REGISTER_BODY < MAX_BODY);

/// The body of a message has not the size that its code asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body of a message with code {code} has {expected} bytes, not {found}")]
pub struct BadBodySize {
    /// The message's code.
    pub code: u16,
    /// Bytes that a body of this code has.
    pub expected: usize,
    /// Bytes that this one has.
    pub found: usize,
}

/// The body of a register request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RegisterRequest<'a> {
    /// The type of the account. The protocol gives it no meaning; it is kept with the account.
    pub kind: i32,
    /// The wanted name, at most [`USERNAME_FIELD`] bytes.
    pub username: &'a [u8],
    /// The password, at most [`PASSWORD_FIELD`] bytes.
    pub password: &'a [u8],
}

impl<'a> RegisterRequest<'a> {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`BadBodySize`] when it has not [`REGISTER_BODY`] bytes.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadBodySize> {
        let body: &[u8; REGISTER_BODY] = sized(REGISTER, body)?;
        let (kind, texts) = split_number(body);
        let (username, password) = texts.split_at(USERNAME_FIELD);
        Ok(Self { kind, username: text::read(username), password: text::read(password) })
    }

    /// Writes a body.
    ///
    /// # Errors
    ///
    /// [`BadText`] when a text is too long for its field or contains a NUL.
    pub fn encode(&self) -> Result<[u8; REGISTER_BODY], BadText> {
        let mut body = [0; REGISTER_BODY];
        let (number, texts) = body.split_at_mut(NUMBER);
        let (username, password) = texts.split_at_mut(USERNAME_FIELD);
        number.copy_from_slice(&self.kind.to_be_bytes());
        text::write(self.username, username)?;
        text::write(self.password, password)?;
        Ok(body)
    }
}

impl fmt::Debug for RegisterRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterRequest")
            .field("kind", &self.kind)
            .field("username", &self.username.escape_ascii())
            .finish_non_exhaustive()
    }
}

/// The body of a register reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterReply<'a> {
    /// How it went.
    pub status: Status,
    /// The name of the request.
    pub username: &'a [u8],
}

impl<'a> RegisterReply<'a> {
    /// Reads a body; the zeros at its end are not looked at.
    ///
    /// # Errors
    ///
    /// [`BadBodySize`] when it has not [`REGISTER_BODY`] bytes.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadBodySize> {
        let body: &[u8; REGISTER_BODY] = sized(REGISTER, body)?;
        let (status, rest) = split_number(body);
        Ok(Self { status: Status::from(status), username: text::read(&rest[..USERNAME_FIELD]) })
    }

    /// Writes a body.
    ///
    /// # Errors
    ///
    /// [`BadText`] when the name is too long for its field or contains a NUL.
    pub fn encode(&self) -> Result<[u8; REGISTER_BODY], BadText> {
        let mut body = [0; REGISTER_BODY];
        let (number, rest) = body.split_at_mut(NUMBER);
        number.copy_from_slice(&self.status.number().to_be_bytes());
        text::write(self.username, &mut rest[..USERNAME_FIELD])?;
        Ok(body)
    }
}

/// The body of a login request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LoginRequest<'a> {
    /// The user's name, at most [`USERNAME_FIELD`] bytes.
    pub username: &'a [u8],
    /// The password, at most [`PASSWORD_FIELD`] bytes.
    pub password: &'a [u8],
}

impl<'a> LoginRequest<'a> {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`BadBodySize`] when it has not [`LOGIN_BODY`] bytes.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadBodySize> {
        let body: &[u8; LOGIN_BODY] = sized(LOGIN, body)?;
        let (username, password) = body.split_at(USERNAME_FIELD);
        Ok(Self { username: text::read(username), password: text::read(password) })
    }

    /// Writes a body.
    ///
    /// # Errors
    ///
    /// [`BadText`] when a text is too long for its field or contains a NUL.
    pub fn encode(&self) -> Result<[u8; LOGIN_BODY], BadText> {
        let mut body = [0; LOGIN_BODY];
        let (username, password) = body.split_at_mut(USERNAME_FIELD);
        text::write(self.username, username)?;
        text::write(self.password, password)?;
        Ok(body)
    }
}

impl fmt::Debug for LoginRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginRequest")
            .field("username", &self.username.escape_ascii())
            .finish_non_exhaustive()
    }
}

/// The body of a login reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginReply<'a> {
    /// The name of the request.
    pub username: &'a [u8],
    /// How it went.
    pub status: Status,
}

impl<'a> LoginReply<'a> {
    /// Reads a body; the zeros at its end are not looked at.
    ///
    /// # Errors
    ///
    /// [`BadBodySize`] when it has not [`LOGIN_BODY`] bytes.
    pub fn parse(body: &'a [u8]) -> Result<Self, BadBodySize> {
        let body: &[u8; LOGIN_BODY] = sized(LOGIN, body)?;
        let (username, rest) = body.split_at(USERNAME_FIELD);
        let (status, _zeros) = split_number(rest);
        Ok(Self { username: text::read(username), status: Status::from(status) })
    }

    /// Writes a body.
    ///
    /// # Errors
    ///
    /// [`BadText`] when the name is too long for its field or contains a NUL.
    pub fn encode(&self) -> Result<[u8; LOGIN_BODY], BadText> {
        let mut body = [0; LOGIN_BODY];
        let (username, rest) = body.split_at_mut(USERNAME_FIELD);
        text::write(self.username, username)?;
        rest[..NUMBER].copy_from_slice(&self.status.number().to_be_bytes());
        Ok(body)
    }
}

/// `body` as an array of the size that `code` asks for.
fn sized<const N: usize>(code: u16, body: &[u8]) -> Result<&[u8; N], BadBodySize> {
    body.try_into().map_err(|_| BadBodySize { code, expected: N, found: body.len() })
}

/// The big-endian number at the start of `bytes`, which the layout puts there, and what follows.
fn split_number(bytes: &[u8]) -> (i32, &[u8]) {
    let (number, rest) = bytes.split_first_chunk().expect("the layout has a number here");
    (i32::from_be_bytes(*number), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode_header;

    const USER: RegisterRequest<'static> = RegisterRequest { kind: 1, username: b"user", password: b"pass" };

    #[test]
    fn the_golden_headers_come_out() {
        let register = USER.encode().unwrap();
        assert_eq!(
            encode_header(REGISTER, &register).unwrap(),
            [0x00, 0x6c, 0x00, 0x05, 0xf8, 0x9f, 0x02, 0x02]
        );
        let login = LoginRequest { username: b"user", password: b"pass" }.encode().unwrap();
        assert_eq!(encode_header(LOGIN, &login).unwrap(), [0x00, 0x68, 0x00, 0x06, 0xae, 0x56, 0x04, 0x77]);
        assert_eq!(encode_header(PING, b"").unwrap(), [0x00, 0x08, 0, 0, 0, 0, 0, 0]);
        let reply = RegisterReply { status: Status::Done, username: b"user" }.encode().unwrap();
        assert_eq!(
            encode_header(REGISTER, &reply).unwrap(),
            [0x00, 0x6c, 0x00, 0x05, 0x95, 0x81, 0x35, 0x03]
        );
        let reply = LoginReply { username: b"user", status: Status::Done }.encode().unwrap();
        assert_eq!(encode_header(LOGIN, &reply).unwrap(), [0x00, 0x68, 0x00, 0x06, 0xb6, 0xfd, 0x96, 0x67]);
        let reply = LoginReply { username: b"user", status: Status::Refused }.encode().unwrap();
        assert_eq!(encode_header(LOGIN, &reply).unwrap(), [0x00, 0x68, 0x00, 0x06, 0x36, 0x0d, 0x81, 0x78]);
        assert_eq!(encode_header(1000, b"hello").unwrap(), [0x00, 0x0d, 0x03, 0xe8, 0x36, 0x10, 0xa6, 0x86]);
    }

    #[test]
    fn fields_stand_where_the_layout_says() {
        let body = RegisterRequest { kind: -2, username: b"user", password: b"pass" }.encode().unwrap();
        assert_eq!(body[..9], *b"\xff\xff\xff\xfeuser\0");
        assert_eq!(body[60..65], *b"pass\0");
        let body = LoginReply { username: b"user", status: Status::Invalid }.encode().unwrap();
        assert_eq!(body[..5], *b"user\0");
        assert_eq!(body[56..60], [0, 0, 0, 3]);
        assert_eq!(body[60..], [0; 36]);
        let body = RegisterReply { status: Status::NameTaken, username: b"user" }.encode().unwrap();
        assert_eq!(body[..9], *b"\0\0\0\x02user\0");
        assert_eq!(body[60..], [0; 40]);
    }

    #[test]
    fn bodies_survive_the_round_trip_also_with_full_fields() {
        let (name, word) = ([b'n'; USERNAME_FIELD], [b'p'; PASSWORD_FIELD]);
        let request = RegisterRequest { kind: i32::MIN, username: &name, password: &word };
        assert_eq!(RegisterRequest::parse(&request.encode().unwrap()), Ok(request));
        let request = LoginRequest { username: &name, password: &word };
        assert_eq!(LoginRequest::parse(&request.encode().unwrap()), Ok(request));
        let reply = RegisterReply { status: Status::Other(-9), username: &name };
        assert_eq!(RegisterReply::parse(&reply.encode().unwrap()), Ok(reply));
        let reply = LoginReply { username: b"", status: Status::Busy };
        assert_eq!(LoginReply::parse(&reply.encode().unwrap()), Ok(reply));
    }

    #[test]
    fn another_size_is_an_error_with_its_numbers() {
        let long = [0; 101];
        for size in [0, 96, 99, 101] {
            let expected = BadBodySize { code: 5, expected: 100, found: size };
            assert_eq!(RegisterRequest::parse(&long[..size]), Err(expected));
            assert_eq!(RegisterReply::parse(&long[..size]), Err(expected));
        }
        for size in [0, 95, 97, 100] {
            let expected = BadBodySize { code: 6, expected: 96, found: size };
            assert_eq!(LoginRequest::parse(&long[..size]), Err(expected));
            assert_eq!(LoginReply::parse(&long[..size]), Err(expected));
        }
    }

    #[test]
    fn texts_that_do_not_fit_are_refused() {
        let name = [b'n'; USERNAME_FIELD + 1];
        assert!(LoginRequest { username: &name, password: b"" }.encode().is_err());
        assert!(LoginRequest { username: b"", password: &name[..41] }.encode().is_err());
        assert!(RegisterRequest { kind: 0, username: b"a\0b", password: b"" }.encode().is_err());
    }

    #[test]
    fn a_password_is_not_shown_by_debug() {
        assert!(!format!("{USER:?}").contains("pass"));
        assert!(!format!("{:?}", LoginRequest { username: b"user", password: b"pass" }).contains("pass"));
    }
}
