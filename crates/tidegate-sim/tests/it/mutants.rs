//! The faults: what stands in the code, and what stands there in its place when the fault is planted.
//!
//! In `mutated`, `PLANTED` asks whether it is. Invariant: `original` stands once in its file.

/// A fault.
#[derive(Debug)]
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    /// Where it has to be found.
    pub(crate) scenario: &'static str,
    pub(crate) file: &'static str,
    pub(crate) original: &'static str,
    pub(crate) mutated: &'static str,
}

macro_rules! mutants {
    ($($name:literal, $scenario:literal, $file:literal: $original:literal => $mutated:literal;)*) => {
        pub(crate) const MUTANTS: &[Mutant] = &[$(Mutant {
            name: $name,
            scenario: $scenario,
            file: concat!("crates/tidegate-", $file),
            original: $original,
            mutated: $mutated,
        }),*];
    };
}

mutants! {
    // Other threads.
    "a letter wakes nobody", "loop-inline", "engine/src/handle.rs":
        "let wake = mailbox.letters.len() == 1;"
        => "let wake = mailbox.letters.len() == if PLANTED { 2 } else { 1 };";
    "a stale handle is believed", "loop-inline", "engine/src/handle.rs":
        "        if !self.is_open(id) {"
        => "        if !self.is_open(id) && !PLANTED {";
    "a stale generation is accepted", "loop-inline", "engine/src/table.rs":
        "        if slot.generation != key.generation {\n            return None;"
        => "        if slot.generation != key.generation && !PLANTED {\n            return None;";
    "letters that came before the end are read twice", "loop-inline", "engine/src/event_loop/letters.rs":
        "                self.turn.record.out.extend_from_slice(&bytes);"
        => "                self.turn.record.out.extend_from_slice(&bytes);\n                if PLANTED { self.turn.record.out.extend_from_slice(&bytes); }";
    // Timers.
    "a deadline is not cancelled at the end", "loop-inline", "engine/src/event_loop/closing.rs":
        "        if let Some(key) = conn.deadline.take() {\n"
        => "        if let Some(key) = conn.deadline.take().filter(|_| !PLANTED) {\n";
    "a timer of a service is not cancelled at the end", "loop-inline", "engine/src/event_loop/closing.rs":
        "for (_, key) in conn.timers.drain(..) {"
        => "for (_, key) in conn.timers.drain(..).filter(|_| !PLANTED) {";
    "a timer that is replaced fires too", "loop-inline", "engine/src/io.rs":
        "                self.timers.cancel(key);"
        => "                if !PLANTED { self.timers.cancel(key); }";
    "a timer is lost when it is set anew", "loop-inline", "engine/src/io.rs":
        "                conn.timers.push((token, key));"
        => "                conn.timers.push((token, key));\n                if PLANTED && conn.timers.len() == 2 { self.timers.cancel(key); }";
    "timers fire early", "loop-inline", "engine/src/event_loop/deadline.rs":
        "self.turn.timers.pop_expired(self.turn.now)"
        => "self.turn.timers.pop_expired(if PLANTED { self.turn.now + Duration::from_millis(2) } else { self.turn.now })";
    "a deadline is not armed again", "loop-inline", "engine/src/event_loop/deadline.rs":
        "        conn.deadline_at = Instant::MAX;"
        => "        if !PLANTED { conn.deadline_at = Instant::MAX; }";
    "a timer of the wheel is a level too late", "loop-inline", "engine/src/event_loop/deadline.rs":
        "    let at = turn.later(at);"
        => "    let at = turn.later(at) + Duration::from_secs(if PLANTED { 4 } else { 0 });";
    // Output.
    "the rest of a short write is forgotten", "loop-inline", "engine/src/output.rs":
        "                    self.chain.consume(pool, taken);"
        => "                    let taken = if PLANTED { offered } else { taken };\n                    self.chain.consume(pool, taken);";
    "the rest of a file is forgotten", "loop-inline", "engine/src/output.rs":
        "        part.len -= taken;"
        => "        part.len = if PLANTED { 0 } else { part.len - taken };";
    "a refused send awaits nothing", "loop-inline", "engine/src/event_loop/flush.rs":
        "            Ok(Progress::Refused) => self.reactor.await_writable(token),"
        => "            Ok(Progress::Refused) => if !PLANTED { self.reactor.await_writable(token) },";
    "output that waits is overtaken", "loop-inline", "engine/src/event_loop/flush.rs":
        "        if conn.output.is_some() {\n            return self.queue_batch"
        => "        if conn.output.is_some() && !PLANTED {\n            return self.queue_batch";
    "on_drained is not called", "loop-inline", "engine/src/event_loop.rs":
        "            return self.event(token, Event::Drained);"
        => "            if !PLANTED { return self.event(token, Event::Drained); }";
    "FIN overtakes what the reactor owns", "loop-inline", "engine/src/event_loop.rs":
        "            if !self.reactor.unsent(token) {"
        => "            if PLANTED || !self.reactor.unsent(token) {";
    "nobody is listened to after the last word", "loop-inline", "engine/src/event_loop/closing.rs":
        "        if conn.has_ended() {\n            return self.close_with"
        => "        if conn.has_ended() || PLANTED {\n            return self.close_with";
    // Input.
    "reading is not resumed", "loop-inline", "engine/src/event_loop.rs":
        "                self.reactor.resume(token);"
        => "                if !PLANTED { self.reactor.resume(token); }";
    "a half-close is ignored", "loop-inline", "engine/src/event_loop/input.rs":
        "            conn.eof = Eof::Came;"
        => "            conn.eof = if PLANTED { Eof::Told } else { Eof::Came };";
    "the end overtakes messages that wait", "loop-pool", "engine/src/event_loop/input.rs":
        "        let waiting = conn.suspended || conn.away"
        => "        let waiting = (conn.suspended && !PLANTED) || conn.away";
    "a suspended connection is served", "loop-inline", "engine/src/conn.rs":
        "                self.suspended || self.reading.paused"
        => "                (self.suspended && !PLANTED) || self.reading.paused";
    "half a message is thrown away", "loop-inline", "engine/src/event_loop/input.rs":
        "            keep(conn, &mut self.spares, &data[consumed..]);"
        => "            keep(conn, &mut self.spares, &data[consumed + usize::from(PLANTED)..]);";
    // Connections.
    "on_close is not called", "loop-inline", "engine/src/event_loop/closing.rs":
        "        if self.hosts[site].close(&conn, &closed, &self.metrics).is_err() {"
        => "        if !PLANTED && self.hosts[site].close(&conn, &closed, &self.metrics).is_err() {";
    "a socket is not closed", "loop-inline", "engine/src/event_loop/closing.rs":
        "        self.reactor.close(token, end);"
        => "        if !PLANTED { self.reactor.close(token, end); }";
    "the account is not relieved", "loop-inline", "engine/src/event_loop/relief.rs":
        "        self.inputs -= conn.weighed as usize;"
        => "        self.inputs -= if PLANTED { 0 } else { conn.weighed as usize };";
    "blocks of output are not given back", "loop-inline", "engine/src/event_loop/closing.rs":
        "        let bytes_taken = conn.bytes_taken(self.reactor.unsent_bytes(token));\n        if let Some(mut output) = conn.output.take() {"
        => "        let bytes_taken = conn.bytes_taken(self.reactor.unsent_bytes(token));\n        if let Some(mut output) = conn.output.take().filter(|_| !PLANTED) {";
    "nobody accepts again after a shortage", "loop-inline", "engine/src/accepting.rs":
        "        if exhausted {\n            self.exhausted = Some(moment.now + RETRY_AFTER);"
        => "        if exhausted && !PLANTED {\n            self.exhausted = Some(moment.now + RETRY_AFTER);";
    "a full loop accepts on", "loop-inline", "engine/src/event_loop/accept.rs":
        "            return self.strays.push_back(arrival);"
        => "            if !PLANTED { return self.strays.push_back(arrival); }";
    "nobody is told that the loop retires", "loop-inline", "engine/src/event_loop/retiring.rs":
        "                self.event(token, Event::Retire);"
        => "                if !PLANTED { self.event(token, Event::Retire); }";
    // The pool.
    "a session does not come home", "loop-pool", "engine/src/job.rs":
        "        let home = Arc::clone(&self.home);\n        home.receive(self);\n    }\n}\n\nimpl Buffers"
        => "        let home = Arc::clone(&self.home);\n        if PLANTED { std::mem::forget(self) } else { home.receive(self) }\n    }\n}\n\nimpl Buffers";
    "a return wakes nobody", "loop-pool", "engine/src/job.rs":
        "        let wake = jobs.len() == 1;"
        => "        let wake = jobs.len() == 1 && !PLANTED;";
    "what waits for room in the queue is not tried again", "loop-pool", "engine/src/event_loop/away.rs":
        "        self.try_waiting();\n    }\n\n    fn try_waiting"
        => "        if !PLANTED { self.try_waiting(); }\n    }\n\n    fn try_waiting";
    "what was missed is forgotten", "loop-pool", "engine/src/event_loop/away.rs":
        "                Missed::Event(event) => self.event(token, event),"
        => "                Missed::Event(event) => if !PLANTED { self.event(token, event) },";
    "what a handler was told of the mark does not hold", "loop-pool", "engine/src/event_loop/away.rs":
        "        conn.over_water |= weight > high_water"
        => "        conn.over_water |= !PLANTED && weight > high_water";
    // Outgoing connections.
    "a late wish brings about no turn", "outgoing", "engine/src/event_loop.rs":
        "|| !self.turn.wishes.is_empty();"
        => "|| (!self.turn.wishes.is_empty() && !PLANTED);";
    "a connection is waited for without end", "outgoing", "engine/src/event_loop/outgoing.rs":
        "            Ok(()) => wanted.until,"
        => "            Ok(()) => if PLANTED { wanted.until + std::time::Duration::from_secs(3600) } else { wanted.until },";
    "nobody is told that a connection is not to be had", "outgoing", "engine/src/event_loop/outgoing.rs":
        "        if let Some(Wanted { connect, note, seat, .. }) = self.pending.remove(&token) {"
        => "        if let Some(Wanted { connect, note, seat, .. }) = self.pending.remove(&token).filter(|_| !PLANTED) {";
    "the note of a wish is lost", "outgoing", "engine/src/event_loop/outgoing.rs":
        "            Some(note) if self.is_open(token) =>"
        => "            Some(note) if self.is_open(token) && !PLANTED =>";
    "a full queue is not tried again", "outgoing", "engine/src/event_loop/outgoing.rs":
        "        if wanted.waits && self.turn.now < wanted.until {"
        => "        if wanted.waits && self.turn.now < wanted.until && !PLANTED {";
    "a half-close is not passed on", "outgoing", "engine/src/event_loop/ties.rs":
        "            self.reactor.shutdown_send(token);"
        => "            if !PLANTED { self.reactor.shutdown_send(token); }";
    "an end overtakes what is queued in a tie", "outgoing", "engine/src/event_loop/ties.rs":
        "conn.sending == Sending::Ending && conn.output.is_none()"
        => "conn.sending == Sending::Ending && (conn.output.is_none() || PLANTED)";
    "a pair knows no back-pressure", "outgoing", "engine/src/event_loop/ties.rs":
        "            self.hold_partner(token, true);"
        => "            if !PLANTED { self.hold_partner(token, true); }";
    "a pair is held up for good", "outgoing", "engine/src/event_loop/ties.rs":
        "            self.hold_partner(partner, false);"
        => "            if !PLANTED { self.hold_partner(partner, false); }";
    "what came before a tie is lost", "outgoing", "engine/src/event_loop/ties.rs":
        "        if !input.is_empty() {"
        => "        if !input.is_empty() && !PLANTED {";
    "what a tie could not send is lost", "outgoing", "engine/src/event_loop/ties.rs":
        "        if taken < len {"
        => "        if taken < len && !PLANTED {";
    "the other side of a tie is left alone", "outgoing", "engine/src/event_loop/closing.rs":
        "        if conn.state == State::Tied {\n            self.end_partner"
        => "        if conn.state == State::Tied && !PLANTED {\n            self.end_partner";
    "a pair is idle while one of it is slow", "outgoing", "engine/src/event_loop/ties.rs":
        "            && moved > conn.last_in.max(conn.reading.since)"
        => "            && moved > conn.last_in.max(conn.reading.since)\n            && !PLANTED";
    "an upstream is called once", "outgoing", "engine/src/event_loop/upstreams.rs":
        "        self.turn.timers.insert(at, Due::Redial(seat));"
        => "        if !PLANTED { self.turn.timers.insert(at, Due::Redial(seat)); }";
    "what has ended is picked", "outgoing", "engine/src/event_loop/upstreams.rs":
        "        pool.open.set(member, None);"
        => "        if !PLANTED { pool.open.set(member, None); }";
    // The supervisor.
    "READY is ignored", "supervisor", "process/src/supervisor/life.rs":
        "        child.state = State::Ready;"
        => "        if !PLANTED { child.state = State::Ready; }";
    "a cover is not ended", "supervisor", "process/src/supervisor/cover.rs":
        "                self.orders.push_back(Order::Uncover { slot: *slot, by });"
        => "                if !PLANTED { self.orders.push_back(Order::Uncover { slot: *slot, by }); }";
    "nobody covers for who is stuck", "supervisor", "process/src/supervisor/slot.rs":
        "is_stuck: false,\n            is_paused: false,"
        => "is_stuck: PLANTED,\n            is_paused: false,";
    "a child is started at once, whatever became of it", "supervisor", "process/src/supervisor/life.rs":
        "        child.state = State::Waiting { until: now + delay };"
        => "        child.state = State::Waiting { until: if PLANTED { now } else { now + delay } };";
    "an early death is not counted", "supervisor", "process/src/supervisor/life.rs":
        "        child.early_deaths = if is_early { child.early_deaths.saturating_add(1) } else { 0 };"
        => "        child.early_deaths = if is_early && !PLANTED { child.early_deaths.saturating_add(1) } else { 0 };";
    "who does not obey is not killed", "supervisor", "process/src/supervisor/life.rs":
        "                    let next = measure.next();"
        => "                    let next = if PLANTED { measure } else { measure.next() };";
    "an answer is not taken", "supervisor", "process/src/supervisor/watch.rs":
        "        child.pinged_at = None;\n        child.answers_owed"
        => "        if !PLANTED { child.pinged_at = None; }\n        child.answers_owed";
    "who was held up is blamed", "supervisor", "process/src/supervisor/watch.rs":
        "        self.judged_until.is_some_and(|until| deadline <= until)"
        => "        PLANTED || self.judged_until.is_some_and(|until| deadline <= until)";
    "what is covered is forgotten in an upgrade", "supervisor", "process/src/supervisor/freeze.rs":
        "            covers: frozen.covers,"
        => "            covers: if PLANTED { BTreeMap::new() } else { frozen.covers },";
    "a generation that has ended is kept", "supervisor", "process/src/supervisor/generation.rs":
        "        self.orders.extend(ended.into_iter().map(|generation| Order::Forget { generation }));"
        => "        if !PLANTED { self.orders.extend(ended.into_iter().map(|generation| Order::Forget { generation })); }";
}
