//! What happens to a request before it is decided: who asks, for which site, how often, and with which password.
//!
//! ```text
//!   head ──▶ site by name ──▶ access by address ──▶ bucket of the address ──▶ name and password ──▶ decided
//!                                   403                     429                401, 429, or asked on another thread
//! ```
//!
//! Invariant: a service without any of this pays one comparison for it.

use std::time::Duration;

use tidegate_engine::{ConnHandle, Flow, Io, TimerToken};
use tidegate_http::{BodyFraming, Credentials, Head, Status, Version};

use crate::Response;
use crate::Web;
use crate::access_log::{CLIENT_CLOSED, Entry, Outcome, bounded, monotonic_ns};
use crate::counters;
use crate::delivery::Delivery;
use crate::exchange::Client;
use crate::extra::{Ongoing, Waiting};
use crate::forwarded::{client_behind, ip_of};
use crate::gate::{Judgement, Login, NotChecked};
use crate::note::{Note, Word};
use crate::request_id;
use crate::session::{Held, Session};
use crate::site::Site;

/// The timer of a request whose password is being checked.
pub(crate) const LOGIN_DUE: TimerToken = TimerToken(3);
/// Far more than a full queue of checks takes.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(60);

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is decided now.
    Go,
    /// This is the answer.
    Refused(Box<Response>),
    /// A note will say.
    Wait,
}

impl Web {
    /// Who asks: the peer, or whom a trusted proxy names.
    #[inline]
    pub(crate) fn client(&self, io: &Io<'_>, head: &Head, bytes: &[u8]) -> Client {
        let peer = Client { address: io.peer().address, secure: io.security().is_some() };
        if self.trusted_proxies.is_empty() {
            return peer;
        }
        client_behind(peer, &self.trusted_proxies, &head.fields(bytes))
    }

    /// Whether a request is let in, and what its answer is to have.
    #[inline]
    pub(crate) fn admit(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        head: &Head,
        bytes: &[u8],
    ) -> Admission {
        if self.is_plain { Admission::Go } else { self.examine(io, session, head, bytes) }
    }

    fn examine(&self, io: &mut Io<'_>, session: &mut Session, head: &Head, bytes: &[u8]) -> Admission {
        session.requests = session.requests.saturating_add(1);
        let number = self.sites.find(head, bytes);
        let site = self.sites.numbered(number);
        let client = self.client(io, head, bytes);
        self.begin(session, site, client, (head, bytes), io.unix_time());
        let address = ip_of(client.address);
        if !site.gates.access.admits(address) {
            io.count(counters::ACCESS_DENIED, 1);
            return refused(site.error(Status::FORBIDDEN));
        }
        if let (Some(limit), Some(address)) = (&site.gates.requests, address)
            && let Err(seconds) = limit.take(address, io.now().as_nanos())
        {
            io.count(counters::REQUESTS_LIMITED, 1);
            let answer = site.error(Status::TOO_MANY_REQUESTS);
            return refused(answer.header("Retry-After", seconds.to_string()));
        }
        let Some(auth) = &site.gates.auth else { return Admission::Go };
        match auth.judge(Credentials::of(&head.fields(bytes)), io.now()) {
            Judgement::Admitted(user) => {
                session.note_user(user);
                Admission::Go
            }
            Judgement::Refused => refused(site.unauthorized()),
            Judgement::Unknown(login) => {
                let handle: ConnHandle<Note> = io.handle();
                let asked = auth.check(&login, address, io.now(), move |is_right| {
                    // A connection that has gone wants no answer.
                    let _ = handle.post(Note(Word::Login(is_right)));
                });
                let (counter, status, seconds) = match asked {
                    Ok(()) => return Self::wait_for_login(io, session, (head, bytes), (login, number)),
                    Err(NotChecked::Busy) => (counters::LOGINS_BUSY, Status::SERVICE_UNAVAILABLE, 1),
                    Err(NotChecked::TooMany(seconds)) => {
                        (counters::LOGINS_LIMITED, Status::TOO_MANY_REQUESTS, seconds)
                    }
                };
                io.count(counter, 1);
                refused(site.error(status).header("Retry-After", seconds.to_string()))
            }
        }
    }

    /// Keeps a request until its password has been checked.
    fn wait_for_login(
        io: &mut Io<'_>,
        session: &mut Session,
        (head, bytes): (&Head, &[u8]),
        (login, site): (Login, usize),
    ) -> Admission {
        io.set_timer(LOGIN_DUE, LOGIN_TIMEOUT);
        let request = Held { head: *head, bytes: bytes.into() };
        session.extra().waiting = Some(Waiting { request, login, site });
        Admission::Wait
    }

