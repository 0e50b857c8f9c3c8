//! Register and login: from a frame to the pool of [`Accounts`], and back as a note.
//!
//! The invariant: each request is answered exactly once, at once or by a note; nothing here waits for the pool. A connection
//! that goes away meanwhile is found gone by its generation, and the answer is counted and dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_accounts::{Accounts, AccountsError, Credentials, Outcome};
use tidegate_engine::{ConnHandle, Flow, HandleError};
use tidegate_frame::{LOGIN, LoginReply, LoginRequest, REGISTER, RegisterReply, RegisterRequest, Status};

use crate::gateway::{count_status, on_bad_body};
use crate::{FrameContext, Note, counters};

pub(crate) fn register(
    accounts: &Accounts,
    ctx: &mut FrameContext<'_, '_>,
    body: &[u8],
    stale: &Arc<AtomicU64>,
) -> Flow {
    let request = match RegisterRequest::parse(body) {
        Ok(request) => request,
        Err(error) => return on_bad_body(ctx.io, &error),
    };
    ctx.io.count(counters::REGISTERS, 1);
    let Ok(credentials) = Credentials::new(request.username, request.password) else {
        return answer(ctx, &Answer::new(REGISTER, request.username, Status::Invalid));
    };
    let post = Post::new(ctx, REGISTER, request.username, stale);
    let submitted = accounts.submit_register(request.kind, credentials, move |result| post.deliver(result));
    suspend_or_answer(ctx, submitted, request.username)
}

pub(crate) fn login(
    accounts: &Accounts,
    ctx: &mut FrameContext<'_, '_>,
    body: &[u8],
    stale: &Arc<AtomicU64>,
) -> Flow {
    let request = match LoginRequest::parse(body) {
        Ok(request) => request,
        Err(error) => return on_bad_body(ctx.io, &error),
    };
    ctx.io.count(counters::LOGINS, 1);
    let Ok(credentials) = Credentials::new(request.username, request.password) else {
        return answer(ctx, &Answer::new(LOGIN, request.username, Status::Invalid));
    };
    let post = Post::new(ctx, LOGIN, request.username, stale);
    let submitted = accounts.submit_login(credentials, move |result| post.deliver(result));
    suspend_or_answer(ctx, submitted, request.username)
}

fn suspend_or_answer(
    ctx: &mut FrameContext<'_, '_>,
    submitted: Result<(), AccountsError>,
    username: &[u8],
) -> Flow {
    match submitted {
        Ok(()) => Flow::Suspend,
        Err(error) => {
            let status = status_of(ctx.code, Err(error));
            answer(ctx, &Answer::new(ctx.code, username, status))
        }
    }
}

/// Answers at once.
fn answer(ctx: &mut FrameContext<'_, '_>, answer: &Answer) -> Flow {
    count_status(ctx.io, answer.status);
    ctx.reply(answer.code, &answer.body).expect("a reply about an account is short")
}

/// A reply about an account.
struct Answer {
    code: u16,
    status: Status,
    body: Vec<u8>,
}

impl Answer {
    fn new(code: u16, username: &[u8], status: Status) -> Self {
        let body = match code {
            REGISTER => RegisterReply { status, username }.encode().map(Vec::from),
            _ => LoginReply { username, status }.encode().map(Vec::from),
        };
        Self { code, status, body: body.expect("the name came out of a field of the same width") }
    }
}

/// Brings the answer of the pool to the connection that asked.
struct Post {
    handle: ConnHandle<Note>,
    code: u16,
    username: Box<[u8]>,
    stale: Arc<AtomicU64>,
}

/// A full mailbox means that the loop is stuck. The pool's thread waits with it, 10 s in all.
const FULL_PAUSE: Duration = Duration::from_millis(10);
const FULL_TRIES: u32 = 1_000;

impl Post {
    fn new(ctx: &FrameContext<'_, '_>, code: u16, username: &[u8], stale: &Arc<AtomicU64>) -> Self {
        Self { handle: ctx.handle(), code, username: username.into(), stale: Arc::clone(stale) }
    }

    /// Called on a thread of the pool.
    fn deliver(self, result: Result<Outcome, AccountsError>) {
        let status = status_of(self.code, result);
        let Answer { code, body, .. } = Answer::new(self.code, &self.username, status);
        let mut note = Note::reply(code, &body).expect("a reply about an account is short");
        note.status = Some(status);
        if code == LOGIN && status == Status::Done {
            note.user = std::str::from_utf8(&self.username).ok().map(Box::from);
        }
        for _ in 0..FULL_TRIES {
            match self.handle.post(note.clone()) {
                Ok(()) => return,
                Err(HandleError::Gone) => {
                    self.stale.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(conn = %self.handle.id(), code, "the connection of an answer has gone");
                    return;
                }
                Err(HandleError::Full) => std::thread::sleep(FULL_PAUSE),
            }
        }
        tracing::error!(conn = %self.handle.id(), code, "an answer is lost: the mailbox of its loop stays full");
    }
}

fn status_of(code: u16, result: Result<Outcome, AccountsError>) -> Status {
    match result {
        Ok(Outcome::Done) => Status::Done,
        Ok(Outcome::Refused) => Status::Refused,
        Ok(Outcome::NameTaken) => Status::NameTaken,
        Ok(Outcome::Invalid) => Status::Invalid,
        Err(AccountsError::Busy) => Status::Busy,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(code, %error, cause, "a request about an account failed");
            Status::Internal
        }
    }
}
