//! The thread that compresses files, so that no event loop stands still for it.
//!
//! Invariant: there is one for the process, from the first file on that it is needed for; it has a bounded queue, and keeps
//! nothing alive: a file that nobody serves any more when its turn comes is left alone. What does not fit in the queue is
//! not compressed now, and asked for again by the next request.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex, PoisonError, Weak};
use std::thread;

use super::cache::FileCache;
use super::static_file::StaticFile;

/// Files that wait.
const QUEUE: usize = 64;

/// A file to be compressed.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) file: Weak<StaticFile>,
    /// The number of the coding.
    pub(crate) place: usize,
    /// Where the file is kept, and under which path: it gets heavier.
    pub(crate) cache: Weak<Mutex<FileCache<std::sync::Arc<StaticFile>>>>,
    pub(crate) path: Box<[u8]>,
}

/// `None` when there can be no such thread.
static SENDER: LazyLock<Option<SyncSender<Job>>> = LazyLock::new(|| {
    let (sender, receiver) = sync_channel(QUEUE);
    match thread::Builder::new().name("compress".into()).spawn(move || run(&receiver)) {
        Ok(_) => Some(sender),
        Err(error) => {
            tracing::warn!(%error, "no thread to compress files: large ones are sent as they are");
            None
        }
    }
});

/// Takes a job, and answers whether it will be done.
pub(crate) fn submit(job: Job) -> bool {
    SENDER.as_ref().is_some_and(|sender| sender.try_send(job).is_ok())
}

fn run(jobs: &Receiver<Job>) {
    for job in jobs {
        let Some(file) = job.file.upgrade() else { continue };
        match file.make(job.place) {
            Ok(()) => {
                if let Some(cache) = job.cache.upgrade() {
                    cache.lock().unwrap_or_else(PoisonError::into_inner).weigh(&job.path);
                }
            }
            Err(error) => {
                tracing::debug!(path = %job.path.escape_ascii(), %error, "file not compressed");
                file.ask_again(job.place);
            }
        }
    }
}
