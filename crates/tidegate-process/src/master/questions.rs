//! `Questions`: what was asked of children for a client, and who has not answered yet.
//!
//! The one invariant: every question is answered within [`TIME`] or without those who have not; children that have ended
//! do not answer.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_timer::Instant;

use super::clients::ClientId;
use super::hooks::ChildAnswer;
use crate::supervisor::ChildId;

#[derive(Debug, Default)]
pub(crate) struct Questions {
    open: BTreeMap<u64, Question>,
    next_ticket: u64,
}

#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) client: ClientId,
    pub(crate) request: Vec<u8>,
    waiting: Vec<ChildId>,
    pub(crate) answers: Vec<(ChildId, ChildAnswer)>,
    deadline: Instant,
}

impl Questions {
    /// As they were in another image, whose tickets must not be taken for ours; nothing was asked yet.
    pub(crate) fn from_ticket(next_ticket: u64) -> Self {
        Self { open: BTreeMap::new(), next_ticket }
    }

    pub(crate) fn next_ticket(&self) -> u64 {
        self.next_ticket
    }

    /// What the client asked whose answer is not complete.
    pub(crate) fn request_of(&self, client: ClientId) -> Option<&[u8]> {
        self.open.values().find(|question| question.client == client).map(|question| &*question.request)
    }

    /// Opens a question to these children, whose answers are still empty.
    pub(crate) fn open(
        &mut self,
        client: ClientId,
        request: Vec<u8>,
        children: Vec<(ChildId, ChildAnswer)>,
        now: Instant,
    ) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let waiting = children.iter().map(|(id, _)| *id).collect();
        let question = Question { client, request, waiting, answers: children, deadline: now + TIME };
        self.open.insert(ticket, question);
        ticket
    }

    /// A child has answered.
    pub(crate) fn answered(&mut self, ticket: u64, child: ChildId, answer: Vec<u8>) {
        let Some(question) = self.open.get_mut(&ticket) else { return };
        question.waiting.retain(|id| *id != child);
        if let Some((_, place)) = question.answers.iter_mut().find(|(id, _)| *id == child) {
            place.answer = Some(answer);
        }
    }

    /// A child will not answer any more: it has ended, and so is not one that does not answer.
    pub(crate) fn gone(&mut self, child: ChildId) {
        for question in self.open.values_mut() {
            question.waiting.retain(|id| *id != child);
            question.answers.retain(|(id, answer)| *id != child || answer.answer.is_some());
        }
    }

    /// The next question to which nobody else will answer.
    pub(crate) fn next_closed(&mut self, now: Instant) -> Option<Question> {
        let is_closed = |question: &Question| question.waiting.is_empty() || question.deadline <= now;
        let ticket = self.open.iter().find(|(_, question)| is_closed(question)).map(|(ticket, _)| *ticket)?;
        self.open.remove(&ticket)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.open.values().map(|question| question.deadline).min()
    }
}

const TIME: Duration = Duration::from_secs(2);
