//! The threads that hash and ask the database, and the queue in front of them.
//!
//! The invariant: each job that the queue took is answered exactly once, on a thread of the pool, also when the pool is
//! being closed and when a check panics. It decides nothing about users, and knows no outcome's type.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::AccountsError;
use crate::password::Hasher;
use crate::store::Store;

/// What a thread works with.
#[derive(Debug)]
pub(crate) struct Desk<'a> {
    pub(crate) store: &'a Store,
    pub(crate) hasher: &'a Hasher,
}

/// A task with who wants to know; without a desk, why it is not carried out.
type Job = Box<dyn FnOnce(Result<&Desk<'_>, AccountsError>) + Send>;

/// A fixed number of threads behind a bounded queue.
#[derive(Debug)]
pub(crate) struct Pool {
    /// `None` only while the pool is being dropped.
    queue: Option<Arc<Sender<Job>>>,
    threads: Vec<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
}

impl Pool {
    /// Starts one thread for each store. Their names begin with `name`.
    pub(crate) fn start(
        name: &str,
        stores: Vec<Store>,
        hasher: &Arc<Hasher>,
        queue: usize,
    ) -> Result<Self, AccountsError> {
        let (sender, receiver) = bounded(queue.max(1));
        let closing = Arc::new(AtomicBool::new(false));
        let mut pool =
            Self { queue: Some(Arc::new(sender)), threads: Vec::new(), closing: Arc::clone(&closing) };
        for (index, store) in stores.into_iter().enumerate() {
            let (receiver, hasher, closing) = (receiver.clone(), Arc::clone(hasher), Arc::clone(&closing));
            let thread = thread::Builder::new()
                .name(format!("{name}-{index}"))
                .spawn(move || run(&receiver, &store, &hasher, &closing))
                .map_err(AccountsError::Thread)?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Queues a job; `done` is called on a thread of the pool unless this is an error.
    pub(crate) fn submit<T: 'static>(
        &self,
        task: impl FnOnce(&Desk<'_>) -> Result<T, AccountsError> + Send + 'static,
        done: impl FnOnce(Result<T, AccountsError>) + Send + 'static,
    ) -> Result<(), AccountsError> {
        let Some(queue) = &self.queue else { return Err(AccountsError::Closed) };
        queue.try_send(job(task, done)).map_err(|error| refusal(&error))
    }

    /// A way into the queue for jobs of another pool.
    pub(crate) fn entrance(&self) -> Entrance {
        Entrance { queue: self.queue.as_ref().map(Arc::downgrade).unwrap_or_default() }
    }
}

/// See [`Pool::entrance`]. It does not keep the pool from ending.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    queue: Weak<Sender<Job>>,
}

impl Entrance {
    /// Queues a job; `done` is called in any case, and here when there is no room.
    pub(crate) fn pass_on<T: 'static>(
        &self,
        task: impl FnOnce(&Desk<'_>) -> Result<T, AccountsError> + Send + 'static,
        done: impl FnOnce(Result<T, AccountsError>) + Send + 'static,
    ) {
        let job = job(task, done);
        let queued = match self.queue.upgrade() {
            Some(queue) => queue.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        };
        if let Err(error) = queued {
            let refusal = refusal(&error);
            error.into_inner()(Err(refusal));
        }
    }
}

fn job<T: 'static>(
    task: impl FnOnce(&Desk<'_>) -> Result<T, AccountsError> + Send + 'static,
    done: impl FnOnce(Result<T, AccountsError>) + Send + 'static,
) -> Job {
    Box::new(move |desk| {
        done(desk.and_then(|desk| {
            catch_unwind(AssertUnwindSafe(|| task(desk))).unwrap_or(Err(AccountsError::Panicked))
        }));
    })
}

const fn refusal(error: &TrySendError<Job>) -> AccountsError {
    match error {
        TrySendError::Full(_) => AccountsError::Busy,
        TrySendError::Disconnected(_) => AccountsError::Closed,
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

fn run(queue: &Receiver<Job>, store: &Store, hasher: &Hasher, closing: &AtomicBool) {
    let desk = Desk { store, hasher };
    for job in queue {
        let desk = if closing.load(Ordering::Relaxed) { Err(AccountsError::Closed) } else { Ok(&desk) };
        if catch_unwind(AssertUnwindSafe(|| job(desk))).is_err() {
            tracing::error!("the receiver of an answer about an account panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;
    use std::time::Duration;

    const WAIT: Duration = Duration::from_secs(30);

    fn pool(threads: usize, queue: usize) -> (tempfile::TempDir, Pool) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.db");
        let stores = (0..threads).map(|_| Store::open(&path, WAIT).unwrap()).collect();
        let hasher = Arc::new(Hasher::new(8, 1).unwrap());
        (dir, Pool::start("accounts", stores, &hasher, queue).unwrap())
    }

    fn done_task(_: &Desk<'_>) -> Result<Outcome, AccountsError> {
        Ok(Outcome::Done)
    }

    #[test]
    fn a_full_queue_is_busy_and_closing_answers_what_waits() {
        let (_dir, pool) = pool(1, 2);
        let (started, has_started) = bounded::<()>(1);
        let (release, released) = bounded::<()>(1);
        let (answer, answers) = bounded(8);
        let answering = |name: &'static str| {
            let answer = answer.clone();
            move |result| answer.send((name, result)).unwrap()
        };
        let running = move |_: &Desk<'_>| {
            started.send(()).unwrap();
            released.recv().unwrap();
            Ok(Outcome::Refused)
        };
        pool.submit(running, answering("running")).unwrap();
        has_started.recv_timeout(WAIT).unwrap();
        pool.submit(done_task, answering("first")).unwrap();
        pool.submit(done_task, answering("second")).unwrap();
        let over = pool.submit(done_task, answering("over"));
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
        let bug = |_: &Desk<'_>| -> Result<Outcome, AccountsError> { panic!("a bug") };
        pool.submit(bug, move |result| answer.send(result).unwrap()).unwrap();
        assert!(matches!(answers.recv_timeout(WAIT).unwrap(), Err(AccountsError::Panicked)));
        pool.submit(done_task, |_| panic!("another bug")).unwrap();
        pool.submit(done_task, move |result| second.send(result).unwrap()).unwrap();
        assert!(matches!(answers.recv_timeout(WAIT).unwrap(), Ok(Outcome::Done)));
    }

    #[test]
    fn the_last_owner_may_be_an_answer() {
        let (_dir, pool) = pool(1, 8);
        let pool = Arc::new(pool);
        let (release, released) = bounded::<Arc<Pool>>(1);
        let (answer, answers) = bounded(1);
        let done = move |_| {
            drop(released.recv().unwrap());
            answer.send(()).unwrap();
        };
        pool.submit(done_task, done).unwrap();
        release.send(pool).unwrap();
        answers.recv_timeout(WAIT).unwrap();
    }

    #[test]
    fn a_job_that_is_passed_on_to_a_closed_pool_is_answered() {
        let (_dir, pool) = pool(1, 8);
        let entrance = pool.entrance();
        let (answer, answers) = bounded(2);
        let second = answer.clone();
        entrance.pass_on(done_task, move |result| answer.send(result).unwrap());
        assert!(matches!(answers.recv_timeout(WAIT).unwrap(), Ok(Outcome::Done)));
        drop(pool);
        entrance.pass_on(done_task, move |result| second.send(result).unwrap());
        assert!(matches!(answers.recv_timeout(WAIT).unwrap(), Err(AccountsError::Closed)));
    }

    #[test]
    fn threads_carry_their_name() {
        let (_dir, pool) = pool(2, 8);
        let (answer, answers) = bounded(1);
        let done = move |_| answer.send(thread::current().name().map(str::to_owned)).unwrap();
        pool.submit(done_task, done).unwrap();
        let name = answers.recv_timeout(WAIT).unwrap().unwrap();
        assert!(["accounts-0", "accounts-1"].contains(&name.as_str()), "{name}");
    }
}
