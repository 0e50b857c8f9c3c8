//! The counters of the web service, in the order of their indexes.
//!
//! Invariant: the constants are the positions in [`DEFS`].

use tidegate_engine::CounterDef;
use tidegate_http::Status;

pub(crate) const REQUESTS: usize = 0;
const RESPONSES_2XX: usize = 1;
const RESPONSES_3XX: usize = 2;
const RESPONSES_4XX: usize = 3;
const RESPONSES_5XX: usize = 4;
pub(crate) const BAD_REQUESTS: usize = 5;
pub(crate) const REQUEST_TIMEOUTS: usize = 6;
pub(crate) const BODIES_TOO_LARGE: usize = 7;
pub(crate) const FILES_OPENED: usize = 8;
pub(crate) const DESCRIPTORS_EXHAUSTED: usize = 9;
pub(crate) const HANDLERS_REFUSED: usize = 10;
pub(crate) const HANDLER_TIMEOUTS: usize = 11;
pub(crate) const ACCESS_DENIED: usize = 12;
pub(crate) const REQUESTS_LIMITED: usize = 13;
pub(crate) const LOGINS_REFUSED: usize = 14;
pub(crate) const LOGINS_BUSY: usize = 15;
pub(crate) const LOGINS_LIMITED: usize = 16;

pub(crate) const DEFS: &[CounterDef] = &[
    CounterDef { name: "requests", help: "Requests whose head was complete and well-formed." },
    CounterDef { name: "responses_2xx", help: "Answers with a status of 200 to 299." },
    CounterDef { name: "responses_3xx", help: "Answers with a status of 300 to 399." },
    CounterDef { name: "responses_4xx", help: "Answers with a status of 400 to 499." },
    CounterDef { name: "responses_5xx", help: "Answers with a status of 500 to 599." },
    CounterDef { name: "bad_requests", help: "Requests that broke the protocol or a limit of it." },
    CounterDef {
        name: "request_timeouts",
        help: "Heads and bodies that were begun and not finished in time.",
    },
    CounterDef { name: "bodies_too_large", help: "Request bodies larger than the limit." },
    CounterDef {
        name: "files_opened",
        help: "Files opened, to be served or to see whether they have changed.",
    },
    CounterDef {
        name: "descriptors_exhausted",
        help: "Files that were not served because no descriptor or memory was left.",
    },
    CounterDef { name: "handlers_refused", help: "Requests for which no thread and no memory was left." },
    CounterDef { name: "handler_timeouts", help: "Requests that a handler did not answer in time." },
    CounterDef { name: "access_denied", help: "Requests from addresses that a site does not let in." },
    CounterDef { name: "requests_limited", help: "Requests from addresses that had made too many." },
    CounterDef {
        name: "logins_refused",
        help: "Names and passwords of basic authentication that were wrong.",
    },
    CounterDef {
        name: "logins_busy",
        help: "Requests turned away because too many passwords were waiting to be checked.",
    },
    CounterDef {
        name: "logins_limited",
        help: "Requests from addresses that had tried too many wrong passwords.",
    },
];

/// The counter of the answers of this status; `None` for 1xx.
pub(crate) const fn of_status(status: Status) -> Option<usize> {
    match status.class() {
        2 => Some(RESPONSES_2XX),
        3 => Some(RESPONSES_3XX),
        4 => Some(RESPONSES_4XX),
        5 => Some(RESPONSES_5XX),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_the_positions() {
        for (index, name) in [
            (REQUESTS, "requests"),
            (RESPONSES_2XX, "responses_2xx"),
            (RESPONSES_5XX, "responses_5xx"),
            (BAD_REQUESTS, "bad_requests"),
            (REQUEST_TIMEOUTS, "request_timeouts"),
            (BODIES_TOO_LARGE, "bodies_too_large"),
            (FILES_OPENED, "files_opened"),
            (DESCRIPTORS_EXHAUSTED, "descriptors_exhausted"),
            (HANDLERS_REFUSED, "handlers_refused"),
            (HANDLER_TIMEOUTS, "handler_timeouts"),
            (ACCESS_DENIED, "access_denied"),
            (REQUESTS_LIMITED, "requests_limited"),
            (LOGINS_REFUSED, "logins_refused"),
            (LOGINS_BUSY, "logins_busy"),
            (LOGINS_LIMITED, "logins_limited"),
        ] {
            assert_eq!(DEFS[index].name, name);
        }
        assert!(DEFS.len() <= tidegate_engine::MAX_SERVICE_COUNTERS);
        assert_eq!(of_status(Status::CONTINUE), None);
        assert_eq!(of_status(Status::NOT_FOUND), Some(RESPONSES_4XX));
    }
}
