//! `Checker`: the threads that compare passwords with hashes, and the bounded queue in front of them.
//!
//! Invariant: each question that the queue took is answered once, also when a check panics, and except when the process ends
//! over it. It knows no connection: whoever asks says what is to be done with the answer.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::users::Users;

/// Who is to be let in, and who wants to know.
pub(crate) struct Question {
    /// A word for the address that asks.
    pub(crate) source: u64,
    pub(crate) users: Arc<Users>,
    pub(crate) name: Box<str>,
    pub(crate) password: Box<[u8]>,
    pub(crate) done: Box<dyn FnOnce(bool) + Send>,
}

/// The threads of a worker. The last handle ends them, without waiting for what they are at.
#[derive(Debug)]
pub(crate) struct Checker {
    queue: Sender<Question>,
    asking: Arc<Asking>,
}

/// How many questions each address has asked that were not answered yet.
type Asking = Mutex<HashMap<u64, usize>>;

/// The queue is full, or the part of it that an address may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// Hashes at a time, each of which takes a processor and megabytes.
const THREADS: usize = 2;
/// Questions that wait: at 20 ms for each, what a client would wait for.
const QUEUE: usize = 256;
/// Questions of one address: somebody who guesses from a thousand connections leaves room for the others.
const SHARE: usize = QUEUE / 4;
/// What argon2 takes of a stack is little.
const STACK_BYTES: usize = 256 << 10;

impl Checker {
    /// The one of this process, which is started when nobody has it.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub(crate) fn shared() -> std::io::Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Checker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(checker) = shared.upgrade() {
            return Ok(checker);
        }
        let checker = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&checker);
        Ok(checker)
    }

    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// The kernel's, when it has no room for a thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (queue, questions) = bounded(QUEUE);
        let asking = Arc::new(Asking::default());
        for n in 0..THREADS {
            let (questions, asking): (Receiver<Question>, _) = (questions.clone(), Arc::clone(&asking));
            let thread = thread::Builder::new().name(format!("auth-{n}")).stack_size(STACK_BYTES);
            thread.spawn(move || questions.iter().for_each(|question| answer(question, &asking)))?;
        }
        Ok(Self { queue, asking })
    }

    /// Asks. `done` is called on one of the threads, unless this is an error.
    pub(crate) fn ask(&self, question: Question) -> Result<(), Busy> {
        let source = question.source;
        let mut asking = lock(&self.asking);
        if asking.get(&source).is_some_and(|&count| count >= SHARE) {
            return Err(Busy);
        }
        self.queue.try_send(question).map_err(|_| Busy)?;
        *asking.entry(source).or_default() += 1;
        Ok(())
    }
}

/// Every change of it is whole.
fn lock(asking: &Asking) -> MutexGuard<'_, HashMap<u64, usize>> {
    asking.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(Question { source, users, name, password, done }: Question, asking: &Asking) {
    let verify = || users.verify(&name, &password);
    let is_right = catch_unwind(AssertUnwindSafe(verify)).unwrap_or_else(|_| {
        tracing::error!("checking a password panicked; it is refused");
        false
    });
    // Its place is free before whoever has asked hears of it.
    if let Entry::Occupied(mut count) = lock(asking).entry(source) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
    if catch_unwind(AssertUnwindSafe(|| done(is_right))).is_err() {
        tracing::error!("the receiver of an answer about a password panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const WAIT: Duration = Duration::from_secs(30);

    fn question(source: usize, done: impl FnOnce(bool) + Send + 'static) -> Question {
        let password = Box::from(&b"x"[..]);
        Question {
            source: source as u64,
            users: Arc::default(),
            name: "ada".into(),
            password,
            done: Box::new(done),
        }
    }

    #[test]
    fn a_full_queue_is_said_at_once_and_what_was_taken_is_answered() {
        let checker = Checker::start().unwrap();
        let (release, released) = bounded::<()>(0);
        let (answered, answers) = bounded(QUEUE + THREADS);
        let ask = |source| {
            let (released, answered) = (released.clone(), answered.clone());
            checker.ask(question(source, move |is_right| {
                let _ = released.recv();
                answered.send(is_right).unwrap();
            }))
        };
        let mut taken = 0;
        while ask(0).is_ok() {
            taken += 1;
            assert!(taken <= SHARE + THREADS);
        }
        assert!(taken >= SHARE, "an address has its share");
        while ask(1 + taken).is_ok() {
            taken += 1;
            assert!(taken <= QUEUE + THREADS);
        }
        assert!(taken >= QUEUE, "and the others have the rest");
        drop(release);
        for _ in 0..taken {
            assert_eq!(answers.recv_timeout(WAIT), Ok(false));
        }
        assert!(lock(&checker.asking).is_empty());
        assert_eq!(ask(0), Ok(()));
    }

    #[test]
    fn a_receiver_that_panics_costs_no_thread() {
        let checker = Checker::start().unwrap();
        for _ in 0..2 * THREADS {
            checker.ask(question(7, |_| panic!("told to"))).unwrap();
        }
        let (answered, answers) = bounded(1);
        checker.ask(question(7, move |is_right| answered.send(is_right).unwrap())).unwrap();
        assert_eq!(answers.recv_timeout(WAIT), Ok(false));
    }
}
