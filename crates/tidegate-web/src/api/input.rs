//! What a client says: forms in JSON or as a form, and the token of its session.
//!
//! Invariant: a token comes from `Authorization: Bearer` or from the cookie, in this order, and is parsed here once.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidegate_accounts::Token;
use tidegate_http::{Cookies, Credentials, Status};

use super::answers::{cookie_name, failure};
use crate::{Form, FromRequest, Json, Request, Response};

/// Who wants an account.
#[derive(Deserialize)]
pub(super) struct RegisterForm {
    #[serde(alias = "username")]
    pub(super) user: String,
    pub(super) password: String,
}

/// Who wants to log in: with a password, or with a signature over time, salt and user.
#[derive(Deserialize)]
pub(super) struct LoginForm {
    #[serde(alias = "username")]
    pub(super) user: String,
    pub(super) password: Option<String>,
    pub(super) time: Option<i64>,
    pub(super) salt: Option<String>,
    pub(super) sign: Option<String>,
    pub(super) session: Option<SessionKind>,
}

/// Where the client keeps its token.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum SessionKind {
    /// The browser does, where no script sees it.
    Cookie,
    /// The program does, and sends it along.
    Bearer,
}

/// Reads a form of either type.
pub(super) fn read<T: DeserializeOwned>(request: &Request<'_>) -> Result<T, Response> {
    let refusal = match Json::<T>::from_request(request) {
        Ok(Json(form)) => return Ok(form),
        Err(refusal) if refusal.status() != Status::UNSUPPORTED_MEDIA_TYPE => refusal,
        Err(_) => match Form::<T>::from_request(request) {
            Ok(Form(form)) => return Ok(form),
            Err(refusal) if refusal.status() != Status::UNSUPPORTED_MEDIA_TYPE => refusal,
            Err(_) => {
                let wanted = "Content-Type: application/json or application/x-www-form-urlencoded is needed";
                return Err(failure(Status::UNSUPPORTED_MEDIA_TYPE, "media-type", wanted));
            }
        },
    };
    let message = refusal.text().unwrap_or("the body cannot be read").trim_end().to_owned();
    Err(failure(refusal.status(), "invalid", message))
}

/// The token that a request carries: after `Authorization: Bearer`, or in the cookie of the
/// [accounts API](crate::WebBuilder::accounts_api). Whether it has a session is for
/// [`Sessions`](tidegate_accounts::Sessions) to say.
#[must_use]
pub fn session_token(request: &Request<'_>) -> Option<Token> {
    let fields = request.head.fields(request.bytes);
    if let Some(Credentials::Bearer(token)) = Credentials::of(&fields) {
        return Token::parse(token.as_bytes());
    }
    let cookies = Cookies::of(&fields);
    Token::parse(cookies.value(cookie_name(request.client().secure))?)
}
