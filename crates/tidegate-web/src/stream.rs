//! `BodyStream`: a response's body that is made while it is sent.
//!
//! Invariant: no more is made than the client takes. A function is called when there is room for its output; a
//! [`BodyWriter`] has a buffer of a fixed size, and whoever writes waits while it is full. A body that breaks off reaches the
//! client as broken off, never as whole.

use std::fmt;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_engine::ConnHandle;

use crate::note::{Note, Word};

/// A body whose length nobody knows. Sent chunked; to a client of HTTP/1.0 up to the end of the connection.
///
/// A clone is the same stream. It is sent once; whoever comes second sends a broken one.
#[derive(Clone)]
pub struct BodyStream {
    source: Arc<Mutex<Option<Source>>>,
}

/// What a function that makes a body says of what it has appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// It was something, and there is more.
    More,
    /// That was all.
    End,
    /// It cannot go on: the client is to see that the body is not whole.
    Failed,
}

/// Where a stream comes from.
pub(crate) enum Source {
    Function(Box<Pull>),
    Pipe(Reader),
}

/// Appends what it makes.
type Pull = dyn FnMut(&mut Vec<u8>) -> Pulled + Send;

/// The end of a pipe for threads that write.
///
/// Dropped without [`finish`](Self::finish), the body counts as broken off.
#[derive(Debug)]
pub struct BodyWriter {
    pipe: Arc<Pipe>,
    finished: bool,
}

/// The client has gone, or the stream was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nobody reads this stream any more")]
pub struct StreamClosed;

impl BodyStream {
    /// A body that `pull` makes: it appends to the buffer, best some 16 KiB at a time, whenever there is room. It runs in the
    /// loop and must not block.
    ///
    /// ```
    /// use tidegate_web::{BodyStream, Pulled, Response, Status, Web};
    ///
    /// let web = Web::builder().handler("/numbers", |_| {
    ///     let mut numbers = 0..1_000_000;
    ///     let stream = BodyStream::pull(move |out| {
    ///         for number in numbers.by_ref().take(2000) {
    ///             out.extend_from_slice(format!("{number}\n").as_bytes());
    ///         }
    ///         if numbers.is_empty() { Pulled::End } else { Pulled::More }
    ///     });
    ///     Response::new(Status::OK).body(stream)
    /// });
    /// # drop(web.build());
    /// ```
    pub fn pull(pull: impl FnMut(&mut Vec<u8>) -> Pulled + Send + 'static) -> Self {
        Self::of(Source::Function(Box::new(pull)))
    }

    /// A body that other threads write, with a buffer of `capacity` bytes, at least 1, between them and the client.
    #[must_use]
    pub fn pipe(capacity: usize) -> (BodyWriter, Self) {
        let pipe =
            Arc::new(Pipe { state: Mutex::default(), changed: Condvar::new(), capacity: capacity.max(1) });
        let reader = Reader { pipe: Arc::clone(&pipe) };
        (BodyWriter { pipe, finished: false }, Self::of(Source::Pipe(reader)))
    }

    fn of(source: Source) -> Self {
        Self { source: Arc::new(Mutex::new(Some(source))) }
    }

    /// What it comes from, for the one who sends it.
    pub(crate) fn take(&self) -> Option<Source> {
        lock(&self.source).take()
    }
}

impl Source {
    /// One that is not whole.
    pub(crate) fn broken() -> Self {
        Self::Function(Box::new(|_| Pulled::Failed))
    }

    /// Appends what is there; `None` when nothing is, and the connection will be told when there is.
    pub(crate) fn pull(&mut self, out: &mut Vec<u8>) -> Option<Pulled> {
        match self {
            Self::Function(pull) => {
                let pulled = pull(out);
                if pulled == Pulled::More && out.is_empty() {
                    tracing::error!("a stream has appended nothing and says that there is more");
                    return Some(Pulled::Failed);
                }
                Some(pulled)
            }
            Self::Pipe(reader) => reader.pull(out),
        }
    }

    /// Says whom to tell that there is something to send.
    pub(crate) fn attach(&self, connection: ConnHandle<Note>) {
        if let Self::Pipe(reader) = self {
            lock(&reader.pipe.state).connection = Some(connection);
        }
    }
}

/// Bytes on their way from a thread to the loop.
#[derive(Debug)]
struct Pipe {
    state: Mutex<State>,
    /// Something was taken, or nobody reads any more.
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    /// At most the capacity.
    bytes: Vec<u8>,
    end: Option<Pulled>,
    closed: bool,
    /// The reader found nothing and is to be told.
    waited_for: bool,
    connection: Option<ConnHandle<Note>>,
}

impl State {
    /// Tells the connection that there is something, if it waits for that. A mailbox that is full is tried again.
    fn tell(&mut self) {
        if self.waited_for
            && let Some(connection) = &self.connection
            && connection.post(Note(Word::Stream)).is_ok()
        {
            self.waited_for = false;
        }
    }
}

/// How long a writer waits before it looks whether the reader has to be told once more.
const AGAIN: Duration = Duration::from_millis(100);

