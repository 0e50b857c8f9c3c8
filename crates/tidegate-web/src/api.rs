//! The accounts API: registering, logging in and out over HTTP, on the accounts that the gateway has.
//!
//! Invariant: nothing here hashes or asks a database; that happens on the threads of the accounts, and the answer comes
//! from there. No answer may be kept by a cache, and no answer to a login tells whether there is such a name.

use std::net::IpAddr;

use tidegate_accounts::{
    AccountsError, Credentials, DeviceKey, InvalidCredentials, Login, Registration, Session, Sessions,
    SignedLogin, Token,
};
use tidegate_engine::PeerAddress;
use tidegate_http::{Host, Status};

use crate::{Reply, Request, Response, WebBuilder, deferred, get, post};

mod answers;
mod input;
mod once;

use answers::{CookieScope, failure, granted, login_refused, session_answer};
use input::{LoginForm, RegisterForm, SessionKind};
use once::Once;

pub use input::session_token;

/// The largest body of a request: names and passwords are short.
const MAX_BODY_BYTES: u64 = 4096;

/// Accounts that are registered over HTTP are of this kind.
const KIND: i32 = 0;

/// Adds the routes.
pub(crate) fn add(builder: WebBuilder, prefix: &str, sessions: &Sessions) -> WebBuilder {
    let with = |answer: fn(&Sessions, &Request<'_>, Reply)| {
        let sessions = sessions.clone();
        deferred(move |request, reply| match refuse_other_sites(request) {
            Some(refusal) => reply.send(refusal),
            None => answer(&sessions, request, reply),
        })
    };
    let path = |name: &str| format!("{}/{name}", prefix.trim_end_matches('/'));
    builder
        .route(path("register"), post(with(register)).max_body_bytes(MAX_BODY_BYTES))
        .route(path("login"), post(with(login)).max_body_bytes(MAX_BODY_BYTES))
        .route(path("logout"), post(with(logout)).max_body_bytes(MAX_BODY_BYTES))
        .route(path("key"), post(with(key)).max_body_bytes(MAX_BODY_BYTES))
        .route(path("me"), get(with(me)))
}

/// A page of another site has the browser of our user ask. What it brought along is not ours to use.
fn refuse_other_sites(request: &Request<'_>) -> Option<Response> {
    let is_foreign = match request.header("Sec-Fetch-Site") {
        // A page of a neighbouring name, or of another port, gets the cookie too, but is not this site.
        Some(site) => !matches!(site, "same-origin" | "none"),
        // Browsers leave it out where nobody encrypts, and old ones everywhere. `Origin` they send with every POST that a
        // page of another origin causes, and programs that are no browsers send neither.
        None => request.header("Origin").is_some_and(|origin| !is_own_origin(request, origin)),
    };
    is_foreign.then(|| failure(Status::FORBIDDEN, "cross-site", "pages of other sites may not ask this"))
}

/// Whether an origin (RFC 6454, section 7) is the host that the request is for. Its scheme is not compared: who encrypts
/// before a balancer does not come encrypted here.
fn is_own_origin(request: &Request<'_>, origin: &str) -> bool {
    let (host, default_port) = match origin.split_once("://") {
        Some(("http", host)) => (host, 80),
        Some(("https", host)) => (host, 443),
        // `null` among them, as pages without an origin of their own have it.
        _ => return false,
    };
    let (Some(theirs), Some(ours)) = (Host::parse(host.as_bytes()), request.head.host(request.bytes)) else {
        return false;
    };
    let port = |host: Host<'_>| host.port().unwrap_or(default_port);
    theirs.name() == ours.name() && port(theirs) == port(ours)
}

fn register(sessions: &Sessions, request: &Request<'_>, reply: Reply) {
    let RegisterForm { user, password } = match input::read(request) {
        Ok(form) => form,
        Err(refusal) => return reply.send(refusal),
    };
    let credentials = match Credentials::new(user.as_bytes(), password.as_bytes()) {
        Ok(credentials) => credentials,
        Err(error) => return reply.send(invalid(&error)),
    };
    Once::new(reply).submit(
        |done| sessions.submit_register(KIND, credentials, address_of(request), done),
        move |registration| match registration {
            Registration::Made => answers::json(Status::CREATED, &serde_json::json!({ "user": user })),
            Registration::NameTaken => failure(Status::CONFLICT, "name-taken", "somebody has this name"),
            Registration::TooMany(wait) => {
                let message = "too many accounts were asked for; come again later";
                failure(Status::TOO_MANY_REQUESTS, "too-many-registrations", message)
                    .header("Retry-After", wait.as_secs().to_string())
            }
        },
    );
}

