//! `Errand`: a session on another thread, with all that its callbacks need there.

use std::fmt;
use std::sync::Arc;

use crate::Security;
use crate::conn::{Conn, Who};
use crate::handle::Shared;
use crate::host::Away;
use crate::io::{Io, Moment, Queued, Site};
use crate::record::{Received, Record};

/// A session that is away from its loop. Emptied, it is kept for the next one.
pub(crate) struct Errand {
    pub(crate) who: Who,
    pub(crate) moment: Moment,
    pub(crate) queued: Queued,
    /// Something was received behind the message that is with it.
    pub(crate) more_input: bool,
    /// Memory of the message that is with it, as it stands in the loop's account.
    pub(crate) lent: usize,
    /// What the callbacks ask for.
    pub(crate) record: Record,
    /// The session; `None` in an errand that is empty.
    pub(crate) away: Option<Box<dyn Away>>,
    pub(crate) site: Arc<Site>,
    pub(crate) shared: Arc<Shared>,
    /// How the connection is secured.
    pub(crate) security: Option<Arc<Security>>,
}

impl Errand {
    /// An errand for a connection, without its session.
    pub(crate) fn new(conn: &Conn, moment: Moment, site: &Arc<Site>, shared: &Arc<Shared>) -> Self {
        Self {
            who: conn.who,
            moment,
            queued: conn.queued(),
            more_input: false,
            lent: 0,
            record: Record::default(),
            away: None,
            site: Arc::clone(site),
            shared: Arc::clone(shared),
            security: conn.security().cloned(),
        }
    }

    /// Makes an emptied errand one for this connection.
    pub(crate) fn renew(&mut self, conn: &Conn, moment: Moment, site: &Arc<Site>) {
        self.who = conn.who;
        self.moment = moment;
        self.queued = conn.queued();
        if !Arc::ptr_eq(&self.site, site) {
            self.site = Arc::clone(site);
        }
        if self.security.is_some() || conn.aside.is_some() {
            self.security = conn.security().cloned();
        }
    }

    /// The session, and the connection for its callbacks.
    pub(crate) fn begin(&mut self) -> Option<(&mut dyn Away, Io<'_>)> {
        let Self { who, moment, queued, more_input, record, away, site, shared, security, .. } = self;
        let (moment, queued, more_input) = (*moment, *queued, *more_input);
        let (received, watch) = (Received::default(), None);
        let security = security.as_deref();
        let io = Io { who, moment, queued, record, site, shared, received, more_input, watch, security };
        Some((&mut **away.as_mut()?, io))
    }

    /// The errand with its session, which leaves this one empty.
    pub(crate) fn take(&mut self) -> Option<Self> {
        let away = Some(self.away.take()?);
        let (site, shared) = (Arc::clone(&self.site), Arc::clone(&self.shared));
        let (record, lent) = (std::mem::take(&mut self.record), std::mem::take(&mut self.lent));
        Some(Self {
            who: self.who,
            moment: self.moment,
            queued: self.queued,
            more_input: self.more_input,
            lent,
            record,
            away,
            site,
            shared,
            security: self.security.take(),
        })
    }
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand")
            .field("who", &self.who)
            .field("away", &self.away.is_some())
            .finish_non_exhaustive()
    }
}
