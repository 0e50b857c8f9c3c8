//! The threads that hash and ask the database, and the queue in front of them.
//!
//! The invariant: each job that the queue took is answered exactly once, on a thread of the pool, also when the pool is
//! being closed and when a check panics. It decides nothing about users.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::password::Hasher;
use crate::store::Store;
use crate::{AccountsError, Outcome};

/// What is to be decided.
pub(crate) type Task = Box<dyn FnOnce(&Store, &Hasher) -> Result<Outcome, AccountsError> + Send>;

/// Who wants to know.
pub(crate) type Done = Box<dyn FnOnce(Result<Outcome, AccountsError>) + Send>;

/// A fixed number of threads behind a bounded queue.
#[derive(Debug)]
pub(crate) struct Pool {
    /// `None` only while the pool is being dropped.
    queue: Option<Sender<(Task, Done)>>,
    threads: Vec<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
}

impl Pool {
    /// Starts one thread for each store.
    pub(crate) fn start(stores: Vec<Store>, hasher: Hasher, queue: usize) -> Result<Self, AccountsError> {
        let (sender, receiver) = bounded(queue.max(1));
        let (hasher, closing) = (Arc::new(hasher), Arc::new(AtomicBool::new(false)));
        let mut pool = Self { queue: Some(sender), threads: Vec::new(), closing: Arc::clone(&closing) };
        for (index, store) in stores.into_iter().enumerate() {
            let (receiver, hasher, closing) = (receiver.clone(), Arc::clone(&hasher), Arc::clone(&closing));
            let thread = thread::Builder::new()
                .name(format!("accounts-{index}"))
                .spawn(move || run(&receiver, &store, &hasher, &closing))
                .map_err(AccountsError::Thread)?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Queues a job; `done` is called unless this is an error.
    pub(crate) fn submit(&self, task: Task, done: Done) -> Result<(), AccountsError> {
        let Some(queue) = &self.queue else { return Err(AccountsError::Closed) };
        queue.try_send((task, done)).map_err(|error| match error {
            TrySendError::Full(_) => AccountsError::Busy,
            TrySendError::Disconnected(_) => AccountsError::Closed,
        })
    }
}

impl Drop for Pool {
    /// Answers what waits with [`AccountsError::Closed`], and waits for what is being checked: one hash for each thread.
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.queue = None;
        for thread in self.threads.drain(..) {
            // The last owner may be a `done` that runs on one of these threads; that one ends by itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the accounts pool panicked");
            }
        }
    }
}

fn run(queue: &Receiver<(Task, Done)>, store: &Store, hasher: &Hasher, closing: &AtomicBool) {
    for (task, done) in queue {
        let result = if closing.load(Ordering::Relaxed) {
            Err(AccountsError::Closed)
        } else {
            catch_unwind(AssertUnwindSafe(|| task(store, hasher))).unwrap_or(Err(AccountsError::Panicked))
        };
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            tracing::error!("the receiver of an answer about an account panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const WAIT: Duration = Duration::from_secs(30);

    fn pool(threads: usize, queue: usize) -> (tempfile::TempDir, Pool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.db");
        let stores = (0..threads).map(|_| Store::open(&path, WAIT).unwrap()).collect();
        (dir, Pool::start(stores, Hasher::new(8, 1).unwrap(), queue).unwrap())
    }

    fn done_task() -> Task {
        Box::new(|_, _| Ok(Outcome::Done))
    }

    #[test]
    fn a_full_queue_is_busy_and_closing_answers_what_waits() {
        let (_dir, pool) = pool(1, 2);
        let (started, has_started) = bounded::<()>(1);
        let (release, released) = bounded::<()>(1);
        let (answer, answers) = bounded(8);
        let answering = |name: &'static str| -> Done {
            let answer = answer.clone();
            Box::new(move |result| answer.send((name, result)).unwrap())
        };
        let running: Task = Box::new(move |_, _| {
            started.send(()).unwrap();
            released.recv().unwrap();
            Ok(Outcome::Refused)
        });
        pool.submit(running, answering("running")).unwrap();
        has_started.recv_timeout(WAIT).unwrap();
        pool.submit(done_task(), answering("first")).unwrap();
        pool.submit(done_task(), answering("second")).unwrap();
        let over = pool.submit(done_task(), answering("over"));
        assert!(matches!(over, Err(AccountsError::Busy)), "{over:?}");

        pool.closing.store(true, Ordering::Relaxed);
        release.send(()).unwrap();
        drop(pool);
        assert!(matches!(answers.try_recv().unwrap(), ("running", Ok(Outcome::Refused))));
        assert!(matches!(answers.try_recv().unwrap(), ("first", Err(AccountsError::Closed))));
        assert!(matches!(answers.try_recv().unwrap(), ("second", Err(AccountsError::Closed))));
        assert!(answers.try_recv().is_err());
    }

    #[test]
    fn panics_are_answered_and_the_thread_lives_on() {
        let (_dir, pool) = pool(1, 8);
        let (answer, answers) = bounded(8);
        let second = answer.clone();
        pool.submit(Box::new(|_, _| panic!("a bug")), Box::new(move |result| answer.send(result).unwrap()))
            .unwrap();
        assert!(matches!(answers.recv_timeout(WAIT).unwrap(), Err(AccountsError::Panicked)));
        pool.submit(done_task(), Box::new(|_| panic!("another bug"))).unwrap();
        pool.submit(done_task(), Box::new(move |result| second.send(result).unwrap())).unwrap();
        assert!(matches!(answers.recv_timeout(WAIT).unwrap(), Ok(Outcome::Done)));
    }

    #[test]
    fn the_last_owner_may_be_an_answer() {
        let (_dir, pool) = pool(1, 8);
        let pool = Arc::new(pool);
        let (release, released) = bounded::<Arc<Pool>>(1);
        let (answer, answers) = bounded(1);
        let done: Done = Box::new(move |_| {
            drop(released.recv().unwrap());
            answer.send(()).unwrap();
        });
        pool.submit(done_task(), done).unwrap();
        release.send(pool).unwrap();
        answers.recv_timeout(WAIT).unwrap();
    }

    #[test]
    fn threads_carry_their_name() {
        let (_dir, pool) = pool(2, 8);
        let (answer, answers) = bounded(1);
        let done: Done = Box::new(move |_| answer.send(thread::current().name().map(str::to_owned)).unwrap());
        pool.submit(done_task(), done).unwrap();
        let name = answers.recv_timeout(WAIT).unwrap().unwrap();
        assert!(["accounts-0", "accounts-1"].contains(&name.as_str()), "{name}");
    }
}