fn login(sessions: &Sessions, request: &Request<'_>, reply: Reply) {
    let form: LoginForm = match input::read(request) {
        Ok(form) => form,
        Err(refusal) => return reply.send(refusal),
    };
    let address = address_of(request);
    let LoginForm { user, password, time, salt, sign, session } = form;
    let scope = CookieScope::new(request.client(), sessions.rules().lifetime);
    match (password, time, salt, sign) {
        (Some(password), None, None, None) => {
            let bearer = session == Some(SessionKind::Bearer);
            let Ok(credentials) = Credentials::new(user.as_bytes(), password.as_bytes()) else {
                // No account has such a name or password, and that is no more than any other refusal tells.
                return reply.send(login_refused());
            };
            Once::new(reply).submit(
                |done| sessions.submit_login(credentials, address, done),
                move |login| login_answer(&login, bearer, scope),
            );
        }
        (None, Some(time), Some(salt), Some(sign)) => {
            let bearer = session != Some(SessionKind::Cookie);
            let signed = match SignedLogin::new(time, salt.as_bytes(), user.as_bytes(), &sign) {
                Ok(signed) => signed,
                Err(error) => {
                    return reply.send(failure(Status::UNPROCESSABLE_CONTENT, "invalid", error.to_string()));
                }
            };
            Once::new(reply).submit(
                |done| sessions.submit_signed_login(signed, address, done),
                move |login| login_answer(&login, bearer, scope),
            );
        }
        _ => reply.send(failure(
            Status::UNPROCESSABLE_CONTENT,
            "invalid",
            "a login has a user and a password, or a user, time, salt and sign",
        )),
    }
}

/// Where a request comes from, as attempts are counted.
fn address_of(request: &Request<'_>) -> Option<IpAddr> {
    match request.peer() {
        PeerAddress::Inet(address) => Some(address.ip()),
        PeerAddress::Unix => None,
    }
}

fn login_answer(login: &Login, bearer: bool, scope: CookieScope) -> Response {
    match login {
        Login::Granted(token, session) => granted(token, session, bearer, scope),
        Login::Refused => login_refused(),
        Login::Stale => {
            answers::unauthorized("stale", "the time that was signed is too far from the server's")
        }
        Login::Replayed => answers::unauthorized("replayed", "this signature has been used"),
        Login::TooMany(wait) => {
            failure(Status::TOO_MANY_REQUESTS, "too-many-failures", "too many attempts; come again later")
                .header("Retry-After", wait.as_secs().to_string())
        }
    }
}

fn logout(sessions: &Sessions, request: &Request<'_>, reply: Reply) {
    let scope = CookieScope::new(request.client(), sessions.rules().lifetime);
    let Some(token) = session_token(request) else { return reply.send(scope.logged_out()) };
    // Whether there was a session, whoever has ended it does not need to know.
    Once::new(reply)
        .submit(|done| sessions.submit_logout(token, done), move |_was_there: bool| scope.logged_out());
}

fn me(sessions: &Sessions, request: &Request<'_>, reply: Reply) {
    with_token(request, reply, |token, once| {
        once.submit(
            |done| sessions.submit_find(token, done),
            |session: Option<Session>| session.map_or_else(no_session, |session| session_answer(&session)),
        );
    });
}

fn key(sessions: &Sessions, request: &Request<'_>, reply: Reply) {
    with_token(request, reply, |token, once| {
        once.submit(
            |done| sessions.submit_new_key(token, done),
            |key: Option<DeviceKey>| {
                key.map_or_else(no_session, |key| {
                    answers::json(Status::OK, &serde_json::json!({ "key": key.reveal() }))
                })
            },
        );
    });
}

fn with_token(request: &Request<'_>, reply: Reply, then: impl FnOnce(Token, Once)) {
    match session_token(request) {
        Some(token) => then(token, Once::new(reply)),
        None => reply.send(no_session()),
    }
}

fn no_session() -> Response {
    answers::unauthorized("no-session", "log in first")
}

fn invalid(error: &InvalidCredentials) -> Response {
    failure(Status::UNPROCESSABLE_CONTENT, "invalid", error.to_string())
}

/// What is answered when the accounts could not decide.
fn undecided(error: &AccountsError) -> Response {
    match error {
        AccountsError::Busy | AccountsError::Closed => {
            failure(Status::SERVICE_UNAVAILABLE, "busy", "try again in a moment").header("Retry-After", "1")
        }
        error => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::error!(%error, cause, "a request about an account failed");
            failure(Status::INTERNAL_SERVER_ERROR, "failed", "the server could not decide this")
        }
    }
}