    /// A password has been checked: the request that waited for it goes on, or is refused.
    pub(crate) fn on_login(&self, io: &mut Io<'_>, session: &mut Session, is_right: bool) -> Flow {
        let Some(Waiting { request, login, site }) = session.extra().waiting.take() else {
            return self.stay(io, session);
        };
        io.cancel_timer(LOGIN_DUE);
        let site = self.sites.numbered(site);
        if !is_right {
            io.count(counters::LOGINS_REFUSED, 1);
            return self.turn_away(io, session, &request.head, &request.bytes, site.unauthorized());
        }
        if let Some(auth) = &site.gates.auth {
            auth.remember(&login, io.now());
        }
        session.note_user(login.name);
        self.on_head(io, session, &request.head, &request.bytes)
    }

    /// Nobody has said anything about a password, as when the mailbox was full: the connection cannot wait any longer.
    pub(crate) fn on_login_overdue(&self, io: &mut Io<'_>, session: &mut Session) -> Flow {
        let Some(Waiting { request, site, .. }) = session.extra().waiting.take() else {
            return Flow::Continue;
        };
        io.count(counters::LOGINS_BUSY, 1);
        let site = self.sites.numbered(site);
        let answer = site.error(Status::SERVICE_UNAVAILABLE).header("Retry-After", "1");
        self.finish(io, session, site, Delivery::of(&request.head, io).closing(), answer.into())
    }

    /// Answers a request that is not let in. Its body, if it has one, is not read: the connection ends.
    pub(crate) fn turn_away(
        &self,
        io: &mut Io<'_>,
        session: &mut Session,
        head: &Head,
        bytes: &[u8],
        answer: Response,
    ) -> Flow {
        let delivery = Delivery::of(head, io);
        let delivery = if head.body() == BodyFraming::None { delivery } else { delivery.closing() };
        self.finish(io, session, self.sites.of(head, bytes), delivery, answer.into())
    }

    /// Notes what the answer is to have.
    fn begin(
        &self,
        session: &mut Session,
        site: &Site,
        client: Client,
        (head, bytes): (&Head, &[u8]),
        unix_time: u64,
    ) {
        let field = |name| head.fields(bytes).named(name).next();
        let id = self.request_ids.of(field(request_id::FIELD));
        let hsts = site.hsts.as_deref().filter(|_| client.secure);
        let log = self.access_log.as_ref().filter(|log| log.takes());
        if id.is_none() && hsts.is_none() && log.is_none() {
            return;
        }
        let mut lines = Vec::new();
        if let Some(id) = &id {
            lines.extend([request_id::FIELD.as_bytes(), b": ", id.as_bytes(), b"\r\n"].concat());
        }
        lines.extend_from_slice(hsts.unwrap_or_default().as_bytes());
        let entry = log.map(|_| {
            Box::new(Entry {
                client: ip_of(client.address),
                unix_time,
                began: monotonic_ns(),
                method: bounded(head.method_token(bytes)),
                url: bounded(head.target(bytes)),
                protocol: match head.version() {
                    Version::Http10 => "HTTP/1.0",
                    Version::Http11 => "HTTP/1.1",
                },
                host: head.host(bytes).map(|host| bounded(host.name().as_bytes())).unwrap_or_default(),
                referer: field("referer").map(bounded),
                user_agent: field("user-agent").map(bounded),
                request_id: id,
                secure: client.secure,
                ..Entry::default()
            })
        });
        session.extra().ongoing = Some(Ongoing { lines, entry });
    }

    /// What was no request, and is recorded none the less.
    pub(crate) fn begin_unread(&self, io: &Io<'_>, session: &mut Session) {
        if self.access_log.as_ref().is_some_and(|log| log.takes()) {
            let entry = Entry {
                client: ip_of(io.peer().address),
                unix_time: io.unix_time(),
                began: monotonic_ns(),
                ..Entry::default()
            };
            session.extra().ongoing.get_or_insert_default().entry.get_or_insert_with(|| Box::new(entry));
        }
    }

    /// The connection has ended, of which the kernel has taken so many bytes; what was not recorded yet is.
    pub(crate) fn end(&self, mut session: Session, bytes_taken: u64) {
        let Some(log) = &self.access_log else { return };
        let outcome = Outcome::Ended(bytes_taken);
        if let Some(extra) = session.has_extra() {
            extra.record(log, outcome);
            if let Some(mut entry) = extra.ongoing.take().and_then(|ongoing| ongoing.entry) {
                entry.status = CLIENT_CLOSED;
                entry.answered = monotonic_ns();
                entry.broken_off = true;
                log.record(&entry, outcome);
            }
        }
        if let Some((_, Some(mut entry))) = session.end_stream().map(|outgoing| outgoing.end()) {
            entry.broken_off = true;
            log.record(&entry, outcome);
        }
    }
}

fn refused(answer: Response) -> Admission {
    Admission::Refused(Box::new(answer))
}

impl Session {
    /// Who the request under way comes from.
    fn note_user(&mut self, user: Box<str>) {
        if let Some(ongoing) = self.has_extra().and_then(|extra| extra.ongoing.as_mut())
            && let Some(entry) = &mut ongoing.entry
        {
            entry.user = Some(user);
        }
    }
}
