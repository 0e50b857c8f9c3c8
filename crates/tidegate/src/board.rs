//! `Board`: memory that all processes of a server share beside their counters, for people to look at: the last minutes, and
//! the last warnings and errors.
//!
//! The master makes it and enters a sample each second; every process enters what it warns of; the admin page reads it.
//! Invariant: it belongs to no generation. Reloads, upgrades and the end of whoever wrote leave it as it is.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_engine::Words;
use tidegate_log::Recent;
use tidegate_process::{Child, ChildSpec};
use tidegate_sys::shared::SharedMemory;

use crate::Error;
use crate::history::History;
use crate::run::worker::SharedWords;

/// What all processes share. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    words: Arc<dyn Words>,
    recent: Recent,
    history: History,
    /// The memory, for another process.
    fd: Option<Arc<OwnedFd>>,
}

impl Board {
    /// For the processes of a server.
    pub(crate) fn shared() -> Result<Self, Error> {
        let memory = SharedMemory::create("tidegate-board", WORDS * size_of::<u64>())
            .map_err(Error::system("making the board"))?;
        let fd = memory.as_fd().try_clone_to_owned().map_err(Error::system("sharing the board"))?;
        let board = Self::of(Arc::new(SharedWords(memory)), Some(Arc::new(fd)));
        let board =
            board.ok_or_else(|| Error::Service("the board has no room for what it is to hold".into()))?;
        board.words.words()[0].store(VERSION, Ordering::Relaxed);
        Ok(board)
    }

    /// For a server of one process.
    pub(crate) fn on_heap() -> Option<Self> {
        let block: Box<[AtomicU64]> = (0..WORDS).map(|_| AtomicU64::new(0)).collect();
        Self::of(Arc::new(block), None)
    }

    /// The one that this child was handed, if its master has one.
    pub(crate) fn take(child: &mut Child) -> Result<Option<Self>, Error> {
        child.take_fd(BOARD_FD).map_or(Ok(None), Self::from_fd)
    }

    /// Behind a descriptor; `None` when another version of this program has made it.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Option<Self>, Error> {
        let own = fd.try_clone().map_err(Error::system("sharing the board"))?;
        let memory = SharedMemory::from_fd(fd).map_err(Error::system("mapping the board"))?;
        let is_ours = memory.as_atomics()[0].load(Ordering::Relaxed) == VERSION;
        Ok(if is_ours { Self::of(Arc::new(SharedWords(memory)), Some(Arc::new(own))) } else { None })
    }

    fn of(words: Arc<dyn Words>, fd: Option<Arc<OwnedFd>>) -> Option<Self> {
        let history = History::new(Arc::clone(&words), HISTORY_AT)?;
        let recent = Recent::new(Arc::clone(&words), RECENT_AT)?;
        Some(Self { words, recent, history, fd })
    }

    /// The last warnings and errors.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// The last minutes.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    pub(crate) fn fd(&self) -> Option<&Arc<OwnedFd>> {
        self.fd.as_ref()
    }

    /// Hands it over to a child that is to be started.
    pub(crate) fn hand_to(board: Option<&Self>, child: ChildSpec) -> ChildSpec {
        match board.and_then(Self::fd) {
            Some(fd) => child.fd(BOARD_FD, Arc::clone(fd)),
            None => child,
        }
    }
}

/// The name under which it is handed over.
const BOARD_FD: &str = "board";
/// Of the layout; to be counted up with each change to it.
const VERSION: u64 = 1;
const HISTORY_AT: usize = 1;
const RECENT_AT: usize = HISTORY_AT + History::WORDS;
const WORDS: usize = RECENT_AT + Recent::WORDS;

#[cfg(test)]
mod tests {
    use tidegate_log::Severity;

    use super::*;
    use crate::history::Sample;

    #[test]
    fn another_process_sees_what_was_entered() {
        let board = Board::shared().unwrap();
        let fd = board.fd().unwrap().try_clone().unwrap();
        let other = Board::from_fd(fd).unwrap().unwrap();
        board.history().push(&Sample { unix_time: 17, ..Sample::default() });
        let line = br#"{"time":"2026-01-31T23:59:59Z","severity":"WARN","body":"late""#;
        board.recent().put(Severity::Warn, line);
        assert_eq!(other.history().samples()[0].unix_time, 17);
        assert_eq!(other.recent().read()[0].body, "late");
    }

    #[test]
    fn a_board_of_another_version_is_not_used() {
        let board = Board::shared().unwrap();
        board.words.words()[0].store(VERSION + 1, Ordering::Relaxed);
        assert!(Board::from_fd(board.fd().unwrap().try_clone().unwrap()).unwrap().is_none());
        let small = SharedMemory::create("small", 8).unwrap();
        small.as_atomics()[0].store(VERSION, Ordering::Relaxed);
        assert!(Board::from_fd(small.as_fd().try_clone_to_owned().unwrap()).unwrap().is_none());
    }
}
