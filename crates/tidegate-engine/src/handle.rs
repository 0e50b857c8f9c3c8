//! `ConnHandle`: reaches a connection from another thread.
//!
//! What is posted goes through the mailbox of the loop that owns the connection, and that thread does it. A handle names a
//! slot and a generation: once the connection is gone it answers [`HandleError::Gone`], whoever has the slot now.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_reactor::{Token, Waker};

use crate::connect::{Client, Dial, MAX_CONNECTS};
use crate::generations::Generations;
use crate::intake::{Arrival, Handed, Intake};
use crate::order::{MAX_ORDERS, MAX_QUESTIONS, Order, Question};
use crate::wish::Wish;
use crate::{ConnectError, Reason};

/// The identity of a connection within its loop: a slot, and the generation that tells its users apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId(pub(crate) Token);

impl ConnId {
    /// The connection that was named by these two numbers.
    #[must_use]
    pub fn from_parts(slot: u32, generation: u32) -> Self {
        Self(Token { slot, generation })
    }

    /// The place in the connection table.
    #[must_use]
    pub fn slot(self) -> u32 {
        self.0.slot
    }

    /// Which user of the slot it is; never 0.
    #[must_use]
    pub fn generation(self) -> u32 {
        self.0.generation
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.slot, self.0.generation)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a handle could not deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// The connection has ended.
    #[error("the connection has ended")]
    Gone,
    /// The loop's mailbox holds as many letters or bytes as it may; the loop is stuck or flooded.
    #[error("the mailbox of the event loop is full ({MAX_LETTERS} letters or {MAX_LETTER_BYTES} bytes)")]
    Full,
}

/// How many letters wait for a loop at the most.
pub const MAX_LETTERS: usize = 65_536;
/// How many bytes of [`ConnHandle::send`] wait for a loop at the most; a larger one is taken when no other waits.
pub const MAX_LETTER_BYTES: usize = 64 << 20;

/// Reaches one connection from any thread. `N` is the [`Note`](crate::Service::Note) of its service.
pub struct ConnHandle<N> {
    id: Token,
    shared: Arc<Shared>,
    note: PhantomData<fn(N)>,
}

impl<N> Clone for ConnHandle<N> {
    fn clone(&self) -> Self {
        Self { id: self.id, shared: Arc::clone(&self.shared), note: PhantomData }
    }
}

impl<N> fmt::Debug for ConnHandle<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnHandle({})", ConnId(self.id))
    }
}

/// Equal handles reach the same connection: loops have their slots for themselves, so the loop is compared, too.
impl<N> PartialEq for ConnHandle<N> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<N> Eq for ConnHandle<N> {}

impl<N> Hash for ConnHandle<N> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        Arc::as_ptr(&self.shared).hash(state);
    }
}

impl<N: Send + 'static> ConnHandle<N> {
    pub(crate) fn new(id: Token, shared: Arc<Shared>) -> Self {
        Self { id, shared, note: PhantomData }
    }

    /// Which connection it is.
    #[must_use]
    pub fn id(&self) -> ConnId {
        ConnId(self.id)
    }

    /// Its name in this loop; `None` when it is of another one.
    pub(crate) fn token_in(&self, shared: &Arc<Shared>) -> Option<Token> {
        Arc::ptr_eq(&self.shared, shared).then_some(self.id)
    }

    /// Sends bytes to the peer, after what was sent before.
    ///
    /// # Errors
    ///
    /// [`HandleError`]. A connection that ends after the call may still lose the bytes.
    pub fn send(&self, bytes: impl Into<Vec<u8>>) -> Result<(), HandleError> {
        self.shared.post(self.id, Letter::Send(bytes.into()))
    }

    /// Hands a note to the service's `on_note`.
    ///
    /// # Errors
    ///
    /// [`HandleError`]. The note is dropped when the connection ends before it is delivered.
    pub fn post(&self, note: N) -> Result<(), HandleError> {
        self.shared.post(self.id, Letter::Note(Box::new(note)))
    }

    /// Closes the connection: what is queued is delivered first when the reason ends with FIN.
    ///
    /// # Errors
    ///
    /// [`HandleError`].
    pub fn close(&self, reason: Reason) -> Result<(), HandleError> {
        self.shared.post(self.id, Letter::Close(reason))
    }

    /// Whether the connection is still there. It may end right after the answer.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.is_open(self.id)
    }
}

