//! What is answered: small documents of JSON, and cookies.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_accounts::{Session, Token};
use tidegate_http::{CookieError, SameSite, SetCookie, Status};

use crate::exchange::Client;
use crate::{IntoResponse, Json, Response};

/// The name of the cookie that holds a session's token. Over TLS it has the prefix with which browsers take it from nobody
/// but this host over TLS (RFC 6265bis, section 4.1.3.2), so that no neighbour puts somebody into a session of his own.
pub(super) const fn cookie_name(secure: bool) -> &'static str {
    if secure { "__Host-tidegate_session" } else { "tidegate_session" }
}

/// How a client is to keep its cookie.
#[derive(Clone, Copy, Debug)]
pub(super) struct CookieScope {
    secure: bool,
    lifetime: Duration,
}

impl CookieScope {
    pub(super) const fn new(client: Client, lifetime: Duration) -> Self {
        Self { secure: client.secure, lifetime }
    }

    fn set(self, token: &Token) -> Result<SetCookie, CookieError> {
        let cookie = SetCookie::new(cookie_name(self.secure), &token.reveal())?
            .max_age(self.lifetime.as_secs().max(1));
        Ok(self.scoped(cookie))
    }

    /// No script sees it, requests that other sites cause do not carry it, and a connection that somebody could listen in to
    /// does not if it was set on one where nobody could.
    fn scoped(self, cookie: SetCookie) -> SetCookie {
        let cookie = cookie.path("/").http_only().same_site(SameSite::Lax);
        if self.secure { cookie.secure() } else { cookie }
    }

    /// The session has ended, and the browser forgets it.
    pub(super) fn logged_out(self) -> Response {
        let response = no_store(Response::new(Status::NO_CONTENT));
        match SetCookie::removal(cookie_name(self.secure)) {
            Ok(cookie) => response.cookie(&self.scoped(cookie)),
            Err(_) => response,
        }
    }
}

/// A document.
pub(super) fn json(status: Status, value: &Value) -> Response {
    no_store((status, Json(value)).into_response())
}

/// Something was refused: a word for programs, and a sentence for people.
pub(super) fn failure(status: Status, error: &str, message: impl Into<Cow<'static, str>>) -> Response {
    json(status, &json!({ "error": error, "message": message.into() }))
}

/// A 401 says how one could log in (RFC 9110, section 11.6.1).
pub(super) fn unauthorized(error: &str, message: &'static str) -> Response {
    failure(Status::UNAUTHORIZED, error, message).header("WWW-Authenticate", "Bearer")
}

pub(super) fn login_refused() -> Response {
    unauthorized("refused", "user and password, or user and signature, do not fit")
}

/// Somebody is logged in: the token goes to the program that asked for it, or into a cookie.
pub(super) fn granted(token: &Token, session: &Session, bearer: bool, scope: CookieScope) -> Response {
    let mut answer = document(session);
    if bearer {
        answer["token"] = token.reveal().into();
        answer["token_type"] = "Bearer".into();
        return json(Status::OK, &answer);
    }
    match scope.set(token) {
        Ok(cookie) => json(Status::OK, &answer).cookie(&cookie),
        Err(error) => {
            tracing::error!(%error, "a token is no value of a cookie");
            Status::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

pub(super) fn session_answer(session: &Session) -> Response {
    json(Status::OK, &document(session))
}

fn document(session: &Session) -> Value {
    let user = session.user();
    json!({ "user": user.name(), "kind": user.kind(), "expires_at": session.expires_at() })
}

fn no_store(response: Response) -> Response {
    response.header("Cache-Control", "no-store")
}
