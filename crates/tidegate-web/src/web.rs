//! `Web`: the service itself. Heads come in, and one of four things answers: a route, a file, an error, or a deadline.
//!
//! Invariant: every request gets exactly one final answer, in the order of the requests; an answer after which the framing
//! is lost is the last one of its connection.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use tidegate_engine::{CounterDef, Decoded, Flow, Io, Peer, Phase, Reason, Refusal, Service};
use tidegate_http::{BodyFraming, Head, Method, Status, normalize_path};

use crate::answer::{self, Delivery};
use crate::builder::WebBuilder;
use crate::counters;
use crate::file_cache::FileCache;
use crate::files::{OpenError, Opened, Root};
use crate::routes::{Route, Routes, send_fixed};
use crate::session::{Held, Kind, Limits, Message, Session};
use crate::static_file::{Identity, StaticFile};
use crate::{Request, Response};

/// A web server as a [`Service`]: fixed answers, handlers and static files over HTTP/1.1.
#[derive(Debug)]
pub struct Web {
    pub(crate) routes: Routes,
    pub(crate) files: Option<Files>,
    pub(crate) limits: Limits,
    pub(crate) engine_limits: tidegate_engine::Limits,
}

/// The files that are served. The cache's lock is held for a look-up and a copy, and a loop has the service to itself.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) root: Root,
    pub(crate) cache: Mutex<FileCache>,
}

impl Web {
    /// Begins to say what is served.
    pub const fn builder() -> WebBuilder {
        WebBuilder::new()
    }

    /// Answers a request whose body, if it had one, has been dropped.
    #[inline]
    fn answer(&self, io: &mut Io<'_>, head: &Head, bytes: &[u8]) -> Flow {
        let delivery = Delivery::of(head, io);
        self.deliver(io, head, bytes, delivery);
        delivery.flow(io)
    }

    #[inline]
    fn deliver(&self, io: &mut Io<'_>, head: &Head, bytes: &[u8], delivery: Delivery) {
        let refused = match head.method() {
            _ if head.expects_unknown() => Status::EXPECTATION_FAILED,
            Method::Get | Method::Head => return self.deliver_path(io, head, bytes, delivery),
            Method::Other => Status::NOT_IMPLEMENTED,
            _ => {
                let allow = [("Allow", "GET, HEAD")];
                return answer::send_status(io, delivery, Status::METHOD_NOT_ALLOWED, &allow);
            }
        };
        answer::send_status(io, delivery, refused, &[]);
    }

    #[inline]
    fn deliver_path(&self, io: &mut Io<'_>, head: &Head, bytes: &[u8], delivery: Delivery) {
        let path = head.path(bytes);
        if let Some((path, route)) = self.routes.find(path) {
            return send_route(io, (path, route), (head, bytes), delivery);
        }
        let relative = match normalize_path(path) {
            Ok(relative) => relative,
            Err(error) => {
                tracing::debug!(%error, "path refused");
                return answer::send_status(io, delivery, Status::BAD_REQUEST, &[]);
            }
        };
        // Another spelling of a route is that route.
        if let Cow::Owned(relative) = &relative
            && let Some(found) = self.routes.find(&[b"/", &relative[..]].concat())
        {
            return send_route(io, found, (head, bytes), delivery);
        }
        match &self.files {
            Some(files) => files.deliver(io, (head, bytes), &relative, delivery),
            None => answer::send_status(io, delivery, Status::NOT_FOUND, &[]),
        }
    }

    /// A head with a body behind it: the request is refused now, or answered when the body has ended.
    fn begin_body(&self, io: &mut Io<'_>, session: &mut Session, head: Head, bytes: &[u8]) -> Flow {
        if matches!(head.body(), BodyFraming::Length(length) if length > self.limits.max_body_bytes) {
            return refuse_body(io, head.method());
        }
        let reads = matches!(head.method(), Method::Get | Method::Head);
        if head.expects_unknown() || (head.expects_continue() && !reads) {
            // The client waits to hear whether the body is wanted. It is not; and whether it comes none the less cannot
            // be known, so nothing can follow on this connection (RFC 9110, section 10.1.1).
            let delivery = Delivery::of(&head, io).closing();
            self.deliver(io, &head, bytes, delivery);
            return delivery.flow(io);
        }
        if head.expects_continue() {
            io.send(answer::CONTINUE);
        }
        session.begin_body(head, bytes);
        io.expect(Phase::Body);
        Flow::Continue
    }
}

