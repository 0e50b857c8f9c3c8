//! `Questioned`: answers what operators ask a worker.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_engine::{HandleError, Reason};
use tidegate_log::LogClient;

use super::connections::{ConnectionId, Page, status_of};
use super::control::{done, error, to_bytes};
use super::logging;
use super::loops::WorkerLoops;
use crate::ConnectionPage;

/// What a worker knows of itself when it is asked.
pub(crate) struct Questioned<'a> {
    pub(crate) generation: u32,
    pub(crate) worker: u32,
    pub(crate) seat: u32,
    /// Name and service of each listener.
    pub(crate) listeners: Vec<(String, String)>,
    pub(crate) log: Option<&'a LogClient>,
}

impl Questioned<'_> {
    /// Answers a question, within a bounded time whatever the loops are at.
    pub(crate) fn answer(&self, question: &str, loops: &WorkerLoops) -> Vec<u8> {
        let words: Vec<&str> = question.split_ascii_whitespace().collect();
        match words[..] {
            ["connections", ref options @ ..] => match Page::parse(options) {
                Ok(page) => to_bytes(&self.connections(&page, loops)),
                Err(why) => error(&why),
            },
            ["close", id] => match id.parse() {
                Ok(id) => self.close(id, loops),
                Err(why) => error(&why),
            },
            ["pause" | "resume", "listener", name] => {
                // In a generation that has not this listener there is nothing to pause.
                if let Some(site) = self.listeners.iter().position(|(known, _)| known == name) {
                    if words[0] == "pause" { loops.pause(Some(site)) } else { loops.resume(Some(site)) }
                }
                settled(loops)
            }
            ["loglevel", spec] => logging::answer_level(self.log, spec),
            _ => error("the question is not understood"),
        }
    }

    /// Connections of all loops from `after` on, as many as the page has.
    fn connections(&self, page: &Page, loops: &WorkerLoops) -> ConnectionPage {
        let (mut connections, mut missing) = (Vec::new(), Vec::new());
        let own = |loop_number: u32, slot, user| ConnectionId {
            generation: self.generation,
            worker: self.worker,
            seat: self.seat,
            loop_number,
            slot,
            user,
        };
        let until = Instant::now() + ALL_LOOPS_WITHIN;
        for (handle, number) in loops.loop_handles().iter().zip(0..) {
            let limit = page.limit - connections.len();
            if limit == 0 {
                break;
            }
            // What comes before this loop is asked from its beginning, and what comes behind it not at all.
            let after = match page.after {
                Some(after) if after >= own(number, u32::MAX, u32::MAX) => continue,
                Some(after) if after >= own(number, 0, 0) => Some(after.in_loop()),
                _ => None,
            };
            let left = until.saturating_duration_since(Instant::now());
            match handle.connections_page(after, limit, left) {
                Ok(infos) => connections.extend(infos.iter().map(|info| {
                    let id = own(number, info.id.slot(), info.id.generation());
                    status_of(id, info, &self.listeners)
                })),
                Err(_) => missing.push(format!("loop {number} of worker {} does not answer", self.worker)),
            }
        }
        ConnectionPage { connections, next: None, missing }
    }

    fn close(&self, id: ConnectionId, loops: &WorkerLoops) -> Vec<u8> {
        let is_own = id.generation == self.generation && id.worker == self.worker && id.seat == self.seat;
        let number = usize::try_from(id.loop_number).unwrap_or(usize::MAX);
        let Some(handle) = loops.loop_handles().get(number).filter(|_| is_own) else {
            return error(&format!("there is no connection {id}"));
        };
        match handle.close(id.in_loop(), Reason::OPERATOR) {
            Ok(()) => to_bytes(&json!({ "ok": true })),
            Err(HandleError::Gone) => error(&format!("connection {id} has ended")),
            Err(full @ HandleError::Full) => error(&full.to_string()),
        }
    }
}

/// Answers when every loop has done what it was told before.
fn settled(loops: &WorkerLoops) -> Vec<u8> {
    let until = Instant::now() + ALL_LOOPS_WITHIN;
    for (handle, number) in loops.loop_handles().iter().zip(0..) {
        // What a loop is told and asked it does and answers in turn.
        if handle.connections_page(None, 1, until.saturating_duration_since(Instant::now())).is_err() {
            return error(&format!("loop {number} has not answered yet"));
        }
    }
    done()
}

/// Less than the master waits.
const ALL_LOOPS_WITHIN: Duration = Duration::from_millis(1500);