/// What other threads share with a loop.
#[derive(Debug)]
pub(crate) struct Shared {
    mailbox: Mutex<Mailbox>,
    /// Letters that have left the mailbox and have not been read: their turn has not come, or they wait for a session
    /// that is away. Written by the loop alone.
    unread_letters: AtomicUsize,
    /// The bytes in them.
    unread_bytes: AtomicUsize,
    waker: Waker,
    generations: Generations,
    /// The sites that connections can be asked for of.
    pub(crate) clients: Box<[Client]>,
    /// What comes from an acceptor, and the count of connections.
    pub(crate) intake: Intake,
}

#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    letters: Vec<(Token, Letter)>,
    /// The bytes in the letters.
    bytes: usize,
    orders: Vec<Order>,
    /// Connections that are wanted.
    dials: Vec<Dial>,
    command: Option<Command>,
    ended: bool,
}

/// What is to be done with a connection.
pub(crate) enum Letter {
    Send(Vec<u8>),
    Note(Box<dyn Any + Send>),
    Close(Reason),
}

impl Letter {
    /// What it takes of memory; what is in a note only its service knows.
    fn bytes(&self) -> usize {
        match self {
            Self::Send(bytes) => bytes.capacity(),
            Self::Note(_) | Self::Close(_) => 0,
        }
    }
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "Send({} bytes)", bytes.len()),
            Self::Note(_) => f.write_str("Note"),
            Self::Close(reason) => write!(f, "Close({reason})"),
        }
    }
}

/// What is to be done with the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Stop accepting, and end when the connections have.
    Quit { grace: Duration },
    /// End now.
    Stop,
}

impl Shared {
    /// `handed` are the sites that an acceptor is to hand connections over for.
    pub(crate) fn new(waker: Waker, slots: usize, handed: Vec<Handed>, clients: Vec<Client>) -> Self {
        Self {
            intake: Intake::new(waker.clone(), slots, handed),
            mailbox: Mutex::default(),
            unread_letters: AtomicUsize::new(0),
            unread_bytes: AtomicUsize::new(0),
            waker,
            // One more than the limit: see `LoopBuilder::build_on`.
            generations: Generations::new(slots + 1),
            clients: clients.into(),
        }
    }

    pub(crate) fn is_open(&self, id: Token) -> bool {
        self.generations.is_open(id)
    }

    /// Called by the loop when a connection takes a slot (its generation) or leaves it (0).
    pub(crate) fn set_generation(&self, slot: u32, generation: u32) {
        self.generations.set(slot, generation);
    }