impl Files {
    fn deliver(&self, io: &mut Io<'_>, request: (&Head, &[u8]), path: &[u8], delivery: Delivery) {
        let now = io.unix_time();
        if let Some(file) = self.cache().fresh(path, now) {
            return file.send(io, request.0, request.1, delivery);
        }
        io.count(counters::FILES_OPENED, 1);
        let mut opened = self.root.open_file(path);
        if let Err(OpenError::Exhausted) = opened {
            // The files that are kept open are the ones to give back first.
            self.cache().clear();
            opened = self.root.open_file(path);
        }
        match opened {
            Ok(Opened::File(fd, stat)) => {
                let identity = Identity::of(&stat);
                if let Some(file) = self.cache().confirm(path, identity, now) {
                    return file.send(io, request.0, request.1, delivery);
                }
                // Read without the lock: this is the disk.
                match StaticFile::new(fd, identity, type_path(path), now) {
                    Ok(file) => {
                        self.cache().insert(path, file, now).send(io, request.0, request.1, delivery);
                    }
                    Err(error) => {
                        tracing::warn!(path = %path.escape_ascii(), %error, "file cannot be read");
                        answer::send_status(io, delivery, Status::INTERNAL_SERVER_ERROR, &[]);
                    }
                }
            }
            Ok(Opened::Directory) => {
                let location = directory_location(path, request.0.query(request.1));
                let fields = [("Location", location.as_str())];
                answer::send_status(io, delivery, Status::MOVED_PERMANENTLY, &fields);
            }
            Err(error) => {
                self.cache().remove(path);
                send_open_error(io, delivery, path, error);
            }
        }
    }

    fn cache(&self) -> MutexGuard<'_, FileCache> {
        // Nothing in the cache can be half done when a thread panics: its methods do not.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service for Web {
    type Session = Session;
    type Head = Message;
    type Note = ();

    const COUNTERS: &'static [CounterDef] = counters::DEFS;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<Session, Refusal> {
        Ok(Session::default())
    }

    #[inline]
    fn decode(&self, session: &mut Session, input: &[u8]) -> Decoded<Message> {
        session.decode(input, &self.limits)
    }

    #[inline]
    fn on_message(&self, io: &mut Io<'_>, session: &mut Session, message: Message, bytes: &[u8]) -> Flow {
        match message.0 {
            Kind::Head(head) => {
                io.count(counters::REQUESTS, 1);
                if head.body() == BodyFraming::None {
                    self.answer(io, &head, bytes)
                } else {
                    self.begin_body(io, session, head, bytes)
                }
            }
            Kind::BodyPart => Flow::Continue,
            Kind::BodyEnd => match session.end_body() {
                Some(Held { head, bytes }) => {
                    io.expect(Phase::Idle);
                    self.answer(io, &head, &bytes)
                }
                None => Flow::Continue,
            },
            Kind::BodyTooLarge => {
                let method = session.end_body().map_or(Method::Other, |held| held.head.method());
                refuse_body(io, method)
            }
            Kind::Bad(error) => {
                io.count(counters::BAD_REQUESTS, 1);
                tracing::debug!(%error, "bad request");
                answer::send_status(io, Delivery::last(), error.status(), &[]);
                Flow::CloseAfterFlush(Reason::PROTOCOL_ERROR)
            }
        }
    }

    fn on_deadline(&self, io: &mut Io<'_>, session: &mut Session, phase: Phase) -> Flow {
        match phase {
            Phase::Write => Flow::Abort(phase.timeout_reason()),
            // An idle peer is not told anything: it could take the 408 for the answer to a request that is under way.
            Phase::Idle if session.is_idle() => Flow::CloseAfterFlush(Reason::KEEP_ALIVE_TIMEOUT),
            Phase::Idle | Phase::Head | Phase::Body => {
                io.count(counters::REQUEST_TIMEOUTS, 1);
                answer::send_status(io, Delivery::last(), Status::REQUEST_TIMEOUT, &[]);
                let in_body = session.is_in_body();
                Flow::CloseAfterFlush(if in_body { Reason::BODY_TIMEOUT } else { Reason::HEAD_TIMEOUT })
            }
        }
    }

    fn on_retire(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        // The next request of an idle client may be under way and would be lost, so while there is time it is answered and
        // told to be the last; an idle client that sends none has its keep-alive time.
        if session.is_idle() && !io.draining() {
            Flow::CloseAfterFlush(Reason::SHUTDOWN)
        } else {
            Flow::Continue
        }
    }

    fn limits(&self) -> tidegate_engine::Limits {
        self.engine_limits
    }

    fn overload_answer(&self) -> Option<&'static [u8]> {
        Some(answer::OVERLOADED)
    }
}