impl BodyWriter {
    /// Writes all of it, and waits while there is no room. Not for the threads of a loop.
    ///
    /// # Errors
    ///
    /// [`StreamClosed`].
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), StreamClosed> {
        loop {
            let taken = self.try_write(bytes)?;
            bytes = &bytes[taken..];
            if bytes.is_empty() {
                return Ok(());
            }
            let mut state = lock(&self.pipe.state);
            while state.bytes.len() >= self.pipe.capacity && !state.closed {
                state.tell();
                state =
                    self.pipe.changed.wait_timeout(state, AGAIN).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Writes as much as there is room for at once, and says how many bytes that were.
    ///
    /// # Errors
    ///
    /// [`StreamClosed`].
    pub fn try_write(&mut self, bytes: &[u8]) -> Result<usize, StreamClosed> {
        let mut state = lock(&self.pipe.state);
        if state.closed {
            return Err(StreamClosed);
        }
        let room = self.pipe.capacity.saturating_sub(state.bytes.len());
        let taken = room.min(bytes.len());
        state.bytes.extend_from_slice(&bytes[..taken]);
        if !state.bytes.is_empty() {
            state.tell();
        }
        Ok(taken)
    }

    /// The body is whole.
    pub fn finish(mut self) {
        self.end(Pulled::End);
    }

    fn end(&mut self, end: Pulled) {
        if !mem::replace(&mut self.finished, true) {
            let mut state = lock(&self.pipe.state);
            state.end = Some(end);
            state.tell();
        }
    }
}

impl Drop for BodyWriter {
    fn drop(&mut self) {
        self.end(Pulled::Failed);
    }
}

/// The end of a pipe for the loop.
#[derive(Debug)]
pub(crate) struct Reader {
    pipe: Arc<Pipe>,
}

impl Reader {
    fn pull(&self, out: &mut Vec<u8>) -> Option<Pulled> {
        let mut state = lock(&self.pipe.state);
        if state.bytes.is_empty() {
            if let Some(end) = state.end {
                return Some(end);
            }
            state.waited_for = true;
            return None;
        }
        if out.is_empty() {
            mem::swap(out, &mut state.bytes);
        } else {
            out.append(&mut state.bytes);
        }
        self.pipe.changed.notify_all();
        // Whether that was all, the next pull finds out.
        Some(Pulled::More)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = lock(&self.pipe.state);
        state.closed = true;
        state.connection = None;
        state.bytes = Vec::new();
        self.pipe.changed.notify_all();
    }
}

/// Every change of what is locked here is whole, also when a thread panics in between.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BodyStream")
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Function(_) => "Function",
            Self::Pipe(_) => "Pipe",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pull(source: &mut Source) -> (Option<Pulled>, Vec<u8>) {
        let mut out = Vec::new();
        let pulled = source.pull(&mut out);
        (pulled, out)
    }

    #[test]
    fn a_pipe_takes_what_it_has_room_for_and_gives_all_of_it() {
        let (mut writer, stream) = BodyStream::pipe(4);
        let mut source = stream.take().unwrap();
        assert_eq!(pull(&mut source), (None, vec![]));
        assert_eq!(writer.try_write(b"abcdef"), Ok(4));
        assert_eq!(writer.try_write(b"ef"), Ok(0));
        assert_eq!(pull(&mut source), (Some(Pulled::More), b"abcd".to_vec()));
        assert_eq!(writer.try_write(b"ef"), Ok(2));
        writer.finish();
        assert_eq!(pull(&mut source), (Some(Pulled::More), b"ef".to_vec()));
        assert_eq!(pull(&mut source), (Some(Pulled::End), vec![]));
    }

    #[test]
    fn a_writer_that_is_dropped_has_failed_and_one_without_a_reader_is_told() {
        let (writer, stream) = BodyStream::pipe(4);
        drop(writer);
        assert_eq!(pull(&mut stream.take().unwrap()).0, Some(Pulled::Failed));

        let (mut writer, stream) = BodyStream::pipe(4);
        assert_eq!(writer.try_write(b"abcd"), Ok(4));
        drop(stream);
        assert_eq!(writer.write(b"e"), Err(StreamClosed));
    }

    #[test]
    fn who_waits_for_room_gets_it() {
        let (mut writer, stream) = BodyStream::pipe(3);
        let writing = std::thread::spawn(move || {
            writer.write(b"0123456789").unwrap();
            writer.finish();
        });
        let (mut source, mut all) = (stream.take().unwrap(), Vec::new());
        loop {
            let (pulled, mut bytes) = pull(&mut source);
            assert!(bytes.len() <= 3);
            all.append(&mut bytes);
            match pulled {
                Some(Pulled::End) => break,
                Some(_) => {}
                None => std::thread::yield_now(),
            }
        }
        writing.join().unwrap();
        assert_eq!(all, b"0123456789");
    }

    #[test]
    fn a_stream_is_sent_once_and_a_function_must_make_something() {
        let stream = BodyStream::pull(|_| Pulled::More);
        let mut source = stream.clone().take().unwrap();
        assert!(stream.take().is_none());
        assert_eq!(pull(&mut source).0, Some(Pulled::Failed));
    }
}
