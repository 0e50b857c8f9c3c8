//! `Ask`: what is asked of a server.
//!
//! Invariant: what [`Ask::check`] let through can be sent as it is; no text of it ends a line or a field too early.

use std::fmt;

use tidegate_frame::{LOGIN, MAX_BODY};

use super::spec::{MAX_ECHO_BYTES, SpecError, within};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Messages that come back as they are.
    Echo {
        /// Bytes of a message.
        size: usize,
    },
    /// `GET` over HTTP/1.1. An answer of status 400 or more is a failed request.
    Http {
        /// What to get: it begins with a slash.
        path: String,
        /// The field `Host`.
        host: String,
        /// Further fields.
        headers: Vec<(String, String)>,
    },
    /// Frames of the message protocol that are answered by a frame of the same code.
    Msg {
        /// The code of the frames: 0 is the ping.
        code: u16,
        /// Bytes of the body. A login has a body of its own.
        size: usize,
        /// With what each connection begins.
        login: Option<Login>,
    },
}

/// Who logs in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name of the user, at most 56 bytes.
    pub user: String,
    /// The password, at most 40 bytes.
    pub password: Vec<u8>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Echo { size } => write!(f, "echo of {size} bytes"),
            Self::Http { path, .. } => write!(f, "GET {path}"),
            Self::Msg { code: 0, size: 0, .. } => f.write_str("ping of the message protocol"),
            Self::Msg { code, size, .. } => write!(f, "frames of code {code} with {size} bytes"),
        }
    }
}

impl Ask {
    /// Its name, as the command line has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "echo",
            Self::Http { .. } => "http",
            Self::Msg { .. } => "msg",
        }
    }

    /// Whether it can be asked; how large a message is, about.
    pub(super) fn check(&self) -> Result<usize, SpecError> {
        match self {
            Self::Echo { size } => {
                within("the size of a message", *size, 1, MAX_ECHO_BYTES)?;
                Ok(*size)
            }
            Self::Http { path, host, headers } => check_http(path, host, headers),
            Self::Msg { code, size, login } => {
                within("the size of a body", *size, 0, MAX_BODY)?;
                match login {
                    Some(login) => login.encode().map(drop)?,
                    None if *code == LOGIN => return Err(SpecError::NoLogin),
                    None => {}
                }
                Ok(*size)
            }
        }
    }
}

impl Login {
    /// The body of the frame that logs in.
    pub(crate) fn encode(&self) -> Result<[u8; tidegate_frame::LOGIN_BODY], SpecError> {
        let request =
            tidegate_frame::LoginRequest { username: self.user.as_bytes(), password: &self.password };
        request.encode().map_err(|source| SpecError::Login { user: self.user.clone(), source })
    }
}

/// RFC 9112, section 3.2, and RFC 9110, section 5: nothing that ends a line or a field too early.
fn check_http(path: &str, host: &str, headers: &[(String, String)]) -> Result<usize, SpecError> {
    let wrong = |what, text: &str, why| Err(SpecError::Http { what, text: text.to_owned(), why });
    if !path.starts_with('/') {
        return wrong("path", path, "it does not begin with a slash");
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("path", path, "what is no visible ASCII character is written as %xx");
    }
    if !tidegate_http::is_field_value(host.as_bytes()) {
        return wrong("host", host, "it has control characters");
    }
    for (name, value) in headers {
        if !tidegate_http::is_token(name.as_bytes()) {
            return wrong("field name", name, "it is no token");
        }
        if !tidegate_http::is_field_value(value.as_bytes()) {
            return wrong("field value", value, "it has control characters");
        }
        if CHANGES_FRAMING.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return wrong("field name", name, "a request has no body, and says its host by other means");
        }
    }
    Ok(path.len()
        + host.len()
        + headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>())
}

/// Fields that would make the request another one than is sent.
const CHANGES_FRAMING: &[&str] = &["Host", "Content-Length", "Transfer-Encoding", "Expect", "Upgrade"];