#[inline]
fn send_route(io: &mut Io<'_>, found: (&str, &Route), request: (&Head, &[u8]), delivery: Delivery) {
    let (path, route) = found;
    match route {
        Route::Fixed(encoded) => send_fixed(encoded, io, delivery),
        Route::Handler(handler) => {
            let (head, bytes) = request;
            let response: Response = handler(&Request { head, bytes, path, peer: io.peer().address });
            response.send(io, delivery, path);
        }
    }
}

fn refuse_body(io: &mut Io<'_>, method: Method) -> Flow {
    io.count(counters::BODIES_TOO_LARGE, 1);
    let delivery = Delivery { method, ..Delivery::last() };
    answer::send_status(io, delivery, Status::CONTENT_TOO_LARGE, &[]);
    Flow::CloseAfterFlush(Reason::PROTOCOL_ERROR)
}

fn send_open_error(io: &mut Io<'_>, delivery: Delivery, path: &[u8], error: OpenError) {
    match error {
        OpenError::NotFound => answer::send_status(io, delivery, Status::NOT_FOUND, &[]),
        OpenError::Forbidden => answer::send_status(io, delivery, Status::FORBIDDEN, &[]),
        OpenError::Exhausted => {
            io.count(counters::DESCRIPTORS_EXHAUSTED, 1);
            answer::send_status(io, delivery, Status::SERVICE_UNAVAILABLE, &[("Retry-After", "1")]);
        }
        OpenError::Failed(errno) => {
            tracing::warn!(path = %path.escape_ascii(), error = %errno, "file cannot be opened");
            answer::send_status(io, delivery, Status::INTERNAL_SERVER_ERROR, &[]);
        }
    }
}

/// The name whose extension gives the type.
fn type_path(path: &[u8]) -> &Path {
    if path.is_empty() || path.ends_with(b"/") {
        return Path::new("index.html");
    }
    Path::new(std::ffi::OsStr::from_bytes(path))
}

/// Where a directory is that was asked for without its slash. Built from the normalised path: what was sent could begin
/// with two slashes, which a client would take for another host.
fn directory_location(path: &[u8], query: Option<&[u8]>) -> String {
    let mut location = format!("/{}/", percent_encode(path, PATH));
    if let Some(query) = query {
        location.push('?');
        // Encodes nothing that a target may hold, so the query stays as it was sent.
        location.extend(percent_encode(query, CONTROLS));
    }
    location
}

/// What is encoded in a path (RFC 3986, section 3.3).
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_stays_on_this_host_and_keeps_the_query() {
        assert_eq!(directory_location(b"evil.example", None), "/evil.example/");
        assert_eq!(directory_location(b"a b/c%\xff", Some(b"x=%20&y")), "/a%20b/c%25%FF/?x=%20&y");
    }
}
