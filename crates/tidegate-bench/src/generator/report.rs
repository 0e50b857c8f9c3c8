//! `LoadReport`: what came of a run, and `Progress`: how far it is.
//!
//! Invariant: a request that counts is one with a right answer; whatever failed stands beside it and is never left out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::secured::Secured;
use super::tally::{Failures, Tally};
use crate::Percentiles;

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadReport {
    /// What was asked: `echo`, `http` or `msg`.
    pub ask: String,
    /// Whom.
    pub to: Vec<String>,
    /// Over how many connections.
    pub connections: usize,
    /// How many of them asked.
    pub asking: usize,
    /// Requests in flight on each of them, at the most.
    pub pipeline: usize,
    /// By how many threads.
    pub threads: usize,
    /// How many requests per second there were to be; `None`: as many as were answered.
    pub wanted_rate: Option<f64>,
    /// How long was measured.
    pub seconds: f64,
    /// How long was to be measured, if the run was ended before.
    pub stopped_of: Option<f64>,
    /// Right answers. At a constant rate those whose request was due while it was measured.
    pub requests: u64,
    /// Right answers per second.
    pub rate: f64,
    /// Right answers from the moment when it began to count until the last one had come.
    pub answered: u64,
    /// Bytes of answers that came while it was measured.
    pub bytes_in: u64,
    /// Bytes of requests that were sent while it was measured.
    pub bytes_out: u64,
    /// What failed, the warm-up included.
    pub failures: Failures,
    /// At a constant rate, requests that were due and never sent, since those before them had no answer. They are no
    /// failures, and each stands among the latencies with the time that it had waited by then.
    pub unsent: u64,
    /// At a constant rate, requests that were sent while it was measured and had no answer. Each is among the failures, but for
    /// those of a run that was stopped, and stands among the latencies with the time that it had waited.
    pub unanswered: u64,
    /// Connections that were made anew in place of others that had ended.
    pub reconnects: u64,
    /// How long answers took: from the moment when the request was sent, at a constant rate from the moment when it was due.
    pub latency: Percentiles,
    /// Connections that were made, those before it was measured included.
    pub made: u64,
    /// How long each of them took to be made, from when it was wanted until it could be used, its handshake included.
    pub connect: Percentiles,
    /// How they were secured; `None`: not at all.
    pub tls: Option<Secured>,
    /// The latency, in microseconds, within which a share of the answers came.
    pub curve: Vec<(f64, f64)>,
    /// At a constant rate, how much later than it was due a request was sent on a free connection: the client's own doing.
    pub lateness: Option<Percentiles>,
    /// Second by second.
    pub per_second: Vec<Second>,
    /// Processor time of the asking threads while it was measured.
    pub client_cpu_seconds: f64,
    /// Which share of the time the asking threads ran, of 1 for all of them.
    pub client_busy: f64,
    /// Which share of the time they could have run and others did, the server perhaps.
    pub client_starved: f64,
}

impl LoadReport {
    /// Whether the client had so little time to spare that the figures tell as much of it as of the server.
    #[must_use]
    pub fn is_client_bound(&self) -> bool {
        self.client_busy + self.client_starved >= BUSY
    }
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// When it ended, in seconds from when it began to count.
    pub at: f64,
    /// Right answers per second.
    pub rate: f64,
    /// Bytes of answers.
    pub bytes_in: u64,
    /// The latency of half of the answers, in microseconds.
    pub p50_us: f64,
    /// That of 99 of 100.
    pub p99_us: f64,
    /// That of the slowest.
    pub max_us: f64,
    /// What failed.
    pub failures: u64,
}

impl Second {
    pub(super) fn of(tally: &Tally, at: Duration, len: Duration) -> Self {
        let latency = tally.latency.summary();
        Self {
            at: at.as_secs_f64(),
            rate: crate::per(tally.latency.count(), len.as_secs_f64()),
            bytes_in: tally.bytes_in,
            p50_us: latency.p50_us,
            p99_us: latency.p99_us,
            max_us: latency.max_us,
            failures: tally.failures.total(),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Connections are made.
    Connecting {
        /// How many are open.
        open: usize,
        /// How many there are to be.
        of: usize,
    },
    /// All connections stand, or as many as can be had, and nothing is asked yet.
    Ready {
        /// How many are open.
        open: usize,
        /// How many there were to be.
        of: usize,
    },
    /// It is asked, and does not count yet.
    WarmingUp {
        /// For how long still.
        left: Duration,
    },
    /// From now on it counts.
    Begin,
    /// It counts.
    Measuring {
        /// For how long it has.
        elapsed: Duration,
        /// For how long it will have in the end.
        of: Duration,
        /// What the last second brought.
        last: Second,
        /// What has failed so far.
        failures: u64,
        /// Connections that are open.
        open: usize,
    },
    /// It counts no more. The connections still stand.
    End,
    /// Nothing more is asked; answers are waited for.
    Settling {
        /// Connections with something in flight.
        left: usize,
    },
    /// All answers have come, or had their time. The connections still stand.
    Settled,
}

/// From this share of its time on, a client is taken to be the bottleneck.
const BUSY: f64 = 0.9;