    /// Called by the loop when it reads a letter that it had collected.
    pub(crate) fn letter_read(&self, letter: &Letter) {
        let (unread, bytes) = (&self.unread_letters, &self.unread_bytes);
        unread.store(unread.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        bytes.store(self.unread_bytes().saturating_sub(letter.bytes()), Ordering::Relaxed);
    }

    /// The bytes in letters that the loop has collected and not read.
    fn unread_bytes(&self) -> usize {
        self.unread_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn post(&self, id: Token, letter: Letter) -> Result<(), HandleError> {
        if !self.is_open(id) {
            return Err(HandleError::Gone);
        }
        let mut mailbox = self.lock();
        if mailbox.ended {
            return Err(HandleError::Gone);
        }
        let waiting = mailbox.bytes + self.unread_bytes();
        if mailbox.letters.len() + self.unread_letters.load(Ordering::Relaxed) >= MAX_LETTERS
            || (waiting > 0 && waiting.saturating_add(letter.bytes()) > MAX_LETTER_BYTES)
        {
            return Err(HandleError::Full);
        }
        mailbox.bytes += letter.bytes();
        mailbox.letters.push((id, letter));
        // The first letter wakes the loop; those that follow before it comes are read in the same turn.
        let wake = mailbox.letters.len() == 1;
        drop(mailbox);
        if wake {
            self.waker.wake();
        }
        Ok(())
    }

    /// Has something done in passing. What a loop does not do because it has ended is not missed.
    pub(crate) fn order(&self, order: Order) {
        let mut mailbox = self.lock();
        if mailbox.ended {
            return;
        }
        if mailbox.orders.len() >= MAX_ORDERS {
            drop(mailbox);
            return tracing::error!(
                ?order,
                "the event loop has {MAX_ORDERS} orders to carry out; this one is lost"
            );
        }
        mailbox.orders.push(order);
        drop(mailbox);
        self.waker.wake();
    }

    /// Asks for an outgoing connection.
    pub(crate) fn dial(&self, dial: Dial) -> Result<(), ConnectError> {
        let mut mailbox = self.lock();
        if mailbox.ended {
            return Err(ConnectError::Ended);
        }
        if mailbox.dials.len() >= MAX_CONNECTS {
            return Err(ConnectError::Full);
        }
        mailbox.dials.push(dial);
        let wake = mailbox.dials.len() == 1;
        drop(mailbox);
        if wake {
            self.waker.wake();
        }
        Ok(())
    }

    /// Takes the connections that were asked for.
    pub(crate) fn collect_dials(&self, wishes: &mut VecDeque<Wish>) {
        wishes.extend(self.lock().dials.drain(..).map(Wish::Connect));
    }

    /// Asks for connections. False when the loop has been asked too often already; when it has ended, the question is
    /// dropped.
    pub(crate) fn ask(&self, question: Question) -> bool {
        let questions = self.lock().orders.iter().filter(|order| matches!(order, Order::List(_))).count();
        if questions >= MAX_QUESTIONS {
            return false;
        }
        self.order(Order::List(question));
        true
    }

    pub(crate) fn command(&self, command: Command) {
        let mut mailbox = self.lock();
        // Told to stop, a loop does not wait for anybody, whatever it is told next.
        if mailbox.command != Some(Command::Stop) {
            mailbox.command = Some(command);
        }
        drop(mailbox);
        self.waker.wake();
    }

    /// Takes what has come, and gives the emptied vectors back for what comes next.
    pub(crate) fn collect(
        &self,
        letters: &mut Vec<(Token, Letter)>,
        orders: &mut Vec<Order>,
    ) -> Option<Command> {
        let mut mailbox = self.lock();
        std::mem::swap(&mut mailbox.letters, letters);
        std::mem::swap(&mut mailbox.orders, orders);
        let unread = self.unread_letters.load(Ordering::Relaxed);
        self.unread_letters.store(unread + letters.len(), Ordering::Relaxed);
        let bytes = std::mem::take(&mut mailbox.bytes);
        self.unread_bytes.store(self.unread_bytes() + bytes, Ordering::Relaxed);
        mailbox.command.take()
    }

    /// The loop has ended: whatever is posted from now on is for nobody. Answers the connections that were handed over and
    /// not taken.
    pub(crate) fn end(&self) -> Vec<Arrival> {
        let mut mailbox = self.lock();
        mailbox.ended = true;
        let letters = std::mem::take(&mut mailbox.letters);
        let orders = std::mem::take(&mut mailbox.orders);
        drop(mailbox);
        drop(orders);
        // Without the lock: the destructor of a note may well post another.
        letters.into_iter().for_each(crate::host::discard);
        self.intake.close()
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        // A panic while the lock is held leaves a whole mailbox: every change of it is one operation.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
